"""Numbers in PyTorch's elementwise operators, on the chip against the CPU, where its samples say little.

Three kinds of cases. `exponents` of an operator: its argument goes through every exponent of the type, with both
signs, zeros, infinities and NaN, and results are measured in units in the last place of the exact ones. `beside`: the
operator with a Python number as its other argument, small, large, fractional or negative, for every type; what the CPU
refuses the chip must refuse. `large`: samples of the operator made so large that what lies between its arguments and
its result overflows a half type.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tapeout.workbench.scoreboard import operators, verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict, worst

FLOATS = ("float32", "float64", "bfloat16", "float16")
NUMBERS: tuple[bool | int | float, ...] = (
    0, 1, 2, -1, 7, 300, True, 0.5, -0.5, 2.5, 0.7, 1e-9, 1e30, -1e9, math.inf, -math.inf, math.nan, 2**31, 2**40,
)  # fmt: skip
LARGE = 200.0
"""Its square is beyond what float16 holds."""

UNITS = 4
"""Units in the last place that a result may always be off; else four times the CPU's own error."""


def cases(modes: tuple[str, ...]) -> list[Case]:
    """Elementwise operators by kind and dtype; with torch.compile only those of one argument."""
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, UnaryUfuncInfo

    found = []
    for mode in modes:
        if mode not in ("eager", "compiled"):
            continue
        for name, op in sorted(operators.database().items()):
            has = {dtype for dtype, torchs in operators.DTYPES.items() if torchs in op.supported_dtypes("cpu")}
            if isinstance(op, UnaryUfuncInfo):
                found += [Case(f"{name} exponents", dtype, mode) for dtype in FLOATS if dtype in has]
            if mode == "compiled":
                continue
            if isinstance(op, BinaryUfuncInfo):
                found += [Case(f"{name} beside", dtype, mode) for dtype in operators.DTYPES if dtype in has]
            found += [Case(f"{name} large", dtype, mode) for dtype in ("float16", "bfloat16") if dtype in has]
    return found


def judge(case: Case, sample_limit: int) -> Outcome:
    """Run a case; of `large`, so many samples."""
    name, kind = case.name.rsplit(" ", 1)
    op, dtype = operators.database()[name], operators.DTYPES[case.dtype]
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "exponents":
            outcomes = [_judge_exponents(case, op, dtype)]
        elif kind == "beside":
            outcomes = [_judge_number(case, op, dtype, number) for number in NUMBERS]
        else:
            chosen = operators.samples(op, dtype, False, sample_limit)
            outcomes = [_judge_large(case, op, sample) for sample in chosen]
    if not outcomes:
        return Outcome(case, Verdict.SKIPPED, "no sample")
    decisive = worst(outcomes)
    return Outcome(case, decisive.verdict, decisive.cause, len(outcomes))


def _judge_exponents(case: Case, op: Any, dtype: torch.dtype) -> Outcome:
    given = every_exponent(dtype)
    try:
        expected, exact = op(given), op(given.double())
    except Exception as error:
        return Outcome(case, Verdict.SKIPPED, f"the CPU refuses: {verdicts.first_line(error)}")
    function = operators._through_inductor(op) if case.mode == "compiled" else op
    try:
        got = function(given.to("chip")).cpu()
    except Exception as error:
        return verdicts.of_error(case, error)
    fault = misfit(given, got, expected, exact)
    return Outcome(case, Verdict.WRONG, fault, 1) if fault else Outcome(case, Verdict.NATIVE, sample_count=1)


def every_exponent(dtype: torch.dtype) -> torch.Tensor:
    """Two numbers of each normal exponent of the type with each sign; then numbers up to 20, zeros and no numbers."""
    kind = torch.finfo(dtype)
    low, high = round(math.log2(kind.tiny)), math.floor(math.log2(kind.max))
    powers = 2.0 ** torch.arange(low, high + 1, 8 if dtype is torch.float64 else 1, dtype=torch.float64)
    size = torch.cat([powers, powers * 1.3, torch.linspace(0, 20, 161, dtype=torch.float64)])
    others = torch.tensor([0.0, math.inf, math.nan], dtype=torch.float64)
    return torch.cat([size, -size, others, -others]).to(dtype)


