"""A recorded run as a trace that Perfetto opens (https://ui.perfetto.dev), in Chrome's JSON format.

One process shows the chip: what the cores, the two directions of the host link and the host did, when the host
launched each kernel, and the average HBM bandwidth of each. One process a core shows its engines, what they waited for,
and how many instructions stand in each queue; an arrow leads from the instruction that gave a semaphore to the one that
waited for it. Engines are shown for the first launch of each distinct kernel, grid and arguments: its other launches
take the same cycles. All times are of the one virtual clock, in picoseconds; Perfetto itself shows whole nanoseconds.
"""

import gzip
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.isa import Program, Unit
from tapeout.isa.definitions import Wait
from tapeout.isa.fields import Instruction, Queued
from tapeout.isa.program import show
from tapeout.runtime.clock import PICOSECONDS_PER_SECOND, Activity, Kind, Launch
from tapeout.sim import timing
from tapeout.sim.timing import Interval
from tapeout.workbench.annotation import shown_file
from tapeout.workbench.profiling import hbm_bytes_per_s, operator_of

Event = dict[str, Any]

MICROSECOND_PS = 10**6
NANOSECOND_PS = 1000
GUARD_PS = 0.1
"""Perfetto multiplies by 1000 and drops the fraction, and what should be whole may come out just below it."""
CHIP_PROCESS = 1
FIRST_CORE_PROCESS = 10
TRACKS = {
    Kind.KERNEL: (1, "cores"),
    Kind.COPY_ON_CHIP: (1, "cores"),
    Kind.COPY_TO_CHIP: (2, "link to the chip"),
    Kind.COPY_TO_HOST: (3, "link to the host"),
    Kind.HOST_OPERATOR: (4, "host operators (time unknown)"),
    Kind.COPY_TO_OTHER_CHIP: (6, "links to other chips"),
    Kind.COLLECTIVE: (7, "collectives"),
}
HOST_TRACK = (5, "host launches")
ENGINE_TRACKS = {unit: number for number, unit in enumerate(Unit, 1)}
ENGINE_EVENTS = 400_000
"""Launches are shown in detail until the trace holds this many events of engines."""
ACTIVITIES = 200_000
"""Activities of the chip that a trace holds at most, the first ones."""


@dataclass(frozen=True)
class Trace:
    """`launches_in_detail` of `launches` distinct launches show their engines. Of the chip's `activities`, the first
    `activities_shown` are there at all."""

    events: Sequence[Event]
    launches: int
    launches_in_detail: int
    activities: int
    activities_shown: int

    @property
    def caption(self) -> str:
        """What the trace holds, and what it left out."""
        if not self.launches:
            return f"{self.activities_shown:,} pieces of work"
        left_out = self.activities - self.activities_shown
        cut = f"; the last {left_out:,} of {self.activities:,} activities are left out" if left_out else ""
        return f"engines of {self.launches_in_detail:,} of {self.launches:,} distinct launches{cut}"

    def write(self, path: Path) -> None:
        """Write it as JSON, compressed if the name ends in .gz. The same trace gives the same bytes."""
        head = json.dumps({"displayTimeUnit": "ns", "otherData": {"holds": self.caption}})
        text = f'{head[:-1]}, "traceEvents": [\n'
        text += ",\n".join(json.dumps(event, separators=(",", ":")) for event in self.events) + "\n]}\n"
        raw = text.encode()
        path.write_bytes(gzip.compress(raw, 6, mtime=0) if path.suffix == ".gz" else raw)


