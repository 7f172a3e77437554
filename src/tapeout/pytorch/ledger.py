"""Record of what ran where: aten operators on the chip, operators that fell back to the host, bytes between host and
chip.

The C++ shim counts; this reads its counters as values. Work inside a compiled graph's own Triton kernels is the
kernel launcher's to count: here are the operators torch dispatched one by one.
"""

import ctypes
from dataclasses import dataclass

from tapeout.pytorch.device_runtime import is_initialized, shim


@dataclass(frozen=True)
class Ledger:
    """Counts since the process began. Operators by name, with the number of calls."""

    on_chip: dict[str, int]
    on_host: dict[str, int]
    on_host_bytes: int
    host_to_chip_bytes: int
    chip_to_host_bytes: int


def snapshot() -> Ledger:
    """The present counts. `on_host_bytes` is what operators on the host read and returned of the chip's tensors."""
    text = b""
    if is_initialized():
        room_bytes = shim().tapeout_ledger(None, 0)
        room = ctypes.create_string_buffer(room_bytes)
        shim().tapeout_ledger(room, room_bytes)
        text = room.raw
    rows = [line.split("\t") for line in text.decode().splitlines()]
    copied = {name: int(size_bytes) for kind, name, _, size_bytes in rows if kind == "copy"}
    return Ledger(
        on_chip={name: int(calls) for kind, name, calls, _ in rows if kind == "chip"},
        on_host={name: int(calls) for kind, name, calls, _ in rows if kind == "fallback"},
        on_host_bytes=sum(int(size_bytes) for kind, _, _, size_bytes in rows if kind == "fallback"),
        host_to_chip_bytes=copied.get("host_to_chip", 0),
        chip_to_host_bytes=copied.get("chip_to_host", 0),
    )


def reset() -> None:
    """Start counting from zero."""
    if is_initialized():
        shim().tapeout_reset_ledger()


def count(name: str) -> None:
    """Note that an aten operator ran on the chip."""
    shim().tapeout_count_on_chip(name.encode(), 1)
