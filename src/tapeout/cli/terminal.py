"""Where commands print."""

import os

from rich.console import Console

PIPE_COLUMNS = 140
"""Into a file or a pipe, which have no width: room for the widest table."""


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal, or as COLUMNS says."""
    made = Console(stderr=stderr)
    if made.is_terminal or "COLUMNS" in os.environ:
        return made
    return Console(stderr=stderr, width=PIPE_COLUMNS)
