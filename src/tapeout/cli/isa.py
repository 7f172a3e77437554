"""`tapeout isa`: the instruction set manual, generated from the definitions."""

from pathlib import Path
from typing import Annotated

import typer


def isa(
    output: Annotated[Path | None, typer.Option(help="Write the manual to this file instead of the terminal.")] = None,
) -> None:
    """Print the instruction set manual (Markdown)."""
    from tapeout.isa.manual import render

    text = render()
    if output:
        output.write_text(text, "utf-8")
    else:
        print(text, end="")
