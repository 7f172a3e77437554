"""One random instruction after the other: every kind of queued instruction, on every element type."""

from dataclasses import replace
from typing import Any

import numpy as np

from tapeout.isa import (
    AccessPattern,
    AtomicFunction,
    Function,
    Operand,
    RegisterValue,
)
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import FLOAT8, MATRIX_DTYPES, accumulator_dtype
from tapeout.numerics.operations import ATOMIC_MEANING, REDUCTIONS, Rounding
from tapeout.testing.random_writing import (
    BASE,
    INPUT_BYTES,
    OUTPUT,
    SCALARS,
    TABLE,
    TABLE_BYTES,
    WORKSPACE,
    Resource,
    Shape,
    Writer,
)


class Instructions(Writer):
    """Writes random instructions, each legal by itself."""

    def _random_integer(self, bits: int) -> int:
        choices = (
            lambda: self.source.randrange(-(1 << bits - 1), 1 << bits - 1),
            lambda: self.source.randrange(-9, 10),
            lambda: 0x3F80_0000 + self.source.randrange(-5, 5),
        )
        return self.source.choice(choices)()

    def _chance(self, probability: float) -> bool:
        return self.source.random() < probability

    def _other_slots(self, count: int, *excluded: Resource) -> list[Resource]:
        return self.source.sample([slot for slot in self.slots if slot not in excluded], count)

    def _shape(self, limit: int, dimensions: int = 4) -> Shape:
        """Extents whose product is at most `limit`."""
        extents = [1, 1, 1, 1]
        for dimension in self.source.sample(range(4 - dimensions, 4), dimensions):
            most = min(limit, 70 if dimension == 3 else 6)
            if self._chance(0.3):
                most = limit
            extents[dimension] = self.source.randint(1, max(most, 1))
            limit //= extents[dimension]
        return tuple(extents)  # type: ignore[return-value]

    def _pattern(self, slot: Resource, shape: Shape, size: int, broadcast: bool = False) -> AccessPattern:
        """A pattern of distinct elements (but for broadcast dimensions) inside a slot: dimensions in any
        order, gaps between them if there is room, any of them backwards, part of the address in a
        register."""
        room = slot.size // size
        strides = [0, 0, 0, 0]
        step, reach = 1, 0
        for dimension in self.source.sample(range(4), 4):
            extent = shape[dimension]
            if broadcast and self._chance(0.25):
                continue
            needed = (extent - 1) * step
            later = np.prod([shape[d] for d in range(4) if d != dimension and strides[d] == 0], dtype=int)
            if self._chance(0.3):
                wider = step + self.source.randint(0, 3)
                if reach + (extent - 1) * wider + wider * extent * (int(later) - 1) < room:
                    step, needed = wider, (extent - 1) * wider
            strides[dimension] = step
            reach += needed
            step *= extent
        assert reach < room
        base = self.source.randrange(room - reach) if self._chance(0.5) else 0
        for dimension in range(4):
            if self._chance(0.15):
                base += (shape[dimension] - 1) * strides[dimension]
                strides[dimension] = -strides[dimension]
        address, register = slot.start + base * size, 0
        if self._chance(0.2):
            part = self.source.randint(0, address // 8) * 8
            address, register = address - part, self.constant(part)
        return AccessPattern(address, tuple(strides), register)  # type: ignore[arg-type]

    def _operand(self, shape: Shape, dtype: DType, *excluded: Resource) -> tuple[Operand, list[Resource]]:
        """A source: mostly a tile, sometimes a register."""
        if self._chance(0.15):
            return RegisterValue(self.source.choice(SCALARS)), []
        (slot,) = self._other_slots(1, *excluded)
        return self._pattern(slot, shape, dtype.size_bytes, broadcast=True), [slot]

    def _map(self) -> None:
        arity = self.source.choices((1, 2, 3), (4, 5, 2))[0]
        function = self.source.choice([f for f in Function if f.arity == arity])
        dtype = self.source.choice([d for d in function.dtypes if d in self.dtypes])
        result_dtype = function.result_dtype(dtype)
        size = max(dtype.size_bytes, result_dtype.size_bytes)
        shape = self._shape(self.slot_bytes // size)
        (slot,) = self._other_slots(1)
        result = self._pattern(slot, shape, result_dtype.size_bytes)
        operands: list[Operand] = []
        reads: list[Resource] = []
        for operand_dtype in function.operand_dtypes(dtype):
            if operand_dtype.size_bytes == result_dtype.size_bytes and self._chance(0.15):
                operands.append(result)
                reads.append(slot)
                continue
            operand, slots = self._operand(shape, operand_dtype, slot)
            operands.append(operand)
            reads += slots
        kind = (isa.Map1, isa.Map2, isa.Map3)[function.arity - 1]
        named: dict[str, Any] = dict(zip("abc", operands, strict=False))
        self.queue(kind(function=function, dtype=dtype, shape=shape, result=result, **named), reads, [slot])

    def _convert(self) -> None:
        dtype, result_dtype = self.source.choices(self.dtypes, k=2)
        shape = self._shape(self.slot_bytes // max(dtype.size_bytes, result_dtype.size_bytes))
        (slot,) = self._other_slots(1)
        result = self._pattern(slot, shape, result_dtype.size_bytes)
        operand, reads = self._operand(shape, dtype, slot)
        self.queue(
            isa.Convert(
                dtype=dtype,
                result_dtype=result_dtype,
                unsigned=self._chance(0.5),
                rounding=self.source.choice(list(Rounding)),
                shape=shape,
                result=result,
                a=operand,
            ),
            reads,
            [slot],
        )

    def _reduce(self) -> None:
        function = self.source.choice(REDUCTIONS)
        dtype = self.source.choice([d for d in function.dtypes if d in self.dtypes])
        shape = self._shape(self.slot_bytes // dtype.size_bytes)
        slot, other = self._other_slots(2)
        result = self._pattern(slot, (*shape[:3], 1), dtype.size_bytes)
        result = replace(result, strides=(*result.strides[:3], 0))
        a = self._pattern(other, shape, dtype.size_bytes, broadcast=True)
        self.queue(isa.Reduce(function=function, dtype=dtype, shape=shape, result=result, a=a), [other], [slot])

    def _iota(self) -> None:
        dtype = self.source.choice((DType.I8, DType.I16, DType.I32, DType.I64))
        shape = self._shape(self.slot_bytes // dtype.size_bytes)
        (slot,) = self._other_slots(1)
        steps = tuple(self.source.choice((0, *SCALARS)) for _ in range(4))
        result = self._pattern(slot, shape, dtype.size_bytes)
        start = self.source.choice((0, *SCALARS))
        self.queue(isa.Iota(dtype=dtype, start=start, steps=steps, shape=shape, result=result), [], [slot])

    def _indices(self, shape: Shape, dtype: DType, limit: int, *excluded: Resource) -> tuple[AccessPattern, Resource]:
        """A tile of indices in 0..limit-1, limit a power of two, made from whatever lies in a slot."""
        slot, source = self._other_slots(2, *excluded)
        pattern = self._pattern(slot, shape, dtype.size_bytes)
        a = self._pattern(source, shape, dtype.size_bytes, broadcast=True)
        mask = RegisterValue(self.constant(limit - 1))
        self.queue(
            isa.Map2(function=Function.AND, dtype=dtype, shape=shape, result=pattern, a=a, b=mask),
            [source],
            [slot],
        )
        return pattern, slot

    def _gather(self) -> None:
        dtype = self.source.choice(self.dtypes)
        index_dtype = self.source.choice((DType.I8, DType.I16, DType.I32, DType.I64))
        size = dtype.size_bytes
        shape = self._shape(self.slot_bytes // max(size, index_dtype.size_bytes) // 2)
        slot, source = self._other_slots(2)
        limit = 1 << self.source.randint(0, 6)
        stride = self.source.randint(0, self.slot_bytes // size // limit // 4)
        index, index_slot = self._indices(shape, index_dtype, limit, slot, source)
        room = self.slot_bytes // size - (limit - 1) * stride
        outer = self.source.randint(0, 2)
        strides = tuple(
            self.source.randint(0, max((room - 1) // shape[d] // 4, 0)) if d <= outer else 0 for d in range(4)
        )
        pattern = AccessPattern(source.start, strides)  # type: ignore[arg-type]
        self.queue(
            isa.Gather(
                dtype=dtype,
                index_dtype=index_dtype,
                stride=stride,
                shape=shape,
                result=self._pattern(slot, shape, size),
                source=pattern,
                index=index,
            ),
            [source, index_slot],
            [slot],
        )

    def _matrix(self) -> None:
        left = self.source.choice([d for d in MATRIX_DTYPES if d in self.dtypes])
        right = self.source.choice(FLOAT8) if left in FLOAT8 else left
        dtype = accumulator_dtype(left)
        limit = self.slot_bytes // dtype.size_bytes
        batch = self.source.choice((1, 1, 2))
        m = self.source.randint(1, min(16, limit // batch))
        n = self.source.randint(1, min(40, limit // batch // m))
        k = self.source.randint(1, min(20, self.slot_bytes // left.size_bytes // batch // max(m, n)))
        slot, left_slot, right_slot = self._other_slots(3)
        accumulator = self._pattern(slot, (batch, m, n, 1), dtype.size_bytes)
        lhs = self._pattern(left_slot, (batch, m, 1, k), left.size_bytes, broadcast=True)
        rhs = self._pattern(right_slot, (batch, 1, n, k), right.size_bytes, broadcast=True)
        self.queue(
            isa.MatrixMultiply(
                lhs_dtype=left,
                rhs_dtype=right,
                accumulate=self._chance(0.5),
                shape=(batch, m, n, k),
                accumulator=_without(accumulator, 3),
                lhs=_without(lhs, 2),
                rhs=_without(rhs, 1),
            ),
            [slot, left_slot, right_slot],
            [slot],
        )

    def _block(self, area_bytes: int, shape: Shape, size: int) -> tuple[int, tuple[int, ...], dict[str, Any]]:
        """Offset in an area, strides in bytes, and bounds as registers, such that valid elements are
        inside."""
        low, high = [0, 0, 0, 0], list(shape)
        bounds: dict[str, Any] = {"low": [0, 0, 0, 0], "high": [0, 0, 0, 0]}
        for dimension, extent in enumerate(shape):
            if self._chance(0.2):
                value = self.source.randint(-2, extent + 1)
                bounds["low"][dimension], low[dimension] = self.constant(value), max(value, 0)
            if self._chance(0.2):
                value = self.source.randint(-1, extent + 3)
                bounds["high"][dimension], high[dimension] = self.constant(value), min(value, extent)
        strides, step, first, last = [0, 0, 0, 0], 1, 0, 0
        for dimension in self.source.sample(range(4), 4):
            step_here = step * self.source.choice((1, 1, 1, 2, -1, 0) if shape[dimension] > 1 else (0, 1))
            strides[dimension] = step_here * size
            if low[dimension] < high[dimension]:
                ends = (low[dimension] * step_here * size, (high[dimension] - 1) * step_here * size)
                first, last = first + min(ends), last + max(ends)
            step = max(abs(step_here) * shape[dimension], step)
        if last - first + size > area_bytes:  # a row-major block always fits
            strides, step = [0, 0, 0, 0], size
            for dimension in (3, 2, 1, 0):
                strides[dimension], step = step, step * shape[dimension]
            first, last = 0, step - size
        offset = self.source.randrange(0, (area_bytes - (last - first) - size) // size + 1) * size - first
        bounds = {name: tuple(values) for name, values in bounds.items()}
        return offset, tuple(strides), bounds

    def _address(self, base: int, offset: int) -> int:
        register = self.fresh()
        self.scalar(register, Function.ADD, base, self.constant(offset))
        return register

    def _stride_registers(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.constant(stride) if stride else 0 for stride in strides)

    def _load(self) -> None:
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        shape = self._shape(self.slot_bytes // size)
        (slot,) = self._other_slots(1)
        base, area, reads = self.source.choice(
            (
                (BASE, INPUT_BYTES, []),
                (OUTPUT, self.output.size, [self.output]),
                (TABLE, TABLE_BYTES, [self.table]),
            )
        )
        if int(np.prod(shape)) * size > area:
            base, area, reads = BASE, INPUT_BYTES, []
        offset, strides, bounds = self._block(area, shape, size)
        self.queue(
            isa.Load(
                dtype=dtype,
                base=self._address(base, offset),
                strides=self._stride_registers(strides),
                fill=self.source.choice((0, *SCALARS)),
                shape=shape,
                tile=self._pattern(slot, shape, size),
                **bounds,
            ),
            reads,
            [slot],
        )

    def _store(self) -> None:
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        shape = self._shape(min(self.slot_bytes, self.output.size) // size)
        operand, reads = self._operand(shape, dtype)
        offset, strides, bounds = self._block(self.output.size, shape, size)
        self.queue(
            isa.Store(
                dtype=dtype,
                base=self._address(OUTPUT, offset),
                strides=self._stride_registers(strides),
                shape=shape,
                tile=operand,
                **bounds,
            ),
            reads,
            [self.output],
        )

    def _spill(self) -> None:
        """To this core's workspace and back."""
        size_bytes = self.slot_bytes
        source, target = self._other_slots(2)
        common: dict[str, Any] = {
            "dtype": DType.I8,
            "base": WORKSPACE,
            "strides": (0, 0, 0, self.constant(1)),
            "shape": (1, 1, 1, size_bytes),
        }
        tile = AccessPattern(source.start, (0, 0, 0, 1))
        self.queue(isa.Store(tile=tile, **common), [source], [self.workspace])
        tile = AccessPattern(target.start, (0, 0, 0, 1))
        self.queue(isa.Load(tile=tile, **common), [self.workspace], [target])

    def _indexed(self, area_bytes: int, *excluded: Resource) -> tuple[Shape, int, dict[str, Any], list[Resource]]:
        """Return what load_indexed and store_indexed share; offset of the block in the area."""
        dtype = self.source.choice(list(DType))
        size = dtype.size_bytes
        index_dtype = self.source.choice((DType.I32, DType.I64))
        shape = self._shape(self.slot_bytes // 8 // 2)
        index, index_slot = self._indices(shape, index_dtype, 8, *excluded)
        mask: Operand = RegisterValue(0)
        reads = [index_slot]
        if self._chance(0.6):
            (mask_slot,) = self._other_slots(1, *excluded)
            mask = self._pattern(mask_slot, shape, 1, broadcast=True)
            reads.append(mask_slot)
        scale = size * self.source.randint(0, 3)
        offset, strides, bounds = self._block(area_bytes - 7 * scale, shape, size)
        fields = {
            "dtype": dtype,
            "index_dtype": index_dtype,
            "scale": scale,
            "strides": self._stride_registers(strides),
            "shape": shape,
            "index": index,
            "mask": mask,
            **bounds,
        }
        return shape, offset, fields, reads

    def _load_indexed(self) -> None:
        (slot,) = self._other_slots(1)
        shape, offset, fields, reads = self._indexed(INPUT_BYTES, slot)
        self.queue(
            isa.LoadIndexed(
                base=self._address(BASE, offset),
                fill=self.source.choice((0, *SCALARS)),
                tile=self._pattern(slot, shape, fields["dtype"].size_bytes),
                **fields,
            ),
            reads,
            [slot],
        )

    def _store_indexed(self) -> None:
        shape, offset, fields, reads = self._indexed(self.output.size)
        operand, slots = self._operand(shape, fields["dtype"])
        self.queue(
            isa.StoreIndexed(base=self._address(OUTPUT, offset), tile=operand, **fields),
            reads + slots,
            [self.output],
        )

    def _atomic(self) -> None:
        function = self.source.choice(list(AtomicFunction))
        combine = ATOMIC_MEANING.get(function)
        dtype = self.source.choice([d for d in (combine.dtypes if combine else self.dtypes) if d in self.dtypes])
        shape = self._shape(min(self.slot_bytes // 8, 64))
        (slot,) = self._other_slots(1)
        index_dtype = self.source.choice((DType.I32, DType.I64))
        index, index_slot = self._indices(shape, index_dtype, 8, slot)
        tile, tile_slots = self._operand(shape, dtype, slot)
        other, other_slots = self._operand(shape, dtype, slot)
        mask: Operand = RegisterValue(0)
        reads = [index_slot, slot, *tile_slots, *other_slots]
        if self._chance(0.5):
            (mask_slot,) = self._other_slots(1, slot)
            mask = self._pattern(mask_slot, shape, 1, broadcast=True)
            reads.append(mask_slot)
        self.queue(
            isa.Atomic(
                dtype=dtype,
                index_dtype=index_dtype,
                function=function,
                scale=dtype.size_bytes,
                base=TABLE,
                shape=shape,
                tile=tile,
                other=other,
                index=index,
                mask=mask,
                previous=self._pattern(slot, shape, dtype.size_bytes),
            ),
            reads,
            [slot, self.table],
        )

    def _scalars(self) -> None:
        for _ in range(self.source.randint(1, 4)):
            destination, a, b, c = self.source.choices(SCALARS, k=4)
            kind = self.source.random()
            if kind < 0.7:
                function = self.source.choice([f for f in Function if f.arity <= 2 and DType.I32 in f.dtypes])
                dtype = self.source.choice([d for d in function.dtypes if not d.is_float])
                self.scalar(destination, function, a, b, dtype)
            elif kind < 0.85:
                dtype = self.source.choice([d for d in DType if not d.is_float])
                unsigned = self._chance(0.5)
                self.emit(isa.ScalarConvert(destination=destination, a=a, dtype=dtype, unsigned=unsigned))
            else:
                self.emit(isa.ScalarSelect(destination=destination, condition=a, a=b, b=c))

    def _scalar_memory(self) -> None:
        dtype = self.source.choice(list(DType))
        (slot,) = self._other_slots(1)
        element = self.source.randrange(slot.size // dtype.size_bytes)
        address, offset = slot.start + element * dtype.size_bytes, 0
        if self._chance(0.3):
            part = self.source.randint(0, address)
            address, offset = address - part, self.constant(part)
        register = self.source.choice(SCALARS)
        where: dict[str, Any] = {"address": address, "offset": offset, "dtype": dtype}
        if self._chance(0.5):
            self.on_sequencer(isa.ScalarLoad(destination=register, **where), [slot], [])
        else:
            self.on_sequencer(isa.ScalarStore(a=register, **where), [], [slot])


def _without(pattern: AccessPattern, dimension: int) -> AccessPattern:
    strides = list(pattern.strides)
    strides[dimension] = 0
    return replace(pattern, strides=tuple(strides))  # type: ignore[arg-type]
