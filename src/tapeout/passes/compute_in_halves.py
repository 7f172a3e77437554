"""Arithmetic of half types that is written in float32 is done in the half type itself, where that gives the same bits.

The vector engine widens a half type, computes in float32 and rounds once; an instruction of its own for each of these
steps takes the lanes three times. So it is for a sum whose operands are widened and whose result is rounded to the same
type, for comparisons, selections and extrema of widened values, and for the largest or least element of a row.

Takes and gives a kernel without calls. What nothing reads any more is left to `remove_dead`.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from tapeout.numerics.dtypes import DType
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value, make, walk

HALVES = (DType.BF16, DType.F16)
ROUNDED = {
    "arith.addf", "arith.subf", "arith.mulf", "arith.divf", "tt.precise_divf", "math.fma", "math.sqrt",
    "tt.precise_sqrt",
}  # fmt: skip
"""Operations that a half type has too: the float32 result, rounded once more."""

EXTREMA = {"arith.maximumf", "arith.minimumf", "arith.maxnumf", "arith.minnumf"}
"""Operations whose result is one of the operands."""

MADE_HERE = "made_here"
"""Mark of an operation whose half result only its widening reads: a rounding back takes it over, so that it may be
written where a loop carries it."""

REARRANGING = {"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape", "tile.slice"}


def compute_in_halves(kernel: Kernel) -> Kernel:
    uses = Counter(operand for operation in walk(kernel.body) for operand in operation.operands)
    return replace(kernel, body=_in_region(kernel.body, uses))


def _in_region(region: Region, uses: Counter[Value]) -> Region:
    return Region([Block(b.arguments, _in_block(b.operations, uses), b.label) for b in region.blocks])


def _in_block(operations: list[Operation], uses: Counter[Value]) -> list[Operation]:
    made: list[Operation] = []
    for operation in operations:
        if operation.name != "tt.reduce":
            operation.regions = [_in_region(region, uses) for region in operation.regions]
        rewritten = _rewritten(operation, uses)
        made += [operation] if rewritten is None else rewritten
    return made


def _rewritten(operation: Operation, uses: Counter[Value]) -> list[Operation] | None:
    """Return what computes the operation's results in a half type; None if it stays."""
    if operation.name in ("arith.truncf", "tt.fp_to_fp"):
        return _rounded(operation, uses)
    if operation.name == "arith.cmpf":
        return _in_half(operation, operation.operands, operation.results)
    if operation.name in EXTREMA:
        return _widened_later(operation, operation.operands)
    if operation.name == "arith.select":
        return _widened_later(operation, operation.operands[1:], operation.operands[:1])
    if operation.name == "tt.reduce":
        return _reduction(operation)
    return None


def _rounded(rounding: Operation, uses: Counter[Value]) -> list[Operation] | None:
    """A rounding of what nothing else reads."""
    value, dtype = rounding.operands[0], rounding.result.type.dtype
    owner = value.owner
    if owner is None or not value.type.shape or rounding.attributes.get("rounding", "rtne") != "rtne":
        return None
    if owner.name == "arith.extf" and owner.operands[0].type.dtype is dtype:  # rounded back to what it was
        producer = owner.operands[0].owner
        if producer is not None and producer.attributes.pop(MADE_HERE, False):
            producer.results = rounding.results
            producer.own_results()
            owner.operands = list(rounding.results)
            return []
        same = make("tile.alias", list(owner.operands), [], {}, rounding.location)
        same.results = rounding.results
        return [same.own_results()]
    if owner.name not in ROUNDED or uses[value] != 1:
        return None
    return _in_half(owner, owner.operands, rounding.results, dtype)


def _in_half(
    operation: Operation, operands: list[Value], results: list[Value], dtype: DType | None = None
) -> list[Operation] | None:
    made: list[Operation] = []
    halves = _halves(operands, made, dtype)
    if halves is None:
        return None
    new = make(operation.name, halves, [], dict(operation.attributes), operation.location)
    new.results = results
    return [*made, new.own_results()]


