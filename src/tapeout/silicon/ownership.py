"""Cost of owning a chip: per hour, per unit of work, and against buying another.

    capital a year  = (chip + server + network) x annuity(life) + facility x all-in kW x annuity(facility life)
    cost an hour    = (capital + maintenance + power price x all-in kW x load x hours) / hours of a year
    all-in kW       = (fixed + slope x TDP) x PUE
    cost of work    = cost an hour / (throughput x utilisation x goodput)
    annuity(n)      = i / (1 - (1 + i)^-n)

Takes an `Accelerator` (described chips come with modelled power and price), gives `Estimate`s. Rent is a market price
and no part of it.
"""

from dataclasses import dataclass, replace

import numpy as np

from tapeout.accelerator import Accelerator
from tapeout.chip.catalog import COLUMNS
from tapeout.figures import Estimate, Provenance, computed, number, total
from tapeout.silicon.places import Origin, Place
from tapeout.silicon.technology import SiliconError, Technology

SITES, ORIGINS = tuple(Place), tuple(Origin)
NETWORK_SCALES = (512, 8192, 131072)
HOURS_PER_YEAR = 8766


@dataclass(frozen=True, kw_only=True)
class Site:
    """Place of the chips and their number. `origin` is the chip's, for the site's tariff of power."""

    place: str = "us"
    origin: str = "foreign"
    chip_count: int = 1024

    def __post_init__(self) -> None:
        if self.place not in SITES:
            raise SiliconError(f"unknown site {self.place!r}; known: {', '.join(SITES)}")
        if self.origin not in ORIGINS:
            raise SiliconError(f"unknown origin {self.origin!r}; known: {', '.join(ORIGINS)}")
        if self.chip_count < 1:
            raise SiliconError(f"a site of {self.chip_count} chips; the least is 1")


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """`per_hour` is a calendar hour of one chip; `per_useful_hour` one in which it does work that counts."""

    chip: Accelerator
    price: Estimate
    site: Site
    all_in: Estimate
    per_hour: Estimate
    per_useful_hour: Estimate
    goodput: Estimate


def ownership(chip: Accelerator, site: Site, technology: Technology, *, with_development: bool = True) -> Ownership:
    """Cost of one chip of a site. `with_development=False` leaves a described chip's development out of its price.

    Raises MissingFigure that names what nobody published of the chip.
    """
    price = chip.require("price_usd")
    if not with_development and chip.price_without_development is not None:
        price = chip.price_without_development
    tdp = chip.require("tdp_w")
    rate = technology["capital_cost"]
    life, facility_life = technology["life"].to("year"), technology["facility_life"].to("year")
    network = technology[f"network_share.{_network_scale(site.chip_count)}"]
    fixed, slope = technology["it_power_fixed"].to("kW"), technology["it_power_slope"]
    all_in = ((fixed + slope * tdp.to("kW")) * technology["pue"]).called("all-in power", provenance=Provenance.MODELLED)

    def hourly(name: str, amount: Estimate, years: Estimate) -> Estimate:
        annuity = computed("1/year", lambda i, n: i / (1 - (1 + i) ** -n), rate, years)
        return (amount * annuity).to("USD/h").called(name, provenance=Provenance.MODELLED)

    installed = price + technology["server_share"] + network
    power_price = technology[f"power_price.{site.place}{'' if site.place == 'us' else '.' + site.origin}"]
    parts = [
        hourly("chip", price, life),
        hourly("server", technology["server_share"], life),
        hourly("network", network, life),
        hourly("facility", technology["facility_capital"] * all_in, facility_life),
        (all_in * technology["load"] * power_price).to("USD/h").called("power"),
        (installed * technology["maintenance"] / number(1, "year")).to("USD/h").called("maintenance"),
    ]
    per_hour = total("cost of a chip-hour", parts)
    useful = per_hour / technology["utilisation"] / technology["goodput"]
    return Ownership(
        chip=chip,
        price=price,
        site=site,
        all_in=all_in,
        per_hour=per_hour,
        per_useful_hour=useful.called("cost of a useful chip-hour"),
        goodput=technology["goodput"],
    )


