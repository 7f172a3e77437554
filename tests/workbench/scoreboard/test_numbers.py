"""The suites of modules and of numbers: what they pass, and that they find what they are for."""

import math

import pytest
import torch

from tapeout.workbench.scoreboard import modules, numbers
from tapeout.workbench.scoreboard.verdicts import Case, Verdict


@pytest.mark.parametrize("name", ["GRU", "LSTMCell", "Bilinear", "BatchNorm1d", "SmoothL1Loss", "Embedding"])
def test_modules_are_native(name):
    outcome = modules.judge(Case(name, "float32", "eager"), sample_limit=2)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


@pytest.mark.parametrize(
    "name, dtype, mode",
    [
        ("tanh exponents", "float32", "eager"),
        ("neg exponents", "float32", "compiled"),
        ("add beside", "bfloat16", "eager"),
        ("eq beside", "float16", "eager"),
        ("clamp_min beside", "int32", "eager"),
        ("addcmul large", "float16", "eager"),
        ("std large", "float16", "eager"),
    ],
)
def test_numbers_are_native(name, dtype, mode):
    outcome = numbers.judge(Case(name, dtype, mode), sample_limit=1)
    assert outcome.verdict == Verdict.NATIVE, outcome.cause


@pytest.mark.parametrize(
    "got, told",
    [
        ([1e-8, -0.0, 1.0, math.nan], None),
        ([0.0, -0.0, 1.0, math.nan], "of 9.99999993922529e-09: 0.0 instead of"),
        ([1e-8, 0.0, 1.0, math.nan], "of -0.0: 0.0 instead of -0.0"),
        ([1e-8, -0.0, 1.000001, math.nan], "of 20.0: 1.0000009"),
        ([1e-8, -0.0, 1.0, 0.0], "of nan: 0.0 instead of nan"),
    ],
)
def test_misfits_near_zero_are_found(got, told):
    given = torch.tensor([1e-8, -0.0, 20.0, math.nan])
    fault = numbers.misfit(given, torch.tensor(got), given.tanh(), given.double().tanh())
    assert fault is None if told is None else fault.startswith(told)


def test_every_module_and_kind_of_number_is_a_case():
    assert len(modules.cases(("eager", "compiled"))) > 100
    kinds = {case.name.rsplit(" ", 1)[1] for case in numbers.cases(("eager", "compiled"))}
    assert kinds == {"exponents", "beside", "large"}
