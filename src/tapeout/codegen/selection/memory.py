"""Loads, stores and atomics, cut to what a descriptor of the DMA engines holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tapeout.codegen.access_patterns import aligned, aligned_to, pieces
from tapeout.codegen.engine_functions import (
    ATOMICS,
)
from tapeout.codegen.machine import (
    ANYWHERE,
    FieldValue,
    Place,
    Register,
    View,
)
from tapeout.codegen.selection.selector import Handler, Selector, Tile
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, MAX_EXTENT, Instruction
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import AtomicFunction, Function
from tapeout.passes.raise_accesses import Access, Scalar
from tapeout.tile.ir import Operation

Bounds = tuple[Register | None, ...]
Offsets = tuple[int, int, int]


@dataclass
class _Transfer:
    """Loads or stores of a tile, cut to what a descriptor holds. Strides in registers count bytes of HBM; those of
    tile, index and mask count elements of the scratchpad."""

    selector: Selector
    access: Access
    dtype: DType
    is_load: bool
    shape: tuple[int, ...]
    strides: tuple[Register, ...]
    fill: Register
    tile: Tile
    tile_strides: tuple[int, ...]
    index: View | None
    index_strides: tuple[int, ...]
    mask: View | None
    mask_strides: tuple[int, ...]

    def __post_init__(self) -> None:
        self.extents = list(self.shape)  # of the part that is run now

    def descend(self, dims: list[int], base: Register, offsets: Offsets, low: Bounds, high: Bounds) -> None:
        """`dims` are the dimensions still to run; too long ones, and the shortest beyond four, are unrolled."""
        long = next((d for d in dims if self.extents[d] > MAX_EXTENT), None)
        if long is not None:
            self.unroll(long, MAX_EXTENT // 2 + 1, dims, base, offsets, low, high)
        elif len(dims) > DIMENSIONS:
            self.unroll(min(dims, key=lambda d: self.extents[d]), 1, dims, base, offsets, low, high)
        else:
            self.emit(dims, base, offsets, low, high)

    def unroll(
        self, d: int, step: int, dims: list[int], base: Register, offsets: Offsets, low: Bounds, high: Bounds
    ) -> None:
        selector, extent = self.selector, self.extents[d]
        self.extents[d] = step
        for start in range(0, extent, step):
            shifted = selector.add(base, selector.multiply(self.strides[d], start))
            moved = (
                offsets[0] + start * self.tile_strides[d],
                offsets[1] + start * self.index_strides[d],
                offsets[2] + start * self.mask_strides[d],
            )
            lower, upper = list(low), list(high)
            if step > 1:
                back = selector.constant(-start)
                for bounds in (lower, upper):
                    bound = bounds[d]
                    bounds[d] = None if bound is None else selector.add(bound, back)
                self.descend(dims, shifted, moved, tuple(lower), tuple(upper))
                continue
            rest = [x for x in dims if x != d]
            lower[d] = upper[d] = None
            for condition in self.conditions(start, low[d], high[d]):
                end = upper[rest[0]] or selector.constant(self.shape[rest[0]])
                upper[rest[0]] = selector.scalar_op(Function.MUL, DType.I64, end, condition)
            self.descend(rest, shifted, moved, tuple(lower), tuple(upper))
        self.extents[d] = extent

    def conditions(self, index: int, low: Register | None, high: Register | None) -> Iterator[Register]:
        """Registers that are 1 if an index is within bounds, else 0."""
        here = self.selector.constant(index)
        if low is not None:
            yield self.selector.scalar_op(Function.LESS_EQUAL, DType.I64, low, here)
        if high is not None:
            yield self.selector.scalar_op(Function.LESS, DType.I64, here, high)

    def emit(self, dims: list[int], base: Register, offsets: Offsets, low: Bounds, high: Bounds) -> None:
        """One instruction over at most four dimensions."""
        selector = self.selector
        zero = selector.constant(0)
        padding = DIMENSIONS - len(dims)

        def registers(values: Bounds) -> tuple[Register, ...]:
            return (zero,) * padding + tuple(values[d] or zero for d in dims)

        def place(view: Tile | None, view_strides: tuple[int, ...], offset: int) -> Place | Register:
            if view is None or isinstance(view, Register):
                return zero if view is None else view
            own = (0,) * padding + tuple(view_strides[d] for d in dims)
            return selector.place(view, view.dtype, offset, own)

        # An upper bound that is the constant 0 must not look like register 0, which means no bound.
        shown = tuple(
            selector.constant(-1) if bound is not None and bound.constant == 0 and d in dims else bound
            for d, bound in enumerate(high)
        )
        fields: dict[str, FieldValue] = {
            "dtype": self.dtype,
            "base": base,
            "strides": registers(self.strides),
            "low": registers(low),
            "high": registers(shown),
            "shape": (1,) * padding + tuple(self.extents[d] for d in dims),
            "tile": place(self.tile, self.tile_strides, offsets[0]),
        }
        if self.is_load:
            fields["fill"] = self.fill
        kind: type[Instruction] = isa.Load if self.is_load else isa.Store
        if self.index is not None or self.mask is not None:
            kind = isa.LoadIndexed if self.is_load else isa.StoreIndexed
            fields["index"] = place(self.index, self.index_strides, offsets[1])
            fields["mask"] = place(self.mask, self.mask_strides, offsets[2])
            fields["index_dtype"] = DType.I64 if self.index is None else self.index.dtype
            fields["scale"] = self.access.scale_bytes
        selector.emit(kind, memory=self.access.root if self.access.root is not None else ANYWHERE, **fields)


def _transfer(
    selector: Selector, access: Access, tile: Tile, dtype: DType, shape: tuple[int, ...], is_load: bool
) -> None:
    """Emits loads or stores of a tile."""
    base = selector.register(access.base)
    strides = tuple(selector.register(s) for s in access.strides_bytes)
    low: Bounds = tuple(None if b is None else selector.register(b) for b in access.low)
    high: Bounds = tuple(None if b is None else selector.register(b) for b in access.high)
    fill = _fill(selector, access, dtype)
    index = None if access.index is None else selector.view(access.index)
    mask = None if access.mask is None else selector.view(access.mask)
    if not shape:
        shape, strides, low, high = (1,), (selector.constant(0),), (None,), (*high, None)[:1]
        tile = tile if isinstance(tile, Register) else replace(tile, strides=(0,), shape=(1,))
        index = None if index is None else replace(index, strides=(0,), shape=(1,))
    none = (0,) * len(shape)
    transfer = _Transfer(
        selector,
        access,
        dtype,
        is_load,
        shape,
        strides,
        fill,
        tile,
        none if isinstance(tile, Register) else aligned(tile.strides, shape),
        index,
        none if index is None else aligned_to(index, shape),
        mask,
        none if mask is None else aligned_to(mask, shape),
    )
    wanted = [d for d in range(len(shape)) if shape[d] > 1 or low[d] is not None or high[d] is not None]
    transfer.descend(wanted or [0], base, (0, 0, 0), low, high)


def _fill(selector: Selector, access: Access, dtype: DType) -> Register:
    """The register with the value of what lies outside bounds."""
    if access.fill is None:
        return selector.constant(0)
    filler = selector.bindings[access.fill]
    if isinstance(filler, Register):
        return filler
    fill = Register()
    place = Place(filler.buffer, filler.offset * dtype.size_bytes, (0,) * DIMENSIONS)
    selector.emit(isa.ScalarLoad, destination=fill, address=place, dtype=dtype)
    return fill


def load(selector: Selector, operation: Operation) -> None:
    result = operation.result
    if operation.attributes.get("volatile"):  # read for what another program may have written
        selector.order_free = False
    out = selector.result_view(result)
    _transfer(selector, operation.attributes["access"], out, result.type.dtype, result.type.shape, is_load=True)
    selector.bindings[result] = out


def store(selector: Selector, operation: Operation) -> None:
    value = operation.operands[0]
    _transfer(
        selector,
        operation.attributes["access"],
        selector.tile(value),
        value.type.dtype,
        value.type.shape,
        is_load=False,
    )


def atomic(selector: Selector, operation: Operation) -> None:
    """Element addresses as an index tile of bytes, the whole mask as a tile."""
    access: Access = operation.attributes["access"]
    count = operation.attributes["value_count"]
    values = operation.operands[:count]
    result = operation.result
    shape, dtype = result.type.shape, result.type.dtype
    selector.order_free = False
    function = AtomicFunction.COMPARE_SWAP if count == 2 else ATOMICS[operation.attributes["words"][0]]
    if dtype.is_float and function not in (
        AtomicFunction.ADD,
        AtomicFunction.EXCHANGE,
        AtomicFunction.COMPARE_SWAP,
    ):
        raise selector.unsupported(f"atomic {function.label}", dtype)
    index: View = selector.new_view(DType.I64, shape)
    strides = tuple(selector.register(s) for s in access.strides_bytes)
    zero = selector.constant(0)
    if shape and len([e for e in shape if e > 1]) > DIMENSIONS:
        raise selector.unsupported(f"an atomic on a tile of {len(shape)} dimensions", hint=f"{DIMENSIONS} are possible")
    padding = DIMENSIONS - len(shape)
    selector.emit(
        isa.Iota,
        dtype=DType.I64,
        start=zero,
        steps=(zero,) * padding + strides,
        shape=(1,) * padding + shape,
        result=selector.place(index, DType.I64, 0, (0,) * padding + index.strides),
    )
    if access.index is not None:
        residual = selector.view(access.index)
        residual = replace(residual, strides=aligned_to(residual, shape), shape=shape)
        wide = selector.convert(residual, residual.dtype, selector.new_view(DType.I64, shape))
        scaled = selector.compute(Function.MUL, DType.I64, wide, selector.constant(access.scale_bytes), shape=shape)
        index = selector.compute(Function.ADD, DType.I64, index, scaled, shape=shape)
    mask: Tile = zero
    for d, (low, high) in enumerate(zip(access.low, access.high, strict=False)):
        if (low is not None or high is not None) and shape:
            mask = _bound_mask(selector, shape, d, low, high, mask)
    if not shape and access.high and access.high[0] is not None:
        mask = selector.copy(selector.register(access.high[0]), selector.new_view(DType.I1, ()))
    if access.mask is not None:
        tile = selector.view(access.mask)
        tile = replace(tile, strides=aligned_to(tile, shape), shape=shape)
        mask = tile if mask is zero else selector.compute(Function.AND, DType.I1, mask, tile, shape=shape)
    out = selector.result_view(result)
    operands: dict[str, tuple[Tile, DType]] = {
        "tile": (selector.tile(values[0]), dtype),
        "other": (selector.tile(values[1]) if count == 2 else zero, dtype),
        "index": (index, DType.I64),
        "mask": (mask, DType.I1),
        "previous": (out, dtype),
    }
    base = selector.register(access.base)
    zeros = (0,) * len(shape)
    all_strides = [zeros if isinstance(t, Register) else aligned(t.strides, shape) for t, _ in operands.values()]
    for extents, offsets, piece_strides in pieces(shape, all_strides):
        places = {
            name: selector.place(tile, own_dtype, offset, own)
            for (name, (tile, own_dtype)), offset, own in zip(operands.items(), offsets, piece_strides, strict=True)
        }
        selector.emit(
            isa.Atomic,
            memory=access.root if access.root is not None else ANYWHERE,
            dtype=dtype,
            index_dtype=DType.I64,
            function=function,
            scale=1,
            base=base,
            shape=extents,
            **places,
        )
    selector.bindings[result] = out


def _bound_mask(
    selector: Selector, shape: tuple[int, ...], d: int, low: Scalar | None, high: Scalar | None, mask: Tile
) -> Tile:
    """i1 tile: low <= i_d < high, joined with what is there."""
    position = selector.new_view(DType.I64, (shape[d],))
    one, zero = selector.constant(1), selector.constant(0)
    selector.emit(
        isa.Iota,
        dtype=DType.I64,
        start=zero,
        steps=(zero, zero, zero, one),
        shape=(1, 1, 1, shape[d]),
        result=selector.place(position, DType.I64, 0, (0, 0, 0, 1)),
    )
    strides = tuple(1 if k == d else 0 for k in range(len(shape)))
    along = replace(position, strides=strides, shape=shape)
    for bound, swapped in ((high, False), (low, True)):
        if bound is None:
            continue
        register = selector.register(bound)
        function = Function.LESS_EQUAL if swapped else Function.LESS
        operands: tuple[Tile, Tile] = (register, along) if swapped else (along, register)
        inside = selector.compute(function, DType.I64, *operands, shape=shape)
        joined = isinstance(mask, View)
        mask = selector.compute(Function.AND, DType.I1, mask, inside, shape=shape) if joined else inside
    return mask


HANDLERS: dict[str, Handler] = {
    "tile.load": load,
    "tile.store": store,
    "tile.atomic": atomic,
}
