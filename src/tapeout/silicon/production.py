"""Making a number of chips: wafers, memory, packages and test, month by month, and the cash each quarter takes.

    dies to make     = chips / (yield of packaging x yield of test)
    wafers           = dies to make / (dies per wafer x yield of a die)
    delivery         = start of a wafer + wafer, packaging and test times
    cash of a month  = wafers finished + memory at packaging + packages, test and margin at delivery

Starts rise evenly over the first half year, then stay level; a cap on wafers or interposers a month stretches them.
Development is paid before the first wafer. Dates use the nominal lead times; their range is given for the first chips.
"""

import math
import re
from dataclasses import dataclass
from typing import Self

from tapeout.chip.description import Chip
from tapeout.figures import Estimate, Provenance, number, total
from tapeout.silicon.area import die_area
from tapeout.silicon.die import of_chip as die_of_chip
from tapeout.silicon.manufacturing import dies_per_wafer, manufacture
from tapeout.silicon.technology import SiliconError, Technology

RAMP_MONTHS = 6
LONGEST_MONTHS = 240


@dataclass(frozen=True, order=True)
class Quarter:
    """A quarter of a calendar year; `number` is 1 to 4."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "2026Q3". Raises SiliconError."""
        match = re.fullmatch(r"(\d{4})Q([1-4])", text.strip().upper())
        if not match:
            raise SiliconError(f"{text!r} is not a quarter; 2026Q3 is")
        return cls(int(match[1]), int(match[2]))

    def after(self, months: int) -> "Quarter":
        """The quarter in which the month lies that is so many months after this one's first."""
        index = self.year * 4 + self.number - 1 + math.floor(months / 3)
        return Quarter(index // 4, index % 4 + 1)

    def __str__(self) -> str:
        return f"{self.year}Q{self.number}"


@dataclass(frozen=True, kw_only=True)
class QuarterPlan:
    """One quarter: wafers started, chips delivered, chips delivered until its end, and cash by its cause."""

    quarter: Quarter
    wafers_started: Estimate
    delivered: float
    delivered_so_far: float
    cash: Estimate


@dataclass(frozen=True, kw_only=True)
class Scarce:
    """What the plan takes of the world's output in its busiest month."""

    what: str
    needed: Estimate
    world: Estimate
    share: Estimate


@dataclass(frozen=True, kw_only=True)
class Production:
    """A plan. `earliest` and `latest` bound the quarter of the first chips by the range of the lead times."""

    chip: str
    chip_count: int
    start: Quarter
    needs: tuple[Estimate, ...]
    development: Estimate
    cost: Estimate
    quarters: tuple[QuarterPlan, ...]
    scarce: tuple[Scarce, ...]
    unknown: tuple[str, ...]
    first: Quarter
    earliest: Quarter
    latest: Quarter
    last: Quarter

    def delivered_by(self, quarter: Quarter) -> float:
        """Chips delivered by the end of a quarter."""
        return sum(each.delivered for each in self.quarters if each.quarter <= quarter)


def produce(
    chip: Chip,
    chip_count: int,
    technology: Technology,
    *,
    start: Quarter | None = None,
    by: Quarter | None = None,
    quarter_count: int = 4,
    wafers_per_month: float | None = None,
    interposers_per_month: float | None = None,
) -> Production:
    """The plan whose first wafers start in `start`, over `quarter_count` quarters; or which ends in `by`.

    The caps are what the foundry allots; a plan that needs more a month is stretched. Raises SiliconError for counts
    and caps that are not positive, UnknownFigure where a price or a lead time is not known.
    """
    if chip_count < 1 or quarter_count < 1:
        raise SiliconError(f"{chip_count} chips in {quarter_count} quarters; the least of each is 1")
    if (start is None) == (by is None):
        raise SiliconError("give either the quarter of the first wafers or the quarter of the last chips")
    die = die_of_chip(chip)
    area = die_area(die, technology)
    made = manufacture(die, area, technology, volume=chip_count)
    per_wafer = made.dies_per_wafer * made.yielded
    good_share = technology["package_yield"] * technology["test_yield"]
    dies = (number(chip_count, "die") / good_share).called("good dies", provenance=Provenance.MODELLED)
    cut = 1 if die.is_wafer else die.die_count
    wafers = (dies * cut / per_wafer).called("wafers")
    needs = [wafers, dies]
    gigabytes = number(die.memory_bytes / 1e9, "GB") * (dies / number(1, "die"))
    stacks = number(die.memory_stack_count, "stack") * (dies / number(1, "die"))
    what = "packages" if die.memory_place == "beside" else "stacks"
    if die.has_dram:
        needs += [
            stacks.called(f"{what} of {die.memory_kind}"),
            gigabytes.to("TB").called(f"memory, {die.memory_kind}"),
        ]
    interposers = None
    if die.has_hbm:
        footprint = area + die.memory_stack_count * technology["hbm_footprint"]
        fit = dies_per_wafer(footprint, technology)
        interposers = (dies / fit).called("interposer wafers")
        needs.append(interposers)
    hours = (technology["test_time"] * number(chip_count, "chip") / technology["package_yield"]).to("h")
    needs.append(hours.called("tester hours"))

    node = chip.process_node
    leads = {
        "wafer": technology[f"lead_time.wafer.{node}"],
        "package": technology["lead_time.interposer" if die.has_hbm else "lead_time.organic"],
        "test": technology["lead_time.test"],
    }
    wafer_lead = leads["wafer"].to("month").value
    lead = sum(each.to("month").value for each in leads.values())
    caps = []
    for allotted, needed, name in (
        (wafers_per_month, wafers, "wafers"),
        (interposers_per_month, interposers, "interposers"),
    ):
        if allotted is None:
            continue
        if not allotted > 0:
            raise SiliconError(f"{allotted:g} {name} a month is not positive")
        if needed is not None:
            caps.append(allotted / needed.value)
    starts = _starts(3 * quarter_count, min(caps, default=None))
    if start is None:
        assert by is not None
        start = by.after(-(3 * math.ceil((len(starts) - 1 + lead) / 3)))

    finished = _later(starts, wafer_lead)
    delivered = _later(starts, lead)
    chips = number(chip_count, "chip")
    factor = chips / good_share / number(1, "chip")
    logic, *after = made.cost.parts
    memory, at_the_end = (after[0], after[1:]) if die.has_dram else (after[0] * 0, after)
    margin = made.price.parts[1]
    cash = []
    for quarter in range(math.ceil(len(delivered) / 3)):
        out, done = _share(finished, quarter), _share(delivered, quarter)
        parts = [
            (logic * factor * out).called("wafers"),
            (memory * factor * out).called("memory"),
            (total("", at_the_end) * factor * done).called("packages and test"),
            (margin * number(chip_count) * done).called("partner's margin"),
        ]
        cash.append(total("cash", [part.to("MUSD") for part in parts]))
    so_far, quarters = 0.0, []
    for index, each in enumerate(cash):
        now = chip_count * _share(delivered, index)
        so_far += now
        quarters.append(
            QuarterPlan(
                quarter=start.after(3 * index),
                wafers_started=wafers * _share(starts, index),
                delivered=now,
                delivered_so_far=so_far,
                cash=each,
            )
        )
    busiest = max(starts)
    scarce, unknown = [], []
    for name, needed, figure in (
        (f"{node} wafers", wafers, f"world.wafer.{node}"),
        ("interposer wafers", interposers, "world.interposer"),
        ("HBM", gigabytes if die.has_hbm else None, "world.hbm"),
    ):
        if needed is None:
            continue
        if figure not in technology.figures:
            unknown.append(f"{name}: no [{figure}] in the technology file")
            continue
        a_month = needed * busiest / number(1, "month")
        scarce.append(
            Scarce(
                what=name,
                needed=a_month.to(str(technology[figure].unit)),
                world=technology[figure],
                share=(a_month / technology[figure]).called(f"share of the world's {name}"),
            )
        )
    least = sum(each.to("month").low for each in leads.values())
    most = sum(each.to("month").high for each in leads.values())
    return Production(
        chip=chip.name,
        chip_count=chip_count,
        start=start,
        needs=tuple(needs),
        development=technology[f"development_cost.{node}"].to("MUSD").called("development"),
        cost=total("cash of production", [each.cash for each in quarters]),
        quarters=tuple(quarters),
        scarce=tuple(sorted(scarce, key=lambda each: -each.share.value)),
        unknown=tuple(unknown),
        first=start.after(math.floor(lead)),
        earliest=start.after(math.floor(least)),
        latest=start.after(math.floor(most)),
        last=start.after(len(delivered) - 1),
    )


def _starts(month_count: int, cap: float | None) -> list[float]:
    """Share of all chips started in each month: rising over RAMP_MONTHS, then level, no month above `cap`."""
    weights = [min((month + 1) / RAMP_MONTHS, 1.0) for month in range(month_count)]
    level = 1 / sum(weights)
    if cap is None or level * max(weights) <= cap:
        return [weight * level for weight in weights]
    shares: list[float] = []
    while sum(shares) < 1 - 1e-12:
        if len(shares) == LONGEST_MONTHS:
            raise SiliconError(
                f"what is allotted a month makes {sum(shares):.0%} of the chips in {LONGEST_MONTHS // 12} years; "
                "ask for fewer chips or a larger allotment"
            )
        ramped = min((len(shares) + 1) / RAMP_MONTHS, 1.0)
        shares.append(min(cap * ramped, 1 - sum(shares)))
    return shares


def _later(shares: list[float], months: float) -> list[float]:
    """The same, so many months later; a part of a month is split between two."""
    whole, part = math.floor(months), months % 1
    moved = [0.0] * (whole + len(shares) + (1 if part else 0))
    for month, share in enumerate(shares):
        moved[whole + month] += share * (1 - part)
        if part:
            moved[whole + month + 1] += share * part
    return moved


def _share(months: list[float], quarter: int) -> float:
    return sum(months[3 * quarter : 3 * quarter + 3])
