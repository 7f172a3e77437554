"""`tapeout export-check`: US export rules applied to a chip, on a date."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def export_check(
    chip: Annotated[str, typer.Argument(help="A reference chip, a chip file or a chip of the catalog.")],
    on: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Date whose rules apply (default: today)."),
    ] = None,
    approved_designer: Annotated[
        bool | None,
        typer.Option(
            "--approved-designer/--no-approved-designer", help="State whether the designer is approved or authorized."
        ),
    ] = None,
    packaged_outside: Annotated[
        bool | None,
        typer.Option(
            "--packaged-outside/--packaged-inside",
            help="State whether the foundry packages it outside Macau and group D:5, or an approved packager does.",
        ),
    ] = None,
    sold_in_us: Annotated[
        bool | None,
        typer.Option(
            "--sold-in-us/--not-sold-in-us",
            help="State whether the chip is commercially available in the United States.",
        ),
    ] = None,
    from_us: Annotated[
        bool | None,
        typer.Option("--from-us/--not-from-us", help="State whether the chip is exported from the United States."),
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    technology: Annotated[Path | None, typer.Option(help="File with additional technology figures.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show which clause decides a chip's export status, the distance to each threshold, and what would change it."""
    from tapeout.report import export_control as report
    from tapeout.silicon import export_control
    from tapeout.silicon import technology as figures
    from tapeout.silicon.naming import accelerator

    found = accelerator(chip, figures.load(technology), own_catalog=catalog)
    stated = {
        "approved_designer": approved_designer,
        "packaged_outside": packaged_outside,
        "sold_in_us": sold_in_us,
        "us_export": from_us,
    }
    ruling = export_control.check(
        found,
        on.date() if on else datetime.date.today(),
        {name: state for name, state in stated.items() if state is not None},
    )
    write(report.page(ruling), form, output)
