"""`tapeout compare`: chips side by side."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def compare(
    chips: Annotated[list[str], typer.Argument(help="Reference chips, chip files or chips of the catalog.")],
    volume: Annotated[int, typer.Option(min=1, help="Chips made, for the price of described chips.")] = 100_000,
    catalog: Annotated[Path | None, typer.Option(help="A table of further chips.")] = None,
    technology: Annotated[Path | None, typer.Option(help="A file of further technology figures.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
) -> None:
    """Put chips side by side: raw figures, per watt, per dollar and per mm², and the rates that workloads reach."""
    from tapeout.models import achieved
    from tapeout.report import comparison as report
    from tapeout.silicon import comparison
    from tapeout.silicon import technology as figures
    from tapeout.silicon.naming import accelerator

    known = figures.load(technology)
    rows = [accelerator(name, known, volume=volume, own_catalog=catalog) for name in chips]
    write(report.page(rows, [*comparison.compare(rows), *achieved.lines(rows)]), form, output)
