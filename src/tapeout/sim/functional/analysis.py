"""Facts about a Program found without running it: basic blocks, what registers can hold, which bytes tiles occupy."""

import itertools
from dataclasses import dataclass

from tapeout.isa import AccessPattern, LoadImmediate, Program, Rotate
from tapeout.isa import definitions as isa
from tapeout.isa.fields import written_register

BRANCHES = (isa.Jump, isa.BranchNonzero, isa.BranchZero)


@dataclass(frozen=True)
class Block:
    """Instructions [start, end) of a program, entered at the start only."""

    start: int
    end: int


def basic_blocks(program: Program) -> tuple[Block, ...]:
    """Blocks in program order; the first is the entry."""
    items = program.instructions
    leaders = {0, len(items)}
    for index, item in enumerate(items):
        if isinstance(item, (*BRANCHES, isa.Halt, isa.Trap)):
            leaders.add(index + 1)
        if item.target_index is not None:
            leaders.add(item.target_index)
    ordered = sorted(leader for leader in leaders if leader <= len(items))
    return tuple(Block(a, b) for a, b in itertools.pairwise(ordered))


def register_ranges(program: Program) -> dict[int, tuple[int, int]]:
    """For registers set by constants and `rotate` alone: the smallest and largest value. Registers start as zero."""
    constants: dict[int, set[int]] = {0: {0}}
    rotations: dict[int, set[tuple[int, int]]] = {}
    unknown: set[int] = set()
    for item in program.instructions:
        register = written_register(item)
        if isinstance(item, LoadImmediate):
            constants.setdefault(register, {0}).add(item.value)
        elif isinstance(item, Rotate):
            rotations.setdefault(register, set()).add((item.step, item.limit))
        else:
            unknown.add(register)
    ranges = {}
    for register in (constants.keys() | rotations.keys()) - (unknown - {0}):
        values = constants.get(register, {0})
        turns = rotations.get(register, set())
        if values == {0} and len(turns) == 1:
            ((step, limit),) = turns
            ranges[register] = (0, (limit - 1) // step * step)
        else:
            ranges[register] = (min(values), max(*values, 0, *(limit - 1 for _, limit in turns)))
    return ranges


@dataclass(frozen=True)
class Region:
    """Bytes [start, end) of the scratchpad at offset `register`, whose value was given by its `version`-th write.

    `dense`: every byte in between is touched.
    """

    start: int
    end: int
    register: int
    version: int
    dense: bool


def region_of(pattern: AccessPattern, shape: tuple[int, ...], element_bytes: int, version: int) -> Region:
    low = high = 0
    steps = sorted((abs(s), n) for s, n in zip(pattern.strides, shape, strict=True) if n > 1 and s)
    reach = 1
    dense = True
    for stride, extent in steps:
        dense &= stride == reach
        reach = stride * extent
    for stride, extent in zip(pattern.strides, shape, strict=True):
        last = stride * (extent - 1)
        low += min(last, 0)
        high += max(last, 0)
    return Region(
        pattern.base + low * element_bytes,
        pattern.base + (high + 1) * element_bytes,
        pattern.register,
        version,
        dense,
    )


def may_overlap(a: Region, b: Region, ranges: dict[int, tuple[int, int]]) -> bool:
    """Return whether two regions can share a byte, by what is known of their registers."""
    if a.register == b.register and a.version == b.version:
        return a.start < b.end and b.start < a.end
    if a.register not in ranges or b.register not in ranges:
        return True
    a_low, a_high = ranges[a.register]
    b_low, b_high = ranges[b.register]
    return a.start + a_low < b.end + b_high and b.start + b_low < a.end + a_high


def covers(a: Region, b: Region) -> bool:
    """Return whether writing region a leaves nothing of b."""
    same_space = a.register == b.register and a.version == b.version
    return a.dense and same_space and a.start <= b.start and b.end <= a.end


READS_HBM = (isa.Load, isa.LoadIndexed, isa.Atomic)
WRITES_HBM = (isa.Store, isa.StoreIndexed)


@dataclass(frozen=True)
class WaitingLoop:
    """Instructions [start, end] that may repeat until another program changes memory: they read it, and change it by
    atomics only. `registers`: those that the turns change, addresses of rotating buffers apart."""

    start: int
    end: int
    registers: tuple[int, ...]
    has_atomics: bool


def waiting_loops(program: Program) -> dict[int, WaitingLoop]:
    """Return the waiting loops by the index of the branch that starts the next turn."""
    loops = {}
    for end, last in enumerate(program.instructions):
        start = last.target_index
        if start is None or start > end:
            continue
        items = program.instructions[start:end]
        if any(isinstance(item, (*WRITES_HBM, isa.NextProgram)) for item in items):
            continue
        if any(isinstance(item, READS_HBM) for item in items):
            written = {written_register(item) for item in items if not isinstance(item, Rotate)} - {0}
            loops[end] = WaitingLoop(
                start, end, tuple(sorted(written)), any(isinstance(item, isa.Atomic) for item in items)
            )
    return loops
