"""Kernels on this host: loading, launching, counting."""

from tapeout.runtime import counters
from tapeout.runtime.kernel import Kernel, load, set_arena

__all__ = ["Kernel", "counters", "load", "set_arena"]
