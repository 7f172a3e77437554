"""The claim "four times an H100 at equal cost", put to the models and to published figures.

Takes a chip; gives, for each thing one may mean by it (arithmetic, memory), how many times an H100 the chip is a
dollar, the same if the chip itself were free, and what the export rules leave possible. What others published of other
vendors' chips stands beside it: rates an owner's dollar, and tokens an owner's dollar as measured.
"""

import csv
from dataclasses import dataclass
from importlib import resources

from tapeout.chip import catalog
from tapeout.chip.catalog import COLUMNS, PEAK_BITS, CataloguedChip
from tapeout.chip.description import Chip
from tapeout.estimate import Estimate, number
from tapeout.silicon.comparison import catalogued
from tapeout.silicon.ownership import Fleet, Owned, Ownership, owned, ownership
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
    """What a chip at a threshold of the export rules may be: its float8 peak, how many make four H100s, what each may
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


def four_times_h100(chip: Chip | CataloguedChip, fleet: Fleet, technology: Technology, *, volume: int) -> Study:
    """The study for one chip. The H100 stands in the same fleet, but for the tariff, where it is foreign."""
    shipped = catalog.shipped()
    reference_row = catalog.find(REFERENCE, shipped)
    reference_fleet = Fleet(site=fleet.site, origin="foreign", chip_count=fleet.chip_count)
    reference = ownership(owned(reference_row, technology), reference_fleet, technology)
    bought = owned(chip, technology, volume=volume)
    own = ownership(bought, fleet, technology)
    free = ownership(Owned(name=bought.name, price=number(0, "USD"), tdp=bought.tdp), fleet, technology)
    row = catalogued(chip, technology, volume=volume)
    claims = []
    for metric in METRICS:
        mine, theirs = row.figure(metric), reference_row.figure(metric)
        if mine is None or theirs is None:
            continue
        advantage = mine / theirs
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
        capped=tuple(_capped(limit, reference_row, reference, free) for limit in PERFORMANCE_LIMITS),
        published=tuple(_published(reference_row)),
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


def _capped(limit: float, reference_row: CataloguedChip, reference: Ownership, free: Ownership) -> Capped:
    float8 = limit / PEAK_BITS["float8_tflops"]
    wanted = CLAIM * (reference_row.figure("float8_tflops") or 0)
    chips = wanted / float8
    return Capped(
        performance=limit,
        float8_tflops=float8,
        chips_for_claim=chips,
        allowed_usd_per_h=reference.per_hour / chips,
        free_usd_per_h=free.per_hour,
    )


def _published(reference_row: CataloguedChip) -> list[tuple[str, str, float]]:
    """Chip, metric and ratio a dollar from owner's costs others published; measured rates where there are."""
    shipped = catalog.shipped()
    found = []
    for name in OTHERS:
        row = catalog.find(name, shipped)
        for metric in (*METRICS, "measured_half_tflops", "measured_float8_tflops"):
            figures = [
                row.figure(metric),
                row.figure("neocloud_usd_per_h"),
                reference_row.figure(metric),
                reference_row.figure("neocloud_usd_per_h"),
            ]
            if None in figures:
                continue
            mine, my_cost, theirs, their_cost = (float(figure or 0) for figure in figures)
            found.append((name, COLUMNS[metric].label, (mine / my_cost) / (theirs / their_cost)))
    return found
