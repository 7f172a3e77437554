"""The command `tapeout`: one file a command, which parses its arguments, calls the package and prints."""

import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape as rich_escape

from tapeout.cli import (
    annotate,
    calibration,
    chat,
    chips,
    cluster,
    clusters,
    compare,
    cosim,
    cost,
    datasheet,
    diff,
    explore,
    export_check,
    fleet,
    goodput,
    isa,
    limits,
    models,
    new,
    plan,
    produce,
    profile,
    replay,
    rtl,
    run,
    scoreboard,
    serve,
    serve_sim,
    studio,
    study,
    synth,
    time,
    traffic,
)
from tapeout.cli.terminal import make_printable
from tapeout.errors import InternalError, TapeoutError
from tapeout.workbench.script import own_traceback


class Commands(typer.core.TyperGroup):
    """Prints a user's mistake as one sentence, and an error of a user's script as Python would; a bug of ours keeps its
    traceback."""

    def invoke(self, ctx: Any) -> Any:
        make_printable()
        try:
            return super().invoke(ctx)
        except InternalError:
            raise
        except TapeoutError as error:
            _say(str(error))
        except (Exception, KeyboardInterrupt) as error:
            if (own := own_traceback(error)) is not None:
                sys.excepthook(type(error), error.with_traceback(own), own)
            elif isinstance(error, OSError) and error.filename is not None:
                _say(f"cannot read or write {str(error.filename)!r}: {error.strerror}")
            else:
                raise
        raise typer.Exit(1)


def _say(sentence: str) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {rich_escape(sentence)}", soft_wrap=True, highlight=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tapeout {version('tapeout')}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Everything an AI accelerator needs around it, from one description.",
)


@app.callback()
def tapeout(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("annotate", cls=run.ScriptCommand, context_settings=run.SCRIPT_OPTIONS)(annotate.annotate)
app.command("calibration")(calibration.calibration)
app.command("chat")(chat.chat)
app.command("chips")(chips.chips)
app.command("cluster")(cluster.cluster)
app.command("clusters")(clusters.clusters)
app.command("collective")(clusters.collective)
app.command("compare")(compare.compare)
app.command("cosim", cls=run.ScriptCommand, context_settings=run.SCRIPT_OPTIONS)(cosim.cosim)
app.command("cost")(cost.cost)
app.command("datasheet")(datasheet.datasheet)
app.command("diff")(diff.diff)
app.command("explore")(explore.explore)
app.command("export-check")(export_check.export_check)
app.command("fleet")(fleet.fleet)
app.command("goodput")(goodput.goodput)
app.command("isa")(isa.isa)
app.command("limits", cls=run.ScriptCommand, context_settings=run.SCRIPT_OPTIONS)(limits.limits)
app.add_typer(models.models, name="models")
app.command("new")(new.new)
app.command("produce")(produce.produce)
app.command("plan")(plan.plan)
app.command("profile", cls=run.ScriptCommand, context_settings=run.SCRIPT_OPTIONS)(profile.profile)
app.command("replay")(replay.replay)
app.command("rtl")(rtl.rtl)
app.command("run", cls=run.ScriptCommand, context_settings=run.SCRIPT_OPTIONS)(run.run)
app.command("scoreboard")(scoreboard.scoreboard)
app.command("serve", cls=serve.ServeCommand)(serve.serve)
app.command("serve-sim")(serve_sim.serve_sim)
app.command("studio")(studio.studio)
app.command("study")(study.study)
app.command("synth")(synth.synth)
# Negative numbers are sizes, refused as such, not options.
app.command("time", context_settings={"ignore_unknown_options": True})(time.time)
app.command("traffic")(traffic.traffic)
