"""`tapeout datasheet`: a described chip as silicon."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def datasheet(
    chip: Annotated[str, typer.Argument(help="A reference chip or a chip file.")],
    volume: Annotated[
        int, typer.Option(min=1, help="Production volume over which development cost is spread.")
    ] = 100_000,
    margin: Annotated[
        float | None, typer.Option(help="Design partner's gross margin, as a share of the price.")
    ] = None,
    technology: Annotated[Path | None, typer.Option(help="File with additional technology figures.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a limit is exceeded or a balance looks implausible.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Estimate area, transistors, power, yield, cost and price of a described chip, each with range and provenance."""
    from tapeout.chip import load
    from tapeout.report import datasheet as report
    from tapeout.silicon import datasheet as silicon
    from tapeout.silicon import technology as figures

    sheet = silicon.datasheet(load(chip), figures.load(technology), volume=volume, margin=margin)
    write(report.page(sheet), form, output)
    if strict and not sheet.is_sound:
        raise typer.Exit(1)
