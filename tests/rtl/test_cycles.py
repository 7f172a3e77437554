"""The timing simulator's cycles are those of the core in RTL: every kind of instruction alone (programs: test_core)."""

import numpy as np
import pytest

from tapeout.isa import Program, Unit
from tapeout.isa.program import assemble
from tapeout.rtl import simulation, timeline
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tests.rtl.cut_down import SMALL

pytestmark = pytest.mark.usefixtures("model")

BASE = 0x40_0000
LATENCY = SMALL.last_level_sram.latency_cycles
SETUP = """
load_immediate destination=r1 value=4194304
load_immediate destination=r2 value=4
load_immediate destination=r4 value=1024
iota dtype=i32 start=r0 steps=r0,r0,r0,r2 shape=1x1x1x256 result=@0x2000{0,0,0,1}
drain
"""
ROW, OLD = "@0x4000{0,0,0,1}", "@0x5000{0,0,0,1}"
OPERAND, OTHER = "a=@0x0{0,0,0,1}", "b=@0x1020{0,0,0,1}"
INDEX = "index_dtype=i32 index=@0x2000{0,0,0,1} mask=r0"


def instructions():
    for count in (1, 9, 64):
        shape = f"shape=1x1x1x{count}"
        for function, dtype in (("neg", "f32"), ("exp2", "f32"), ("sqrt", "f32"), ("clz", "i32")):
            yield f"map1 function={function} dtype={dtype} {shape} {OPERAND} result={ROW}"
        for dtype in ("f32", "bf16"):
            yield f"map2 function=add dtype={dtype} {shape} {OPERAND} {OTHER} result={ROW}"
        yield f"convert dtype=f32 result_dtype=bf16 rounding=nearest {shape} {OPERAND} result={ROW}"
        yield f"iota dtype=i32 steps=r0,r0,r0,r2 {shape} result={ROW}"
        yield f"map1 function=copy dtype=f32 shape=1x1x{count}x1 a=@0x0{{0,0,1,1}} result=@0x4000{{0,0,1,1}}"
        strides = f"base=r1 strides=r0,r0,r0,r2 {shape}"
        for dtype in ("f32", "bf16"):
            yield f"load dtype={dtype} {strides} tile={ROW}"
        yield f"store dtype=f32 {strides} tile={ROW}"
        yield f"store dtype=f32 {strides} tile=r5"
        yield f"load_indexed dtype=f32 scale=4 {strides} tile={ROW} {INDEX}"
        yield f"load_indexed dtype=f32 scale=0 {strides} tile={ROW} {INDEX}"
    for rows, extent in ((1, 1), (4, 8), (4, 32), (2, 100)):
        for function in ("add", "maximum"):
            tile = f"a=@0x0{{0,0,{extent},1}} result=@0x4000{{0,0,1,0}}"
            yield f"reduce function={function} dtype=f32 shape=1x1x{rows}x{extent} {tile}"
    for m, n, k in ((1, 1, 1), (5, 7, 9), (4, 8, 16)):
        tiles = f"accumulator=@0x4000{{0,{n},1,0}} lhs=@0x0{{0,{k},0,1}} shape=1x{m}x{n}x{k}"
        for accumulate in (0, 1):
            types = f"accumulate={accumulate} lhs_dtype=bf16 rhs_dtype=bf16"
            yield f"matrix_multiply {types} rhs=@0x1000{{0,0,1,{n}}} {tiles}"
            types = f"accumulate={accumulate} lhs_dtype=f32 rhs_dtype=f32"
            yield f"matrix_multiply {types} rhs=@0x1000{{0,0,{k},1}} {tiles}"


CONTENDED = (
    f"map3 function=fma dtype=f32 shape=1x1x1x8 {OPERAND} {OTHER} c=@0x2040{{0,0,0,1}} result={ROW}",
    f"store_indexed dtype=f32 scale=4 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x100 tile={ROW} {INDEX}",
    f"atomic dtype=i32 function=add scale=4 base=r1 shape=1x1x1x20 tile={ROW} other=r0 previous={OLD} {INDEX}",
    "load dtype=f32 base=r1 strides=r0,r0,r4,r2 shape=1x1x4x16 tile=@0x4000{0,0,1,4}",
    "store dtype=f32 base=r1 strides=r0,r0,r4,r2 shape=1x1x4x16 tile=@0x4000{0,0,1,4}",
)
"""Readers and writers want the same of the two banks in the same cycle, or rows differ from vector to vector."""


def last_run(text, tmp_path):
    """The last queued instruction's first and last cycle on the RTL, and by the timing simulator."""
    program = Program("by_hand", SMALL.name, assemble(f"{SETUP}{text}\nhalt\n"), (), 32768)
    memory, file = np.zeros(65536, np.uint8), tmp_path / "timeline"
    simulation.run(program, SMALL, (1, 1, 1), (), Memory(BASE, memory), timeline=file, optimised=False)
    data = timing.record_trace(program, SMALL, (1, 1, 1), (), Memory(BASE, np.zeros(65536, np.uint8)))
    options = {"memory_base": BASE, "memory_latency_cycles": LATENCY}
    timed = timing.simulate(program, SMALL, (1, 1, 1), (), data=data, record=True, **options)
    both = timeline.of_rtl(program, file), timeline.of_timing(program, SMALL, timed.intervals)
    last = ([run for run in runs if run.unit is not Unit.SEQUENCER][-1] for runs in both)
    return tuple((run.start, run.end) for run in last)


def test_every_kind_of_instruction_takes_the_cycles_it_takes_in_rtl(tmp_path):
    differing = {}
    for text in instructions():
        on_rtl, timed = last_run(text, tmp_path)
        if on_rtl != timed:
            differing[text] = (on_rtl, timed)
    assert differing == {}


@pytest.mark.parametrize("text", CONTENDED, ids=lambda text: text.split()[0])
def test_where_banks_are_contended_for_it_is_a_cycle_or_two(text, tmp_path):
    (start, end), timed = last_run(text, tmp_path)
    assert timed[0] == start
    assert abs(timed[1] - end) <= 2
