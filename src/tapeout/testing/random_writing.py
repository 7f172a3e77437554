"""Instructions of a random program in their order, with the semaphores that make it free of races.

Each ordered pair of units has one semaphore. A dependence of C on an earlier P of another unit becomes a signal of P
and a wait of C, unless C knows already that P is done; what is known grows along each queue, so the n-th signal of a
pair always belongs to its n-th wait.
"""

import random
from dataclasses import dataclass, field, replace

from tapeout.chip import Chip
from tapeout.isa import (
    Function,
    Instruction,
    Unit,
)
from tapeout.isa import definitions as isa
from tapeout.isa.fields import QUEUES, Queued
from tapeout.numerics.dtypes import DType

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


@dataclass
class Resource:
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


class Writer:
    """A program while it is written: its instructions, and what each unit knows of the others."""

    def __init__(self, source: random.Random, seed: int, chip: Chip, sizes: Sizes) -> None:
        self.source = source
        self.seed = seed
        self.chip = chip
        self.dtypes = [d for d in DType if d is not DType.F64 or chip.core.vector.float64]
        self.grids = sizes.grids
        self.slot_bytes = source.choice(sizes.slot_bytes)
        slot_count = 12
        self.slots = [Resource(n * self.slot_bytes, self.slot_bytes) for n in range(slot_count)]
        self.rotating_bytes = 768
        self.scratchpad_bytes = slot_count * self.slot_bytes + self.rotating_bytes
        self.output = Resource(0, sizes.output_bytes)
        self.workspace = Resource(0, sizes.workspace_bytes)
        self.table = Resource(0, TABLE_BYTES)
        self.items: list[Instruction] = []
        self.emitted: dict[Unit, list[_Emitted]] = {unit: [] for unit in SYNC_ORDER}
        self.known: dict[Unit, Knowledge] = {unit: dict.fromkeys(SYNC_ORDER, 0) for unit in SYNC_ORDER}
        self.temporary = 0

    def emit(self, item: Instruction) -> int:
        """Append; gives the index."""
        self.items.append(item)
        return len(self.items) - 1

    def queue(self, item: Queued, reads: list[Resource] | None = None, writes: list[Resource] | None = None) -> None:
        """Append an instruction of a queue, with the semaphores that order it after what it depends on."""
        unit, reads, writes = item.unit, reads or [], writes or []
        waits = self._waits(unit, self._dependences(unit, reads, writes))
        while len(waits) > 2:
            self._append(isa.SYNC[unit](wait_a=waits.pop()))
        names = dict(zip(("wait_a", "wait_b"), waits, strict=False))
        self._append(replace(item, **names))
        self._note(unit, len(self.emitted[unit]), reads, writes)

    def on_sequencer(self, item: Instruction, reads: list[Resource], writes: list[Resource]) -> None:
        """Append an instruction of the sequencer that touches the scratchpad."""
        for semaphore in self._waits(Unit.SEQUENCER, self._dependences(Unit.SEQUENCER, reads, writes)):
            self.emit(isa.Wait(semaphore=semaphore))
        self.emit(item)

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

    def _dependences(self, unit: Unit, reads: list[Resource], writes: list[Resource]) -> Knowledge:
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

    def _note(self, unit: Unit, number: int, reads: list[Resource], writes: list[Resource]) -> None:
        for resource in reads:
            resource.reads[unit] = number
        for resource in writes:
            resource.write, resource.reads = (unit, number), {}

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
