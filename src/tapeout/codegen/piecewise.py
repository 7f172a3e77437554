"""Instructions that may be run piece by piece: which part of each tile a piece takes, and which may be run together.

Takes instructions over whole tiles; gives what `split_tiles` makes loops of.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tapeout.codegen.machine import ANYWHERE, Buffer, Instr, Place, Register, contiguous
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, Unit

HOISTED = (isa.Scalar, isa.ScalarSelect, isa.ScalarConvert, isa.ProgramId, isa.GridSize)
LONGEST = 1 << 15
Steps = list[tuple[Register, int | Register]]
"""Registers and what a count of each is worth."""


@dataclass(frozen=True)
class Digits:
    """Place of piece number q: for each split dimension how many parts, the extent of a part, and how q is
    read (q >> shift, modulo parts)."""

    parts: tuple[int, ...]
    extents: tuple[int, ...]
    shifts: tuple[int, ...]


def digits_of_shape(shape: tuple[int, ...], pieces: int, dimensions: int) -> Digits | None:
    """Splits the leading of `dimensions` dimensions into `pieces` parts in row-major order, if they divide."""
    parts, extents, remaining = [], [], pieces
    for d, extent in enumerate(shape):
        if d >= dimensions or remaining == 1:
            count = 1
        elif extent <= remaining:
            count = extent
        else:
            count = remaining
        if extent % count or remaining % count:
            return None
        parts.append(count)
        extents.append(extent // count)
        remaining //= count
    if remaining > 1 or any(count & (count - 1) for count in parts):
        return None
    shifts, shift = [0] * len(shape), 0
    for d in reversed(range(len(shape))):
        shifts[d] = shift
        shift += parts[d].bit_length() - 1
    return Digits(tuple(parts), tuple(extents), tuple(shifts))


def piece_offset(place: Place, digits: Digits, size: int) -> list[tuple[int, int]]:
    """(dimension, bytes a step of its digit moves the operand) for the dimensions that move it."""
    steps = []
    for d, parts in enumerate(digits.parts):
        step = place.strides[d] * digits.extents[d] * size
        if parts > 1 and step:
            steps.append((d, step))
    return steps


def digits_of(instr: Instr, pieces: int) -> Digits | None:
    return digits_of_shape(instr.shape, pieces, _divisible_dimensions(instr))


def _divisible_dimensions(instr: Instr) -> int:
    return DIMENSIONS - 1 if instr.kind is isa.Reduce else DIMENSIONS


def indivisible(instr: Instr, pieces: int) -> tuple[int, int] | None:
    """The dimension that keeps an instruction from being split, and at which element to cut it; None if there is no
    such dimension, but too few elements in all that may be split."""
    remaining = pieces
    for d, extent in enumerate(instr.shape[: _divisible_dimensions(instr)]):
        if extent <= remaining:
            if extent & (extent - 1):
                return d, 1 << (extent.bit_length() - 1)
            remaining //= extent
        elif extent % remaining:
            return d, extent - extent % remaining
        else:
            remaining = 1
    return None


def element_sizes(instr: Instr) -> dict[str, int]:
    """Bytes of an element of each tile operand."""
    names = [field.name for field in instr.kind.fields if field.of is not None or field.name == "address"]
    return {name: instr.dtype_of(name).size_bytes for name in names}


def named_places(instr: Instr) -> list[tuple[str, Place, bool]]:
    """Tile operands: (name, place, whether it is written)."""
    values = ((spec, instr.fields.get(spec.name)) for spec in instr.kind.operand_fields)
    return [(spec.name, value, spec.writes) for spec, value in values if isinstance(value, Place)]


def _is_linear(place: Place, digits: Digits, size: int, pieces: int) -> bool:
    """Return whether piece q of the operand lies in the q-th of `pieces` equal parts of its buffer."""
    total = place.buffer.size_bytes
    if total % pieces:
        return False
    part = total // pieces
    reach = place.offset
    for d, extent in enumerate(digits.extents):
        if place.strides[d] < 0:
            return False
        reach += (extent - 1) * place.strides[d] * size
        if digits.parts[d] > 1 and place.strides[d] * digits.extents[d] * size != part << digits.shifts[d]:
            return False
    return reach + size <= part


def reached(place: Place, extents: tuple[int, ...]) -> int:
    """Return how many elements an operand goes through."""
    return count(tuple(extent for extent, stride in zip(extents, place.strides, strict=True) if stride))


def count(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s if e > 1 else 0 for e, s in zip(shape, contiguous(shape), strict=True))


@dataclass(frozen=True)
class Move:
    """Elements of a large tile and the place in the scratchpad they are staged in: at byte `start` plus the steps from
    the buffer's beginning, `strides` counting elements."""

    buffer: Buffer
    steps: Steps
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    element_bytes: int
    stage: Place


