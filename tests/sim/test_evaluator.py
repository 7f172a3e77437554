"""The reference evaluator on hand-written programs whose results are known, and on wrong programs it must
refuse."""

# ruff: noqa: E501  (assembly lines)

import re

import numpy as np
import pytest

from tapeout.chip import load
from tapeout.isa import Program, Unit, assemble
from tapeout.sim.evaluator import POISON, run
from tapeout.sim.faults import (
    AccessFault,
    IllegalInstruction,
    OverlapFault,
    RaceFault,
    SynchronisationFault,
    Trapped,
)
from tapeout.sim.schedules import ProgramOrder, adversaries
from tapeout.sim.state import Memory

TINY = load("tiny")
BASE = 0x10_0000


def program(text, scratchpad_bytes=4096, **facts):
    """A program with a source line for each instruction, so that messages can be compared."""
    instructions = assemble(text)
    return Program(
        name="test",
        chip="tiny",
        instructions=instructions,
        scratchpad_bytes=scratchpad_bytes,
        lines=tuple(range(len(instructions))),
        locations=tuple(f"test.py:{n}" for n in range(len(instructions))),
        **facts,
    )


def memory_of(*arrays):
    data = np.concatenate([np.ascontiguousarray(a).view(np.uint8).reshape(-1) for a in arrays])
    return Memory(BASE, data)


def evaluate(text, memory, arguments=(), grid=(1, 1, 1), schedule=None, **facts):
    return run(program(text, **facts), TINY, grid, arguments, memory, schedule=schedule, workspace=BASE)


ADD_TWO_VECTORS = """
    load_immediate destination=r1 value=1048576
    load_immediate destination=r2 value=4
next:
    next_program destination=r3
    branch_zero condition=r3 target=done
    program_id destination=r4 axis=0
    load_immediate destination=r5 value=64
    scalar destination=r6 a=r4 b=r5 function=mul dtype=i64
    scalar destination=r7 a=r6 b=r1 function=add dtype=i64
    load signal_a=s1 dtype=f32 base=r7 strides=r0,r0,r0,r2 shape=1x1x1x16 tile=@0x0{0,0,0,1}
    load_immediate destination=r8 value=256
    scalar destination=r9 a=r7 b=r8 function=add dtype=i64
    load signal_a=s1 dtype=f32 base=r9 strides=r0,r0,r0,r2 shape=1x1x1x16 tile=@0x40{0,0,0,1}
    map2 wait_a=s1 wait_b=s1 signal_a=s2 function=add dtype=f32 shape=1x1x1x16 result=@0x0{0,0,0,1} \
a=@0x0{0,0,0,1} b=@0x40{0,0,0,1}
    scalar destination=r10 a=r9 b=r8 function=add dtype=i64
    store wait_a=s2 signal_a=s3 dtype=f32 base=r10 strides=r0,r0,r0,r2 shape=1x1x1x16 tile=@0x0{0,0,0,1}
    wait semaphore=s3
    jump target=next
done:
    halt
"""


@pytest.mark.parametrize("schedule", adversaries(), ids=str)
def test_programs_of_a_grid_add_two_vectors(schedule):
    a, b = np.arange(64, dtype=np.float32), np.linspace(0, 1, 64, dtype=np.float32)
    memory = memory_of(a, b, np.zeros(64, np.float32))
    outcome = evaluate(ADD_TWO_VECTORS, memory, grid=(4, 1, 1), schedule=schedule)
    np.testing.assert_array_equal(memory.data.view(np.float32)[128:], a + b)
    assert outcome.instruction_counts[Unit.LOAD] == 8
    assert outcome.instruction_counts[Unit.VECTOR] == 4


def scratchpad_after(text, scratchpad_bytes=256, arguments=(), memory=None):
    """Run, then read the whole scratchpad back through the store queue."""
    memory = memory or memory_of(np.zeros(4096, np.uint8))
    dump = f"""
    drain
    load_immediate destination=r250 value={BASE}
    load_immediate destination=r251 value=1
    store dtype=i8 base=r250 strides=r0,r0,r0,r251 shape=1x1x1x{scratchpad_bytes} tile=@0x0{{0,0,0,1}}
    halt
"""
    evaluate(text + dump, memory, arguments, scratchpad_bytes=scratchpad_bytes)
    return memory.data[:scratchpad_bytes]


