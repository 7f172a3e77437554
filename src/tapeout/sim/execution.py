"""Effects of each instruction on registers, scratchpad and memory: two tables, from instruction class to function.

`EXECUTE` has the instructions of the queues, `STEP` those of the sequencer (branches, waits and halt are the
sequencer's own business and in `evaluator`). Their fields agree with each other, as `tapeout.isa.verify` checks. The
arithmetic itself is `tapeout.numerics.functions`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tapeout.isa import AccessPattern, AtomicFunction, Operand, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.fields import OperandUse, operands
from tapeout.numerics import analogue
from tapeout.numerics.analogue import AnalogueProduct
from tapeout.numerics.builder import Builder
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import (
    MEANING,
    convert,
    multiply_accumulate,
    widen,
)
from tapeout.numerics.numpy_builder import STORAGE, NumpyBuilder, from_storage, to_storage
from tapeout.numerics.operations import ATOMIC_MEANING, REDUCTION_PARTIALS
from tapeout.sim.faults import AccessFault, OverlapFault, Trapped
from tapeout.sim.state import Memory, SequencerState

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]

BUILDER: Builder[Array] = NumpyBuilder()


class Frame:
    """State that one executing instruction sees: memory, scratchpad, register values; it notes the bytes it
    touches."""

    def __init__(
        self,
        memory: Memory,
        scratchpad: Array,
        registers: Sequence[int],
        place: str,
        analogue: AnalogueProduct | None = None,
    ) -> None:
        self.memory = memory
        self.analogue = analogue
        self.scratchpad = scratchpad
        self.registers = registers
        self.place = place
        self.read_addresses: list[Array] = []
        self.written_addresses: list[Array] = []
        self.memory_read_addresses: list[Array] = []
        self.memory_written_addresses: list[Array] = []

    # Scratchpad. Elements are moved as unsigned integers of their size.

    def addresses(self, pattern: AccessPattern, shape: Shape, size: int) -> Array:
        """Byte address of every element; extent 1 along dimensions that are broadcast."""
        total = np.full((1, 1, 1, 1), self.registers[pattern.register], np.int64) + pattern.base
        for index, stride in zip(np.ogrid[tuple(map(slice, shape))], pattern.strides, strict=True):
            if stride:
                total = total + index * (stride * size)
        return total

    def read_at(self, addresses: Array, size: int) -> Array:
        every = self._bytes_at(addresses, size)
        self.read_addresses.append(every.reshape(-1))
        return self.scratchpad[every].view(f"u{size}")[..., 0]

    def write_at(self, addresses: Array, values: Array) -> None:
        size = values.dtype.itemsize
        every = self._bytes_at(addresses, size)
        self.written_addresses.append(every.reshape(-1))
        self.scratchpad[every] = np.ascontiguousarray(values)[..., None].view(np.uint8)

    def _bytes_at(self, addresses: Array, size: int) -> Array:
        outside = (addresses < 0) | (addresses > len(self.scratchpad) - size)
        if outside.any():
            at = np.unravel_index(int(np.argmax(outside)), outside.shape)
            raise AccessFault(
                self.place,
                f"element {tuple(map(int, at))} is at scratchpad address {int(addresses[at]):#x}, outside "
                f"the {len(self.scratchpad)} bytes the program declares",
            )
        if (misplaced := addresses % size != 0).any():
            address = int(addresses[np.unravel_index(int(np.argmax(misplaced)), misplaced.shape)])
            raise AccessFault(self.place, f"scratchpad address {address:#x} is no multiple of the {size}-byte element")
        return addresses[..., None] + np.arange(size)

    def read(self, operand: Operand, shape: Shape, size: int) -> Array:
        """Bits of an operand's elements, broadcastable to `shape`."""
        if isinstance(operand, RegisterValue):
            return _bits(self.registers[operand.register], size)
        return self.read_at(self.addresses(operand, shape, size), size)

    def write(self, pattern: AccessPattern, shape: Shape, values: Array) -> None:
        """Write a tile. It may be the very tile that was read, element for element; else it must not
        overlap what was read, nor itself."""
        addresses = self.addresses(pattern, shape, values.dtype.itemsize)
        if addresses.size != np.prod(shape):
            raise OverlapFault(self.place, "the result has stride 0: its elements overwrite each other")
        self.write_at(addresses, np.broadcast_to(values, shape))
        written = self.written_addresses[-1]
        covered = np.zeros(len(self.scratchpad), bool)
        covered[written] = True
        if np.count_nonzero(covered) != len(written):
            raise OverlapFault(self.place, "elements of the result overlap each other")
        for read in self.read_addresses:
            if not np.array_equal(read, written) and covered[read].any():
                shared = int(read[np.argmax(covered[read])])
                raise OverlapFault(
                    self.place,
                    f"result and source share scratchpad byte {shared:#x} without being the same tile",
                )

    def values(self, operand: Operand, shape: Shape, dtype: DType) -> Array:
        """Elements as the builder works on them. In a register an i1 is the lowest bit."""
        if isinstance(operand, RegisterValue) and dtype is DType.I1:
            return np.full((1, 1, 1, 1), self.registers[operand.register] & 1 != 0)
        return from_storage(dtype, self.read(operand, shape, dtype.size_bytes).view(STORAGE[dtype]))

    def values_of(self, use: OperandUse) -> Array:
        return self.values(use.operand, use.extents, use.dtype)

    # Memory.

    def offsets_in_memory(self, addresses: Array, valid: Array, size: int, *, written: bool) -> Array:
        """Return where the bytes of the valid elements lie in the memory's array."""
        offsets = np.broadcast_to(addresses, valid.shape)[valid] - self.memory.base
        outside = (offsets < 0) | (offsets > len(self.memory.data) - size)
        if outside.any():
            at = int(np.argmax(outside))
            element = tuple(int(axis[at]) for axis in np.nonzero(valid))
            raise AccessFault(
                self.place,
                f"element {element} is at HBM address {int(offsets[at]) + self.memory.base:#x}, outside "
                f"{self.memory.base:#x}..{self.memory.base + len(self.memory.data) - 1:#x}",
            )
        every = offsets[:, None] + np.arange(size)
        noted = self.memory_written_addresses if written else self.memory_read_addresses
        noted.append(every.reshape(-1) + self.memory.base)
        return every


