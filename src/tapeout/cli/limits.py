"""`tapeout limits`: each operator of a script beside the least time that the chip allows for it."""

from typing import Annotated

import typer

from tapeout.cli.run import ArgumentsArgument, ModuleOption, ReadZerosOption, ScriptArgument, TimingOnlyOption
from tapeout.report.terminal import console as console_of


def limits(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[str | None, typer.Option(metavar="NAME", help="A reference chip or a chip file.")] = None,
    timing_only: TimingOnlyOption = False,
    read_zeros: ReadZerosOption = False,
    module: ModuleOption = False,
) -> None:
    """Run a script on a chip; show the share of each operator's limit (HBM, matrix or lanes) that it reaches."""
    from tapeout import chip as chips
    from tapeout.workbench import script as scripts

    asked = scripts.Script(script, tuple(arguments or ()), timing_only, read_zeros, module)
    scripts.import_torch()
    from tapeout.workbench import limits as found

    result = found.limits(asked, chip or chips.named())
    from tapeout.report import limits as report

    console = console_of(stderr=True)
    for part in report.render(result):
        console.print(part, highlight=False)
    if result.time.status:
        raise typer.Exit(result.time.status)
