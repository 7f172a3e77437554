"""Times of operators on a chip: the best available answer, with its range, bound and provenance.

In order of trust: a row the user measured; the form fitted to the user's rows; the form and residual fitted to a
campaign that ships; the form with parameters of many chips and this one's datasheet. Each has wider ranges than the one
before.

A doubled size never takes less time (`law.py`).
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tapeout.accelerator import Accelerator
from tapeout.figures import Estimate, Provenance
from tapeout.figures import given as figure
from tapeout.models import parameters
from tapeout.models.campaigns_fit import FAMILIES, prior_names
from tapeout.models.fitting import Fitted, fit
from tapeout.models.forms import form_of
from tapeout.models.law import evaluate, lawful
from tapeout.models.machine import Machine, machine
from tapeout.models.parameters import SIMULATED, Parameters, subject_of
from tapeout.models.tables import COLLECTIVES, KINDS, ModelError, Table

CHUNK = 262144
"""Rows answered together: rows of a table share halves and doubles, which are then evaluated once."""
REPEAT_SPREAD = 0.03
"""Difference between one measured row and its repetition: campaigns of the same chip and software differ by 3 % and
more."""
UNMEASURED_SPREAD = (0.0, 0.72, 1.4)
"""The range of operators of which no rows were fitted on any chip."""
ASSUMED_WIDENING = 1.25
"""Widening of ranges, as a logarithm, when the chip's own figures are assumed."""
_SIBLINGS = {
    "float16": ("bfloat16",),
    "half": ("bfloat16", "float16"),
    "bfloat16": ("float16",),
    "float8": ("fp8", "fp8_block"),
    "fp8": ("fp8_block",),
    "int8": ("sq", "fp8"),
    "sq": ("int8",),
    "float4": ("nvfp4",),
    "w4a4_mxfp4": ("nvfp4",),
    "fp8_block": ("fp8",),
}
_NEAREST = {
    "int8": ("fp8",),
    "sq": ("fp8",),
    "float4": ("fp8",),
    "nvfp4": ("fp8",),
    "w4a4_mxfp4": ("fp8",),
    "w4a16_mxfp4": ("int4_wo",),
    "w4a8_mxfp4_mxfp8": ("fp8_block", "fp8"),
}
"""Element types whose constants serve where no two families were measured with one."""


@dataclass(frozen=True)
class Times:
    """Seconds of each row with the range that holds 80 % of rows like it, what bounds it, how it was found. `error` is
    the mean error of the fit on rows it had not seen, None where nothing was measured."""

    seconds: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    bound: NDArray[np.str_]
    provenance: NDArray[np.str_]
    basis: str
    error: float | None

    def estimate(self, row: int = 0, name: str = "time") -> Estimate:
        """One row as a figure."""
        value = float(self.seconds[row])
        made = figure(
            name,
            value,
            "s",
            Provenance.named(str(self.provenance[row])),
            self.basis,
            low=min(float(self.low[row]), value),
            high=max(float(self.high[row]), value),
        )
        return made.called(name, bound=str(self.bound[row]))


