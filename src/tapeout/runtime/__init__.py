"""Kernels on this host: loading, launching, counting, and the time they would take on the chip."""

from tapeout.runtime import clock, counters
from tapeout.runtime.kernel import Kernel, TimedKernel, load, set_arena

__all__ = ["Kernel", "TimedKernel", "clock", "counters", "load", "set_arena"]
