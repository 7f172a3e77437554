"""The core in RTL runs programs as the reference evaluator does, byte for byte, on a core cut down to build quickly."""

import ctypes

import numpy as np
import pytest

from tapeout.isa import Program
from tapeout.isa.fields import BY_MNEMONIC
from tapeout.isa.program import assemble, encode
from tapeout.rtl import simulation
from tapeout.rtl.difference import executed, first_difference
from tapeout.sim.faults import Trapped
from tapeout.sim.state import Memory
from tapeout.testing.random_writing import FULL
from tests.rtl.cut_down import SMALL
from tests.rtl.random_programs import agreement

pytestmark = pytest.mark.usefixtures("model")

BASE = 0x40_0000
SHORT_PROGRAMS, FULL_PROGRAMS = 40, 2

COPY = """
load_immediate destination=r1 value=4194304
load_immediate destination=r2 value=4
load_immediate destination=r3 value=4195328
load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x100 tile=@0x0{0,0,0,1} signal_a=s1
store dtype=f32 base=r3 strides=r0,r0,r0,r2 shape=1x1x1x100 tile=@0x0{0,0,0,1} wait_a=s1
halt
"""


def program(text):
    return Program(name="by_hand", chip="small", instructions=assemble(text), scratchpad_bytes=4096, messages=("no",))


def on_rtl(item, memory, **options):
    return simulation.run(item, SMALL, (1, 1, 1), (), Memory(BASE, memory), optimised=False, **options)


def test_random_programs_leave_the_evaluators_bytes_and_take_the_timing_simulators_cycles(tmp_path):
    """`python -m benchmarks.rtl_random_programs` runs thousands."""
    found = [agreement(seed, tmp_path) for seed in range(SHORT_PROGRAMS)]
    found += [agreement(seed, tmp_path, instruction_count=10, sizes=FULL) for seed in range(FULL_PROGRAMS)]
    assert [each.difference for each in found if each.difference] == []
    errors = [abs(each.cycle_error) for each in found]
    assert np.mean(errors) < 0.03 and max(errors) < 0.1, errors
    executed = {key[0] for each in found for key in each.executed}
    rare = {name for name in BY_MNEMONIC if name.endswith("_sync")}  # where an instruction has no room for a semaphore
    assert set(BY_MNEMONIC) - executed - rare == {"trap"}


def test_a_difference_names_the_instruction(tmp_path):
    memory = np.arange(2048, dtype=np.uint8)
    trace = tmp_path / "trace"
    on_rtl(program(COPY), memory.copy(), trace=trace)
    other = program(COPY.replace("base=r1 strides=r0,r0,r0,r2", "base=r1 strides=r0,r0,r0,r0"))
    steps = executed(other, SMALL, (1, 1, 1), (), Memory(BASE, memory.copy()))
    difference = first_difference(steps, other, trace)
    assert (difference.step.item.mnemonic, difference.step.serial) == ("load", 0)
    assert difference.expected[4] == 0 and difference.found[4] == 4
    assert first_difference(executed(program(COPY), SMALL, (1, 1, 1), (), Memory(BASE, memory)), other, trace) is None


def test_a_trap_is_reported():
    with pytest.raises(Trapped, match="no"):
        on_rtl(program("trap code=0\nhalt\n"), np.zeros(64, np.uint8))


def test_the_testbench_runs_by_itself(tmp_path):
    memory = np.random.default_rng(0).integers(0, 256, 2048, np.uint8)
    (tmp_path / "program").write_bytes(encode(program(COPY).instructions))
    (tmp_path / "memory").write_bytes(memory.tobytes())
    expected = memory.copy()
    on_rtl(program(COPY), expected)
    words = ["core", str(tmp_path / "program"), str(tmp_path / "memory"), hex(BASE), "1", "1", "1", "1", "0", "0"]
    given = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    assert simulation.library(SMALL, optimised=False).main(len(words), given) == 0
    assert (tmp_path / "memory").read_bytes() == expected.tobytes()
    assert expected.tobytes() != memory.tobytes()
