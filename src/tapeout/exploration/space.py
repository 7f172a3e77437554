"""A space file (TOML): the fields of a chip that may vary, what must hold, the workloads, and what is wanted.

base = "inference"

[fields]
core_count = [16, 32, 64]
"core.matrix.row_count" = { from = 8, to = 128, times = 2 }
clock_hz = { from = 1_000_000_000, to = 1_800_000_000, step = 100_000_000 }

[constraints]
export = { on = 2026-12-01 }          # outside 3A090 under the rules of that day
area_mm2 = { most = 500 }
power_w = { most = 350 }

[workloads.decode]
model = "llama-3.1-8b"
batch = 32
context = 4096

[wanted]
most = ["speed"]
least = ["usd_per_h"]
"""

import datetime
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.chip import load as load_chip
from tapeout.chip.changing import changed, value_of
from tapeout.chip.description import shown_path
from tapeout.errors import ChipError, TapeoutError

FIGURES = {
    "speed": "times the base chip's speed, geometric mean over the workloads",
    "usd_per_h": "owner's cost of a chip-hour, USD",
    "speed_per_usd": "speed over the owner's cost of a chip-hour",
    "speed_per_w": "speed over TDP",
    "area_mm2": "die area, mm²",
    "power_w": "TDP, W",
    "price_usd": "price of a chip, USD",
    "memory_gb": "capacity of main memory, GiB",
    "memory_gb_per_s": "bandwidth of main memory, GB/s",
    "tpp": "total processing performance",
    "density": "total processing performance a mm²",
}
MOST_CHOICES = 4096


class SpaceError(TapeoutError, ValueError):
    """A space file that says nothing one can search."""


@dataclass(frozen=True)
class Bound:
    """A constraint on a figure. `least` or `most` may be missing."""

    figure: str
    least: float | None
    most: float | None

    def __str__(self) -> str:
        words = []
        if self.least is not None:
            words.append(f"at least {self.least:g}")
        if self.most is not None:
            words.append(f"at most {self.most:g}")
        return f"{self.figure} {' and '.join(words)}"

    def violation(self, value: float) -> float:
        """By how much of the bound the value misses it; at most 0 where it holds."""
        missed = [-math.inf]
        if self.least is not None:
            missed.append((self.least - value) / max(abs(self.least), 1e-12))
        if self.most is not None:
            missed.append((value - self.most) / max(abs(self.most), 1e-12))
        return max(missed)


@dataclass(frozen=True)
class Export:
    """The chip must be outside 3A090 under the rules of a day. `circumstances` as for `tapeout export-check`."""

    on: datetime.date
    circumstances: Mapping[str, bool]

    def __str__(self) -> str:
        return f"export: outside 3A090 on {self.on}"


@dataclass(frozen=True)
class Space:
    """`fields`: the choices of each field, in order. `bounds` and `export` must hold. `most` and `least` are wanted."""

    base: Chip
    fields: Mapping[str, tuple[Any, ...]]
    bounds: tuple[Bound, ...]
    export: Export | None
    workloads: Mapping[str, Mapping[str, Any]]
    most: tuple[str, ...]
    least: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(len(choices) for choices in self.fields.values())

    @property
    def clauses(self) -> tuple[str, ...]:
        """The constraints in words, in the order in which a candidate's violations are listed."""
        return (*((str(self.export),) if self.export else ()), *map(str, self.bounds), "memory holds every workload")

    def chip(self, chosen: Mapping[str, Any], name: str) -> Chip:
        """A candidate. Raises ChipError for one that cannot be."""
        return changed(self.base, {**chosen, "name": name})