def _bits(value: int, size: int) -> Array:
    """The low bytes of a register as one element."""
    return np.full((1, 1, 1, 1), value % (1 << 8 * size), f"u{size}")


def _stored(dtype: DType, value: Array) -> Array:
    """Values as unsigned integers of the element's size."""
    return np.ascontiguousarray(to_storage(dtype, value)).view(f"u{dtype.size_bytes}")


def _spread(*values: Array) -> list[Array]:
    """Operands broadcast against each other: primitives take operands of one shape."""
    return [np.ascontiguousarray(v) for v in np.broadcast_arrays(*values)]


# ------------------------------------------------------------------------------------------------------ DMA


def _addresses(frame: Frame, item: isa.Bounded) -> Array:
    total = np.full((1, 1, 1, 1), frame.registers[item.base], np.int64)
    for index, stride in zip(np.ogrid[tuple(map(slice, item.shape))], item.strides, strict=True):
        total = total + index * frame.registers[stride]
    return total


def _inside_bounds(frame: Frame, item: isa.Bounded) -> Array:
    valid = np.ones(item.shape, bool)
    rows = zip(np.ogrid[tuple(map(slice, item.shape))], item.shape, item.low, item.high, strict=True)
    for index, extent, low, high in rows:
        valid &= (index >= frame.registers[low]) & (index < (frame.registers[high] if high else extent))
    return valid


def _displacements(frame: Frame, item: isa.Indexed) -> Array:
    return frame.values(item.index, item.shape, item.index_dtype).astype(np.int64) * item.scale


def _unmasked(frame: Frame, item: isa.Indexed) -> Array:
    if item.mask == RegisterValue(0):
        return np.ones(item.shape, bool)
    return np.broadcast_to(frame.values(item.mask, item.shape, DType.I1), item.shape)


def _gather_from_memory(frame: Frame, item: isa.Load | isa.LoadIndexed, addresses: Array, valid: Array) -> Array:
    size = item.dtype.size_bytes
    offsets = frame.offsets_in_memory(addresses, valid, size, written=False)
    tile = np.broadcast_to(_bits(frame.registers[item.fill], size), item.shape).copy()
    tile[valid] = frame.memory.data[offsets].view(f"u{size}")[:, 0]
    return tile


