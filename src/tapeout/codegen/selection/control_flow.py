"""Loops, branches and assertions. A tile carried by a loop has one buffer."""

from tapeout.codegen.engine_functions import (
    REARRANGING,
)
from tapeout.codegen.machine import (
    Branch,
    Loop,
    Node,
    Place,
    Register,
    View,
)
from tapeout.codegen.selection.selector import Handler, Selector, Tile
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function
from tapeout.tile.ir import DEFAULT_STAGES, Operation, Value

MOST_STAGES = 8


def for_loop(selector: Selector, operation: Operation) -> None:
    low, high, step = (selector.register(o) for o in operation.operands[:3])
    body = operation.regions[0].block
    phis = _enter_loop(selector, body.arguments[1:], operation.operands[3:])
    counter = Register()
    selector.move(low, counter)
    selector.bindings[body.arguments[0]] = counter
    outer, selector.code = selector.code, []
    condition = Register()
    dtype = body.arguments[0].type.dtype
    less = Function.LESS_UNSIGNED if operation.attributes["unsigned"] else Function.LESS
    selector.emit(isa.Scalar, destination=condition, a=counter, b=high, function=less, dtype=dtype)
    head, selector.code = selector.code, []
    terminator = body.operations[-1]
    _coalesce(selector, body.arguments[1:], phis, terminator.operands, body.operations)
    selector.region(operation.regions[0])
    _assign(selector, phis, terminator.operands)
    selector.emit(isa.Scalar, destination=counter, a=counter, b=step, function=Function.ADD, dtype=dtype)
    inside, selector.code = selector.code, outer
    selector.code.append(Loop(head, condition, inside, _stages(selector, operation)))
    for result, phi in zip(operation.results, phis, strict=True):
        selector.bindings[result] = phi


def _stages(selector: Selector, loop: Operation) -> int:
    """In how many steps a loop is pipelined: as it says itself; around a product, as its kernel says."""
    own: int | None = loop.attributes.get("tt.num_stages")
    if own is None and any(operation.name == "tt.dot" for operation in loop.regions[0].block.operations):
        own = selector.kernel.stages
    return DEFAULT_STAGES if own is None else max(1, min(own, MOST_STAGES))


def _enter_loop(selector: Selector, arguments: list[Value], initial: list[Value]) -> list[Tile]:
    phis: list[Tile] = []
    for argument, value in zip(arguments, initial, strict=True):
        phi: Tile
        if argument.type.shape or argument.type.is_float:
            phi = selector.copy(selector.tile(value), selector.new_view(argument.type.dtype, argument.type.shape))
        else:
            phi = Register()
            selector.move(selector.register(value), phi)
        selector.bindings[argument] = phi
        phis.append(phi)
    return phis


def _assign(selector: Selector, phis: list[Tile], values: list[Value]) -> None:
    """Gives loop-carried places their next values, all at once."""
    own = {id(p.buffer) if isinstance(p, View) else id(p) for p in phis}
    pending: list[tuple[Tile, Tile]] = []
    for phi, value in zip(phis, values, strict=True):
        source: Tile = selector.tile(value) if isinstance(phi, View) else selector.register(value)
        if source == phi:
            continue
        if id(source.buffer if isinstance(source, View) else source) in own:
            if isinstance(phi, View):
                source = selector.copy(source, selector.new_view(phi.dtype, phi.shape))
            else:
                assert isinstance(source, Register)
                spare = Register()
                selector.move(source, spare)
                source = spare
        pending.append((phi, source))
    for phi, source in pending:
        if isinstance(phi, View):
            selector.copy(source, phi)
        else:
            assert isinstance(source, Register)
            selector.move(source, phi)


def _coalesce(
    selector: Selector, arguments: list[Value], phis: list[Tile], yielded: list[Value], operations: list[Operation]
) -> None:
    """Lets the operation that computes a carried tile's next value write into the tile's own buffer, where the old
    value is not read afterwards."""
    position = {id(operation): k for k, operation in enumerate(operations)}
    for argument, phi, value in zip(arguments, phis, yielded, strict=True):
        if not isinstance(phi, View) or yielded.count(value) != 1:
            continue
        while value not in selector.destinations and _may_overwrite(argument, value, operations, position):
            selector.destinations[value] = phi
            assert value.owner is not None
            if value.owner.name != "tt.dot":
                break
            # What a product is added to may be computed in the same place, if that is all it is for.
            addend = value.owner.operands[2]
            if selector.use_counts[addend] != 1 or addend.type != value.type:
                break
            value = addend


