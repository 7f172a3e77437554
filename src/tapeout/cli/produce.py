"""`tapeout produce`: what making a number of chips takes."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def produce(
    chip: Annotated[str, typer.Argument(help="A reference chip or a chip file.")],
    chips: Annotated[int, typer.Option(min=1, help="Good chips to deliver.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Quarter of the first wafers: 2026Q3 (default: this quarter).")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Quarter that is asked for. Without --from, the plan ends in it."),
    ] = None,
    quarters: Annotated[int, typer.Option(min=1, help="Quarters over which wafers are started.")] = 4,
    wafers_per_month: Annotated[
        float | None, typer.Option(help="Wafers a month that the foundry allots (default: as many as it takes).")
    ] = None,
    interposers_per_month: Annotated[
        float | None, typer.Option(help="Interposer wafers a month that are allotted (default: as many as it takes).")
    ] = None,
    technology: Annotated[
        Path | None, typer.Option(help="File with additional figures of technology, prices and supply.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Plan a described chip's production: wafers, dies, memory, packages, test, cash by quarter, and what is scarce."""
    from tapeout.chip import load
    from tapeout.report import production as report
    from tapeout.silicon import production
    from tapeout.silicon import technology as figures

    asked_by = production.Quarter.parse(by) if by else None
    first = production.Quarter.parse(start) if start else None
    if first is None and asked_by is None:
        today = datetime.date.today()
        first = production.Quarter(today.year, (today.month + 2) // 3)
    plan = production.produce(
        load(chip),
        chips,
        figures.load(technology),
        start=first,
        by=asked_by if first is None else None,
        quarter_count=quarters,
        wafers_per_month=wafers_per_month,
        interposers_per_month=interposers_per_month,
    )
    write(report.page(plan, asked_by=asked_by), form, output)
