"""Triton kernels of other people's packages, each public function on chip tensors against PyTorch on the CPU.

`liger_kernel`: every function of its functional interface, forward and backward, against a reference in plain PyTorch.
`flag_gems`: every function that it registers for an operator of PyTorch's, called as that operator is called when the
samples of PyTorch's own database (OpInfo) run, or as `flag_gems_calls` has it, against the operator. The packages were
written for NVIDIA's GPUs: CUDA's names mean the chip in a process that judges them. A call that the package's own
Python code refuses (FlagGems' softmax takes no tensor without dimensions) is skipped.
"""

import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tapeout.workbench import work
from tapeout.workbench.scoreboard import flag_gems_calls, operators, verdicts
from tapeout.workbench.scoreboard import liger_kernel_references as liger
from tapeout.workbench.scoreboard.verdicts import FAULTS, Case, Outcome, Verdict

FORMS_TRIED = 12  # samples of an operator of the database that are looked at for calls
# What PyTorch has for CUDA only, in words of its other operators.
REFERENCES: dict[str, Callable[..., Any]] = {
    "aten._conv_depthwise2d.default": lambda image, weight, size, bias, stride, padding, dilation: (
        torch.nn.functional.conv2d(image, weight, bias, stride, padding, dilation, groups=weight.shape[0])
    ),
}


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

    for name, module in list(sys.modules.items()):  # they compare the type of a tensor's device with this name
        if name.partition(".")[0] == "flag_gems" and vars(module).get("device") == "cuda":
            vars(module)["device"] = "chip"
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
    """Calls until as many as `sample_limit` were taken; those that FlagGems itself refuses do not count."""
    if name in flag_gems_calls.NO_REFERENCE:
        return Outcome(case, Verdict.SKIPPED, flag_gems_calls.NO_REFERENCE[name])
    operator = _overload(name)
    torch.manual_seed(operators.SEED)
    calls = [flag_gems_calls.CALLS[name]()] if name in flag_gems_calls.CALLS else _calls(operator)
    assert calls, f"no sample of PyTorch's database calls {name}: flag_gems_calls wants a call of it"
    outcomes: list[Outcome] = []
    for call in calls:
        outcomes.append(_judge_call(case, operator, gems_functions()[name], call))
        if sum(outcome.verdict != Verdict.SKIPPED for outcome in outcomes) == sample_limit:
            break
    decisive = verdicts.worst(outcomes)
    if decisive.verdict in (*FAULTS, Verdict.REFUSED) and name in flag_gems_calls.FAULTS_OF_THE_PACKAGE:
        reason = f"a fault of FlagGems: {flag_gems_calls.FAULTS_OF_THE_PACKAGE[name]}"
        return Outcome(case, Verdict.SKIPPED, reason, len(outcomes))
    return Outcome(case, decisive.verdict, decisive.cause, len(outcomes))


def _overload(name: str) -> Any:
    """FlagGems leaves out the overload of operators that have no default one, or one for numbers only."""
    packet, _, overload = name.partition(".")
    found = getattr(torch.ops.aten, packet)
    without = "Tensor" if packet in ("copysign", "bitwise_left_shift", "bitwise_right_shift") else "default"
    return getattr(found, overload or without)


def _judge_call(case: Case, operator: Any, function: Callable[..., Any], call: Any) -> Outcome:
    def run(callee: Callable[..., Any], arguments: Any) -> list[Any]:
        """Return what it returns, and its tensors afterwards."""
        with torch.no_grad():
            found = operators.results(callee, arguments, differentiable=False)
        return [*found, *(leaf.cpu() for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))]

    reference = REFERENCES.get(str(operator), operator)
    try:
        expected = run(reference, operators.copied(call, "cpu"))
    except Exception as error:
        return Outcome(case, Verdict.SKIPPED, f"the CPU refuses: {verdicts.first_line(error)}", 1)
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
    """Return whether a line of the package's own checked an argument and raised the error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    own = f"{os.sep}{package}{os.sep}" in frame.filename
    return own and isinstance(error, AssertionError | ValueError | TypeError | IndexError | ZeroDivisionError)


def _calls(operator: Any) -> list[Any]:
    """Arguments with which the database's samples call an operator, different in form."""
    recorder = _Recorder(operator)
    for info in _related(operator.overloadpacket.__name__):
        dtype = next(dtype for dtype in operators.DTYPES.values() if dtype in info.supported_dtypes("cpu"))
        differentiable = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
        for sample in operators.samples(info, dtype, differentiable, FORMS_TRIED):
            _exercise(info, sample, operator, recorder)
    return recorder.calls


def _exercise(info: Any, sample: Any, operator: Any, recorder: "_Recorder") -> None:
    """Run a sample in the ways that may call the operator; errors mean that a way does not fit the operator."""
    arguments = (sample.input, *sample.args), sample.kwargs
    outs = [argument.name for argument in operator._schema.arguments if argument.is_out]

    def directly() -> None:
        positional, named = _detached(operators.copied(arguments, "cpu"))
        if outs:
            results = pytree.tree_leaves(info(*positional, **named))
            named = named | {name: torch.empty_like(result) for name, result in zip(outs, results, strict=False)}
        call = _detached(operators.copied((positional, named), "cpu"))
        with torch.no_grad():
            operator(*positional, **named)
        recorder.keep(call)

    def as_the_database_does() -> None:
        with recorder:
            operators.results(info, operators.copied(arguments, "cpu"), differentiable=info.supports_autograd)

    def in_place() -> None:
        positional, named = _detached(operators.copied(arguments, "cpu"))
        with recorder:
            info.inplace_variant(*positional, **named)

    for way in (directly, as_the_database_does, in_place):
        before = len(recorder.calls)
        with contextlib.suppress(Exception):
            way()
        if len(recorder.calls) > before:
            return


def _detached(arguments: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, arguments)


def _related(packet: str) -> Iterator[Any]:
    """Operators of the database that may call aten's of that name, the likeliest first."""
    stem = packet.strip("_")
    for affix in ("_backward_data", "_backward", "_forward", "_interface", "_with_indices", "_impl"):
        stem = stem.removesuffix(affix)
    names = [name for name, info in operators.database().items() if stem in _names_of(name, info)]
    yield from (operators.database()[name] for name in names)


def _names_of(name: str, info: Any) -> set[str]:
    """Return what an operator of the database is called, without the module it is in."""
    return {each.rpartition(".")[2] for each in (name, info.name, *(alias.name for alias in info.aliases))}


class _Recorder(TorchDispatchMode):
    """Keeps copies of the arguments of each call of an operator, one of each form."""

    def __init__(self, operator: Any):
        super().__init__()
        self.operator = operator
        self.calls: list[Any] = []
        self.forms: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == self.operator:
            self.keep((args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def keep(self, call: Any) -> None:
        if (form := operators.form_of(call)) not in self.forms:
            self.forms.add(form)
            with torch.no_grad():
                self.calls.append(operators.copied(call, "cpu"))
