"""`tt.print` becomes stores to the print buffer, a parameter the kernel then has more.

Takes a kernel of one block; gives one without `tt.print`, with `prints` filled. The layout is `tapeout.isa.printing`'s.
"""

from dataclasses import replace

from tapeout.isa.printing import (
    CAPACITY_BYTES,
    PARAMETER,
    RECORD_WORDS,
    START_BYTES,
    PrintFormat,
    PrintOperand,
)
from tapeout.numerics.dtypes import DType
from tapeout.passes.math.formula import Term, resize, widen
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value, walk

POINTER = Type(DType.I64, (), DType.I32)


def lower_prints(kernel: Kernel) -> Kernel:
    if not any(operation.name == "tt.print" for operation in walk(kernel.body)):
        return kernel
    buffer = Value(POINTER, name=PARAMETER)
    formats: list[PrintFormat] = []
    body = _lowered(kernel.body, buffer, formats)
    body.block.arguments = [*body.block.arguments, buffer]
    return replace(kernel, body=body, prints=formats)


def _lowered(region: Region, buffer: Value, formats: list[PrintFormat]) -> Region:
    operations: list[Operation] = []
    for operation in region.block.operations:
        operation.regions = [_lowered(inner, buffer, formats) for inner in operation.regions]
        if operation.name == "tt.print":
            _record(operation, Term(buffer, operations, operation.location), formats)
        else:
            operations.append(operation)
    return Region([Block(region.block.arguments, operations)])


def _record(operation: Operation, buffer: Term, formats: list[PrintFormat]) -> None:
    """Claims room in the buffer and stores the record there, if there is room."""
    values = [_printable(Term(v, buffer.operations, operation.location)) for v in operation.operands]
    signs = operation.attributes.get("isSigned", ())
    parts = tuple(_describe(v.type, bool(s)) for v, s in zip(operation.operands, signs, strict=True))
    form = PrintFormat(operation.attributes["message"], operation.attributes["hex"], parts)
    number = len(formats)
    formats.append(form)

    def scalar(value: int) -> Term:
        return buffer.emit_shaped("arith.constant", [], Type(DType.I32), {"value": value})

    place = buffer.emit_shaped(
        "tt.atomic_rmw", [buffer, scalar(form.record_bytes)], Type(DType.I32), {"words": ["add"]}
    )
    fits = place <= CAPACITY_BYTES - form.record_bytes

    def address(offset: int, dtype: DType) -> Term:
        """A pointer to what lies `offset` bytes into the record."""
        bytes_of = buffer.emit_shaped("tt.bitcast", [buffer], Type(DType.I64, (), DType.I8))
        moved = buffer.emit_shaped("tt.addptr", [bytes_of, place + (START_BYTES + offset)], bytes_of.value.type)
        return moved.emit_shaped("tt.bitcast", [moved], Type(DType.I64, (), dtype))

    def store(offset: int, value: Term) -> None:
        start, shape, mask = address(offset, value.dtype), value.shape, fits
        if shape:
            size = value.value.type.size
            flat = value.emit_shaped("tt.reshape", [value], value.value.type.with_shape((size,)))
            index = start.emit_shaped("tt.make_range", [], Type(DType.I32, (size,)), {"start": 0, "end": size})
            spread = start.emit_shaped("tt.splat", [start], start.value.type.with_shape((size,)))
            start = start.emit_shaped("tt.addptr", [spread, index], spread.value.type)
            mask = fits.emit_shaped("tt.splat", [fits], Type(DType.I1, (size,)))
            value = flat
        operands = [start.value, value.value, mask.value]
        buffer.operations.append(Operation("tt.store", operands, [], location=operation.location))

    coordinates = [buffer.emit_shaped("tt.get_program_id", [], Type(DType.I32), {"words": [axis]}) for axis in "xyz"]
    for k, word in enumerate([scalar(number), *coordinates]):
        store(4 * k, word)
    offset = 4 * RECORD_WORDS
    for value, part in zip(values, parts, strict=True):
        store(offset, value)
        offset += part.size_bytes


def _printed_dtype(type: Type) -> DType:
    if type.is_float and type.dtype.bits < 32:
        return DType.F32
    return DType.I8 if type.dtype is DType.I1 else type.dtype


def _printable(value: Term) -> Term:
    """Narrow floats as float32, i1 as a byte, pointers as integers."""
    dtype = _printed_dtype(value.value.type)
    if value.dtype.is_float:
        return widen(value, dtype)
    if value.value.type.pointee is not None:
        return value.emit("tt.ptr_to_int", [value], DType.I64)
    return resize(value, dtype)


def _describe(type: Type, is_signed: bool) -> PrintOperand:
    if type.pointee is not None:
        kind = "pointer"
    elif type.is_float:
        kind = "float"
    else:
        kind = "signed" if is_signed else "unsigned"
    return PrintOperand(_printed_dtype(type).label, type.shape, kind)
