"""`tapeout replay`: published training runs, or a user's, beside what is predicted of them."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def replay(
    runs: Annotated[
        str | None,
        typer.Argument(help="A family of published runs, or a table of your own (CSV). Default: all families."),
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Show every row instead of errors by family.")] = False,
    fit: Annotated[
        Path | None,
        typer.Option(help="Fit the software eras to the table's rows and write the record to this file instead."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Predict the step times of training runs that were measured, and show the errors."""
    from tapeout.report import training_runs as report
    from tapeout.training import fitting
    from tapeout.training import runs as published
    from tapeout.training.problems import TrainingError

    is_table = runs is not None and Path(runs).suffix == ".csv"
    found = published.read(Path(runs)) if is_table and runs else published.bundled()
    families = sorted({run.family for run in found})
    if runs is not None and not is_table:
        found = tuple(run for run in found if run.family.startswith(runs))
        if not found:
            raise TrainingError(f"no family {runs!r} of published runs; there are {', '.join(families)}")
    if fit is not None:
        fit.write_text(fitting.fit(found), "utf-8")
        return
    replayed = [published.replay(run) for run in found]
    if is_table or rows or runs is not None:
        write(report.row_by_row(f"Training runs of {runs or 'all families'}", replayed), form, output)
    else:
        write(report.by_family(replayed), form, output)