def test_fresh_scratchpad_is_poisoned_and_poison_is_nan():
    fresh = scratchpad_after("", 64)
    assert bytes(fresh) == bytes(POISON) * 16
    assert np.isnan(fresh.view(np.float32)).all() and np.isnan(fresh.view(np.float64)).all()


def test_iota_broadcast_transpose_and_negative_strides():
    got = scratchpad_after(
        """
    load_immediate destination=r1 value=100
    load_immediate destination=r2 value=10
    load_immediate destination=r3 value=1
    iota dtype=i16 start=r1 steps=r0,r0,r2,r3 shape=1x1x3x4 result=@0x0{0,0,4,1}
    map1 function=copy dtype=i16 shape=1x1x4x3 result=@0x40{0,0,3,1} a=@0x0{0,0,1,4}
    map1 function=copy dtype=i16 shape=1x1x1x12 result=@0x60{0,0,0,1} a=@0x16{0,0,0,-1}
    map2 function=add dtype=i16 shape=1x1x3x4 result=@0x80{0,0,4,1} a=@0x0{0,0,0,1} b=r2
"""
    ).view(np.int16)
    table = 100 + 10 * np.arange(3)[:, None] + np.arange(4)
    np.testing.assert_array_equal(got[:12], table.reshape(-1))
    np.testing.assert_array_equal(got[0x20:0x2C], table.T.reshape(-1))
    np.testing.assert_array_equal(got[0x30:0x3C], table.reshape(-1)[::-1])
    np.testing.assert_array_equal(got[0x40:0x4C], np.tile(table[0] + 10, 3))


def test_loads_honour_bounds_and_fill():
    source = np.arange(1, 26, dtype=np.int32).reshape(5, 5)
    got = scratchpad_after(
        f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value=20
    load_immediate destination=r3 value=4
    load_immediate destination=r4 value=1
    load_immediate destination=r5 value=3
    load_immediate destination=r6 value=-7
    load dtype=i32 base=r1 strides=r0,r0,r2,r3 low=r0,r0,r4,r0 high=r0,r0,r0,r5 fill=r6 shape=1x1x4x4 \
tile=@0x0{{0,0,4,1}}
""",
        memory=memory_of(source, np.zeros(400, np.uint8)),
    ).view(np.int32)[:16]
    want = np.where((np.arange(4)[:, None] >= 1) & (np.arange(4) < 3), source[:4, :4], -7)
    np.testing.assert_array_equal(got.reshape(4, 4), want)


def test_gather_and_scatter_by_index_tiles_keep_the_last_of_equal_addresses():
    source = np.arange(0, 160, 10, dtype=np.int32)
    index = np.array([3, 0, 3, 15], np.int64)
    mask = np.array([1, 1, 0, 2], np.uint8)
    memory = memory_of(source, index, mask, np.zeros(300, np.uint8))
    evaluate(
        f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value={BASE + 64}
    load_immediate destination=r3 value={BASE + 96}
    load_immediate destination=r4 value={BASE + 128}
    load_immediate destination=r5 value=8
    load_immediate destination=r6 value=1
    load_immediate destination=r7 value=-1
    load dtype=i64 base=r2 strides=r0,r0,r0,r5 shape=1x1x1x4 tile=@0x0{{0,0,0,1}}
    load dtype=i8 base=r3 strides=r0,r0,r0,r6 shape=1x1x1x4 tile=@0x20{{0,0,0,1}}
    load_indexed dtype=i32 index_dtype=i64 scale=4 base=r1 fill=r7 shape=1x1x1x4 tile=@0x30{{0,0,0,1}} \
index=@0x0{{0,0,0,1}} mask=@0x20{{0,0,0,1}}
    drain
    store_indexed dtype=i32 index_dtype=i64 scale=4 base=r4 shape=1x1x1x4 tile=@0x30{{0,0,0,1}} \
index=@0x0{{0,0,0,1}} mask=r0
    halt
""",
        memory,
    )
    out = memory.data[128:192].view(np.int32)
    assert out[[0, 3, 15]].tolist() == [0, -1, 150]
    assert np.count_nonzero(out) == 2


