"""Cycle counts of the microcoded core, derived from its RTL stage by stage.

`tapeout.rtl` builds this core. What is counted here are its state machines, cycle by cycle; tests/rtl holds the counts
against it. A service time runs from the cycle in which an engine takes an instruction to the one in which it is done.
It depends on the instruction and the chip alone: registers are taken to add whole rounds of the banks to an address,
and banks that several engines want at once are not counted. For DMA, whose time is up to memory, here is what the
timing simulator needs to know.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tapeout.isa import microcode
from tapeout.isa.core_design import DEPTH, FLUSH_CYCLES, GROUPS
from tapeout.isa.fields import (
    AccessPattern,
    Instruction,
    Queued,
    Unit,
    read_registers,
    register_places,
    tiles,
)
from tapeout.isa.microcode import MicroProgram, Step
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS

if TYPE_CHECKING:  # the definitions name functions of `costs`, which imports this
    from tapeout.chip import Chip
    from tapeout.isa import definitions as isa

HANDOVER_CYCLES = 1
"""Cycles for a hand-over between engines. Paid from completion to the first signal, from each signal to the next or to
the instruction it releases, and from taking to starting."""

FETCH_CYCLES = 2
"""Cycles until an instruction's first word is there."""

ARITHMETIC_CYCLES = 4
"""Cycles of a step of the sequencer's microprograms."""

SETUP_CYCLES = 3
"""Cycles of the vector engine before its readers start: take the instruction, find its microprogram, prepare."""

READ_CYCLES = 2
"""Cycles of a reader of tiles, on top of the scratchpad's latency: into its buffer, and out of it."""

WRITE_CYCLES = 4
"""Cycles from a batch's last step to its first result at the writer."""

ARRIVAL_CYCLES = 3
"""Cycles from a block's answer until the load engine can hand it to its writer."""

ANSWER_CYCLES = 2
"""Cycles from a store's answer until the engine has registered it."""

ATOMIC_CYCLES = 5
"""Cycles from the last answer of a vector of atomics to the next vector."""


def _turns(step: Step) -> int:
    """Cycles the divider turns for a step; none for those the arithmetic unit does."""
    return microcode.division_cycles(step.operation, step.width) if step.operation in microcode.ITERATIVE else 0


# ------------------------------------------------------------------------------------------------ sequencer


def sequencer_cycles(item: Instruction) -> int:
    """Fetching, a cycle a further word, decoding, a cycle a register that is read, executing: of a scalar instruction.
    What it does besides comes on top."""
    cycles = FETCH_CYCLES + item.word_count - 1 + 1 + len(read_registers(type(item))) + 1
    return cycles + (item.mnemonic in ("argument", "next_program"))  # asked for, then there


def scalar_cycles(item: "isa.Scalar") -> int:
    return sequencer_cycles(item) + scalar_steps_cycles(microcode.function_program(item.function, item.dtype))


def scalar_steps_cycles(program: MicroProgram) -> int:
    return sum(ARITHMETIC_CYCLES + max(0, _turns(step) - 1) for step in program)


def issue_cycles(item: Queued) -> int:
    """Fetching, a cycle a further word, decoding, a cycle a register and one more if there are any, pushing."""
    registers = len(register_places(type(item)))
    return FETCH_CYCLES + item.word_count - 1 + 1 + (registers + 1 if registers else 0) + 1


def front_cycles(item: Queued) -> int:
    """Return the cycles from the push until an empty queue's front has read the entry and taken the semaphores."""
    return item.word_count + len(register_places(type(item))) + 3


def signal_count(item: Queued) -> int:
    return bool(item.signal_a) + bool(item.signal_b)


# ------------------------------------------------------------------------------------------------------ tiles


def inward_shifts(shape: Sequence[int]) -> int:
    """Return how often outer dimensions move in, so that vectors run along one that has more than an element."""
    return next((n for n in range(4) if shape[3 - n] > 1), 0)


def moved_in(values: Sequence[Any], shifts: int) -> tuple[Any, ...]:
    """Something that each dimension has, after the shifts. What was inside has one element and goes outside."""
    return tuple(values[(d - shifts) % 4] for d in range(4))


