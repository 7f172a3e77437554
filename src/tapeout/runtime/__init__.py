"""Kernels on this host: loading, launching, counting, and the time they would take on the chip.

Importing this brings the clock and the session alone: importing torch does, and needs neither LLVM nor the
instruction set.
"""

from typing import TYPE_CHECKING, Any

from tapeout.runtime import clock
from tapeout.runtime.process import Session, session

if TYPE_CHECKING:
    from tapeout.runtime.kernel import Kernel, TimedKernel, load

__all__ = ["Kernel", "Session", "TimedKernel", "clock", "load", "session"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tapeout.runtime import kernel

        return getattr(kernel, name)
    raise AttributeError(f"module 'tapeout.runtime' has no attribute {name!r}")
