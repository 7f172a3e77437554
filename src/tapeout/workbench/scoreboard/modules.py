"""PyTorch's own database of modules (ModuleInfo): every module of torch.nn with every flag, on the chip and on the CPU.

A module is made once on the CPU, copied to the chip, and both run the same input, in training and in evaluation where
these differ, forward and backward to inputs and parameters. Results are judged as an operator's are.
"""

import copy
import functools
import warnings
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tapeout.workbench import work
from tapeout.workbench.scoreboard import operators, verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict, worst

DTYPES = ("float32", "float64")


@functools.cache
def database() -> dict[str, Any]:
    """ModuleInfo of each module by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return {info.name.removeprefix("nn."): info for info in module_db}


def cases(modes: tuple[str, ...]) -> list[Case]:
    """Every module with every dtype that it has here, one operator after the other."""
    return [
        Case(name, dtype, mode)
        for mode in modes
        if mode == "eager"
        for dtype in DTYPES
        for name, info in sorted(database().items())
        if operators.DTYPES[dtype] in info.dtypes
    ]


def judge(case: Case, sample_limit: int) -> Outcome:
    """Run the inputs of a module, as many as `sample_limit` for each of training and evaluation; the worst decides."""
    info, dtype = database()[case.name], operators.DTYPES[case.dtype]
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for training in (True, False) if info.train_and_eval_differ else (True,):
            torch.manual_seed(operators.SEED)
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=dtype, requires_grad=info.supports_gradgrad, training=training
            )
            step = max(1, -(-len(inputs) // sample_limit))
            outcomes += [_judge_input(case, info, dtype, given, training) for given in inputs[::step]]
    if not outcomes:
        return Outcome(case, Verdict.SKIPPED, "no sample")
    decisive = worst(outcomes)
    return Outcome(case, decisive.verdict, decisive.cause, len(outcomes))


def _judge_input(case: Case, info: Any, dtype: torch.dtype, given: Any, training: bool) -> Outcome:
    torch.manual_seed(operators.SEED)
    made = given.constructor_input
    told = f"{made.args} {made.kwargs}, training={training}"
    arguments = given.forward_input.args, given.forward_input.kwargs
    randomness = operators._RandomnessWatch()
    try:
        module = info.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
        on_chip = copy.deepcopy(module)
        exact = copy.deepcopy(module).double()
        with randomness:
            expected = results(module, operators.copied(arguments, "cpu"))
    except Exception as error:
        return Outcome(case, Verdict.SKIPPED, f"the CPU refuses {told}: {verdicts.first_line(error)}")
    before = work.so_far()
    try:
        got = results(on_chip.to("chip"), operators.copied(arguments, "chip"))
    except Exception as error:
        failed = verdicts.of_error(case, error)
        return Outcome(case, failed.verdict, f"{failed.cause} ({told})", 1)
    fault = operators.difference(got, expected, randomness.seen)
    if fault and not randomness.seen and dtype is torch.float32:
        truth = results(exact, operators.copied(arguments, "cpu", torch.float64))
        fault = None if _is_as_near(got, expected, truth) else fault
    if fault:
        return Outcome(case, Verdict.WRONG, f"{fault} ({told})", 1)
    return verdicts.of_right_result(case, (work.so_far() - before).ops_on_host)


def results(module: torch.nn.Module, arguments: Any) -> list[Any]:
    """Return what the module returns, then the gradients of its inputs and parameters, all on the CPU."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return module(*args, **kwargs)

    torch.manual_seed(operators.SEED)
    positional, named = arguments
    leaves = [leaf for leaf in pytree.tree_leaves(run(*positional, **named)) if isinstance(leaf, torch.Tensor)]
    found: list[Any] = [leaf.detach().cpu() for leaf in leaves]
    roots = [leaf for leaf in leaves if leaf.requires_grad]
    given = [x for x in pytree.tree_leaves(arguments) if isinstance(x, torch.Tensor)]
    wanted = [x for x in (*given, *module.parameters()) if x.requires_grad and x.is_leaf]
    if roots and wanted:
        gradients = torch.autograd.grad(
            roots, wanted, [operators._cotangent(root) for root in roots], allow_unused=True
        )
        found += [None if gradient is None else gradient.cpu() for gradient in gradients]
    return found


def _is_as_near(got: list[Any], expected: list[Any], truth: list[Any]) -> bool:
    """Return whether each result is at most twice as far from the one in float64 as the CPU's own is."""
    relative, absolute = operators.TOLERANCES[torch.float32]
    for ours, theirs, exact in zip(got, expected, truth, strict=True):
        if theirs is None or not theirs.is_floating_point() or not theirs.numel():
            continue
        distance = float((theirs.double() - exact.double()).abs().nan_to_num(0.0, 0.0).max())
        if not torch.allclose(ours.double(), exact.double(), relative, absolute + 2 * distance, equal_nan=True):
            return False
    return True
