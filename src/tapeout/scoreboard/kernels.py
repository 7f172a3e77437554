"""Triton kernels of other people's packages, each public function on chip tensors against PyTorch on the CPU.

`liger_kernel`: every function of its functional interface, forward and backward, against a reference in plain PyTorch.
`flag_gems`: every function that it registers for an operator of PyTorch's, called as that operator is called when the
samples of PyTorch's own database (OpInfo) run, against the operator. The packages were written for NVIDIA's GPUs:
CUDA's names mean the chip in a process that judges them. A call that the package's own Python code refuses (FlagGems'
softmax takes no tensor without dimensions) is skipped.
"""

import contextlib
import functools
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tapeout import work
from tapeout.scoreboard import liger_kernel_references as liger
from tapeout.scoreboard import operators, verdicts
from tapeout.scoreboard.verdicts import Case, Outcome, Verdict

# Where the database has an operator's samples under a name that does not contain the operator's.
DATABASE_NAMES: dict[str, tuple[str, ...]] = {}


def cases(modes: tuple[str, ...]) -> list[Case]:
    """Every function of both packages, in float32. There is only one mode: a kernel is called as it is."""
    if "eager" not in modes:
        return []
    functions = liger_functions()
    unknown = functions - liger.REFERENCES.keys() - liger.NOT_APPLICABLE.keys()
    assert not unknown, f"liger_kernel has functions without a reference: {sorted(unknown)}"
    names = [f"liger_kernel.{name}" for name in sorted(functions)]
    names += [f"flag_gems.{name}" for name in sorted(gems_functions())]
    return [Case(name, "float32", "eager") for name in names]


def judge(case: Case, sample_limit: int) -> Outcome:
    """Call the function and the reference with the same arguments."""
    package, _, name = case.name.partition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _judge_liger(case, name) if package == "liger_kernel" else _judge_gems(case, name, sample_limit)


@functools.cache
def _name_cuda() -> None:
    from tapeout.pytorch import cuda_names

    operators.database()  # it wants CUDA's own names when it is imported
    cuda_names.install()


def liger_functions() -> set[str]:
    _name_cuda()
    import liger_kernel.transformers.functional as functional

    return {name for name in vars(functional) if name.startswith("liger_")}


@functools.cache
def gems_functions() -> dict[str, Callable[..., Any]]:
    """FlagGems' functions by the name of the operator each is for: "add.Tensor"."""
    _name_cuda()
    os.environ.setdefault("GEMS_VENDOR", "nvidia")
    import flag_gems

    return {entry[0]: entry[1] for entry in flag_gems._FULL_CONFIG}


def _judge_liger(case: Case, name: str) -> Outcome:
    if name in liger.NOT_APPLICABLE:
        return Outcome(case, Verdict.SKIPPED, liger.NOT_APPLICABLE[name])
    import liger_kernel.transformers.functional as functional

    make, reference = liger.REFERENCES[name]
    torch.manual_seed(operators.SEED)
    arguments: Any = make(), {}
    expected = operators.results(reference, operators.copied(arguments, "cpu"), differentiable=True)
    function = functools.partial(getattr(functional, name), **liger.OPTIONS.get(name, {}))
    before = work.so_far()
    try:
        got = operators.results(function, operators.copied(arguments, "chip"), differentiable=True)
    except Exception as error:
        return verdicts.of_error(case, error)
    on_host = (work.so_far() - before).ops_on_host
    if fault := operators.difference(got, expected, values_are_free=False):
        return Outcome(case, Verdict.WRONG, fault, 1)
    return verdicts.of_right_result(case, on_host)


def _judge_gems(case: Case, name: str, sample_limit: int) -> Outcome:
    operator = _overload(name)
    if operator is None:
        return Outcome(case, Verdict.SKIPPED, "this PyTorch has no such operator")
    calls = _calls(operator, sample_limit)
    if not calls:
        return Outcome(case, Verdict.SKIPPED, "no sample of PyTorch's database calls the operator")
    decisive = verdicts.worst([_judge_call(case, operator, gems_functions()[name], call) for call in calls])
    return Outcome(case, decisive.verdict, decisive.cause, len(calls))


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


