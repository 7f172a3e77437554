"""Kernels on this host: loading, launching, counting, and the time they would take on the chip.

Importing this brings the clock alone: importing torch does, and needs neither LLVM nor the instruction set.
"""

from typing import TYPE_CHECKING, Any

from tapeout.runtime import clock

if TYPE_CHECKING:
    from tapeout.runtime.kernel import Kernel, TimedKernel, load, set_arena

__all__ = ["Kernel", "TimedKernel", "clock", "load", "set_arena"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tapeout.runtime import kernel

        return getattr(kernel, name)
    raise AttributeError(f"module 'tapeout.runtime' has no attribute {name!r}")
