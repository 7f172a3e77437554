"""Costs of instructions on a chip: cycles an engine is busy, cycles until the result is there, work done.

A chip's cores are of one of two designs (`core.design`). This module counts the pipelined one; the microcoded one, of
which there is RTL, is counted in `tapeout.isa.microcoded_cycles`.

An instruction's definition names its function here; the function's docstring is the cost paragraph of its page in the
manual. Costs know the instruction and the chip only. What depends on registers, on other instructions or on the memory
system (bursts of a DMA, waiting) is up to the timing simulator, which calls these functions.

Operands are walked in beats: as many elements, in the order of the loops, as the engine takes in a cycle. The banks a
beat touches are counted on the first whole beat and hold for all: the register part of an address shifts all of them
alike. FIFOs between scratchpad and lanes even out what different operands ask of a bank.
"""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.isa import microcoded_cycles
from tapeout.isa.fields import AccessPattern, Instruction, OperandUse, Queued, operands, tiles
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function

if TYPE_CHECKING:  # the definitions name these functions
    from tapeout.chip import Chip
    from tapeout.isa import definitions as isa

SLOW_SCALAR = {
    **dict.fromkeys((Function.MUL, Function.MUL_HIGH_SIGNED, Function.MUL_HIGH_UNSIGNED), 3),
    **dict.fromkeys((Function.DIV_SIGNED, Function.DIV_UNSIGNED, Function.REM_SIGNED, Function.REM_UNSIGNED), 20),
}
"""Cycles of the scalar functions that take more than one."""

TAKEN_BRANCH_CYCLES = 3
"""A taken branch refills the fetch pipeline."""

DESCRIPTOR_CYCLES = 4
"""Cycles that a DMA engine needs to take up a descriptor."""

SPECIAL = frozenset(
    {
        Function.SQRT,
        Function.RSQRT,
        Function.RECIPROCAL,
        Function.DIV,
        Function.EXP,
        Function.EXP2,
        Function.LOG,
        Function.LOG2,
        Function.SIN,
        Function.COS,
    }
)
"""Functions that run at the vector engine's special rate."""

INTEGER_DIVISIONS = frozenset({Function.DIV_SIGNED, Function.DIV_UNSIGNED, Function.REM_SIGNED, Function.REM_UNSIGNED})


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one execution to its engine.

    `occupancy_cycles`: until the engine can start the next instruction. `conflict_cycles`: those of them that are due
    to scratchpad banks. `latency_cycles`: from the last element going in to the last result written.
    `first_result_cycles`: from the start to the first result written, `last_read_cycles`: to the last operand read;
    an instruction that reads, element for element, what the one before wrote may follow it that closely.
    `operations`: elements computed, or multiply-accumulates. `scratchpad_bytes`: read and written.
    `fill_cycles`: for reading sums back (matrix_multiply with accumulate), which can be done while the instruction
    before computes.
    """

    occupancy_cycles: int
    conflict_cycles: int = 0
    latency_cycles: int = 0
    operations: int = 0
    scratchpad_bytes: int = 0
    fill_cycles: int = 0
    first_result_cycles: int = 0
    last_read_cycles: int = 0


def handover_cycles(chip: "Chip") -> int:
    """Return the cycles of each stage of a hand-over from one engine to another."""
    return microcoded_cycles.HANDOVER_CYCLES if chip.core.is_microcoded else 0


def release_cycles(item: Queued, chip: "Chip") -> int:
    """Return the cycles from an instruction's end until its engine can start the next: signals are given in turn."""
    return handover_cycles(chip) * (2 + microcoded_cycles.signal_count(item))


def issue_cycles(item: Queued, chip: "Chip") -> int:
    """Return the sequencer's cycles for an instruction of a queue."""
    return microcoded_cycles.issue_cycles(item) if chip.core.is_microcoded else sequencer_cycles(item, chip)


def front_cycles(item: Queued, chip: "Chip") -> int:
    """Return the cycles from an instruction's issue until its start, if engine and queue are empty."""
    return microcoded_cycles.front_cycles(item) if chip.core.is_microcoded else 0


# ------------------------------------------------------------------------------------------------ sequencer


