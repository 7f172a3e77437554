"""Whole programs: the functional simulator leaves the same bytes in HBM as the reference evaluator."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import load
from tapeout.isa import Parameter, Program, assemble
from tapeout.sim import timing
from tapeout.sim.evaluator import run
from tapeout.sim.state import Memory
from tapeout.sim.timing.trace import flat
from tapeout.testing.random_programs import random_case

CHIP = load("inference")
MEMORY = (Parameter("memory", "*i8"),)


def assert_agreement(program, grid, image, arguments=()):
    """Run both on the same bytes at the same address; arguments are offsets into the image."""
    workspace = np.zeros(CHIP.core_count * program.workspace_bytes, np.uint8)
    memory = np.concatenate([image, workspace])
    base = memory.ctypes.data
    words = tuple(base + offset for offset in arguments) or (base,)
    run(program, CHIP, grid, words, Memory(base, memory), workspace=base + len(image))
    want = memory[: len(image)].copy()
    memory[: len(image)] = image
    runtime.load(program, CHIP).launch(grid, words)
    wrong = np.flatnonzero(memory[: len(image)] != want)
    assert not len(wrong), f"byte {wrong[0]} is {memory[wrong[0]]}, not {want[wrong[0]]} ({len(wrong)} differ)"


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed):
    case = random_case(seed, CHIP, instruction_count=30)
    assert_agreement(replace(case.program, parameters=MEMORY), case.grid, case.image)


@pytest.mark.parametrize("seed", range(12))
def test_what_time_depends_on_is_noted_as_the_evaluator_sees_it(seed):
    case = random_case(seed, CHIP, instruction_count=40)
    program = replace(case.program, parameters=MEMORY)
    workspace = np.zeros(CHIP.core_count * program.workspace_bytes, np.uint8)
    memory = np.concatenate([case.image, workspace])
    base = memory.ctypes.data
    places = {"workspace": base + len(case.image)}
    want = flat(timing.record_trace(program, CHIP, case.grid, (base,), Memory(base, memory), **places))
    memory[: len(case.image)] = case.image
    noted = runtime.load(program, CHIP).launch_noting(case.grid, (base,))
    for found, expected in zip(noted.arrays, want.arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


def program_of(text, **facts):
    return Program("by_hand", CHIP.name, assemble(text), MEMORY, scratchpad_bytes=1 << 16, **facts)


HEAD = """
    argument destination=r1 index=0
    load_immediate destination=r2 value=4
    load_immediate destination=r3 value={stride}
    load_immediate destination=r4 value={target}
    scalar function=add destination=r5 a=r1 b=r4 dtype=i64
"""
LOAD = "load dtype=f32 base={base} strides=r0,r0,r3,r2 shape=1x1x8x64 tile={tile}{{0,0,64,1}} signal_a=s1 {bounds}\n"
STORE = "store dtype=f32 base=r5 strides=r0,r0,r3,r2 shape=1x1x8x64 tile=@0x4000{{0,0,64,1}} wait_a=s2 {bounds}\n"
DOUBLE = (
    "map2 function=add dtype=f32 shape=1x1x8x64 a=@0x0{0,0,64,1} b=@0x0{0,0,64,1} result=@0x4000{0,0,64,1} "
    "wait_a=s1 signal_a=s2\n"
)
SHIFTED = (
    "map2 function=add dtype=f32 shape=1x1x8x64 a=@0x0{0,0,64,1} b=@0x0{0,0,0,1} result=@0x4000{0,0,64,1} "
    "wait_a=s1 signal_a=s2\n"
)


def floats(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32).view(np.uint8)


@pytest.mark.parametrize("body", [DOUBLE, SHIFTED], ids=["same elements", "a row for all"])
@pytest.mark.parametrize("target", [0, 4, 256, 2048, 8192], ids=lambda t: f"target {t}")
@pytest.mark.parametrize("stride", [256, 320], ids=lambda s: f"stride {s}")
def test_blocks_used_in_place_may_overlap(body, target, stride):
    """A group reads and writes HBM itself; where source and target overlap, the load still comes before the store."""
    text = HEAD.format(stride=stride, target=target)
    text += LOAD.format(base="r1", tile="@0x0", bounds="") + body + STORE.format(bounds="") + "halt\n"
    assert_agreement(program_of(text), (1, 1, 1), floats(8192))


@pytest.mark.parametrize("high", [0, 5, 8, 9, 64])
@pytest.mark.parametrize("column_high", [0, 1, 63, 64, 70])
def test_blocks_with_an_edge(high, column_high):
    text = HEAD.format(stride=256, target=16384)
    text += f"load_immediate destination=r7 value={high}\nload_immediate destination=r8 value={column_high}\n"
    text += "load_immediate destination=r9 value=1\nload_immediate destination=r10 value=0x7fc00001\n"
    bounds = "low=r0,r0,r9,r0 high=r0,r0,r7,r8"
    text += LOAD.format(base="r1", tile="@0x0", bounds=bounds + " fill=r10")
    text += DOUBLE + STORE.format(bounds=bounds) + "halt\n"
    assert_agreement(program_of(text), (1, 1, 1), floats(8192))


def test_a_store_between_keeps_a_load_before_it():
    """What is loaded, then overwritten in HBM, then used, is the old content."""
    text = HEAD.format(stride=256, target=8192)
    text += LOAD.format(base="r1", tile="@0x0", bounds="signal_b=s5")
    text += "map1 function=copy dtype=f32 shape=1x1x8x64 a=r2 result=@0x8000{0,0,64,1} wait_a=s5 signal_a=s3\n"
    text += "store dtype=f32 base=r1 strides=r0,r0,r3,r2 shape=1x1x8x64 tile=@0x8000{0,0,64,1} wait_a=s3\n"
    text += DOUBLE + STORE.format(bounds="") + "halt\n"
    assert_agreement(program_of(text), (1, 1, 1), floats(8192))


def test_a_tile_read_again_later_is_kept():
    """A result that goes to HBM and is used once more by the next program is stored in the scratchpad as well."""
    text = """
    argument destination=r1 index=0
    load_immediate destination=r2 value=4
    load_immediate destination=r3 value=1024
    map1 function=copy dtype=f32 shape=1x1x1x64 a=r0 result=@0x0{0,0,0,1}
