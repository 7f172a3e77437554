"""The end of a process whose daemon threads still use the chip.

At its end Python kills a daemon thread when it next takes the interpreter's lock. PyTorch takes the lock in the middle
of an operator, and a thread killed in its C++ code ends the process with an abort. So a daemon thread that calls an
operator of the chip once the end has begun waits there, without the lock, until the process is gone.
"""

import atexit
import threading
import time

GRACE_S = 0.1
"""Longest time that the end waits for daemon threads to come to an operator of the chip."""

begun = False
_parked: set[threading.Thread] = set()


def install() -> None:
    """Registered when torch is imported: it runs after what the program registers, which may stop its threads."""
    atexit.register(_begin)


def _begin() -> None:
    global begun
    from tapeout.pytorch import device_runtime

    if not device_runtime.is_initialized():
        return
    begun = True
    until = time.monotonic() + GRACE_S
    while any(_is_daemon(thread) for thread in {*threading.enumerate()} - _parked) and time.monotonic() < until:
        time.sleep(0.001)


def _is_daemon(thread: threading.Thread) -> bool:
    return thread.daemon and not isinstance(thread, threading._DummyThread)  # not one of C++, as autograd has


def park() -> None:
    """Keep a daemon thread here for good; others go on."""
    thread = threading.current_thread()
    if _is_daemon(thread):
        _parked.add(thread)
        threading.Event().wait()
