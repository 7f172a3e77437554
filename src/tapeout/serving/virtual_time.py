"""A server in virtual time: requests arrive, an engine forms batches, and each batch takes the chip's time.

The engine decides (vLLM's scheduler, in `tapeout.serving.scheduler`); this keeps the time. Nothing passes but the time
of steps: the host's own work is free unless `host_ps` says what a step costs it. Moments are whole picoseconds, so the
same trace gives the same moments everywhere.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tapeout.errors import TapeoutError
from tapeout.models.batch import BatchTime, Work
from tapeout.serving.objectives import RequestTimes
from tapeout.serving.traces import Arrival, Trace

PICOSECONDS = 10**12


@dataclass(frozen=True)
class Stepped:
    """What one step of an engine did. `tokens`: the requests, by index in the trace, that got a token each.
    `cached_tokens`: by request, tokens of prompts found in the cache."""

    work: Work
    tokens: Sequence[int]
    preempted: Sequence[int] = ()
    cached_tokens: Mapping[int, int] = field(default_factory=dict)
    cache_share: float = 0.0


class Engine(Protocol):
    """Continuous batching, seen from outside."""

    def add(self, index: int, arrival: Arrival) -> None: ...

    @property
    def is_busy(self) -> bool: ...

    def step(self) -> Stepped: ...


@dataclass(frozen=True)
class StepRecord:
    start_ps: int
    duration_ps: int
    tokens: int
    sequences: int
    cache_share: float


@dataclass(frozen=True)
class Served:
    """A trace, served. `busy_ps` by what bounds it; `host` is time that the host kept the chip waiting."""

    requests: tuple[RequestTimes, ...]
    steps: tuple[StepRecord, ...]
    busy_ps: Mapping[str, int]

    @property
    def span_s(self) -> float:
        """From the first arrival to the last token."""
        last = max(each.token_times_s[-1] for each in self.requests)
        return last - min(each.arrival_s for each in self.requests)

    @property
    def busy_s(self) -> float:
        return sum(each.duration_ps for each in self.steps) / PICOSECONDS

    @property
    def output_tokens(self) -> int:
        return sum(len(each.token_times_s) for each in self.requests)

    @property
    def preemptions(self) -> int:
        return sum(each.preemptions for each in self.requests)


def serve(trace: Trace, engine: Engine, time_of: Callable[[Work], BatchTime], *, host_ps: int = 0) -> Served:
    """Serve a whole trace. Raises TapeoutError if the engine cannot go on: a request that can never run."""
    now_ps = 0
    arrivals_ps = [round(each.time_s * PICOSECONDS) for each in trace]
    times: list[list[float]] = [[] for _ in trace]
    preemptions, cached = Counter[int](), dict[int, int]()
    steps: list[StepRecord] = []
    busy = Counter[str]()
    admitted = 0
    while admitted < len(trace) or engine.is_busy:
        if not engine.is_busy:
            now_ps = max(now_ps, arrivals_ps[admitted])
        while admitted < len(trace) and arrivals_ps[admitted] <= now_ps:
            engine.add(admitted, trace[admitted])
            admitted += 1
        stepped = engine.step()
        if not stepped.work.tokens:
            if admitted == len(trace):
                raise TapeoutError("the scheduler holds requests that it never runs: the cache is too small for one")
            now_ps = max(now_ps, arrivals_ps[admitted])
            continue
        found = time_of(stepped.work)
        duration_ps = round(found.seconds * PICOSECONDS)
        for bound, seconds in found.by_bound.items():
            busy[bound] += round(seconds * PICOSECONDS)
        busy["host"] += host_ps
        sequences = len(stepped.work.prompts) + len(stepped.work.contexts)
        steps.append(StepRecord(now_ps, duration_ps, stepped.work.tokens, sequences, stepped.cache_share))
        now_ps += duration_ps + host_ps
        for index in stepped.tokens:
            times[index].append(now_ps / PICOSECONDS)
        preemptions.update(stepped.preempted)
        cached |= stepped.cached_tokens
    return Served(
        tuple(
            RequestTimes(
                arrivals_ps[index] / PICOSECONDS,
                arrival.prompt_tokens,
                tuple(times[index]),
                preemptions[index],
                cached.get(index, 0),
            )
            for index, arrival in enumerate(trace)
        ),
        tuple(steps),
        {name: amount for name, amount in busy.items() if amount},
    )
