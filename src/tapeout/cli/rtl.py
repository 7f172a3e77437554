"""`tapeout rtl`: a chip's core in Verilog."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tapeout.chip import Chip

CutDownOption = Annotated[
    bool, typer.Option("--cut-down", help="One core with few lanes, banks and cells, and the same pipelines.")
]


def described(chip: str, cut: bool) -> "Chip":
    """The chip of a name or file, its core cut down if asked for."""
    from tapeout.chip import load
    from tapeout.rtl.cut_down import cut_down

    found = load(chip)
    return cut_down(found) if cut else found


def rtl(
    chip: Annotated[str, typer.Argument(help="A reference chip or a chip file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("build"),
    cut: CutDownOption = False,
) -> None:
    """Write a chip's core in Verilog, with a testbench, its memory and the waived lint rules."""
    from tapeout.rtl import files

    for path in files.write(described(chip, cut), output):
        print(f"{path}: {path.stat().st_size} bytes")
