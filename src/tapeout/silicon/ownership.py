"""What owning a chip costs: per hour, per unit of work, and against buying another.

    capital a year  = (chip + server + network) x annuity(life) + facility x all-in kW x annuity(facility life)
    cost an hour    = (capital + maintenance + power price x all-in kW x load x hours) / hours of a year
    all-in kW       = (fixed + slope x TDP) x PUE
    cost of work    = cost an hour / (throughput x utilisation x goodput)
    annuity(n)      = i / (1 - (1 + i)^-n)

Takes a chip as a row of the catalog (described chips come with modelled power and price), gives `Estimate`s. Rent is a
market price and no part of it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.chip.catalog import CataloguedChip
from tapeout.chip.description import Chip
from tapeout.estimate import Estimate, Provenance, computed, given, number, total
from tapeout.silicon.activity import at_tdp
from tapeout.silicon.area import die_area
from tapeout.silicon.comparison import DEFAULT_VOLUME, catalogued
from tapeout.silicon.die import of_chip
from tapeout.silicon.manufacturing import manufacture
from tapeout.silicon.power import power
from tapeout.silicon.technology import SiliconError, Technology

if TYPE_CHECKING:
    from tapeout.workbench.script import RunTime

SITES = ("us", "china-west", "china-coast")
ORIGINS = ("domestic", "foreign")
NETWORK_SCALES = (512, 8192, 131072)
HOURS_PER_YEAR = 8766


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A chip and what it takes to own one: price and TDP, which are catalogued or modelled."""

    name: str
    price: Estimate
    tdp: Estimate


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Where the chips stand and how many there are. `origin` is that of the chip as the site's tariff sees it."""

    site: str = "us"
    origin: str = "foreign"
    chip_count: int = 1024

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise SiliconError(f"unknown site {self.site!r}; known: {', '.join(SITES)}")
        if self.origin not in ORIGINS:
            raise SiliconError(f"unknown origin {self.origin!r}; known: {', '.join(ORIGINS)}")
        if self.chip_count < 1:
            raise SiliconError(f"a fleet of {self.chip_count} chips; the least is 1")


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """`per_hour` is a calendar hour of one chip; `per_useful_hour` one in which it does work that counts."""

    owned: Owned
    fleet: Fleet
    all_in: Estimate
    per_hour: Estimate
    per_useful_hour: Estimate
    goodput: Estimate


def owned(
    chip: Chip | CataloguedChip, technology: Technology, *, volume: int = DEFAULT_VOLUME, with_development: bool = True
) -> Owned:
    """A chip's price and TDP: modelled for a described chip made in `volume`, else catalogued.

    `with_development=False` leaves a described chip's development out of its price. Raises SiliconError that names
    what nobody published.
    """
    if isinstance(chip, Chip):
        die = of_chip(chip)
        area = die_area(die, technology)
        made = manufacture(die, area, technology, volume=volume)
        price = made.price if with_development else made.price - made.development_per_chip
        return Owned(name=chip.name, price=price, tdp=power(at_tdp(die), die, area, technology))

    def known(column: str, unit: str) -> Estimate:
        fact = chip.facts.get(column)
        if fact is None:
            raise SiliconError(f"{chip.name} has no {column} in the catalog; add it in a table of your own")
        provenance = {
            "datasheet": Provenance.PUBLISHED,
            "press": Provenance.PUBLISHED,
            "modelled": Provenance.MODELLED,
        }.get(fact.confidence, Provenance.ASSUMED)
        # A press price is one offer among many; a tenth either way is little enough to claim.
        spread = 0.1 if column == "price_usd" else 0.0
        value = float(fact.value)
        return given(
            f"{column} of {chip.name}",
            value,
            unit,
            provenance,
            fact.source,
            low=value * (1 - spread),
            high=value * (1 + spread),
        )

    return Owned(name=chip.name, price=known("price_usd", "USD"), tdp=known("tdp_w", "W"))


def ownership(chip: Owned, fleet: Fleet, technology: Technology) -> Ownership:
    """Cost of one chip of a fleet."""
    rate = technology["capital_cost"]
    life, facility_life = technology["life"].to("year"), technology["facility_life"].to("year")
    network = technology[f"network_share.{_network_scale(fleet.chip_count)}"]
    fixed, slope = technology["it_power_fixed"].to("kW"), technology["it_power_slope"]
    all_in = ((fixed + slope * chip.tdp.to("kW")) * technology["pue"]).called(
        "all-in power", provenance=Provenance.MODELLED
    )

    def hourly(name: str, amount: Estimate, years: Estimate) -> Estimate:
        annuity = computed("1/year", lambda i, n: i / (1 - (1 + i) ** -n), rate, years)
        return (amount * annuity).to("USD/h").called(name, provenance=Provenance.MODELLED)

    installed = chip.price + technology["server_share"] + network
    price = technology[f"power_price.{fleet.site}{'' if fleet.site == 'us' else '.' + fleet.origin}"]
    parts = [
        hourly("chip", chip.price, life),
        hourly("server", technology["server_share"], life),
        hourly("network", network, life),
        hourly("facility", technology["facility_capital"] * all_in, facility_life),
        (all_in * technology["load"] * price).to("USD/h").called("power"),
        (installed * technology["maintenance"] / number(1, "year")).to("USD/h").called("maintenance"),
    ]
    per_hour = total("cost of a chip-hour", parts)
    useful = per_hour / technology["utilisation"] / technology["goodput"]
    return Ownership(
        owned=chip,
        fleet=fleet,
        all_in=all_in,
        per_hour=per_hour,
        per_useful_hour=useful.called("cost of a useful chip-hour"),
        goodput=technology["goodput"],
    )


