"""Gives every buffer an address in the scratchpad.

A buffer that two units touch and that lives within one iteration of a loop gets several copies, used in turn
(`Loop.copies`, an offset register advanced each iteration), so that a load for the next iteration need not wait for
this one's computation: as many as the loop has stages, or fewer where they do not fit. Other buffers share addresses
when they are not live together.
"""

from tapeout.codegen.machine import Buffer, Instr, Loop, Node, Register, children
from tapeout.errors import UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit

ALIGNMENT_BYTES = 64


class ScratchpadOverflow(UnsupportedError):
    """The tiles live at one time do not fit."""


class _Lifetimes:
    """Positions of all instructions in program order; where each buffer is first and last touched; loops' extents."""

    def __init__(self, code: list[Node]) -> None:
        self.position = 0
        self.first: dict[Buffer, int] = {}
        self.last: dict[Buffer, int] = {}
        self.units: dict[Buffer, set[Unit]] = {}
        self.displaced: set[Buffer] = set()  # addressed through a register already
        self.loops: dict[Buffer, tuple[Loop, ...]] = {}
        self.extents: dict[Loop, tuple[int, int]] = {}
        self.scan(code, ())
        for buffer, loops in self.loops.items():
            self.extend(buffer, loops)

    def scan(self, nodes: list[Node], loops: tuple[Loop, ...]) -> None:
        for node in nodes:
            self.position += 1
            if isinstance(node, Instr):
                for place, _ in node.places():
                    self.touch(place.buffer, node.unit, loops)
                    if place.register is not None:
                        self.displaced.add(place.buffer)
                continue
            start = self.position
            for inner in children(node):
                self.scan(inner, (*loops, node) if isinstance(node, Loop) else loops)
            self.position += 1
            if isinstance(node, Loop):
                self.extents[node] = (start, self.position)

    def holds_loops(self, loop: Loop) -> bool:
        start, end = self.extents[loop]
        return any(start <= first and last <= end for other, (first, last) in self.extents.items() if other is not loop)

    def touch(self, buffer: Buffer, unit: Unit, loops: tuple[Loop, ...]) -> None:
        self.first.setdefault(buffer, self.position)
        self.last[buffer] = self.position
        self.units.setdefault(buffer, set()).add(unit)
        common = self.loops.setdefault(buffer, loops)
        shared = next(
            (k for k, (a, b) in enumerate(zip(common, loops, strict=False)) if a is not b),
            min(len(common), len(loops)),
        )
        self.loops[buffer] = common[:shared]

    def extend(self, buffer: Buffer, inside: tuple[Loop, ...]) -> None:
        """A buffer touched inside and outside a loop lives as long as the loop."""
        for loop, (start, end) in self.extents.items():
            if loop in inside:
                continue
            first, last = self.first[buffer], self.last[buffer]
            if first <= end and last >= start and not (first >= start and last <= end and loop in inside):
                self.first[buffer], self.last[buffer] = min(first, start), max(last, end)


def allocate(code: list[Node], capacity_bytes: int) -> int:
    """Sets the address of every buffer; returns how many bytes of scratchpad are used. Raises ScratchpadOverflow."""
    lifetimes = _Lifetimes(code)
    outer = {loop for loop in lifetimes.extents if lifetimes.holds_loops(loop)}
    most_stages = max((loop.stages for loop in lifetimes.extents), default=1)
    # Before innermost loops give up their second copies, the loops around them do, which turn less often.
    limits = [*((copies, copies) for copies in range(most_stages, 1, -1)), (2, 1), (1, 1)]
    for of_inner, of_outer in limits:
        used = _place(lifetimes, {loop: of_outer if loop in outer else of_inner for loop in lifetimes.extents})
        if used <= capacity_bytes:
            _add_rotation(lifetimes)
            return used
    raise ScratchpadOverflow(
        f"a kernel whose tiles need {used} bytes of scratchpad at one time", hint=f"the core has {capacity_bytes}"
    )


def _place(lifetimes: _Lifetimes, most_copies: dict[Loop, int]) -> int:
    rotating: dict[Loop, list[Buffer]] = {}
    for loop in lifetimes.extents:
        loop.copies = min(loop.stages, most_copies[loop])
    intervals: list[tuple[int, int, int, list[Buffer]]] = []
    for buffer, first in lifetimes.first.items():
        buffer.rotation = None
        loops = lifetimes.loops[buffer]
        is_shared = len(lifetimes.units[buffer]) > 1 and buffer not in lifetimes.displaced
        if is_shared and loops and loops[-1].copies > 1:
            rotating.setdefault(loops[-1], []).append(buffer)
        else:
            intervals.append((first, lifetimes.last[buffer], _round_up(buffer.size_bytes), [buffer]))
    for loop, buffers in rotating.items():
        start, end = lifetimes.extents[loop]
        size = sum(_round_up(b.size_bytes) for b in buffers)
        intervals.append((start, end, size * loop.copies, buffers))
        for buffer in buffers:
            buffer.rotation = loop
    return _pack(intervals)


def _pack(intervals: list[tuple[int, int, int, list[Buffer]]]) -> int:
    """First fit in order of birth: each interval at the lowest address free for its whole life."""
    active: list[tuple[int, int, int]] = []  # address, end address, last position
    used = 0
    for first, last, size, buffers in sorted(intervals, key=lambda interval: (interval[0], -interval[2])):
        active = sorted(entry for entry in active if entry[2] >= first)
        address = 0
        for low, high, _ in active:
            if low - address >= size:
                break
            address = max(address, high)
        active.append((address, address + size, last))
        used = max(used, address + size)
        for buffer in buffers:
            buffer.address = address
            address += _round_up(buffer.size_bytes)
    return used


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _add_rotation(lifetimes: _Lifetimes) -> None:
    sizes: dict[Loop, int] = {}
    for buffer in lifetimes.first:
        if buffer.rotation is not None:
            sizes[buffer.rotation] = sizes.get(buffer.rotation, 0) + _round_up(buffer.size_bytes)
    for loop, size in sizes.items():
        loop.offset = Register()
        loop.body.append(Instr(isa.Rotate, {"register": loop.offset, "step": size, "limit": size * loop.copies}))