def read(path: Path) -> Space:
    """Raises SpaceError that names the file, the key and what is allowed."""
    where = shown_path(str(path))
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{where}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{where}: is not TOML: {error}") from None
    known = {"base", "fields", "constraints", "workloads", "wanted"}
    if unknown := set(data) - known:
        raise SpaceError(f"{where}: unknown key {min(unknown)!r}; known: {', '.join(sorted(known))}")
    base_name = data.get("base", "inference")
    beside = path.parent / str(base_name)
    base = load_chip(str(beside) if beside.suffix and beside.is_file() else str(base_name))
    fields = {place: _choices(base, place, choices, where) for place, choices in _table(data, "fields", where).items()}
    if not fields:
        raise SpaceError(f"{where}: [fields] is empty: there is nothing to search")
    bounds, export = [], None
    for name, told in _table(data, "constraints", where).items():
        if not isinstance(told, dict):
            raise SpaceError(f"{where}: constraints.{name} is not a table such as {{ most = 500 }}")
        if name == "export":
            export = _export(told, where)
        else:
            bounds.append(_bound(name, told, where))
    wanted = _table(data, "wanted", where) or {"most": ["speed"], "least": ["usd_per_h"]}
    most, least = (_figures(wanted.get(name, []), f"wanted.{name}", where) for name in ("most", "least"))
    if not most and not least:
        raise SpaceError(f"{where}: [wanted] names no figure; known: {', '.join(FIGURES)}")
    workloads = _table(data, "workloads", where)
    for name, told in workloads.items():
        if not isinstance(told, dict):
            raise SpaceError(f"{where}: workloads.{name} is not a table")
    return Space(base, fields, tuple(bounds), export, workloads, most, least)


def _table(data: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise SpaceError(f"{where}: [{name}] is not a table")
    return found


def _choices(base: Chip, place: str, told: Any, where: str) -> tuple[Any, ...]:
    try:
        value_of(base, place)
    except ChipError as error:
        raise SpaceError(f"{where}: fields: {error.sentence}") from None
    if isinstance(told, list):
        found = tuple(told)
    elif isinstance(told, dict):
        found = tuple(itertools.islice(_stepped(told, place, where), MOST_CHOICES + 1))
    else:
        found = (told,)
    if not found:
        raise SpaceError(f"{where}: fields.{place} has no choice")
    if len(found) > MOST_CHOICES:
        raise SpaceError(f"{where}: fields.{place} has more than {MOST_CHOICES:,} choices; a larger step has fewer")
    return found


def _stepped(told: Mapping[str, Any], place: str, where: str) -> Iterator[int]:
    first, last = told.get("from"), told.get("to")
    step, times = told.get("step"), told.get("times")
    is_whole = all(isinstance(each, int) for each in (first, last))
    if not is_whole or (step is None) == (times is None) or set(told) - {"from", "to", "step", "times"}:
        raise SpaceError(f"{where}: fields.{place} is neither a list nor {{ from, to, step }} or {{ from, to, times }}")
    assert isinstance(first, int) and isinstance(last, int)
    ways_up = (isinstance(step, int) and step > 0) or (isinstance(times, int) and times > 1 and first > 0)
    if not ways_up:
        raise SpaceError(f"{where}: fields.{place} never gets from {first} to {last}")
    value = first
    while value <= last:
        yield value
        value = value + step if isinstance(step, int) else value * int(times or 2)


def _bound(name: str, told: Mapping[str, Any], where: str) -> Bound:
    if name not in FIGURES:
        raise SpaceError(f"{where}: unknown constraint {name!r}; known: export, {', '.join(FIGURES)}")
    ends = {key: told[key] for key in ("least", "most") if key in told}
    if not ends or set(told) - set(ends) or not all(isinstance(each, int | float) for each in ends.values()):
        raise SpaceError(f"{where}: constraints.{name} is not {{ least = number }}, {{ most = number }} or both")
    least, most = ends.get("least"), ends.get("most")
    if least is not None and most is not None and least > most:
        raise SpaceError(f"{where}: constraints.{name} excludes everything: at least {least:g} and at most {most:g}")
    return Bound(name, least, most)


def _export(told: Mapping[str, Any], where: str) -> Export:
    date = told.get("on")
    if not isinstance(date, datetime.date) or isinstance(date, datetime.datetime):
        raise SpaceError(f"{where}: constraints.export needs on = a date, such as 2026-12-01")
    states = {name: state for name, state in told.items() if name != "on"}
    for name, state in states.items():
        if not isinstance(state, bool):
            raise SpaceError(f"{where}: constraints.export.{name} is not true or false")
    return Export(date, states)


def _figures(told: Any, key: str, where: str) -> tuple[str, ...]:
    names = [told] if isinstance(told, str) else told
    if not isinstance(names, list):
        raise SpaceError(f"{where}: {key} is not a list of figures")
    if unknown := [name for name in names if name not in FIGURES]:
        raise SpaceError(f"{where}: {key} names {unknown[0]!r}; known: {', '.join(FIGURES)}")
    return tuple(names)
