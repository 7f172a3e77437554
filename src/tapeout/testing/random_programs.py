"""Random legal programs, with the memory they run on: to hold one implementation of the machine against
another.

`random_case(seed, chip)` gives a whole program: a loop over the grid's programs whose body has loops,
branches, every kind of queued instruction on every element type, access patterns with broadcast, gaps and
negative strides, rotating buffers, chains of instructions that reuse a few whole tiles as compiled code does,
and the semaphores that make it free of races. It leaves everything it computed in memory: each program of the
grid ends by copying its scratchpad and its scalars to an area of its own.

Semaphores: each ordered pair of units has one. A dependence of C on an earlier P of another unit becomes a
signal of P and a wait of C, unless C knows already that P is done; what is known grows along each queue, so
the n-th signal of a pair always belongs to its n-th wait.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import (
    AccessPattern,
    AtomicFunction,
    Function,
    Instruction,
    Operand,
    Parameter,
    Program,
    RegisterValue,
    Unit,
)
from tapeout.isa import definitions as isa
from tapeout.isa.fields import QUEUES, Queued
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import FLOAT8, MATRIX_DTYPES, accumulator_dtype
from tapeout.numerics.operations import ATOMIC_MEANING, REDUCTIONS, Rounding

INPUT_BYTES = 1 << 14
TABLE_BYTES = 1 << 9
SCALARS = tuple(range(200, 216))
"""Registers that hold random values."""

BASE, OUTPUT, WORKSPACE, TABLE, LINEAR = 1, 2, 3, 4, 5
"""Registers: base of memory, this program's output area, this core's workspace, this program's table, its
number."""

LOOP_COUNTERS = (240, 241, 242)
ROTATING = 239
TEMPORARIES = range(16, 190)
SYNC_ORDER = (Unit.SEQUENCER, *QUEUES)
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Choices for random programs: grids and sizes of tiles; and bytes a program of the grid may write to, and
    that a core has for itself (both at least a tile's)."""

    grids: tuple[tuple[int, int, int], ...]
    slot_bytes: tuple[int, ...]
    output_bytes: int
    workspace_bytes: int


FULL = Sizes(((1, 1, 1), (3, 1, 1), (2, 2, 1), (1, 2, 3), (7, 1, 1)), (256, 512, 2048), 4096, 4096)

SHORT = Sizes(((1, 1, 1), (1, 1, 1), (3, 1, 1), (1, 2, 1)), (256,), 1536, 256)
"""For many programs rather than long ones: a few thousand cycles, most of them for what is picked."""


@dataclass(frozen=True)
class Case:
    """A program and what to run it on. The only argument is the address where `image` lies."""

    seed: int
    program: Program
    grid: tuple[int, int, int]
    image: np.ndarray[Any, np.dtype[np.uint8]]


def random_case(seed: int, chip: Chip, instruction_count: int = 40, sizes: Sizes = FULL) -> Case:
    """A random program of about `instruction_count` queued instructions. The same seed gives the same
    case."""
    return _Generator(random.Random(seed), seed, chip, sizes).case(instruction_count)


@dataclass
class _Resource:
    """Bytes that instructions depend on each other for: the last write and the reads since, as (unit,
    number)."""

    start: int
    size: int
    write: tuple[Unit, int] | None = None
    reads: dict[Unit, int] = field(default_factory=dict)


Knowledge = dict[Unit, int]


@dataclass
class _Emitted:
    """Position of an instruction in the program, and what it knows once it is done."""

    place: int
    knows: Knowledge


