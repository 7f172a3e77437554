"""`tapeout scoreboard`: the share of a suite of third-party programs that runs on the chip."""

import enum
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TimeRemainingColumn

from tapeout.report.terminal import console as console_of
from tapeout.workbench.scoreboard.verdicts import Verdict


class Suite(enum.StrEnum):
    operators = "operators"
    architectures = "architectures"
    kernels = "kernels"
    scripts = "scripts"
    modules = "modules"
    numbers = "numbers"
    libraries = "libraries"


class Mode(enum.StrEnum):
    eager = "eager"
    compiled = "compiled"
    inference = "inference"
    strided = "strided"
    mutated = "mutated"


def scoreboard(
    suite: Annotated[
        Suite,
        typer.Argument(
            help="Suite: PyTorch's operators, modules or numbers; architectures; other packages' kernels; scripts; "
            "libraries."
        ),
    ],
    mode: Annotated[
        list[Mode],
        typer.Option(help="Modes to run; repeatable. Suites other than operators have eager and compiled only."),
    ] = [*Mode],  # noqa: B006
    dtype: Annotated[
        list[str] | None, typer.Option(help="Element types, such as float32 (default: all). Repeatable.")
    ] = None,
    only: Annotated[str, typer.Option(help="Run only cases whose name matches this regular expression.")] = "",
    every: Annotated[int, typer.Option(min=1, help="Run every N-th case.")] = 1,
    samples: Annotated[int, typer.Option(min=1, help="Maximum number of samples of a case.")] = 2,
    time_limit_s: Annotated[float, typer.Option(help="CPU time in seconds after which a case counts as broken.")] = 300,
    outcomes: Annotated[Path | None, typer.Option(help="File of outcomes; cases in it are not run again.")] = None,
    again: Annotated[
        list[Verdict] | None, typer.Option(help="Rerun recorded cases with this verdict. Repeatable.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Number of processes (default: one per core).")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the table to this Markdown file.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Exit with 1 if a case is worse than on this earlier page.")
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="Folder with the repositories of the suite scripts, each named owner+name.")
    ] = None,
) -> None:
    """Compare every case of a suite with the CPU. Exits with 1 if a result is wrong or a case breaks."""
    if suite is Suite.scripts:
        _judge_scripts(sources, only, time_limit_s, page)
        return
    if suite is Suite.libraries:
        _judge_libraries(only, time_limit_s, page)
        return
    import importlib

    from tapeout.report import scoreboard as report
    from tapeout.workbench.scoreboard import runner, verdicts

    modes = [*Mode] if suite is Suite.operators else [Mode.eager, Mode.compiled]
    whole = importlib.import_module(f"tapeout.workbench.scoreboard.{suite.value}").cases(tuple(m.value for m in modes))
    chosen = [case for case in whole if case.mode in mode and (not dtype or case.dtype in dtype)]
    cases = [case for case in chosen if re.search(only, case.name)][::every]
    file = outcomes or Path(f"build/scoreboard-{suite.value}.jsonl")
    repeated = list(again or ())
    before = report.recorded(against.read_text("utf-8")) if against else {}
    console = console_of()
    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(f"{len(cases)} cases", total=len(cases))
        bar.advance(task, len(cases) - len(runner.missing(cases, file, repeated)))

        def show(outcome: verdicts.Outcome) -> None:
            bar.advance(task)
            if outcome.verdict in verdicts.FAULTS:
                bar.console.print(f"[red]{outcome.verdict}[/] {outcome.case}: ", end="")
                bar.console.print(outcome.cause, markup=False)

        found = runner.run(
            suite.value,
            cases,
            file,
            sample_limit=samples,
            time_limit_s=time_limit_s,
            again=repeated,
            process_count=processes,
            on_outcome=show,
        )
    console.print(report.summary(found.values()))
    if page:
        rows, runs = verdicts.read(file).values(), verdicts.read_runs(file)
        page.write_text(report.page(suite.value, rows, len(whole), runs), "utf-8")
    worse = report.regressions(found.values(), before)
    for outcome in worse:
        console.print(f"[red]worse than on {against}[/]: {outcome.case} is {outcome.verdict}: ", end="")
        console.print(outcome.cause, markup=False)
    if worse or any(outcome.verdict in verdicts.FAULTS for outcome in found.values()):
        raise typer.Exit(1)


def _judge_scripts(sources: Path | None, only: str, time_limit_s: float, page: Path | None) -> None:
    from tapeout.errors import TapeoutError
    from tapeout.report import scripts as report
    from tapeout.workbench.scoreboard import scripts, verdicts

    if sources is None:
        raise TapeoutError("the suite scripts needs --sources: a folder with the repositories, each named owner+name")
    console, results = console_of(), []
    for result in scripts.run(sources, only, time_limit_s):
        results.append(result)
        console.print(report.line(result), markup=False, highlight=False, soft_wrap=True)
        if page:
            page.write_text(report.page(results), "utf-8")
    if any(result.verdict in verdicts.FAULTS for result in results):
        raise typer.Exit(1)


def _judge_libraries(only: str, time_limit_s: float, page: Path | None) -> None:
    from tapeout.report import libraries as report
    from tapeout.workbench.scoreboard import libraries, verdicts

    console, results = console_of(), []
    for result in libraries.run(only, time_limit_s):
        results.append(result)
        console.print(report.line(result), markup=False, highlight=False, soft_wrap=True)
        if page:
            page.write_text(report.page(results), "utf-8")
    if any(result.verdict in verdicts.FAULTS for result in results):
        raise typer.Exit(1)
