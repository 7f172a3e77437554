"""`tapeout new`: a commented chip file to start from."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer


def new(
    file: Annotated[Path, typer.Argument(help="The TOML file to write. Its name becomes the chip's.")],
    like: Annotated[str, typer.Option(help="Reference chip or chip file whose values it starts with.")] = "inference",
) -> None:
    """Write a chip file with every field, its meaning, its bounds and a value."""
    from tapeout.chip import load
    from tapeout.chip.writing import commented_toml
    from tapeout.errors import ChipError

    if file.suffix != ".toml":
        raise ChipError(f"{str(file)!r} is not the name of a TOML file; {file.stem}.toml is")
    if file.exists():
        raise ChipError(f"{str(file)!r} exists; name another file or remove it")
    file.write_text(commented_toml(dataclasses.replace(load(like), name=file.stem)), "utf-8")
    print(f"wrote {file}; `tapeout datasheet {file}` judges it, `tapeout run --chip {file} script.py` runs on it")