def _network_scale(chip_count: int) -> int:
    return next((scale for scale in NETWORK_SCALES if chip_count <= scale), NETWORK_SCALES[-1])


WORK_UNITS = {"token": 1e6, "recommendation": 1e9, "sample": 1e6}
"""What is counted, and how many are priced together."""


def cost_of_work(costs: Ownership, per_s: float, work: str) -> Estimate:
    """USD for a million tokens (a billion recommendations, ...) at a throughput of one chip while it works."""
    if work not in WORK_UNITS:
        raise SiliconError(f"unknown work {work!r}; known: {', '.join(WORK_UNITS)}")
    if not per_s > 0:
        raise SiliconError(f"a throughput of {per_s} {work}s a second is not positive")
    unit_count = WORK_UNITS[work]
    figure = costs.per_useful_hour / number(per_s * 3600 / unit_count, "1/h")
    many = {1e6: "million", 1e9: "billion"}[unit_count]
    return figure.called(f"cost of a {many} {work}s", bound=f"{per_s:g} {work}s/s a chip while it works")


def throughput_of_run(run: "RunTime", item_count: float, chip_name: str) -> float:
    """Items a second of a simulated run that made `item_count` of them. Raises SiliconError for a run on another chip
    and for one whose time is not whole, as its rate would be too high."""
    if run.chip != chip_name:
        raise SiliconError(f"the run was on the chip {run.chip}, not {chip_name}")
    if not run.is_whole:
        left_out = ", ".join([*run.host_operators, *run.untimed_kernels])
        raise SiliconError(f"the run's time leaves out {left_out}, so it has no throughput")
    if not (item_count > 0 and run.total_ps > 0):
        raise SiliconError(f"{item_count:g} items in {run.total_ps / 1e12:g} s are no throughput")
    return item_count / (run.total_ps / 1e12)


def cost_of_training(
    costs: Ownership, flop: float, peak_flops_per_s: float, model_flops_utilisation: float
) -> Estimate:
    """USD for a training run of `flop` operations at a share of peak. Work lost to stops is charged, idle hours before
    and after are not."""
    if not (flop > 0 and peak_flops_per_s > 0):
        raise SiliconError(f"a run of {flop:g} operations at {peak_flops_per_s:g}/s cannot be priced")
    if not 0 < model_flops_utilisation <= 1:
        raise SiliconError(f"utilisation {model_flops_utilisation:g} of peak is not between 0 and 1")
    hours = number(flop / (peak_flops_per_s * model_flops_utilisation) / 3600, "h")
    return (hours * costs.per_hour / costs.goodput).called(
        "cost of the training run", bound=f"{model_flops_utilisation:.0%} of {peak_flops_per_s / 1e12:,.0f} TFLOP/s"
    )


def cost_of_training_on(
    chip: Chip | CataloguedChip, costs: Ownership, flop: float, model_flops_utilisation: float
) -> Estimate:
    """The same on a chip's bfloat16 peak."""
    peak = chip.peak_flops_per_s("bfloat16") if isinstance(chip, Chip) else (chip.figure("half_tflops") or 0) * 1e12
    return cost_of_training(costs, flop, peak, model_flops_utilisation)


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """How many of the other chip must be replaced before development has paid for itself.

    `chips_each`: own chips for one of the other; `saving`: over the life, for one of the other, without development.
    `volume` is None when nothing is saved; `chance` is the share of samples in which something is.
    """

    chips_each: float
    saving: Estimate
    development: Estimate
    volume: float | None
    chance: float


def break_even(
    own: Ownership, other: Ownership, development: Estimate, *, chips_each: float, technology: Technology
) -> BreakEven:
    """Development against what a fleet of own chips saves. `own` must not contain development in its price."""
    if not chips_each > 0:
        raise SiliconError(f"{chips_each:g} chips for one of {other.owned.name} is not positive")
    hours = technology["life"].to("h")
    saving = ((other.per_hour - own.per_hour * chips_each) * hours).to("USD").called("saved over the life")
    sampled = np.asarray(saving.samples())
    volume = development.to("USD").value / saving.value if saving.value > 0 else None
    return BreakEven(
        chips_each=chips_each,
        saving=saving,
        development=development,
        volume=volume,
        chance=float(np.mean(sampled > 0)),
    )


def against(
    chip: Chip | CataloguedChip,
    other: Chip | CataloguedChip,
    fleet: Fleet,
    technology: Technology,
    *,
    by: str,
    volume: int = DEFAULT_VOLUME,
) -> tuple[Ownership, BreakEven]:
    """Break-even of developing `chip` against buying `other`, counted by one figure of the catalog.

    Raises SiliconError unless `chip` is a description, whose development is known, and both have the figure.
    """
    if not isinstance(chip, Chip):
        raise SiliconError(f"{chip.name} is bought, not developed: break-even is for a described chip")
    figures = {each.name: catalogued(each, technology, volume=volume).figure(by) for each in (chip, other)}
    for name, figure in figures.items():
        if not figure:
            raise SiliconError(f"{name} has no figure {by!r} to count it by; see `tapeout chips {name!r}`")
    chips_each = (figures[other.name] or 0) / (figures[chip.name] or 1)
    # The other chip stands in the same place, where it is foreign.
    abroad = Fleet(site=fleet.site, origin="foreign", chip_count=fleet.chip_count)
    bought = ownership(owned(other, technology, volume=volume), abroad, technology)
    own = ownership(owned(chip, technology, volume=volume, with_development=False), fleet, technology)
    development = technology[f"development_cost.{chip.process_node}"]
    return bought, break_even(own, bought, development, chips_each=chips_each, technology=technology)
