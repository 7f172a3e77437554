"""`tapeout diff`: two runs or two chips against each other."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def diff(
    before: Annotated[str, typer.Argument(help="Folder written by `tapeout profile -o`, or a described chip.")],
    after: Annotated[str, typer.Argument(help="The other: also a folder, or also a chip.")],
    volume: Annotated[int, typer.Option(min=1, help="Production volume, for prices of chips.")] = 100_000,
    technology: Annotated[Path | None, typer.Option(help="File with additional technology figures.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show what changed between two profiles, by kernel, bound, engine and byte, or between two chips."""
    from tapeout.chip import REFERENCE_CHIPS, load
    from tapeout.errors import TapeoutError
    from tapeout.report import differences as report
    from tapeout.silicon import technology as figures
    from tapeout.workbench import differences

    def is_chip(name: str) -> bool:
        return name in REFERENCE_CHIPS or (Path(name).name != "profile.json" and Path(name).suffix in CHIP_SUFFIXES)

    chips = [name for name in (before, after) if is_chip(name)]
    if len(chips) == 1:
        other = after if chips[0] == before else before
        raise TapeoutError(f"{chips[0]!r} is a chip and {other!r} is not; compare two runs or two chips")
    if chips:
        found = differences.of_chips(load(before), load(after), figures.load(technology), volume=volume)
    else:
        first, second = (differences.read_profile(Path(name)) for name in (before, after))
        found = differences.of_profiles(first, second, (before, after))
    rows = report.ROWS if form is Format.text else None
    write(report.page(found, rows=rows), form, output)


CHIP_SUFFIXES = (".py", ".toml", ".json")
