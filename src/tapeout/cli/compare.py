"""`tapeout compare`: chips side by side."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def compare(
    chips: Annotated[
        list[str], typer.Argument(help="Chips to compare: reference chips, chip files or chips of the catalog.")
    ],
    volume: Annotated[int, typer.Option(min=1, help="Production volume, for the price of described chips.")] = 100_000,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    technology: Annotated[Path | None, typer.Option(help="File with additional technology figures.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Compare chips: raw figures, per watt, per dollar and per mm², and the rates that workloads reach."""
    from tapeout.models import achieved
    from tapeout.report import comparison as report
    from tapeout.silicon import comparison
    from tapeout.silicon import technology as figures
    from tapeout.silicon.naming import accelerator

    known = figures.load(technology)
    rows = [accelerator(name, known, volume=volume, own_catalog=catalog) for name in chips]
    write(report.page(rows, [*comparison.compare(rows), *achieved.lines(rows)]), form, output)
