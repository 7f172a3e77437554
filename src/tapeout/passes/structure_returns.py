"""Early returns become `scf.if`: afterwards every region has one block.

Takes a kernel whose body may branch between blocks (`cf.cond_br`, `cf.br`, forward only, as Triton emits for a return
inside `if`). A block reached from two places is repeated in both.
"""

from tapeout.errors import UnsupportedError
from tapeout.tile.ir import Block, Kernel, Operation, Region


def structure_returns(kernel: Kernel) -> Kernel:
    blocks = {block.label: block for block in kernel.body.blocks}

    def follow(block: Block, depth: int) -> list[Operation]:
        if depth > 64:
            raise UnsupportedError(f"kernel {kernel.name}: a loop outside `for` and `while` cannot be structured")
        *operations, last = block.operations
        if last.name == "cf.br":
            return operations + enter(last, 0, depth)
        if last.name == "cf.cond_br":
            branches = [Region([Block([], enter(last, side, depth))]) for side in (0, 1)]
            branch = Operation("scf.if", last.operands[:1], [], {}, branches, last.location)
            return [*operations, branch]
        return block.operations if last.name != "tt.return" else operations

    def enter(jump: Operation, side: int, depth: int) -> list[Operation]:
        target = blocks[jump.attributes["targets"][side]]
        values = jump.attributes["forwarded"][side]
        aliases = [
            Operation("tile.alias", [value], [argument], location=jump.location)
            for value, argument in zip(values, target.arguments, strict=True)
        ]
        return aliases + follow(target, depth + 1)

    entry = kernel.body.blocks[0]
    return Kernel(kernel.name, Region([Block(entry.arguments, follow(entry, 0))]), kernel.functions)
