"""The console that reports are printed on."""

import os

from rich.console import Console

PIPE_COLUMNS = 140
"""Width for files and pipes, which have none: enough for the widest table."""


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or as COLUMNS says."""
    made = Console(stderr=stderr)
    if made.is_terminal or "COLUMNS" in os.environ:
        return made
    return Console(stderr=stderr, width=PIPE_COLUMNS)
