"""`tapeout cosim`: a script's kernels on the evaluator, both simulators and the RTL."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.rtl import CutDownOption, described
from tapeout.cli.run import ArgumentsArgument, ModuleOption, ScriptArgument
from tapeout.report.page import Format, write


def cosim(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[str, typer.Option(help="A reference chip or a chip file.")] = "tiny",
    waveform: Annotated[
        Path | None, typer.Option(help="Write the RTL's signals to this file (FST) if it differs.")
    ] = None,
    cut: CutDownOption = False,
    module: ModuleOption = False,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Compare a script's kernels on the reference evaluator, both simulators and the RTL.

    Stops at the first kernel that differs, with exit status 1.
    """
    from tapeout.report import cosimulation as report
    from tapeout.workbench.cosimulation import compare_launches
    from tapeout.workbench.script import Script

    core = described(chip, cut)
    comparisons = compare_launches(Script(script, tuple(arguments or ()), is_module=module), core, waveform=waveform)
    write(report.page(core.name if cut else chip, comparisons), form, output)
    if not all(each.agrees for each in comparisons):
        raise typer.Exit(1)
