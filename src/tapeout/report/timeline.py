"""Timelines of several chips as one trace that Perfetto opens: a process for each, with a track for each resource.

Tracks are the cores, the links to and from the host, the links to other chips, and a lane for each process group of
torch.distributed, which shows the time a rank waited for the last one before each collective.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tapeout.report.perfetto import MICROSECOND_PS, Event, Trace
from tapeout.runtime.clock import Kind
from tapeout.workbench.timeline import Entry, Timeline

TRACKS = {
    Kind.KERNEL.value: "cores",
    Kind.COPY_ON_CHIP.value: "cores",
    Kind.COPY_TO_CHIP.value: "link to the chip",
    Kind.COPY_TO_HOST.value: "link to the host",
    Kind.COPY_TO_OTHER_CHIP.value: "links to other chips",
    Kind.HOST_OPERATOR.value: "host operators (time unknown)",
}
WAITING = "waiting for the last rank"


def trace(timelines: Sequence[Timeline]) -> Trace:
    """The trace of chips with one virtual time."""
    events: list[Event] = []
    for process, timeline in enumerate(timelines, 1):
        events += _process(process, timeline)
    count = sum(len(timeline.entries) for timeline in timelines)
    return Trace(events, 0, 0, count, count)


def lane_of(entry: Entry) -> str:
    """The name of the track that shows a piece of work."""
    if entry.kind != Kind.COLLECTIVE.value:
        return TRACKS[entry.kind]
    group = entry.name.partition(" in ")[2]
    return f"lane of group {group}" if group else "messages"


def _process(process: int, timeline: Timeline) -> Iterator[Event]:
    yield _named(process, 0, "process_name", timeline.label)
    numbers: dict[str, int] = {}
    lane_end_ps: dict[str, int] = {}
    for entry in timeline.entries:
        lane = lane_of(entry)
        if lane not in numbers:
            numbers[lane] = len(numbers) + 1
            yield _named(process, numbers[lane], "thread_name", lane)
        place = {"pid": process, "tid": numbers[lane]}
        if entry.kind == Kind.HOST_OPERATOR.value:
            yield {"ph": "i", "s": "t", "ts": entry.start_ps / MICROSECOND_PS, "name": entry.name, **place}
            continue
        if entry.kind == Kind.COLLECTIVE.value:
            ready_ps = max(entry.submitted_ps, lane_end_ps.get(lane, 0))
            if ready_ps < entry.start_ps:
                yield {**_slice(ready_ps, entry.start_ps), "name": WAITING, **place}
            lane_end_ps[lane] = entry.end_ps
        facts = {"stream": entry.stream, "bytes": entry.size_bytes}
        name = entry.name.partition(" in ")[0]
        yield {**_slice(entry.start_ps, entry.end_ps), "name": name, "args": facts, **place}


def _named(process: int, track: int, what: str, name: str) -> Event:
    return {"ph": "M", "pid": process, "tid": track, "name": what, "args": {"name": name}}


def _slice(start_ps: int, end_ps: int) -> dict[str, Any]:
    return {"ph": "X", "ts": start_ps / MICROSECOND_PS, "dur": (end_ps - start_ps) / MICROSECOND_PS}
