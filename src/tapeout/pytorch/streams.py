"""Streams and events of the device, as `torch.chip` has them."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from tapeout.pytorch.device_runtime import is_initialized, shim
from tapeout.runtime import session

DeviceLike = torch.device | str | int | None

NAMES = {"chip"}
"""Types of device that mean the chip; "cuda" does in a script that was written for it."""


def lazy_init() -> None:
    """Called by torch before the first use of the device."""
    if not is_initialized():
        shim()


def local_rank() -> int | None:
    """This process's index among the ranks of its host, as torchrun gives it; its one chip goes by that index too."""
    index = os.environ.get("LOCAL_RANK")
    return int(index) if index is not None else None


def check_index(device: DeviceLike) -> None:
    """Raises ValueError for a device that is not the chip of this process. None is the chip."""
    if device is None or device == 0:  # what compiled code asks about at each call
        return
    named = torch.device("chip", device) if isinstance(device, int) and device >= 0 else device
    if not isinstance(named, int):
        named = torch.device(named)
        if named.type not in NAMES:
            raise ValueError(f"expected a device of type chip, not {str(named)!r}")
        named = named.index or 0
    if named not in (0, local_rank()):
        raise ValueError(f"there is no chip {named}: this process simulates one chip, 'chip' or 'chip:0'")


def synchronize(device: DeviceLike = None) -> None:
    """Let the chip's time pass until all work is done. On the host the work is done already: a launch does it."""
    check_index(device)
    if session.clock is not None:
        session.clock.synchronize()


class Stream(torch.Stream):
    """A queue of work, done in order. What streams do side by side, in the chip's time: tapeout.runtime.clock."""

    def __new__(cls, device: DeviceLike = None, priority: int = 0, **kwargs: Any) -> "Stream":
        lazy_init()
        if "stream_id" in kwargs:
            return super().__new__(cls, **kwargs)
        check_index(device)
        return super().__new__(cls, device="chip", priority=priority)


class Event(torch.Event):
    """A moment in a stream. With `enable_timing`, `elapsed_time` gives the chip's milliseconds between two of them.

    The first record of such an event makes the process keep time, if it did not already.
    """

    def __new__(  # type: ignore[misc]
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> torch.Event:
        lazy_init()
        # Not an instance of cls: torch.Event.elapsed_time refuses subclasses of torch.Event as its argument.
        return torch.Event("chip", enable_timing=enable_timing)


def current_stream(device: DeviceLike = None) -> torch.Stream:
    check_index(device)
    lazy_init()
    return torch.accelerator.current_stream(torch.device("chip", 0))


default_stream = current_stream


def raw_stream(device_idx: int) -> int:
    """The handle a kernel launch takes; there is one queue."""
    return 0


def set_stream(stream: torch.Stream) -> None:
    lazy_init()
    torch.accelerator.set_stream(stream)


@contextlib.contextmanager
def stream(stream: torch.Stream | None) -> Iterator[None]:
    """Make a stream current for the length of the block."""
    if stream is None:
        yield
        return
    before = current_stream()
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(before)
