"""A trace in Chrome's format as columns for drawing: tracks with the starts, lengths and names of their spans.

A span of 400,000 is a few numbers in an array; the words of all spans are listed once. Times are nanoseconds from the
first event. Details of one span are told when it is asked for.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tapeout.workbench.plain_data import DataError, read_json

MOST_EVENTS = 2_000_000


@dataclass
class Track:
    """Spans of one thread in order of their starts. `events` are their places in the file."""

    name: str
    process: str
    starts: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)


@dataclass
class Columns:
    """`arrows`: track and time of their beginnings and ends. `counters`: times and values by name."""

    tracks: list[Track]
    words: list[str]
    arrows: list[tuple[int, float, int, float]]
    counters: dict[str, list[tuple[float, float]]]
    end: float
    holds: str
    events: list[Any]

    def plain(self) -> dict[str, Any]:
        return {
            "tracks": [
                {
                    "name": track.name,
                    "process": track.process,
                    "starts": track.starts,
                    "lengths": track.lengths,
                    "names": track.names,
                    "events": track.events,
                }
                for track in self.tracks
            ],
            "words": self.words,
            "arrows": self.arrows,
            "counters": self.counters,
            "end": self.end,
            "holds": self.holds,
        }

    def details(self, event: int) -> dict[str, Any]:
        """What the file says of one span. Raises DataError for a number that is none."""
        if not 0 <= event < len(self.events):
            raise DataError(f"the trace has no event {event}")
        found = self.events[event]
        arguments = found.get("args")
        return {str(key): str(value) for key, value in arguments.items()} if isinstance(arguments, dict) else {}


def columns(path: Path) -> Columns:
    """Read a trace, compressed or not. Raises DataError for a file that is none."""
    data = read_json(path)
    events = data.get("traceEvents") if isinstance(data, dict) else data
    if not isinstance(events, list) or len(events) > MOST_EVENTS:
        raise DataError(f"{path.name}: is not a trace of at most {MOST_EVENTS:,} events")
    tracks: dict[tuple[Any, Any], Track] = {}
    names: dict[Any, str] = {}
    threads: dict[tuple[Any, Any], str] = {}
    words: dict[str, int] = {}
    counters: dict[str, list[tuple[float, float]]] = defaultdict(list)
    begun: dict[str, tuple[tuple[Any, Any], float]] = {}
    arrows = []
    first = math.inf
    for number, event in enumerate(events):
        if not isinstance(event, dict):
            raise DataError(f"{path.name}: event {number} is not an object")
        phase, place = event.get("ph"), (str(event.get("pid")), str(event.get("tid")))
        if phase == "M":
            told = event.get("args")
            name = str(told.get("name", "")) if isinstance(told, dict) else ""
            if event.get("name") == "process_name":
                names[place[0]] = name
            elif event.get("name") == "thread_name":
                threads[place] = name
            continue
        start = _time(event.get("ts"), path, number)
        first = min(first, start)
        if phase in ("X", "i"):
            track = tracks.setdefault(place, Track("", ""))
            track.starts.append(start)
            track.lengths.append(_time(event.get("dur", 0), path, number))
            track.names.append(words.setdefault(str(event.get("name")), len(words)))
            track.events.append(number)
        elif phase == "C":
            arguments = event.get("args")
            value = arguments.get("value") if isinstance(arguments, dict) else None
            if isinstance(value, int | float) and math.isfinite(value):
                owner = names.get(place[0], place[0])
                counters[f"{owner}: {event.get('name')}"].append((start, float(value)))
        elif phase == "s":
            begun[str(event.get("id"))] = (place, start)
        elif phase == "f" and (source := begun.get(str(event.get("id")))) is not None:
            arrows.append((*source, place, start))
    first = first if math.isfinite(first) else 0.0
    end = 0.0
    order = sorted(
        tracks, key=lambda place: (names.get(place[0], place[0]) != "chip", _number(place[0]), _number(place[1]))
    )
    at = {place: index for index, place in enumerate(order)}
    for place in order:
        track = tracks[place]
        track.name, track.process = threads.get(place, place[1]), names.get(place[0], place[0])
        sequence = sorted(range(len(track.starts)), key=lambda index: track.starts[index])
        track.starts = [track.starts[index] - first for index in sequence]
        for column in ("lengths", "names", "events"):
            values = getattr(track, column)
            setattr(track, column, [values[index] for index in sequence])
        end = max(end, *(start + length for start, length in zip(track.starts, track.lengths, strict=True)))
    other = data.get("otherData") if isinstance(data, dict) else None
    return Columns(
        tracks=[tracks[place] for place in order],
        words=list(words),
        arrows=[(at[a], x - first, at[b], y - first) for a, x, b, y in arrows if a in at and b in at],
        counters={name: [(time - first, value) for time, value in sorted(line)] for name, line in counters.items()},
        end=end,
        holds=str(other.get("holds", "")) if isinstance(other, dict) else "",
        events=events,
    )


def _time(value: Any, path: Path, number: int) -> float:
    """Nanoseconds, of microseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{path.name}: event {number} has no time")
    return round(value * 1000, 4)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
