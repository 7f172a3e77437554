"""Early returns become `scf.if`: afterwards every function has one block, which ends in its only `tt.return`.

Takes a kernel whose functions may branch between blocks (`cf.cond_br`, `cf.br`, forward only, as Triton emits for a
return inside `if`). A block reached from two places is repeated in both.
"""

from tapeout.errors import UnsupportedError
from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, clone, make

MAX_DEPTH = 64


def structure_returns(kernel: Kernel) -> Kernel:
    functions = {name: _structure(function) for name, function in kernel.functions.items()}
    structured = _structure(kernel)
    return Kernel(kernel.name, structured.body, functions)


def _structure(kernel: Kernel) -> Kernel:
    blocks = {block.label: block for block in kernel.body.blocks}
    returns = [block.operations[-1] for block in kernel.body.blocks if block.operations[-1].name == "tt.return"]
    result_types = [value.type for value in returns[0].operands]

    def follow(block: Block, mapping: dict[Value, Value], depth: int) -> tuple[list[Operation], list[Value]]:
        """What happens from the start of a block to the function's return, and the values returned."""
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"function {kernel.name}: a loop outside `for` and `while` cannot be structured")
        operations = [clone(operation, mapping) for operation in block.operations[:-1]]
        last = block.operations[-1]
        if last.name == "tt.return":
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

    entry = kernel.body.blocks[0]
    operations, values = follow(entry, {}, 0)
    operations.append(Operation("tt.return", values, []))
    return Kernel(kernel.name, Region([Block(entry.arguments, operations)]))
