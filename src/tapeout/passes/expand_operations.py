"""Operations the chip has no instruction for become ones it has: mathematical functions, histograms, scaled dots.

Takes a kernel in tile IR, gives one in tile IR. Mathematical functions are looked up in `expansions`.
"""

from collections.abc import Callable

from tapeout.numerics.dtypes import DType
from tapeout.passes import expansions
from tapeout.passes.formula import Term, resize
from tapeout.passes.scaled_dot import dot_scaled
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value

HISTOGRAM_BYTES = 1 << 16
"""How much scratchpad the comparison of elements with bins may take at one time."""


def expand_operations(kernel: Kernel) -> Kernel:
    return Kernel(kernel.name, _expand_region(kernel.body, {}), kernel.functions)


def _expand_region(region: Region, replaced: dict[Value, Value]) -> Region:
    block = region.block
    operations: list[Operation] = []
    for operation in block.operations:
        operation.operands = [replaced.get(operand, operand) for operand in operation.operands]
        operation.regions = [_expand_region(inner, replaced) for inner in operation.regions]
        label = operation.attributes.get("symbol", operation.name)
        operands = [Term(operand, operations, operation.location) for operand in operation.operands]
        if label in OPERATIONS:
            replaced[operation.result] = OPERATIONS[label](operation, operands).value
        elif (formula := expansions.find(label, [o.dtype for o in operands], operation.result if operation.results else None)):
            replaced[operation.result] = formula(*operands).value
        else:
            operations.append(operation)
    return Region([Block(block.arguments, operations)])
