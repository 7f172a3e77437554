"""A figure that can explain itself: value, range, unit, parts, what bounds it and where it comes from.

Takes inputs (`given`) and combines them with arithmetic; gives figures whose unit is checked, whose provenance is
the weakest of what went into them, and whose uncertainty follows from that of their inputs by sampling. An `Estimate`
remembers how it was computed, so it can be evaluated again with some inputs moved: that is how samples are drawn
(`interval`) and how one learns which input matters (`sensitivities`). Knows nothing of chips.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tapeout.errors import InternalError
from tapeout.figures import notebook
from tapeout.figures.provenance import EstimateError, Provenance
from tapeout.figures.units import Unit

Draws = Mapping[str, Any]  # input name -> value or array of values that replace its nominal one


@dataclass(frozen=True, eq=False)
class Estimate:
    """One figure. Arithmetic with others and with plain numbers gives further figures.

    `formula` computes it from `operands`; an input has no operands and a `low` and `high` that are its least and
    greatest credible values. `parts` is a breakdown that sums to it. `bound` says what limits it, where something does.
    """

    name: str
    unit: Unit
    provenance: Provenance
    source: str = ""
    bound: str = ""
    nominal: float = math.nan
    low: float = math.nan
    high: float = math.nan
    operands: tuple["Estimate", ...] = ()
    formula: Callable[..., Any] | None = None
    parts: tuple["Estimate", ...] = ()

    @cached_property
    def value(self) -> float:
        return float(self.evaluate({}))

    def evaluate(self, draws: Draws, memo: dict[int, Any] | None = None) -> Any:
        """The figure with the inputs named in `draws` replaced; arrays of draws give an array."""
        memo = {} if memo is None else memo
        if id(self) not in memo:
            if self.formula is None:
                memo[id(self)] = draws.get(self.name, self.nominal)
            else:
                memo[id(self)] = self.formula(*(operand.evaluate(draws, memo) for operand in self.operands))
        return memo[id(self)]

    @cached_property
    def inputs(self) -> dict[str, "Estimate"]:
        """Every input the figure depends on, by name."""
        if self.formula is None:
            return {self.name: self}
        found: dict[str, Estimate] = {}
        for operand in self.operands:
            found.update(operand.inputs)
        return found

    def _repr_html_(self) -> str:
        told = (("value", self.in_words()), ("provenance", str(self.provenance)))
        more = (("bound", self.bound), ("source", self.source))
        return notebook.table(self.name, [*told, *(row for row in more if row[1])])

    def in_words(self) -> str:
        """Value, range and unit, as "412 mm² (371-455)"."""
        low, high = self.interval()
        spread = f" ({low:.3g}-{high:.3g})" if low < high else ""
        return f"{self.value:.4g} {self.unit}".rstrip() + spread

    def interval(self, *, seed: int = 0, count: int = 2000, level: float = 0.9) -> tuple[float, float]:
        """The middle `level` of `count` samples. Equal seed, equal answer, whatever else is sampled beside it."""
        samples = np.broadcast_to(self.samples(seed=seed, count=count), (count,))
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def samples(self, *, seed: int = 0, count: int = 2000) -> Any:
        """Values for `count` independent draws of all inputs; a plain number if no input is uncertain."""
        return self.evaluate({item.name: _draw(item, seed, count) for item in self.inputs.values() if item.uncertain})

    @property
    def uncertain(self) -> bool:
        """True if this input has a range of its own."""
        return self.formula is None and self.low < self.high

    def sensitivities(self) -> list["Sensitivity"]:
        """The figure with each uncertain input at either end of its range, others nominal; widest first."""
        found = [
            Sensitivity(item, float(self.evaluate({item.name: item.low})), float(self.evaluate({item.name: item.high})))
            for item in self.inputs.values()
            if item.uncertain
        ]
        return sorted(found, key=lambda each: (-abs(each.at_high - each.at_low), each.varied.name))

    def to(self, unit: str) -> "Estimate":
        """The same figure in another unit."""
        target = Unit.parse(unit)
        factor = self.unit.factor_to(target)
        if target == self.unit:
            return self
        return self._derived(target, lambda value: value * factor)

    def called(
        self, name: str, *, provenance: Provenance = Provenance.DEFINED, source: str = "", bound: str = ""
    ) -> "Estimate":
        """The same figure under a name of its own, at best of that provenance."""
        return Estimate(
            name=name,
            unit=self.unit,
            provenance=max(self.provenance, provenance),
            source=source or self.source,
            bound=bound or self.bound,
            operands=(self,),
            formula=lambda value: value,
            parts=self.parts,
        )

    def _derived(self, unit: Unit, formula: Callable[[Any], Any]) -> "Estimate":
        return Estimate(self.name, unit, self.provenance, self.source, self.bound, operands=(self,), formula=formula)

    def __add__(self, other: "Estimate | float") -> "Estimate":
        if not isinstance(other, Estimate):
            return self + number(other)
        aligned = other if other.unit == self.unit else other.to(str(self.unit))
        return _combined(self.unit, lambda a, b: a + b, self, aligned)

    def __sub__(self, other: "Estimate | float") -> "Estimate":
        return self + other * -1.0

    def __mul__(self, other: "Estimate | float") -> "Estimate":
        if not isinstance(other, Estimate):
            return self * number(other)
        return _combined(self.unit * other.unit, lambda a, b: a * b, self, other)

    def __truediv__(self, other: "Estimate | float") -> "Estimate":
        if not isinstance(other, Estimate):
            return self / number(other)
        return _combined(self.unit * other.unit**-1, lambda a, b: a / b, self, other)

    def __rmul__(self, other: float) -> "Estimate":
        return number(other) * self

    def __rtruediv__(self, other: float) -> "Estimate":
        return number(other) / self

    def __radd__(self, other: float) -> "Estimate":
        return number(other) + self

    def __rsub__(self, other: float) -> "Estimate":
        return number(other) - self


@dataclass(frozen=True)
class Sensitivity:
    """Values of a figure with one input at the low and at the high end of its range."""

    varied: Estimate
    at_low: float
    at_high: float


def given(
    name: str,
    value: float,
    unit: str,
    provenance: Provenance,
    source: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Estimate:
    """An input. `low` and `high` are its least and greatest credible values; between them it is drawn from the
    triangular distribution whose mode is `value`. Raises EstimateError if the three contradict each other."""
    least, greatest = value if low is None else low, value if high is None else high
    if not all(math.isfinite(each) for each in (value, least, greatest)):
        raise EstimateError(f"{name}: {value!r} (from {least!r} to {greatest!r}) is not a finite number")
    if not least <= value <= greatest:
        raise EstimateError(f"{name}={value:g} is outside its own range, {least:g} to {greatest:g}")
    return Estimate(name, Unit.parse(unit), provenance, source, nominal=value, low=least, high=greatest)


def number(value: float, unit: str = "") -> Estimate:
    """An exact number: a count, a definition, a conversion."""
    return Estimate(
        name=f"{value:g}", unit=Unit.parse(unit), provenance=Provenance.DEFINED, operands=(), formula=lambda: value
    )


def computed(unit: str, formula: Callable[..., Any], *operands: Estimate) -> Estimate:
    """A figure by any formula that also takes NumPy arrays; it gives its result in `unit`."""
    return _combined(Unit.parse(unit), formula, *operands)


def total(name: str, parts: Iterable[Estimate], *, provenance: Provenance = Provenance.DEFINED) -> Estimate:
    """The sum of parts of one kind, which it keeps as its breakdown."""
    kept = tuple(parts)
    if not kept:
        raise InternalError(f"{name} has no parts")
    unit = kept[0].unit
    aligned = tuple(part.to(str(unit)) for part in kept)
    weakest = max([provenance, *(part.provenance for part in aligned)])
    return Estimate(
        name, unit, weakest, operands=aligned, formula=lambda *values: sum(values[1:], values[0]), parts=kept
    )


def _combined(unit: Unit, formula: Callable[..., Any], *operands: Estimate) -> Estimate:
    provenance = max((operand.provenance for operand in operands), default=Provenance.DEFINED)
    return Estimate("", unit, provenance, operands=operands, formula=formula)


def _draw(item: Estimate, seed: int, count: int) -> Any:
    # Each input has a generator of its own, so that a new input leaves the draws of the others alone.
    generator = np.random.default_rng([seed, zlib.crc32(item.name.encode())])
    return generator.triangular(item.low, item.nominal, item.high, count)
