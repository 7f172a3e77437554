"""Calls of functions (`tt.call`, of what Triton was told not to inline) are replaced by the functions' bodies.

Takes a kernel whose functions have one block each; gives one without functions, and without the kernel's `tt.return`.
"""

from dataclasses import replace

from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, clone


def inline_calls(kernel: Kernel) -> Kernel:
    def inlined(region: Region, replaced: dict[Value, Value]) -> Region:
        block = region.block
        operations: list[Operation] = []
        for operation in block.operations:
            operation.operands = [replaced.get(operand, operand) for operand in operation.operands]
            operation.regions = [inlined(inner, replaced) for inner in operation.regions]
            if operation.name == "tt.call":
                *body, last = called(kernel.functions[operation.attributes["callee"]], operation)
                operations += body
                replaced.update(zip(operation.results, last.operands, strict=True))
            else:
                operations.append(operation)
        return Region([Block(block.arguments, operations)])

    def called(function: Kernel, call: Operation) -> list[Operation]:
        """The body of a function, with the call's operands for its parameters, calls in it inlined too."""
        mapping = dict(zip(function.parameters, call.operands, strict=True))
        copies = [clone(operation, mapping) for operation in function.body.block.operations]
        return inlined(Region([Block([], copies)]), {}).block.operations

    body = inlined(kernel.body, {})
    assert body.block.operations[-1].name == "tt.return"
    body.block.operations.pop()
    return replace(kernel, body=body, functions={})
