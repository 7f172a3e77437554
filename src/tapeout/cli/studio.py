"""`tapeout studio`: runs and chips of a folder as pages in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.errors import TapeoutError


def studio(
    folder: Annotated[Path, typer.Argument(help="Folder with runs (`tapeout run -o`) and chip files.")] = Path("."),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 takes a free one.")] = 8642,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Show a folder of runs and chips as pages in the browser, served to this machine alone."""
    try:
        from tapeout.studio import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise TapeoutError(
            f"the studio needs {error.name}; in Tapeout's source folder: pip install --editable '.[studio]'"
        ) from None
    server.serve(folder, port, open_browser=browser)
