"""A fleet's plan as a page: what runs where, what is left, what one more card is worth."""

from tapeout.fleet import FleetPlan
from tapeout.fleet.description import Rank, Serve, Workload
from tapeout.fleet.placing import Placement
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table
from tapeout.report.units import Shown, significant


def page(plan: FleetPlan) -> Page:
    cards = sum(use.used for use in plan.kinds)
    power = sum(site.power_kw for site in plan.sites)
    blocks: list[Block] = [
        Paragraph(
            f"{len(plan.fleet.workloads):,} workloads on {cards:,} cards cost {significant(plan.usd_per_h)} USD an "
            f"hour and draw {significant(power)} kW. No assignment of these instances costs less than "
            f"{significant(plan.bound_usd_per_h)} USD: the gap is {plan.gap:.2%}, found in {plan.seconds:.1f} s. "
            "Times are modelled by the operator models; costs that the file does not state are assumed."
        ),
        Heading("Work"),
        Table(
            ("workload", "demand", "kind", "instances", "cards", "each", "at that load", "headroom", "USD/h"),
            [_row(plan, each) for each in _ordered(plan)],
            right=(3, 4, 7, 8),
            caption="headroom: what the workload's instances carry beyond its demand",
        ),
        Heading("Cards"),
        Table(
            ("kind", "site", "cards", "in use", "left", "USD/h each", "kW each", "one more saves, USD/h"),
            [
                (
                    use.kind.name,
                    use.kind.site,
                    _count(use.kind.count),
                    _count(use.used),
                    _count(use.slack),
                    significant(use.card.usd_per_h),
                    significant(use.card.power_kw),
                    _worth(use.worth_usd_per_h),
                )
                for use in plan.kinds
            ],
            right=(2, 3, 4, 5, 6, 7),
            caption="what one more card saves is the price of the linear program; USD/h each includes power",
        ),
        Table(
            ("site", "draws, kW", "limit, kW", "tariff, USD/kWh", "one more kW saves, USD/h"),
            [
                (
                    each.site.name,
                    significant(each.power_kw),
                    "" if each.site.power_kw is None else significant(each.site.power_kw),
                    f"{each.site.usd_per_kwh:g}",
                    _worth(each.worth_usd_per_h),
                )
                for each in plan.sites
            ],
            right=(1, 2, 3, 4),
        ),
    ]
    for use in plan.kinds:
        placed = [each for each in _ordered(plan) if each.kind is use.kind]
        bars, start = [], 0.0
        for each in placed:
            bars.append(Bar(each.workload.name, each.cards, _count(each.cards), start))
            start += each.cards
        bars.append(Bar("left", use.slack, f"{use.slack:,}", start))
        blocks.append(Bars(f"{use.kind.name}: {use.kind.count:,} cards", bars))
    return Page("Fleet", blocks, kind="fleet")


def _ordered(plan: FleetPlan) -> list[Placement]:
    return [each for workload in plan.fleet.workloads for each in plan.of(workload)]


def _row(plan: FleetPlan, each: Placement) -> tuple[str, ...]:
    within = ", ".join(
        f"{name} {_time(name, needs)} of {_time(name, limit)}" for name, needs, limit in each.column.within
    )
    return (
        each.workload.name,
        _demand(each.workload),
        each.kind.name,
        _count(each.count),
        _count(each.cards),
        each.column.setting,
        within,
        Shown(f"{plan.headroom(each.workload):.0%}", value=plan.headroom(each.workload)),
        significant(each.usd_per_h),
    )


def _count(value: int) -> Shown:
    return Shown(f"{value:,}", value=value)


def _worth(value: float) -> Shown:
    return Shown(f"{value:.2f}" if value >= 0.005 else "", value=value)


def _time(name: str, value: float) -> str:
    return f"{value:.3g} {'days' if name == 'deadline' else 'ms'}"


def _demand(workload: Workload) -> str:
    if isinstance(workload, Serve):
        return f"{significant(workload.requests_per_s)} requests/s"
    if isinstance(workload, Rank):
        return f"{significant(workload.queries_per_s)} queries/s"
    return "one run"
