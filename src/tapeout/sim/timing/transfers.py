"""Memory requests of a DMA descriptor, in plain form: its valid elements, in the order the engine makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from tapeout.chip import Chip
from tapeout.isa import AccessPattern, RegisterValue, Unit, microcoded_cycles
from tapeout.isa import definitions as isa
from tapeout.isa.pipelined_costs import transfer_conflict
from tapeout.sim.timing.trace import Tile, own_extents

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

    def next(self, limit: int) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % limit


def burst_dimension(item: isa.Transfer, registers: Sequence[int]) -> int:
    """The dimension runs go along: the innermost whose stride is the element size, along which neither index nor mask
    varies. -1 if there is none."""
    if isinstance(item, isa.Atomic):
        return -1
    operands = [item.index, item.mask] if isinstance(item, isa.Indexed) else []
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


def _strides_and_ranges(item: isa.Transfer, registers: Sequence[int]) -> tuple[list[int], list[range]]:
    """For each dimension: bytes between neighbours, and the indices inside its bounds."""
    if isinstance(item, isa.Atomic):
        return [0] * 4, [range(extent) for extent in item.shape]
    ranges = []
    for dimension, extent in enumerate(item.shape):
        high = min(extent, registers[item.high[dimension]]) if item.high[dimension] else extent
        ranges.append(range(max(0, registers[item.low[dimension]]), high))
    return [registers[stride] for stride in item.strides], ranges


def _runs(
    item: isa.Transfer, registers: Sequence[int], index: Tile | None, mask: Tile | None, along: int, base: int
) -> Iterator[Request]:
    size = item.dtype.size_bytes
    strides, ranges = _strides_and_ranges(item, registers)
    if not all(ranges):
        return
    length = len(ranges[along]) if along >= 0 else 1
    walked = [r[:1] if dimension == along else r for dimension, r in enumerate(ranges)]
    for place in product(*walked):
        address = _address(item, registers, index, mask, place, strides, base)
        if address is not None:
            yield address, length * size


def _address(
    item: isa.Transfer,
    registers: Sequence[int],
    index: Tile | None,
    mask: Tile | None,
    place: Sequence[int],
    strides: Sequence[int],
    base: int,
) -> int | None:
    """Return where an element lies in memory; None if it is masked."""
    address = registers[item.base] - base + sum(i * s for i, s in zip(place, strides, strict=True))
    if isinstance(item, isa.Indexed):
        if mask is not None:
            assert isinstance(item.mask, AccessPattern)
            if not mask[element_at(item.mask, item.shape, place)]:
                return None
        if isinstance(item.index, RegisterValue):
            value = registers[item.index.register]
            bits = item.index_dtype.bits
            value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
        else:
            assert index is not None
            value = int(index[element_at(item.index, item.shape, place)])
        address += value * item.scale
    return int(address & ADDRESS_MASK)


def vector_transfer(
    item: isa.Transfer,
    registers: Sequence[int],
    index: Tile | None,
    mask: Tile | None,
    chip: Chip,
    memory_base: int,
) -> Transfer:
    """Yield the requests of a microcoded core's engines, a vector of elements a packet, which may be empty: blocks of
    `bytes_per_cycle`; of a store the part of a block that is written, or, where elements may lie on each other, each
    element."""
    size, lanes = item.dtype.size_bytes, chip.core.vector.lane_count
    is_store = item.unit is Unit.STORE
    block_bytes = (chip.core.store_dma if is_store else chip.core.load_dma).bytes_per_cycle
    strides, ranges = _strides_and_ranges(item, registers)
    shifts = microcoded_cycles.inward_shifts(item.shape)
    outer = (4 - shifts) % 4  # where what was moved outside begins
    inner = 3 - shifts
    one_by_one = is_store and (isinstance(item, isa.Indexed) or abs(strides[inner]) < size)
    packets: list[list[Request]] = []
    for turned in product(*(range(item.shape[(d + outer) % 4]) for d in range(3))):
        place = [0] * 4
        for d in range(3):
            place[(d + outer) % 4] = turned[d]
        for first in range(0, item.shape[inner], lanes):
            packet: list[Request] = []
            for element in range(first, min(first + lanes, item.shape[inner])):
                place[inner] = element
                if not all(i in r for i, r in zip(place, ranges, strict=True)):
                    continue
                address = _address(item, registers, index, mask, place, strides, memory_base)
                if address is None:
                    continue
                block = address // block_bytes * block_bytes
                known = next((n for n, (a, _) in enumerate(packet) if a // block_bytes * block_bytes == block), None)
                if one_by_one or (known is None and is_store):
                    packet.append((address, size))
                elif known is None:
                    packet.append((block, block_bytes))
                elif is_store:
                    start, length = packet[known]
                    end = max(start + length, address + size)
                    packet[known] = (min(start, address), end - min(start, address))
            packets.append(packet)
    return Transfer(packets, 1)


def transfer(
    item: isa.Transfer,
    registers: Sequence[int],
    index: Tile | None,
    mask: Tile | None,
    chip: Chip,
    memory_base: int,
) -> Transfer:
    """The packets of a descriptor. `index` and `mask`: own elements of those tiles, if they are tiles."""
    line_bytes = chip.memory_side.line_bytes
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
    dma = chip.core.store_dma if item.unit is Unit.STORE else chip.core.load_dma
    conflict = 1
    if along >= 0 and isinstance(item.tile, AccessPattern):
        conflict = transfer_conflict(
            item.tile, item.dtype.size_bytes, along, item.shape[along], dma.bytes_per_cycle, chip
        )
    return Transfer(packets, conflict)
