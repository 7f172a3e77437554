"""`tapeout cost`: what owning a chip costs."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


class Site(enum.StrEnum):
    us = "us"
    china_west = "china-west"
    china_coast = "china-coast"


class Origin(enum.StrEnum):
    domestic = "domestic"
    foreign = "foreign"


class Work(enum.StrEnum):
    token = "token"
    recommendation = "recommendation"
    sample = "sample"


def cost(
    chip: Annotated[str, typer.Argument(help="A reference chip, a chip file, or a chip of the catalog.")],
    site: Annotated[Site, typer.Option(help="Where it stands: decides the price of power.")] = Site.us,
    origin: Annotated[Origin, typer.Option(help="Of the chip, as the site's tariff sees it.")] = Origin.foreign,
    chips: Annotated[int, typer.Option(min=1, help="Chips in the cluster: decides the network's share.")] = 1024,
    volume: Annotated[int, typer.Option(min=1, help="Chips made, for a described chip.")] = 100_000,
    throughput: Annotated[
        float | None, typer.Option(help="Of one chip while it works, a second: measured or simulated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead: tokens of this model's decode steps, by the operator models.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a step, with --model.")] = 64,
    context: Annotated[int, typer.Option(min=1, help="Tokens of each sequence so far, with --model.")] = 4096,
    tp: Annotated[int, typer.Option(min=1, help="Chips a layer is cut over, with --model.")] = 1,
    dtype: Annotated[str, typer.Option(help="Element type of the weights, with --model.")] = "bfloat16",
    run: Annotated[
        Path | None, typer.Option(help="Instead: the times that `tapeout run --result` wrote; with --items.")
    ] = None,
    items: Annotated[float, typer.Option(help="What the simulated run made: tokens, recommendations, samples.")] = 0,
    work: Annotated[Work, typer.Option(help="What the throughput counts.")] = Work.token,
    training_flop: Annotated[float | None, typer.Option(help="Operations of a training run, to price it.")] = None,
    training_share: Annotated[float, typer.Option(help="Share of bfloat16 peak the training run reaches.")] = 0.4,
    against: Annotated[str | None, typer.Option(help="A chip one could buy instead: break-even volume.")] = None,
    by: Annotated[str, typer.Option(help="The catalog's figure that counts one chip against the other.")] = (
        "memory_gb_per_s"
    ),
    study: Annotated[
        bool, typer.Option("--study", help='Put "four times an H100 at equal cost" to this chip.')
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="A table of further chips.")] = None,
    technology: Annotated[
        Path | None, typer.Option(help="A file of further figures of technology and economics.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
) -> None:
    """Owner's cost of a chip-hour and of a unit of work, what it turns on, and when a chip of one's own pays."""
    from tapeout.report import cost as report
    from tapeout.silicon import ownership
    from tapeout.silicon import study as studies
    from tapeout.silicon import technology as figures
    from tapeout.silicon.naming import accelerator

    known = figures.load(technology)
    stands = ownership.Site(place=site.value, origin=origin.value, chip_count=chips)
    found = accelerator(chip, known, volume=volume, own_catalog=catalog)
    if study:
        write(report.study_page(studies.four_times_h100(found, stands, known)), form, output)
        return
    costs = ownership.ownership(found, stands, known)
    priced = []
    if run is not None:
        from tapeout.workbench.script import RunTime

        throughput = RunTime.from_json(run.read_text("utf-8")).items_per_s(items, found.name)
    if model is not None:
        from tapeout.models import step

        asked = step.Step(model=step.model_called(model), batch=batch, context=context, tp=tp, weight_dtype=dtype)
        throughput = step.rate_of_chip(asked, found)
    if throughput is not None:
        priced.append(ownership.cost_of_work(costs, throughput, work.value))
    if training_flop is not None:
        priced.append(ownership.cost_of_training_on(costs, training_flop, training_share))
    compared = None
    if against is not None:
        other = accelerator(against, known, volume=volume, own_catalog=catalog)
        compared = ownership.against(found, other, stands, known, by=by)
    write(report.page(costs, priced, compared), form, output)
