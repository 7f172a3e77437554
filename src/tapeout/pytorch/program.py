"""What the program that runs is about."""

import os
import re
import sys
from pathlib import Path

from tapeout.pytorch import streams
from tapeout.pytorch.device_runtime import is_initialized


def names_the_chip() -> bool:
    """Return whether this program is about the chip: it has used it, was started for it, or its main file names it.

    For others torch is as it is without Tapeout; nothing is built for them.
    """
    if is_initialized() or "cuda" in streams.NAMES or any(name.startswith("TAPEOUT_") for name in os.environ):
        return True
    main = getattr(sys.modules["__main__"], "__file__", None)
    try:
        text = Path(main).read_text("utf-8", errors="replace") if main else " ".join(sys.orig_argv)
    except OSError:
        return False
    return re.search(r"\b(chip|tapeout|accelerator)\b", text) is not None
