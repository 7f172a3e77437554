"""Suites judge rightly: known operators, a crash, a hang, a wrong result, an interrupted run."""

import math
import os

import pytest
import torch

from tapeout.workbench.scoreboard import operators, runner, verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", ["add", "nn.functional.silu", "bmm", "permute", "sum", "empty_like"])
def test_operators_of_every_program_are_native(name, mode):
    outcome = operators.judge(Case(name, "float32", mode), sample_limit=2)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


@pytest.mark.parametrize("name, mode", [("quantile", "strided"), ("sparse.sampled_addmm", "mutated")])
def test_what_ties_and_sparse_tensors_leave_open_is_no_fault(name, mode):
    outcome = operators.judge(Case(name, "float32", mode), sample_limit=2)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


def test_an_operator_on_the_host_is_named():
    outcome = operators.judge(Case("linalg.svdvals", "float32", "eager"), sample_limit=1)
    assert (outcome.verdict, outcome.cause) == (Verdict.FALLBACK, "aten::_linalg_svd.U")


@pytest.mark.parametrize(
    "name, dtype", [("special.bessel_j0", "float64"), ("argsort", "float16"), ("kthvalue", "int64")]
)
def test_results_that_the_cpu_does_not_give_may_be_right(name, dtype):
    outcome = operators.judge(Case(name, dtype, "eager"), sample_limit=1)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


def test_a_wrong_result_is_found(monkeypatch):
    run = operators.results

    def off_by_a_little(function, arguments, differentiable):
        results = run(function, arguments, differentiable)
        on_chip = any(isinstance(a, torch.Tensor) and a.device.type == "chip" for a in arguments[0])
        return [result * 1.001 for result in results] if on_chip else results

    monkeypatch.setattr(operators, "results", off_by_a_little)
    outcome = operators.judge(Case("add", "float32", "eager"), sample_limit=1)
    assert outcome.verdict == Verdict.WRONG
    assert outcome.cause.startswith("result 0: ")


def test_an_argument_that_is_written_wrongly_is_found(monkeypatch):
    """Running statistics are no result of a batch norm."""
    run = operators.results

    def twice(function, arguments, differentiable):
        results = run(function, arguments, differentiable)
        for tensor in arguments[0][1:3]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "chip":
                tensor.detach().mul_(0.9)
        return results

    case = Case("nn.functional.batch_norm", "float32", "eager")
    assert operators.judge(case, sample_limit=2).verdict == Verdict.NATIVE
    monkeypatch.setattr(operators, "results", twice)
    outcome = operators.judge(case, sample_limit=2)
    assert outcome.verdict == Verdict.WRONG
    assert outcome.cause.startswith("an argument after the call, result 1: ")


@pytest.mark.parametrize(
    "got, is_as_good", [([math.inf, 1.0], True), ([math.inf, 1.1], False), ([60000.0, 1.0], False)]
)
def test_what_is_too_large_for_a_type_is_infinite(got, is_as_good):
    """The CPU's own result stands; an element that is infinite in it excuses no other."""

    def cube(x):
        return x**3

    given = torch.tensor([50.0, 1.0], dtype=torch.float16)
    judged = operators._is_as_good_as_the_cpu(
        cube, ((given,), {}), False, [torch.tensor(got, dtype=torch.float16)], [cube(given)]
    )
    assert judged is is_as_good


def test_every_dtype_and_mode_is_a_case():
    found = operators.cases(("eager", "compiled"))
    assert len(found) == len(set(found)) > 7000
    assert Case("add", "bool", "compiled") in found


@pytest.mark.parametrize("mode", operators.LAYOUT_MODES)
@pytest.mark.parametrize("name", ["gather", "masked_fill", "cat", "nn.functional.scaled_dot_product_attention"])
def test_ways_to_run_an_operator(name, mode):
    outcome = operators.judge(Case(name, "float32", mode), sample_limit=1)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


@pytest.mark.parametrize(
    "replaced, told",
    [
        (lambda x, *others, **named: x.clone(), "taken, where the CPU raises RuntimeError: "),
        (lambda x, *others, **named: x.zero_().view(-1, 7), "written, where the CPU raises RuntimeError: "),
        (lambda x, *others, **named: len(others[3:][0]), "IndexError: "),
    ],
)
def test_an_operator_that_takes_wrong_arguments_is_found(replaced, told):
    """Shapes that do not broadcast, on a chip that computes, writes before it raises, or raises something else."""
    x, y = torch.ones(3), torch.ones(4)

    def add(x, y):
        return torch.add(x, y) if x.device.type == "cpu" else replaced(x, y)

    add.name = "add"
    outcome = operators._judge_call(Case("add", "float32", "mutated"), add, (add, ((x, y), {})))
    assert outcome.verdict in verdicts.FAULTS and outcome.cause.startswith(told)


def test_mutations_of_an_operator():
    """Each is another call; those that the CPU takes and those that it refuses are among them."""
    told = []
    for function, (positional, named) in operators.mutations(operators.database()["add"], torch.float32, 8):
        try:
            function(*positional, **named)
            told.append("taken")
        except (RuntimeError, TypeError):
            told.append("refused")
    assert set(told) == {"taken", "refused"} and len(told) > 10


def judge_badly(suite: str, case: Case, sample_limit: int) -> Outcome:
    if case.name == "crash":
        os._exit(11)
    if case.name == "hang":
        while True:
            pass
    return Outcome(case, Verdict.NATIVE, sample_count=sample_limit)


def test_a_crash_or_a_hang_is_one_outcome(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_judge", judge_badly)
    cases = [Case(name, "float32", "eager") for name in ("crash", "hang", "fine")]
    file = tmp_path / "outcomes.jsonl"
    found = runner.run("operators", cases, file, sample_limit=3, time_limit_s=2, process_count=1)
    assert {case.name: outcome.verdict for case, outcome in found.items()} == {
        "crash": Verdict.BROKEN,
        "hang": Verdict.BROKEN,
        "fine": Verdict.NATIVE,
    }
    assert found[cases[0]].cause == "the process died with exit code 11"
    assert found[cases[1]].cause == "no end after 2 s of processor time"
    assert verdicts.read(file) == found
    assert [(run.case_count, run.process_count) for run in verdicts.read_runs(file)] == [(3, 1)]


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_judge", judge_badly)
    file = tmp_path / "outcomes.jsonl"
    known = Outcome(Case("crash", "float32", "eager"), Verdict.REFUSED, "not supported")
    verdicts.append(file, known)
    new = Case("fine", "float32", "eager")
    seen: list[Outcome] = []
    found = runner.run("operators", [known.case, new], file, sample_limit=1, time_limit_s=20, on_outcome=seen.append)
    assert found[known.case] == known
    assert [outcome.case for outcome in seen] == [new]
