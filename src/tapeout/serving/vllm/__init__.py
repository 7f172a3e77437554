"""vLLM's plug-in for the chip: the platform, its worker and its compiler passes. vLLM itself is unchanged.

vLLM prefers a plug-in to the platforms it knows, so this one steps forward only where it is asked for
(`TAPEOUT_VLLM=1`, which `tapeout serve` sets) or where nothing else is there.
"""

import importlib.metadata
import os

from tapeout.errors import TapeoutError

VARIABLE = "TAPEOUT_VLLM"
GROUP = "vllm.platform_plugins"


def register() -> str | None:
    """The entry point: the platform's class, or None to leave vLLM to other devices."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "0", "1"):
        raise TapeoutError(f"{VARIABLE}={wanted!r} is not known; 1 serves on the chip, 0 never does")
    if wanted == "0" or (not wanted and _others_are_there()):
        return None
    return "tapeout.serving.vllm.platform.ChipPlatform"


def _others_are_there() -> bool:
    """Whether vLLM finds a device of its own, or another plug-in is installed."""
    from vllm import platforms

    plugins = importlib.metadata.entry_points(group=GROUP)
    if any(each.value != f"{__name__}:{register.__name__}" for each in plugins):
        return True
    return any(found() for found in platforms.builtin_platform_plugins.values())
