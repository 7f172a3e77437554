"""Checks that a kernel in tile IR is well formed; run after every pass.

A failure is a bug of the pass named in the message, never of the user's kernel.
"""

from tapeout.errors import InternalError
from tapeout.tile.ir import Kernel, Operation, Region, Value

TERMINATORS = {"scf.for": "scf.yield", "scf.while": "scf.yield", "scf.if": "scf.yield"}
_SAME_TYPE = (
    "arith.addf",
    "arith.subf",
    "arith.mulf",
    "arith.divf",
    "arith.addi",
    "arith.subi",
    "arith.muli",
)


def verify(kernel: Kernel, after: str) -> Kernel:
    """The kernel itself, if every value is defined before it is used and loops carry what they say they carry."""

    def fail(operation: Operation, what: str) -> InternalError:
        place = f" ({operation.location})" if operation.location else ""
        return InternalError(f"after {after}: {operation.name}{place}: {what}")

    def check_region(region: Region, visible: set[Value]) -> None:
        if len(region.blocks) > 1:  # before early returns are structured: blocks in order, all dominated by the first
            visible = visible | {a for block in region.blocks for a in block.arguments}
        for block in region.blocks:
            defined = visible if len(region.blocks) > 1 else visible | set(block.arguments)
            for operation in block.operations:
                for operand in operation.operands:
                    if operand not in defined:
                        raise fail(
                            operation,
                            f"uses {operand.name or 'a value'} of type {operand.type} before it is defined",
                        )
                check_operation(operation)
                for inner in operation.regions:
                    seen = set(defined)
                    if (
                        operation.name == "scf.while"
                    ):  # what `before` computes is visible in neither `after` nor outside
                        seen |= set(inner.block.arguments)
                    check_region(inner, seen)
                defined |= set(operation.results)
            if len(region.blocks) > 1:
                visible |= defined

    def check_operation(operation: Operation) -> None:
        if operation.name in _SAME_TYPE:
            shapes = {value.type.shape for value in (*operation.operands, *operation.results)}
            if len(shapes) > 1:
                raise fail(operation, f"shapes differ: {', '.join(map(str, sorted(shapes)))}")
        if operation.name == "scf.for":
            body = operation.regions[0].block
            carried = len(operation.operands) - 3
            counts = (len(body.arguments) - 1, len(operation.results), len(body.operations[-1].operands))
            if any(count != carried for count in counts):
                raise fail(operation, f"carries {carried} values but has (arguments, results, yielded) = {counts}")
        if operation.name == "scf.if" and operation.results:
            for region in operation.regions:
                if len(region.block.operations[-1].operands) != len(operation.results):
                    raise fail(operation, "a branch yields another number of values than there are results")

    check_region(kernel.body, set())
    return kernel