def test_gather_within_the_scratchpad():
    got = scratchpad_after(
        """
    load_immediate destination=r1 value=7
    load_immediate destination=r2 value=-2
    load_immediate destination=r3 value=1
    iota dtype=i8 start=r1 steps=r0,r0,r0,r2 shape=1x1x1x4 result=@0x40{0,0,0,1}
    iota dtype=i32 start=r0 steps=r0,r0,r0,r3 shape=1x1x1x16 result=@0x0{0,0,0,1}
    gather dtype=i32 index_dtype=i8 stride=2 shape=1x1x1x4 result=@0x80{0,0,0,1} source=@0x0{0,0,0,0} \
index=@0x40{0,0,0,1}
"""
    )
    assert got[0x80:0x90].view(np.int32).tolist() == [14, 10, 6, 2]


def test_atomics_return_old_values_in_order():
    memory = memory_of(np.array([10, 20], np.int32), np.zeros(256, np.uint8))
    evaluate(
        f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value={BASE + 64}
    load_immediate destination=r3 value=5
    load_immediate destination=r4 value=4
    load_immediate destination=r5 value=15
    atomic dtype=i32 index_dtype=i32 function=add scale=4 base=r1 shape=1x1x1x3 tile=r3 other=r0 index=r0 \
mask=r0 previous=@0x0{{0,0,0,1}}
    atomic dtype=i32 index_dtype=i32 function=compare_swap scale=4 base=r1 shape=1x1x1x1 tile=r5 other=r3 \
index=r0 mask=r0 previous=@0xc{{0,0,0,1}}
    store dtype=i32 base=r2 strides=r0,r0,r0,r4 shape=1x1x1x4 tile=@0x0{{0,0,0,1}}
    halt
""",
        memory,
    )
    words = memory.data.view(np.int32)
    assert words[16:20].tolist() == [10, 15, 20, 25]
    assert words[:2].tolist() == [25, 20]


def test_matrix_multiply_accumulates_in_order_of_k():
    random = np.random.default_rng(0)
    lhs, rhs = (random.normal(size=s).astype(np.float32) for s in ((3, 5), (5, 4)))
    memory = memory_of(lhs, rhs, np.zeros((3, 4), np.float32))
    evaluate(
        f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value={BASE + 60}
    load_immediate destination=r3 value={BASE + 140}
    load_immediate destination=r4 value=4
    load dtype=f32 base=r1 strides=r0,r0,r0,r4 shape=1x1x1x15 tile=@0x0{{0,0,0,1}}
    load dtype=f32 base=r2 strides=r0,r0,r0,r4 shape=1x1x1x20 tile=@0x100{{0,0,0,1}} signal_a=s1
    matrix_multiply lhs_dtype=f32 rhs_dtype=f32 shape=1x3x4x3 accumulator=@0x200{{0,4,1,0}} lhs=@0x0{{0,5,0,1}} \
rhs=@0x100{{0,0,1,4}} wait_a=s1
    matrix_multiply lhs_dtype=f32 rhs_dtype=f32 accumulate=1 shape=1x3x4x2 accumulator=@0x200{{0,4,1,0}} \
lhs=@0xc{{0,5,0,1}} rhs=@0x130{{0,0,1,4}} signal_a=s2
    store dtype=f32 base=r3 strides=r0,r0,r0,r4 shape=1x1x1x12 tile=@0x200{{0,0,0,1}} wait_a=s2
    halt
""",
        memory,
    )
    want = np.zeros((3, 4), np.float32)
    for k in range(5):  # an f64 product and sum, rounded to f32: enough bits that this is the fused result here
        want = (lhs[:, k, None].astype(np.float64) * rhs[k] + want).astype(np.float32)
    np.testing.assert_array_equal(memory.data[140:188].view(np.float32).reshape(3, 4), want)