def _widened_later(
    operation: Operation, operands: list[Value], before: list[Value] | None = None
) -> list[Operation] | None:
    """The operation in the half type, and its result widened."""
    if not operation.result.type.shape:
        return None
    made: list[Operation] = []
    halves = _halves(operands, made)
    if halves is None:
        return None
    type = replace(operation.result.type, dtype=halves[0].type.dtype)
    attributes = operation.attributes | {MADE_HERE: True}
    half = make(operation.name, [*(before or []), *halves], [type], attributes, operation.location)
    return [*made, half, _widening(half.result, operation)]


def _widening(half: Value, operation: Operation) -> Operation:
    wide = make("arith.extf", [half], [], {}, operation.location)
    wide.results = operation.results
    return wide.own_results()


def _reduction(operation: Operation) -> list[Operation] | None:
    """The largest or least element of each row of widened values."""
    block = operation.regions[0].block
    if len(operation.operands) != 1 or len(block.operations) != 2 or block.operations[0].name not in EXTREMA:
        return None
    combine = block.operations[0]
    if set(combine.operands) != set(block.arguments) or block.operations[1].operands != combine.results:
        return None
    made: list[Operation] = []
    halves = _halves(operation.operands, made)
    if halves is None:
        return None
    dtype = halves[0].type.dtype
    arguments = [Value(Type(dtype)) for _ in block.arguments]
    inner = make(combine.name, arguments, [Type(dtype)], {}, combine.location)
    last = Operation("tt.reduce.return", [inner.result], [], {}, [], operation.location)
    type = replace(operation.result.type, dtype=dtype)
    half = make("tt.reduce", halves, [type], dict(operation.attributes), operation.location)
    half.regions = [Region([Block(arguments, [inner, last])])]
    return [*made, half, _widening(half.result, operation)]


def _halves(values: list[Value], made: list[Operation], dtype: DType | None = None) -> list[Value] | None:
    """The values before they were widened, all of one half type; None if one of them is no such value. At least one is
    a tile that was widened."""
    found = {_half_dtype(value) for value in values} - {None}
    if dtype is None:
        if len(found) != 1:
            return None
        (dtype,) = found
    if dtype not in HALVES or found != {dtype}:
        return None
    halves = [_half(value, dtype, made) for value in values]
    return None if any(half is None for half in halves) else [half for half in halves if half is not None]


def _half_dtype(value: Value) -> DType | None:
    owner = value.owner
    while owner is not None and owner.name in REARRANGING:
        owner = owner.operands[0].owner
    if owner is None or owner.name != "arith.extf" or owner.result.type.dtype is not DType.F32:
        return None
    return owner.operands[0].type.dtype


def _half(value: Value, dtype: DType, made: list[Operation]) -> Value | None:
    """The value before it was widened, by operations appended to a list; a constant that the type has exactly."""
    owner = value.owner
    if owner is None:
        return None
    if owner.name == "arith.extf":
        return owner.operands[0] if owner.operands[0].type.dtype is dtype else None
    if owner.name == "arith.constant":
        bits = _half_bits(owner.attributes["value"], dtype)
        if bits is None:
            return None
        made.append(make("arith.constant", [], [replace(value.type, dtype=dtype)], {"value": bits}, owner.location))
        return made[-1].result
    if owner.name in REARRANGING:
        source = _half(owner.operands[0], dtype, made)
        if source is None:
            return None
        type = replace(value.type, dtype=dtype)
        made.append(make(owner.name, [source], [type], dict(owner.attributes), owner.location))
        return made[-1].result
    return None


def _half_bits(bits: object, dtype: DType) -> int | None:
    """The bits of a float32 number in a half type, if that has it exactly."""
    if not isinstance(bits, int):
        return None
    if dtype is DType.BF16:
        return None if bits & 0xFFFF else bits >> 16
    number = np.array([bits & 0xFFFF_FFFF], np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        half = number.astype(np.float16)
    return int(half.view(np.uint16)[0]) if half.astype(np.float32) == number else None
