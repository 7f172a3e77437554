"""Maxima and minima that a kernel writes out become one operation, which the vector engine and its reductions know.

Inductor's helpers write where((a > b) | (a != a), a, b): the larger one, NaN if either is. For integers the comparison
alone decides. Which of two zeros of different sign is the larger is open there; the engine says +0.

Takes and gives a kernel without calls.
"""

from collections import Counter
from dataclasses import replace

from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, make, walk

FLOAT_NAMES = {"ogt": "arith.maximumf", "olt": "arith.minimumf"}
INTEGER_NAMES = {"sgt": "arith.maxsi", "slt": "arith.minsi", "ugt": "arith.maxui", "ult": "arith.minui"}
PARTS = ("arith.cmpf", "arith.cmpi", "arith.ori")


def recognise_extrema(kernel: Kernel) -> Kernel:
    return replace(kernel, body=_in_region(kernel.body))


def _in_region(region: Region) -> Region:
    return Region([Block(b.arguments, _in_block(b.operations), b.label) for b in region.blocks])


def _in_block(operations: list[Operation]) -> list[Operation]:
    made: list[Operation] = []
    found = False
    for operation in operations:
        operation.regions = [_in_region(region) for region in operation.regions]
        name = _extremum(operation)
        if name is not None:
            old = operation
            operation = make(name, old.operands[1:], [], {}, old.location)
            operation.results = old.results
            operation.own_results()
            found = True
        made.append(operation)
    return _without_unused_parts(made) if found else made


def _extremum(operation: Operation) -> str | None:
    """Return what a selection is, if its condition says which of the two is chosen."""
    if operation.name != "arith.select":
        return None
    condition, one, other = operation.operands
    test = condition.owner
    if test is None:
        return None
    if test.name == "arith.cmpi" and test.operands == [one, other]:
        return INTEGER_NAMES.get(test.attributes["words"][0])
    if test.name != "arith.ori":
        return None
    for test_order, test_nan in (test.operands, test.operands[::-1]):
        if _is_comparison(test_nan, "une", one, one) and test_order.owner is not None:
            for predicate, name in FLOAT_NAMES.items():
                if _is_comparison(test_order, predicate, one, other):
                    return name
    return None


def _is_comparison(value: Value, predicate: str, left: Value, right: Value) -> bool:
    owner = value.owner
    return (
        owner is not None
        and owner.name == "arith.cmpf"
        and owner.attributes["words"][0] == predicate
        and owner.operands == [left, right]
    )


def _without_unused_parts(operations: list[Operation]) -> list[Operation]:
    """Without comparisons that nothing reads: a reduction's function is known by being one operation."""
    kept: list[Operation] = []
    reads = Counter(operand for top in operations for operand in _operands(top))
    for operation in reversed(operations):
        if operation.name in PARTS and not reads[operation.result]:
            reads.subtract(operation.operands)
        else:
            kept.append(operation)
    return kept[::-1]


def _operands(operation: Operation) -> list[Value]:
    inner = [operand for region in operation.regions for each in walk(region) for operand in each.operands]
    return [*operation.operands, *inner]
