"""Liveness of scratchpad bytes: a store to bytes that nobody reads again is left out.

An address is known up to the register added to it. A register whose values are bounded (`register_ranges`) has its own
address space, relative to its current value; when it changes, what was live there becomes live, within the bounds, in
the absolute space (register 0). A set of live bytes is, for each space, a bit mask over segments between all addresses
that occur in the program.
"""

import bisect

from tapeout.isa import Instruction, Program
from tapeout.isa import definitions as isa
from tapeout.isa.fields import written_register
from tapeout.sim.functional.analysis import Block, Region, region_of
from tapeout.sim.functional.operands import ANYWHERE, tile_uses

Live = dict[int, int]
"""For each address space (a register's number) the live segments. UNKNOWN: an unbounded register was read through."""

UNKNOWN = -1


def regions_of(item: Instruction) -> tuple[list[Region], list[Region]]:
    """(read, written) regions of an instruction, without register versions."""
    match item:
        case isa.ScalarLoad() | isa.ScalarStore():
            region = Region(item.address, item.address + item.dtype.size_bytes, item.offset, 0, True)
            return ([region], []) if isinstance(item, isa.ScalarLoad) else ([], [region])
    read: list[Region] = []
    written: list[Region] = []
    for use, tile, matters in tile_uses(item):
        region = ANYWHERE if use.picked else region_of(tile, use.extents, use.dtype.size_bytes, 0)
        if use.writes:
            written.append(region)
        if matters:
            read.append(region)
    return read, written


class Liveness:
    """Live bytes after every instruction of a program."""

    def __init__(self, program: Program, blocks: tuple[Block, ...], ranges: dict[int, tuple[int, int]]) -> None:
        self.program = program
        self.ranges = ranges
        self.regions = [regions_of(item) for item in program.instructions]
        points = {0, 1 << 62}
        for read, written in self.regions:
            for region in (*read, *written):
                low, high = ranges.get(region.register, (0, 0))
                points |= {region.start, region.end, region.start + low, region.end + high}
        self.points = sorted(points)
        self.entry: dict[int, Live] = {block.start: {} for block in blocks}
        self._solve(blocks)

    def _solve(self, blocks: tuple[Block, ...]) -> None:
        changed = True
        while changed:
            changed = False
            for block in reversed(blocks):
                live = self.at_end(block)
                for index in range(block.end - 1, block.start - 1, -1):
                    live = self.before(index, live)
                if live != self.entry[block.start]:
                    self.entry[block.start] = live
                    changed = True

    def at_end(self, block: Block) -> Live:
        """Live after a block: what any successor reads first."""
        last = self.program.instructions[block.end - 1]
        successors = [] if isinstance(last, isa.Halt | isa.Trap | isa.Jump) else [block.end]
        if last.target_index is not None:
            successors.append(last.target_index)
        live: Live = {}
        for successor in successors:
            for space, mask in self.entry.get(successor, {}).items():
                live[space] = live.get(space, 0) | mask
        return live

    def _mask(self, start: int, end: int) -> int:
        """Segments that intersect [start, end)."""
        first = max(bisect.bisect_right(self.points, start) - 1, 0)
        last = bisect.bisect_left(self.points, end)
        return ((1 << max(last - first, 0)) - 1) << first

    def _absolute(self, space: int, mask: int) -> int:
        """Live segments of a register's space, in the absolute one."""
        low, high = self.ranges[space]
        absolute = 0
        while mask:
            first = (mask & -mask).bit_length() - 1
            run = ((mask >> first) + 1 & ~(mask >> first)).bit_length() - 1
            end = min(first + run, len(self.points) - 1)
            absolute |= self._mask(self.points[first] + low, self.points[end] + high)
            mask &= ~(((1 << run) - 1) << first)
        return absolute

    def before(self, index: int, live: Live) -> Live:
        """Live before an instruction, given what is live after it."""
        read, written = self.regions[index]
        register = written_register(self.program.instructions[index])
        if not read and not written and register not in live:
            return live
        live = dict(live)
        if register and register in live:
            mask = live.pop(register)
            live[0] = live.get(0, 0) | self._absolute(register, mask)
        for region in written:
            if region.dense and live.get(region.register):
                live[region.register] &= ~self._inner(region)
                if not live[region.register]:
                    del live[region.register]
        for region in read:
            space = region.register if region.register in self.ranges else UNKNOWN
            live[space] = live.get(space, 0) | self._mask(region.start, region.end)
        return live

    def _inner(self, region: Region) -> int:
        """Segments a dense region covers wholly; its ends are points, so these are all it touches."""
        return self._mask(region.start, region.end)

    def is_live(self, region: Region, live: Live) -> bool:
        """Return whether any byte of a region may still be read."""
        if not live:
            return False
        if UNKNOWN in live or region.register not in self.ranges:
            return True
        if live.get(region.register, 0) & self._mask(region.start, region.end):
            return True
        low, high = self.ranges[region.register]
        here = self._mask(region.start + low, region.end + high)
        for space, mask in live.items():
            if space == region.register:
                continue
            if (mask if space == 0 else self._absolute(space, mask)) & here:
                return True
        return False

    def states(self, block: Block) -> dict[int, Live]:
        """Return what is live before each instruction of a block, and (at its end) after the last."""
        states = {block.end: self.at_end(block)}
        for index in range(block.end - 1, block.start - 1, -1):
            states[index] = self.before(index, states[index + 1])
        return states

    def add(self, region: Region, live: Live) -> Live:
        """Live with one more region read."""
        space = region.register if region.register in self.ranges else UNKNOWN
        return {**live, space: live.get(space, 0) | self._mask(region.start, region.end)}

    def remove(self, region: Region, live: Live) -> Live:
        """Live without a region that has just been written, if all of it was."""
        mask = live.get(region.register, 0)
        if not region.dense or not mask:
            return live
        rest = mask & ~self._inner(region)
        live = dict(live)
        if rest:
            live[region.register] = rest
        else:
            del live[region.register]
        return live