def at_price(chip: Accelerator, usd: float) -> Accelerator:
    """The chip at a price one was offered, which is exact."""
    if not usd >= 0:
        raise SiliconError(f"a price of {usd:g} USD is negative")
    return replace(chip, price=number(usd, "USD").called("price", source="offer"))


@dataclass(frozen=True, kw_only=True)
class FleetBill:
    """All chips of a site: what is paid once, what a year costs, and the power it takes.

    `quarters` is how long deliveries take, and `late` the chip-years that are lost meanwhile against all chips on the
    first day; both None where nothing was said of deliveries.
    """

    chips: Estimate
    servers: Estimate
    facility: Estimate
    capital: Estimate
    power: Estimate
    per_year: Estimate
    quarters: int | None
    late: Estimate | None


def fleet_bill(costs: Ownership, technology: Technology, *, delivered_a_quarter: int | None = None) -> FleetBill:
    """The bill of the whole site; `delivered_a_quarter` is how many chips its supplier can send."""
    count = costs.site.chip_count
    network = technology[f"network_share.{_network_scale(count)}"]
    chips = (costs.price * count).to("MUSD").called("chips")
    servers = ((technology["server_share"] + network) * count).to("MUSD").called("servers and network")
    facility = (technology["facility_capital"] * costs.all_in * count).to("MUSD").called("facility")
    quarters, late = None, None
    if delivered_a_quarter is not None:
        if delivered_a_quarter < 1:
            raise SiliconError(f"{delivered_a_quarter} chips delivered a quarter; the least is 1")
        quarters = -(-count // delivered_a_quarter)
        waits = sum(min(delivered_a_quarter, count - done * delivered_a_quarter) * done for done in range(quarters))
        late = number(waits / 4, "year").called("chip-years lost to deliveries")
    return FleetBill(
        chips=chips,
        servers=servers,
        facility=facility,
        capital=total("paid once", [chips, servers, facility]),
        power=(costs.all_in * count).to("MW").called("all-in power"),
        per_year=(costs.per_hour * number(HOURS_PER_YEAR, "h/year") * count).to("MUSD/year").called("cost a year"),
        quarters=quarters,
        late=late,
    )


def _network_scale(chip_count: int) -> int:
    return next((scale for scale in NETWORK_SCALES if chip_count <= scale), NETWORK_SCALES[-1])


WORK_UNITS = {"token": 1e6, "recommendation": 1e9, "sample": 1e6}
"""Units of work, and how many are priced together."""


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


def cost_of_training_on(costs: Ownership, flop: float, model_flops_utilisation: float) -> Estimate:
    """The same on the chip's bfloat16 peak."""
    peak = costs.chip.require("half_tflops").to("op/s").value
    return cost_of_training(costs, flop, peak, model_flops_utilisation)


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """Number of the other chip that must be replaced before development has paid for itself.

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
    """Development against what a site of own chips saves. `own` must not contain development in its price."""
    if not chips_each > 0:
        raise SiliconError(f"{chips_each:g} chips for one of {other.chip.name} is not positive")
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
    chip: Accelerator, other: Accelerator, site: Site, technology: Technology, *, by: str
) -> tuple[Ownership, BreakEven]:
    """Break-even of developing `chip` against buying `other`, counted by one figure of the catalog.

    Raises SiliconError unless `chip` is a description, whose development is known, and both have the figure.
    """
    if chip.design is None:
        raise SiliconError(f"{chip.name} is bought, not developed: break-even is for a described chip")
    if by not in COLUMNS or not COLUMNS[by].numeric:
        raise SiliconError(f"no figure {by!r} to count by; `memory_gb_per_s` is one, `tapeout chips` shows them")
    counted = []
    for each in (chip, other):
        figure = each.figure(by)
        if figure is None or not figure.value:
            raise SiliconError(f"{each.name} has no figure {by!r} to count it by; see `tapeout chips {each.name!r}`")
        counted.append(figure.value)
    # The other chip stands in the same place, where it is foreign.
    bought = ownership(other, replace(site, origin="foreign"), technology)
    own = ownership(chip, site, technology, with_development=False)
    development = technology[f"development_cost.{chip.design.process_node}"]
    result = break_even(own, bought, development, chips_each=counted[1] / counted[0], technology=technology)
    return bought, result
