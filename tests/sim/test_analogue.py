"""Analogue matrix engines: the functional simulator gives the evaluator's bytes; precision is what the bits say."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import load
from tapeout.codegen.pipeline import compile_kernel
from tapeout.errors import UnsupportedError
from tapeout.isa import Parameter
from tapeout.numerics.analogue import AnalogueProduct, multiply_accumulate
from tapeout.sim.evaluator import run
from tapeout.sim.state import Memory
from tapeout.testing.random_programs import random_case

sys.path.insert(0, str(Path(__file__).parents[1] / "passes"))
import kernels

EXACT = load("inference")
FIGURES = {"operand_bits": 6, "accumulate_bits": 10, "sum_depth": 16, "sum_range": 0.25, "noise_steps": 0.5}
FIGURES |= {"noise_seed": 7, "conversion_pj": 1.0, "cell_um2": 100.0}
CHIP = replace(
    EXACT, name="optical", core=replace(EXACT.core, matrix=replace(EXACT.core.matrix, kind="analogue", **FIGURES))
)
SPEC = AnalogueProduct.of(**{name: FIGURES[name] for name in list(FIGURES)[:6]})


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed):
    case = random_case(seed, CHIP, instruction_count=30)
    program = replace(case.program, parameters=(Parameter("memory", "*i8"),))
    memory = np.concatenate([case.image, np.zeros(CHIP.core_count * program.workspace_bytes, np.uint8)])
    base, size = memory.ctypes.data, len(case.image)
    run(program, CHIP, case.grid, (base,), Memory(base, memory), workspace=base + size)
    want = memory[:size].copy()
    memory[:size] = case.image
    runtime.load(program, CHIP).launch(case.grid, (base,))
    np.testing.assert_array_equal(memory[:size], want)


def launched(chip, a, b):
    text = kernels.ttir(kernels.matmul, "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32", BM=32, BN=32, BK=32)
    m, k, n = *a.shape, b.shape[1]
    c = np.zeros((m, n), np.float32)
    words = (*(x.ctypes.data for x in (a, b, c)), m, n, k, k, n, n)
    runtime.load(compile_kernel(text, chip), chip).launch((-(-m // 32), -(-n // 32), 1), words)
    return c


def test_the_error_of_a_product_is_that_of_its_bits():
    """Operands of 6 bits are off by at most half a step of 1/31 of the largest of their row."""
    source = np.random.default_rng(0)
    a, b = (source.standard_normal(shape).astype(np.float16) for shape in ((64, 128), (128, 64)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(launched(EXACT, a, b) - exact).max() < 1e-3
    errors = []
    for bits, sums, noise in ((4, 10, 0.0), (6, 12, 0.0), (12, 16, 0.0), (12, 16, 4.0)):
        matrix = replace(CHIP.core.matrix, operand_bits=bits, accumulate_bits=sums, noise_steps=noise, sum_range=0.5)
        found = launched(replace(CHIP, core=replace(CHIP.core, matrix=matrix)), a, b)
        errors.append(float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std()))
    assert errors[0] > 2 * errors[1] > 8 * errors[2] and errors[3] > 2 * errors[2]
    assert errors[1] < 0.06 and errors[2] < 0.01


def test_noise_is_of_mean_zero_and_the_stated_deviation_and_always_the_same():
    lhs, rhs = np.ones((1, 200, 16), np.float32), np.ones((1, 200, 16), np.float32)
    spec = replace(SPEC, noise_steps=np.float32(8), sum_step=np.float32(100), sum_limit=1 << 14)
    total = np.zeros((1, 200, 200), np.float32)
    found = multiply_accumulate(spec, lhs, rhs, total)
    steps = (found - 16) * 31**2 / 100
    assert abs(steps.mean()) < 0.15 and steps.std() == pytest.approx(8, rel=0.02)
    np.testing.assert_array_equal(found, multiply_accumulate(spec, lhs, rhs, total))
    assert (found != multiply_accumulate(replace(spec, noise_seed=8), lhs, rhs, total)).mean() > 0.9


def test_zeros_infinities_and_sums_beyond_the_range():
    lhs = np.array([[[0, 0], [np.inf, 1], [1, 1]]], np.float32)
    found = multiply_accumulate(replace(SPEC, noise_steps=np.float32(0)), lhs, lhs, np.zeros((1, 3, 3), np.float32))
    assert np.isnan(found[0, 1]).all() and np.isnan(found[0, :, 1]).all()
    assert found[0, 0, 0] == 0
    assert found[0, 2, 2] == pytest.approx(2, rel=0.01)
    cut = multiply_accumulate(
        replace(SPEC, noise_steps=np.float32(0)), *[np.ones((1, 1, 16), np.float32)] * 2, found[:, :1, :1]
    )
    assert cut[0, 0, 0] == pytest.approx(16 * FIGURES["sum_range"], rel=0.01)


def test_a_systolic_array_hands_its_sums_out_later():
    from tapeout.sim import timing

    text = kernels.ttir(kernels.matmul, "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32", BM=32, BN=32, BK=32)
    words = (1 << 20, 1 << 21, 1 << 22, 64, 64, 64, 64, 64, 64)
    systolic = replace(EXACT, core=replace(EXACT.core, matrix=replace(EXACT.core.matrix, kind="systolic")))
    cycles = [timing.simulate(compile_kernel(text, c), c, (2, 2, 1), words).cycles for c in (EXACT, systolic)]
    skew = EXACT.core.matrix.row_count + EXACT.core.matrix.column_count
    assert cycles[0] + skew <= cycles[1] <= cycles[0] + 4 * skew


def test_a_function_that_is_left_out_is_named():
    without = replace(EXACT, core=replace(EXACT.core, vector=replace(EXACT.core.vector, left_out=("exp", "exp2"))))
    text = kernels.ttir(kernels.row_softmax, "*fp32 *fp32 i32 i32", ROWS=4, COLUMNS=256)
    with pytest.raises(UnsupportedError) as refused:
        compile_kernel(text, without)
    assert "the function 'exp2' is not supported" in str(refused.value) or "the function 'exp'" in str(refused.value)
    assert "chip inference leaves it out of its vector engine" in str(refused.value)
