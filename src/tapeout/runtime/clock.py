"""Virtual time: when the chip would have done what this process has it do, in whole picoseconds.

A `VirtualClock` takes what happens (a launch of so many cycles, a copy of so many bytes, an event) and gives the
moment at which it would have happened on the chip. It knows nothing of torch, of kernels' insides or of the host's
own clock, so the same calls give the same moments on every host.

The model. The host submits work in program order; a launch keeps it busy for `host.launch_ns`, which the chip hides
while it is busy with earlier work. A replayed graph is one launch to the host; the chip then fetches kernel after
kernel by itself (`graph_gap_ps`). A stream does its work in order. Streams overlap where the chip has separate
hardware: copies to the chip, copies from it, and the cores go on side by side, each one piece of work at a time in
the order of submission. Whatever else the host does costs no time. An operator that ran on the host has a time nobody
knows: the streams wait for it, and it is counted by name, never as zero.

Several chips of one process have a clock each and one `Host`: a time means the same on all of them. Work is submitted
to each chip as from a thread of its own, so that what one chip is asked to do costs another no time; where the host
waits for a chip, it waits with all of them. `copy_between` joins two clocks.
"""

import contextlib
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tapeout.chip import Chip
    from tapeout.isa import Program
    from tapeout.sim.timing import FlatTrace, MemoryRegion, Timing

PICOSECONDS_PER_SECOND = 10**12
PICOSECONDS_PER_NANOSECOND = 1000


class Kind(Enum):
    """Kind of an activity."""

    KERNEL = "kernel"
    COPY_TO_CHIP = "copy to chip"
    COPY_TO_HOST = "copy to host"
    COPY_ON_CHIP = "copy on chip"
    COPY_TO_OTHER_CHIP = "copy to another chip"
    HOST_OPERATOR = "operator on the host"
    COLLECTIVE = "collective"

    __hash__ = object.__hash__  # each launch looks its kind up; Enum's own hash is a Python function


RESOURCES = {
    Kind.KERNEL: "cores",
    Kind.COPY_ON_CHIP: "cores",
    Kind.COPY_TO_CHIP: "link to the chip",
    Kind.COPY_TO_HOST: "link to the host",
}
"""Resources that do one piece of work at a time."""

OUT_TO_CHIPS, IN_FROM_CHIPS = "links to other chips", "links from other chips"
"""Resources of a copy between chips: on the chip that sends, and on the one that receives."""


@dataclass(frozen=True, eq=False)
class Launch:
    """A kernel launch as it was timed.

    `words` are its arguments with every tensor at its canonical address, `workspace` the address of the cores' private
    memory, `data` what memory held of that on which its time depends, `regions` its allocations and which of them were
    in the last-level SRAM.
    """

    program: "Program"
    chip: "Chip"
    grid: tuple[int, int, int]
    words: tuple[int, ...]
    workspace: int
    data: "FlatTrace | None"
    regions: "tuple[MemoryRegion, ...]"
    timing: "Timing"


@dataclass(frozen=True)
class Activity:
    """One piece of work on the chip, or an operator of unknown time on the host (then start and end coincide).

    `operator` is the aten operator that asked for it, or "". `submitted_ps`: when the host was done asking.
    """

    kind: Kind
    name: str
    operator: str
    stream: int
    submitted_ps: int
    start_ps: int
    end_ps: int
    size_bytes: int = 0
    launch: Launch | None = None

    @property
    def duration_ps(self) -> int:
        return self.end_ps - self.start_ps


@dataclass(frozen=True)
class Moment:
    """A place in a stream: its time, and how many operators and kernels of unknown time there had been by then."""

    time_ps: int
    unknown_count: int


@dataclass(frozen=True)
class Elapsed:
    """The chip's time so far. `host_operators` ran on the host; they and `untimed_kernels` are not in `total_ps`.

    `assumptions`: what times of launches rest on for want of data, with the number of launches.
    """

    total_ps: int
    busy_ps: Mapping[Kind, int]
    counts: Mapping[Kind, int]
    host_operators: Mapping[str, int]
    untimed_kernels: Mapping[str, int]
    assumptions: Mapping[str, int]


class Backlog(Protocol):
    """Launches a clock has not taken up yet, and what the last-level SRAM holds after them. `handle`: both in C++."""

    handle: int

    def take(self) -> Sequence[tuple[int, int, int]]:
        """The launches, now out of the backlog: how long each takes, how long submitting it takes, its stream."""

    def empty_sram(self) -> None: ...


