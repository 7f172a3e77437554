"""Quantities as text: three significant digits and the unit a reader expects. The text carries the exact figure."""

import math
from collections.abc import Mapping
from typing import Any, Self

from tapeout.figures import Estimate

DECIMAL_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
BINARY_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


class Shown(str):
    """A cell's text, with the data behind it for the formats that a machine reads: `value`, `unit` and the like."""

    data: Mapping[str, Any]

    def __new__(cls, text: str, **data: Any) -> Self:
        shown = super().__new__(cls, text)
        shown.data = data
        return shown


def figure_cell(figure: Estimate, text: str | None = None) -> Shown:
    """A figure with its unit (or as `text`); behind it its value, range, provenance and source."""
    low, high = figure.interval()
    return Shown(
        text if text is not None else f"{significant(figure.value)} {figure.unit}".strip(),
        value=figure.value,
        unit=str(figure.unit),
        low=low,
        high=high,
        provenance=str(figure.provenance),
        source=figure.source,
    )


def decimal(value: float, unit: str) -> Shown:
    """1.6e9, "Hz" -> "1.60 GHz"."""
    return _scaled(value, 1000, DECIMAL_PREFIXES, unit)


def binary_bytes(value: int) -> Shown:
    """2097152 -> "2 MiB". Whole multiples print without a fraction."""
    return _scaled(value, 1024, BINARY_PREFIXES, "B")


def _scaled(exact: float, base: int, prefixes: tuple[str, ...], unit: str) -> Shown:
    value = exact
    power = 0
    while value >= base and power < len(prefixes) - 1:
        value /= base
        power += 1
    whole = value == int(value) or value >= 999.5  # three digits or more before the point: no fraction
    number = f"{value:.0f}" if whole else f"{value:.3g}"
    return Shown(f"{number} {prefixes[power]}{unit}".rstrip(), value=exact, unit=unit)


def significant(value: float, digits: int = 3) -> Shown:
    """A number to so many significant digits, without exponent: 1592.4 -> "1,592", 0.5712 -> "0.571", 6.0 -> "6"."""
    if value == int(value):
        return Shown(f"{value:,.0f}", value=value)
    whole_digits = math.floor(math.log10(abs(value))) + 1
    return Shown(f"{value:,.{max(digits - whole_digits, 0)}f}", value=value)