def _load(frame: Frame, item: isa.Load) -> None:
    tile = _gather_from_memory(frame, item, _addresses(frame, item), _inside_bounds(frame, item))
    frame.write(item.tile, item.shape, tile)


def _load_indexed(frame: Frame, item: isa.LoadIndexed) -> None:
    addresses = _addresses(frame, item) + _displacements(frame, item)
    tile = _gather_from_memory(frame, item, addresses, _inside_bounds(frame, item) & _unmasked(frame, item))
    frame.write(item.tile, item.shape, tile)


def _scatter_to_memory(frame: Frame, item: isa.Store | isa.StoreIndexed, addresses: Array, valid: Array) -> None:
    size = item.dtype.size_bytes
    values = np.broadcast_to(frame.read(item.tile, item.shape, size), item.shape)[valid]
    offsets = frame.offsets_in_memory(addresses, valid, size, written=True)
    # Where elements fall on the same byte the last one stays: the first in reverse order.
    where, first = np.unique(offsets.reshape(-1)[::-1], return_index=True)
    frame.memory.data[where] = values[:, None].view(np.uint8).reshape(-1)[::-1][first]


def _store(frame: Frame, item: isa.Store) -> None:
    _scatter_to_memory(frame, item, _addresses(frame, item), _inside_bounds(frame, item))


def _store_indexed(frame: Frame, item: isa.StoreIndexed) -> None:
    addresses = _addresses(frame, item) + _displacements(frame, item)
    _scatter_to_memory(frame, item, addresses, _inside_bounds(frame, item) & _unmasked(frame, item))


def _atomic(frame: Frame, item: isa.Atomic) -> None:
    dtype, size = item.dtype, item.dtype.size_bytes
    combine = ATOMIC_MEANING.get(item.function)
    addresses = frame.registers[item.base] + _displacements(frame, item)
    valid = _unmasked(frame, item)
    operand = np.broadcast_to(frame.read(item.tile, item.shape, size), item.shape)[valid]
    offsets = frame.offsets_in_memory(addresses, valid, size, written=True)
    other = np.zeros(0)
    if item.function is AtomicFunction.COMPARE_SWAP:
        other = np.broadcast_to(frame.read(item.other, item.shape, size), item.shape)[valid]
    place = frame.addresses(item.previous, item.shape, size)
    previous = frame.scratchpad[frame._bytes_at(place, size)].view(f"u{size}")[..., 0]
    old = np.zeros(len(operand), f"u{size}")
    for number, where in enumerate(offsets):
        before = frame.memory.data[where].view(f"u{size}")
        after = operand[number : number + 1]
        if item.function is AtomicFunction.COMPARE_SWAP:
            after = other[number : number + 1] if before[0] == after[0] else before
        elif combine is not None:
            operands = (from_storage(dtype, v.view(STORAGE[dtype])) for v in (before, after))
            after = _stored(dtype, MEANING[combine](BUILDER, dtype, *operands))
        old[number] = before[0]
        frame.memory.data[where] = np.ascontiguousarray(after).view(np.uint8)
    previous[valid] = old
    frame.write(item.previous, item.shape, previous)


# --------------------------------------------------------------------------------------------------- matrix


def _matrix_multiply(frame: Frame, item: isa.MatrixMultiply) -> None:
    left, right = item.lhs_dtype, item.rhs_dtype
    accumulator, *factors = operands(item)
    lhs, rhs = (frame.values_of(use) for use in factors)
    total = np.zeros(accumulator.extents, STORAGE[accumulator.dtype])
    if accumulator.reads:
        total = np.broadcast_to(frame.values_of(accumulator), accumulator.extents)
    if frame.analogue is not None and left is not DType.F64:
        total = _analogue_product(frame.analogue, item, lhs, rhs, total)
        frame.write(item.accumulator, accumulator.extents, _stored(accumulator.dtype, total))
        return
    for step in range(item.shape[3]):
        a = lhs[..., step : step + 1] if lhs.shape[3] > 1 else lhs
        b = rhs[..., step : step + 1] if rhs.shape[3] > 1 else rhs
        total = multiply_accumulate(BUILDER, left, right, *_spread(a, b, total))
    frame.write(item.accumulator, accumulator.extents, _stored(accumulator.dtype, total))


