"""The pipelined core in RTL: what is refused, what has no pipeline, and that programs leave the evaluator's bytes."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout import chip as chips
from tapeout.errors import UnsupportedError
from tapeout.isa import Program
from tapeout.isa.program import assemble
from tapeout.rtl import simulation
from tapeout.rtl.cut_down import cut_down
from tapeout.rtl.pipelined.coverage import all_without_pipeline
from tapeout.rtl.support import check_chip
from tapeout.sim import evaluator
from tapeout.sim.state import Memory
from tests.rtl.cut_down import PIPELINED
from tests.rtl.random_programs import agreement

BASE = 0x40_0000
PROGRAMS = 40


def test_cut_down_chips_keep_their_pipelines():
    for name in ("inference", "training"):
        chip = chips.load(name)
        small = cut_down(chip)
        check_chip(small)
        assert small.core.design == "pipelined"
        assert small.core.matrix.accumulator_interleave == chip.core.matrix.accumulator_interleave
        assert small.core.scratchpad.latency_cycles == chip.core.scratchpad.latency_cycles


CORE = PIPELINED.core
REFUSED = {
    "vector.float64_rate=0.125": replace(CORE, vector=replace(CORE.vector, float64_rate=0.125)),
    "matrix.float8_rate=2": replace(CORE, matrix=replace(CORE.matrix, float8_rate=2.0)),
    "load_dma.gather_addresses_per_cycle=4": replace(
        CORE, load_dma=replace(CORE.load_dma, gather_addresses_per_cycle=4)
    ),
    "fetch_words_per_cycle=3": replace(CORE, fetch_words_per_cycle=3),
    "vector.lane_count=64": replace(CORE, vector=replace(CORE.vector, lane_count=64)),
    "matrix.accumulator_interleave=3": replace(CORE, matrix=replace(CORE.matrix, accumulator_interleave=3)),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_no_pipeline_has_is_refused_by_name(field):
    with pytest.raises(UnsupportedError, match=field.replace(".", r"\.")):
        check_chip(replace(PIPELINED, core=REFUSED[field]))


def test_what_has_no_pipeline_is_named():
    text = """
    map2 function=add dtype=bf16 shape=1x1x1x8 a=@0x0{0,0,0,1} b=@0x40{0,0,0,1} result=@0x80{0,0,0,1}
    map1 function=exp2 dtype=f32 shape=1x1x1x8 a=@0x0{0,0,0,1} result=@0x80{0,0,0,1}
    reduce function=add dtype=f32 shape=1x1x1x8 a=@0x0{0,0,0,1} result=@0x80{0,0,0,0}
    halt
    """
    program = Program("by_hand", PIPELINED.name, assemble(text), (), 4096)
    assert all_without_pipeline(program) == ("exp2 f32", "reduce f32")


def run_both(text):
    """Memory after a program on evaluator and RTL, and the RTL's cycles."""
    program = Program("by_hand", PIPELINED.name, assemble(text), (), 32768)
    before = np.random.default_rng(0).integers(0, 256, 65536, np.uint8) & 0xBF  # no infinities
    expected, found = before.copy(), before.copy()
    evaluator.run(program, PIPELINED, (1, 1, 1), (), Memory(BASE, expected))
    outcome = simulation.run(program, PIPELINED, (1, 1, 1), (), Memory(BASE, found), optimised=False)
    return expected, found, outcome.cycles


@pytest.mark.usefixtures("model")
def test_random_programs_leave_the_evaluators_bytes(tmp_path):
    """`python -m benchmarks.rtl_random_programs 500 0 pipelined` runs more."""
    found = [agreement(seed, tmp_path, chip=PIPELINED) for seed in range(PROGRAMS)]
    assert [each.difference for each in found if each.difference] == []


SETUP = """
load_immediate destination=r1 value=4194304
load_immediate destination=r2 value=4
load_immediate destination=r3 value=4227072
load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x4096 tile=@0x0{0,0,0,1} signal_a=s1
"""
END = """
store dtype=f32 base=r3 strides=r0,r0,r0,r2 shape=1x1x1x512 tile=@0x4000{0,0,0,1} wait_a=s2
halt
"""
FEW = END.replace("x512", "x128")
CHAIN = "\n".join(
    f"map2 function=add dtype=f32 shape=1x1x1x512 a=@{0x4000 if n else 0:#x}{{0,0,0,1}} b=@0x1000{{0,0,0,1}} "
    f"result=@0x4000{{0,0,0,1}} {'wait_a=s1' if n == 0 else ''} {'signal_a=s2' if n == 7 else ''}"
    for n in range(8)
)


@pytest.mark.usefixtures("model")
def test_a_chain_of_sums_runs_a_vector_a_cycle():
    expected, found, cycles = run_both(SETUP + CHAIN + END)
    assert np.array_equal(expected, found)
    _, _, without = run_both(SETUP + CHAIN.splitlines()[0] + " signal_a=s2" + END)
    beats = 512 // PIPELINED.core.vector.lane_count
    assert cycles - without <= 7 * (beats + 10)  # operands and results meet in banks


PRODUCTS = "\n".join(
    f"matrix_multiply accumulate={int(n > 0)} lhs_dtype=bf16 rhs_dtype=bf16 shape=1x4x32x64 "
    f"accumulator=@0x4000{{0,32,1,0}} lhs=@0x0{{0,64,0,1}} rhs=@0x1000{{0,0,1,32}} "
    f"{'wait_a=s1' if n == 0 else ''} {'signal_a=s2' if n == 7 else ''}"
    for n in range(8)
)


@pytest.mark.usefixtures("model")
def test_sums_stay_in_the_array_from_product_to_product():
    expected, found, cycles = run_both(SETUP + PRODUCTS + FEW)
    assert np.array_equal(expected, found)
    _, _, without = run_both(SETUP + PRODUCTS.splitlines()[0] + " signal_a=s2" + FEW)
    steps = 64 * PIPELINED.core.matrix.accumulator_interleave
    assert cycles - without <= 7 * (steps + 28)  # a row of rhs a cycle, and banks are shared
