"""Integers and pointers, in registers of the sequencer."""

from tapeout.codegen.engine_functions import (
    COMPARE_INTEGER,
    INTEGER_BINARY,
    UNARY,
    binary_function,
)
from tapeout.codegen.machine import (
    Register,
)
from tapeout.codegen.selection.selector import Handler, Selector
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function
from tapeout.tile.ir import Operation


def scalar(selector: Selector, operation: Operation) -> Register:
    name, operands = operation.name, operation.operands
    dtype = operation.result.type.dtype
    if name in INTEGER_BINARY:
        a, b = (selector.register(o) for o in operands)
        if a.constant is not None and b.constant is not None and dtype is DType.I64:
            folded = {Function.ADD: int.__add__, Function.SUB: int.__sub__, Function.MUL: int.__mul__}
            if INTEGER_BINARY[name] in folded:
                return selector.constant(folded[INTEGER_BINARY[name]](a.constant, b.constant))
        return selector.scalar_op(binary_function(name, dtype), dtype, a, b)
    if name == "arith.cmpi":
        function, swapped = COMPARE_INTEGER[operation.attributes["words"][0]]
        a, b = (selector.register(o) for o in (operands[::-1] if swapped else operands))
        return selector.scalar_op(function, operands[0].type.dtype, a, b)
    if name == "arith.select":
        condition, a, b = (selector.register(o) for o in operands)
        destination = Register()
        selector.emit(isa.ScalarSelect, destination=destination, condition=condition, a=a, b=b)
        return destination
    if name in ("arith.extsi", "arith.extui", "arith.trunci"):
        source = selector.register(operands[0])
        narrow = operands[0].type.dtype if name != "arith.trunci" else dtype
        if name == "arith.extsi" and narrow is not DType.I1:
            return source
        destination = Register()
        unsigned = name == "arith.extui" or (narrow is DType.I1 and name == "arith.trunci")
        selector.emit(isa.ScalarConvert, destination=destination, a=source, dtype=narrow, unsigned=unsigned)
        return destination
    if name == "tt.addptr":
        pointee = operands[0].type.pointee
        assert pointee is not None
        offset = selector.multiply(selector.register(operands[1]), pointee.size_bytes)
        return selector.add(selector.register(operands[0]), offset)
    if name == "math.absi":
        source = selector.register(operands[0])
        negated = selector.scalar_op(Function.SUB, dtype, selector.constant(0), source)
        return selector.scalar_op(Function.MAX_SIGNED, dtype, source, negated)
    if name in ("math.ctlz", "math.ctpop"):
        return selector.scalar_op(UNARY[name], dtype, selector.register(operands[0]), selector.constant(0))
    raise selector.unsupported(f"operation {name} on {dtype} scalars")


def program_id(selector: Selector, operation: Operation) -> None:
    axis = "xyz".index(operation.attributes["words"][0])
    kind = isa.ProgramId if operation.name == "tt.get_program_id" else isa.GridSize
    register = Register()
    selector.emit(kind, destination=register, axis=axis)
    selector.bindings[operation.result] = register


HANDLERS: dict[str, Handler] = {
    "tt.get_program_id": program_id,
    "tt.get_num_programs": program_id,
}