@dataclass
class _Replay:
    """A graph under way."""

    gap_ps: int
    is_submitted: bool = False

    def costs_of_next(self, submission_ps: int) -> tuple[int, int]:
        """Picoseconds of the host and, before the kernel starts, of the chip."""
        if self.is_submitted:
            return 0, self.gap_ps
        self.is_submitted = True
        return submission_ps, 0


@dataclass
class Host:
    """What the clocks of one process's chips share. `reached_ps`: until when the host has waited for any of them."""

    clocks: "list[VirtualClock]" = field(default_factory=list)
    reached_ps: int = 0
    unknown_count: int = 0
    """Operators that ran on the host, for whichever chip: all the chips waited for them."""

    def take_up(self) -> None:
        for each in self.clocks:
            each._take_up()

    def wait_until(self, time_ps: int) -> None:
        """Submit nothing to any chip before this time. What was launched before is taken up as launched before."""
        if time_ps > self.reached_ps:
            self.take_up()
            self.reached_ps = max(self.reached_ps, time_ps)


@dataclass
class VirtualClock:
    """Moments of one process on one chip. `record`: keep every activity, for profiles. `listener` is told of each.

    `backlog`: kernels launched that nobody wants to be told of. They are taken up when somebody asks for the time,
    which costs less than doing so at every launch. `kernel_spans`: if a list, every time the cores were busy, as start
    and end, in order and merged where they touch.
    """

    record: bool = False
    listener: Callable[[Activity], None] | None = None
    activities: list[Activity] = field(default_factory=list)
    backlog: Backlog | None = None
    kernel_spans: list[list[int]] | None = None
    host: Host = field(default_factory=Host, repr=False)
    _submitted_ps: int = 0
    _stream_ready_ps: dict[int, int] = field(default_factory=dict)
    _resource_free_ps: dict[str, int] = field(default_factory=dict)
    _busy_ps: Counter[Kind] = field(default_factory=Counter)
    _counts: Counter[Kind] = field(default_factory=Counter)
    _host_operators: Counter[str] = field(default_factory=Counter)
    _untimed_kernels: Counter[str] = field(default_factory=Counter)
    _assumptions: Counter[str] = field(default_factory=Counter)
    _unknown_count: int = 0
    _replay: "_Replay | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.host.clocks.append(self)

    @property
    def _host_ps(self) -> int:
        """When the host can ask this chip for more."""
        return max(self._submitted_ps, self.host.reached_ps)

    def work(
        self,
        kind: Kind,
        name: str,
        duration_ps: int,
        *,
        stream: int = 0,
        submission_ps: int = 0,
        host_waits: bool = False,
        operator: str = "",
        size_bytes: int = 0,
        launch: Launch | None = None,
        assumed: Sequence[str] = (),
    ) -> int:
        """Add work to a stream and return when it ends. `submission_ps`: how long asking for it keeps the host busy."""
        self._take_up()
        with self._lock:
            resource = RESOURCES[kind]
            gap_ps = 0
            if self._replay is not None:
                submission_ps, gap_ps = self._replay.costs_of_next(submission_ps)
            self._submitted_ps = submitted_ps = self._host_ps + submission_ps
            ready_ps, free_ps = self._stream_ready_ps.get(stream, 0), self._resource_free_ps.get(resource, 0)
            start_ps = max(submitted_ps, ready_ps, free_ps) + gap_ps
            end_ps = start_ps + duration_ps
            self._stream_ready_ps[stream] = self._resource_free_ps[resource] = end_ps
            self._busy_ps[kind] += duration_ps
            self._counts[kind] += 1
            if resource == RESOURCES[Kind.KERNEL]:
                self._note_span(start_ps, end_ps)
            if assumed:
                self._assumptions.update(assumed)
            if self.is_watched:
                self._tell(Activity(kind, name, operator, stream, submitted_ps, start_ps, end_ps, size_bytes, launch))
        if host_waits:
            self.host.wait_until(end_ps)
        return end_ps

    def _take_up(self) -> None:
        """Do what `work` does for all kernels of the backlog."""
        if self.backlog is None:
            return
        with self._lock:
            launches = self.backlog.take()
            if not launches:
                return
            ready, cores = self._stream_ready_ps, RESOURCES[Kind.KERNEL]
            host_ps, end_ps, busy_ps, replay = self._host_ps, self._resource_free_ps.get(cores, 0), 0, self._replay
            for duration_ps, submission_ps, stream in launches:
                gap_ps = 0
                if replay is not None:
                    submission_ps, gap_ps = replay.costs_of_next(submission_ps)
                host_ps += submission_ps
                start_ps = max(host_ps, ready.get(stream, 0), end_ps) + gap_ps
                end_ps = ready[stream] = start_ps + duration_ps
                busy_ps += duration_ps
                if self.kernel_spans is not None:
                    self._note_span(start_ps, end_ps)
            self._submitted_ps, self._resource_free_ps[cores] = host_ps, end_ps
            self._busy_ps[Kind.KERNEL] += busy_ps
            self._counts[Kind.KERNEL] += len(launches)

    @contextlib.contextmanager
    def replaying(self, gap_ps: int) -> Iterator[None]:
        """Launches inside are one replayed graph: the host submits the first, and before each of the others the chip
        takes `gap_ps` to fetch it."""
        self._take_up()
        self._replay = _Replay(gap_ps)
        try:
            yield
        finally:
            self._take_up()
            self._replay = None

    def _note_span(self, start_ps: int, end_ps: int) -> None:
        if self.kernel_spans is None:
            return
        if self.kernel_spans and self.kernel_spans[-1][1] >= start_ps:
            self.kernel_spans[-1][1] = max(self.kernel_spans[-1][1], end_ps)
        else:
            self.kernel_spans.append([start_ps, end_ps])

    def idle_ps(self, start_ps: int, end_ps: int) -> int:
        """Return how long the cores did nothing between two times. Needs `kernel_spans`."""
        self._take_up()
        spans = self.kernel_spans or []
        idle = max(end_ps - start_ps, 0)
        for place in range(max(bisect_right(spans, [start_ps]) - 1, 0), len(spans)):
            first, last = spans[place]
            if first >= end_ps:
                break
            idle -= max(min(last, end_ps) - max(first, start_ps), 0)
        return idle

    @property
    def is_watched(self) -> bool:
        """True if every activity must be recorded in full."""
        return self.record or self.listener is not None

    def empty_sram(self) -> None:
        """Empty the last-level SRAM, as if something else had used all of it."""
        if self.backlog is not None:
            self.backlog.empty_sram()

    def _tell(self, activity: Activity) -> None:
        if self.record:
            self.activities.append(activity)
        if self.listener:
            self.listener(activity)

    def count(self, kind: Kind, duration_ps: int) -> None:
        """Count work whose times were found elsewhere, such as a collective's."""
        with self._lock:
            self._busy_ps[kind] += duration_ps
            self._counts[kind] += 1

    def tell(self, activity: Activity) -> None:
        """Tell whoever watches of an activity that was counted."""
        with self._lock:
            self._tell(activity)

    def learn_unknown(self, count: int) -> None:
        """Other chips, whose results this one used, did `count` pieces of work of unknown time."""
        with self._lock:
            self._unknown_count = max(self._unknown_count, count - self.host.unknown_count)

    def host_operator(self, name: str) -> None:
        """An operator ran on the host: it waited for all work, and took a time nobody knows."""
        self.synchronize()
        with self._lock:
            self.host.unknown_count += 1
            self._host_operators[name] += 1
            self._counts[Kind.HOST_OPERATOR] += 1
            if self.is_watched:
                now_ps = self._host_ps
                self._tell(Activity(Kind.HOST_OPERATOR, name, name, 0, now_ps, now_ps, now_ps))

    def untimed_kernel(self, name: str) -> None:
        """A kernel was launched whose time is not known."""
        with self._lock:
            self._unknown_count += 1
            self._untimed_kernels[name] += 1

    def assume(self, assumption: str) -> None:
        """Mark the next launch as timed on an assumption."""
        with self._lock:
            self._assumptions[assumption] += 1

    def moment(self, stream: int = 0) -> Moment:
        """The present end of a stream: what an event records."""
        self._take_up()
        unknown_count = self._unknown_count + self.host.unknown_count
        return Moment(max(self._stream_ready_ps.get(stream, 0), self._host_ps), unknown_count)

    def wait(self, stream: int, time_ps: int) -> None:
        """Later work of the stream starts no sooner than this."""
        self._take_up()
        self._stream_ready_ps[stream] = max(self._stream_ready_ps.get(stream, 0), time_ps)

    def reach(self, time_ps: int) -> None:
        """The host waits until then."""
        self.host.wait_until(time_ps)

    def poll(self, time_ps: int, latency_ps: int) -> bool:
        """Return whether the host clock has passed that time. A failed poll costs one round trip, so polling again
        helps."""
        self._take_up()
        if time_ps <= self._host_ps:
            return True
        self.host.wait_until(self._host_ps + latency_ps)
        return False

    def synchronize(self, stream: int | None = None) -> None:
        """The host waits for one stream, or for all."""
        self._take_up()
        ready = self._stream_ready_ps
        self.reach(max(ready.values(), default=0) if stream is None else ready.get(stream, 0))

    @property
    def elapsed(self) -> Elapsed:
        """The time until all work is done."""
        self._take_up()
        total_ps = max(self._host_ps, *self._stream_ready_ps.values(), 0)
        return Elapsed(
            total_ps,
            busy_ps=MappingProxyType(dict(self._busy_ps)),
            counts=MappingProxyType(dict(self._counts)),
            host_operators=MappingProxyType(dict(self._host_operators)),
            untimed_kernels=MappingProxyType(dict(self._untimed_kernels)),
            assumptions=MappingProxyType(dict(self._assumptions)),
        )