def branch(selector: Selector, operation: Operation) -> None:
    condition = selector.register(operation.operands[0])
    outs: list[Tile] = []
    for result in operation.results:
        if result.type.shape or result.type.is_float:
            outs.append(selector.new_view(result.type.dtype, result.type.shape))
        else:
            outs.append(Register())
    outer = selector.code
    sides: list[list[Node]] = []
    for region in operation.regions:
        selector.code = []
        selector.region(region)
        operations = region.block.operations
        if operations and operations[-1].name == "scf.yield":
            _assign(selector, outs, operations[-1].operands)
        sides.append(selector.code)
    selector.code = outer
    selector.code.append(Branch(condition, sides[0], sides[1] if len(sides) > 1 else []))
    for result, out in zip(operation.results, outs, strict=True):
        selector.bindings[result] = out


def while_loop(selector: Selector, operation: Operation) -> None:
    before, after = (r.block for r in operation.regions)
    phis = _enter_loop(selector, before.arguments, operation.operands)
    outer, selector.code = selector.code, []
    selector.region(operation.regions[0])
    terminator = before.operations[-1]
    forwarded = [selector.bindings[v] for v in terminator.operands[1:]]
    results: list[Tile] = []
    for value, tile in zip(terminator.operands[1:], forwarded, strict=True):
        if isinstance(tile, View):
            results.append(selector.copy(tile, selector.new_view(value.type.dtype, value.type.shape)))
        else:
            kept = Register()
            selector.move(tile, kept)
            results.append(kept)
    condition = Register()
    selector.move(selector.register(terminator.operands[0]), condition)
    head, selector.code = selector.code, []
    for argument, tile in zip(after.arguments, results, strict=True):
        selector.bindings[argument] = tile
    selector.region(operation.regions[1])
    _assign(selector, phis, after.operations[-1].operands)
    inside, selector.code = selector.code, outer
    selector.code.append(Loop(head, condition, inside))
    for result, tile in zip(operation.results, results, strict=True):
        selector.bindings[result] = tile


def assertion(selector: Selector, operation: Operation) -> None:
    condition = operation.operands[0]
    if condition.type.shape:
        tile = selector.view(condition)
        dense = selector.copy(tile, selector.new_view(DType.I1, tile.shape))
        size = condition.type.size
        while size > 1:
            extent = min(size, 1 << 15)
            out = selector.new_view(DType.I1, (size // extent,))
            for part in range(size // extent):
                selector.emit(
                    isa.Reduce,
                    function=Function.AND,
                    dtype=DType.I1,
                    shape=(1, 1, 1, extent),
                    result=Place(out.buffer, part, (0, 0, 0, 0)),
                    a=Place(dense.buffer, part * extent, (0, 0, 0, 1)),
                )
            dense, size = out, size // extent
        holds = Register()
        selector.emit(isa.ScalarLoad, destination=holds, address=Place(dense.buffer, 0, (0, 0, 0, 0)), dtype=DType.I1)
    else:
        holds = selector.register(condition)
    message = f"{selector.location}: {operation.attributes.get('message', '')}"
    selector.messages.append(message)
    trap = selector.code_of(lambda: selector.emit(isa.Trap, code=len(selector.messages) - 1))
    selector.code.append(Branch(holds, [], trap))


def _may_overwrite(argument: Value, value: Value, operations: list[Operation], position: dict[int, int]) -> bool:
    """Return whether the operation that computes `value` may write over `argument`: it is one of the loop's body, and
    nothing reads the argument later, nor the operation itself in another order than it writes."""
    owner = value.owner
    if owner is None or id(owner) not in position:
        return False
    if owner.name in REARRANGING or owner.name == "arith.constant" or owner.name.startswith("scf."):
        return False
    views = {argument}
    for k, operation in enumerate(operations):
        reads = [o for o in _reads(operation) if o in views]
        if operation.name in REARRANGING and reads:
            views.add(operation.result)
        elif operation is owner:
            elementwise = owner.name not in (
                "tt.reduce",
                "tt.scan",
                "tt.gather",
                "tt.cat",
                "tt.join",
                "tile.load",
                "tile.atomic",
            )
            if reads and (not elementwise or any(o is not argument for o in reads)):
                return False
            if owner.name == "tt.dot" and argument in owner.operands[:2]:
                return False
        elif reads and k > position[id(owner)]:
            return False
    return True


def _reads(operation: Operation) -> list[Value]:
    values = list(operation.operands)
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                values += _reads(inner)
    return values


HANDLERS: dict[str, Handler] = {
    "scf.for": for_loop,
    "scf.if": branch,
    "scf.while": while_loop,
    "tt.assert": assertion,
}
