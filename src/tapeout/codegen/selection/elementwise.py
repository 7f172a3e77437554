"""Element by element: functions, comparisons and conversions of tiles, and the tiles that start from nothing."""

from dataclasses import replace

from tapeout.codegen.access_patterns import pieces
from tapeout.codegen.engine_functions import (
    BINARY,
    CASTS,
    COMPARE_FLOAT,
    COMPARE_INTEGER,
    UNARY,
    binary_function,
)
from tapeout.codegen.machine import (
    View,
)
from tapeout.codegen.selection import scalars
from tapeout.codegen.selection.selector import Handler, Selector, Tile
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function, Rounding
from tapeout.tile.ir import Operation


def elementwise(selector: Selector, operation: Operation) -> None:
    name, result = operation.name, operation.result
    scalar = not selector.shape_of(result.type) and selector.combine_shape is None
    if scalar and not result.type.is_float and not any(o.type.is_float for o in operation.operands):
        selector.bindings[result] = scalars.scalar(selector, operation)
        return
    sources = [selector.tile(o) for o in operation.operands]
    dtype = operation.operands[0].type.dtype if operation.operands else result.type.dtype
    selector.bindings[result] = _compute(selector, operation, name, sources, dtype)


def _compute(selector: Selector, operation: Operation, name: str, sources: list[Tile], dtype: DType) -> Tile:
    result_type = operation.result.type
    shape = selector.shape_of(result_type)
    out = selector.result_view(operation.result)
    if name in BINARY:
        return selector.map(binary_function(name, dtype), dtype, sources, out)
    if name in UNARY:
        if dtype in UNARY[name].dtypes:
            return selector.map(UNARY[name], dtype, sources, out)
        raise selector.unsupported(name, dtype)
    if name == "math.fma":
        return selector.map(Function.FMA, dtype, sources, out)
    if name == "arith.cmpi":
        function, swapped = COMPARE_INTEGER[operation.attributes["words"][0]]
        return selector.map(function, dtype, sources[::-1] if swapped else sources, out)
    if name == "arith.cmpf":
        return _compare_floats(selector, operation.attributes["words"][0], dtype, sources, shape, out)
    if name == "arith.select":
        return selector.map(Function.SELECT, operation.operands[1].type.dtype, sources, out)
    if name == "tt.addptr":
        pointee = operation.operands[0].type.pointee
        assert pointee is not None
        offset = selector.convert(sources[1], operation.operands[1].type.dtype, selector.new_view(DType.I64, shape))
        scaled = selector.compute(Function.MUL, DType.I64, offset, selector.constant(pointee.size_bytes), shape=shape)
        return selector.map(Function.ADD, DType.I64, [sources[0], scaled], out)
    if name in CASTS:
        return _cast(selector, operation, name, sources[0], dtype, out)
    if name == "math.absi":
        zero = selector.constant(0)
        negated = selector.compute(Function.SUB, dtype, zero, sources[0], shape=shape)
        return selector.map(Function.MAX_SIGNED, dtype, [sources[0], negated], out)
    if name == "tt.clampf":
        nan_wins = operation.attributes["propagateNan"] == "all"
        highest, lowest = (
            (Function.MAXIMUM, Function.MINIMUM) if nan_wins else (Function.MAX_NUMBER, Function.MIN_NUMBER)
        )
        low = selector.compute(highest, dtype, sources[0], sources[1], shape=shape)
        return selector.map(lowest, dtype, [low, sources[2]], out)
    label = operation.attributes.get("symbol", name)
    what = f"function {label}" if label != name else f"operation {name}"
    raise selector.unsupported(what, dtype)


def _compare_floats(
    selector: Selector, predicate: str, dtype: DType, sources: list[Tile], shape: tuple[int, ...], out: View
) -> Tile:
    a, b = sources
    one = selector.constant(1)
    if predicate in ("true", "false"):
        return selector.copy(selector.constant(int(predicate == "true")), out)
    if predicate in ("one", "ueq"):
        less = selector.compute(Function.LESS, dtype, a, b, shape=shape)
        greater = selector.compute(Function.LESS, dtype, b, a, shape=shape)
        if predicate == "one":
            return selector.map(Function.OR, DType.I1, [less, greater], out)
        either = selector.compute(Function.OR, DType.I1, less, greater, shape=shape)
        return selector.map(Function.XOR, DType.I1, [either, one], out)
    if predicate in ("ord", "uno"):
        function, joint = (Function.EQUAL, Function.AND) if predicate == "ord" else (Function.NOT_EQUAL, Function.OR)
        first = selector.compute(function, dtype, a, a, shape=shape)
        second = selector.compute(function, dtype, b, b, shape=shape)
        return selector.map(joint, DType.I1, [first, second], out)
    function, swapped, inverted = COMPARE_FLOAT[predicate]
    ordered = [b, a] if swapped else [a, b]
    if not inverted:
        return selector.map(function, dtype, ordered, out)
    plain = selector.compute(function, dtype, *ordered, shape=shape)
    return selector.map(Function.XOR, DType.I1, [plain, one], out)


def _cast(selector: Selector, operation: Operation, name: str, source: Tile, dtype: DType, out: View) -> Tile:
    rounding = Rounding.NEAREST_EVEN
    if out.dtype in (DType.F8E4M3, DType.F8E5M2):
        rounding = Rounding.NEAREST_EVEN_SATURATE
    if operation.attributes.get("rounding") == "rtz":
        rounding = Rounding.TOWARD_ZERO
    unsigned = name in ("arith.extui", "arith.uitofp", "arith.fptoui")
    if name == "arith.extsi" and dtype is DType.I1:  # converted, a true i1 is 1; its sign says -1
        ones = selector.convert(source, dtype, selector.new_view(out.dtype, out.shape))
        return selector.map(Function.SUB, out.dtype, [selector.constant(0), ones], out)
    return selector.convert(source, dtype, out, unsigned, rounding)


def constant(selector: Selector, operation: Operation) -> None:
    value, result = operation.attributes["value"], operation.result
    if isinstance(value, int):
        selector.bindings[result] = selector.constant(value)
        return
    tile = selector.new_view(result.type.dtype, result.type.shape)
    for position, element in enumerate(value):
        one = replace(tile, offset=position, strides=(), shape=())
        selector.copy(selector.constant(element), one)
    selector.bindings[result] = tile


def make_range(selector: Selector, operation: Operation) -> None:
    out = selector.result_view(operation.result)
    for extents, offsets, (strides, counts) in pieces(out.shape, [out.strides, (1,) * len(out.shape)]):
        selector.emit(
            isa.Iota,
            dtype=out.dtype,
            start=selector.constant(operation.attributes["start"] + offsets[1]),
            steps=tuple(selector.constant(count) for count in counts),
            shape=extents,
            result=selector.place(out, out.dtype, offsets[0], strides),
        )
    selector.bindings[operation.result] = out


HANDLERS: dict[str, Handler] = {
    "arith.constant": constant,
    "tt.make_range": make_range,
}
