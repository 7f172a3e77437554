"""Results given a place of their own, where the compiler reused a buffer.

Two tiles that lie in the same bytes one after the other order instructions that otherwise could share a loop. Within a
run, a small result that is used up before the run ends may lie anywhere: it moves to spare bytes behind the program's
scratchpad, with all its readers.
"""

from dataclasses import replace

from tapeout.sim.functional.analysis import Region, covers, may_overlap
from tapeout.sim.functional.liveness import Live, Liveness
from tapeout.sim.functional.node import Node
from tapeout.sim.functional.vector import Access

LARGEST_BYTES = 1 << 13
LONGEST_RUN = 400
"""Longer runs keep their places: looking for readers takes time that grows with the square of the length."""


def rename(nodes: list[Node], live: Live, liveness: Liveness, first: int, end: int) -> None:
    """Move results of vector instructions to bytes [first, end); `live`: what may be read after the run."""
    if len(nodes) > LONGEST_RUN:
        return
    ranges = liveness.ranges
    for position, node in enumerate(nodes):
        region = node.written.get("result")
        if node.step is None or region is None or not region.dense or region.start >= first:
            continue
        size = -(-(region.end - region.start) // 64) * 64
        if size > LARGEST_BYTES or first + size > end or not _is_reused(nodes[: position + 1], region, ranges):
            continue
        readers = _readers(nodes[position + 1 :], region, ranges)
        if readers is None or (readers.reach_end and liveness.is_live(region, live)):
            continue
        shift = first - region.start
        _move(node, "result", shift)
        for reader, name in readers.operands:
            _move(reader, name, shift)
        first += size


class _Readers:
    def __init__(self, operands: list[tuple[Node, str]], reach_end: bool) -> None:
        self.operands = operands
        self.reach_end = reach_end


def _is_reused(before: list[Node], region: Region, ranges: dict[int, tuple[int, int]]) -> bool:
    """Whether an earlier instruction of the run, or this one, uses any of the bytes for something else."""
    *earlier, node = before
    if any(may_overlap(region, read, ranges) for read in node.read.values()):
        return True
    return any(may_overlap(region, other, ranges) for n in earlier for other in (*n.read.values(), *n.written.values()))


def _readers(after: list[Node], region: Region, ranges: dict[int, tuple[int, int]]) -> _Readers | None:
    """Every operand that reads the region until it is overwritten; None if one reads or overwrites more or less."""
    operands = []
    for node in after:
        for name, read in node.read.items():
            if may_overlap(read, region, ranges):
                if not covers(replace(region, dense=True), read):
                    return None
                operands.append((node, name))
        written = [w for w in node.written.values() if may_overlap(w, region, ranges)]
        if any(covers(w, region) for w in written):
            return _Readers(operands, reach_end=False)
        if written:
            return None
    return _Readers(operands, reach_end=True)


def _move(node: Node, name: str, shift: int) -> None:
    """One operand reads or writes `shift` bytes further on, whatever the register that was added."""
    for regions in (node.read, node.written):
        if name in regions:
            old = regions[name]
            moved = Region(old.start + shift, old.end + shift, 0, 0, old.dense)
            regions[name] = moved
    node.shifts[name] = shift
    if node.step is not None:
        access = node.step.operands[name]
        assert isinstance(access, Access)
        access = replace(access, base=access.base + shift, offset="0", region=moved)
        node.step = replace(node.step, operands={**node.step.operands, name: access})
