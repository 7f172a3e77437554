"""Early returns become `scf.if`: afterwards every region has one block, which ends in its only return.

Takes a kernel whose functions, and the functions mapped over elements, may branch between blocks (`cf.cond_br`,
`cf.br`, forward only, as Triton emits for a return inside `if`). Where the sides of a branch meet again, the branch
yields whether its side arrived there; what follows is then done under that condition, so code is not repeated.
"""

from dataclasses import dataclass, replace

from tapeout.errors import UnsupportedError
from tapeout.numerics.dtypes import DType
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value, clone, make, walk

RETURNS = ("tt.return", "tt.map_elementwise.return")


def structure_returns(kernel: Kernel) -> Kernel:
    functions = {name: Kernel(name, _structure(name, function.body)) for name, function in kernel.functions.items()}
    return replace(kernel, body=_structure(kernel.name, kernel.body), functions=functions)


def _structure(name: str, region: Region) -> Region:
    for operation in walk(region):
        if operation.name == "tt.map_elementwise":
            operation.regions = [_structure(name, inner) for inner in operation.regions]
    if len(region.blocks) == 1:
        return region
    return _Structurer(name, region).region()


@dataclass
class _Path:
    """Effect of a piece of code: its operations, whether it arrives at the block where its caller goes on (True, False
    or an i1), what it passes to that block, and what it returns if it does not arrive."""

    operations: list[Operation]
    arrives: bool | Value
    passed: list[Value]
    returned: list[Value]


class _Structurer:
    def __init__(self, name: str, region: Region) -> None:
        self.name = name
        self.blocks = {block.label: block for block in region.blocks}
        self.first = region.blocks[0]
        self.final = next(block.operations[-1] for block in region.blocks if block.operations[-1].name in RETURNS)
        self.order: dict[str, int] = {}
        self.reach: dict[str, set[str]] = {}
        self._sort(self.first, [])

    def _sort(self, block: Block, above: list[str]) -> None:
        """Numbers blocks so that each comes before those it can reach, and notes which those are."""
        reached = {block.label}
        for label in block.operations[-1].attributes.get("targets", ()):
            if label in above or label == block.label:
                raise UnsupportedError(f"a loop outside `for` and `while` in function {self.name}")
            if label not in self.reach:
                self._sort(self.blocks[label], [*above, block.label])
            reached |= self.reach[label]
        self.reach[block.label] = reached
        self.order[block.label] = -len(self.reach)

    def region(self) -> Region:
        path = self._follow(self.first, {}, None)
        return Region([Block(self.first.arguments, [*path.operations, Operation(self.final.name, path.returned, [])])])

    def _follow(self, block: Block, mapping: dict[Value, Value], stop: Block | None) -> _Path:
        """Follow the code from the start of a block to a return, or to the block `stop`."""
        operations = [clone(operation, mapping) for operation in block.operations[:-1]]
        last = block.operations[-1]
        if last.name in RETURNS:
            return _Path(operations, False, [], [mapping.get(value, value) for value in last.operands])
        if last.name == "cf.br":
            return self._joined(operations, self._enter(last, 0, mapping, stop))
        assert last.name == "cf.cond_br"
        meeting = self._meeting(last, stop)
        sides = [self._enter(last, side, mapping, meeting) for side in (0, 1)]
        path = self._joined(operations, self._branch(last, mapping, sides, meeting))
        if meeting is None or meeting is stop:
            return path
        return self._continue(path, meeting, mapping, stop, last.location)

    def _joined(self, operations: list[Operation], path: _Path) -> _Path:
        return _Path([*operations, *path.operations], path.arrives, path.passed, path.returned)

    def _enter(self, jump: Operation, side: int, mapping: dict[Value, Value], stop: Block | None) -> _Path:
        target = self.blocks[jump.attributes["targets"][side]]
        forwarded = [mapping.get(v, v) for v in jump.attributes["forwarded"][side]]
        if target is stop:
            return _Path([], True, forwarded, [])
        return self._follow(target, mapping | dict(zip(target.arguments, forwarded, strict=True)), stop)

    def _meeting(self, branch: Operation, stop: Block | None) -> Block | None:
        """The first block both sides of a branch can reach, before `stop`. A mere return is not worth meeting for."""
        left, right = (self.reach[label] for label in branch.attributes["targets"])
        common = {label for label in left & right if self.blocks[label].operations[-1].name not in RETURNS
                  or len(self.blocks[label].operations) > 1}  # fmt: skip
        if stop is not None and stop.label in left | right:
            common = {label for label in common if self.order[label] < self.order[stop.label]} | {stop.label}
        first = min(common, key=self.order.__getitem__, default=None)
        return None if first is None else self.blocks[first]

    def _branch(self, last: Operation, mapping: dict[Value, Value], sides: list[_Path], meeting: Block | None) -> _Path:
        """`scf.if` of two sides, each completed with values nobody reads for what it does not give."""
        agreed = sides[0].arrives is sides[1].arrives and isinstance(sides[0].arrives, bool)
        certain = sides[0].arrives if agreed else None
        passed = [a.type for a in meeting.arguments] if meeting is not None and certain is not False else []
        returned = [value.type for value in self.final.operands] if certain is not True else []
        arriving = [Type(DType.I1)] if certain is None else []
        condition = mapping.get(last.operands[0], last.operands[0])
        branch = make("scf.if", [condition], [*arriving, *passed, *returned], {}, last.location)
        for side in sides:
            inside = list(side.operations)
            values: list[Value] = []
            if arriving:
                arrives = side.arrives
                values.append(
                    arrives if isinstance(arrives, Value) else _constant(inside, Type(DType.I1), int(arrives))
                )
            values += [_constant(inside, t) for t in passed] if side.arrives is False else side.passed
            values += [_constant(inside, t) for t in returned] if side.arrives is True else side.returned
            inside.append(Operation("scf.yield", values, [], location=last.location))
            branch.regions.append(Region([Block([], inside)]))
        results = branch.results
        arrived: bool | Value = results[0] if certain is None else certain is True
        results = results[len(arriving) :]
        return _Path([branch], arrived, results[: len(passed)], results[len(passed) :])

    def _continue(
        self, path: _Path, block: Block, mapping: dict[Value, Value], stop: Block | None, location: str
    ) -> _Path:
        """Return what follows at the block a path arrives at, if it does."""
        if path.arrives is False:
            return path
        rest = self._follow(block, mapping | dict(zip(block.arguments, path.passed, strict=True)), stop)
        if path.arrives is True:
            return self._joined(path.operations, rest)
        jump = Operation("cf.cond_br", [path.arrives], [], location=location)
        left = _Path([], False, [], path.returned)
        return self._joined(path.operations, self._branch(jump, {}, [rest, left], stop))


def _constant(operations: list[Operation], type: Type, value: int = 0) -> Value:
    """A constant; 0 also stands for what a side of a branch has not to give."""
    made = make("arith.constant", [], [type], {"value": value})
    operations.append(made)
    return made.result
