"""`tapeout annotate`: the cost of each source line of a script's kernels on a chip."""

from typing import Annotated

import typer

from tapeout.cli.run import ArgumentsArgument, ModuleOption, ReadZerosOption, ScriptArgument, TimingOnlyOption
from tapeout.report.terminal import console as console_of


def annotate(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[str | None, typer.Option(metavar="NAME", help="A reference chip or a chip file.")] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show only kernels whose name contains this text.")
    ] = None,
    lines_only: Annotated[
        bool, typer.Option("--lines-only", help="Show source lines only, without instructions.")
    ] = False,
    timing_only: TimingOnlyOption = False,
    read_zeros: ReadZerosOption = False,
    module: ModuleOption = False,
) -> None:
    """Run a script on a chip; show its kernels' source lines with instructions, cycles and stalls."""
    from tapeout import chip as chips
    from tapeout.workbench import script as scripts

    recorded = scripts.record(
        scripts.Script(script, tuple(arguments or ()), timing_only, read_zeros, module), chip or chips.named()
    )
    from tapeout.errors import TapeoutError
    from tapeout.report import annotation as report
    from tapeout.workbench.annotation import annotate as annotations_of

    chosen = [found for found in annotations_of(recorded.activities) if kernel is None or kernel in found.kernel]
    if not chosen:
        name = f" whose name contains {kernel!r}" if kernel else ""
        raise TapeoutError(f"{script} launched no kernel{name} on the chip")
    console = console_of()
    for annotation in chosen:
        for line in report.render(annotation, instructions=not lines_only):
            console.print(line, soft_wrap=True, highlight=False)
        console.print()
    if recorded.time.status:
        raise typer.Exit(recorded.time.status)