def rows_between(address: int, step_bytes: int, count: int, row_bytes: int) -> int:
    """Rows that `count` elements lie in, a step apart."""
    if abs(step_bytes) >= row_bytes:
        return count
    return abs((address + step_bytes * (count - 1)) // row_bytes - address // row_bytes) + 1


@functools.lru_cache(maxsize=4096)
def _banks(
    base: int,
    strides: tuple[int, ...],
    shape: tuple[int, ...],
    size: int,
    lanes: int,
    row_bytes: int,
    bank_count: int,
) -> tuple[tuple[int, ...], ...]:
    steps = [stride * size for stride in strides]
    vectors = []
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                start = base + i * steps[0] + j * steps[1] + k * steps[2]
                for first in range(0, shape[3], lanes):
                    own = range(first, min(first + lanes, shape[3]))
                    rows = dict.fromkeys((start + n * steps[3]) // row_bytes for n in own)
                    vectors.append(tuple(row % bank_count for row in rows))
    return tuple(vectors)


def tile_banks(
    pattern: AccessPattern, shape: Sequence[int], size: int, chip: "Chip", shifts: int
) -> tuple[tuple[int, ...], ...]:
    """Banks of the rows that each vector of a tile touches, in the order they are served. `shifts`: of the shape."""
    pad = chip.core.scratchpad
    return _banks(
        pattern.base % pad.bandwidth_bytes_per_cycle,
        moved_in(pattern.strides, shifts),
        moved_in(shape, shifts),
        size,
        chip.core.vector.lane_count,
        pad.port_width_bytes,
        pad.bank_count,
    )


def tile_rows(pattern: AccessPattern, shape: Sequence[int], size: int, chip: "Chip") -> tuple[int, ...]:
    """Rows that each vector of a tile touches, so many cycles it takes to read or write it by itself."""
    return tuple(map(len, tile_banks(pattern, shape, size, chip, inward_shifts(shape))))


# ----------------------------------------------------------------------------------------------------- vector


def program_of(item: "isa.Map | isa.Convert | isa.Iota") -> MicroProgram:
    """Return what the lanes run for an elementwise instruction."""
    from tapeout.isa import definitions as isa

    if isinstance(item, isa.Convert):
        return microcode.convert_program(item.dtype, item.result_dtype, item.unsigned, item.rounding)
    if isinstance(item, isa.Iota):
        return microcode.iota_program()
    return microcode.function_program(item.function, item.dtype)


def program_cycles(program: MicroProgram) -> int:
    """A batch's: a cycle a step and vector, for a division its turns and three more."""
    return GROUPS * sum(3 + _turns(step) if _turns(step) else 1 for step in program)


Vectors = Sequence[Sequence[int]]
"""Banks of the rows of each vector of a tile; ANY_BANK where that is not known."""

ANY_BANK = -1


class _Ports:
    """Banks taken in each cycle by the readers and the writer of one instruction. The first to come is served
    first; that is the order of priority, because writing is booked before the reading that goes on meanwhile."""

    def __init__(self) -> None:
        self.taken: set[tuple[int, int]] = set()

    def served(self, time: int, banks: Sequence[int]) -> int:
        """The cycle of the last row, if the first may go a cycle after `time`, each a cycle after the one before."""
        for bank in banks:
            time += 1
            if bank == ANY_BANK:
                continue
            while (time, bank) in self.taken:
                time += 1
            self.taken.add((time, bank))
        return time


class _Reader:
    """Vectors on their way from the scratchpad: when each is asked for, and when it is there."""

    def __init__(self, vectors: Vectors, ports: _Ports, start: int, latency: int) -> None:
        self.vectors = vectors
        self.ports = ports
        self.latency = latency
        self.asked = 0
        self.free = start + 1
        self.released: list[int] = []

    def there(self, count: int) -> int:
        """Return when the first `count` vectors can be read, if buffer places are released at the times `released`."""
        while self.asked < count:
            if self.asked >= DEPTH:
                self.free = max(self.free, self.released[self.asked - DEPTH] + 1)
            self.free = self.ports.served(self.free, self.vectors[self.asked])
            self.asked += 1
        return self.free + self.latency + READ_CYCLES


class _Writer:
    """Results on their way into the scratchpad."""

    def __init__(self, vectors: Vectors, ports: _Ports) -> None:
        self.vectors = vectors
        self.ports = ports
        self.free = 0
        self.taken: list[int] = []

    def put(self, time: int) -> None:
        """The next vector is there from a time on."""
        time = max(time, self.free)
        self.free = self.ports.served(time, self.vectors[len(self.taken)])
        self.taken.append(time)


def _map_cycles(
    compute: int,
    reads: Iterable[Vectors],
    written: Vectors,
    picked: Vectors | None,
    shifts: int,
    latency: int,
) -> int:
    """An elementwise instruction's service time. `compute`: cycles of a batch; `reads`, `written`: vectors of
    the operands and the result; `picked`: of what is gathered, if it is that."""
    start = SETUP_CYCLES + shifts
    ports = _Ports()
    readers = [_Reader(vectors, ports, start, latency) for vectors in reads]
    picker = _Reader(picked, ports, start, latency) if picked is not None else None
    writer = _Writer(written, ports)
    popped = writer.taken if picker is None else []
    count = len(written)
    ended, formed = start, start + 1
    for first in range(0, count, GROUPS):
        vectors = min(GROUPS, count - first)
        begin = max(ended + 1 if first else start + 2, formed + vectors)
        begin = max(begin, *(reader.there(first + vectors) for reader in readers), 0)
        if first + vectors > DEPTH:
            begin = max(begin, popped[first + vectors - DEPTH - 1] + 1)
        formed, ended = begin + 1, begin + compute
        for reader in readers:
            reader.released += [ended] * vectors
        for _ in range(vectors):
            if picker is None:
                writer.put(ended + WRITE_CYCLES)
                continue
            number = len(popped)
            time = max(ended + WRITE_CYCLES, picker.free)
            if number >= DEPTH:
                time = max(time, writer.taken[number - DEPTH] + 1)
            popped.append(time)
            picker.free = ports.served(time, picker.vectors[number])
            writer.put(picker.free + latency + READ_CYCLES)
    return max(writer.free + 1, ended + 1)


def map_cycles(item: "isa.Map | isa.Convert | isa.Iota", chip: "Chip") -> int:
    """Elementwise: batches of four vectors, each taking the microprogram's steps; reading, computing and writing of
    neighbouring batches overlap."""
    shifts = inward_shifts(item.shape)
    read: list[Vectors] = []
    written: list[Vectors] = []
    for use, pattern in tiles(item):
        banks = tile_banks(pattern, use.extents, use.dtype.size_bytes, chip, shifts)
        (written if use.writes else read).append(banks)
    latency = chip.core.scratchpad.latency_cycles
    compute = program_cycles(program_of(item))
    return _map_cycles(compute, read, written[0], None, shifts, latency)


def gather_cycles(item: "isa.Gather", chip: "Chip") -> int:
    """As elementwise, then the picked elements are read: which rows they lie in is up to the indices, taken to be
    spread over as many rows as the result has."""
    size, lanes = item.dtype.size_bytes, chip.core.vector.lane_count
    shifts = inward_shifts(item.shape)
    written = tile_banks(item.result, item.shape, size, chip, shifts)
    among = max(1, math.prod(item.shape) * size // chip.core.scratchpad.port_width_bytes)
    if item.stride * size >= chip.core.scratchpad.port_width_bytes:
        among = max(among, lanes)
    expected = round(among * (1 - (1 - 1 / among) ** min(lanes, math.prod(item.shape))))
    return _map_cycles(
        program_cycles(microcode.gather_program(item.index_dtype)),
        [tile_banks(item.index, item.shape, item.index_dtype.size_bytes, chip, shifts)],
        written,
        [[ANY_BANK] * max(1, expected)] * len(written),
        shifts,
        chip.core.scratchpad.latency_cycles,
    )


def reduce_cycles(item: "isa.Reduce", chip: "Chip") -> int:
    """Row after row: the first partial results are taken over, then a step for each 32 elements, then shift and step
    until one is left."""
    lanes, latency = chip.core.vector.lane_count, chip.core.scratchpad.latency_cycles
    rows, extent, size = math.prod(item.shape[:3]), item.shape[3], item.dtype.size_bytes
    step = program_cycles(microcode.function_program(item.function, item.dtype))
    start, ports = SETUP_CYCLES, _Ports()
    reader = _Reader(tile_banks(item.a, item.shape, size, chip, 0), ports, start, latency)
    writer = _Writer([[ANY_BANK]] * rows, ports)
    vectors_of_row = -(-extent // lanes)
    time = start + 2
    for row in range(rows):
        taken = row * vectors_of_row
        left, live, drain = extent, min(extent, REDUCTION_PARTIALS), 1
        for _ in range(REDUCTION_PARTIALS // lanes):
            taken += 1
            time = max(time + 1, reader.there(taken))
            reader.released.append(time)
            left -= lanes
            if left <= 0:
                break
        while left > 0:
            vectors = -(-min(left, REDUCTION_PARTIALS) // lanes)
            taken += vectors
            time = max(time + 1, reader.there(taken)) + step
            reader.released += [time] * vectors
            left -= REDUCTION_PARTIALS
            drain = 4
            if left > 0:
                time += 4
        while True:
            time += 1 + drain
            if live == 1:
                break
            time += 2 + step
            live, drain = -(-live // 2), 4
        time += 1
        if row >= DEPTH:
            time = max(time, writer.taken[row - DEPTH] + 1)
        writer.put(time + WRITE_CYCLES)
        time += 1 + vectors_of_row
    return max(time, writer.free + 1)


# ----------------------------------------------------------------------------------------------------- matrix


def _walk(time: int, rows: Iterable[int]) -> tuple[int, int]:
    """A loop that begins at a time and asks for vectors of so many rows (0: for none), one a cycle or a row: when the
    loop is over, and the cycle of the last row."""
    port, last = time, 0
    for count in rows:
        if count:
            time = max(time, port)
            port = last = time + count
        time += 1
    return time, last


def matrix_cycles(item: "isa.MatrixMultiply", chip: "Chip") -> int:
    """For every group of tiles: reading sums back, then for `lane_count` steps of k at a time fetching a vector a row
    of lhs and a vector a step and tile of rhs (or a column, where rhs is contiguous along k) and a cycle a step and
    tile, four for float32; then a vector a row and tile written."""
    engine, pad, depth = chip.core.matrix, chip.core.scratchpad, chip.core.vector.lane_count
    batch_count, m, n, k = item.shape
    size = item.lhs_dtype.size_bytes
    tiles, width = engine.accumulator_interleave, engine.column_count * engine.accumulator_interleave
    parts = 4 if item.lhs_dtype is DType.F32 else 1
    sums, lhs, rhs = item.accumulator, item.lhs, item.rhs
    along_k = rhs.strides[3] == 1 and rhs.strides[2] != 1

    def rows(pattern: AccessPattern, place: tuple[int, int, int, int], along: int, count: int, element: int) -> int:
        if count <= 0:
            return 0
        address = pattern.base + element * sum(i * s for i, s in zip(place, pattern.strides, strict=True))
        return rows_between(address, element * pattern.strides[along], count, pad.port_width_bytes)

    time = 0
    for batch in range(batch_count):
        for row in range(0, m, engine.row_count):
            for column in range(0, n, width):
                here = [
                    rows(sums, (batch, row + i, column + j * engine.column_count, 0), 2,
                         min(engine.column_count, n - column - j * engine.column_count), 4)
                    if row + i < m else 0
                    for i in range(engine.row_count)
                    for j in range(tiles)
                ]  # fmt: skip
                time, last = time + 2, 0
                if item.accumulate:
                    time, last = _walk(time, here)
                for first in range(0, k, depth):
                    steps = min(depth, k - first)
                    of_lhs = (
                        rows(lhs, (batch, row + i, 0, first), 3, steps, size) if row + i < m else 0
                        for i in range(engine.row_count)
                    )
                    time, last = _walk(_fetched(time, last, pad.latency_cycles), of_lhs)
                    if along_k:
                        of_rhs = (
                            rows(rhs, (batch, 0, column + i, first), 3, steps, size) if column + i < n else 0
                            for i in range(width)
                        )
                    else:
                        of_rhs = (
                            rows(rhs, (batch, 0, column + j * engine.column_count, first + i), 2,
                                 min(engine.column_count, n - column - j * engine.column_count), size)
                            for i in range(steps)
                            for j in range(tiles)
                        )  # fmt: skip
                    time, last = _walk(_fetched(time, last, pad.latency_cycles), of_rhs)
                    time, last = _fetched(time, last, pad.latency_cycles) + steps * tiles * parts, 0
                time, last = _walk(time + FLUSH_CYCLES + 1, here)
    return max(time + 1, last + 1)


def _fetched(time: int, last_row: int, latency: int) -> int:
    """Return the cycle in which the state after the wait for the reader begins."""
    return max(time, last_row + latency + 1 if last_row else 0) + 1


# -------------------------------------------------------------------------------------------------------- DMA


def is_made_one_by_one(item: "isa.Transfer") -> bool:
    """Return whether its addresses are made an element at a time."""
    return any(field.name == "index" for field in item.operand_fields)


def transfer_lead_cycles(item: "isa.Transfer", chip: "Chip") -> int:
    """Cycles from taking an instruction to the first vector's addresses, or (store) its data."""
    lanes, latency = chip.core.vector.lane_count, chip.core.scratchpad.latency_cycles
    start = 1 + inward_shifts(item.shape)
    first = [rows[0] for rows in _rows_read(item, chip)]
    there = start + 1 + (max(first) + latency + READ_CYCLES if first else 0)
    if item.unit is Unit.STORE:
        return there + 1
    return there + lanes + 1 if is_made_one_by_one(item) else start + 1


def _rows_read(item: "isa.Transfer", chip: "Chip") -> list[tuple[int, ...]]:
    """Return the rows that each vector touches, for each tile the instruction reads."""
    return [tile_rows(tile, use.extents, use.dtype.size_bytes, chip) for use, tile in tiles(item) if use.reads]


def transfer_vector_cycles(item: "isa.Transfer", chip: "Chip") -> int:
    """Cycles from a vector to the next beyond a cycle a request (at least one), and to its first request, less one."""
    serial = chip.core.vector.lane_count if is_made_one_by_one(item) else 0
    if item.unit is Unit.LOAD:
        return serial + 1 if serial else 0
    return serial + (4 if item.mnemonic == "atomic" else 2)


def transfer_request_cycles(item: "isa.Transfer", chip: "Chip") -> int:
    """Cycles from taking a vector to its first request."""
    return 1 + (chip.core.vector.lane_count if is_made_one_by_one(item) and item.unit is Unit.STORE else 0)


def transfer_rows(item: "isa.Transfer", chip: "Chip") -> tuple[int, int]:
    """Rows that all vectors of a transfer's tile take (of a store: that its slowest operand takes), and how many
    vectors there are."""
    lanes = chip.core.vector.lane_count
    shape = moved_in(item.shape, inward_shifts(item.shape))
    count = shape[0] * shape[1] * shape[2] * -(-shape[3] // lanes)
    rows = [
        sum(tile_rows(tile, use.extents, use.dtype.size_bytes, chip))
        for use, tile in tiles(item)
        if (use.writes if item.unit is Unit.LOAD else use.reads)
    ]
    return max(rows, default=0), count


def transfer_end(item: "isa.Transfer", taken: int, answered: int) -> int:
    """Return when a transfer is done: `taken` is the end of the cycles of its last vector, `answered` the time of its
    last answer (of a load: in the scratchpad)."""
    if item.unit is Unit.LOAD:
        return answered + 1
    if item.mnemonic == "atomic":  # the old values are written
        return taken
    return max(taken - 1, answered + ANSWER_CYCLES)
