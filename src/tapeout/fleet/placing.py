"""A fleet's plan: what runs where, what it costs and draws, what is left, what one more card is worth.

Takes a `Fleet`; gives a `FleetPlan`, the one object that reports and manifests read. Work that cannot be placed is
refused with what would do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tapeout.fleet import assign as solver
from tapeout.fleet.columns import Card, Column, Unfit, cards_of, columns, demand, limits, uses
from tapeout.fleet.cover import whole
from tapeout.fleet.description import Fleet, FleetError, Kind, Place, Workload


@dataclass(frozen=True)
class Placement:
    """`count` instances of a column, for a workload."""

    workload: Workload
    kind: Kind
    column: Column
    count: int

    @property
    def cards(self) -> int:
        return self.count * self.column.cards

    @property
    def usd_per_h(self) -> float:
        return self.count * self.column.usd_per_h


@dataclass(frozen=True)
class KindUse:
    """`worth_usd_per_h`: what one more card would save an hour; 0 while cards are left."""

    kind: Kind
    card: Card
    used: int
    worth_usd_per_h: float

    @property
    def slack(self) -> int:
        return self.kind.count - self.used


@dataclass(frozen=True)
class SiteUse:
    """`worth_usd_per_h`: what one more kilowatt would save an hour."""

    site: Place
    power_kw: float
    worth_usd_per_h: float


@dataclass(frozen=True)
class FleetPlan:
    fleet: Fleet
    placements: tuple[Placement, ...]
    kinds: tuple[KindUse, ...]
    sites: tuple[SiteUse, ...]
    usd_per_h: float
    bound_usd_per_h: float
    gap: float
    seconds: float
    column_count: int

    def of(self, workload: Workload) -> list[Placement]:
        return [each for each in self.placements if each.workload is workload]

    def headroom(self, workload: Workload) -> float:
        """What its instances carry beyond the demand, as a share of it."""
        return sum(each.count * each.column.carries for each in self.of(workload)) / demand(workload) - 1


def plan(fleet: Fleet, *, gap: float = 0.005, limit_s: float = 8.0) -> FleetPlan:
    """Place every workload at least cost. Raises FleetError that names what cannot be placed and what would do."""
    cards = cards_of(fleet)
    found, reasons = columns(fleet, cards)
    for number, workload in enumerate(fleet.workloads):
        if not any(column.workload == number for column in found):
            raise FleetError(_no_kind(workload, reasons[number]))
    items = [solver.Item(each.workload, each.carries, each.usd_per_h, uses(fleet, each)) for each in found]
    demands = [demand(workload) for workload in fleet.workloads]
    shared = limits(fleet)
    answer = solver.assign(items, demands, [limit for _, limit in shared], gap=gap, limit_s=limit_s)
    if answer.unplaced:
        raise FleetError(_no_room(fleet, found, items, answer))
    placements = tuple(
        Placement(fleet.workloads[column.workload], fleet.kinds[column.kind], column, count)
        for column, count in zip(found, answer.counts, strict=True)
        if count
    )
    price = dict(
        zip([(place >= len(fleet.kinds), name) for place, (name, _) in enumerate(shared)], answer.prices, strict=True)
    )
    kinds = tuple(
        KindUse(kind, card, sum(each.cards for each in placements if each.kind is kind), price[False, kind.name])
        for kind, card in zip(fleet.kinds, cards, strict=True)
    )
    sites = tuple(
        SiteUse(
            site,
            sum(use.used * use.card.power_kw for use in kinds if use.kind.site == site.name),
            price.get((True, site.name), 0.0),
        )
        for site in fleet.sites
    )
    return FleetPlan(fleet, placements, kinds, sites, answer.cost, answer.bound, answer.gap, answer.seconds, len(found))


def _no_kind(workload: Workload, reasons: Mapping[str, Unfit]) -> str:
    nearest = sorted(reasons.items(), key=lambda item: item[1].excess)
    said = "; ".join(f"{name} {unfit.text}" for name, unfit in nearest[:3])
    more = f"; {len(nearest) - 3} more kinds neither" if len(nearest) > 3 else ""
    name, unfit = nearest[0]
    remedy = f"{unfit.remedy} would let {name} carry it" if unfit.remedy else "add or allow another kind"
    return f"workload {workload.name!r} cannot be placed: {said}{more}; {remedy}"


def _no_room(fleet: Fleet, found: Sequence[Column], items: Sequence[solver.Item], answer: solver.Assignment) -> str:
    """Each workload left out takes the room that costs least beside what is placed; what is missing is added up."""
    shared = limits(fleet)
    free = [limit for _, limit in shared]
    for item, count in zip(items, answer.counts, strict=True):
        for limit, taken in item.uses.items():
            free[limit] -= count * taken
    for number in answer.unplaced:
        options = [place for place, column in enumerate(found) if column.workload == number]
        needed = {place: whole(demand(fleet.workloads[number]) / items[place].carries) for place in options}
        best = min(
            options,
            key=lambda place: (
                max(needed[place] * found[place].cards - max(free[found[place].kind], 0.0), 0.0)
                * found[place].usd_per_h
                / found[place].cards
            ),
        )
        for limit, taken in items[best].uses.items():
            free[limit] -= needed[best] * taken
    short = [
        (name, -left, place < len(fleet.kinds))
        for place, ((name, _), left) in enumerate(zip(shared, free, strict=True))
        if left < -1e-6
    ]
    would = " and ".join(
        f"{whole(amount):,} more {name}" if is_kind else f"{whole(amount):,} kW more at {name}"
        for name, amount, is_kind in short
    )
    names = [repr(fleet.workloads[number].name) for number in answer.unplaced]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    word = "workload" if len(names) == 1 else "workloads"
    return f"{word} {listed} cannot be placed beside the others: {would or 'a longer search'} would do"
