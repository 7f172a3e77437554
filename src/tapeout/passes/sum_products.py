"""A sum of products along a dimension becomes fused multiply-adds of parts of the tiles, and a sum of what these leave.

Norms, softmax's gradient and products of a matrix with a vector end in such sums. Multiplied and then added up, every
element is taken twice by the vector engine; so it is taken once, but for the last part's sum. Each product is rounded
only with its sum, and a part's elements add up one by one, so the result is no less exact.

Takes and gives a kernel whose accesses are raised; parts are `tile.slice`s, which cost nothing.
"""

from dataclasses import replace

from tapeout.numerics.operations import REDUCTION_PARTIALS
from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, make, walk

PARTS = range(4, 17)
"""Number of parts: more of them leave less to be summed in the end, but fill the vector engine's queue, so that loads
begin later."""

PART_ELEMENTS = 4096
"""Least elements of a part where there are more than the fewest parts: as long as a result takes through the lanes."""


ROW_ELEMENTS = 256
"""Least elements of a row in a part: lanes that read pieces of several rows at a time would find them in one bank."""


def sum_products(kernel: Kernel) -> Kernel:
    uses: dict[Value, int] = {}
    for operation in walk(kernel.body):
        for operand in operation.operands:
            uses[operand] = uses.get(operand, 0) + 1
    return replace(kernel, body=_in_region(kernel.body, uses))


def _in_region(region: Region, uses: dict[Value, int]) -> Region:
    return Region([Block(b.arguments, _in_block(b.operations, uses), b.label) for b in region.blocks])


def _in_block(operations: list[Operation], uses: dict[Value, int]) -> list[Operation]:
    """With every product that is only summed as parts, where it was; its sum takes what they leave."""
    here = set(operations)
    made: dict[Operation, list[Operation]] = {}
    for operation in operations:
        if operation.name == "tt.reduce":
            product = _only_summed(operation, uses)
            if product is not None and product in here:
                made[product] = _parts(product, operation.attributes["axis"])
                operation.operands[:] = [made[product][-1].result]
        else:
            operation.regions = [_in_region(region, uses) for region in operation.regions]
    return [new for old in operations for new in made.get(old, [old])]


def _only_summed(reduction: Operation, uses: dict[Value, int]) -> Operation | None:
    """The product that is this reduction's operand and nothing else's, if the reduction is a sum and worth it."""
    combine = [operation.name for operation in reduction.regions[0].block.operations]
    product = reduction.operands[0].owner
    if len(reduction.operands) != 1 or combine != ["arith.addf", "tt.reduce.return"]:
        return None
    if product is None or product.name != "arith.mulf" or uses[product.result] != 1:
        return None
    return product if _part_count(product, reduction.attributes["axis"]) > 1 else None


def _part_count(product: Operation, axis: int) -> int:
    type = product.result.type
    wanted = min(max(PARTS.start, type.size // PART_ELEMENTS), PARTS.stop - 1)
    shortest = ROW_ELEMENTS if axis == len(type.shape) - 1 else REDUCTION_PARTIALS
    return min(wanted, type.shape[axis] // shortest)


def _parts(product: Operation, axis: int) -> list[Operation]:
    """Return what computes the sums of corresponding elements of all parts of the product; the last operation's
    result."""
    count = _part_count(product, axis)
    shape = list(product.result.type.shape)
    shape[axis] //= count
    part = product.result.type.with_shape(tuple(shape))
    made: list[Operation] = []

    def slice_of(value: Value, number: int) -> Value:
        place = {"axis": axis, "start": number * shape[axis]}
        made.append(make("tile.slice", [value], [value.type.with_shape(part.shape)], place, product.location))
        return made[-1].result

    for number in range(count):
        factors = [slice_of(operand, number) for operand in product.operands]
        name, addend = ("math.fma", [made[-3].result]) if number else ("arith.mulf", [])
        made.append(make(name, [*factors, *addend], [part], {}, product.location))
    return made