def _judge_call(case: Case, operator: Any, function: Callable[..., Any], call: Any) -> Outcome:
    def run(callee: Callable[..., Any], arguments: Any) -> list[Any]:
        """What it returns, and its tensors afterwards."""
        with torch.no_grad():
            found = operators.results(callee, arguments, differentiable=False)
        return [*found, *(leaf.cpu() for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))]

    expected = run(operator, operators.copied(call, "cpu"))
    before = work.so_far()
    try:
        got = run(function, operators.copied(call, "chip"))
    except Exception as error:
        if _is_of_package(error, "flag_gems"):
            return Outcome(case, Verdict.SKIPPED, f"FlagGems refuses: {verdicts.first_line(error)}")
        return verdicts.of_error(case, error)
    on_host = (work.so_far() - before).ops_on_host
    values_are_free = torch.Tag.nondeterministic_seeded in operator.tags
    if fault := operators.difference(got, expected, values_are_free):
        return Outcome(case, Verdict.WRONG, fault, 1)
    return verdicts.of_right_result(case, on_host)


def _is_of_package(error: Exception, package: str) -> bool:
    """Whether a line of the package's own checked an argument and raised the error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    own = f"{os.sep}{package}{os.sep}" in frame.filename
    return own and isinstance(error, AssertionError | ValueError | TypeError | IndexError)


def _calls(operator: Any, limit: int) -> list[Any]:
    """Arguments with which the database's samples call an operator, different in form; made here if none calls it."""
    recorder = _Recorder(operator)
    for info in _related(operator.overloadpacket.__name__):
        dtype = next(dtype for dtype in operators.DTYPES.values() if dtype in info.supported_dtypes("cpu"))
        differentiable = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
        for sample in operators.samples(info, dtype, differentiable, limit):
            _exercise(info, sample, operator, recorder)
            if len(recorder.calls) >= limit:
                return recorder.calls
    return recorder.calls


def _exercise(info: Any, sample: Any, operator: Any, recorder: "_Recorder") -> None:
    """Run a sample in the ways that may call the operator; errors mean that a way does not fit the operator."""
    arguments = (sample.input, *sample.args), sample.kwargs
    outs = [argument.name for argument in operator._schema.arguments if argument.is_out]
    positional, named = operators.copied(arguments, "cpu")
    ways: list[Callable[[], Any]] = []
    if outs:
        results = pytree.tree_leaves(info(*positional, **named))
        named = named | {name: torch.empty_like(result) for name, result in zip(outs, results, strict=False)}
    elif operator._schema.name.endswith("_") and info.inplace_variant is not None:
        positional = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in positional)
        ways.append(lambda: info.inplace_variant(*positional, **named))
    else:
        ways.append(lambda: operators.results(info, (positional, named), differentiable=info.supports_autograd))
    ways.append(lambda: operator(*positional, **named))
    for way in ways:
        with recorder, contextlib.suppress(Exception):
            way()
        if recorder.calls:
            return


def _related(packet: str) -> Iterator[Any]:
    """Operators of the database that may call aten's of that name, the likeliest first."""
    stem = packet.strip("_")
    for affix in ("_backward_data", "_backward", "_forward", "_interface", "_with_indices", "_impl"):
        stem = stem.removesuffix(affix)
    database = operators.database()
    names = [name for name in database if name.rpartition(".")[2] == stem or database[name].name == stem]
    names += [name for name in DATABASE_NAMES.get(packet, ()) if name not in names]
    yield from (database[name] for name in names)


class _Recorder(TorchDispatchMode):
    """Keeps copies of the arguments of each call of an operator, one of each form."""

    def __init__(self, operator: Any):
        super().__init__()
        self.operator = operator
        self.calls: list[Any] = []
        self.forms: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = (args, kwargs or {})
        if func == self.operator and (form := operators.form_of(call)) not in self.forms:
            self.forms.add(form)
            with torch.no_grad():
                self.calls.append(operators.copied(call, "cpu"))
        return func(*args, **(kwargs or {}))
