"""Happens-before among the agents of a core (its sequencer and queues), and the accesses it must order.

Every agent numbers its instructions 1, 2, ... A clock holds, for each agent, the last instruction known to
be done. Issuing passes the sequencer's clock to the queued instruction; a semaphore passes the signaller's
clock to whoever takes the count; `drain` and `halt` take everyone's. Two accesses to a byte by different
agents, one of them a write, must be ordered by such a chain: that they happened to run far apart does not
count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapeout.isa import Unit

AGENTS = (Unit.SEQUENCER, Unit.LOAD, Unit.STORE, Unit.MATRIX, Unit.VECTOR)
NUMBER_OF_AGENT = {unit: number for number, unit in enumerate(AGENTS)}

Clock = tuple[int, ...]
BEGINNING: Clock = (0,) * len(AGENTS)

Bytes = np.ndarray[Any, np.dtype[np.int64]]


def joined(*clocks: Clock) -> Clock:
    """Return what is known by whoever knows all of these."""
    return tuple(max(times) for times in zip(*clocks, strict=True))


@dataclass(frozen=True)
class Conflict:
    """A byte touched by an unordered pair: the earlier access's agent, its instruction's number, and
    whether it wrote; and whether the later one writes."""

    byte: int
    agent: Unit
    time: int
    earlier_writes: bool
    later_writes: bool


PAGE_BYTES = 1 << 16


class AccessHistory:
    """For each byte of a memory: who wrote it last, and when each agent last read it. Kept for touched pages only."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}

    def read(self, agent: Unit, clock: Clock, addresses: Bytes) -> Conflict | None:
        """Record a read by the instruction whose own entry in `clock` is its number."""
        found = [page.read(agent, clock, part, base) for page, part, base in self._by_page(addresses)]
        return next(filter(None, found), None)

    def write(self, agent: Unit, clock: Clock, addresses: Bytes) -> Conflict | None:
        """Record a write."""
        found = [page.write(agent, clock, part, base) for page, part, base in self._by_page(addresses)]
        return next(filter(None, found), None)

    def _by_page(self, addresses: Bytes) -> Iterator[tuple["_Page", Bytes, int]]:
        numbers = addresses // PAGE_BYTES
        for number in np.unique(numbers).tolist():
            base = number * PAGE_BYTES
            page = self._pages.setdefault(number, _Page())
            yield page, addresses[numbers == number] - base, base


class _Page:
    def __init__(self) -> None:
        self._writer = np.zeros(PAGE_BYTES, np.int8)
        self._write_time = np.zeros(PAGE_BYTES, np.int32)
        self._read_time = np.zeros((len(AGENTS), PAGE_BYTES), np.int32)

    def read(self, agent: Unit, clock: Clock, addresses: Bytes, base: int) -> Conflict | None:
        conflict = self._unordered_write(agent, clock, addresses, base, later_writes=False)
        number = NUMBER_OF_AGENT[agent]
        self._read_time[number, addresses] = clock[number]
        return conflict

    def write(self, agent: Unit, clock: Clock, addresses: Bytes, base: int) -> Conflict | None:
        conflict = self._unordered_write(agent, clock, addresses, base, later_writes=True)
        number = NUMBER_OF_AGENT[agent]
        for other, unit in enumerate(AGENTS):
            times = self._read_time[other, addresses]
            if other != number and conflict is None and (unordered := times > clock[other]).any():
                at = int(np.argmax(unordered))
                conflict = Conflict(base + int(addresses[at]), unit, int(times[at]), False, True)
        self._writer[addresses] = number
        self._write_time[addresses] = clock[number]
        return conflict

    def _unordered_write(
        self, agent: Unit, clock: Clock, addresses: Bytes, base: int, later_writes: bool
    ) -> Conflict | None:
        writers, times = self._writer[addresses], self._write_time[addresses]
        known = np.array(clock, np.int32)[writers]
        unordered = (writers != NUMBER_OF_AGENT[agent]) & (times > known)
        if not unordered.any():
            return None
        at = int(np.argmax(unordered))
        return Conflict(base + int(addresses[at]), AGENTS[writers[at]], int(times[at]), True, later_writes)
