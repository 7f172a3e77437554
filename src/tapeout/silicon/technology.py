"""Figures of technology and economics by name, from the files that ship with Tapeout and one of the user's own.

Takes TOML: a table a figure with value, range, unit, provenance and source. Gives `Estimate` inputs. A figure that is
not in the file is unknown, and asking for it says so by name: nothing falls back to a guess.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tapeout.chip.description import shown_path
from tapeout.errors import TapeoutError
from tapeout.figures import Estimate, EstimateError, Provenance, given

KEYS = ("value", "low", "high", "unit", "provenance", "source")
REQUIRED = ("value", "unit", "provenance", "source")


class SiliconError(TapeoutError, ValueError):
    """A figure, a rule or a catalogued chip that is wrong or unknown."""


class UnknownFigure(SiliconError):
    """Nobody has told us this figure; `name` is what it is called in the technology file."""

    def __init__(self, name: str):
        super().__init__(f"{name} is not known; add [{name}] to a technology file of your own")
        self.name = name


@dataclass(frozen=True)
class Technology:
    """Every figure by its dotted name ("wafer_price.N5")."""

    figures: dict[str, Estimate]

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.figures:
            raise UnknownFigure(name)
        return self.figures[name]

    def replacing(self, figures: dict[str, Estimate]) -> "Technology":
        return Technology(self.figures | figures)

    def without(self, *names: str) -> "Technology":
        return Technology({name: figure for name, figure in self.figures.items() if name not in names})


def load(own: Path | None = None) -> Technology:
    """The figures that ship, with those of the user's file instead where both have one. Raises SiliconError."""
    shipped = _shipped()
    if own is None:
        return shipped
    try:
        text = own.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SiliconError(f"{shown_path(str(own))}: cannot be read: {error}") from None
    return shipped.replacing(_read(text, shown_path(str(own))))


@cache
def _shipped() -> Technology:
    figures: dict[str, Estimate] = {}
    for name in ("technology.toml", "economics.toml", "supply.toml"):
        text = (resources.files("tapeout.silicon") / "data" / name).read_text("utf-8")
        figures |= _read(text, name)
    return Technology(figures)


def _read(text: str, where: str) -> dict[str, Estimate]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiliconError(f"{where}: is not TOML: {error}") from None
    figures: dict[str, Estimate] = {}
    for name, table in _tables(tables, ()):
        place = f"{where}:{_line_of(text, name)}: {name}"
        unknown = sorted(set(table) - set(KEYS))
        if unknown:
            raise SiliconError(f"{place}: unknown key {unknown[0]!r}; a figure has {', '.join(KEYS)}")
        missing = [key for key in REQUIRED if key not in table]
        if missing:
            raise SiliconError(f"{place}: {missing[0]} is missing")
        values = {key: table[key] for key in ("value", "low", "high") if key in table}
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SiliconError(f"{place}: {key}={value!r} is not a number")
            if value < 0:
                raise SiliconError(f"{place}: {key}={value!r} is negative")
        try:
            figures[name] = given(
                name,
                table["value"],
                table["unit"],
                Provenance.named(table["provenance"]),
                table["source"],
                low=table.get("low"),
                high=table.get("high"),
            )
        except EstimateError as error:
            raise SiliconError(f"{place}: {error}") from None
    return figures


def _tables(tables: dict[str, Any], place: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Tables that hold figures, with their dotted names; a table of tables is only a prefix."""
    found: list[tuple[str, dict[str, Any]]] = []
    for key, value in tables.items():
        here = (*place, key)
        if not isinstance(value, dict):
            raise SiliconError(f"{'.'.join(here)} is not in a table; write [{'.'.join(here)}] and its value below")
        if any(isinstance(inner, dict) for inner in value.values()):
            found += _tables(value, here)
        else:
            found.append((".".join(here), value))
    return found


def _line_of(text: str, name: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if line.strip() == f"[{name}]"), 1)
