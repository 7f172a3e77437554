"""Vector instructions collected for one loop nest.

Neighbouring elementwise instructions over one iteration space become one `Group`, together with reductions of what
they compute: a value written by one and read with the same access pattern by another stays in a register. This module
decides what may be together and what need not touch the scratchpad; `nest` writes the loops.
"""

import itertools
from dataclasses import dataclass, field

from tapeout.isa import AccessPattern
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS
from tapeout.sim.functional.analysis import Region, may_overlap


@dataclass(frozen=True)
class Access:
    """A tile operand: byte address in the scratchpad (`base` plus the LLVM value `offset`), strides in bytes along the
    instruction's dimensions."""

    dtype: DType
    base: int
    offset: str
    strides: tuple[int, ...]
    region: Region


@dataclass(frozen=True)
class Scalar:
    """A register operand: an LLVM i64."""

    dtype: DType
    ref: str


@dataclass(frozen=True)
class Step:
    """A vector instruction with its register values (LLVM i64). `steps`: of iota, the start and the four increments."""

    item: isa.Vector
    operands: dict[str, Access | Scalar]
    steps: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.item.shape

    @property
    def result(self) -> Access:
        result = self.operands["result"]
        assert isinstance(result, Access)
        return result

    @property
    def is_reduction(self) -> bool:
        return isinstance(self.item, isa.Reduce)

    @property
    def reduction(self) -> isa.Reduce:
        """Its instruction, of a step that is a reduction."""
        assert isinstance(self.item, isa.Reduce)
        return self.item

    def reads(self) -> list[tuple[str, Access]]:
        return [(n, a) for n, a in self.operands.items() if n != "result" and isinstance(a, Access)]


# ---------------------------------------------------------------------------------------- iteration spaces


def cuts_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the inner parts of an iteration space: (2, 1, 3, 4) has cuts 1, 4, 12, 24."""
    cuts = [1]
    for extent in reversed(shape):
        if extent > 1:
            cuts.append(cuts[-1] * extent)
    return tuple(cuts)


def join_cuts(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The coarsest space both can be written in, or None."""
    if a == b:
        return a
    if a[-1] != b[-1]:
        return None
    joined = sorted({*a, *b})
    if any(outer % inner for inner, outer in itertools.pairwise(joined)):
        return None
    return tuple(joined)


