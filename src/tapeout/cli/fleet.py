"""`tapeout fleet`: which work goes on which cards, at least cost."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


class Scheduler(enum.StrEnum):
    kueue = "kueue"
    volcano = "volcano"
    ray = "ray"


def fleet(
    description: Annotated[Path, typer.Argument(metavar="FLEET.TOML", help="File of sites, kinds and workloads.")],
    gap: Annotated[
        float, typer.Option(min=0, max=1, help="Stop when the cost is this near to the bound (0.005: half a percent).")
    ] = 0.005,
    time_limit: Annotated[float, typer.Option(min=1, help="Stop searching after about this many seconds.")] = 8.0,
    emit: Annotated[
        Scheduler | None, typer.Option(help="Write manifests for this scheduler instead of the tables (YAML).")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the output to this file.")] = None,
) -> None:
    """Assign training, serving and ranking to kinds of cards at least cost, with slack, power and the bound."""
    from tapeout import fleet as fleets
    from tapeout.fleet import manifests
    from tapeout.report import fleet as report

    found = fleets.plan(fleets.load(description), gap=gap, limit_s=time_limit)
    if emit is None:
        write(report.page(found), form, output)
        return
    text = manifests.to_yaml(manifests.WRITERS[emit.value](found))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