def trace(activities: Sequence[Activity], *, all_cores: bool = False) -> Trace:
    """The trace of a recorded run: core 0 in detail, or all cores."""
    shown = activities[:ACTIVITIES]
    events = [*_names(CHIP_PROCESS, "chip", [*TRACKS.values(), HOST_TRACK])]
    events += [event for activity in shown for event in _overview(activity)]
    events += _launches(shown)
    detailed: set[int] = set()
    distinct: set[int] = set()
    named_cores: set[int] = set()
    engine_events = 0
    for activity in shown:
        launch = activity.launch
        if launch is None:
            continue
        key = id(launch.timing)  # which equal launches share
        if key in distinct:
            continue
        distinct.add(key)
        if engine_events >= ENGINE_EVENTS:
            continue
        detailed.add(key)
        for core, intervals in _by_core(launch, all_cores).items():
            if core not in named_cores:
                named_cores.add(core)
                tracks = [(number, unit.value) for unit, number in ENGINE_TRACKS.items()]
                events += _names(FIRST_CORE_PROCESS + core, f"core {core}", tracks)
            own = [*_engines(launch, core, intervals, activity.start_ps)]
            engine_events += len(own)
            events += own
    return Trace(events, len(distinct), len(detailed), len(activities), len(shown))


def _names(process: int, name: str, tracks: Iterable[tuple[int, str]]) -> Iterator[Event]:
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
    for number, track in sorted(set(tracks)):
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_name", "args": {"name": track}}
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}


def _overview(activity: Activity) -> Iterator[Event]:
    place = {"pid": CHIP_PROCESS, "tid": TRACKS[activity.kind][0], "name": activity.name}
    if activity.kind is Kind.HOST_OPERATOR:
        yield {"ph": "i", "s": "t", "ts": _us(activity.start_ps), **place}
        return
    facts: dict[str, Any] = {
        "operator": operator_of(activity),
        "stream": activity.stream,
        "submitted (us)": activity.submitted_ps / MICROSECOND_PS,
    }
    if activity.launch is not None:
        timing_ = activity.launch.timing
        facts |= {
            "grid": list(activity.launch.grid),
            "cycles": timing_.cycles,
            "HBM bytes": timing_.hbm_read_bytes + timing_.hbm_written_bytes,
        }
        for moment_ps, rate in ((activity.start_ps, hbm_bytes_per_s(activity.launch)), (activity.end_ps, 0)):
            yield _counter(CHIP_PROCESS, "HBM bandwidth (GB/s)", moment_ps, rate / 1e9)
    else:
        facts["bytes"] = activity.size_bytes
    yield {**_slice(activity.start_ps, activity.end_ps), "args": facts, **place}


def _launches(activities: Sequence[Activity]) -> Iterator[Event]:
    """The host at work on each launch, with an arrow to the kernel; of a replayed graph, the first kernel's."""
    place = {"pid": CHIP_PROCESS, "tid": HOST_TRACK[0]}
    free_ps = 0
    for number, activity in enumerate(activities):
        if activity.launch is None:
            free_ps = max(free_ps, activity.submitted_ps)
            continue
        begin_ps = max(free_ps, activity.submitted_ps - activity.launch.timing.launch_ns * NANOSECOND_PS)
        if begin_ps >= activity.submitted_ps:
            continue
        free_ps = activity.submitted_ps
        yield {**_slice(begin_ps, activity.submitted_ps), "name": f"launch {activity.name}", **place}
        yield from _arrow(f"launch {number}", begin_ps, place, activity.start_ps, _cores())


def _cores() -> Event:
    return {"pid": CHIP_PROCESS, "tid": TRACKS[Kind.KERNEL][0]}


def _arrow(key: str, from_ps: int, source: Event, to_ps: int, target: Event) -> Iterator[Event]:
    """From the slice that begins at one time to the slice that begins at another."""
    kind = {"cat": "arrow", "name": key.partition(" ")[0], "id": key}
    yield {"ph": "s", "ts": _us(from_ps), **kind, **source}
    yield {"ph": "f", "bp": "e", "ts": _us(to_ps), **kind, **target}


def _us(picoseconds: int) -> float:
    return (picoseconds + GUARD_PS) / MICROSECOND_PS


def _slice(start_ps: int, end_ps: int) -> Event:
    """Perfetto drops slices that overlap. Those that meet do not when it cuts start and length to whole nanoseconds."""
    return {"ph": "X", "ts": _us(start_ps), "dur": _us(end_ps - start_ps)}


def _counter(process: int, name: str, time_ps: int, value: float) -> Event:
    return {"ph": "C", "pid": process, "tid": 0, "name": name, "ts": _us(time_ps), "args": {"value": value}}


