"""The claim "four times an H100 at equal cost", put to the models and to published figures.

Takes a chip; gives, for each thing one may mean by it (arithmetic, memory), how many times an H100 the chip is a
dollar, the same if the chip itself were free, and what the export rules leave possible. What others published of other
vendors' chips stands beside it: rates an owner's dollar, and tokens an owner's dollar as measured.
"""

import csv
from dataclasses import dataclass, replace
from importlib import resources

from tapeout.accelerator import Accelerator, of_catalogued
from tapeout.chip import catalog
from tapeout.chip.catalog import COLUMNS, PEAK_BITS
from tapeout.figures import Estimate, number
from tapeout.silicon.ownership import Ownership, Site, ownership
from tapeout.silicon.technology import Technology

CLAIM = 4.0
REFERENCE = "H100-SXM5-80GB"
METRICS = ("half_tflops", "float8_tflops", "memory_gb_per_s", "memory_gb")
OTHERS = ("H20-SXM-96GB", "H200-SXM-141GB", "B200-SXM", "GB200-NVL72 (per GPU)", "MI300X", "MI355X")
PERFORMANCE_LIMITS = (1600.0, 2400.0, 4800.0)
"""Thresholds of total processing performance in 3A090."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One reading of the claim. `ratio` is the chip's figure a dollar over the H100's; `ratio_if_free` the same with
    a chip that costs nothing in the same server, network and facility."""

    metric: str
    ratio: Estimate
    ratio_if_free: Estimate

    @property
    def verdict(self) -> str:
        low, high = self.ratio.interval()
        if low >= CLAIM:
            return "holds"
        if high >= CLAIM:
            return "within the uncertainty"
        return "cannot hold" if self.ratio_if_free.value < CLAIM else "does not hold"


@dataclass(frozen=True, kw_only=True)
class Capped:
    """Limits of a chip at a threshold of the export rules: its float8 peak, how many make four H100s, what each may
    cost an hour to equal one H100, and what one costs if the chip is free."""

    performance: float
    float8_tflops: float
    chips_for_claim: float
    allowed_usd_per_h: Estimate
    free_usd_per_h: Estimate

    @property
    def possible(self) -> bool:
        return self.free_usd_per_h.value <= self.allowed_usd_per_h.value


@dataclass(frozen=True, kw_only=True)
class Study:
    chip: Ownership
    reference: Ownership
    claims: tuple[Claim, ...]
    capped: tuple[Capped, ...]
    published: tuple[tuple[str, str, float], ...]
    served: tuple["Served", ...]


@dataclass(frozen=True, kw_only=True)
class Served:
    """Tokens a dollar of a chip over those of an H100, measured by others in serving a model."""

    chip: str
    workload: str
    times_h100: float
    source: str

    @property
    def verdict(self) -> str:
        return "holds" if self.times_h100 >= CLAIM else "does not hold"


def four_times_h100(chip: Accelerator, site: Site, technology: Technology) -> Study:
    """The study for one chip. The H100 stands in the same place, but for the tariff, where it is foreign."""
    h100 = of_catalogued(catalog.find(REFERENCE, catalog.shipped()))
    reference = ownership(h100, replace(site, origin="foreign"), technology)
    own = ownership(chip, site, technology)
    free = ownership(replace(chip, price=number(0, "USD")), site, technology)
    claims = []
    for metric in METRICS:
        mine, theirs = chip.figure(metric), h100.figure(metric)
        if mine is None or theirs is None:
            continue
        advantage = mine.value / theirs.value
        claims.append(
            Claim(
                metric=metric,
                ratio=advantage * (reference.per_hour / own.per_hour),
                ratio_if_free=advantage * (reference.per_hour / free.per_hour),
            )
        )
    return Study(
        chip=own,
        reference=reference,
        claims=tuple(claims),
        capped=tuple(_capped(limit, h100, reference, free) for limit in PERFORMANCE_LIMITS),
        published=tuple(_published(h100)),
        served=_served(),
    )


def _served() -> tuple[Served, ...]:
    text = (resources.files("tapeout.silicon") / "data" / "measured_serving.csv").read_text("utf-8")
    return tuple(
        Served(
            chip=row["chip"],
            workload=row["workload"],
            times_h100=float(row["times_h100_a_dollar"]),
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def _capped(limit: float, h100: Accelerator, reference: Ownership, free: Ownership) -> Capped:
    float8 = limit / PEAK_BITS["float8_tflops"]
    wanted = CLAIM * h100.require("float8_tflops").value
    chips = wanted / float8
    return Capped(
        performance=limit,
        float8_tflops=float8,
        chips_for_claim=chips,
        allowed_usd_per_h=reference.per_hour / chips,
        free_usd_per_h=free.per_hour,
    )


def _published(h100: Accelerator) -> list[tuple[str, str, float]]:
    """Chip, metric and ratio a dollar from owner's costs others published; measured rates where there are."""
    shipped = catalog.shipped()
    found = []
    for name in OTHERS:
        chip = of_catalogued(catalog.find(name, shipped))
        for metric in (*METRICS, "measured_half_tflops", "measured_float8_tflops"):
            mine, theirs = chip.figure(metric), h100.figure(metric)
            my_cost, their_cost = chip.neocloud_cost, h100.neocloud_cost
            if mine is None or theirs is None or my_cost is None or their_cost is None:
                continue
            ratio = (mine.value / my_cost.value) / (theirs.value / their_cost.value)
            found.append((name, COLUMNS[metric].label, ratio))
    return found
