"""Early returns become `scf.if`: afterwards every region has one block, which ends in its only return.

Takes a kernel whose functions, and the functions mapped over elements, may branch between blocks (`cf.cond_br`,
`cf.br`, forward only, as Triton emits for a return inside `if`). A block reached from two places is repeated in both.
"""

from tapeout.errors import UnsupportedError
from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, clone, make, walk

MAX_DEPTH = 64
RETURNS = ("tt.return", "tt.map_elementwise.return")


def structure_returns(kernel: Kernel) -> Kernel:
    functions = {name: Kernel(name, _structure(name, function.body)) for name, function in kernel.functions.items()}
    return Kernel(kernel.name, _structure(kernel.name, kernel.body), functions)


def _structure(name: str, region: Region) -> Region:
    for operation in walk(region):
        if operation.name == "tt.map_elementwise":
            operation.regions = [_structure(name, inner) for inner in operation.regions]
    blocks = {block.label: block for block in region.blocks}
    final = next(block.operations[-1] for block in region.blocks if block.operations[-1].name in RETURNS)
    result_types = [value.type for value in final.operands]

    def follow(block: Block, mapping: dict[Value, Value], depth: int) -> tuple[list[Operation], list[Value]]:
        """What happens from the start of a block to the return, and the values returned."""
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"function {name}: a loop outside `for` and `while` cannot be structured")
        operations = [clone(operation, mapping) for operation in block.operations[:-1]]
        last = block.operations[-1]
        if last.name in RETURNS:
            return operations, [mapping.get(value, value) for value in last.operands]
        if last.name == "cf.br":
            rest, values = enter(last, 0, mapping, depth)
            return operations + rest, values
        assert last.name == "cf.cond_br"
        condition = mapping.get(last.operands[0], last.operands[0])
        branch = make("scf.if", [condition], result_types, {}, last.location)
        for side in (0, 1):
            inside, values = enter(last, side, mapping, depth)
            inside.append(Operation("scf.yield", values, [], location=last.location))
            branch.regions.append(Region([Block([], inside)]))
        return [*operations, branch], branch.results

    def enter(
        jump: Operation, side: int, mapping: dict[Value, Value], depth: int
    ) -> tuple[list[Operation], list[Value]]:
        target = blocks[jump.attributes["targets"][side]]
        forwarded = jump.attributes["forwarded"][side]
        passed = {a: mapping.get(v, v) for a, v in zip(target.arguments, forwarded, strict=True)}
        return follow(target, mapping | passed, depth + 1)

    entry = region.blocks[0]
    operations, values = follow(entry, {}, 0)
    operations.append(Operation(final.name, values, []))
    return Region([Block(entry.arguments, operations)])
