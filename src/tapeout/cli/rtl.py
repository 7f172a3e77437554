"""`tapeout rtl`: a chip's core in Verilog."""

from pathlib import Path
from typing import Annotated

import typer


def rtl(
    chip: Annotated[str, typer.Argument(help="A reference chip, or a chip file of your own.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("build"),
) -> None:
    """Write Verilog of a chip's core, a testbench with a memory, and the lint rules that are waived."""
    from tapeout.chip import load
    from tapeout.rtl import files

    for path in files.write(load(chip), output):
        print(f"{path}: {path.stat().st_size} bytes")
