"""`tapeout chips`: the chips there are, or one of them in full."""

from typing import Annotated

import typer
from rich.console import Console


def chips(
    chip: Annotated[str | None, typer.Argument(help="A chip's name or file; without it, a list.")] = None,
) -> None:
    """List the reference chips, or show every field of one chip."""
    from tapeout.chip import REFERENCE_CHIPS, load
    from tapeout.report import chips as report

    Console().print(report.sheet(load(chip)) if chip else report.overview(REFERENCE_CHIPS.values()))
