"""Quantities as text: three significant digits and the unit a reader expects."""

import math

DECIMAL_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
BINARY_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


def decimal(value: float, unit: str) -> str:
    """1.6e9, "Hz" -> "1.60 GHz"."""
    return _scaled(value, 1000, DECIMAL_PREFIXES, unit)


def binary_bytes(value: int) -> str:
    """2097152 -> "2 MiB". Whole multiples print without a fraction."""
    return _scaled(value, 1024, BINARY_PREFIXES, "B")


def _scaled(value: float, base: int, prefixes: tuple[str, ...], unit: str) -> str:
    power = 0
    while value >= base and power < len(prefixes) - 1:
        value /= base
        power += 1
    whole = value == int(value) or value >= 999.5  # three digits or more before the point: no fraction
    number = f"{value:.0f}" if whole else f"{value:.3g}"
    return f"{number} {prefixes[power]}{unit}".rstrip()


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without exponent: 1592.4 -> "1,592", 0.5712 -> "0.571", 6.0 -> "6"."""
    if value == int(value):
        return f"{value:,.0f}"
    whole_digits = math.floor(math.log10(abs(value))) + 1
    return f"{value:,.{max(digits - whole_digits, 0)}f}"
