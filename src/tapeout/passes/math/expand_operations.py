"""Operations the chip has no instruction for become ones it has: mathematical functions, histograms, scaled dots, maps.

Takes a kernel in tile IR, gives one in tile IR. Mathematical functions are looked up in `libdevice`.
"""

from dataclasses import replace

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import libdevice
from tapeout.passes.math.formula import Term, resize
from tapeout.passes.math.map_elementwise import map_elementwise
from tapeout.passes.math.scaled_dot import dot_scaled
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value, make

HISTOGRAM_BYTES = 1 << 16
"""Scratchpad that the comparison of elements with bins may take at one time."""


def expand_operations(kernel: Kernel) -> Kernel:
    return replace(kernel, body=_expand_region(kernel.body, {}))


def _expand_region(region: Region, replaced: dict[Value, Value]) -> Region:
    block = region.block
    operations: list[Operation] = []
    for operation in block.operations:
        operation.operands = [replaced.get(operand, operand) for operand in operation.operands]
        operation.regions = [_expand_region(inner, replaced) for inner in operation.regions]
        if operation.name == "tt.map_elementwise":
            operands = [Term(operand, operations, operation.location) for operand in operation.operands]
            mapped = map_elementwise(operation, operands)
            replaced.update((r, term.value) for r, term in zip(operation.results, mapped, strict=True))
            continue
        expanded = _expand(operation, operations)
        if expanded is None:
            operations.append(operation)
        else:
            replaced[operation.result] = expanded.value
    return Region([Block(block.arguments, operations)])


def _expand(operation: Operation, operations: list[Operation]) -> Term | None:
    """The operation's result computed otherwise, by operations appended to a list; None if it is to stay."""
    operands = [Term(operand, operations, operation.location) for operand in operation.operands]
    if operation.name == "tt.histogram":
        return _histogram(operation, *operands)
    if operation.name == "tt.dot_scaled":
        return dot_scaled(operation, operands)
    if not operands:
        return None
    formula = libdevice.find(operation.attributes.get("symbol", operation.name), operands[0].dtype)
    if formula is None:
        return None
    result = formula(*operands)
    return resize(result, operation.result.type.dtype) if result.dtype is DType.I1 else result


def _histogram(operation: Operation, values: Term, mask: Term | None = None) -> Term:
    """Return how many elements equal each bin's number: every element compared with every bin, then added up."""
    type = operation.result.type
    (bins,), (size,) = type.shape, values.shape
    if bins * size * type.dtype.size_bytes > HISTOGRAM_BYTES and type.dtype is DType.I32 and bins >= 4:
        return _histogram_of_digits(values, bins, mask)
    at_once = min(bins, max(1, HISTOGRAM_BYTES // (size * type.dtype.size_bytes)))
    row = values.emit_shaped("tt.expand_dims", [values], values.value.type.with_shape((1, size)), {"axis": 0})
    parts = []
    for start in range(0, bins, at_once):
        count = min(at_once, bins - start)
        counted = _count_rows(row, start, count, type.dtype, mask)
        parts.append(counted)
    return _concatenate(parts)


def _histogram_of_digits(values: Term, bins: int, mask: Term | None) -> Term:
    """The same by a product: of a number in two digits, which elements have each high digit, times which have each low
    digit. Comparisons are as many as digits, not bins."""
    bits = (bins.bit_length() - 1) // 2
    (size,), low, high = values.shape, 1 << bits, bins >> bits
    highs = _equal_rows(values >> bits, high, mask)
    lows = _equal_rows(values & (low - 1), low, None)
    columns = lows.emit_shaped("tt.trans", [lows], Type(DType.BF16, (size, low)), {"order": (1, 0)})
    zeros = values.emit_shaped("arith.constant", [], Type(DType.F32, (high, low)), {"value": 0})
    counts = highs.emit_shaped("tt.dot", [highs, columns, zeros], Type(DType.F32, (high, low)))  # exact up to 2**24
    flat = counts.emit_shaped("tt.reshape", [counts], Type(DType.F32, (bins,)))
    return flat.emit("arith.fptosi", [flat], DType.I32)


def _equal_rows(digits: Term, count: int, mask: Term | None) -> Term:
    """1 in row i where a digit is i and the mask allows, else 0."""
    row = digits.emit_shaped("tt.expand_dims", [digits], digits.value.type.with_shape((1, *digits.shape)), {"axis": 0})
    hits = _hits(row, 0, count, mask)
    return hits.emit("arith.uitofp", [hits], DType.BF16)


def _count_rows(row: Term, start: int, count: int, dtype: DType, mask: Term | None) -> Term:
    """For each of `count` bins from `start` on: how many elements of a row, where the mask allows, are equal to it."""
    return _sum_rows(resize(_hits(row, start, count, mask), dtype))


def _hits(row: Term, start: int, count: int, mask: Term | None) -> Term:
    """In row i: which elements, where the mask allows, are start + i."""
    size = row.shape[1]

    def spread(tile: Term) -> Term:
        return tile.emit_shaped("tt.broadcast", [tile], tile.value.type.with_shape((count, size)))

    bounds = {"start": start, "end": start + count}
    numbers = row.emit_shaped("tt.make_range", [], Type(row.dtype, (count,)), bounds)
    column = numbers.emit_shaped("tt.expand_dims", [numbers], Type(row.dtype, (count, 1)), {"axis": 1})
    hit = spread(row).equals(spread(column))
    if mask is not None:
        flat = mask.emit_shaped("tt.expand_dims", [mask], Type(DType.I1, (1, size)), {"axis": 0})
        hit = hit & spread(flat)
    return hit


def _sum_rows(tile: Term) -> Term:
    element = Type(tile.dtype)
    arguments = [Value(element), Value(element)]
    add = make("arith.addi", arguments, [element], {}, tile.location)
    combine = Region([Block(arguments, [add, Operation("tt.reduce.return", [add.result], [])])])
    result = tile.emit_shaped("tt.reduce", [tile], Type(tile.dtype, tile.shape[:1]), {"axis": 1})
    result.operations[-1].regions = [combine]
    return result


def _concatenate(parts: list[Term]) -> Term:
    while len(parts) > 1:
        halves = zip(parts[::2], parts[1::2], strict=True)
        parts = [a.emit_shaped("tt.cat", [a, b], Type(a.dtype, (2 * a.shape[0],))) for a, b in halves]
    return parts[0]
