"""`tapeout cost`: the cost of owning a chip."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write
from tapeout.silicon.places import Origin, Place


class Work(enum.StrEnum):
    token = "token"
    recommendation = "recommendation"
    sample = "sample"


def cost(
    chip: Annotated[str, typer.Argument(help="A reference chip, a chip file or a chip of the catalog.")],
    site: Annotated[Place, typer.Option(help="Site of the cluster, which sets the price of power.")] = Place.US,
    origin: Annotated[
        Origin, typer.Option(help="Origin of the chip relative to --site, for import tariffs.")
    ] = Origin.FOREIGN,
    chips: Annotated[int, typer.Option(min=1, help="Chips in the cluster, which sets the network's share.")] = 1024,
    price: Annotated[
        float | None, typer.Option(help="Price of one chip in USD, as offered (default: the model's or the catalog's).")
    ] = None,
    delivered: Annotated[
        int | None, typer.Option("--delivered-per-quarter", help="Chips that the supplier delivers in a quarter.")
    ] = None,
    volume: Annotated[int, typer.Option(min=1, help="Production volume of a described chip.")] = 100_000,
    throughput: Annotated[
        float | None, typer.Option(help="Items per second of one busy chip, measured or simulated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of --throughput: decode rate of this model, from the operator models.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a step (with --model).")] = 64,
    context: Annotated[int, typer.Option(min=1, help="Tokens already in each sequence (with --model).")] = 4096,
    tp: Annotated[int, typer.Option(min=1, help="Tensor-parallel chips (with --model).")] = 1,
    dtype: Annotated[str, typer.Option(help="Element type of the weights (with --model).")] = "bfloat16",
    run: Annotated[
        Path | None,
        typer.Option(help="Instead of --throughput: file written by `tapeout run --result` (with --items)."),
    ] = None,
    items: Annotated[
        float, typer.Option(help="Tokens, recommendations or samples that the simulated run produced (with --run).")
    ] = 0,
    work: Annotated[Work, typer.Option(help="Unit of work that the throughput counts.")] = Work.token,
    training_flop: Annotated[float | None, typer.Option(help="Price a training run of this many operations.")] = None,
    training_share: Annotated[
        float, typer.Option(help="Share of the bfloat16 peak that the training run reaches.")
    ] = 0.4,
    against: Annotated[str | None, typer.Option(help="Chip to buy instead: show the break-even volume.")] = None,
    by: Annotated[str, typer.Option(help="Catalog column used to normalise the two chips.")] = ("memory_gb_per_s"),
    study: Annotated[
        bool, typer.Option("--study", help='Show the study "four times an H100 at equal cost" for this chip.')
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    technology: Annotated[
        Path | None, typer.Option(help="File with additional figures of technology and economics.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show the owner's cost of a chip-hour and a unit of work, its sensitivities, and a break-even volume."""
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
    if price is not None:
        found = ownership.at_price(found, price)
    costs = ownership.ownership(found, stands, known)
    bill = ownership.fleet_bill(costs, known, delivered_a_quarter=delivered)
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
    write(report.page(costs, bill, priced, compared), form, output)