def _by_core(launch: Launch, all_cores: bool) -> dict[int, list[Interval]]:
    recorded = timing.simulate(
        launch.program,
        launch.chip,
        launch.grid,
        launch.words,
        data=launch.data,
        workspace=launch.workspace,
        regions=launch.regions,
        record=True,
    )
    cores: dict[int, list[Interval]] = defaultdict(list)
    for interval in recorded.intervals:
        if all_cores or interval.core == 0:
            cores[interval.core].append(interval)
    return cores


def _engines(launch: Launch, core: int, intervals: Sequence[Interval], start_ps: int) -> Iterator[Event]:
    process = FIRST_CORE_PROCESS + core

    def moment_ps(cycle: int) -> int:
        return start_ps + cycle * PICOSECONDS_PER_SECOND // launch.chip.clock_hz

    for interval in intervals:
        place = {"pid": process, "tid": ENGINE_TRACKS[interval.unit]}
        begin_ps = moment_ps(interval.start)
        if interval.waited_cycles:
            waited = _slice(moment_ps(interval.start - interval.waited_cycles), begin_ps)
            yield {**waited, "name": f"wait: {interval.waited_for}", "cat": "wait", **place}
        item = launch.program.instructions[interval.instruction_index]
        facts = {
            "instruction": show(item),
            "source": shown_file(launch.program.location(interval.instruction_index)),
            "cycles": interval.end - interval.start,
        }
        yield {**_slice(begin_ps, moment_ps(interval.end)), "name": item.mnemonic, "args": facts, **place}
    for number, (giver, taker) in enumerate(semaphores_given(launch.program, intervals)):
        places = ({"pid": process, "tid": ENGINE_TRACKS[each.unit]} for each in (giver, taker))
        yield from _arrow(
            f"semaphore {start_ps}.{core}.{number}",
            moment_ps(giver.start),
            next(places),
            moment_ps(taker.start),
            next(places),
        )
    for unit, time, length in queue_lengths(launch.program, intervals):
        yield _counter(process, f"queue: {unit.value}", moment_ps(time), length)


def semaphores_given(program: Program, intervals: Sequence[Interval]) -> Iterator[tuple[Interval, Interval]]:
    """Of one core, each wait for a semaphore: the instruction that gave it last before the wait was over, and the one
    that waited."""
    given: dict[int, list[Interval]] = defaultdict(list)
    for interval in sorted(intervals, key=lambda each: each.end):
        item = program.instructions[interval.instruction_index]
        if isinstance(item, Queued):
            for number in {item.signal_a, item.signal_b} - {0}:
                given[number].append(interval)
    for interval in intervals:
        if interval.waited_for != "semaphore":
            continue
        before = []
        for number in _taken(program.instructions[interval.instruction_index]):
            place = bisect_right(given[number], interval.start, key=lambda each: each.end)
            before += given[number][max(place - 1, 0) : place]
        if before:
            yield max(before, key=lambda each: each.end), interval


def _taken(item: Instruction) -> set[int]:
    if isinstance(item, Wait):
        return {item.semaphore}
    return {item.wait_a, item.wait_b} - {0} if isinstance(item, Queued) else set()


def queue_lengths(program: Program, intervals: Sequence[Interval]) -> Iterator[tuple[Unit, int, int]]:
    """Engine, cycle and instructions waiting, whenever that changes on one core.

    A queue is in order, so the n-th instruction the sequencer issued to an engine is the n-th the engine starts.
    """
    changes: dict[Unit, list[tuple[int, int]]] = defaultdict(list)
    for interval in intervals:
        if interval.unit is not Unit.SEQUENCER:
            changes[interval.unit].append((interval.start, -1))
            continue
        engine = program.instructions[interval.instruction_index].unit
        if engine is not Unit.SEQUENCER:
            changes[engine].append((interval.end, 1))
    for unit, steps in changes.items():
        length = 0
        for time, step in sorted(steps, key=lambda change: (change[0], -change[1])):
            length += step
            yield unit, time, length