def _analogue_product(spec: AnalogueProduct, item: isa.MatrixMultiply, lhs: Array, rhs: Array, total: Array) -> Array:
    batch, m, n, k = item.shape
    left, right = (
        (values if dtype is DType.I8 else widen(BUILDER, dtype, np.ascontiguousarray(values))).astype(np.float32)
        for values, dtype in ((lhs, item.lhs_dtype), (rhs, item.rhs_dtype))
    )
    summed = analogue.multiply_accumulate(
        spec,
        np.broadcast_to(left, (batch, m, 1, k))[:, :, 0],
        np.broadcast_to(right, (batch, 1, n, k))[:, 0],
        total[..., 0],
    )
    return summed[..., None]


# --------------------------------------------------------------------------------------------------- vector


def _map(frame: Frame, item: isa.Map) -> None:
    result, *sources = operands(item)
    value = MEANING[item.function](BUILDER, item.dtype, *_spread(*map(frame.values_of, sources)))
    frame.write(item.result, result.extents, _stored(result.dtype, value))


def _convert(frame: Frame, item: isa.Convert) -> None:
    values = frame.values(item.a, item.shape, item.dtype)
    result = convert(BUILDER, values, item.dtype, item.result_dtype, item.unsigned, item.rounding)
    frame.write(item.result, item.shape, _stored(item.result_dtype, result))


def _reduce(frame: Frame, item: isa.Reduce) -> None:
    dtype, function = item.dtype, item.function
    values = np.broadcast_to(frame.values(item.a, item.shape, dtype), item.shape)
    extent = item.shape[3]
    width = min(extent, REDUCTION_PARTIALS)
    partial = values[..., :width].copy()
    for start in range(width, extent, width):
        part = values[..., start : start + width]
        count = part.shape[3]
        partial[..., :count] = MEANING[function](BUILDER, dtype, *_spread(partial[..., :count], part))
    while width > 1:
        half = (width + 1) // 2
        low, high = partial[..., : width - half], partial[..., half:width]
        partial[..., : width - half] = MEANING[function](BUILDER, dtype, *_spread(low, high))
        width = half
    frame.write(item.result, operands(item)[0].extents, _stored(dtype, partial[..., :1]))


def _iota(frame: Frame, item: isa.Iota) -> None:
    total: Array = np.full((1, 1, 1, 1), frame.registers[item.start], np.int64)
    for index, step in zip(np.ogrid[tuple(map(slice, item.shape))], item.steps, strict=True):
        total = total + index * frame.registers[step]
    frame.write(item.result, item.shape, total.astype(f"u{item.dtype.size_bytes}"))


def _gather(frame: Frame, item: isa.Gather) -> None:
    size = item.dtype.size_bytes
    index = frame.values(item.index, item.shape, item.index_dtype).astype(np.int64)
    addresses = frame.addresses(item.source, item.shape, size) + index * (item.stride * size)
    picked = frame.read_at(addresses, size)
    frame.write(item.result, item.shape, picked)


def _sync(frame: Frame, item: isa.Sync) -> None:
    """Its waits and signals are all it does."""


EXECUTE: dict[type, Callable[[Frame, Any], None]] = {
    isa.Load: _load,
    isa.LoadIndexed: _load_indexed,
    isa.Store: _store,
    isa.StoreIndexed: _store_indexed,
    isa.Atomic: _atomic,
    isa.MatrixMultiply: _matrix_multiply,
    isa.Map1: _map,
    isa.Map2: _map,
    isa.Map3: _map,
    isa.Convert: _convert,
    isa.Reduce: _reduce,
    isa.Iota: _iota,
    isa.Gather: _gather,
    **dict.fromkeys(isa.SYNC.values(), _sync),
}

# ------------------------------------------------------------------------------------------------- sequencer


def _next_program(core: SequencerState, frame: Frame, item: isa.NextProgram) -> None:
    core.set_register(item.destination, int(bool(core.programs)))
    if core.programs:
        core.program_id = core.programs.popleft()


