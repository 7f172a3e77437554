"""`tapeout synth`: gates and area of a chip's core."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.cli.rtl import CutDownOption, described
from tapeout.report.page import Format, write


def synth(
    chip: Annotated[str, typer.Argument(help="A reference chip or a chip file.")],
    liberty: Annotated[Path | None, typer.Option(help="Liberty file to map cells to.")] = None,
    technology: Annotated[Path | None, typer.Option(help="File with additional technology figures.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Write the areas to this file, for `tapeout datasheet --technology`.")
    ] = None,
    cut: CutDownOption = False,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Synthesize every block of a chip's core with Yosys: gates, flip-flops, memory, area and clock."""
    from tapeout.report import synthesis as report
    from tapeout.rtl.synthesis import synthesize
    from tapeout.silicon import technology as known

    found, facts = synthesize(described(chip, cut), liberty=liberty), known.load(technology)
    if figures:
        figures.write_text(report.technology_figures(found, facts), "utf-8")
    write(report.page(found, facts), form, output)
