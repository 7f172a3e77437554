"""Decide: what a chip costs to own against buying another, where that turns, and its export status by date."""

import datetime
from collections.abc import Sequence

import numpy as np

from tapeout.accelerator import Accelerator, MissingFigure
from tapeout.figures import Estimate
from tapeout.report.datasheet import FIGURE_COLUMNS, figure_row
from tapeout.report.page import Bar, Bars, Block, Curves, Heading, Page, Paragraph, Table
from tapeout.report.units import significant
from tapeout.silicon import export_control
from tapeout.silicon.ownership import BreakEven, Site, against, ownership
from tapeout.silicon.technology import SiliconError, Technology

PLACES = 60


def page(chip: Accelerator, other: Accelerator, by: str, technology: Technology) -> Page:
    """The decision for a described chip against one that can be bought, counted by one figure of the catalog."""
    blocks: list[Block] = [Paragraph(f"{chip.name} developed and made, against {other.name} bought.")]
    try:
        bought, result = against(chip, other, Site(), technology, by=by)
        own = ownership(chip, Site(), technology, with_development=False)
    except (SiliconError, MissingFigure) as missing:
        blocks.append(Paragraph(f"No break-even: {missing}."))
    else:
        blocks += _break_even(other.name, bought.per_hour, own.per_hour, result)
        widest = result.saving.sensitivities()[:10]
        blocks += [
            Heading("What it turns on"),
            Bars(
                "saved over the life for one of the other, USD, with each input over its range",
                [_bar(each.varied.name, each.at_low, each.at_high, result.saving) for each in widest],
            ),
            Table(
                ("input, one at a time", "its range", "saved, USD"),
                [
                    (
                        each.varied.name,
                        f"{significant(each.varied.low)} to {significant(each.varied.high)} {each.varied.unit}".strip(),
                        f"{significant(each.at_low)} to {significant(each.at_high)}",
                    )
                    for each in widest
                ],
                right=(1, 2),
            ),
        ]
    blocks += [Heading("Export status by date"), by_date((chip, other)), Paragraph(export_control.DISCLAIMER)]
    return Page(f"Decide: {chip.name} or {other.name}", blocks, kind="decide")


def _bar(name: str, at_low: float, at_high: float, middle: Estimate) -> Bar:
    """The span of one input. Bars begin at zero, so that a loss moves all of them up by as much."""
    low, high = min(at_low, at_high), max(at_low, at_high)
    shift = max(-low, 0.0)
    return Bar(name, high - low, f"{significant(low)} to {significant(high)}", low + shift)


def _break_even(name: str, theirs: Estimate, ours: Estimate, result: BreakEven) -> list[Block]:
    when = f"after {result.volume:,.0f} of {name}" if result.volume is not None else "never"
    development = result.development.to("USD").value
    most = 2 * result.volume if result.volume else 2 * development / max(theirs.to("USD/h").value * 8766, 1.0)
    volumes = np.linspace(0, most, PLACES)
    saved = np.asarray(result.saving.samples())
    spent = np.asarray(result.development.to("USD").samples())
    bands = np.percentile(saved[:, None] * volumes - spent[:, None], (5, 50, 95), axis=0) / 1e6
    curves = [
        (label, list(zip(volumes.tolist(), line.tolist(), strict=True)))
        for label, line in zip(("5 % of samples below", "median", "95 % below"), bands, strict=True)
    ]
    return [
        Paragraph(
            f"{significant(result.chips_each)} chips do the work of one {name}. Development has paid for itself "
            f"{when}. Something is saved in {result.chance:.0%} of samples."
        ),
        Curves("saved less development, by chips replaced", f"{name} replaced", "million USD", curves, steps=False),
        Table(
            FIGURE_COLUMNS,
            [
                figure_row(theirs.called(f"chip-hour of {name}")),
                figure_row(ours.called("own chip-hour, without development")),
                figure_row(result.saving),
                figure_row(result.development.called("development, paid once")),
            ],
            right=(1, 2),
        ),
    ]


def by_date(chips: Sequence[Accelerator]) -> Table:
    """What the rules say of each chip on every day that they changed, and today."""
    dates = {rule.effective for rule in export_control.rules()} | {datetime.date.today()}
    dates |= {rule.ended for rule in export_control.rules() if rule.ended is not None}
    rows = []
    for date in sorted(dates):
        cells = []
        for chip in chips:
            ruling = export_control.check(chip, date)
            deciding = ", ".join(finding.rule.id for finding in ruling.deciding)
            status = "not known" if ruling.eccn is None else ruling.eccn or "outside"
            cells.append(f"{status} ({deciding})" if deciding else status)
        rows.append((str(date), *cells))
    return Table(("from", *(chip.name for chip in chips)), rows)