def _program_id(core: SequencerState, frame: Frame, item: isa.ProgramId) -> None:
    core.set_register(item.destination, core.program_id[item.axis])


def _grid_size(core: SequencerState, frame: Frame, item: isa.GridSize) -> None:
    core.set_register(item.destination, core.grid[item.axis])


def _argument(core: SequencerState, frame: Frame, item: isa.Argument) -> None:
    if item.index >= len(core.arguments):
        raise AccessFault(frame.place, f"argument {item.index} of {len(core.arguments)} is read")
    core.set_register(item.destination, core.arguments[item.index])


def _register_value(dtype: DType, value: int) -> Array:
    """The low bits of a register as a value; of an i1 the lowest bit."""
    if dtype is DType.I1:
        return np.array([value & 1 != 0])
    return _bits(value, dtype.size_bytes).reshape(1).view(STORAGE[dtype])


def _scalar(core: SequencerState, frame: Frame, item: isa.Scalar) -> None:
    function, dtype = item.function, item.dtype
    values = [_register_value(dtype, frame.registers[r]) for r in (item.a, item.b)[: function.arity]]
    core.set_register(item.destination, int(MEANING[function](BUILDER, dtype, *values)[0]))


def _scalar_select(core: SequencerState, frame: Frame, item: isa.ScalarSelect) -> None:
    chosen = item.a if frame.registers[item.condition] != 0 else item.b
    core.set_register(item.destination, frame.registers[chosen])


def _scalar_convert(core: SequencerState, frame: Frame, item: isa.ScalarConvert) -> None:
    bits = 1 if item.dtype is DType.I1 else item.dtype.bits
    low = frame.registers[item.a] % (1 << bits)
    is_negative = not item.unsigned and low >> (bits - 1)
    core.set_register(item.destination, low - (1 << bits) if is_negative else low)


def _rotate(core: SequencerState, frame: Frame, item: isa.Rotate) -> None:
    value = frame.registers[item.register] + item.step
    core.set_register(item.register, 0 if value >= item.limit else value)


def _scalar_load(core: SequencerState, frame: Frame, item: isa.ScalarLoad) -> None:
    address = np.array([item.address + frame.registers[item.offset]], np.int64)
    bits = frame.read_at(address, item.dtype.size_bytes)
    if item.dtype is DType.I1:
        core.set_register(item.destination, int(bits[0] != 0))
    else:
        value = bits if item.dtype.is_float else bits.view(STORAGE[item.dtype])
        core.set_register(item.destination, int(value[0]))


def _scalar_store(core: SequencerState, frame: Frame, item: isa.ScalarStore) -> None:
    address = np.array([item.address + frame.registers[item.offset]], np.int64)
    value = frame.registers[item.a]
    frame.write_at(address, _bits(value & 1 if item.dtype is DType.I1 else value, item.dtype.size_bytes).reshape(1))


def _trap(core: SequencerState, frame: Frame, item: isa.Trap) -> None:
    messages = core.program.messages
    sentence = messages[item.code] if item.code < len(messages) else f"trap {item.code}"
    raise Trapped(frame.place, sentence, item.code)


def _nothing(core: SequencerState, frame: Frame, item: isa.Wait | isa.Drain) -> None:
    """`wait` and `drain` are done when they can be."""


STEP: dict[type, Callable[[SequencerState, Frame, Any], None]] = {
    isa.NextProgram: _next_program,
    isa.ProgramId: _program_id,
    isa.GridSize: _grid_size,
    isa.Argument: _argument,
    isa.Workspace: lambda core, frame, item: core.set_register(item.destination, core.workspace),
    isa.LoadImmediate: lambda core, frame, item: core.set_register(item.destination, item.value),
    isa.Scalar: _scalar,
    isa.ScalarSelect: _scalar_select,
    isa.ScalarConvert: _scalar_convert,
    isa.Rotate: _rotate,
    isa.ScalarLoad: _scalar_load,
    isa.ScalarStore: _scalar_store,
    isa.Wait: _nothing,
    isa.Drain: _nothing,
    isa.Trap: _trap,
}