def misfit(given: torch.Tensor, got: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor) -> str | None:
    """Return what is wrong with a result: its type, where it is no number, a sign of a zero, or its distance to the
    exact."""
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return f"{got.dtype} {list(got.shape)} instead of {expected.dtype} {list(expected.shape)}"
    if not got.is_floating_point():
        wrong = got != expected
    else:
        kind = torch.finfo(got.dtype)
        ours, theirs, truth = got.double(), expected.double(), exact.double()
        rounded = truth.to(got.dtype).double()
        unit = kind.eps * truth.abs().clamp(min=kind.tiny)

        def distance(found: torch.Tensor) -> torch.Tensor:
            is_right = (found == rounded) | (found.isnan() & rounded.isnan())
            return torch.where(is_right, 0.0, ((found - truth).abs() / unit).nan_to_num(math.inf, math.inf))

        far = (distance(ours) > UNITS) & (distance(ours) > 4 * distance(theirs)) & (ours != theirs)
        other_zero = (ours == 0) & (theirs == 0) & (truth == 0) & (ours.signbit() != theirs.signbit())
        other_zero &= ours.signbit() != truth.signbit()
        wrong = far | other_zero | ((ours.isnan() != theirs.isnan()) & (ours.isnan() != truth.isnan()))
    if not wrong.any():
        return None
    place = int(wrong.nonzero()[0])
    argument = given.flatten()[place % given.numel()].item()
    return (
        f"of {argument!r}: {got.flatten()[place].item()!r} instead of {expected.flatten()[place].item()!r} "
        f"({int(wrong.sum())} of {wrong.numel()})"
    )


def _judge_number(case: Case, op: Any, dtype: torch.dtype, number: float) -> Outcome:
    numbers = (0, 1, 2, 3, 100) if dtype is not torch.bool else (0, 1)
    given = torch.tensor(numbers, dtype=dtype)
    if dtype.is_signed:
        given = torch.cat([given, -given])
    if dtype.is_floating_point:
        given = torch.cat([given, given / 7, torch.tensor([math.inf, math.nan], dtype=dtype)])

    def run(device: str, wider: bool = False) -> torch.Tensor | Exception:
        try:
            tensor = given.to(device)
            result = op(tensor.double() if wider else tensor, number)
        except Exception as error:
            return error
        return result.cpu() if isinstance(result, torch.Tensor) else TypeError("no tensor")

    expected, got = run("cpu"), run("chip")
    if isinstance(expected, Exception) or isinstance(got, Exception):
        if isinstance(expected, Exception) and isinstance(got, Exception):
            return Outcome(case, Verdict.NATIVE, sample_count=1)
        if isinstance(got, Exception):
            failed = verdicts.of_error(case, got)
            return Outcome(case, failed.verdict, f"beside {number!r}: {failed.cause}", 1)
        if "not implemented for" in str(expected) or "ZeroDivisionError" in str(expected):
            return Outcome(case, Verdict.SKIPPED, f"the CPU refuses: {expected}", 1)
        return Outcome(case, Verdict.WRONG, f"beside {number!r}: taken, where the CPU raises {expected}", 1)
    # The number may be rounded to a half type or not, so what is exact is what the CPU has, in more digits.
    fault = misfit(given, got, expected, expected)
    return Outcome(case, Verdict.WRONG, f"beside {number!r}: {fault}", 1) if fault else Outcome(case, Verdict.NATIVE)


def _judge_large(case: Case, op: Any, sample: Any) -> Outcome:
    factor = LARGE if case.dtype == "float16" else LARGE * 2.0**57

    def enlarged(leaf: Any) -> Any:
        is_half = isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
        return leaf.detach() / leaf.detach().abs().max().clamp(min=1e-3) * factor if is_half and leaf.numel() else leaf

    arguments = pytree.tree_map(enlarged, ((sample.input, *sample.args), sample.kwargs))
    function: Callable[..., Any] = operators._stable(op) if op.name in operators.SORTS else op
    randomness = operators._RandomnessWatch()
    try:
        with randomness:
            expected = operators.results(function, operators.copied(arguments, "cpu"), False)
    except Exception as error:
        return Outcome(case, Verdict.SKIPPED, f"the CPU refuses: {verdicts.first_line(error)}")
    try:
        got = operators.results(op, operators.copied(arguments, "chip"), False)
    except Exception as error:
        return verdicts.of_error(case, error)
    free = randomness.seen or op.name in operators.UNINITIALISED
    fault = operators.difference(got, expected, free)
    if fault and not operators._is_as_good_as_the_cpu(op, arguments, False, got, expected):
        return Outcome(case, Verdict.WRONG, fault, 1)
    return Outcome(case, Verdict.NATIVE, sample_count=1)
