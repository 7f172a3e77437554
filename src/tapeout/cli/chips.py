"""`tapeout chips`: the list of chips, or all fields of one."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, Page, write


def chips(
    chip: Annotated[
        str | None, typer.Argument(help="A reference chip, a chip file or a chip of the catalog (default: list all).")
    ] = None,
    vendor: Annotated[str | None, typer.Option(help="List only chips of this vendor.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="List only chips that meet this condition: 'memory_gb>=96'. Repeatable.")
    ] = None,
    sort: Annotated[str, typer.Option(help="Sort the list by this catalog column, largest first.")] = "",
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """List the reference chips and the catalog of other vendors' chips, or show every field of one chip."""
    from tapeout.chip import REFERENCE_CHIPS, Chip
    from tapeout.chip import catalog as catalogued
    from tapeout.report import catalog as catalog_report
    from tapeout.report import chips as report
    from tapeout.silicon.naming import resolve

    if chip:
        found = resolve(chip, catalog)
        write(report.sheet(found) if isinstance(found, Chip) else catalog_report.sheet(found), form, output)
        return
    chosen = catalogued.select(catalogued.load(catalog), vendor=vendor, conditions=where or (), sort=sort)
    own = [] if vendor or where or sort else [*report.overview(REFERENCE_CHIPS.values()), *report.examples()]
    write(Page("Chips", [*own, *catalog_report.overview(chosen)], kind="chips"), form, output)
