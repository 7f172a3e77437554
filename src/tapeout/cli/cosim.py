"""`tapeout cosim`: a script's kernels on the evaluator, both simulators and the RTL."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.run import ArgumentsArgument, ModuleOption, ScriptArgument
from tapeout.report.page import Format, write


def cosim(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[str, typer.Option(help="A reference chip, or a chip file of your own.")] = "tiny",
    waveform: Annotated[
        Path | None, typer.Option(help="If the RTL differs, write its signals to this file (FST).")
    ] = None,
    module: ModuleOption = False,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
) -> None:
    """Run a script's kernels on the reference evaluator, the functional and the timing simulator and the RTL too.

    Stops comparing at the first kernel that differs; then the exit status is 1.
    """
    from tapeout.report import cosimulation as report
    from tapeout.workbench.cosimulation import compare_launches
    from tapeout.workbench.script import Script

    comparisons = compare_launches(Script(script, tuple(arguments or ()), is_module=module), chip, waveform=waveform)
    write(report.page(chip, comparisons), form, output)
    if not all(each.agrees for each in comparisons):
        raise typer.Exit(1)
