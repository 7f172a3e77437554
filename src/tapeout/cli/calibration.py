"""`tapeout calibration`: the area and power model compared with published chips."""

from pathlib import Path
from typing import Annotated

import typer


def calibration(
    output: Annotated[Path | None, typer.Option(help="Write the page to this file instead of the terminal.")] = None,
) -> None:
    """Print the page that compares modelled and published die area and power (Markdown)."""
    from tapeout.silicon.calibration import render

    text = render()
    if output:
        output.write_text(text, "utf-8")
    else:
        print(text, end="")
