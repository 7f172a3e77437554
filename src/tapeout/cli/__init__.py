"""The command `tapeout`: one file a command, which parses its arguments, calls the package and prints."""

from typing import Any

import typer
from rich.console import Console
from rich.markup import escape as rich_escape

from tapeout.cli import (
    annotate,
    calibration,
    chat,
    chips,
    compare,
    cosim,
    cost,
    datasheet,
    export_check,
    isa,
    profile,
    rtl,
    run,
    scoreboard,
    synth,
)
from tapeout.errors import InternalError, TapeoutError


class Commands(typer.core.TyperGroup):
    """Prints a user's mistake as one sentence; a bug of ours keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InternalError:
            raise
        except TapeoutError as error:
            Console(stderr=True).print(
                f"[bold red]error:[/] {rich_escape(str(error))}", soft_wrap=True, highlight=False
            )
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Everything an AI accelerator needs around it, from one description.",
)
app.command("annotate", context_settings=run.SCRIPT_OPTIONS)(annotate.annotate)
app.command("calibration")(calibration.calibration)
app.command("chat")(chat.chat)
app.command("chips")(chips.chips)
app.command("compare")(compare.compare)
app.command("cosim", context_settings=run.SCRIPT_OPTIONS)(cosim.cosim)
app.command("cost")(cost.cost)
app.command("datasheet")(datasheet.datasheet)
app.command("export-check")(export_check.export_check)
app.command("isa")(isa.isa)
app.command("profile", context_settings=run.SCRIPT_OPTIONS)(profile.profile)
app.command("rtl")(rtl.rtl)
app.command("run", context_settings=run.SCRIPT_OPTIONS)(run.run)
app.command("scoreboard")(scoreboard.scoreboard)
app.command("synth")(synth.synth)
