"""A plan of production as a page."""

from tapeout.figures import Estimate
from tapeout.report.datasheet import FIGURE_COLUMNS, figure_row
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table
from tapeout.report.units import Shown, figure_cell, significant
from tapeout.silicon.production import Production, Quarter


def page(plan: Production, *, asked_by: Quarter | None) -> Page:
    """The plan; with `asked_by`, the number of chips that there are by the end of that quarter."""
    blocks: list[Block] = [
        Paragraph(_verdict(plan, asked_by)),
        Paragraph(
            "Wafers are paid when finished, memory when packaged, the rest on delivery; development comes before the "
            "first wafer. Ranges are the middle 90 % of samples of all inputs; dates use nominal lead times."
        ),
        Heading("What it takes"),
        Table(FIGURE_COLUMNS, [figure_row(each) for each in plan.needs], right=(1, 2)),
        Heading("Quarter by quarter"),
        Table(
            ("quarter", "wafers started", "chips", "chips so far", "cash, MUSD", "range"),
            [
                (
                    str(each.quarter),
                    figure_cell(each.wafers_started, f"{each.wafers_started.value:,.0f}"),
                    Shown(f"{each.delivered:,.0f}", value=each.delivered),
                    Shown(f"{each.delivered_so_far:,.0f}", value=each.delivered_so_far),
                    figure_cell(each.cash, significant(each.cash.value)),
                    _range(each.cash),
                )
                for each in plan.quarters
            ],
            right=(1, 2, 3, 4, 5),
        ),
        Bars(
            "cash by quarter, MUSD",
            [Bar(str(each.quarter), each.cash.value, significant(each.cash.value)) for each in plan.quarters],
        ),
        Table(FIGURE_COLUMNS, [figure_row(plan.development), figure_row(plan.cost)], right=(1, 2)),
        Heading("What is scarce"),
        Table(
            ("", "busiest month", "the world makes", "share", "range"),
            [
                (
                    each.what,
                    figure_cell(each.needed),
                    figure_cell(each.world),
                    figure_cell(each.share, f"{each.share.value:.2%}"),
                    " to ".join(f"{end:.2%}" for end in each.share.interval()),
                )
                for each in plan.scarce
            ],
            right=(1, 2, 3, 4),
        ),
        *(Paragraph(f"{'; '.join(plan.unknown)}.") for _ in plan.unknown[:1]),
        Paragraph(" ".join(f"{each.what}: {each.world.source}." for each in plan.scarce)),
    ]
    return Page(f"Production of {plan.chip_count:,} {plan.chip}", blocks, kind="production")


def _verdict(plan: Production, asked_by: Quarter | None) -> str:
    sentences = [
        f"With the first wafers in {plan.start}, the first chips come in {plan.first} "
        f"({plan.earliest} to {plan.latest}) and the last in {plan.last}."
    ]
    if asked_by is not None:
        there = plan.delivered_by(asked_by)
        sentences.append(f"By the end of {asked_by} there are {there:,.0f} of {plan.chip_count:,}.")
    if plan.scarce:
        worst = plan.scarce[0]
        sentences.append(f"Scarcest: {worst.what}, {worst.share.value:.2%} of the world's output in the busiest month.")
    return " ".join(sentences)


def _range(figure: Estimate) -> str:
    low, high = figure.interval()
    return f"{significant(low)} to {significant(high)}" if low < high else ""
