"""Timing of compiled kernels: both models agree, and more hardware is never slower."""

from dataclasses import replace

import kernels
import numpy as np
import pytest

from tapeout import chip
from tapeout.codegen.pipeline import compile_kernel
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tapeout.sim.timing import fast, reference

TINY = chip.load("tiny")
PLACE = 1 << 20

KERNELS = {
    "vector_add": (
        kernels.vector_add,
        "*fp32 *fp32 *fp32 i32",
        {"BLOCK": 256},
        (5, 1, 1),
        (0, 8192, 16384, 1200),
        3 * 4 * 1200,
        0,
    ),
    "row_softmax": (
        kernels.row_softmax,
        "*fp32 *fp32 i32 i32",
        {"ROWS": 4, "COLUMNS": 256},
        (4, 1, 1),
        (0, 1 << 15, 250, 256),
        2 * 4 * 250 * 16,
        0,
    ),
    "matmul": (
        kernels.matmul,
        "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32",
        {"BM": 32, "BN": 32, "BK": 16},
        (2, 2, 1),
        (0, 1 << 15, 1 << 16, 64, 64, 64, 64, 64, 64),
        2 * 2 * 64 * 64 + 4 * 64 * 64,
        64**3,
    ),
    "attention": (
        kernels.attention,
        "*fp32 *fp32 *fp32 *fp32 i32 fp32",
        {"D": 16, "B": 16},
        (3, 1, 1),
        (0, 1 << 13, 1 << 14, 1 << 15, 48, 0x3E800000),
        0,
        0,
    ),
    "gather_rows": (kernels.gather_rows, "*fp32 *i32 *fp32", {"D": 16, "B": 8}, (4, 1, 1), (0, 8192, 16384), 0, 0),
}


@pytest.fixture(params=KERNELS, scope="module")
def case(request):
    kernel, signature, constants, grid, arguments, least_bytes, products = KERNELS[request.param]
    text = kernels.ttir(kernel, signature, **constants)
    words = tuple(PLACE + a if kind[0] == "*" else a for a, kind in zip(arguments, signature.split(), strict=True))
    return text, grid, words, least_bytes, products


def simulated(case, chip_used, model=fast, **options):
    text, grid, words, *_ = case
    return model.simulate(compile_kernel(text, chip_used), chip_used, grid, words, memory_base=PLACE, **options)


def test_models_agree(case):
    text, grid, words, *_ = case
    program = compile_kernel(text, TINY)
    memory = Memory(PLACE, np.zeros(1 << 18, np.uint8))
    trace = timing.record_trace(program, TINY, grid, words, memory)
    one, other = (
        model.simulate(program, TINY, grid, words, data=trace, memory_base=PLACE, record=True)
        for model in (reference, fast)
    )
    assert timing.differences(one, other) == []
    assert (one.busy_cycles + one.stall_cycles.sum(axis=2) == one.cycles).all()


def test_time_is_at_least_what_the_roofline_says(case):
    *_, least_bytes, products = case
    result = simulated(case, TINY)
    assert result.seconds >= least_bytes / TINY.hbm.bandwidth_bytes_per_s
    assert result.seconds >= 2 * products / TINY.peak_flops_per_s("float16")
    assert result.hbm_read_bytes + result.hbm_written_bytes >= least_bytes


MORE = {
    "HBM bandwidth": lambda c: replace(c, hbm=replace(c.hbm, bandwidth_bytes_per_s=2 * c.hbm.bandwidth_bytes_per_s)),
    "SRAM bandwidth": lambda c: replace(c, last_level_sram=replace(c.last_level_sram, bytes_per_cycle_per_slice=64)),
    "cores": lambda c: replace(c, core_count=4),
    "clock": lambda c: replace(c, clock_hz=2 * c.clock_hz),
}


@pytest.mark.parametrize("more", MORE)
def test_more_hardware_is_never_slower(case, more):
    assert simulated(case, MORE[more](TINY)).seconds <= simulated(case, TINY).seconds
