"""`tapeout profile`: the time of a script on a chip, by kernel and operator."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.run import ArgumentsArgument, ModuleOption, ReadZerosOption, ScriptArgument, TimingOnlyOption
from tapeout.cli.terminal import make_folder
from tapeout.report.terminal import console as console_of


def profile(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[str | None, typer.Option(metavar="NAME", help="A reference chip or a chip file.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the run to this folder, for `tapeout studio` and Perfetto."),
    ] = None,
    all_cores: Annotated[bool, typer.Option("--all-cores", help="Show all cores in the trace instead of one.")] = False,
    timing_only: TimingOnlyOption = False,
    read_zeros: ReadZerosOption = False,
    module: ModuleOption = False,
) -> None:
    """Run a script on a chip and show where the time went; the trace opens in https://ui.perfetto.dev."""
    from tapeout import chip as chips
    from tapeout.workbench import script as scripts

    asked = scripts.Script(script, tuple(arguments or ()), timing_only, read_zeros, module)
    if output:
        make_folder(output)
    recorded = scripts.record(asked, chip or chips.named())
    from tapeout.report import profile as report
    from tapeout.report.page import to_terminal
    from tapeout.workbench import profiling

    chip_used = chips.active()
    result = profiling.profile(recorded.time, chip_used, recorded.activities)
    console = console_of(stderr=True)
    console.print(to_terminal(report.page(result, chip_used)), highlight=False)
    if output:
        from tapeout.report import run_folder

        console.print(run_folder.write(output, asked, chip_used, recorded, all_cores=all_cores), highlight=False)
    if recorded.time.status:
        raise typer.Exit(recorded.time.status)
