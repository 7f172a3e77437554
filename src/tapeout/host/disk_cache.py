"""Cache on disk of files that Tapeout can make again; a directory appears there whole or not at all.

TAPEOUT_CACHE_DIR names the place; without it, `tapeout` in the user's cache directory. Deleting it is always
safe.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "TAPEOUT_CACHE_DIR"
ABANDONED_AFTER_S = 24 * 3600
"""Nothing takes so long to make: what is half made since then, a killed process left."""


def directory() -> Path:
    """The root of the cache; it may not exist yet."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapeout"


def sweep(folder: Path, pattern: str) -> None:
    """Removes what killed processes left half made in a folder."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache, filled by `make(empty directory)` unless it is there already.

    It appears under its name only when it is complete, so a kill leaves no half of it, and of two processes
    that make it at the same time one is kept.
    """
    final = directory() / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final.parent, f".{final.name}-*")
    unfinished = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        make(unfinished)
        try:
            unfinished.rename(final)
        except OSError:
            if not final.is_dir():  # not lost to another process: a real failure
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final
