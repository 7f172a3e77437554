"""Products of matrices."""

from tapeout.codegen.access_patterns import aligned
from tapeout.codegen.engine_functions import (
    MATRIX_OPERANDS,
)
from tapeout.codegen.machine import (
    Register,
    View,
)
from tapeout.codegen.selection.selector import Handler, Selector
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS
from tapeout.numerics.dtypes import DType
from tapeout.tile.ir import Operation, Value


def dot(selector: Selector, operation: Operation) -> None:
    lhs_value, rhs_value, accumulator_value = operation.operands
    lhs, rhs = selector.view(lhs_value), selector.view(rhs_value)
    result = operation.result
    for dtype in (lhs.dtype, rhs.dtype):
        selector.check_dtype(dtype)
    if lhs.dtype is DType.F64:
        accumulator_dtype = DType.F64
    elif lhs.dtype not in MATRIX_OPERANDS:
        raise selector.unsupported("dot", lhs.dtype, f"the matrix engine takes {', '.join(map(str, MATRIX_OPERANDS))}")
    else:
        accumulator_dtype = DType.I32 if lhs.dtype is DType.I8 else DType.F32
    shape = result.type.shape
    accumulator = selector.bindings[accumulator_value]
    accumulate = not (isinstance(accumulator, Register) and accumulator.constant == 0)
    if result.type.dtype is accumulator_dtype:
        out = selector.result_view(result)
        if _is_sum_for_the_next(selector, accumulator_value) and result not in selector.destinations:
            assert isinstance(accumulator, View)
            out = accumulator
        in_place = isinstance(accumulator, View) and accumulator == out
        if accumulate and not in_place:
            selector.copy(accumulator, out)
    else:
        out = selector.new_view(accumulator_dtype, shape)
        if accumulate:
            selector.convert(accumulator, result.type.dtype, out)
    *batch, rows, columns = shape
    depth = lhs.shape[-1]
    batches = batch[0] if batch else 1

    def strides(view: View, row: int, column: int) -> tuple[int, ...]:
        own = [0] * DIMENSIONS
        if batch:
            own[0] = view.strides[0] if view.shape[0] > 1 else 0
        own[row], own[column] = aligned(view.strides[-2:], view.shape[-2:])
        return tuple(own)

    selector.emit(
        isa.MatrixMultiply,
        lhs_dtype=lhs.dtype,
        rhs_dtype=rhs.dtype,
        accumulate=accumulate,
        shape=(batches, rows, columns, depth),
        accumulator=selector.place(out, accumulator_dtype, 0, strides(out, 1, 2)),
        lhs=selector.place(lhs, lhs.dtype, 0, strides(lhs, 1, 3)),
        rhs=selector.place(rhs, rhs.dtype, 0, strides(rhs, 3, 2)),
    )
    if out.dtype is not result.type.dtype:
        out = selector.convert(out, out.dtype, selector.result_view(result))
    selector.bindings[result] = out


def _is_sum_for_the_next(selector: Selector, value: Value) -> bool:
    """Return whether a product made just here is of use to one other operation only, which may then add to it in
    place."""
    owner = value.owner
    return (
        owner is not None
        and owner.name == "tt.dot"
        and value in selector.computed_here
        and selector.use_counts[value] == 1
        and value not in selector.destinations
    )


HANDLERS: dict[str, Handler] = {
    "tt.dot": dot,
}
