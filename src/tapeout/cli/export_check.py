"""`tapeout export-check`: US export rules applied to a chip, on a date."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def export_check(
    chip: Annotated[str, typer.Argument(help="A reference chip, a chip file, or a chip of the catalog.")],
    on: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Under the rules of this date; without it, today's."),
    ] = None,
    approved_designer: Annotated[
        bool | None,
        typer.Option("--approved-designer/--no-approved-designer", help="The designer is approved or authorized."),
    ] = None,
    packaged_outside: Annotated[
        bool | None,
        typer.Option(
            "--packaged-outside/--packaged-inside",
            help="Packaged outside Macau and D:5 by the foundry, or by an approved packager.",
        ),
    ] = None,
    sold_in_us: Annotated[
        bool | None,
        typer.Option("--sold-in-us/--not-sold-in-us", help="Commercially available in the United States."),
    ] = None,
    from_us: Annotated[
        bool | None, typer.Option("--from-us/--not-from-us", help="Exported from the United States.")
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="A table of further chips.")] = None,
    technology: Annotated[Path | None, typer.Option(help="A file of further technology figures.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
) -> None:
    """Say which clause decides a chip's export status, how far it is from each threshold, and what would move it."""
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
