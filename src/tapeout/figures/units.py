"""Units of measure: symbols with powers, parsed from text, converted only to what measures the same thing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from tapeout.figures.provenance import EstimateError

# Each unit in terms of base units: scale and exponents. A symbol that is not here is its own base unit ("wafer").
_DERIVED: dict[str, tuple[float, dict[str, int]]] = {
    "W": (1.0, {"J": 1, "s": -1}),
    "kW": (1e3, {"J": 1, "s": -1}),
    "MW": (1e6, {"J": 1, "s": -1}),
    "mW": (1e-3, {"J": 1, "s": -1}),
    "kWh": (3.6e6, {"J": 1}),
    "MWh": (3.6e9, {"J": 1}),
    "pJ": (1e-12, {"J": 1}),
    "h": (3600.0, {"s": 1}),
    "min": (60.0, {"s": 1}),
    "day": (86400.0, {"s": 1}),
    "month": (365.25 / 12 * 24 * 3600.0, {"s": 1}),
    "year": (365.25 * 24 * 3600.0, {"s": 1}),
    "ns": (1e-9, {"s": 1}),
    "us": (1e-6, {"s": 1}),
    "ms": (1e-3, {"s": 1}),
    "MHz": (1e6, {"s": -1}),
    "GHz": (1e9, {"s": -1}),
    "bit": (1 / 8, {"B": 1}),
    "MiB": (float(1 << 20), {"B": 1}),
    "GiB": (float(1 << 30), {"B": 1}),
    "KiB": (float(1 << 10), {"B": 1}),
    "MB": (1e6, {"B": 1}),
    "GB": (1e9, {"B": 1}),
    "TB": (1e12, {"B": 1}),
    "mm": (1e-3, {"m": 1}),
    "cm": (1e-2, {"m": 1}),
    "µm": (1e-6, {"m": 1}),
    "Mtransistor": (1e6, {"transistor": 1}),
    "Gtransistor": (1e9, {"transistor": 1}),
    "Mtoken": (1e6, {"token": 1}),
    "Gop": (1e9, {"op": 1}),
    "Top": (1e12, {"op": 1}),
    "MUSD": (1e6, {"USD": 1}),
}
_EXPONENTS = {"²": 2, "³": 3}


@dataclass(frozen=True)
class Unit:
    """Powers of symbols, as in "USD/wafer" or "pJ/bit". No symbol at all is a plain number."""

    powers: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "USD·h/mm²" and the like: factors joined by "·", what follows a "/" divides. "" is a plain number."""
        powers: dict[str, int] = {}
        above, *below = text.split("/")
        for side, sign in ((above, 1), *((part, -1) for part in below)):
            if sign == 1 and side in ("", "1"):
                continue
            for factor in side.split("·"):
                match = re.fullmatch(r"([A-Za-zµ-]+)([²³]?)", factor)
                if not match:
                    raise EstimateError(f"{text!r} is not a unit; write it like 'USD/wafer', 'pJ/bit' or 'mm²'")
                powers[match[1]] = powers.get(match[1], 0) + sign * _EXPONENTS.get(match[2], 1)
        return cls._of(powers)

    @classmethod
    def _of(cls, powers: Mapping[str, int]) -> Self:
        return cls(tuple(sorted((symbol, power) for symbol, power in powers.items() if power)))

    def __mul__(self, other: "Unit") -> "Unit":
        powers = dict(self.powers)
        for symbol, power in other.powers:
            powers[symbol] = powers.get(symbol, 0) + power
        return Unit._of(powers)

    def __pow__(self, exponent: int) -> "Unit":
        return Unit._of({symbol: power * exponent for symbol, power in self.powers})

    def base(self) -> tuple[float, dict[str, int]]:
        """Scale and powers in base units."""
        scale = 1.0
        powers: dict[str, int] = {}
        for symbol, power in self.powers:
            factor, bases = _DERIVED.get(symbol, (1.0, {symbol: 1}))
            scale *= factor**power
            for base, exponent in bases.items():
                powers[base] = powers.get(base, 0) + exponent * power
        return scale, {symbol: power for symbol, power in powers.items() if power}

    def factor_to(self, other: "Unit") -> float:
        """Return what a value in this unit is multiplied by to be in `other`. Raises EstimateError if they measure
        different things."""
        (mine, my_powers), (theirs, their_powers) = self.base(), other.base()
        if my_powers != their_powers:
            raise EstimateError(f"{str(self) or 'a plain number'} does not convert to {str(other) or 'a plain number'}")
        return mine / theirs

    def __str__(self) -> str:
        def written(power: int) -> str:
            return {1: "", 2: "²", 3: "³"}.get(power, f"^{power}")

        above = [symbol + written(power) for symbol, power in self.powers if power > 0]
        below = [symbol + written(-power) for symbol, power in self.powers if power < 0]
        return "/".join(["·".join(above) or ("1" if below else ""), *below])