def copy_between(
    source: VirtualClock, stream: int, target: VirtualClock, target_stream: int, duration_ps: int, size_bytes: int,
    operator: str = "",
) -> int:  # fmt: skip
    """Add a copy from one chip to another to a stream of each and return when it ends. It begins when both streams have
    come to it and both chips' links are free, and counts as work of the chip that sends."""
    source._take_up()
    target._take_up()
    kind = Kind.COPY_TO_OTHER_CHIP
    with source._lock:
        submitted_ps = source._host_ps
        start_ps = max(
            submitted_ps,
            target._host_ps,
            source._stream_ready_ps.get(stream, 0),
            target._stream_ready_ps.get(target_stream, 0),
            source._resource_free_ps.get(OUT_TO_CHIPS, 0),
            target._resource_free_ps.get(IN_FROM_CHIPS, 0),
        )
        end_ps = start_ps + duration_ps
        source._stream_ready_ps[stream] = source._resource_free_ps[OUT_TO_CHIPS] = end_ps
        target._stream_ready_ps[target_stream] = target._resource_free_ps[IN_FROM_CHIPS] = end_ps
        source._busy_ps[kind] += duration_ps
        source._counts[kind] += 1
        if source.is_watched:
            source._tell(Activity(kind, kind.value, operator, stream, submitted_ps, start_ps, end_ps, size_bytes))
    target.learn_unknown(source._unknown_count + source.host.unknown_count)
    return end_ps


