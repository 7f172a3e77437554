"""`tapeout run`: a script on one chip or several, with the time it would take there."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.terminal import console as console_of
from tapeout.errors import TapeoutError

SCRIPT_OPTIONS = {"ignore_unknown_options": True}
"""Options that are not tapeout's are the script's; after `--` all are."""

ScriptArgument = Annotated[Path, typer.Argument(help="The Python script.", metavar="SCRIPT")]
ArgumentsArgument = Annotated[list[str] | None, typer.Argument(help="The script's own arguments.", metavar="ARGS")]
TimingOnlyOption = Annotated[bool, typer.Option("--timing-only", help="Compute nothing: only take the time.")]
ReadZerosOption = Annotated[
    bool, typer.Option("--read-zeros", help="With --timing-only: values read on the host are zero, not an error.")
]


def run(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME...]", help="Reference chips or chip files, separated by commas.")
    ] = None,
    timing_only: TimingOnlyOption = False,
    read_zeros: ReadZerosOption = False,
    sanitize: Annotated[
        bool, typer.Option("--sanitize", help="Check every access of every kernel; stop at the first mistake.")
    ] = False,
    result: Annotated[Path | None, typer.Option(help="Write the times to this file too, as JSON.")] = None,
) -> None:
    """Run a script on a chip and print the time the chip would have taken."""
    from tapeout import chip as chips
    from tapeout.report import run_time as report
    from tapeout.workbench import script as scripts

    if sanitize:
        from tapeout.runtime import sanitizer

        if timing_only:
            raise TapeoutError("--sanitize checks what kernels do; with --timing-only they do nothing: choose one")
        sanitizer.enable()
    names = chip.split(",") if chip else [chips.named()]
    asked = scripts.Script(script, tuple(arguments or ()), timing_only, read_zeros)
    console = console_of(stderr=True)
    if len(names) > 1:
        times = scripts.run_on_each(asked, names)
        console.print(report.side_by_side(times))
        if result:
            result.write_text("[" + ",\n".join(time.to_json() for time in times) + "]\n", "utf-8")
        return
    time = scripts.run(asked, names[0])
    console.print(report.summary(time), soft_wrap=True, highlight=False)
    if result:
        result.write_text(time.to_json(), "utf-8")
    if time.status:
        raise typer.Exit(time.status)
