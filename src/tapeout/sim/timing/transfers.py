"""What a DMA descriptor asks of memory, plainly: its valid elements as requests, in the order the engine makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tapeout.isa import AccessPattern, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.costs import transfer_conflict
from tapeout.sim.timing.trace import ASSUMED_INDEX_RANGE, INDEXED, Tile, own_extents

ADDRESS_MASK = (1 << 47) - 1
REQUESTS_PER_PACKET = 8

Request = tuple[int, int]


@dataclass(frozen=True)
class Transfer:
    """A descriptor ready to go: its requests (address, bytes) in packets, and the bank conflicts of its tile."""

    packets: list[list[Request]]
    conflict: int


class AssumedIndices:
    """Random numbers in a fixed order (a linear congruential generator), started by the launch's seed."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def next(self) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % ASSUMED_INDEX_RANGE


def burst_dimension(item: Any, registers: Sequence[int]) -> int:
    """The dimension runs go along: the innermost whose stride is the element size, along which neither index nor mask
    varies. -1 if there is none."""
    operands = [item.index, item.mask] if isinstance(item, INDEXED) else []
    if isinstance(item, isa.Atomic):
        return -1
    for dimension in reversed(range(4)):
        varies = any(isinstance(o, AccessPattern) and o.strides[dimension] for o in operands)
        if item.shape[dimension] > 1 and registers[item.strides[dimension]] == item.dtype.size_bytes and not varies:
            return dimension
    return -1


def element_at(operand: AccessPattern, shape: tuple[int, ...], place: Sequence[int]) -> int:
    """Number of the element of a tile, among its own, that belongs to a place of the loops."""
    number = 0
    for extent, index in zip(own_extents(operand, shape), place, strict=True):
        number = number * extent + (index if extent > 1 else 0)
    return number


def _runs(
    item: Any, registers: Sequence[int], index: Tile | None, mask: Tile | None, along: int, base: int
) -> Iterator[Request]:
    size = item.dtype.size_bytes
    is_atomic = isinstance(item, isa.Atomic)
    strides = [0] * 4 if is_atomic else [registers[stride] for stride in item.strides]
    ranges = []
    for dimension, extent in enumerate(item.shape):
        low = 0 if is_atomic else max(0, registers[item.low[dimension]])
        high = extent
        if not is_atomic and item.high[dimension]:
            high = min(extent, registers[item.high[dimension]])
        ranges.append(range(low, high))
    if not all(ranges):
        return
    length = len(ranges[along]) if along >= 0 else 1
    walked = [r[:1] if dimension == along else r for dimension, r in enumerate(ranges)]
    for place in product(*walked):
        if mask is not None and not mask[element_at(item.mask, item.shape, place)]:
            continue
        address = registers[item.base] - base + sum(i * s for i, s in zip(place, strides, strict=True))
        if isinstance(item, INDEXED):
            if isinstance(item.index, RegisterValue):
                value = registers[item.index.register]
                bits = item.index_dtype.bits
                value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
            else:
                assert index is not None
                value = int(index[element_at(item.index, item.shape, place)])
            address += value * item.scale
        yield address & ADDRESS_MASK, length * size


def transfer(
    item: Any,
    registers: Sequence[int],
    index: Tile | None,
    mask: Tile | None,
    chip: Any,
    memory_base: int,
) -> Transfer:
    """The packets of a descriptor. `index` and `mask`: own elements of those tiles, if they are tiles."""
    line_bytes = chip.last_level_sram.line_bytes
    along = burst_dimension(item, registers)
    requests: list[Request] = []
    pending: Request | None = None

    def cut(run: Request) -> None:
        address, end = run[0], run[0] + run[1]
        while address < end:
            piece = min(end, (address // line_bytes + 1) * line_bytes) - address
            requests.append((address, piece))
            address += piece

    for address, length in _runs(item, registers, index, mask, along, memory_base):
        if pending and pending[0] + pending[1] == address and not isinstance(item, isa.Atomic):
            pending = (pending[0], pending[1] + length)
        else:
            if pending:
                cut(pending)
            pending = (address, length)
    if pending:
        cut(pending)
    packets = [requests[n : n + REQUESTS_PER_PACKET] for n in range(0, len(requests), REQUESTS_PER_PACKET)]
    dma = chip.core.store_dma if item.unit.value == "store" else chip.core.load_dma
    conflict = 1
    if along >= 0 and isinstance(item.tile, AccessPattern):
        conflict = transfer_conflict(
            item.tile, item.dtype.size_bytes, along, item.shape[along], dma.bytes_per_cycle, chip
        )
    return Transfer(packets, conflict)