@dataclass(frozen=True)
class Timer:
    """A chip with everything that may answer for it. `own` are the user's parameters, `rows` rows the user measured."""

    chip: Accelerator
    campaign: str = ""
    framework: str = ""
    version: str = ""
    without_family: bool = False
    assume: bool = False
    own: tuple[Parameters, ...] = ()
    rows: tuple[Table, ...] = ()
    _fits: dict[str, tuple[Fitted, str, bool]] = field(default_factory=dict, compare=False, repr=False)

    def time(self, table: Table) -> Times:
        """Raises ModelError that names a figure the chip lacks."""
        if table.kind.name == "convolution":
            return self.time(as_product(table))
        of = machine(self.chip, table.dtype, table.kind.name, assume=self.assume)
        fitted, basis, is_calibrated = self._fitted(table, of)
        form = form_of(table.kind.name, of)
        seconds = np.empty(len(table))
        low, high = np.empty(len(table)), np.empty(len(table))
        bound = np.empty(len(table), "U8")
        widen = ASSUMED_WIDENING if of.provenance is Provenance.ASSUMED else 1.0

        def fill(start: int) -> None:
            here = slice(start, start + CHUNK)
            part = table.take(np.arange(len(table))[here])
            parts, value, outside = evaluate(form, of, fitted, part)
            seconds[here] = lawful(form, of, fitted, part, value)
            bound[here] = parts.bound()
            starts = np.array([spread[0] for spread in fitted.spreads])
            which = np.maximum(np.searchsorted(starts, seconds[here], side="right") - 1, 0)
            below = np.array([spread[1] for spread in fitted.spreads])[which]
            above = np.array([spread[2] for spread in fitted.spreads])[which]
            below = np.where(outside, np.minimum(below, fitted.outside[0]), below) ** widen
            above = np.where(outside, np.maximum(above, fitted.outside[1]), above) ** widen
            low[here] = np.maximum(seconds[here] * below, parts.roofline)
            high[here] = seconds[here] * above

        starts = range(0, len(table), CHUNK)
        if len(starts) > 1:
            with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
                list(pool.map(fill, starts))
        else:
            fill(0)
        provenance = np.full(len(table), str(of.provenance), "U9")
        low = np.minimum(low, seconds)
        found = Times(seconds, low, high, bound, provenance, basis, fitted.error if is_calibrated else None)
        return self._with_measured(table, found)

    def _fitted(self, table: Table, of: Machine) -> tuple[Fitted, str, bool]:
        subject = subject_of(table.kind.name, table.dtype)
        if subject not in self._fits:
            self._fits[subject] = self._find(table, of, subject)
        return self._fits[subject]

    def _find(self, table: Table, of: Machine, subject: str) -> tuple[Fitted, str, bool]:
        base = (
            self._prior(table, of)
            if self.without_family
            else self._calibrated(table, subject) or self._prior(table, of)
        )
        mine = [rows for rows in self.rows if subject_of(rows.kind.name, rows.dtype) == subject]
        count = sum(map(len, mine))
        if count < 5:
            return base
        sets = [(machine(self.chip, rows.dtype, rows.kind.name, assume=self.assume), rows) for rows in mine]
        refitted = fit(sets, start=base[0].parameters)
        return refitted, f"form fitted to {count} measured rows of {self.chip.name}", True

    def _calibrated(self, table: Table, subject: str) -> tuple[Fitted, str, bool] | None:
        candidates = [each for each in (*self.own, *self._shipped()) if self._holds_for_chip(each)]
        names = [subject, *(subject_of(table.kind.name, each) for each in _SIBLINGS.get(table.dtype, ()))]
        for name in names:
            for each in candidates:
                if name in each.fitted:
                    found = each.fitted[name]
                    basis = f"{each.campaign}: {found.row_count:,} measured rows; unseen rows {found.error:.1%}"
                    return found, basis, True
        return None

    def _holds_for_chip(self, kept: Parameters) -> bool:
        """Parameters hold for the chip of their name; simulated ones for that very description."""
        design = self.chip.design
        is_same = design is None or kept.framework != SIMULATED or kept.version == design.fingerprint()
        return kept.chip == self.chip.name and is_same

    def parameters_for(self, table: Table) -> Mapping[str, float]:
        """The form's parameters that answer for a table's operator."""
        of = machine(self.chip, table.dtype, table.kind.name, assume=self.assume)
        return self._fitted(table, of)[0].parameters

    def _shipped(self) -> list[Parameters]:
        """Campaigns of this chip, the one asked for first, then the one whose software is nearest."""
        mine = [each for each in parameters.shipped().values() if each.chip == self.chip.name]
        if self.campaign:
            named = [each for each in mine if each.campaign == self.campaign]
            if not named:
                have = ", ".join(each.campaign for each in mine) or "none"
                raise ModelError(f"no campaign {self.campaign!r} of {self.chip.name}; it has {have}")
            return named + [each for each in mine if each.campaign != self.campaign]
        wanted = self.framework.casefold().replace("-", ""), self.version
        order = ("vllm", "trtllm")
        return sorted(
            mine,
            key=lambda each: (
                each.framework != wanted[0],
                each.version != wanted[1],
                order.index(each.framework) if each.framework in order else 2,
                each.campaign,
            ),
        )

    def _prior(self, table: Table, of: Machine) -> tuple[Fitted, str, bool]:
        without = FAMILIES.get(self.chip.name, "") if self.without_family else ""
        kind = "collective" if table.kind.name in COLLECTIVES else table.kind.name
        kind = {"context_mla": "context_attention", "generation_mla": "generation_attention"}.get(kind, kind)
        known = parameters.priors().get(without, {})
        everything = parameters.priors()[""]
        form = form_of(table.kind.name, of)
        near = *_SIBLINGS.get(table.dtype, ()), *_NEAREST.get(table.dtype, ()), "bfloat16"
        names = [name for dtype in dict.fromkeys((table.dtype, *near)) for name in prior_names(kind, dtype, self.chip)]
        for name in names:
            # Constants that are not fitted again without the family never saw it.
            found = known.get(name) or everything.get(name)
            if found is not None and set(found.parameters) == set(form.parameters):
                left_out = f", family {without} left out" if without else ""
                return found, f"no rows of {self.chip.name}: datasheet and constants of other chips{left_out}", False
        start = {name: limits[0] for name, limits in form.parameters.items()}
        bare = Fitted(start, None, {}, (UNMEASURED_SPREAD,), UNMEASURED_SPREAD[1:], 0.0, 0)
        return bare, f"{table.kind.name} was never measured: datasheet and the form's usual constants", False

    def _with_measured(self, table: Table, found: Times) -> Times:
        """The user's own measurements in place of what was computed for the same shapes."""
        known: dict[str, float] = {}
        for rows in self.rows:
            if rows.seconds is not None and (rows.kind, rows.dtype) == (table.kind, table.dtype):
                known |= dict(zip(rows.keys(), rows.seconds.tolist(), strict=True))
        if not known:
            return found
        for number, key in enumerate(table.keys()):
            if key in known:
                value = known[key]
                found.seconds[number] = value
                found.low[number], found.high[number] = value * (1 - REPEAT_SPREAD), value * (1 + REPEAT_SPREAD)
                found.provenance[number] = "measured"
        return found


def as_product(table: Table) -> Table:
    """A convolution as the matrix product it is (implicit: the picture is not copied)."""
    kernel, stride = table["kernel"], table["stride"]
    height = np.floor((table["height"] - kernel) / stride) + 1
    width = np.floor((table["width"] - kernel) / stride) + 1
    columns = {
        "m": table["batch"] * height * width,
        "n": table["filters"],
        "k": table["channels"] * kernel * kernel,
    }
    return Table(KINDS["gemm"], table.dtype, columns, {}, table.seconds)
