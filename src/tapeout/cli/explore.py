"""`tapeout explore`: the chip that does given workloads best under constraints."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.terminal import make_folder
from tapeout.errors import TapeoutError
from tapeout.report.page import Format, write


def explore(
    space: Annotated[Path, typer.Argument(help="Space file (TOML): fields that vary, constraints, workloads.")],
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            help="A workload of the space file, a model's name, dlrm, dcn-v2 or a script. Repeatable.",
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="Longest time of the search: 30m, 4h.")] = "4h",
    candidates: Annotated[int, typer.Option(min=1, help="Candidates to judge.")] = 1000,
    fit: Annotated[int, typer.Option(min=4, help="Chips simulated to fit the operators' forms.")] = 16,
    check: Annotated[int, typer.Option(min=0, help="Candidates checked by the cycle simulator.")] = 16,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Rounds of the search; each fits the forms to the candidates checked before, too."),
    ] = 2,
    prices: Annotated[
        bool, typer.Option("--prices", help="Also search without each clause in turn: what it costs.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Simulations side by side.")] = 1,
    folder: Annotated[Path, typer.Option(help="Folder that keeps the search; named again, it goes on.")] = Path(
        "exploration"
    ),
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Search for the chip that does given workloads best under constraints, and check the best by the simulator."""
    from tapeout.exploration import search, workloads
    from tapeout.exploration.space import read
    from tapeout.report import exploration as report
    from tapeout.report.progress import progress

    asked = read(space)
    limits = search.Limits(candidates, _seconds(budget), fit, check, seed, jobs, rounds, prices)
    wanted = workloads.chosen(asked, workload or ())
    make_folder(folder)
    with progress() as tell:
        found = search.explore(asked, wanted, folder, limits, tell)
    write(report.page(found, rows=None), Format.html, folder / "exploration.html")
    rows = report.ROWS if form is Format.text else None
    write(report.page(found, rows=rows), form, output)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|d)", text.strip())
    if not match:
        raise TapeoutError(f"--budget {text!r} is not a time; 90s, 30m and 4h are")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
