"""Costs of instructions on pipelined cores.

Operands are walked in beats: as many elements, in the order of the loops, as the engine takes in a cycle. The banks a
beat touches are counted on the first whole beat and hold for all: the register part of an address shifts all of them
alike. FIFOs between scratchpad and lanes even out what different operands ask of a bank.
"""

import functools
import math
from typing import TYPE_CHECKING

from tapeout.isa.cost import CoreCosts, Cost
from tapeout.isa.fields import AccessPattern, Instruction, OperandUse, Queued, operands
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function

if TYPE_CHECKING:  # the definitions name functions of `costs`, which imports this
    from tapeout.chip import Chip
    from tapeout.isa import definitions as isa

SLOW_SCALAR = {
    **dict.fromkeys((Function.MUL, Function.MUL_HIGH_SIGNED, Function.MUL_HIGH_UNSIGNED), 3),
    **dict.fromkeys((Function.DIV_SIGNED, Function.DIV_UNSIGNED, Function.REM_SIGNED, Function.REM_UNSIGNED), 20),
}
"""Cycles of the scalar functions that take more than one."""
"""Cycles of the scalar functions that take more than one."""

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


class PipelinedCosts(CoreCosts):
    """Costs on pipelined cores."""

    @property
    def handover_cycles(self) -> int:
        return 0

    def sequencer_cycles(self, item: Instruction) -> int:
        return -(-item.word_count // self.chip.core.fetch_words_per_cycle)

    def issue_cycles(self, item: Queued) -> int:
        return self.sequencer_cycles(item)

    def front_cycles(self, item: Queued) -> int:
        return 0

    def dispatch_cycles(self, item: Instruction) -> int:
        return max(0, self.chip.host.dispatch_cycles - self.sequencer_cycles(item))

    def scalar(self, item: "isa.Scalar") -> Cost:
        return Cost(max(self.sequencer_cycles(item), SLOW_SCALAR.get(item.function, 1)))

    def scalar_load(self, item: "isa.ScalarLoad") -> Cost:
        cycles = max(self.sequencer_cycles(item), self.chip.core.scratchpad.latency_cycles)
        return Cost(cycles, scratchpad_bytes=item.dtype.size_bytes)

    def synchronise(self, item: Queued) -> Cost:
        return Cost(1)

    def block_transfer(self, item: "isa.Transfer") -> Cost:
        return Cost(DESCRIPTOR_CYCLES, latency_cycles=self.chip.core.scratchpad.latency_cycles)

    def elementwise(self, item: "isa.Map | isa.Convert | isa.Iota") -> Cost:
        chip = self.chip
        elements = math.prod(item.shape)
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

    def reduction(self, item: "isa.Reduce") -> Cost:
        chip = self.chip
        rows, extent = math.prod(item.shape[:3]), item.shape[3]
        width = min(extent, REDUCTION_PARTIALS)
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

    def pick(self, item: "isa.Gather") -> Cost:
        chip = self.chip
        elements = math.prod(item.shape)
        moved = elements * (2 * item.dtype.size_bytes + item.index_dtype.size_bytes)
        per_cycle = max(1, min(chip.core.vector.lane_count, chip.core.scratchpad.bank_count // 2))
        cycles, latency = -(-elements // per_cycle), _vector_latency(chip)
        return Cost(cycles, 0, latency, elements, moved, first_result_cycles=latency, last_read_cycles=cycles)

    def matrix_product(self, item: "isa.MatrixMultiply") -> Cost:
        chip = self.chip
        engine, pad = chip.core.matrix, chip.core.scratchpad
        batch, m, n, k = item.shape
        operations = batch * m * n * k
        operand_size = item.lhs_dtype.size_bytes
        sum_size = 8 if item.lhs_dtype is DType.F64 else 4
        sum_bytes = batch * m * n * sum_size
        sums_per_cycle = max(sum_size, pad.bandwidth_bytes_per_cycle // 4)
        moved = batch * (m * k + k * n) * operand_size + sum_bytes * (2 if item.accumulate else 1)
        if item.lhs_dtype is DType.F64:
            ideal = math.ceil(operations / (chip.core.vector.lane_count * (chip.core.vector.float64_rate or 1.0)))
            fill = math.ceil(sum_bytes / sums_per_cycle) if item.accumulate else 0
            latency = _matrix_latency(chip, 0)
            return Cost(ideal, 0, latency, operations, moved, fill, ideal + latency, 0)
        rate = engine.multiply_accumulates_per_cycle(item.lhs_dtype.long_name) / (
            engine.row_count * engine.column_count
        )
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
        skew = engine.row_count + engine.column_count if engine.kind == "systolic" else 0
        latency, group_cycles = _matrix_latency(chip, last_group) + skew, -(-cycles // groups)
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


def _vector_latency(chip: "Chip") -> int:
    return chip.core.vector.latency_cycles + chip.core.scratchpad.latency_cycles


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


def transfer_conflict(
    pattern: AccessPattern, size: int, dimension: int, extent: int, bytes_per_cycle: int, chip: "Chip"
) -> int:
    """Scratchpad cycles for a DMA cycle's worth of elements of a run along `dimension`."""
    count = max(1, min(extent, bytes_per_cycle // size))
    along = AccessPattern(pattern.base, (0, 0, 0, pattern.strides[dimension]))
    return rows_touched(along, (1, 1, 1, count), size, count, chip)[1]


def single_group(item: "isa.MatrixMultiply", chip: "Chip") -> bool:
    """Return whether all sums of a matrix_multiply are in the array at once."""
    engine = chip.core.matrix
    batch, m, n, _ = item.shape
    tiles = batch * -(-m // engine.row_count) * -(-n // engine.column_count)
    return item.lhs_dtype is not DType.F64 and tiles <= engine.accumulator_interleave
