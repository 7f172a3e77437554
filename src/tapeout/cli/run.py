"""`tapeout run`: a script on one chip or several, with the time it would take there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapeout.cli.terminal import check_file_can_be_written, make_folder
from tapeout.errors import TapeoutError
from tapeout.report.terminal import console as console_of

if TYPE_CHECKING:
    from tapeout.workbench.timeline import Timeline

SCRIPT_OPTIONS = {"ignore_unknown_options": True}


class ScriptCommand(typer.core.TyperCommand):
    """A command that runs a program. Arguments after a module or a command like pytest belong to the program. So do
    those after a script file, except for tapeout's own options. All after -m, -h, --help or -- belong to the script."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._separated(args))

    def _separated(self, args: list[str]) -> list[str]:
        taking_values = {name for each in self.params if not getattr(each, "is_flag", False) for name in each.opts}
        place, is_module = 0, False
        while place < len(args) and args[place].startswith("-") and args[place] != "--":
            is_module = is_module or args[place] == "-m"
            place += 2 if args[place] in taking_values else 1
        if place >= len(args) or args[place] == "--":
            return args
        rest = args[place + 1 :]
        split = 0
        if not is_module and args[place].endswith(".py"):
            split = next((i for i, arg in enumerate(rest) if arg in ("-m", "-h", "--help", "--")), len(rest))
        if rest[split : split + 1] == ["--"]:
            return args
        return [*args[: place + 1], *rest[:split], "--", *rest[split:]]


ScriptArgument = Annotated[
    str, typer.Argument(help="A Python script, or a command like pytest or torchrun.", metavar="SCRIPT")
]
ModuleOption = Annotated[bool, typer.Option("-m", help="Run SCRIPT as a module, as `python -m` does.")]
ArgumentsArgument = Annotated[list[str] | None, typer.Argument(help="Arguments of the script.", metavar="ARGS")]
TimingOnlyOption = Annotated[bool, typer.Option("--timing-only", help="Compute no values; simulate time only.")]
ReadZerosOption = Annotated[
    bool,
    typer.Option(
        "--read-zeros", help="With --timing-only: return zeros for values read on the host instead of an error."
    ),
]


def run(
    script: ScriptArgument,
    arguments: ArgumentsArgument = None,
    chip: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME...]", help="Reference chips or chip files, separated by commas.")
    ] = None,
    timing_only: TimingOnlyOption = False,
    read_zeros: ReadZerosOption = False,
    module: ModuleOption = False,
    sanitize: Annotated[
        bool, typer.Option("--sanitize", help="Check every memory access of every kernel; stop at the first error.")
    ] = False,
    result: Annotated[Path | None, typer.Option(help="Also write the times to this file, as JSON.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the run to this folder (profile, kernels, trace), for `tapeout studio`."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write what every chip or rank did to this file, for https://ui.perfetto.dev (.json, .gz)."),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Cluster (name or TOML file) that connects the chips of the ranks.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Run the script as this many torch.distributed ranks, one chip each.")
    ] = None,
    as_rank: Annotated[int | None, typer.Option(help="Run only this rank of --of ranks (needs --timing-only).")] = None,
    of: Annotated[int | None, typer.Option(min=1, help="Total number of ranks (with --as-rank).")] = None,
) -> None:
    """Run a script on a chip and print the time the chip would have taken."""
    from tapeout import chip as chips
    from tapeout.report import run_time as report
    from tapeout.workbench import ranks as many
    from tapeout.workbench import script as scripts

    if sanitize:
        from tapeout.runtime import sanitizer

        if timing_only:
            raise TapeoutError("--sanitize checks what kernels do; with --timing-only they do nothing: choose one")
        sanitizer.enable()
    if (as_rank is None) != (of is None):
        raise TapeoutError("--as-rank and --of belong together: rank 0 of 1,000 is --as-rank 0 --of 1000")
    if as_rank is not None and of is not None:
        if ranks is not None or not timing_only:
            raise TapeoutError("--as-rank runs one rank without its peers: use it with --timing-only, not --ranks")
        many.stand_for(as_rank, of, cluster)
    elif cluster is not None:
        many.join(cluster)
    names = chip.split(",") if chip else [many.chip_of_this_rank() or chips.named()]
    asked = scripts.Script(script, tuple(arguments or ()), timing_only, read_zeros, module)
    if result:
        check_file_can_be_written(result)
    if trace:
        if len(names) > 1 and ranks is None:
            raise TapeoutError("--trace is of one run, and a list of chips asks for one each; run once for each")
        check_file_can_be_written(trace)
    if output:
        if ranks is not None or len(names) > 1:
            raise TapeoutError("--output is for a run on one chip; run once for each")
        if trace:
            raise TapeoutError("--output writes a trace of its own; leave out --trace")
        make_folder(output)
    console = console_of(stderr=True)
    if ranks is not None:
        times, timelines = many.run_ranks(asked, names, cluster, ranks, with_timelines=trace is not None)
        console.print(report.ranks(times, cluster or "joined by their links"))
        if trace:
            _write_trace(timelines, trace)
        if result:
            result.write_text("[" + ",\n".join(time.to_json() for time in times) + "]\n", "utf-8")
        return
    if len(names) > 1:
        times = scripts.run_on_each(asked, names)
        console.print(report.side_by_side(times))
        if result:
            result.write_text("[" + ",\n".join(time.to_json() for time in times) + "]\n", "utf-8")
        return
    recorded = scripts.record(asked, names[0]) if output else None
    timelines = []
    if recorded:
        time = recorded.time
    elif trace or many.wants_timeline():
        time, timelines = scripts.run_with_timelines(asked, names[0])
    else:
        time = scripts.run(asked, names[0])
    if trace:
        _write_trace(timelines, trace)
    if many.leave_result(time, timelines):
        raise typer.Exit(time.status)
    if not (time.status and time.is_empty):
        console.print(report.summary(time), soft_wrap=True, highlight=False)
    if result:
        result.write_text(time.to_json(), "utf-8")
    if output and recorded:
        from tapeout.report import run_folder

        console.print(run_folder.write(output, asked, chips.active(), recorded), highlight=False)
    if time.status:
        raise typer.Exit(time.status)


def _write_trace(timelines: "Sequence[Timeline]", file: Path) -> None:
    from tapeout.report import timeline as report

    report.trace(timelines).write(file)