@pytest.mark.parametrize("extent", [1, 2, 31, 32, 33, 64, 100])
def test_reduction_order_is_as_defined(extent):
    values = np.random.default_rng(extent).normal(size=extent).astype(np.float32)
    memory = memory_of(values, np.zeros(4096, np.uint8))
    got = scratchpad_after(
        f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value=4
    load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x{extent} tile=@0x10{{0,0,0,1}} signal_a=s1
    reduce function=add dtype=f32 shape=1x1x1x{extent} result=@0x0{{0,0,0,0}} a=@0x10{{0,0,0,1}} wait_a=s1
""",
        512,
        memory=memory,
    )
    width = min(extent, 32)
    partial = list(values[:width])
    for j in range(width, extent):
        partial[j % width] = partial[j % width] + values[j]
    while width > 1:
        half = -(-width // 2)
        for j in range(width - half):
            partial[j] = partial[j] + partial[j + half]
        width = half
    assert got[:4].view(np.float32)[0] == partial[0]


def test_scalar_unit():
    got = scratchpad_after(
        """
    argument destination=r1 index=0
    scalar destination=r2 a=r1 b=r1 function=add dtype=i8
    scalar_store a=r2 address=0 dtype=i64
    scalar_convert destination=r3 a=r1 dtype=i8 unsigned=1
    scalar_store a=r3 address=8 dtype=i64
    scalar destination=r4 a=r1 b=r0 function=lt dtype=i8
    scalar_store a=r4 address=16 dtype=i64
    scalar_select destination=r5 condition=r4 a=r1 b=r2
    scalar_store a=r5 address=24 dtype=i64
    load_immediate destination=r6 value=-16
    rotate register=r6 step=64 limit=128
    scalar_store a=r1 address=0 offset=r6 dtype=i16
    rotate register=r6 step=64 limit=64
    scalar_store a=r6 address=32 dtype=i64
    scalar_load destination=r7 address=48 dtype=i16
    scalar_store a=r7 address=40 dtype=i64
    load_immediate destination=r0 value=9
    scalar_store a=r0 address=56 dtype=i64
    scalar_load destination=r8 address=0 dtype=i1
    scalar_store a=r8 address=64 dtype=i64
""",
        96,
        arguments=(0x1F0,),
    ).view(np.int64)
    assert got[[0, 1, 2, 3, 4, 5, 7, 8]].tolist() == [-32, 0xF0, 1, 0x1F0, 0, 0x1F0, 0, 1]


# ------------------------------------------------------------------------------------------ wrong programs

UNORDERED = """
    load_immediate destination=r1 value=1048576
    load_immediate destination=r2 value=4
    load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x16 tile=@0x0{0,0,0,1}
    map1 function=neg dtype=f32 shape=1x1x1x16 result=@0x80{0,0,0,1} a=@0x20{0,0,0,1}
    halt
"""


@pytest.mark.parametrize("schedule", adversaries(), ids=str)
def test_missing_semaphore_is_a_race_under_every_schedule(schedule):
    with pytest.raises(RaceFault) as caught:
        evaluate(UNORDERED, memory_of(np.zeros(64, np.float32)), schedule=schedule)
    assert "instruction 2 (load" in str(caught.value) and "instruction 3 (map1" in str(caught.value)


def test_race_message_names_both_instructions():
    with pytest.raises(RaceFault) as caught:
        evaluate(UNORDERED, memory_of(np.zeros(64, np.float32)), schedule=ProgramOrder())
    assert str(caught.value) == (
        "test.py:3: instruction 3 (map1) of program (0, 0, 0) on core 0: reads scratchpad byte 0x20 on the vector "
        "queue, and no semaphore orders it with instruction 2 (load, test.py:2) of the load queue, which writes it"
    )


def test_overwriting_what_another_queue_still_reads_is_a_race():
    text = """
    map1 function=copy dtype=f32 shape=1x1x1x16 result=@0x0{0,0,0,1} a=r0 signal_a=s1
    load_immediate destination=r1 value=1048576
    load_immediate destination=r2 value=4
    store dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x16 tile=@0x0{0,0,0,1} wait_a=s1
    map1 function=copy dtype=f32 shape=1x1x1x16 result=@0x3c{0,0,0,1} a=r0
    halt
"""
    with pytest.raises(RaceFault, match="writes scratchpad byte 0x3c"):
        evaluate(text, memory_of(np.zeros(64, np.float32)))


def test_loading_what_the_store_queue_writes_must_wait():
    text = f"""
    load_immediate destination=r1 value={BASE}
    store dtype=i32 base=r1 shape=1x1x1x1 tile=r1 signal_a=s1
    load dtype=i32 base=r1 shape=1x1x1x1 tile=@0x0{{0,0,0,1}} wait_a=s1
    halt
"""
    evaluate(text, memory_of(np.zeros(8, np.uint8)))
    with pytest.raises(RaceFault) as caught:
        evaluate(text.replace("signal_a=s1", "").replace("wait_a=s1", ""), memory_of(np.zeros(8, np.uint8)))
    assert "reads HBM byte 0x100000 on the load queue" in str(caught.value)


def test_sequencer_reading_the_scratchpad_must_wait():
    text = """
    map1 function=copy dtype=i32 shape=1x1x1x1 result=@0x0{0,0,0,0} a=r0 signal_a=s1
    WAIT
    scalar_load destination=r1 address=0 dtype=i32
    halt
"""
    evaluate(text.replace("WAIT", "wait semaphore=s1"), memory_of(np.zeros(8, np.uint8)))
    with pytest.raises(RaceFault, match=r"on the sequencer queue, and no semaphore orders it with instruction 0"):
        evaluate(text.replace("WAIT", ""), memory_of(np.zeros(8, np.uint8)))


def test_deadlock_says_who_waits_for_what():
    text = """
    vector_sync wait_a=s5
    load_sync wait_a=s6 wait_b=s6
    halt
"""
    with pytest.raises(SynchronisationFault) as caught:
        evaluate(text, memory_of(np.zeros(8, np.uint8)))
    assert str(caught.value) == (
        "core 0: deadlock: "
        "test.py:1: instruction 1 (load_sync) of program (0, 0, 0) on core 0 waits for s6; "
        "test.py:0: instruction 0 (vector_sync) of program (0, 0, 0) on core 0 waits for s5; "
        "test.py:2: instruction 2 (halt) of program (0, 0, 0) on core 0 waits for the queues to empty"
    )


def test_full_queue_can_deadlock():
    many = "vector_sync wait_a=s1\n" * (TINY.core.queue_depth + 1)
    with pytest.raises(SynchronisationFault, match="cannot be issued, the vector queue being full"):
        evaluate(many + "load_sync signal_a=s1\nhalt", memory_of(np.zeros(8, np.uint8)))


def test_leftover_semaphores_are_refused():
    with pytest.raises(SynchronisationFault, match=re.escape("not zero at the end of test (s3: 2, s9: 1)")):
        text = "load_sync signal_a=s3 signal_b=s3\nvector_sync signal_a=s9\nhalt"
        evaluate(text, memory_of(np.zeros(8, np.uint8)))


def test_access_outside_memory_names_the_element():
    text = f"""
    load_immediate destination=r1 value={BASE}
    load_immediate destination=r2 value=8
    load dtype=i32 base=r1 strides=r0,r0,r0,r2 shape=1x1x2x4 tile=@0x0{{0,0,4,1}}
    halt
"""
    with pytest.raises(AccessFault) as caught:
        evaluate(text, memory_of(np.zeros(6, np.int32)))
    assert str(caught.value) == (
        "test.py:2: instruction 2 (load) of program (0, 0, 0) on core 0: element (0, 0, 0, 3) is at HBM address "
        "0x100018, outside 0x100000..0x100017"
    )


def test_access_outside_the_scratchpad_is_refused():
    text = "map1 function=copy dtype=i32 shape=1x1x1x4 result=@0x38{0,0,0,1} a=r0\nhalt"
    with pytest.raises(AccessFault, match=r"element \(0, 0, 0, 2\) is at scratchpad address 0x40, outside the 64"):
        evaluate(text, memory_of(np.zeros(8, np.uint8)), scratchpad_bytes=64)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("map1 function=neg dtype=f32 shape=1x1x1x4 result=@0x4{0,0,0,1} a=@0x0{0,0,0,1}", "share scratchpad byte"),
        ("map1 function=neg dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,1} a=@0xc{0,0,0,-1}", "share scratchpad byte"),
        ("map1 function=neg dtype=f32 shape=1x1x2x4 result=@0x0{0,0,0,1} a=r0", "stride 0"),
        ("map1 function=neg dtype=f32 shape=1x1x2x4 result=@0x0{0,0,3,1} a=r0", "overlap each other"),
        ("convert dtype=f32 result_dtype=f16 rounding=nearest shape=1x1x1x4 result=@0x0{0,0,0,1} a=@0x0{0,0,0,1}", "s"),
        ("reduce function=add dtype=f32 shape=1x1x1x4 result=@0x4{0,0,0,0} a=@0x0{0,0,0,1}", "share scratchpad byte"),
    ],
)  # fmt: skip
def test_overlap_within_an_instruction_is_refused(line, sentence):
    with pytest.raises(OverlapFault, match=sentence):
        evaluate(line + "\nhalt", memory_of(np.zeros(8, np.uint8)))


def test_in_place_is_allowed():
    line = "map2 function=add dtype=i32 shape=1x1x1x4 result=@0x0{0,0,0,1} a=@0x0{0,0,0,1} b=@0x0{0,0,0,1}"
    evaluate(line + "\nhalt", memory_of(np.zeros(8, np.uint8)))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("map2 function=neg dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,1} a=r0 b=r0", "neg takes 1 operands: use map1"),
        ("map1 function=exp2 dtype=f64 shape=1x1x1x4 result=@0x0{0,0,0,1} a=r0", "exp2 is not defined on f64; it is on f32"),
        ("reduce function=sub dtype=f32 shape=1x1x1x1 result=@0x0{0,0,0,0} a=@0x80{0,0,0,1}", "sub is not a reduction"),
        ("iota dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,1}", "iota is not defined on f32"),
        ("scalar destination=r1 a=r2 function=sqrt dtype=f32", "the scalar unit has no f32"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together_are_refused(line, sentence):
    with pytest.raises(IllegalInstruction, match=sentence):
        evaluate(line + "\nhalt", memory_of(np.zeros(8, np.uint8)))


def test_trap_reports_its_message_and_program():
    text = "next_program destination=r1\ntrap code=1\nhalt"
    with pytest.raises(Trapped) as caught:
        evaluate(text, memory_of(np.zeros(8, np.uint8)), messages=("first", "index out of range"))
    assert caught.value.code == 1
    assert str(caught.value) == ("test.py:1: instruction 1 (trap) of program (0, 0, 0) on core 0: index out of range")


def test_cores_take_programs_in_turn_and_have_their_own_workspace():
    memory = memory_of(np.zeros(512, np.uint8))
    evaluate(
        f"""
    load_immediate destination=r1 value={BASE + 256}
next:
    next_program destination=r2
    branch_zero condition=r2 target=done
    program_id destination=r3 axis=0
    workspace destination=r4
    load_immediate destination=r5 value=8
    scalar destination=r6 a=r3 b=r5 function=mul dtype=i64
    scalar destination=r6 a=r6 b=r1 function=add dtype=i64
    store dtype=i64 base=r6 shape=1x1x1x1 tile=r4
    jump target=next
done:
    halt
""",
        memory,
        grid=(5, 1, 1),
        workspace_bytes=64,
    )
    assert memory.data[256:296].view(np.int64).tolist() == [BASE + 64 * (n % 2) for n in range(5)]
