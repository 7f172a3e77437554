"""Helpers for commands that print and write."""

import codecs
import os
import sys
from pathlib import Path

from tapeout.errors import TapeoutError

_PLAIN = {
    **dict.fromkeys(map(chr, range(0x2500, 0x2580)), "+"),  # boxes
    **{"\u2500": "-", "\u2501": "-", "\u2502": "|", "\u2503": "|"},
    **{"\N{MICRO SIGN}": "u", "\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\N{EM DASH}": "-"},
    **{"\N{HORIZONTAL ELLIPSIS}": "...", "\N{MIDDLE DOT}": ".", "\N{PLUS-MINUS SIGN}": "+-"},
    **{"\N{LESS-THAN OR EQUAL TO}": "<=", "\N{GREATER-THAN OR EQUAL TO}": ">=", "\N{RIGHTWARDS ARROW}": "->"},
}


def make_printable() -> None:
    """Print the nearest ASCII letters instead of failing if the locale knows only ASCII."""
    codecs.register_error(
        "tapeout.plain",
        lambda error: (_nearest(error.object[error.start : error.end]), error.end),  # type: ignore
    )
    for stream in (sys.stdout, sys.stderr):
        try:
            "µ─".encode(stream.encoding)
        except UnicodeEncodeError:
            stream.reconfigure(errors="tapeout.plain")  # type: ignore[union-attr]


def _nearest(text: str) -> str:
    return "".join(_PLAIN.get(letter, "?") for letter in text)


def check_file_can_be_written(path: Path) -> None:
    """Raise TapeoutError if the file cannot be written. An existing file is left unchanged."""
    try:
        is_new = not path.exists()
        with open(path, "a"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise TapeoutError(f"cannot write {str(path)!r}: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make the folder. Raises TapeoutError if it cannot be made or written into."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TapeoutError(f"cannot make the folder {str(path)!r}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise TapeoutError(f"cannot write into the folder {str(path)!r}: Permission denied")
