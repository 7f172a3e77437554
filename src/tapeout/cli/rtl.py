"""`tapeout rtl`: a chip's core in Verilog."""

from pathlib import Path
from typing import Annotated

import typer


def rtl(
    chip: Annotated[str, typer.Argument(help="A reference chip or a chip file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("build"),
) -> None:
    """Write a chip's core in Verilog, with a testbench, its memory and the waived lint rules."""
    from tapeout.chip import load
    from tapeout.rtl import files

    for path in files.write(load(chip), output):
        print(f"{path}: {path.stat().st_size} bytes")
