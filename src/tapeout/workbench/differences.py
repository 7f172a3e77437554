"""Two profiles, or two chips, against each other: what changed by kernel, bound, engine, byte and dollar.

A profile is read from `profile.json` as data; nothing in it is run. Kernels are matched by name.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.chip.description import Part
from tapeout.errors import TapeoutError
from tapeout.figures import Estimate
from tapeout.silicon.datasheet import datasheet
from tapeout.silicon.described import DEFAULT_VOLUME
from tapeout.silicon.technology import Technology
from tapeout.workbench.profiling import FORMAT


@dataclass(frozen=True)
class Change:
    """A figure before and after, in `unit`; None where one side lacks it. `note` says what no figure does."""

    name: str
    before: float | None
    after: float | None
    unit: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """After over before; None without both, or from zero."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return self.after / self.before


@dataclass(frozen=True)
class Difference:
    """Changes by subject, in the order one reads them."""

    before: str
    after: str
    changes: Mapping[str, Sequence[Change]]


def read_profile(path: Path) -> dict[str, Any]:
    """The profile in a folder that `tapeout profile -o` wrote, or in its profile.json. Raises TapeoutError."""
    file = path / "profile.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise TapeoutError(f"there is no {str(file)!r}; `tapeout profile -o {path} script.py` writes one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TapeoutError(f"{file}: is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or "kernels" not in found:
        raise TapeoutError(f"{file}: is not a profile of this version; make it again with `tapeout profile -o`")
    return found


def of_profiles(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> Difference:
    """What changed between two profiles. A kernel that one of them lacks has no figure there."""

    def both(name: str, unit: str, get: Callable[[Mapping[str, Any]], float | None], note: str = "") -> Change:
        return Change(name, get(before), get(after), unit, note)

    def summed(column: str) -> Callable[[Mapping[str, Any]], float]:
        return lambda profile: float(sum(row[column] for row in profile["kernels"]))

    whole = [
        both("simulated time", "s", lambda profile: profile["run"]["total_ps"] / 1e12),
        both("cores without a kernel", "s", lambda profile: profile["cores_idle_ps"] / 1e12),
        both("launches", "", summed("launches")),
        both("operations", "", summed("operations")),
        both("bytes of main memory", "B", summed("hbm_bytes")),
        both("bytes of last-level SRAM", "B", summed("sram_bytes")),
        both("energy", "J", lambda profile: (profile.get("energy") or {}).get("total_j")),
        both("share of the die at work", "", lambda profile: (profile.get("at_work") or {}).get("area_share")),
    ]
    return Difference(
        *names,
        {
            "whole run": whole,
            "time of kernels by bound": _by(before, after, "bound"),
            "kernels": _kernels(before, after),
            "operators": _operators(before, after),
            "engines, busy": _engines(before, after),
        },
    )


def _ordered(changes: list[Change]) -> list[Change]:
    """The largest change first."""
    return sorted(changes, key=lambda each: (-abs((each.after or 0) - (each.before or 0)), each.name))


def _by(before: Mapping[str, Any], after: Mapping[str, Any], column: str) -> list[Change]:
    taken: list[dict[str, float]] = []
    for profile in (before, after):
        times: dict[str, float] = {}
        for row in profile["kernels"]:
            times[row[column]] = times.get(row[column], 0.0) + row["total_ps"] / 1e12
        taken.append(times)
    return _ordered([Change(name, taken[0].get(name), taken[1].get(name), "s") for name in {**taken[0], **taken[1]}])


def _kernels(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    first, second = ({row["name"]: row for row in profile["kernels"]} for profile in (before, after))
    found = []
    for name in {**first, **second}:
        old, new = first.get(name), second.get(name)
        note = ""
        if old and new:
            if old["bound"] != new["bound"]:
                note = f"{old['bound']}-bound, now {new['bound']}-bound"
            if old["launches"] != new["launches"]:
                note += f"{'; ' if note else ''}{old['launches']:,} launches, now {new['launches']:,}"
        found.append(Change(name, _seconds(old), _seconds(new), "s", note))
    return _ordered(found)


def _operators(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    first, second = ({row["name"]: row for row in profile["operators"]} for profile in (before, after))
    return _ordered(
        [Change(name, _seconds(first.get(name)), _seconds(second.get(name)), "s") for name in {**first, **second}]
    )


def _engines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    first, second = ({row["name"]: row["busy"] for row in profile["engines"]} for profile in (before, after))
    return [Change(name, first.get(name), second.get(name)) for name in {**first, **second}]


def _seconds(row: Mapping[str, Any] | None) -> float | None:
    return row["total_ps"] / 1e12 if row else None


def of_chips(before: Chip, after: Chip, technology: Technology, *, volume: int = DEFAULT_VOLUME) -> Difference:
    """Fields of the description that differ, and every figure of the datasheet on both."""
    told = [Change(name, *_numbers(a, b), "", _words(a, b)) for name, a, b in _fields(before, after, "")]
    sheets = [datasheet(chip, technology, volume=volume) for chip in (before, after)]

    def figure(name: str, unit: str, get: Callable[[Any], Estimate | None]) -> Change:
        old, new = (each.to(unit).value if each is not None else None for each in map(get, sheets))
        return Change(name, old, new, unit)

    rates = [
        Change(f"peak {dtype}", before.peak_flops_per_s(dtype), after.peak_flops_per_s(dtype), "OP/s")
        for dtype in ("float32", "bfloat16", "float8")
    ]
    silicon = [
        figure("die area", "mm²", lambda sheet: sheet.area),
        figure("transistors", "Gtransistor", lambda sheet: sheet.transistors),
        figure("TDP", "W", lambda sheet: sheet.tdp),
        figure("cost of a good packaged chip", "USD", lambda sheet: sheet.manufacturing and sheet.manufacturing.cost),
        figure("price", "USD", lambda sheet: sheet.manufacturing and sheet.manufacturing.price),
        Change("total processing performance", before.total_processing_performance, after.total_processing_performance),
    ]
    return Difference(
        before.name, after.name, {"description": told, "rates": rates, f"silicon, {volume:,} made": silicon}
    )


def _fields(before: Part, after: Part, prefix: str) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for field in fields(before):  # type: ignore[arg-type]
        a, b = getattr(before, field.name), getattr(after, field.name)
        if isinstance(a, Part):
            found += _fields(a, b, f"{prefix}{field.name}.")
        elif a != b:
            found.append((f"{prefix}{field.name}", a, b))
    return found


def _numbers(a: Any, b: Any) -> tuple[float | None, float | None]:
    return (float(a), float(b)) if isinstance(a, int | float) and isinstance(b, int | float) else (None, None)


def _words(a: Any, b: Any) -> str:
    return "" if isinstance(a, int | float) and isinstance(b, int | float) else f"{a}, now {b}"