def extents_of(cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Extents of the dimensions between cuts, outermost first."""
    return tuple(outer // inner for inner, outer in itertools.pairwise(cuts))[::-1]


def refine(strides: tuple[int, ...], shape: tuple[int, ...], cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a pattern over `shape` along the dimensions between cuts, outermost first."""
    refined = []
    dimension, inner, outer = len(shape), 1, 1
    for cut in cuts[:-1]:
        while cut >= outer:
            dimension -= 1
            inner, outer = outer, outer * shape[dimension]
        refined.append(strides[dimension] * (cut // inner))
    return tuple(reversed(refined))


# ---------------------------------------------------------------------------------------------------- views

Mapping = tuple[tuple[int, int], ...]
"""For each dimension between cuts: (dimension of the block, how many of its elements a step is); (0, 0): none."""


@dataclass(frozen=True)
class View:
    """An operand read or written where its block lies, instead of in the tile: `name` is the LLVM value of the view's
    structure, `unit` the block's dimension whose neighbours are adjacent bytes."""

    name: str
    unit: int
    mapping: Mapping


@dataclass(frozen=True)
class NeedsCut:
    """A view is possible once the iteration space is cut here."""

    cut: int


def unit_dimension(shape: tuple[int, ...], tile_strides: tuple[int, ...]) -> int | None:
    """The innermost dimension of a block if its elements are neighbours in the tile."""
    used = [d for d, extent in enumerate(shape) if extent > 1]
    if not used:
        return None
    return used[-1] if tile_strides[used[-1]] == 1 else None


def map_onto_block(
    strides: tuple[int, ...], extents: tuple[int, ...], block_shape: tuple[int, ...], tile_strides: tuple[int, ...]
) -> Mapping | NeedsCut | None:
    """Return how steps through a tile (in elements, along `extents`) are steps through the block it was loaded from."""
    block = sorted(
        ((t, n, d) for d, (n, t) in enumerate(zip(block_shape, tile_strides, strict=True)) if n > 1), reverse=True
    )
    reach = 1
    for t, n, _ in reversed(block):
        if t < reach:
            return None  # elements of the block share bytes of the tile
        reach = t * n
    mapping = []
    inner_cut = 1
    for stride, extent in reversed(list(zip(strides, extents, strict=True))):
        if stride == 0 or extent == 1:
            mapping.append((0, 0))
        else:
            found = next(((t, n, d) for t, n, d in block if stride >= t and stride % t == 0), None)
            if found is None:
                return None
            t, n, d = found
            times = stride // t
            if times * (extent - 1) >= n:
                fitting = n // times
                if fitting <= 1 or n % times or extent % fitting:
                    return None
                return NeedsCut(inner_cut * fitting)
            mapping.append((d, times))
        inner_cut *= extent
    return tuple(reversed(mapping))


@dataclass(frozen=True)
class Block:
    """A block of a load or store that may be used where it lies; `name` is the LLVM value of its view."""

    name: str
    shape: tuple[int, ...]
    tile_strides: tuple[int, ...]
    element_bytes: int

    @staticmethod
    def of(index: int, item: isa.BlockTransfer) -> "Block":
        assert isinstance(item.tile, AccessPattern)
        return Block(f"%view{index}", item.shape, item.tile.strides, item.dtype.size_bytes)


# --------------------------------------------------------------------------------------------------- groups

Key = tuple[int, int, int, tuple[int, ...], int]
"""Identity of an access pattern within a group: base, register and its version, refined strides, element bytes."""


@dataclass
class Group:
    """Vector instructions to be written as one loop nest."""

    ranges: dict[int, tuple[int, int]]
    steps: list[Step] = field(default_factory=list)
    cuts: tuple[int, ...] = (1,)
    row: int | None = None
    """length of the rows its reductions combine"""
    writers: dict[Key, int] = field(default_factory=dict)
    written: list[tuple[Key, Region]] = field(default_factory=list)
    read: list[tuple[Key, Region]] = field(default_factory=list)
    forwards: dict[tuple[int, str], int] = field(default_factory=dict)
    views: dict[tuple[int, str], "Block"] = field(default_factory=dict)
    """operands read from HBM, by step and name"""
    places: dict[int, "Block"] = field(default_factory=dict)
    """results written to HBM, by step"""
    dropped: set[int] = field(default_factory=set)
    """steps whose result nobody reads from the scratchpad"""

    def key(self, access: Access, shape: tuple[int, ...], cuts: tuple[int, ...] | None = None) -> Key:
        strides = refine(access.strides, shape, cuts or self.cuts)
        return (access.base, access.region.register, access.region.version, strides, access.dtype.size_bytes)

    def add(self, step: Step) -> bool:
        """Take the instruction into the group, if that keeps the meaning."""
        cuts = join_cuts(self.cuts, cuts_of(step.shape)) if self.steps else cuts_of(step.shape)
        if cuts is None:
            return False
        row = self.row
        if step.is_reduction:
            row = step.shape[3]
            if row % REDUCTION_PARTIALS or (self.row is not None and self.row != row):
                return False
        forwards, reads = {}, []
        writers = self._recut_writers(cuts)
        for name, access in step.reads():
            key = self.key(access, step.shape, cuts)
            writer = writers.get(key)
            if writer is not None and not self.steps[writer].is_reduction:
                forwards[(len(self.steps), name)] = writer
            elif any(may_overlap(access.region, region, self.ranges) for _, region in self.written):
                return False
            else:
                reads.append((key, access.region))
        if step.is_reduction and reads and reads[0][0][3][-1] != reads[0][0][4]:
            return False  # the row does not lie in neighbouring bytes
        result = step.result
        key = self.key(result, step.shape, cuts)
        if self.steps:
            earlier = [*self._recut_list(self.read, cuts), *reads, *self._recut_list(self.written, cuts)]
            for other, region in earlier:
                if (other != key or step.is_reduction) and may_overlap(result.region, region, self.ranges):
                    return False
        if row is not None and not self._is_in_rows(step, cuts, row, [key, *(k for k, _ in reads)]):
            return False
        if cuts != self.cuts:
            self.recut(cuts)
        self.row = row
        self.forwards |= forwards
        self.read += reads
        self.written.append((key, result.region))
        self.writers[key] = len(self.steps)
        self.steps.append(step)
        return True

    def _is_in_rows(self, step: Step, cuts: tuple[int, ...], row: int, new: list[Key]) -> bool:
        """Return whether every access runs evenly along a row, so that one inner loop can do the row."""
        if row not in cuts:
            return False
        inner = cuts[: cuts.index(row)]
        old = [] if self.row is not None else [k for k, _ in self._recut_list([*self.read, *self.written], cuts)]
        for key in [*new, *old]:
            strides = key[3][::-1]
            if any(strides[i] != strides[0] * cut for i, cut in enumerate(inner)):
                return False
        iotas = [s for s in [*self.steps, step] if s.steps]
        return all(cuts_of(s.shape)[1:2] and cuts_of(s.shape)[1] >= row for s in iotas)

    def recut(self, cuts: tuple[int, ...]) -> None:
        """Cut the iteration space finer."""
        self.writers = self._recut_writers(cuts)
        self.written = self._recut_list(self.written, cuts)
        self.read = self._recut_list(self.read, cuts)
        self.cuts = cuts

    def _recut_key(self, key: Key, cuts: tuple[int, ...]) -> Key:
        return (*key[:3], refine(key[3], extents_of(self.cuts), cuts), key[4])

    def _recut_writers(self, cuts: tuple[int, ...]) -> dict[Key, int]:
        if cuts == self.cuts:
            return self.writers
        return {self._recut_key(key, cuts): writer for key, writer in self.writers.items()}

    def _recut_list(self, keys: list[tuple[Key, Region]], cuts: tuple[int, ...]) -> list[tuple[Key, Region]]:
        if cuts == self.cuts:
            return keys
        return [(self._recut_key(key, cuts), region) for key, region in keys]

    def view(self, step: int, name: str, block: "Block") -> View | None:
        """Return how a step's operand is seen in the block whose tile it is, or None. May cut the iteration space
        finer."""
        shape = self.steps[step].shape
        access = self.steps[step].operands[name]
        assert isinstance(access, Access)
        unit = unit_dimension(block.shape, block.tile_strides)
        size = access.dtype.size_bytes
        if unit is None or size != block.element_bytes:
            return None
        while True:
            strides = tuple(s // size for s in refine(access.strides, shape, self.cuts))
            mapping = map_onto_block(strides, extents_of(self.cuts), block.shape, block.tile_strides)
            if not isinstance(mapping, NeedsCut):
                break
            cuts = tuple(sorted({*self.cuts, mapping.cut}))
            if cuts == self.cuts or any(b % a for a, b in itertools.pairwise(cuts)):
                return None
            if self.row is not None and mapping.cut < self.row:
                return None
            self.recut(cuts)
        if mapping is None:
            return None
        if self.row is not None:
            inner = mapping[len(mapping) - self.cuts.index(self.row) :]
            if any(d != inner[-1][0] for d, _ in inner):
                return None
        return View(block.name, unit, mapping)

    @property
    def live_steps(self) -> bool:
        """True if any effect of the group can be observed."""
        return bool(self.places) or len(self.dropped) < len(self.steps)
