"""Loads of one block that overlap become a single load and slices of its tile.

The taps of a convolution read the same input, each a little further on. Takes a kernel whose accesses are raised; where
loads with nothing written in between differ only in a constant distance along one dimension, the bytes they share are
brought once: a larger tile is loaded where the first of them was, and each becomes a `tile.slice` of it, which costs
nothing. Only loads without bounds, masks and indices, and only if together they reach no byte that none of them did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tapeout.passes.raise_accesses import I64, Access, Scalar
from tapeout.tile.ir import Block, Kernel, Operation, Region, Value, make, walk

READS_ONLY = ("arith.", "math.", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape", "tt.dot")
"""Operations (or how their names begin) that loads may move across."""

SHARED = "shared"
"""Attribute of a slice of a tile that several loads share."""


@dataclass(frozen=True)
class _Linear:
    """constant + sum(factor * value)."""

    constant: int
    factors: tuple[tuple[Value, int], ...] = ()

    def plus(self, other: "_Linear", times: int = 1) -> "_Linear":
        factors = dict(self.factors)
        for value, factor in other.factors:
            factors[value] = factors.get(value, 0) + times * factor
        kept = tuple((value, factor) for value, factor in factors.items() if factor)
        return _Linear(self.constant + times * other.constant, kept)


@dataclass(frozen=True)
class _Member:
    """One of the loads that can share: its operation, its place in the block, and its distance from the first in steps
    along the dimension they differ in (None: in none)."""

    operation: Operation
    position: int
    steps: int
    dimension: int | None


def share_overlapping_loads(kernel: Kernel) -> Kernel:
    return replace(kernel, body=_shared_region(kernel.body))


def has_shared_loads(kernel: Kernel) -> bool:
    """Return whether there are tiles that this pass made. Their sides are of any length, so they cannot be split
    evenly."""
    return any(operation.name == "tile.slice" and SHARED in operation.attributes for operation in walk(kernel.body))


def _shared_region(region: Region) -> Region:
    return Region([Block(b.arguments, _shared_block(b.operations), b.label) for b in region.blocks])


def _shared_block(operations: list[Operation]) -> list[Operation]:
    for operation in operations:
        operation.regions = [_shared_region(region) for region in operation.regions]
    made: dict[int, list[Operation]] = {}
    for group in _groups(operations):
        union, slices = _union(group)
        made[group[0].position] = union
        for member, piece in zip(group, slices, strict=True):
            made[member.position] = [*made.get(member.position, []), piece]
    return [new for position, old in enumerate(operations) for new in made.get(position, [old])]


def _groups(operations: list[Operation]) -> Iterator[list[_Member]]:
    """Loads that are worth bringing together."""
    open_groups: list[list[_Member]] = []
    for position, operation in enumerate(operations):
        if operation.name == "tile.load":
            if not _is_plain(operation):
                continue
            for group in open_groups:
                member = _member(group, operation, position)
                if member is not None:
                    group.append(member)
                    break
            else:
                open_groups.append([_Member(operation, position, 0, None)])
        elif not operation.name.startswith(READS_ONLY):
            yield from filter(_is_worth_it, open_groups)
            open_groups = []
    yield from filter(_is_worth_it, open_groups)


def _is_plain(operation: Operation) -> bool:
    access: Access = operation.attributes["access"]
    bounds = (*access.low, *access.high, access.index, access.mask)
    return (
        access.root is not None
        and all(bound is None for bound in bounds)
        and not operation.attributes.get("volatile")
        and bool(operation.result.type.shape)
    )


def _member(group: list[_Member], operation: Operation, position: int) -> _Member | None:
    """The load as a member of the group, if it differs from the first in a distance along one dimension only."""
    first = group[0].operation
    ours, theirs = operation.attributes["access"], first.attributes["access"]
    if operation.result.type != first.result.type or ours.root is not theirs.root:
        return None
    if [_linear(s) for s in ours.strides_bytes] != [_linear(s) for s in theirs.strides_bytes]:
        return None
    distance = _linear(ours.base).plus(_linear(theirs.base), -1)
    if distance.factors:
        return None
    if distance.constant == 0:
        return _Member(operation, position, 0, None)
    dimensions = {m.dimension for m in group if m.dimension is not None}
    for d, (stride, extent) in enumerate(zip(ours.strides_bytes, operation.result.type.shape, strict=True)):
        if not isinstance(stride, int) or stride == 0 or distance.constant % stride or dimensions - {d}:
            continue
        if abs(distance.constant // stride) < extent:
            return _Member(operation, position, distance.constant // stride, d)
    return None


def _is_worth_it(group: list[_Member]) -> bool:
    """Return whether a quarter of what is loaded can be saved."""
    extent, union = _extents(group)
    return len(group) > 1 and 4 * union <= 3 * extent * len(group)


def _extents(group: list[_Member]) -> tuple[int, int]:
    """Return the extent of one load along the dimension, and of all together."""
    d = _dimension(group)
    extent = group[0].operation.result.type.shape[d]
    steps = [member.steps for member in group]
    return extent, extent + max(steps) - min(steps)


def _dimension(group: list[_Member]) -> int:
    return next((member.dimension for member in group if member.dimension is not None), 0)


def _union(group: list[_Member]) -> tuple[list[Operation], list[Operation]]:
    """The load of all with what computes its address, and the slices that take the loads' places."""
    first, d, start = group[0].operation, _dimension(group), min(member.steps for member in group)
    access: Access = first.attributes["access"]
    computed: list[Operation] = []
    base: Scalar = access.base
    if start:
        stride = access.strides_bytes[d]
        assert isinstance(stride, int)
        if isinstance(base, int):
            base += start * stride
        else:
            distance = make("arith.constant", [], [I64], {"value": start * stride}, first.location)
            moved = make("arith.addi", [base, distance.result], [I64], {}, first.location)
            computed, base = [distance, moved], moved.result
    shape = list(first.result.type.shape)
    shape[d] = _extents(group)[1]
    access = replace(access, base=base)
    attributes: dict[str, Any] = {**first.attributes, "access": access}
    union = make("tile.load", access.values(), [first.result.type.with_shape(tuple(shape))], attributes, first.location)
    slices = []
    for member in group:
        old = member.operation
        place = {"axis": d, "start": member.steps - start, SHARED: True}
        slices.append(Operation("tile.slice", [union.result], old.results, place, [], old.location).own_results())
    return [*computed, union], slices


def _linear(scalar: Scalar) -> _Linear:
    """Return what a scalar is made of, as far as it is sums and constant multiples; arithmetic is taken not to
    overflow."""
    if isinstance(scalar, int):
        return _Linear(scalar)
    owner = scalar.owner
    if owner is not None:
        operands = owner.operands
        match owner.name:
            case "arith.constant" if isinstance(owner.attributes["value"], int):
                return _Linear(owner.attributes["value"])
            case "arith.extsi" | "arith.index_cast" | "tt.bitcast":
                return _linear(operands[0])
            case "arith.addi":
                return _linear(operands[0]).plus(_linear(operands[1]))
            case "arith.subi":
                return _linear(operands[0]).plus(_linear(operands[1]), -1)
            case "tt.addptr":
                pointee = scalar.type.pointee
                assert pointee is not None
                return _linear(operands[0]).plus(_linear(operands[1]), pointee.size_bytes)
            case "arith.muli":
                for one, other in ((0, 1), (1, 0)):
                    factor = _linear(operands[one])
                    if not factor.factors:
                        return _Linear(0).plus(_linear(operands[other]), factor.constant)
    return _Linear(0, ((scalar, 1),))
