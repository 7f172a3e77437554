"""A recorded run as a trace that Perfetto opens (https://ui.perfetto.dev), in Chrome's JSON format.

One process shows the chip: what the cores, the two directions of the host link and the host did, and the average HBM
bandwidth of each kernel. One process a core shows its engines, what they waited for, and how many instructions stand
in each queue. Engines are shown for the first launch of each distinct kernel, grid and arguments: its other launches
take the same cycles.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tapeout.isa import Program, Unit
from tapeout.isa.program import show
from tapeout.runtime.clock import PICOSECONDS_PER_SECOND, Activity, Kind, Launch
from tapeout.sim import timing
from tapeout.sim.timing import Interval
from tapeout.workbench.profiling import hbm_bytes_per_s, operator_of

Event = dict[str, Any]

MICROSECOND_PS = 10**6
NANOSECOND_PS = 1000
CHIP_PROCESS = 1
FIRST_CORE_PROCESS = 10
TRACKS = {
    Kind.KERNEL: (1, "cores"),
    Kind.COPY_ON_CHIP: (1, "cores"),
    Kind.COPY_TO_CHIP: (2, "link to the chip"),
    Kind.COPY_TO_HOST: (3, "link to the host"),
    Kind.HOST_OPERATOR: (4, "host operators (time unknown)"),
}
ENGINE_TRACKS = {unit: number for number, unit in enumerate(Unit, 1)}
ENGINE_EVENTS = 400_000
"""Launches are shown in detail until the trace holds this many events of engines."""


@dataclass(frozen=True)
class Trace:
    """`launches_in_detail` of `launches` distinct launches show their engines."""

    events: Sequence[Event]
    launches: int
    launches_in_detail: int

    def write(self, path: Any) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
            file.write(",\n".join(json.dumps(event, separators=(",", ":")) for event in self.events))
            file.write("\n]}\n")


def trace(activities: Sequence[Activity], *, all_cores: bool = False) -> Trace:
    """The trace of a recorded run: core 0 in detail, or all cores."""
    events = [*_names(CHIP_PROCESS, "chip", TRACKS.values())]
    events += [event for activity in activities for event in _overview(activity)]
    detailed: set[int] = set()
    distinct: set[int] = set()
    named_cores: set[int] = set()
    engine_events = 0
    for activity in activities:
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
    return Trace(events, len(distinct), len(detailed))


def _names(process: int, name: str, tracks: Iterable[tuple[int, str]]) -> Iterator[Event]:
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
    for number, track in sorted(set(tracks)):
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_name", "args": {"name": track}}
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}


def _overview(activity: Activity) -> Iterator[Event]:
    place = {"pid": CHIP_PROCESS, "tid": TRACKS[activity.kind][0], "name": activity.name}
    if activity.kind is Kind.HOST_OPERATOR:
        yield {"ph": "i", "s": "t", "ts": _us(activity.start_ps // NANOSECOND_PS), **place}
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


def _us(nanoseconds: int) -> float:
    """Microseconds that become these nanoseconds again. Perfetto multiplies by 1000 and drops the fraction, and what
    should be a whole number may come out just below it."""
    return (nanoseconds + 0.25) / 1000


def _slice(start_ps: int, end_ps: int) -> Event:
    """Both ends in whole nanoseconds, so that slices that meet still meet: Perfetto drops those that overlap."""
    start_ns, end_ns = start_ps // NANOSECOND_PS, end_ps // NANOSECOND_PS
    return {"ph": "X", "ts": _us(start_ns), "dur": _us(end_ns - start_ns)}


def _counter(process: int, name: str, time_ps: int, value: float) -> Event:
    ts = _us(time_ps // NANOSECOND_PS)
    return {"ph": "C", "pid": process, "tid": 0, "name": name, "ts": ts, "args": {"value": value}}


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
            "source": launch.program.location(interval.instruction_index),
            "cycles": interval.end - interval.start,
        }
        yield {**_slice(begin_ps, moment_ps(interval.end)), "name": item.mnemonic, "args": facts, **place}
    for unit, time, length in queue_lengths(launch.program, intervals):
        yield _counter(process, f"queue: {unit.value}", moment_ps(time), length)


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
