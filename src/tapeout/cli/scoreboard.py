"""`tapeout scoreboard`: what of a suite of other people's programs runs on the chip."""

import enum
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeRemainingColumn


class Suite(enum.StrEnum):
    operators = "operators"
    architectures = "architectures"


class Mode(enum.StrEnum):
    eager = "eager"
    compiled = "compiled"


def scoreboard(
    suite: Annotated[Suite, typer.Argument(help="PyTorch's operator database, or model architectures.")],
    mode: Annotated[list[Mode], typer.Option(help="Operator by operator, through torch.compile, or both.")] = [*Mode],  # noqa: B006
    only: Annotated[str, typer.Option(help="Cases whose name holds this regular expression.")] = "",
    every: Annotated[int, typer.Option(min=1, help="One case in so many, evenly spread.")] = 1,
    samples: Annotated[int, typer.Option(min=1, help="Samples of a case, at most.")] = 2,
    time_limit_s: Annotated[float, typer.Option(help="After this a case counts as broken.")] = 300,
    outcomes: Annotated[
        Path | None, typer.Option(help="Where outcomes are kept; cases in it are not run again.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write the table to this Markdown file.")] = None,
) -> None:
    """Judge every case of a suite against the CPU. Ends with 1 if a result is wrong or a case broke."""
    import importlib

    from tapeout.report import scoreboard as report
    from tapeout.scoreboard import runner, verdicts

    cases = importlib.import_module(f"tapeout.scoreboard.{suite.value}").cases(tuple(m.value for m in mode))
    cases = [case for case in cases if re.search(only, case.name)][::every]
    file = outcomes or Path(f"build/scoreboard-{suite.value}.jsonl")
    console = Console()
    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(f"{len(cases)} cases", total=len(cases))

        def show(outcome: verdicts.Outcome) -> None:
            bar.advance(task)
            if outcome.verdict in verdicts.FAULTS:
                bar.console.print(f"[red]{outcome.verdict}[/] {outcome.case}: ", end="")
                bar.console.print(outcome.cause, markup=False)

        bar.advance(task, sum(case in verdicts.read(file) for case in cases))
        found = runner.run(suite.value, cases, file, sample_limit=samples, time_limit_s=time_limit_s, on_outcome=show)
    console.print(report.summary(found.values()))
    if page:
        page.write_text(report.page(suite.value, found.values()), "utf-8")
    if any(outcome.verdict in verdicts.FAULTS for outcome in found.values()):
        raise typer.Exit(1)