def sequencer_cycles(item: Instruction, chip: "Chip") -> int:
    """Cycles the sequencer needs for any instruction: as many as it fetches words in, at least one."""
    if chip.core.is_microcoded:
        return microcoded_cycles.sequencer_cycles(item)
    return -(-item.word_count // chip.core.fetch_words_per_cycle)


def one_cycle(item: Instruction, chip: "Chip") -> Cost:
    """A cycle, or as many as it takes to fetch its words. Microcoded: four, one more for every further word, and
    one while the answer to `argument` comes."""
    return Cost(sequencer_cycles(item, chip))


def branch(item: Instruction, chip: "Chip") -> Cost:
    """A cycle; if taken, three. Microcoded: four, and one for the condition."""
    return Cost(sequencer_cycles(item, chip))


def scalar(item: "isa.Scalar", chip: "Chip") -> Cost:
    """A cycle; multiplications three; divisions and remainders twenty. Microcoded: four, one for each register it may
    name, and for `scalar` four for each step of its microprogram, a division's bits besides."""
    if chip.core.is_microcoded:
        return Cost(microcoded_cycles.scalar_cycles(item))
    return Cost(max(sequencer_cycles(item, chip), SLOW_SCALAR.get(item.function, 1)))


def scalar_load(item: "isa.ScalarLoad", chip: "Chip") -> Cost:
    """The latency of the scratchpad. Microcoded: five besides."""
    latency = chip.core.scratchpad.latency_cycles
    cycles = sequencer_cycles(item, chip)
    cycles = cycles + latency if chip.core.is_microcoded else max(cycles, latency)
    return Cost(cycles, scratchpad_bytes=item.dtype.size_bytes)


def scalar_store(item: "isa.ScalarStore", chip: "Chip") -> Cost:
    """A cycle. Microcoded: six."""
    return Cost(sequencer_cycles(item, chip), scratchpad_bytes=item.dtype.size_bytes)


def next_program(item: Instruction, chip: "Chip") -> Cost:
    """The dispatcher's cycles (`host.dispatch_cycles`) when there is a program, else one. Microcoded: five besides."""
    return Cost(sequencer_cycles(item, chip))


def dispatch_cycles(item: Instruction, chip: "Chip") -> int:
    """Return what the sequencer waits for the dispatcher when there is a program, on top of the instruction's
    cycles."""
    overlap = 0 if chip.core.is_microcoded else sequencer_cycles(item, chip)
    return max(0, chip.host.dispatch_cycles - overlap)


def waiting(item: Instruction, chip: "Chip") -> Cost:
    """A cycle, once what it waits for has happened. Microcoded: at least four."""
    return Cost(sequencer_cycles(item, chip))


# ------------------------------------------------------------------------------------------------------ DMA


def synchronise(item: Queued, chip: "Chip") -> Cost:
    """A cycle of its queue, once it has its semaphores; it signals when all before it in the queue is done.
    Microcoded: none."""
    return Cost(0 if chip.core.is_microcoded else 1)


def block_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """Four cycles for the descriptor, then packets. Runs go along the innermost dimension whose stride is the element
    size (else every element is a run of its own); neighbouring runs join; a run is cut into requests at lines of the
    last-level SRAM, and eight requests are a packet. A packet takes the engine its bytes over `bytes_per_cycle` (times
    the bank conflicts of a transposing tile) or its requests over `gather_addresses_per_cycle`, whichever is more. It
    waits while `outstanding_bytes` are in flight. Data arrive in order; the signal comes with the last byte.
    Microcoded: vectors of `vector.lane_count` elements along the innermost dimension that has more than one; for each
    a cycle a block of `bytes_per_cycle` that its elements lie in (at least one), and in a store two more. A load's
    vector goes to the scratchpad a row a cycle, a store's comes from there so. The next instruction starts when all
    answers are there."""
    if chip.core.is_microcoded:
        return Cost(microcoded_cycles.transfer_lead_cycles(item, chip))
    return Cost(DESCRIPTOR_CYCLES, latency_cycles=chip.core.scratchpad.latency_cycles)


def indexed_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """As a block transfer, each run displaced by its index; where index or mask vary along the innermost dimension,
    every element is a run of its own. Neighbouring runs join. Microcoded: a load makes a vector's addresses one a
    cycle, before it asks; a store does that too and sends each element by itself."""
    return block_transfer(item, chip)


def atomic_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """As a block transfer with a request for every element: each is a round trip to the last-level SRAM, pipelined.
    Microcoded: the next vector waits until all old values of the one before are back."""
    return block_transfer(item, chip)


def transfer_conflict(
    pattern: AccessPattern, size: int, dimension: int, extent: int, bytes_per_cycle: int, chip: "Chip"
) -> int:
    """Scratchpad cycles for a DMA cycle's worth of elements of a run along `dimension`."""
    count = max(1, min(extent, bytes_per_cycle // size))
    along = AccessPattern(pattern.base, (0, 0, 0, pattern.strides[dimension]))
    return rows_touched(along, (1, 1, 1, count), size, count, chip)[1]


# ------------------------------------------------------------------------------------------- scratchpad banks


@functools.lru_cache(maxsize=65536)
def _rows_touched(
    base: int, strides: tuple[int, ...], extents: tuple[int, ...], size: int, count: int, port: int, banks: int
) -> tuple[int, int]:
    """Return the port rows that the first `count` elements in loop order touch: in all, and in the busiest bank."""
    rows = set()
    for number in range(min(count, math.prod(extents))):
        address, rest = base, number
        for stride, extent in zip(reversed(strides), reversed(extents), strict=True):
            rest, index = divmod(rest, extent)
            address += index * stride * size
        rows.add(address // port)
    busiest: dict[int, int] = {}
    for row in rows:
        busiest[row % banks] = busiest.get(row % banks, 0) + 1
    return len(rows), max(busiest.values())


def rows_touched(
    pattern: AccessPattern, extents: tuple[int, ...], size: int, count: int, chip: "Chip"
) -> tuple[int, int]:
    """Accesses to banks that the first `count` elements of a tile need: all of them, and those of the busiest bank."""
    pad = chip.core.scratchpad
    period = pad.port_width_bytes * pad.bank_count
    return _rows_touched(
        pattern.base % period, pattern.strides, extents, size, count, pad.port_width_bytes, pad.bank_count
    )


# --------------------------------------------------------------------------------------------------- vector


def _elements_per_cycle(item: "isa.Map | isa.Convert | isa.Iota | isa.Reduce", chip: "Chip") -> float:
    vector = chip.core.vector
    dtypes = [item.dtype, getattr(item, "result_dtype", item.dtype)]
    rate = 1.0
    if DType.F64 in dtypes:
        rate = vector.float64_rate or 1.0
    elif DType.I64 in dtypes:
        rate = 0.5
    function = getattr(item, "function", None)
    if function in SPECIAL:
        rate *= vector.special_rate
    elif function in INTEGER_DIVISIONS:
        rate /= 8
    return vector.lane_count * rate


def _beat_cost(
    chip: "Chip",
    uses: list[OperandUse],
    elements: int,
    per_cycle: float,
) -> tuple[int, int, int]:
    """Cycles of all beats, those of them due to banks, and bytes moved."""
    beat = max(1, int(per_cycle))
    ideal = math.ceil(elements / per_cycle)
    accesses, worst, moved = 0, 1, 0
    for use in uses:
        if isinstance(use.operand, AccessPattern):
            extents, size = use.extents, use.dtype.size_bytes
            share = beat if math.prod(extents) == elements else max(1, beat * math.prod(extents) // elements)
            touched, busiest = rows_touched(use.operand, extents, size, share, chip)
            accesses += touched
            worst = max(worst, busiest)
            moved += math.prod(extents) * size
    cycles_per_beat = max(worst, -(-accesses // chip.core.scratchpad.bank_count))
    cycles = max(ideal, math.ceil(elements / beat) * cycles_per_beat if cycles_per_beat > 1 else 0)
    return cycles, cycles - ideal, moved


def elementwise(item: "isa.Map | isa.Convert | isa.Iota", chip: "Chip") -> Cost:
    """An element a lane and cycle: `vector.lane_count`, times `float64_rate` for f64, half for i64, times
    `special_rate` for the special functions, div and sqrt, an eighth for integer division. More where a beat touches a
    scratchpad bank more than once, or all operands together more banks than there are. The result is there
    `vector.latency_cycles` and a scratchpad latency after the last beat. The next instruction starts when the last
    beat has gone in; if it reads this result in the same order, once the first elements are written; else once all
    are. Microcoded: batches of four vectors of `vector.lane_count` elements; a batch takes four cycles for each step of
    the function's microprogram, for a division or root four times its bits and three, and one more, unless its vectors
    take longer to read or write: a row of the scratchpad a cycle. About twenty cycles go by before and after."""
    elements = math.prod(item.shape)
    if chip.core.is_microcoded:
        moved = sum(elements * use.dtype.size_bytes for use, _ in tiles(item))
        return Cost(microcoded_cycles.map_cycles(item, chip), operations=elements, scratchpad_bytes=moved)
    cycles, conflicts, moved = _beat_cost(chip, operands(item), elements, _elements_per_cycle(item, chip))
    latency = _vector_latency(chip)
    return Cost(
        cycles,
        conflicts,
        latency,
        elements,
        moved,
        first_result_cycles=latency,
        last_read_cycles=cycles,
    )


def _vector_latency(chip: "Chip") -> int:
    return chip.core.vector.latency_cycles + chip.core.scratchpad.latency_cycles


def reduction(item: "isa.Reduce", chip: "Chip") -> Cost:
    """An element a lane and cycle, but at least `matrix.accumulator_interleave` cycles for each of the ceil(n / 32)
    steps of a row's partial results, which depend on each other (rows take turns); then the combining of 31 pairs a
    row, an element a lane and cycle, five sums deep. Microcoded: a row at a time; a batch's microprogram for every 32
    elements after the first vectors, and for every halving of the partial results, each with about seven cycles."""
    rows, extent = math.prod(item.shape[:3]), item.shape[3]
    width = min(extent, REDUCTION_PARTIALS)
    if chip.core.is_microcoded:
        moved = (rows * extent + rows) * item.dtype.size_bytes
        return Cost(microcoded_cycles.reduce_cycles(item, chip), operations=rows * extent, scratchpad_bytes=moved)
    per_cycle = _elements_per_cycle(item, chip)
    cycles, conflicts, moved = _beat_cost(chip, operands(item), rows * extent, per_cycle)
    step = chip.core.matrix.accumulator_interleave
    chain = -(-extent // width) * step
    combining = math.ceil(rows * (width - 1) / per_cycle)
    depth = math.ceil(math.log2(width)) * step
    occupancy, latency = max(cycles, chain) + combining, _vector_latency(chip) + depth
    return Cost(
        occupancy,
        conflicts if cycles >= chain else 0,
        latency,
        rows * extent,
        moved,
        first_result_cycles=occupancy + latency,
        last_read_cycles=occupancy,
    )


def pick(item: "isa.Gather", chip: "Chip") -> Cost:
    """As many elements a cycle as half the scratchpad's banks, or the lanes if those are fewer: random picks find
    about half of the banks free. Microcoded: as elementwise, with a row a cycle to read what is picked; rows are
    taken to be as many as the result has."""
    elements = math.prod(item.shape)
    moved = elements * (2 * item.dtype.size_bytes + item.index_dtype.size_bytes)
    if chip.core.is_microcoded:
        return Cost(microcoded_cycles.gather_cycles(item, chip), operations=elements, scratchpad_bytes=moved)
    per_cycle = max(1, min(chip.core.vector.lane_count, chip.core.scratchpad.bank_count // 2))
    cycles, latency = -(-elements // per_cycle), _vector_latency(chip)
    return Cost(cycles, 0, latency, elements, moved, first_result_cycles=latency, last_read_cycles=cycles)


# --------------------------------------------------------------------------------------------------- matrix


def matrix_product(item: "isa.MatrixMultiply", chip: "Chip") -> Cost:
    """Output tiles of `row_count` x `column_count` take turns in groups of `accumulator_interleave`; a group takes
    k x `accumulator_interleave` steps even if it is not full. `float8_rate` and so on are steps a cycle. f64 runs at
    the rate of the vector engine's f64 lanes. Operands are read along whichever of their dimensions is contiguous; more
    cycles go by where that touches a bank too often. Each sum has a second register: through a quarter of the
    scratchpad's ports the sums of the group before are written, and through another quarter those of the next group
    read, while a group computes; an accumulating instruction's first group is read as soon as its semaphores are there.
    Nothing is read if the instruction follows one with the same accumulator that is a single group, and nobody wrote
    there since: then the sums are still in the array. Microcoded: a group's operands are fetched for
    `vector.lane_count` steps of k, a vector a row of lhs, and of rhs a vector a step and tile (a column, where it is
    contiguous along k), a row of the scratchpad a cycle; then the steps run, a cycle each and tile, four for f32. Sums
    are read before and written after, a vector a row and tile. Nothing of this overlaps."""
    engine, pad = chip.core.matrix, chip.core.scratchpad
    batch, m, n, k = item.shape
    operations = batch * m * n * k
    operand_size = item.lhs_dtype.size_bytes
    sum_size = 8 if item.lhs_dtype is DType.F64 else 4
    sum_bytes = batch * m * n * sum_size
    sums_per_cycle = max(sum_size, pad.bandwidth_bytes_per_cycle // 4)
    moved = batch * (m * k + k * n) * operand_size + sum_bytes * (2 if item.accumulate else 1)
    if chip.core.is_microcoded:
        return Cost(microcoded_cycles.matrix_cycles(item, chip), operations=operations, scratchpad_bytes=moved)
    if item.lhs_dtype is DType.F64:
        ideal = math.ceil(operations / (chip.core.vector.lane_count * (chip.core.vector.float64_rate or 1.0)))
        fill = math.ceil(sum_bytes / sums_per_cycle) if item.accumulate else 0
        latency = _matrix_latency(chip, 0)
        return Cost(ideal, 0, latency, operations, moved, fill, ideal + latency, 0)
    rate = engine.multiply_accumulates_per_cycle(item.lhs_dtype.long_name) / (engine.row_count * engine.column_count)
    tiles = batch * -(-m // engine.row_count) * -(-n // engine.column_count)
    interleave = engine.accumulator_interleave
    groups = -(-tiles // interleave)
    ideal = math.ceil(groups * interleave * k / rate)
    rows, columns = min(m, engine.row_count), min(n, engine.column_count)
    fetch = _operand_cycles(item.lhs, rows, 1, k, operand_size, chip)
    fetch = max(fetch, _operand_cycles(item.rhs, columns, 2, k, operand_size, chip))
    fetched = math.ceil(tiles * k * fetch)
    exchanges = 2 if item.accumulate and groups > 1 else 1
    cycles = max(ideal, fetched, exchanges * -(-sum_bytes // sums_per_cycle))
    last_group = -(-rows * columns * sum_size * min(tiles, interleave) // sums_per_cycle)
    latency, group_cycles = _matrix_latency(chip, last_group), -(-cycles // groups)
    return Cost(
        cycles,
        cycles - ideal,
        latency,
        operations,
        moved,
        last_group if item.accumulate else 0,
        group_cycles + latency,
        cycles - group_cycles,
    )


def _matrix_latency(chip: "Chip", drain_cycles: int) -> int:
    return 2 * chip.core.scratchpad.latency_cycles + chip.core.matrix.accumulator_interleave + drain_cycles


def _operand_cycles(pattern: AccessPattern, count: int, dimension: int, k: int, size: int, chip: "Chip") -> float:
    """Scratchpad cycles for each k step to read `count` elements along `dimension` (and one along k)."""
    port = chip.core.scratchpad.port_width_bytes
    strides = (0, 0, 0, pattern.strides[dimension])
    busiest = rows_touched(AccessPattern(pattern.base, strides), (1, 1, 1, count), size, count, chip)[1]
    if abs(pattern.strides[3]) == 1:  # a port's row holds several k of one row of the tile
        return busiest / min(k, port // size)
    return float(busiest)


def single_group(item: "isa.MatrixMultiply", chip: "Chip") -> bool:
    """Return whether all sums of a matrix_multiply are in the array at once."""
    engine = chip.core.matrix
    batch, m, n, _ = item.shape
    tiles = batch * -(-m // engine.row_count) * -(-n // engine.column_count)
    return item.lhs_dtype is not DType.F64 and tiles <= engine.accumulator_interleave
