"""`tapeout study`: questions of those who decide what to build and buy."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write
from tapeout.silicon.places import Origin, Place


def study(
    name: Annotated[str, typer.Argument(help="drop-hbm, four-times, h20 or 4090-or-inference-card.")],
    site: Annotated[Place, typer.Option(help="Site of the chips, which sets the price of power.")] = Place.US,
    origin: Annotated[Origin, typer.Option(help="Origin of the chips relative to --site.")] = Origin.FOREIGN,
    chips: Annotated[int, typer.Option(min=1, help="Chips in the cluster, which sets the network's share.")] = 1024,
    technology: Annotated[
        Path | None, typer.Option(help="File with additional figures of technology and economics.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Answer a question by the operator models and the cost model: a verdict, a picture, and what would change it."""
    from tapeout.models import studies
    from tapeout.report import studies as report
    from tapeout.silicon import ownership
    from tapeout.silicon import technology as figures

    stands = ownership.Site(place=site.value, origin=origin.value, chip_count=chips)
    write(report.page(studies.study(name, figures.load(technology), stands)), form, output)
