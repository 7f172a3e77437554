"""`tapeout goodput`: how much of a training run's time is kept when cards fail."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def goodput(
    cards: Annotated[int, typer.Option(min=1, help="Cards of the job.")] = 16384,
    hours_between_failures: Annotated[
        float | None, typer.Option(min=0, help="Mean hours between failures of one card (default: Llama 3's 50,700).")
    ] = None,
    restart: Annotated[float, typer.Option(min=0, help="Seconds from a failure to the next useful step.")] = 600.0,
    checkpoint: Annotated[
        float | None, typer.Option(help="Seconds between checkpoints (default: the best interval).")
    ] = None,
    stall: Annotated[float, typer.Option(min=0, help="Seconds that a checkpoint holds training up.")] = 10.0,
    spares: Annotated[int | None, typer.Option(min=0, help="Spare nodes (default: always enough).")] = None,
    repair: Annotated[float, typer.Option(min=0, help="Hours until a failed node is back.")] = 24.0,
    spread: Annotated[float, typer.Option(min=0, help="Standard deviation of a card's speed, as a share.")] = 0.0,
    days: Annotated[float, typer.Option(min=0.01, help="Length of the drawn runs.")] = 54.0,
    runs: Annotated[int, typer.Option(min=1, help="Number of drawn runs.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the drawn runs.")] = 0,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Estimate the share of a run's time that is kept, with failures, checkpoints, spares and stragglers."""
    from tapeout.figures import Provenance, given
    from tapeout.report import training as report
    from tapeout.training import TrainingError
    from tapeout.training import goodput as model

    rate = model.default_failures()
    if hours_between_failures is not None:
        if hours_between_failures <= 0:
            raise TrainingError("hours between failures are more than 0")
        rate = given("failures of a card", 1 / hours_between_failures, "1/h", Provenance.ASSUMED, "given by the user")
    of = model.Reliability(
        cards=cards,
        failures_per_card_hour=rate,
        restart_s=restart,
        checkpoint_s=checkpoint,
        stall_s=stall,
        spares=spares,
        repair_s=repair * 3600,
        spread=spread,
    )
    found = model.monte_carlo(of, days=days, runs=runs, seed=seed)
    write(report.goodput_page(of, found, model.published(), days), form, output)
