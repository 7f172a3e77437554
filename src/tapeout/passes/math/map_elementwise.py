"""`tt.map_elementwise`: a function of scalars applied to every element, as operations on whole tiles.

Both sides of a branch are computed and one is chosen, so the function must have no effects; its loops must run equally
often for every element. With `pack`, the function takes that many neighbouring elements of each operand at a time.
"""

from tapeout.errors import UnsupportedError
from tapeout.passes.math.formula import Term, select
from tapeout.tile.ir import Block, Operation, Region, Type, Value


def map_elementwise(operation: Operation, operands: list[Term]) -> list[Term]:
    pack = operation.attributes.get("pack", 1)
    parts = [part for operand in operands for part in _unpack(operand, pack)]
    block = operation.regions[0].block
    lifting = _Lifting(parts[0], dict(zip(block.arguments, parts, strict=True)))
    results = lifting.run(block)
    return [
        _pack(results[start : start + pack], result.type)
        for start, result in zip(range(0, len(results), pack), operation.results, strict=True)
    ]


def _unpack(tile: Term, pack: int) -> list[Term]:
    """Every pack-th element, for each start below `pack`."""
    if pack == 1:
        return [tile]
    count = tile.value.type.size // 2
    pairs = tile.emit_shaped("tt.reshape", [tile], tile.value.type.with_shape((count, 2)))
    split = Operation("tt.split", [pairs.value], [], location=tile.location)
    split.results = [Value(tile.value.type.with_shape((count,)), split) for _ in range(2)]
    tile.operations.append(split)
    even, odd = (_unpack(Term(r, tile.operations, tile.location), pack // 2) for r in split.results)
    return [part for both in zip(even, odd, strict=True) for part in both]


def _pack(parts: list[Term], type: Type) -> Term:
    """The inverse of `_unpack`, in the shape of a type."""
    if len(parts) == 1:
        (tile,) = parts
    else:
        even, odd = (_pack(parts[start::2], type.with_shape((type.size // 2,))) for start in (0, 1))
        tile = even.emit_shaped("tt.join", [even, odd], type.with_shape((type.size // 2, 2)))
    return tile if tile.shape == type.shape else tile.emit_shaped("tt.reshape", [tile], type)


class _Lifting:
    """Repeats operations on scalars as operations on tiles of the shape of `like`."""

    def __init__(self, like: Term, lifted: dict[Value, Term]) -> None:
        self.like = like
        self.lifted = lifted

    def operand(self, value: Value) -> Term:
        """A value as a tile; one from outside is the same for every element."""
        if value not in self.lifted:
            outside = Term(value, self.like.operations, self.like.location)
            self.lifted[value] = self.like.emit_shaped("tt.splat", [outside], value.type.with_shape(self.like.shape))
        return self.lifted[value]

    def run(self, block: Block) -> list[Term]:
        """Values of the block's terminator."""
        for operation in block.operations[:-1]:
            self.lift(operation)
        return [self.operand(value) for value in block.operations[-1].operands]

    def lift(self, operation: Operation) -> None:
        if operation.name == "scf.if":
            condition = self.operand(operation.operands[0])
            then, otherwise = (self.run(region.block) for region in operation.regions)
            for result, a, b in zip(operation.results, then, otherwise, strict=True):
                self.lifted[result] = select(condition, a, b)
            return
        if operation.name == "scf.for":
            self.lift_loop(operation)
            return
        if operation.regions or not operation.results:
            raise UnsupportedError(
                f"{operation.name} in a function mapped over elements",
                where=operation.location or None,
                hint="only arithmetic, `if` and loops that run equally often for every element are possible there",
            )
        operands = [self.operand(value).value for value in operation.operands]
        made = Operation(operation.name, operands, [], operation.attributes, [], operation.location)
        for result in operation.results:
            tile = Value(result.type.with_shape(self.like.shape), made)
            made.results.append(tile)
            self.lifted[result] = Term(tile, self.like.operations, operation.location)
        self.like.operations.append(made)

    def lift_loop(self, operation: Operation) -> None:
        bounds, initial = operation.operands[:3], [self.operand(value) for value in operation.operands[3:]]
        if any(value in self.lifted for value in bounds):
            raise UnsupportedError(
                "a loop in a function mapped over elements",
                where=operation.location or None,
                hint="its bounds differ between elements; loops that run equally often for all of them are possible",
            )
        body = operation.regions[0].block
        counter, *arguments = body.arguments
        tiles = [Value(argument.type.with_shape(self.like.shape)) for argument in arguments]
        inside: list[Operation] = []
        like = Term(self.like.value, inside, operation.location)
        inner = _Lifting(like, self.lifted | {a: Term(t, inside) for a, t in zip(arguments, tiles, strict=True)})
        after = inner.run(body)
        inside.append(Operation("scf.yield", [term.value for term in after], []))
        region = Region([Block([counter, *tiles], inside)])
        operands = [*bounds, *(term.value for term in initial)]
        made = Operation("scf.for", operands, [], operation.attributes, [region], operation.location)
        for result, tile in zip(operation.results, tiles, strict=True):
            made.results.append(Value(tile.type, made))
            self.lifted[result] = Term(made.results[-1], self.like.operations, operation.location)
        self.like.operations.append(made)
