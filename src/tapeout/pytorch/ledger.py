"""What ran where: aten operators on the chip, operators that fell back to the host, bytes between host and chip.

The C++ shim counts; this reads its counters as values. Work inside a compiled graph's own Triton kernels is the
kernel launcher's to count: here are the operators torch dispatched one by one.
"""

import ctypes
from dataclasses import dataclass

from tapeout.pytorch import device


@dataclass(frozen=True)
class Fallback:
    """An operator that ran on the host: how often, and the bytes it read and returned there."""

    operator: str
    calls: int
    size_bytes: int


@dataclass(frozen=True)
class Ledger:
    """Counts since the process began or since `reset()`."""

    on_chip: dict[str, int]
    fallbacks: tuple[Fallback, ...]
    host_to_chip_bytes: int
    chip_to_host_bytes: int
    host_to_chip_copies: int
    chip_to_host_copies: int

    @property
    def on_chip_calls(self) -> int:
        return sum(self.on_chip.values())

    @property
    def fallback_calls(self) -> int:
        return sum(fallback.calls for fallback in self.fallbacks)

    @property
    def on_chip_share(self) -> float:
        """Of the operators dispatched to the device, the share that ran on it; 1.0 if there were none."""
        total = self.on_chip_calls + self.fallback_calls
        return self.on_chip_calls / total if total else 1.0


def read() -> Ledger:
    """The present counts; fallbacks with the most calls first."""
    text = b""
    if device.is_initialized():
        shim = device.shim()
        room_bytes = shim.tapeout_ledger(None, 0)
        room = ctypes.create_string_buffer(room_bytes)
        shim.tapeout_ledger(room, room_bytes)
        text = room.raw
    rows = [line.split("\t") for line in text.decode().splitlines()]
    copies = {name: (int(calls), int(size)) for kind, name, calls, size in rows if kind == "copy"}
    fallbacks = [Fallback(name, int(calls), int(size)) for kind, name, calls, size in rows if kind == "fallback"]
    to_chip, to_host = copies.get("host_to_chip", (0, 0)), copies.get("chip_to_host", (0, 0))
    return Ledger(
        on_chip={name: int(calls) for kind, name, calls, _ in rows if kind == "chip"},
        fallbacks=tuple(sorted(fallbacks, key=lambda fallback: (-fallback.calls, fallback.operator))),
        host_to_chip_copies=to_chip[0],
        host_to_chip_bytes=to_chip[1],
        chip_to_host_copies=to_host[0],
        chip_to_host_bytes=to_host[1],
    )


def reset() -> None:
    """Start counting from zero."""
    if device.is_initialized():
        device.shim().tapeout_reset_ledger()
