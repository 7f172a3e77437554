"""Orders in which the reference evaluator lets the sequencers and queues take their next instruction.

Every schedule is a legal machine. A program whose synchronisation is right gives the same bytes under all
of them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tapeout.isa import Unit
from tapeout.sim.ordering import AGENTS


class Agent(Protocol):
    """Agent that may take a step: the sequencer or one queue of a core."""

    core_number: int
    unit: Unit


class Schedule(Protocol):
    """Chooses who steps next."""

    def choose(self, ready: Iterator[Agent]) -> Agent | None:
        """One of those that can step now, or None if there is none. The cores come in turns."""
        ...


@dataclass(frozen=True)
class ProgramOrder:
    """Each queued instruction runs as soon as it can."""

    def choose(self, ready: Iterator[Agent]) -> Agent | None:
        return next(ready, None)


@dataclass(frozen=True)
class Late:
    """One unit steps only when nobody else can."""

    unit: Unit

    def choose(self, ready: Iterator[Agent]) -> Agent | None:
        last_resort = None
        for agent in ready:
            if agent.unit is not self.unit:
                return agent
            last_resort = last_resort or agent
        return last_resort


@dataclass(frozen=True)
class Early:
    """One unit steps whenever it can."""

    unit: Unit

    def choose(self, ready: Iterator[Agent]) -> Agent | None:
        first = None
        for agent in ready:
            if agent.unit is self.unit:
                return agent
            first = first or agent
        return first


@dataclass
class Random:
    """Units have random speeds, which change now and then."""

    seed: int
    _source: random.Random = field(init=False, repr=False)
    _weights: dict[tuple[int, Unit], float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._source = random.Random(self.seed)

    def choose(self, ready: Iterator[Agent]) -> Agent | None:
        agents = list(ready)
        if not agents:
            return None
        if self._source.random() < 0.05:
            self._weights.clear()
        weights = [self._weight(agent) for agent in agents]
        return self._source.choices(agents, weights)[0]

    def _weight(self, agent: Agent) -> float:
        key = (agent.core_number, agent.unit)
        return self._weights.setdefault(key, 10.0 ** self._source.uniform(-3, 3))


def adversaries(seed: int = 0, random_count: int = 3) -> list[Schedule]:
    """Program order, each unit as late and as early as possible, and some random speeds."""
    extremes = [kind(unit) for kind in (Late, Early) for unit in AGENTS]
    return [ProgramOrder(), *extremes, *(Random(seed + number) for number in range(random_count))]
