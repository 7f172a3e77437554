"""`tt.dot_scaled`: operands in microscaling formats, a scale for each group of elements along k, to a plain dot.

Elements times scales are exact in bf16 (float32 where an operand is f16), in which the product is then computed.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math.formula import Term, from_bits, resize, select
from tapeout.tile.ir import Operation

FLOAT4 = "e2m1"
FLOAT4_BIAS_STEP = 126
"""Difference of the exponent biases of bf16 and e2m1."""


def dot_scaled(operation: Operation, operands: list[Term]) -> Term:
    attributes = operation.attributes
    pending = list(operands)
    lhs = pending.pop(0)
    lhs_scale = pending.pop(0) if attributes["scaled"][0] else None
    rhs = pending.pop(0)
    rhs_scale = pending.pop(0) if attributes["scaled"][1] else None
    (accumulator,) = pending
    formats = attributes["lhs"], attributes["rhs"]
    dtype = DType.F32 if "fp16" in formats else DType.BF16
    rank = len(operation.result.type.shape)
    left = _elements(lhs, formats[0], rank - (1 if attributes.get("lhs_k_pack", True) else 2), dtype)
    right = _elements(rhs, formats[1], rank - (2 if attributes.get("rhs_k_pack", True) else 1), dtype)
    if lhs_scale is not None:
        left = left * _spread(lhs_scale, left.shape[-1], dtype)
    if rhs_scale is not None:
        right = right * _swap_last(_spread(rhs_scale, right.shape[-2], dtype))
    return left.emit_shaped("tt.dot", [left, right, accumulator], operation.result.type)


def _elements(tile: Term, format: str, packed_axis: int, dtype: DType) -> Term:
    """The elements of an operand in the type of the computation; of float4, two to a byte, unpacked along an axis."""
    if format != FLOAT4:
        return tile if tile.dtype is dtype else tile.emit("tt.fp_to_fp", [tile], dtype)
    halves = [_float4_as_bf16(part) for part in (tile & 15, tile.shift_right_unsigned(4))]
    rank = len(tile.shape)
    joined = halves[0].emit_shaped("tt.join", halves, halves[0].value.type.with_shape((*tile.shape, 2)))
    order = [*range(packed_axis + 1), rank, *range(packed_axis + 1, rank)]
    shape = list(tile.shape)
    shape.insert(packed_axis + 1, 2)
    beside = joined.emit_shaped(
        "tt.trans", [joined], joined.value.type.with_shape(tuple(shape)), {"order": tuple(order)}
    )
    merged = tuple(2 * extent if axis == packed_axis else extent for axis, extent in enumerate(tile.shape))
    unpacked = beside.emit_shaped("tt.reshape", [beside], beside.value.type.with_shape(merged))
    return unpacked if dtype is DType.BF16 else unpacked.emit("arith.extf", [unpacked], dtype)


def _float4_as_bf16(code: Term) -> Term:
    word = resize(code, DType.I16)
    return from_bits(((word & 7) << 6) | ((word & 8) << 12), DType.BF16) * 2.0**FLOAT4_BIAS_STEP


def _spread(scale: Term, depth: int, dtype: DType) -> Term:
    """Scales of groups along the last axis, repeated for each of the `depth` elements there."""
    if scale.dtype.is_float:
        factor = scale.emit("tt.fp_to_fp", [scale], dtype)
    else:
        code = resize(scale, DType.I16, unsigned=True)
        word = select(code.equals(0), 0x40, select(code.equals(255), 0x7FC0, code << 7))
        factor = from_bits(word, DType.BF16)
        if dtype is not DType.BF16:
            factor = factor.emit("arith.extf", [factor], dtype)
    *outer, groups = scale.shape
    type = factor.value.type
    beside = factor.emit_shaped(
        "tt.expand_dims", [factor], type.with_shape((*outer, groups, 1)), {"axis": len(outer) + 1}
    )
    repeated = beside.emit_shaped("tt.broadcast", [beside], type.with_shape((*outer, groups, depth // groups)))
    return repeated.emit_shaped("tt.reshape", [repeated], type.with_shape((*outer, depth)))


def _swap_last(tile: Term) -> Term:
    *outer, rows, columns = tile.shape
    order = (*range(len(outer)), len(outer) + 1, len(outer))
    return tile.emit_shaped("tt.trans", [tile], tile.value.type.with_shape((*outer, columns, rows)), {"order": order})