again:
    next_program destination=r6
    branch_zero condition=r6 target=leave
    load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x64 tile=@0x100{0,0,0,1} signal_a=s1
    scalar function=add destination=r1 a=r1 b=r3 dtype=i64
    vector_sync wait_a=s1
    map2 function=add dtype=f32 shape=1x1x1x64 a=@0x0{0,0,0,1} b=@0x100{0,0,0,1} result=@0x0{0,0,0,1} signal_a=s2
    store dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x64 tile=@0x0{0,0,0,1} wait_a=s2
    drain
    jump target=again
leave:
    halt
"""
    chip_with_one_core = program_of(text, order_free=False)
    image = floats(4096)
    memory = image.copy()
    runtime.load(chip_with_one_core, CHIP).launch((3, 1, 1), (memory.ctypes.data,))
    rows = image.view(np.float32).reshape(-1, 256)[:, :64]
    total = np.zeros(64, np.float32)
    for number in range(3):
        source = rows[0] if number == 0 else total
        total = total + source
        np.testing.assert_array_equal(memory.view(np.float32).reshape(-1, 256)[number + 1, :64], total)


ROW_NUMBERS = """
    iota dtype=i32 start=r2 steps=r0,r0,r3,r4 shape=1x1x32x64 result=@0xc000{0,0,64,1}
    map2 function=add dtype=i32 shape=1x1x32x64 a=@0x4000{0,0,64,1} b=@0xc000{0,0,64,1} result=@0x4000{0,0,64,1}
"""


@pytest.mark.parametrize("extents", [(1, 1024, 2), (64, 16, 2), (32, 2, 32), (1, 16, 128), (2, 32, 32)], ids=str)
@pytest.mark.parametrize("strides", [(4, 128), (132, 8)], ids=["transposed", "both long"])
@pytest.mark.parametrize("more", ["", ROW_NUMBERS], ids=["", "with numbers"])
def test_rows_scattered_in_hbm_are_reduced_whole(extents, strides, more):
    """A reduction reads its rows where they lie in HBM, in one group with work on another tile whose
    rows are parts of its own."""
    shape, tile = "1x{}x{}x{}".format(*extents), f"{{0,{extents[1] * extents[2]},{extents[2]},1}}"
    text = f"""
    argument destination=r1 index=0
    load_immediate destination=r2 value=4
    load_immediate destination=r3 value={strides[0]}
    load_immediate destination=r4 value={strides[1]}
    load_immediate destination=r5 value=16384
    load_immediate destination=r6 value=32768
    scalar function=add destination=r5 a=r1 b=r5 dtype=i64
    scalar function=add destination=r6 a=r1 b=r6 dtype=i64
    load dtype=i32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x2048 tile=@0x8000{{0,0,0,1}}
    load dtype=i32 base=r1 strides=r0,r0,r4,r3 shape=1x1x64x32 tile=@0x0{{0,0,32,1}} signal_a=s1
    map1 function=copy dtype=i32 shape=1x1x32x64 a=@0x0{{0,0,1,32}} result=@0x4000{{0,0,64,1}} wait_a=s1
    {more}
    reduce function=max_s dtype=i32 shape=1x1x32x64 a=@0x4000{{0,0,64,1}} result=@0x6000{{0,0,1,0}} signal_a=s2
    map1 function=copy dtype=i32 shape={shape} a=@0x8000{tile} result=@0xa000{tile} signal_a=s3
    store dtype=i32 base=r5 strides=r0,r0,r0,r2 shape=1x1x1x32 tile=@0x6000{{0,0,0,1}} wait_a=s2
    store dtype=i32 base=r6 strides=r0,r0,r0,r2 shape=1x1x1x2048 tile=@0xa000{{0,0,0,1}} wait_a=s3
    halt
    """
    image = np.random.default_rng(0).integers(-1000, 1000, 16384, np.int32).view(np.uint8)
    assert_agreement(program_of(text), (1, 1, 1), image)
