"""Streams and events of the device, as `torch.chip` has them."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from tapeout import chip as chips
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
    """This process's index among the ranks of its host, as torchrun gives it; its chip, if it is one, goes by that
    index too."""
    index = os.environ.get("LOCAL_RANK")
    return int(index) if index is not None else None


def check_index(device: DeviceLike) -> int:
    """Return the index of a chip of this process; None, and a device without an index, is the current one.

    Raises ValueError for any other.
    """
    if device is None:
        return chips.current_index()
    if device.__class__ is int:
        if device == 0:  # what compiled code asks about at each call
            return 0
        index: Any = device
    else:
        named = torch.device(device)
        if named.type not in NAMES:
            raise ValueError(f"expected a device of type chip, not {str(named)!r}")
        index = chips.current_index() if named.index is None else named.index
    count = len(chips.of_process())
    if 0 <= index < count:
        return int(index)
    if count == 1 and index == local_rank():
        return 0
    if count == 1:
        raise ValueError(f"there is no chip {index}: this process simulates one chip, 'chip' or 'chip:0'")
    raise ValueError(f"there is no chip {index}: this process simulates {count} chips, 'chip:0' to 'chip:{count - 1}'")


def synchronize(device: DeviceLike = None) -> None:
    """Let the chip's time pass until all work is done. On the host the work is done already: a launch does it."""
    index = check_index(device)
    if session.clocks:
        session.clocks[index].synchronize()


class Stream(torch.Stream):
    """A queue of work, done in order. What streams do side by side, in the chip's time: tapeout.runtime.clock."""

    def __new__(cls, device: DeviceLike = None, priority: int = 0, **kwargs: Any) -> "Stream":
        lazy_init()
        if "stream_id" in kwargs:
            return super().__new__(cls, **kwargs)
        return super().__new__(cls, device=torch.device("chip", check_index(device)), priority=priority)


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
    lazy_init()
    return torch.accelerator.current_stream(torch.device("chip", check_index(device)))


def default_stream(device: DeviceLike = None) -> torch.Stream:
    lazy_init()
    where = torch.device("chip", check_index(device))
    return torch.Stream(stream_id=0, device_index=where.index, device_type=current_stream(where).device_type)


def raw_stream(device_idx: int) -> int:
    """The handle a kernel launch takes: the stream is the chip's current one in any case."""
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
    before, of_its_chip = current_stream(), current_stream(stream.device)
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(of_its_chip)
        set_stream(before)