def kernel_ps(cycles: int, chip: "Chip") -> int:
    """Cycles of the chip in picoseconds, rounded up."""
    return -(-cycles * PICOSECONDS_PER_SECOND // chip.clock_hz)


def graph_gap_ps(chip: "Chip") -> int:
    """From the end of one kernel of a replayed graph to the first instruction of the next. Nothing is prefetched: the
    chip reads the kernel's descriptor from HBM, then what that points to, and dispatches the grid."""
    cycles = 2 * chip.memory_side.latency_cycles + chip.host.dispatch_cycles
    return kernel_ps(cycles, chip) + 2 * chip.global_memory.latency_ns * PICOSECONDS_PER_NANOSECOND


def host_copy_ps(size_bytes: int, chip: "Chip") -> int:
    """A copy between host and HBM: latency, then the link's rate."""
    transfer_ps = -(-size_bytes * PICOSECONDS_PER_SECOND // chip.host.bandwidth_bytes_per_s)
    return chip.host.latency_ns * PICOSECONDS_PER_NANOSECOND + transfer_ps


def chip_copy_ps(size_bytes: int, chip: "Chip") -> int:
    """A copy within HBM: every byte is read and written, at the peak rate of all stacks."""
    transfer_ps = -(-2 * size_bytes * PICOSECONDS_PER_SECOND // chip.global_memory.bandwidth_bytes_per_s)
    return chip.global_memory.latency_ns * PICOSECONDS_PER_NANOSECOND + transfer_ps
