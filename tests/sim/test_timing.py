"""The timing simulator: hand counts, laws, and that data are asked for where time depends on them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout import chip
from tapeout.errors import TapeoutError
from tapeout.isa import Parameter, Program, Unit, assemble
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tapeout.sim.timing import MemoryRegion, fast, reference
from tapeout.sim.timing.memory import POSTPONED_REFRESHES, MemoryParameters, _Bank, folded
from tapeout.sim.timing.memory import Memory as SharedMemory
from tapeout.testing.random_programs import random_case

TINY = chip.load("tiny")
PIPELINED = replace(TINY, core=replace(TINY.core, design="pipelined"))
WORKSPACE = 1 << 26


def program_of(text, **facts):
    return Program("by_hand", TINY.name, assemble(text), (Parameter("memory", "*i8"),), 1 << 16, **facts)


def assert_sums(result):
    total = result.busy_cycles + result.stall_cycles.sum(axis=2)
    assert (total == result.cycles).all()
    assert (result.busy_cycles >= 0).all() and (result.stall_cycles >= 0).all()


def traced(case, chip_used, base=1 << 20):
    image = case.image.copy()
    workspace = base + len(image)
    image = np.concatenate([image, np.zeros(chip_used.core_count * case.program.workspace_bytes, np.uint8)])
    trace = timing.record_trace(case.program, chip_used, case.grid, (base,), Memory(base, image), workspace=workspace)
    return trace, {"memory_base": base, "workspace": workspace}


SCALARS = """
load_immediate destination=r1 value=5
scalar function=add destination=r2 a=r1 b=r1 dtype=i32
scalar function=mul destination=r2 a=r2 b=r1 dtype=i32
halt
"""
NEGATIONS = """
map1 function=neg dtype=f32 shape=1x1x1x64 a=@0x0{0,0,0,1} result=@0x400{0,0,0,1}
map1 function=neg dtype=f32 shape=1x1x1x64 a=@0x400{0,0,0,1} result=@0x800{0,0,0,1}
halt
"""


def test_hand_count_of_scalar_code():
    """A word is fetched a cycle: load_immediate has 2 words, scalar add 1; mul takes 3 cycles. Microcoded: a further
    word and each register a cycle, four cycles a step, and four to fetch the first word, decode and execute."""
    result = reference.simulate(program_of(SCALARS), PIPELINED, (1, 1, 1), (0,))
    assert result.cycles == 2 + 1 + 3 + 1
    assert result.busy_by_unit[Unit.SEQUENCER] == 7
    assert_sums(result)
    microcoded = reference.simulate(program_of(SCALARS), TINY, (1, 1, 1), (0,))
    assert microcoded.cycles == (4 + 1) + (4 + 2 + 4) + (4 + 2 + 4) + 4
    assert_sums(microcoded)


def test_hand_count_of_vector_code():
    """Two dependent element-wise instructions of 64 elements on 16 lanes: 5 words to issue each, then 4 cycles each;
    the second may follow the first as soon as its first elements are there (12 + 4 cycles)."""
    program = program_of(NEGATIONS)
    words = program.instructions[0].word_count
    result = reference.simulate(program, PIPELINED, (1, 1, 1), (0,), record=True)
    first, second = (i for i in result.intervals if i.unit is Unit.VECTOR)
    assert (first.start, first.end) == (words, words + 4)
    assert (second.start, second.waited_for) == (words + 16, "dependency")
    assert result.cycles == words + 16 + 4 + 16 + 1  # halt
    assert_sums(result)


def test_hand_count_of_microcoded_vector_code():
    """The same in a microcoded core: 6 words and 2 registers to issue, and to read from the queue. Then 3 cycles until
    the readers start; the fourth vector is asked for 4 cycles later, its row a cycle after, there in the scratchpad's
    latency of 4 and 2 more; a step of 4 cycles; 4 until the first result can go out, 4 rows, and one to see that all
    have."""
    program = program_of(NEGATIONS)
    words = program.instructions[0].word_count
    assert words == 6
    result = reference.simulate(program, TINY, (1, 1, 1), (0,), record=True)
    first, second = (i for i in result.intervals if i.unit is Unit.VECTOR)
    issued, read = words + 2 + 4, words + 2 + 3
    service = 3 + (4 + 1) + (4 + 2) + 4 + 4 + 4 + 1
    assert (first.start, first.end) == (issued + read, issued + read + service + 2)
    assert (second.start, second.end) == (first.end, first.end + service + 2)
    assert result.cycles == second.end + 1  # halt
    assert_sums(result)


@pytest.mark.parametrize("seed", range(6))
def test_busy_and_stalls_are_the_whole_time(seed):
    case = random_case(seed, TINY, instruction_count=25)
    trace, places = traced(case, TINY)
    result = reference.simulate(case.program, TINY, case.grid, (1 << 20,), data=trace, **places)
    assert_sums(result)
    assert result.assumed == ()


def test_without_data_a_gather_is_assumed_and_says_so():
    text = "load_immediate destination=r2 value=4\n"
    text += "load_indexed dtype=f32 index_dtype=i32 scale=4 base=r1 strides=r0,r0,r0,r0 shape=1x1x1x64 "
    text += "tile=@0x0{0,0,0,1} index=@0x400{0,0,0,1} mask=r0\nhalt\n"
    program = program_of(text)
    assert timing.program_needs_data(program)
    result = timing.simulate(program, PIPELINED, (1, 1, 1), (0,))
    assert len(result.assumed) == 1 and "uniformly random" in result.assumed[0]
    assert result.sram_misses > 60
    # A table of eight lines has no more to miss.
    table = [MemoryRegion(0, 8 * TINY.last_level_sram.line_bytes, False)]
    assert_same(program, PIPELINED, (1, 1, 1), (0,), regions=table)
    assert timing.simulate(program, PIPELINED, (1, 1, 1), (0,), regions=table).sram_misses <= 8


def test_without_data_a_branch_on_them_is_refused():
    text = "scalar_load destination=r1 address=0 dtype=i32\nbranch_zero condition=r1 target=L\nL:\nhalt\n"
    with pytest.raises(timing.DataMissing, match="depends on data"):
        timing.simulate(program_of(text), TINY, (1, 1, 1), (0,))


@pytest.mark.parametrize(
    "branches",
    [
        "branch_zero condition=r1 target=L\njump target=E\nL:\ntrap code=0\nE:\n",
        "branch_nonzero condition=r1 target=E\ntrap code=0\nE:\n",
    ],
)
def test_without_data_an_assertion_about_them_holds(branches):
    program = program_of(f"scalar_load destination=r1 address=0 dtype=i32\n{branches}halt\n")
    assert_same(program, TINY, (1, 1, 1), (0,))
    held = timing.DataTrace([timing.ProgramData(scalars=[1])])
    known = timing.simulate(program, TINY, (1, 1, 1), (0,), data=held)
    unknown = timing.simulate(program, TINY, (1, 1, 1), (0,))
    assert unknown.cycles == known.cycles
    assert "taken as 0" in unknown.assumed[0] and not known.assumed


def test_a_trace_of_another_launch_is_refused():
    case = random_case(3, TINY, instruction_count=25)
    trace, places = traced(case, TINY)
    empty = timing.DataTrace([timing.ProgramData() for _ in trace.programs])
    with pytest.raises(timing.DataMissing, match="another launch"):
        reference.simulate(case.program, TINY, case.grid, (1 << 20,), data=empty, **places)


def test_where_the_host_keeps_memory_does_not_matter():
    case = random_case(1, TINY, instruction_count=25)
    results = []
    for base in (1 << 20, 7 << 33):
        trace, places = traced(case, TINY, base)
        results.append(reference.simulate(case.program, TINY, case.grid, (base,), data=trace, **places))
    assert timing.differences(*results) == []


def test_launch_overhead_is_separate():
    slow = replace(TINY, host=replace(TINY.host, launch_ns=99_000))
    results = [reference.simulate(program_of("halt\n"), c, (1, 1, 1), (0,)) for c in (TINY, slow)]
    assert results[0].cycles == results[1].cycles == 4
    assert [r.launch_ns for r in results] == [3000, 99_000]


def outcome(model, *arguments, **options):
    """The result, or the sentence of the refusal."""
    try:
        return model.simulate(*arguments, **options)
    except timing.DataMissing as refusal:
        return str(refusal)


def assert_same(*arguments, **options):
    one, other = (outcome(model, *arguments, record=True, **options) for model in (reference, fast))
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
    else:
        assert timing.differences(one, other) == []


@settings(max_examples=10)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from(["tiny", "inference", "training"]),
    st.booleans(),
    st.sampled_from([None, 40]),
)
def test_fast_and_reference_agree_on_random_programs(seed, chip_name, with_data, latency):
    chip_used = chip.load(chip_name)
    case = random_case(seed, chip_used, instruction_count=12)
    trace, places = traced(case, chip_used)
    assert_same(
        case.program,
        chip_used,
        case.grid,
        (1 << 20,),
        data=trace if with_data else None,
        memory_latency_cycles=latency,
        **places,
    )


@settings(max_examples=8)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([64, 200, 1024]),
    st.integers(1, 4),
    st.booleans(),
)
def test_they_agree_on_small_and_odd_memory_systems(seed, slices, outstanding, ways, is_pipelined):
    """Few lines, so that they are evicted; slices and channels that are no powers of two; hardly any latency hidden."""
    sram = replace(
        TINY.last_level_sram, slice_count=slices, size_bytes=slices * ways * 64 * 64, way_count=ways, line_bytes=64
    )
    base = (PIPELINED if is_pipelined else TINY).core
    core = replace(base, load_dma=replace(base.load_dma, outstanding_bytes=outstanding), queue_depth=2)
    hbm = replace(TINY.hbm, channel_count=3, bank_count_per_channel=5, row_bytes=1024)
    hbm = replace(hbm, write_batch_bytes=256, refresh_interval_ns=200, bank_refresh_ns=100, write_to_read_ns=7)
    chip_used = replace(TINY, last_level_sram=sram, core=core, hbm=hbm)
    case = random_case(seed, chip_used, instruction_count=8)
    trace, places = traced(case, chip_used)
    starts = range(places["memory_base"], places["memory_base"] + 4000, 1000)
    regions = [MemoryRegion(start, start + 1000, is_resident=n % 2 == 0) for n, start in enumerate(starts)]
    assert_same(case.program, chip_used, case.grid, (1 << 20,), data=trace, regions=regions, **places)


@pytest.mark.parametrize(("ways", "first"), [(1, 0), (3, 1 << 40), (17, 1 << 45), (64, 0)])
def test_they_agree_while_dirty_lines_are_evicted(ways, first):
    """Words far apart are written and read again, in twice as many lines as there is room for."""
    line_count = 2 * ways * -(-32 // ways)
    sram = replace(TINY.last_level_sram, slice_count=2, size_bytes=line_count * 64, way_count=ways, line_bytes=64)
    words = f"dtype=f32 base=r1 strides=r0,r0,r0,r3 shape=1x1x1x{2 * line_count} tile=@0x0{{0,0,0,1}}"
    program = program_of(
        f"load_immediate destination=r1 value={first}\nload_immediate destination=r3 value=192\n"
        + f"store {words} signal_a=s1\nload {words} wait_a=s1 signal_a=s2\n" * 2
        + "halt\n"
    )
    chip_used = replace(PIPELINED, last_level_sram=sram)
    assert_same(program, chip_used, (1, 1, 1), ())
    result = timing.simulate(program, chip_used, (1, 1, 1), ())
    assert result.sram_misses > 4 * line_count and result.hbm_written_bytes > 2 * line_count * 64


def copy_of(size_bytes, *, warm, chip_used):
    """Reads so many bytes, row by row, and writes them elsewhere."""
    program = Program(
        name="copy",
        chip=chip_used.name,
        instructions=assemble(
            f"""
        load_immediate destination=r1 value=0
        load_immediate destination=r2 value={size_bytes}
        load_immediate destination=r3 value=4
        load_immediate destination=r4 value=1024
        load_immediate destination=r5 value=0
        again:
        load dtype=f32 base=r1 strides=r0,r0,r0,r3 shape=1x1x1x256 tile=@0x0{{0,0,0,1}} signal_a=s1
        store dtype=f32 base=r2 strides=r0,r0,r0,r3 shape=1x1x1x256 tile=@0x0{{0,0,0,1}} wait_a=s1 signal_a=s2
        wait semaphore=s2
        scalar destination=r1 a=r1 b=r4 function=add dtype=i64
        scalar destination=r2 a=r2 b=r4 function=add dtype=i64
        load_immediate destination=r6 value={size_bytes}
        scalar destination=r5 a=r1 b=r6 function=lt dtype=i64
        branch_nonzero condition=r5 target=again
        halt
    """
        ),
        scratchpad_bytes=1024,
    )
    regions = [MemoryRegion(0, size_bytes, warm), MemoryRegion(size_bytes, 2 * size_bytes, warm)]
    return timing.simulate(program, chip_used, (1, 1, 1), (), regions=regions)


def test_what_an_earlier_launch_left_in_the_sram_is_read_from_there():
    small, large = TINY.last_level_sram.size_bytes // 8, 2 * TINY.last_level_sram.size_bytes
    cold = copy_of(small, warm=False, chip_used=TINY)
    warm = copy_of(small, warm=True, chip_used=TINY)
    assert cold.resident == warm.resident == (True, True)
    assert cold.hbm_read_bytes >= small and warm.hbm_read_bytes == 0
    assert warm.hbm_written_bytes == cold.hbm_written_bytes == small
    assert warm.cycles < cold.cycles
    assert copy_of(large, warm=False, chip_used=TINY).resident == (False, False)


MEMORY = MemoryParameters.of(TINY)
LINE_TICKS = MEMORY.line_bytes // MEMORY.burst_bytes * MEMORY.burst_ticks


def same_channel(count):
    """Addresses of lines in rows of their own, all in one channel, each in another bank."""
    memory, first_of_bank = SharedMemory(MEMORY), {}
    for line in range(1 << 12):
        channel, row = memory._channel_and_row(line)
        if channel == 0:
            first_of_bank.setdefault(folded(row) % MEMORY.bank_count, line * MEMORY.line_bytes)
    return list(first_of_bank.values())[:count]


def read(memory, time, address):
    return memory.access(time, address, MEMORY.line_bytes, reads=True, writes=False) - MEMORY.latency_ticks


def test_a_read_whose_row_is_open_goes_before_one_that_waits_for_its_row():
    open_row, closed_row = same_channel(2)
    memory = SharedMemory(MEMORY)
    read(memory, 0, open_row)
    time = 8 * MEMORY.row_miss_ticks
    waits = read(memory, time, closed_row)
    assert waits == time + MEMORY.row_miss_ticks + LINE_TICKS + MEMORY.hbm_latency_ticks
    assert read(memory, time, open_row + MEMORY.line_bytes) == time + LINE_TICKS + MEMORY.hbm_latency_ticks
    assert (memory.row_hits, memory.row_misses) == (1, 2)


def test_a_read_of_a_bank_in_refresh_waits_and_opens_its_row_again():
    address = same_channel(1)[0]
    memory = SharedMemory(MEMORY)
    read(memory, 0, address)
    start = memory._bank(address // MEMORY.line_bytes).next_refresh
    there = read(memory, start + 1, address + MEMORY.line_bytes)
    assert there == start + MEMORY.bank_refresh_ticks + MEMORY.row_miss_ticks + LINE_TICKS + MEMORY.hbm_latency_ticks
    assert (memory.row_hits, memory.row_misses) == (0, 2)


def test_a_bank_that_is_never_idle_puts_its_refresh_off_but_not_for_ever():
    bank = _Bank(next_refresh=100, free=1 << 60)
    memory = SharedMemory(MEMORY)
    for owed in range(POSTPONED_REFRESHES):
        memory._refresh(bank, 101 + owed * MEMORY.refresh_interval_ticks)
        assert bank.free == 1 << 60
    memory._refresh(bank, 101 + POSTPONED_REFRESHES * MEMORY.refresh_interval_ticks)
    assert bank.free == (1 << 60) + MEMORY.bank_refresh_ticks


def test_writes_wait_for_a_batch_and_the_bus_rests_as_it_turns():
    source, *targets = same_channel(3)
    memory = SharedMemory(MEMORY)
    free = read(memory, 0, source) - MEMORY.hbm_latency_ticks
    lines = [targets[n % 2] + n // 2 * MEMORY.line_bytes for n in range(2)]
    for address in lines:
        memory.access(free, address, MEMORY.line_bytes, reads=False, writes=True)
    assert read(memory, free, source + MEMORY.line_bytes) == free + LINE_TICKS + MEMORY.hbm_latency_ticks
    channel = memory.channels[0]
    memory._write_waiting(channel, channel.free)
    begun = free + LINE_TICKS + max(MEMORY.read_to_write_ticks, MEMORY.row_miss_ticks)
    assert channel.free == begun + 2 * LINE_TICKS
    after = read(memory, channel.free, source + 2 * MEMORY.line_bytes)
    assert after == begun + 2 * LINE_TICKS + MEMORY.write_to_read_ticks + LINE_TICKS + MEMORY.hbm_latency_ticks


def test_a_full_batch_is_written_without_waiting_for_an_idle_bus():
    target = same_channel(1)[0]
    memory = SharedMemory(MEMORY)
    for n in range(MEMORY.batch_bursts):
        assert len(memory._channel(target // MEMORY.line_bytes).waiting) == n
        memory.access(n, target, MEMORY.burst_bytes, reads=False, writes=True)
    channel = memory._channel(target // MEMORY.line_bytes)
    assert not channel.waiting
    assert memory.finish(0) == channel.free >= MEMORY.batch_bursts * MEMORY.burst_ticks


def test_an_empty_grid_is_refused():
    with pytest.raises(TapeoutError, match=r"by_hand: a grid of \(4, 0, 1\) has no program to time"):
        timing.simulate(program_of("halt\n"), TINY, (4, 0, 1), (0,))


@pytest.mark.parametrize(("first", "end"), [(0, 100), (1 << 21, 1 << 20)])
def test_a_region_that_is_not_in_hbm_is_refused(first, end):
    region = MemoryRegion(first, end, is_resident=True)
    with pytest.raises(TapeoutError, match="does not lie in HBM"):
        timing.simulate(program_of("halt\n"), TINY, (1, 1, 1), (0,), memory_base=1 << 20, regions=[region])


def test_failures_agree():
    for text in (
        "vector_sync wait_a=s1\nhalt\n",
        "wait semaphore=s1\nhalt\n",
        "argument destination=r1 index=3\nhalt\n",
        "jump target=L\nL:\ntrap code=0\n",
    ):
        sentences = []
        for model in (reference, fast):
            with pytest.raises(TapeoutError) as failed:
                model.simulate(program_of(text), TINY, (1, 1, 1), (0,))
            sentences.append(type(failed.value))
        assert sentences[0] is sentences[1]