def moves_of_part(buffer: Buffer, piece: Register, stage: Buffer, size: int) -> list[Move]:
    """Return the moves, in elements of `size` bytes, between the part of a tile whose number is in a register, and its
    place in a stage."""
    moves = []
    elements, start = stage.size_bytes // size, 0
    while start < elements:
        rest = elements - start
        shape = (1, 1, 1, rest) if rest <= LONGEST else (1, 1, rest // LONGEST, LONGEST)
        place = Place(stage, start * size, dense(shape))
        parts: Steps = [(piece, stage.size_bytes)]
        moves.append(Move(buffer, parts, start * size, shape, place.strides, size, place))
        start += count(shape)
    return moves


@dataclass
class Run:
    """Instructions to be run piece by piece: all of them for one piece after the other gives what running each as a
    whole gives. `linear`: of each buffer, whether all operands in it keep piece q to the q-th part of it."""

    pieces: int
    instrs: list[Instr] = field(default_factory=list)
    scalars: list[Instr] = field(default_factory=list)
    linear: dict[Buffer, bool] = field(default_factory=dict)
    touches: Counter[Buffer] = field(default_factory=Counter)
    written: set[Buffer] = field(default_factory=set)
    memories: dict[object, list[Instr]] = field(default_factory=dict)
    registers: set[Register] = field(default_factory=set)

    def add(self, instr: Instr) -> bool:
        """Takes one more instruction, if it may."""
        digits = digits_of(instr, self.pieces)
        if digits is None:
            return False
        sizes, linear = element_sizes(instr), dict[Buffer, bool]()
        written = {place.buffer for place, writes in instr.places() if writes}
        for name, place, _ in named_places(instr):
            buffer = place.buffer
            before = linear.get(buffer, self.linear.get(buffer, True))
            linear[buffer] = before and _is_linear(place, digits, sizes[name], self.pieces)
            if not linear[buffer] and (buffer in self.written or buffer in written):
                return False
        if not _keep_order([*self.memories.get(instr.memory, []), instr]):
            return False
        if instr.memory is not None:
            self.memories.setdefault(instr.memory, []).append(instr)
        self.instrs.append(instr)
        self.linear |= linear
        self.touches.update(place.buffer for place, _ in instr.places())
        self.written |= written
        self.registers.update(register for register, _ in instr.registers())
        return True

    def add_scalar(self, instr: Instr) -> bool:
        """Takes an instruction of the sequencer, to be run before the pieces, if it may."""
        if instr.kind not in HOISTED or any(w and r in self.registers for r, w in instr.registers()):
            return False
        self.scalars.append(instr)
        return True


def _keep_order(touching: list[Instr]) -> bool:
    """Return whether accesses to one memory may be run piece by piece: none stores, or all are of the same elements."""
    first = touching[0]
    if first.memory is None or len(touching) == 1 or not any(instr.unit is Unit.STORE for instr in touching):
        return True
    keys = ("base", "strides", "shape")
    return first.memory is not ANYWHERE and all(
        instr.kind in (isa.Load, isa.Store) and all(instr.fields[key] == first.fields[key] for key in keys)
        for instr in touching
    )


class First(Enum):
    """First use of a tile by a run."""

    READ = "reads some of it"
    PART = "writes some of it, then reads or leaves what it did not write"
    WHOLE = "writes all of it"


def written_first(run: Run) -> dict[Buffer, First]:
    """For each tile of which piece q is the q-th part of its buffer: what a piece of the run does to it first."""
    found: dict[Buffer, First] = {}
    written: dict[Buffer, NDArray[np.bool_]] = {}
    for instr in run.instrs:
        digits, sizes = digits_of(instr, run.pieces), element_sizes(instr)
        assert digits is not None
        for name, place, is_result in sorted(named_places(instr), key=lambda named: named[2]):
            buffer = place.buffer
            if buffer in found or not run.linear[buffer]:
                continue
            part = buffer.size_bytes // run.pieces
            if not is_result:
                found[buffer] = First.PART if buffer in written else First.READ
            elif reached(place, digits.extents) * sizes[name] == part:
                found[buffer] = First.WHOLE
            else:
                bytes_written = written.setdefault(buffer, np.zeros(part, np.bool_))
                strides = (*(stride * sizes[name] for stride in place.strides), 1)
                as_strided(bytes_written[place.offset :], (*digits.extents, sizes[name]), strides)[...] = True
                if bytes_written.all():
                    found[buffer] = First.WHOLE
    return dict.fromkeys(written, First.PART) | found