class _Generator:
    def __init__(self, source: random.Random, seed: int, chip: Chip, sizes: Sizes) -> None:
        self.source = source
        self.seed = seed
        self.chip = chip
        self.dtypes = [d for d in DType if d is not DType.F64 or chip.core.vector.float64]
        self.grids = sizes.grids
        self.slot_bytes = source.choice(sizes.slot_bytes)
        slot_count = 12
        self.slots = [_Resource(n * self.slot_bytes, self.slot_bytes) for n in range(slot_count)]
        self.rotating_bytes = 768
        self.scratchpad_bytes = slot_count * self.slot_bytes + self.rotating_bytes
        self.output = _Resource(0, sizes.output_bytes)
        self.workspace = _Resource(0, sizes.workspace_bytes)
        self.table = _Resource(0, TABLE_BYTES)
        self.items: list[Instruction] = []
        self.emitted: dict[Unit, list[_Emitted]] = {unit: [] for unit in SYNC_ORDER}
        self.known: dict[Unit, Knowledge] = {unit: dict.fromkeys(SYNC_ORDER, 0) for unit in SYNC_ORDER}
        self.temporary = 0

    # ------------------------------------------------------------------------------------------ whole program

    def case(self, instruction_count: int) -> Case:
        grid = self.source.choice(self.grids)
        program_bytes = self.output.size + self.scratchpad_bytes + TABLE_BYTES
        self.emit(isa.Argument(destination=BASE, index=0))
        again = len(self.items)
        self.emit(isa.NextProgram(destination=LOOP_COUNTERS[0]))
        leave = self.emit(isa.BranchZero(condition=LOOP_COUNTERS[0], target=0))
        self._set_up_addresses(program_bytes)
        self._fill_scratchpad()
        self._body(instruction_count, depth=1)
        self._dump()
        self.emit(isa.Jump(target=again))
        self.items[leave] = replace(self.items[leave], target=len(self.items))  # type: ignore[type-var]
        self.emit(isa.Halt())
        program = Program(
            name=f"random_{self.seed}",
            chip=self.chip.name,
            instructions=tuple(self.items),
            scratchpad_bytes=self.scratchpad_bytes,
            parameters=(Parameter("memory", "*i8"),),
            workspace_bytes=self.workspace.size,
            lines=tuple(range(len(self.items))),
            locations=tuple(f"random_{self.seed}:{n}" for n in range(len(self.items))),
        )
        count = grid[0] * grid[1] * grid[2]
        return Case(self.seed, program, grid, self._image(INPUT_BYTES + count * program_bytes))

    def _image(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Random bits, floats near 1 of several types, small integers, zeros."""
        generator = np.random.default_rng(self.seed)
        parts: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        while sum(part.nbytes for part in parts) < size:
            normal = generator.normal(size=32)
            parts += [
                generator.integers(0, 256, 64, np.uint8),
                normal.astype(np.float32).view(np.uint8),
                normal.astype(np.float16).view(np.uint8),
                normal.view(np.uint8),
                generator.integers(-4, 5, 16, np.int32).view(np.uint8),
                np.zeros(16, np.uint8),
            ]
        order = generator.permutation(len(parts))
        return np.concatenate([parts[n] for n in order])[:size].copy()

    def _set_up_addresses(self, program_bytes: int) -> None:
        x, y, z, width, height = (self.fresh() for _ in range(5))
        for axis, register in enumerate((x, y, z)):
            self.emit(isa.ProgramId(destination=register, axis=axis))
        for axis, register in enumerate((width, height)):
            self.emit(isa.GridSize(destination=register, axis=axis))
        self.scalar(LINEAR, Function.MUL, z, height)
        self.scalar(LINEAR, Function.ADD, LINEAR, y)
        self.scalar(LINEAR, Function.MUL, LINEAR, width)
        self.scalar(LINEAR, Function.ADD, LINEAR, x)
        self.scalar(OUTPUT, Function.MUL, LINEAR, self.constant(program_bytes))
        self.scalar(OUTPUT, Function.ADD, OUTPUT, self.constant(INPUT_BYTES))
        self.scalar(OUTPUT, Function.ADD, OUTPUT, BASE)
        self.scalar(TABLE, Function.ADD, OUTPUT, self.constant(self.output.size + self.scratchpad_bytes))
        self.emit(isa.Workspace(destination=WORKSPACE))
        for register in SCALARS:
            self.emit(isa.LoadImmediate(destination=register, value=self._random_integer(64)))
        self.scalar(SCALARS[0], Function.ADD, LINEAR, 0)

    def _fill_scratchpad(self) -> None:
        """Every byte, from memory: what lies there otherwise depends on what the core did before."""
        count = self.scratchpad_bytes // 4
        for start in range(0, count, INPUT_BYTES // 4):
            part = min(count - start, INPUT_BYTES // 4)
            self.queue(
                isa.Load(
                    dtype=DType.I32,
                    base=BASE,
                    strides=(0, 0, 0, self.constant(4)),
                    shape=(1, 1, 1, part),
                    tile=AccessPattern(4 * start, (0, 0, 0, 1)),
                ),
                writes=self.slots,
            )
        self.queue(
            isa.Store(
                dtype=DType.I32,
                base=WORKSPACE,
                strides=(0, 0, 0, self.constant(4)),
                shape=(1, 1, 1, self.workspace.size // 4),
                tile=RegisterValue(LINEAR),
            ),
            writes=[self.workspace],
        )
        self.drain()

    def _dump(self) -> None:
        self.drain()
        for number, register in enumerate(SCALARS):
            self.emit(isa.ScalarStore(a=register, address=8 * number, dtype=DType.I64))
        address = self.fresh()
        self.scalar(address, Function.ADD, OUTPUT, self.constant(self.output.size))
        self.queue(
            isa.Store(
                dtype=DType.I32,
                base=address,
                strides=(0, 0, 0, self.constant(4)),
                shape=(1, 1, 1, self.scratchpad_bytes // 4),
                tile=AccessPattern(0, (0, 0, 0, 1)),
            )
        )
        self.drain()

    # ------------------------------------------------------------------------------- emission,
    # synchronisation

    def emit(self, item: Instruction) -> int:
        """Append; gives the index."""
        self.items.append(item)
        return len(self.items) - 1

    def queue(self, item: Queued, reads: list[_Resource] | None = None, writes: list[_Resource] | None = None) -> None:
        """Append an instruction of a queue, with the semaphores that order it after what it depends on."""
        unit, reads, writes = item.unit, reads or [], writes or []
        waits = self._waits(unit, self._dependences(unit, reads, writes))
        while len(waits) > 2:
            self._append(isa.SYNC[unit](wait_a=waits.pop()))
        names = dict(zip(("wait_a", "wait_b"), waits, strict=False))
        self._append(replace(item, **names))
        self._note(unit, len(self.emitted[unit]), reads, writes)

    def on_sequencer(self, item: Instruction, reads: list[_Resource], writes: list[_Resource]) -> None:
        """Append an instruction of the sequencer that touches the scratchpad."""
        for semaphore in self._waits(Unit.SEQUENCER, self._dependences(Unit.SEQUENCER, reads, writes)):
            self.emit(isa.Wait(semaphore=semaphore))
        self.emit(item)
        # What the queues get later is issued later, hence after this.

    def drain(self) -> None:
        self.emit(isa.Drain())
        self.known[Unit.SEQUENCER] = {unit: len(self.emitted[unit]) for unit in SYNC_ORDER}

    def _append(self, item: Instruction) -> None:
        unit = item.unit
        place = self.emit(item)
        known = self.known[unit]
        for other, number in self.known[Unit.SEQUENCER].items():
            known[other] = max(known[other], number)
        known[unit] = len(self.emitted[unit]) + 1
        self.emitted[unit].append(_Emitted(place, dict(known)))

    def _dependences(self, unit: Unit, reads: list[_Resource], writes: list[_Resource]) -> Knowledge:
        """For each other unit, its last instruction that must be done."""
        needed: Knowledge = {}
        for resource in reads + writes:
            users = [resource.write] if resource.write else []
            if resource in writes:
                users += list(resource.reads.items())
            for user, number in users:
                if user is not unit:
                    needed[user] = max(needed.get(user, 0), number)
        return needed

    def _waits(self, unit: Unit, needed: Knowledge) -> list[int]:
        """Semaphores to take for what is not known to be done; their signals are added to the producers."""
        known, waits = self.known[unit], []
        for producer, number in needed.items():
            if max(known[producer], self.known[Unit.SEQUENCER][producer]) >= number:
                continue
            semaphore = 1 + SYNC_ORDER.index(producer) * len(SYNC_ORDER) + SYNC_ORDER.index(unit)
            done = self._signal(producer, number, semaphore)
            for other, count in done.knows.items():
                known[other] = max(known[other], count)
            waits.append(semaphore)
        return waits

    def _signal(self, unit: Unit, number: int, semaphore: int) -> _Emitted:
        """Let an instruction, or if it has no room left a later one, give a semaphore."""
        emitted = self.emitted[unit][number - 1]
        item = self.items[emitted.place]
        assert isinstance(item, Queued)
        for name in ("signal_a", "signal_b"):
            if not getattr(item, name):
                self.items[emitted.place] = replace(item, **{name: semaphore})
                return emitted
        self._append(isa.SYNC[unit](signal_a=semaphore))
        return self.emitted[unit][-1]

    def _note(self, unit: Unit, number: int, reads: list[_Resource], writes: list[_Resource]) -> None:
        for resource in reads:
            resource.reads[unit] = number
        for resource in writes:
            resource.write, resource.reads = (unit, number), {}

    # -------------------------------------------------------------------------------------------- small
    # pieces

    def fresh(self) -> int:
        """A register for a value needed at once: queued instructions take values along when issued."""
        self.temporary = (self.temporary + 1) % len(TEMPORARIES)
        return TEMPORARIES[self.temporary]

    def constant(self, value: int) -> int:
        register = self.fresh()
        self.emit(isa.LoadImmediate(destination=register, value=value))
        return register

    def scalar(self, destination: int, function: Function, a: int, b: int, dtype: DType = DType.I64) -> None:
        self.emit(isa.Scalar(destination=destination, a=a, b=b, function=function, dtype=dtype))

    def _random_integer(self, bits: int) -> int:
        choices = (
            lambda: self.source.randrange(-(1 << bits - 1), 1 << bits - 1),
            lambda: self.source.randrange(-9, 10),
            lambda: 0x3F80_0000 + self.source.randrange(-5, 5),
        )
        return self.source.choice(choices)()

    def _chance(self, probability: float) -> bool:
        return self.source.random() < probability

    def _other_slots(self, count: int, *excluded: _Resource) -> list[_Resource]:
        return self.source.sample([slot for slot in self.slots if slot not in excluded], count)

    def _shape(self, limit: int, dimensions: int = 4) -> Shape:
        """Extents whose product is at most `limit`."""
        extents = [1, 1, 1, 1]
        for dimension in self.source.sample(range(4 - dimensions, 4), dimensions):
            most = min(limit, 70 if dimension == 3 else 6)
            if self._chance(0.3):
                most = limit
            extents[dimension] = self.source.randint(1, max(most, 1))
            limit //= extents[dimension]
        return tuple(extents)  # type: ignore[return-value]

    def _pattern(self, slot: _Resource, shape: Shape, size: int, broadcast: bool = False) -> AccessPattern:
        """A pattern of distinct elements (but for broadcast dimensions) inside a slot: dimensions in any
        order, gaps between them if there is room, any of them backwards, part of the address in a
        register."""
        room = slot.size // size
        strides = [0, 0, 0, 0]
        step, reach = 1, 0
        for dimension in self.source.sample(range(4), 4):
            extent = shape[dimension]
            if broadcast and self._chance(0.25):
                continue
            needed = (extent - 1) * step
            later = np.prod([shape[d] for d in range(4) if d != dimension and strides[d] == 0], dtype=int)
            if self._chance(0.3):
                wider = step + self.source.randint(0, 3)
                if reach + (extent - 1) * wider + wider * extent * (int(later) - 1) < room:
                    step, needed = wider, (extent - 1) * wider
            strides[dimension] = step
            reach += needed
            step *= extent
        assert reach < room
        base = self.source.randrange(room - reach) if self._chance(0.5) else 0
        for dimension in range(4):
            if self._chance(0.15):
                base += (shape[dimension] - 1) * strides[dimension]
                strides[dimension] = -strides[dimension]
        address, register = slot.start + base * size, 0
        if self._chance(0.2):
            part = self.source.randint(0, address // 8) * 8
            address, register = address - part, self.constant(part)
        return AccessPattern(address, tuple(strides), register)  # type: ignore[arg-type]

    def _operand(self, shape: Shape, dtype: DType, *excluded: _Resource) -> tuple[Operand, list[_Resource]]:
        """A source: mostly a tile, sometimes a register."""
        if self._chance(0.15):
            return RegisterValue(self.source.choice(SCALARS)), []
        (slot,) = self._other_slots(1, *excluded)
        return self._pattern(slot, shape, dtype.size_bytes, broadcast=True), [slot]

    # ------------------------------------------------------------------------------------------------- bodies

    def _body(self, budget: int, depth: int) -> None:
        while budget > 0:
            kind = self.source.random()
            if kind < 0.06 and depth < len(LOOP_COUNTERS) and budget > 6:
                budget -= self._loop(self.source.randint(3, 8), depth)
            elif kind < 0.12 and depth < len(LOOP_COUNTERS) and budget > 6:
                budget -= self._branch(self.source.randint(2, 5), depth)
            elif kind < 0.14:
                self._pipelined_loop()
                budget -= 5
            elif kind < 0.2 and budget > 6:
                budget -= self._chain()
            else:
                self.source.choices(*zip(*self._steps().items(), strict=True))[0]()
                budget -= 1

    def _steps(self) -> dict[Callable[[], None], float]:
        """Kinds of instruction, and how often."""
        return {
            self._map: 8,
            self._convert: 4,
            self._reduce: 2,
            self._load: 3,
            self._load_indexed: 1,
            self._store: 2,
            self._store_indexed: 1,
            self._spill: 0.5,
            self._atomic: 1,
            self._gather: 1.5,
            self._iota: 1,
            self._matrix: 3,
            self._scalars: 2,
            self._scalar_memory: 1,
        }

    def _loop(self, budget: int, depth: int) -> int:
        counter, one = LOOP_COUNTERS[depth], self.fresh()
        self.drain()
        self.emit(isa.LoadImmediate(destination=counter, value=self.source.randint(1, 3)))
        again = len(self.items)
        self._body(budget, depth + 1)
        self.drain()
        self.emit(isa.LoadImmediate(destination=one, value=1))
        self.scalar(counter, Function.SUB, counter, one)
        self.emit(isa.BranchNonzero(condition=counter, target=again))
        return 2 * budget

    def _branch(self, budget: int, depth: int) -> int:
        self.drain()
        kind = self.source.choice((isa.BranchZero, isa.BranchNonzero))
        condition = self.fresh()
        self.scalar(condition, Function.AND, self.source.choice((LINEAR, *SCALARS)), self.constant(1))
        other = self.emit(kind(condition=condition, target=0))
        self._body(budget, depth + 1)
        self.drain()
        end = self.emit(isa.Jump(target=0))
        self.items[other] = replace(self.items[other], target=len(self.items))  # type: ignore[type-var]
        self._body(budget, depth + 1)
        self.drain()
        self.items[end] = replace(self.items[end], target=len(self.items))  # type: ignore[type-var]
        return 2 * budget

    def _pipelined_loop(self) -> None:
        """Load, compute and store overlap over rotating buffers: the vector queue waits for a full buffer
        and frees it, the store queue waits for the result and frees that."""
        full, free, done, written = 60, 61, 62, 63
        count = self.source.randint(1, 6)
        buffers = self.source.randint(1, 3)
        copy_bytes = self.rotating_bytes // 6
        start = self.scratchpad_bytes - self.rotating_bytes
        extent = copy_bytes // 4
        self.drain()
        for _ in range(buffers):
            self._append(isa.VectorSync(signal_a=free))
            self._append(isa.StoreSync(signal_a=written))
        counter, source, target, stride = self.fresh(), self.fresh(), self.fresh(), self.constant(4)
        stop = self.constant(1)
        self.emit(isa.LoadImmediate(destination=ROTATING, value=0))
        self.emit(isa.LoadImmediate(destination=counter, value=count))
        self.scalar(source, Function.ADD, BASE, self.constant(4 * self.source.randint(0, 500)))
        self.scalar(target, Function.ADD, OUTPUT, self.constant(4 * self.source.randint(0, 80)))
        step = self.constant(copy_bytes)
        shape = (1, 1, 1, extent)
        tile = AccessPattern(start, (0, 0, 0, 1), ROTATING)
        result = AccessPattern(start + 3 * copy_bytes, (0, 0, 0, 1), ROTATING)
        strides = (0, 0, 0, stride)
        function = self.source.choice((Function.EXP2, Function.SIN, Function.SQRT, Function.NEG))
        again = len(self.items)
        self._append(
            isa.Load(
                dtype=DType.F32,
                base=source,
                strides=strides,
                shape=shape,
                tile=tile,
                wait_a=free,
                signal_a=full,
            )
        )
        self._append(
            isa.Map1(
                function=function,
                dtype=DType.F32,
                shape=shape,
                result=result,
                a=tile,
                wait_a=full,
                wait_b=written,
                signal_a=done,
                signal_b=free,
            )
        )
        self._append(
            isa.Store(
                dtype=DType.F32,
                base=target,
                strides=strides,
                shape=shape,
                tile=result,
                wait_a=done,
                signal_a=written,
            )
        )
        self.emit(isa.Rotate(register=ROTATING, step=copy_bytes, limit=buffers * copy_bytes))
        self.scalar(source, Function.ADD, source, step)
        self.scalar(target, Function.ADD, target, step)
        self.scalar(counter, Function.SUB, counter, stop)
        self.emit(isa.BranchNonzero(condition=counter, target=again))
        self.drain()  # before taking what is left, lest the queues go without
        for _ in range(buffers):
            self.emit(isa.Wait(semaphore=free))
            self.emit(isa.Wait(semaphore=written))

    # ------------------------------------------------------------------------------------------------- chains

    def _chain(self) -> int:
        """Instructions that pass whole tiles of one shape through a few buffers, as compiled code does: results and
        accumulators are overwritten, updated in place or in part, and read again. Gives how many there are."""
        buffers = self._other_slots(self.source.randint(2, 4))
        batch, columns = self.source.choice((1, 2)), self.source.choice((8, 16))
        shape = (batch, self.slot_bytes // 4 // batch // columns // self.source.choice((1, 2)), columns, 1)
        count = self.source.randint(4, 12)
        kinds = (self._whole, self._part, self._product, self._update, self._copy_out)
        for _ in range(count):
            self.source.choices(kinds, (6, 2, 4, 1, 1))[0](buffers, shape)
        return count

    def _tile(self, buffer: _Resource, shape: Shape) -> AccessPattern:
        """All of a buffer, row-major."""
        return AccessPattern(buffer.start, (shape[1] * shape[2], shape[2], 1, 0))

    def _whole(self, buffers: list[_Resource], shape: Shape) -> None:
        result, a, b = self.source.choices(buffers, k=3)
        function = self.source.choice((Function.ADD, Function.MUL, Function.MAXIMUM, Function.NEG, Function.COPY))
        operands: dict[str, Any] = {"a": self._tile(a, shape)}
        if function.arity == 2:
            operands["b"] = self._tile(b, shape)
        kind = isa.Map2 if function.arity == 2 else isa.Map1
        made = kind(function=function, dtype=DType.F32, shape=shape, result=self._tile(result, shape), **operands)
        self.queue(made, [a, b][: function.arity], [result])

    def _part(self, buffers: list[_Resource], shape: Shape) -> None:
        """Half the rows, or every other column, of a buffer."""
        result, a = self.source.sample(buffers, 2)
        target, source = self._tile(result, shape), self._tile(a, shape)
        if self._chance(0.5):
            part = (shape[0], (shape[1] + 1) // 2, shape[2], 1)
        else:
            part = (shape[0], shape[1], shape[2] // 2, 1)
            target = replace(target, strides=(*target.strides[:2], 2, 0))
        function = self.source.choice((Function.NEG, Function.COPY))
        self.queue(isa.Map1(function=function, dtype=DType.F32, shape=part, result=target, a=source), [a], [result])

    def _product(self, buffers: list[_Resource], shape: Shape) -> None:
        """Mostly added to what a buffer holds."""
        accumulator, source = self.source.sample(buffers, 2)
        batch, rows, columns, _ = shape
        depth = self.source.choice((2, 4))
        steps = rows * columns
        self.queue(
            isa.MatrixMultiply(
                lhs_dtype=DType.F32,
                rhs_dtype=DType.F32,
                accumulate=self._chance(0.8),
                shape=(batch, rows, columns, depth),
                accumulator=self._tile(accumulator, shape),
                lhs=AccessPattern(source.start, (steps, columns, 0, 1)),
                rhs=AccessPattern(source.start, (steps, 0, 1, columns if rows >= depth else 0)),
            ),
            [accumulator, source],
            [accumulator],
        )

    def _update(self, buffers: list[_Resource], shape: Shape) -> None:
        """An atomic that leaves some elements of what a buffer held."""
        previous, operand = self.source.sample(buffers, 2)
        few = (1, 1, shape[2], 1)
        index, index_slot = self._indices(few, DType.I32, 8, *buffers)
        (mask,) = self._other_slots(1, *buffers)
        self.queue(
            isa.Atomic(
                dtype=DType.F32,
                index_dtype=DType.I32,
                function=AtomicFunction.ADD,
                scale=4,
                base=TABLE,
                shape=few,
                tile=self._tile(operand, shape),
                other=RegisterValue(0),
                index=index,
                mask=self._pattern(mask, few, 1),
                previous=self._tile(previous, shape),
            ),
            [index_slot, mask, previous, operand],
            [previous, self.table],
        )

    def _copy_out(self, buffers: list[_Resource], shape: Shape) -> None:
        source = self.source.choice(buffers)
        size = self.slot_bytes // 4
        offset = 4 * self.source.randrange(self.output.size // 4 - size + 1)
        self.queue(
            isa.Store(
                dtype=DType.F32,
                base=self._address(OUTPUT, offset),
                strides=self._stride_registers((0, 0, 0, 4)),
                shape=(1, 1, 1, size),
                tile=AccessPattern(source.start, (0, 0, 0, 1)),
            ),
            [source],
            [self.output],
        )

    # ------------------------------------------------------------------------------------------------- vector

    def _map(self) -> None:
        arity = self.source.choices((1, 2, 3), (4, 5, 2))[0]
        function = self.source.choice([f for f in Function if f.arity == arity])
        dtype = self.source.choice([d for d in function.dtypes if d in self.dtypes])
        result_dtype = function.result_dtype(dtype)
        size = max(dtype.size_bytes, result_dtype.size_bytes)
        shape = self._shape(self.slot_bytes // size)
        (slot,) = self._other_slots(1)
        result = self._pattern(slot, shape, result_dtype.size_bytes)
        operands: list[Operand] = []
        reads: list[_Resource] = []
        for operand_dtype in function.operand_dtypes(dtype):
            if operand_dtype.size_bytes == result_dtype.size_bytes and self._chance(0.15):
                operands.append(result)
                reads.append(slot)
                continue
            operand, slots = self._operand(shape, operand_dtype, slot)
            operands.append(operand)
            reads += slots
        kind = (isa.Map1, isa.Map2, isa.Map3)[function.arity - 1]
        named: dict[str, Any] = dict(zip("abc", operands, strict=False))
        self.queue(kind(function=function, dtype=dtype, shape=shape, result=result, **named), reads, [slot])

    def _convert(self) -> None:
        dtype, result_dtype = self.source.choices(self.dtypes, k=2)
        shape = self._shape(self.slot_bytes // max(dtype.size_bytes, result_dtype.size_bytes))
        (slot,) = self._other_slots(1)
        result = self._pattern(slot, shape, result_dtype.size_bytes)
        operand, reads = self._operand(shape, dtype, slot)
        self.queue(
            isa.Convert(
                dtype=dtype,
                result_dtype=result_dtype,
                unsigned=self._chance(0.5),
                rounding=self.source.choice(list(Rounding)),
                shape=shape,
                result=result,
                a=operand,
            ),
            reads,
            [slot],
        )

    def _reduce(self) -> None:
        function = self.source.choice(REDUCTIONS)
        dtype = self.source.choice([d for d in function.dtypes if d in self.dtypes])
        shape = self._shape(self.slot_bytes // dtype.size_bytes)
        slot, other = self._other_slots(2)
        result = self._pattern(slot, (*shape[:3], 1), dtype.size_bytes)
        result = replace(result, strides=(*result.strides[:3], 0))
        a = self._pattern(other, shape, dtype.size_bytes, broadcast=True)
        self.queue(isa.Reduce(function=function, dtype=dtype, shape=shape, result=result, a=a), [other], [slot])

    def _iota(self) -> None:
        dtype = self.source.choice((DType.I8, DType.I16, DType.I32, DType.I64))
        shape = self._shape(self.slot_bytes // dtype.size_bytes)
        (slot,) = self._other_slots(1)
        steps = tuple(self.source.choice((0, *SCALARS)) for _ in range(4))
        result = self._pattern(slot, shape, dtype.size_bytes)
        start = self.source.choice((0, *SCALARS))
        self.queue(isa.Iota(dtype=dtype, start=start, steps=steps, shape=shape, result=result), [], [slot])

    def _indices(self, shape: Shape, dtype: DType, limit: int, *excluded: _Resource) -> tuple[AccessPattern, _Resource]:
        """A tile of indices in 0..limit-1, limit a power of two, made from whatever lies in a slot."""
        slot, source = self._other_slots(2, *excluded)
        pattern = self._pattern(slot, shape, dtype.size_bytes)
        a = self._pattern(source, shape, dtype.size_bytes, broadcast=True)
        mask = RegisterValue(self.constant(limit - 1))
        self.queue(
            isa.Map2(function=Function.AND, dtype=dtype, shape=shape, result=pattern, a=a, b=mask),
            [source],
            [slot],
        )
        return pattern, slot

    def _gather(self) -> None:
        dtype = self.source.choice(self.dtypes)
        index_dtype = self.source.choice((DType.I8, DType.I16, DType.I32, DType.I64))
        size = dtype.size_bytes
        shape = self._shape(self.slot_bytes // max(size, index_dtype.size_bytes) // 2)
        slot, source = self._other_slots(2)
        limit = 1 << self.source.randint(0, 6)
        stride = self.source.randint(0, self.slot_bytes // size // limit // 4)
        index, index_slot = self._indices(shape, index_dtype, limit, slot, source)
        room = self.slot_bytes // size - (limit - 1) * stride
        outer = self.source.randint(0, 2)
        strides = tuple(
            self.source.randint(0, max((room - 1) // shape[d] // 4, 0)) if d <= outer else 0 for d in range(4)
        )
        pattern = AccessPattern(source.start, strides)  # type: ignore[arg-type]
        self.queue(
            isa.Gather(
                dtype=dtype,
                index_dtype=index_dtype,
                stride=stride,
                shape=shape,
                result=self._pattern(slot, shape, size),
                source=pattern,
                index=index,
            ),
            [source, index_slot],
            [slot],
        )

    # ------------------------------------------------------------------------------------------------- matrix

    def _matrix(self) -> None:
        left = self.source.choice([d for d in MATRIX_DTYPES if d in self.dtypes])
        right = self.source.choice(FLOAT8) if left in FLOAT8 else left
        dtype = accumulator_dtype(left)
        limit = self.slot_bytes // dtype.size_bytes
        batch = self.source.choice((1, 1, 2))
        m = self.source.randint(1, min(16, limit // batch))
        n = self.source.randint(1, min(40, limit // batch // m))
        k = self.source.randint(1, min(20, self.slot_bytes // left.size_bytes // batch // max(m, n)))
        slot, left_slot, right_slot = self._other_slots(3)
        accumulator = self._pattern(slot, (batch, m, n, 1), dtype.size_bytes)
        lhs = self._pattern(left_slot, (batch, m, 1, k), left.size_bytes, broadcast=True)
        rhs = self._pattern(right_slot, (batch, 1, n, k), right.size_bytes, broadcast=True)
        self.queue(
            isa.MatrixMultiply(
                lhs_dtype=left,
                rhs_dtype=right,
                accumulate=self._chance(0.5),
                shape=(batch, m, n, k),
                accumulator=_without(accumulator, 3),
                lhs=_without(lhs, 2),
                rhs=_without(rhs, 1),
            ),
            [slot, left_slot, right_slot],
            [slot],
        )

    # ---------------------------------------------------------------------------------------------------- DMA

    def _block(self, area_bytes: int, shape: Shape, size: int) -> tuple[int, tuple[int, ...], dict[str, Any]]:
        """Offset in an area, strides in bytes, and bounds as registers, such that valid elements are
        inside."""
        low, high = [0, 0, 0, 0], list(shape)
        bounds: dict[str, Any] = {"low": [0, 0, 0, 0], "high": [0, 0, 0, 0]}
        for dimension, extent in enumerate(shape):
            if self._chance(0.2):
                value = self.source.randint(-2, extent + 1)
                bounds["low"][dimension], low[dimension] = self.constant(value), max(value, 0)
            if self._chance(0.2):
                value = self.source.randint(-1, extent + 3)
                bounds["high"][dimension], high[dimension] = self.constant(value), min(value, extent)
        strides, step, first, last = [0, 0, 0, 0], 1, 0, 0
        for dimension in self.source.sample(range(4), 4):
            step_here = step * self.source.choice((1, 1, 1, 2, -1, 0) if shape[dimension] > 1 else (0, 1))
            strides[dimension] = step_here * size
            if low[dimension] < high[dimension]:
                ends = (low[dimension] * step_here * size, (high[dimension] - 1) * step_here * size)
                first, last = first + min(ends), last + max(ends)
            step = max(abs(step_here) * shape[dimension], step)
        if last - first + size > area_bytes:  # a row-major block always fits
            strides, step = [0, 0, 0, 0], size
            for dimension in (3, 2, 1, 0):
                strides[dimension], step = step, step * shape[dimension]
            first, last = 0, step - size
        offset = self.source.randrange(0, (area_bytes - (last - first) - size) // size + 1) * size - first
        bounds = {name: tuple(values) for name, values in bounds.items()}
        return offset, tuple(strides), bounds

    def _address(self, base: int, offset: int) -> int:
        register = self.fresh()
        self.scalar(register, Function.ADD, base, self.constant(offset))
        return register

    def _stride_registers(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.constant(stride) if stride else 0 for stride in strides)

    def _load(self) -> None:
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        shape = self._shape(self.slot_bytes // size)
        (slot,) = self._other_slots(1)
        base, area, reads = self.source.choice(
            (
                (BASE, INPUT_BYTES, []),
                (OUTPUT, self.output.size, [self.output]),
                (TABLE, TABLE_BYTES, [self.table]),
            )
        )
        if int(np.prod(shape)) * size > area:
            base, area, reads = BASE, INPUT_BYTES, []
        offset, strides, bounds = self._block(area, shape, size)
        self.queue(
            isa.Load(
                dtype=dtype,
                base=self._address(base, offset),
                strides=self._stride_registers(strides),
                fill=self.source.choice((0, *SCALARS)),
                shape=shape,
                tile=self._pattern(slot, shape, size),
                **bounds,
            ),
            reads,
            [slot],
        )

    def _store(self) -> None:
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        shape = self._shape(min(self.slot_bytes, self.output.size) // size)
        operand, reads = self._operand(shape, dtype)
        offset, strides, bounds = self._block(self.output.size, shape, size)
        self.queue(
            isa.Store(
                dtype=dtype,
                base=self._address(OUTPUT, offset),
                strides=self._stride_registers(strides),
                shape=shape,
                tile=operand,
                **bounds,
            ),
            reads,
            [self.output],
        )

    def _spill(self) -> None:
        """To this core's workspace and back."""
        size_bytes = self.slot_bytes
        source, target = self._other_slots(2)
        common: dict[str, Any] = {
            "dtype": DType.I8,
            "base": WORKSPACE,
            "strides": (0, 0, 0, self.constant(1)),
            "shape": (1, 1, 1, size_bytes),
        }
        tile = AccessPattern(source.start, (0, 0, 0, 1))
        self.queue(isa.Store(tile=tile, **common), [source], [self.workspace])
        tile = AccessPattern(target.start, (0, 0, 0, 1))
        self.queue(isa.Load(tile=tile, **common), [self.workspace], [target])

    def _indexed(self, area_bytes: int, *excluded: _Resource) -> tuple[Shape, int, dict[str, Any], list[_Resource]]:
        """Return what load_indexed and store_indexed share; offset of the block in the area."""
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        index_dtype = self.source.choice((DType.I32, DType.I64))
        shape = self._shape(self.slot_bytes // 8 // 2)
        index, index_slot = self._indices(shape, index_dtype, 8, *excluded)
        mask: Operand = RegisterValue(0)
        reads = [index_slot]
        if self._chance(0.6):
            (mask_slot,) = self._other_slots(1, *excluded)
            mask = self._pattern(mask_slot, shape, 1, broadcast=True)
            reads.append(mask_slot)
        scale = size * self.source.randint(0, 3)
        offset, strides, bounds = self._block(area_bytes - 7 * scale, shape, size)
        fields = {
            "dtype": dtype,
            "index_dtype": index_dtype,
            "scale": scale,
            "strides": self._stride_registers(strides),
            "shape": shape,
            "index": index,
            "mask": mask,
            **bounds,
        }
        return shape, offset, fields, reads

    def _load_indexed(self) -> None:
        (slot,) = self._other_slots(1)
        shape, offset, fields, reads = self._indexed(INPUT_BYTES, slot)
        self.queue(
            isa.LoadIndexed(
                base=self._address(BASE, offset),
                fill=self.source.choice((0, *SCALARS)),
                tile=self._pattern(slot, shape, fields["dtype"].size_bytes),
                **fields,
            ),
            reads,
            [slot],
        )

    def _store_indexed(self) -> None:
        shape, offset, fields, reads = self._indexed(self.output.size)
        operand, slots = self._operand(shape, fields["dtype"])
        self.queue(
            isa.StoreIndexed(base=self._address(OUTPUT, offset), tile=operand, **fields),
            reads + slots,
            [self.output],
        )

    def _atomic(self) -> None:
        function = self.source.choice(list(AtomicFunction))
        combine = ATOMIC_MEANING.get(function)
        dtype = self.source.choice([d for d in (combine.dtypes if combine else self.dtypes) if d in self.dtypes])
        shape = self._shape(min(self.slot_bytes // 8, 64))
        (slot,) = self._other_slots(1)
        index_dtype = self.source.choice((DType.I32, DType.I64))
        index, index_slot = self._indices(shape, index_dtype, 8, slot)
        tile, tile_slots = self._operand(shape, dtype, slot)
        other, other_slots = self._operand(shape, dtype, slot)
        mask: Operand = RegisterValue(0)
        reads = [index_slot, slot, *tile_slots, *other_slots]
        if self._chance(0.5):
            (mask_slot,) = self._other_slots(1, slot)
            mask = self._pattern(mask_slot, shape, 1, broadcast=True)
            reads.append(mask_slot)
        self.queue(
            isa.Atomic(
                dtype=dtype,
                index_dtype=index_dtype,
                function=function,
                scale=dtype.size_bytes,
                base=TABLE,
                shape=shape,
                tile=tile,
                other=other,
                index=index,
                mask=mask,
                previous=self._pattern(slot, shape, dtype.size_bytes),
            ),
            reads,
            [slot, self.table],
        )

    # ------------------------------------------------------------------------------------------------ scalars

    def _scalars(self) -> None:
        for _ in range(self.source.randint(1, 4)):
            destination, a, b, c = self.source.choices(SCALARS, k=4)
            kind = self.source.random()
            if kind < 0.7:
                function = self.source.choice([f for f in Function if f.arity <= 2 and DType.I32 in f.dtypes])
                dtype = self.source.choice([d for d in function.dtypes if not d.is_float])
                self.scalar(destination, function, a, b, dtype)
            elif kind < 0.85:
                dtype = self.source.choice([d for d in DType if not d.is_float])
                unsigned = self._chance(0.5)
                self.emit(isa.ScalarConvert(destination=destination, a=a, dtype=dtype, unsigned=unsigned))
            else:
                self.emit(isa.ScalarSelect(destination=destination, condition=a, a=b, b=c))

    def _scalar_memory(self) -> None:
        dtype = self.source.choice(list(DType))
        (slot,) = self._other_slots(1)
        element = self.source.randrange(slot.size // dtype.size_bytes)
        address, offset = slot.start + element * dtype.size_bytes, 0
        if self._chance(0.3):
            part = self.source.randint(0, address)
            address, offset = address - part, self.constant(part)
        register = self.source.choice(SCALARS)
        where: dict[str, Any] = {"address": address, "offset": offset, "dtype": dtype}
        if self._chance(0.5):
            self.on_sequencer(isa.ScalarLoad(destination=register, **where), [slot], [])
        else:
            self.on_sequencer(isa.ScalarStore(a=register, **where), [], [slot])


def _without(pattern: AccessPattern, dimension: int) -> AccessPattern:
    strides = list(pattern.strides)
    strides[dimension] = 0
    return replace(pattern, strides=tuple(strides))  # type: ignore[arg-type]
