"""Makes a kernel fit whose tiles outgrow the scratchpad.

Takes machine code whose buffers do not fit; gives equivalent code in which every buffer above a limit is handled piece
by piece. A run of instructions that treat their tiles row by row in the same way (loads, elementwise functions,
reductions along rows, stores) becomes a loop over pieces of all of them; a tile that only lives within such a run
shrinks to one piece. A large tile that is used across runs gets a home in HBM (the core's workspace) and is staged
through the scratchpad in pieces. Results are bit-identical: no order of accumulation changes.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tapeout.codegen.allocate import ScratchpadOverflow, allocate
from tapeout.codegen.machine import (
    ANYWHERE,
    Branch,
    Buffer,
    Constants,
    Home,
    Instr,
    Loop,
    Node,
    Place,
    Register,
    contiguous,
    walk,
)
from tapeout.errors import InternalError, UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, Unit, operand_dtype
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function, Rounding

_DMA = (isa.Load, isa.LoadIndexed, isa.Store, isa.StoreIndexed)
_SPLITTABLE = (*_DMA, isa.Atomic, isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Iota, isa.Reduce)
_HOISTED = (isa.Scalar, isa.ScalarSelect, isa.ScalarConvert, isa.ProgramId, isa.GridSize)
_ALIGNMENT = 64
_LONGEST = 1 << 15
_UNTYPED = {1: DType.I8, 2: DType.I16, 4: DType.I32, 8: DType.I64}
Steps = list[tuple[Register, int | Register]]
"""Registers and what a count of each is worth."""


@dataclass(frozen=True)
class Fitted:
    """Code with addresses, and the bytes of scratchpad and of workspace that it needs."""

    code: list[Node]
    scratchpad_bytes: int
    workspace_bytes: int


def fit(code: list[Node], capacity_bytes: int, constants: Constants, *, may_split: bool = True) -> Fitted:
    """Code whose tiles have addresses: the same, or one that handles large tiles piece by piece. Raises
    ScratchpadOverflow if nothing helps, or tiles would have to be split and may not."""
    try:
        return Fitted(code, allocate(code, capacity_bytes), 0)
    except ScratchpadOverflow:
        if not may_split:
            raise
        overflow: UnsupportedError | None = None
    limit = capacity_bytes // 4
    while limit >= _ALIGNMENT:
        splitter = _Splitter(code, limit, constants.copy())
        try:
            split = splitter.run()
            return Fitted(split, allocate(split, capacity_bytes), splitter.workspace_bytes)
        except ScratchpadOverflow as error:
            overflow = error
        limit //= 2
    assert overflow is not None
    raise overflow


def outgrows(instr: Instr, operation: str, hint: str | None = None) -> UnsupportedError:
    """Return the error for a tile that does not fit the scratchpad and that cannot be split."""
    shape = instr.fields.get("shape")
    of_shape = f" of shape {'x'.join(map(str, shape))}" if shape else ""
    what = f"{operation}{of_shape} on a tile that outgrows the scratchpad"
    return UnsupportedError(what, where=instr.location or None, hint=hint)


def _element_sizes(instr: Instr) -> dict[str, int]:
    """Bytes of an element of each tile operand."""
    facts = SimpleNamespace(**instr.fields)
    sizes = {"address": facts.dtype.size_bytes} if "address" in instr.fields else {}
    named = [field.name for field in instr.kind.fields if field.of is not None]
    return sizes | {name: operand_dtype(instr.kind, name, facts).size_bytes for name in named}


@dataclass(frozen=True)
class _Digits:
    """Place of piece number q: for each split dimension how many parts, the extent of a part, and how q is
    read (q >> shift, modulo parts)."""

    parts: tuple[int, ...]
    extents: tuple[int, ...]
    shifts: tuple[int, ...]


def _digits(shape: tuple[int, ...], pieces: int, dimensions: int) -> _Digits | None:
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
    return _Digits(tuple(parts), tuple(extents), tuple(shifts))


def _piece_offset(place: Place, digits: _Digits, size: int) -> list[tuple[int, int]]:
    """(dimension, bytes a step of its digit moves the operand) for the dimensions that move it."""
    steps = []
    for d, parts in enumerate(digits.parts):
        step = place.strides[d] * digits.extents[d] * size
        if parts > 1 and step:
            steps.append((d, step))
    return steps


@dataclass(frozen=True)
class _Move:
    """Elements of a large tile and the place in the scratchpad they are staged in: at byte `start` plus the steps from
    the buffer's beginning, `strides` counting elements."""

    buffer: Buffer
    steps: Steps
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    element_bytes: int
    stage: Place


@dataclass
class _Run:
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
        digits = _digits_of(instr, self.pieces)
        if digits is None:
            return False
        sizes, linear = _element_sizes(instr), dict[Buffer, bool]()
        written = {place.buffer for place, writes in instr.places() if writes}
        for name, place, _ in _named_places(instr):
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
        if instr.kind not in _HOISTED or any(w and r in self.registers for r, w in instr.registers()):
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


class _Splitter:
    def __init__(self, code: list[Node], limit: int, constant: Constants) -> None:
        self.code = code
        self.limit = limit
        self.constant = constant
        self.uses: dict[Buffer, list[Instr]] = {}
        for node in walk(code):
            if isinstance(node, Instr):
                for place, _ in node.places():
                    self.uses.setdefault(place.buffer, []).append(node)
        self.large = {buffer for buffer in self.uses if buffer.size_bytes > limit}
        self.homes: dict[Buffer, Home] = {}
        self.workspace = Register()
        self.workspace_bytes = 0
        self.out: list[Node] = []

    def run(self) -> list[Node]:
        body = self.nodes(self.code)
        return [Instr(isa.Workspace, {"destination": self.workspace}), *body]

    # ------------------------------------------------------------------ finding runs

    def nodes(self, nodes: list[Node]) -> list[Node]:
        outer, self.out = self.out, []
        run: _Run | None = None
        for node in nodes:
            if isinstance(node, Instr):
                joined = self.join(run, node)
                if joined is not None:
                    run = joined
                    continue
            self.flush(run)
            run = None
            if isinstance(node, Loop):
                self.out.append(Loop(self.nodes(node.head), node.condition, self.nodes(node.body), node.stages))
            elif isinstance(node, Branch):
                self.out.append(Branch(node.condition, self.nodes(node.then), self.nodes(node.otherwise)))
            elif not self.touches_large(node):
                self.out.append(node)
            else:
                run = self.join(None, node)
                if run is None:
                    self.alone(node)
        self.flush(run)
        result, self.out = self.out, outer
        return result

    def touches_large(self, instr: Instr) -> bool:
        return any(place.buffer in self.large for place, _ in instr.places())

    def needed_pieces(self, instr: Instr) -> int:
        pieces = 1
        for place, _ in instr.places():
            while place.buffer in self.large and place.buffer.size_bytes > pieces * self.limit:
                pieces *= 2
        return pieces

    def join(self, run: _Run | None, instr: Instr) -> _Run | None:
        """The run with the instruction in it, or None if it cannot be part of it."""
        if instr.unit is Unit.SEQUENCER:
            return run if run is not None and run.add_scalar(instr) else None
        if instr.kind not in _SPLITTABLE or (run is None and not self.touches_large(instr)):
            return None
        pieces = self.needed_pieces(instr)
        if run is not None and pieces <= run.pieces:
            return run if run.add(instr) else None
        before = [] if run is None else run.instrs
        longer = _Run(pieces, scalars=[] if run is None else run.scalars)
        return longer if all(longer.add(each) for each in (*before, instr)) else None

    # ------------------------------------------------------------------ code for a run

    def flush(self, run: _Run | None) -> None:
        if run is None:
            return
        self.out += run.scalars
        members = {id(instr) for instr in run.instrs}
        written_first = _written_first(run)
        internal = {
            buffer
            for buffer in run.written
            if buffer in self.uses
            and written_first[buffer] is not _First.READ
            and all(id(user) in members for user in self.uses[buffer])
        }
        stages = {
            buffer: Buffer(buffer.size_bytes // run.pieces)
            for buffer, is_linear in run.linear.items()
            if is_linear
            and (buffer in internal or (buffer in self.large and (buffer in run.written or run.touches[buffer] > 1)))
        }
        staged = {buffer for buffer, first in written_first.items() if buffer in internal or first is _First.WHOLE}

        def body(piece: Register) -> None:
            for instr in run.instrs:
                self.piece(instr, piece, run.pieces, stages, internal, staged)

        self.counted_loop(run.pieces, body)

    def counted_loop(self, count: int, body: Any) -> None:
        counter = Register()
        self.emit_scalar(Function.OR, self.constant(0), self.constant(0), counter)
        outer, self.out = self.out, []
        condition = self.emit_scalar(Function.LESS, counter, self.constant(count))
        head, self.out = self.out, []
        body(counter)
        self.emit_scalar(Function.ADD, counter, self.constant(1), counter)
        inside, self.out = self.out, outer
        self.out.append(Loop(head, condition, inside))

    def emit_scalar(
        self, function: Function, a: Register, b: Register, destination: Register | None = None
    ) -> Register:
        destination = destination or Register()
        self.out.append(
            Instr(
                isa.Scalar,
                {"destination": destination, "a": a, "b": b, "function": function, "dtype": DType.I64},
            )
        )
        return destination

    def digit(self, piece: Register, digits: _Digits, d: int) -> Register:
        value = piece
        if digits.shifts[d]:
            value = self.emit_scalar(Function.SHIFT_RIGHT_UNSIGNED, value, self.constant(digits.shifts[d]))
        return self.emit_scalar(Function.AND, value, self.constant(digits.parts[d] - 1))

    def total(self, terms: Steps, start: Register | None = None) -> Register:
        """start + sum of register * factor."""
        result = start
        for register, factor in terms:
            by = factor if isinstance(factor, Register) else self.constant(factor)
            product = register if factor == 1 else self.emit_scalar(Function.MUL, register, by)
            result = product if result is None else self.emit_scalar(Function.ADD, result, product)
        return self.constant(0) if result is None else result

    def home(self, buffer: Buffer) -> Home:
        if buffer not in self.homes:
            self.homes[buffer] = Home(self.workspace_bytes)
            self.workspace_bytes += -(-buffer.size_bytes // _ALIGNMENT) * _ALIGNMENT
        return self.homes[buffer]

    def transfer(self, load: bool, move: "_Move", location: str) -> None:
        """Loads elements of a large tile from its home into the scratchpad, or stores them there."""
        home = self.home(move.buffer)
        base = self.emit_scalar(Function.ADD, self.workspace, self.constant(home.offset + move.start))
        zero = self.constant(0)
        fields = {
            "dtype": _UNTYPED[move.element_bytes],
            "base": self.total(move.steps, base),
            "strides": tuple(self.constant(s * move.element_bytes) for s in move.strides),
            "low": (zero,) * DIMENSIONS,
            "high": (zero,) * DIMENSIONS,
            "shape": move.shape,
            "tile": move.stage,
        }
        self.out.append(Instr(isa.Load if load else isa.Store, fields, location, home))

    def piece(
        self, instr: Instr, piece: Register, pieces: int, stages: dict[Buffer, Buffer], internal: set[Buffer],
        staged: set[Buffer],
    ) -> None:  # fmt: skip
        """One instruction for one piece. `stages`: where the pieces of tiles are; `staged`: those already there."""
        digits, sizes = _digits_of(instr, pieces), _element_sizes(instr)
        assert digits is not None
        numbers = {d: self.digit(piece, digits, d) for d, parts in enumerate(digits.parts) if parts > 1}
        fields = dict(instr.fields)
        fields["shape"] = digits.extents
        stores: list[_Move] = []
        for name, place, is_result in _named_places(instr):
            size, buffer = sizes[name], place.buffer
            steps: Steps = [(numbers[d], step) for d, step in _piece_offset(place, digits, size)]
            if buffer in stages:
                fields[name] = replace(place, buffer=stages[buffer])
                if buffer in internal:
                    continue
                moves = _moves_of_part(buffer, piece, stages[buffer], size)
                if buffer not in staged:
                    for move in moves:
                        self.transfer(True, move, instr.location)
                    staged.add(buffer)
                if is_result:
                    stores += moves
            elif buffer in self.large:
                own = tuple(e if s else 1 for e, s in zip(digits.extents, place.strides, strict=True))
                fields[name] = Place(Buffer(_count(own) * size), 0, _dense(own))
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                move = _Move(buffer, steps, place.offset, own, strides, size, fields[name])
                if is_result:
                    stores.append(move)
                else:
                    self.transfer(True, move, instr.location)
            elif steps:
                fields[name] = replace(place, register=self.total(steps))
        if instr.kind in _DMA:
            terms: Steps = []
            low, high = list(fields["low"]), list(fields["high"])
            for d, number in numbers.items():
                begin = self.total([(number, digits.extents[d])])
                terms.append((begin, fields["strides"][d]))
                for bounds in (low, high):
                    if bounds[d].constant != 0:  # register 0: no bound
                        bounds[d] = self.emit_scalar(Function.SUB, bounds[d], begin)
            fields["base"] = self.total(terms, fields["base"])
            fields["low"], fields["high"] = tuple(low), tuple(high)
        if instr.kind is isa.Iota:
            steps_of = [(self.total([(n, digits.extents[d])]), fields["steps"][d]) for d, n in numbers.items()]
            fields["start"] = self.total(steps_of, fields.get("start", self.constant(0)))
        self.out.append(Instr(instr.kind, fields, instr.location, instr.memory))
        for move in stores:
            self.transfer(False, move, instr.location)

    # ------------------------------------------------------------------ instructions that are split on their own

    def alone(self, instr: Instr) -> None:
        if instr.kind is isa.MatrixMultiply:
            self.matrix_multiply(instr)
        elif instr.kind is isa.ScalarLoad:
            self.scalar_load(instr)
        elif instr.kind is isa.Gather:
            self.gather(instr)
        elif instr.kind in _SPLITTABLE:
            self.scattered(instr)
        else:
            raise outgrows(instr, instr.kind.mnemonic)

    def scattered(self, instr: Instr) -> None:
        """An instruction on its own, its pieces rearranged on the way from and to their homes. What does not divide is
        cut in two."""
        pieces = 1
        while (digits := _digits_of(instr, pieces)) is not None and not self.holds(instr, digits):
            pieces *= 2
        if digits is None:
            cut = _indivisible(instr, pieces)
            if cut is not None:
                for start, length in ((0, cut[1]), (cut[1], instr.fields["shape"][cut[0]] - cut[1])):
                    self.scattered(self.slice(instr, cut[0], start, length))
            elif instr.kind is isa.Reduce:
                self.reduce(instr)
            else:
                raise InternalError(f"{instr.location}: {instr.kind.mnemonic} of {instr.fields['shape']} in {pieces}")
        elif pieces == 1:
            self.piece(instr, self.constant(0), 1, {}, set(), set())
        else:
            self.counted_loop(pieces, lambda piece: self.piece(instr, piece, pieces, {}, set(), set()))

    def holds(self, instr: Instr, digits: _Digits) -> bool:
        """Return whether what a piece of the instruction takes of each large tile is within the limit."""
        sizes = _element_sizes(instr)
        return all(
            place.buffer not in self.large or _reached(place, digits.extents) * sizes[name] <= self.limit
            for name, place, _ in _named_places(instr)
        )

    def slice(self, instr: Instr, d: int, start: int, length: int) -> Instr:
        """The instruction for part of a dimension."""
        f, sizes = instr.fields, _element_sizes(instr)
        fields = f | {"shape": (*f["shape"][:d], length, *f["shape"][d + 1 :])}
        if start:
            for name, place, _ in _named_places(instr):
                fields[name] = replace(place, offset=place.offset + start * place.strides[d] * sizes[name])
            begin = self.constant(start)
            if instr.kind in _DMA:
                fields["base"] = self.total([(begin, f["strides"][d])], f["base"])
                for bounds in ("low", "high"):
                    if f[bounds][d].constant != 0:  # register 0: no bound
                        moved = self.emit_scalar(Function.SUB, f[bounds][d], begin)
                        fields[bounds] = (*f[bounds][:d], moved, *f[bounds][d + 1 :])
            if instr.kind is isa.Iota:
                fields["start"] = self.total([(begin, f["steps"][d])], f.get("start", self.constant(0)))
        return Instr(instr.kind, fields, instr.location, instr.memory)

    def scalar_load(self, instr: Instr) -> None:
        place, size = instr.fields["address"], instr.fields["dtype"].size_bytes
        stage = Place(Buffer(size), 0, (0,) * DIMENSIONS)
        move = _Move(place.buffer, [], place.offset, (1,) * DIMENSIONS, (0,) * DIMENSIONS, size, stage)
        self.transfer(True, move, instr.location)
        self.out.append(Instr(instr.kind, instr.fields | {"address": stage}, instr.location))

    def reduce(self, instr: Instr) -> None:
        """A row too long for one piece: the 32 partial results, then their combination: the very definition."""
        f = instr.fields
        *kept, extent = f["shape"]
        size = f["dtype"].size_bytes
        source, result = f["a"], f["result"]
        width = REDUCTION_PARTIALS
        if extent <= width or extent % width:
            raise outgrows(instr, "reduce", f"a row is taken in parts of {width} elements")
        rows = _count(tuple(kept))

        def one_row(row: Register) -> None:
            digits = _digits((*kept, 1), rows, DIMENSIONS - 1)
            assert digits is not None
            numbers = {d: self.digit(row, digits, d) for d, parts in enumerate(digits.parts) if parts > 1}
            start = self.total([(n, source.strides[d] * size) for d, n in numbers.items()])
            partial = Place(Buffer(width * size), 0, (0, 0, 0, 1))
            strides = (0, 0, 0, source.strides[3])
            self.operand(source, start, source.offset, (1, 1, 1, width), strides, size, partial, instr.location)

            def step(number: Register) -> None:
                following = Place(Buffer(width * size), 0, (0, 0, 0, 1))
                jump = source.strides[3] * width * size
                offset = self.total([(number, jump)], self.emit_scalar(Function.ADD, start, self.constant(jump)))
                self.operand(source, offset, source.offset, (1, 1, 1, width), strides, size, following, instr.location)
                combined = {"function": f["function"], "dtype": f["dtype"], "shape": (1, 1, 1, width)}
                self.out.append(
                    Instr(isa.Map2, combined | {"result": partial, "a": partial, "b": following}, instr.location)
                )

            self.counted_loop(extent // width - 1, step)
            out_steps: Steps = [(n, result.strides[d] * size) for d, n in numbers.items() if result.strides[d]]
            final = {"function": f["function"], "dtype": f["dtype"], "shape": (1, 1, 1, width), "a": partial}
            if result.buffer in self.large:
                stage = Place(Buffer(size), 0, (0,) * DIMENSIONS)
                self.out.append(Instr(isa.Reduce, final | {"result": stage}, instr.location))
                ones = (1,) * DIMENSIONS
                move = _Move(result.buffer, out_steps, result.offset, ones, (0,) * DIMENSIONS, size, stage)
                self.transfer(False, move, instr.location)
            else:
                place = Place(result.buffer, result.offset, (0,) * DIMENSIONS, self.total(out_steps))
                self.out.append(Instr(isa.Reduce, final | {"result": place}, instr.location))

        self.counted_loop(rows, one_row)

    def operand(
        self, place: Place, offset: Register, start: int, shape: tuple[int, ...], strides: tuple[int, ...], size: int,
        stage: Place, location: str,
    ) -> None:  # fmt: skip
        """Brings elements of a tile, homed or resident, into a stage."""
        if place.buffer in self.large:
            self.transfer(True, _Move(place.buffer, [(offset, 1)], start, shape, strides, size, stage), location)
        else:
            dtype = _UNTYPED[size]
            resident = Place(place.buffer, start, strides, offset)
            fields = {
                "function": Function.COPY,
                "dtype": dtype,
                "shape": shape,
                "result": stage,
                "a": resident,
            }
            self.out.append(Instr(isa.Map1, fields, location))

    def gather(self, instr: Instr) -> None:
        """Picking from a large tile becomes a gather from its home."""
        f = instr.fields
        source, size = f["source"], f["dtype"].size_bytes
        if source.buffer not in self.large:
            self.scattered(instr)
            return
        index, index_dtype = f["index"], f["index_dtype"]
        if index_dtype not in (DType.I32, DType.I64):
            index, index_dtype = self.converted(index, index_dtype, DType.I32, instr), DType.I32
        zero = self.constant(0)
        home = self.home(source.buffer)
        base = self.emit_scalar(Function.ADD, self.workspace, self.constant(home.offset + source.offset))
        fields = {
            "dtype": _UNTYPED[size],
            "index_dtype": index_dtype,
            "scale": f["stride"] * size,
            "base": base,
            "strides": tuple(self.constant(s * size) for s in source.strides),
            "low": (zero,) * DIMENSIONS,
            "high": (zero,) * DIMENSIONS,
            "fill": zero,
            "shape": f["shape"],
            "tile": f["result"],
            "index": index,
            "mask": zero,
        }
        self.scattered(Instr(isa.LoadIndexed, fields, instr.location, home))

    def converted(self, place: Place, dtype: DType, result_dtype: DType, user: Instr) -> Place:
        """A tile of integers in another type, which may be a large tile as well."""
        shape = user.fields["shape"]
        own = tuple(e if s else 1 for e, s in zip(shape, place.strides, strict=True))
        result = Place(Buffer(_count(own) * result_dtype.size_bytes), 0, _dense(own))
        if result.buffer.size_bytes > self.limit:
            self.large.add(result.buffer)
        fields = {
            "dtype": dtype,
            "result_dtype": result_dtype,
            "unsigned": False,
            "rounding": Rounding.NEAREST_EVEN,
            "shape": own,
            "result": result,
            "a": place,
        }
        self.scattered(Instr(isa.Convert, fields, user.location))
        return result

    def matrix_multiply(self, instr: Instr) -> None:
        """Blocks of rows and columns, and of the summed dimension in ascending order."""
        f, sizes = instr.fields, _element_sizes(instr)
        batch, rows, columns, depth = f["shape"]
        block = {"m": rows, "n": columns, "k": depth}
        places = {name: f[name] for name in ("accumulator", "lhs", "rhs")}
        spans = {"accumulator": ("m", "n"), "lhs": ("m", "k"), "rhs": ("k", "n")}

        def bytes_of(name: str) -> int:
            a, b = spans[name]
            return block[a] * block[b] * sizes[name]

        while True:
            big = [name for name in places if places[name].buffer in self.large and bytes_of(name) > self.limit]
            if not big:
                break
            longest = max(spans[max(big, key=bytes_of)], key=lambda axis: block[axis])
            if block[longest] % 2:
                raise outgrows(instr, "dot", "its sides are halved until its tiles fit")
            block[longest] //= 2
        axis_dimension = {"b": 0, "m": 1, "n": 2, "k": 3}
        step = {"b": 1, **block}
        shape = (1, block["m"], block["n"], block["k"])

        def steps(name: str, numbers: dict[str, Register]) -> Steps:
            strides = places[name].strides
            terms: Steps = [(n, strides[axis_dimension[a]] * step[a] * sizes[name]) for a, n in numbers.items()]
            return [(n, factor) for n, factor in terms if factor]

        def stage(name: str, numbers: dict[str, Register], load: bool) -> Place:
            place, size = places[name], sizes[name]
            if place.buffer not in self.large:
                return replace(place, register=self.total(steps(name, numbers)))
            own = tuple(e if s else 1 for e, s in zip(shape, place.strides, strict=True))
            dense = Place(Buffer(_count(own) * size), 0, _dense(own))
            if load:
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                move = _Move(place.buffer, steps(name, numbers), place.offset, own, strides, size, dense)
                self.transfer(True, move, instr.location)
            return dense

        def over_depth(numbers: dict[str, Register]) -> None:
            accumulator = stage("accumulator", numbers, f["accumulate"])
            if not f["accumulate"]:
                dtype = _UNTYPED[sizes["accumulator"]]
                own = (1, block["m"], block["n"], 1)
                clear = {
                    "function": Function.COPY,
                    "dtype": dtype,
                    "shape": own,
                    "a": self.constant(0),
                    "result": accumulator,
                }
                self.out.append(Instr(isa.Map1, clear, instr.location))

            def multiply(number: Register) -> None:
                inner = {**numbers, "k": number}
                lhs, rhs = stage("lhs", inner, True), stage("rhs", inner, True)
                fields = f | {
                    "accumulate": True,
                    "shape": shape,
                    "accumulator": accumulator,
                    "lhs": lhs,
                    "rhs": rhs,
                }
                self.out.append(Instr(isa.MatrixMultiply, fields, instr.location))

            self.counted_loop(depth // block["k"], multiply)
            place = places["accumulator"]
            if place.buffer in self.large:
                own = (1, block["m"], block["n"], 1)
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                size, begin = sizes["accumulator"], steps("accumulator", numbers)
                move = _Move(place.buffer, begin, place.offset, own, strides, size, accumulator)
                self.transfer(False, move, instr.location)

        self.counted_loop(
            batch,
            lambda b: self.counted_loop(
                rows // block["m"],
                lambda m: self.counted_loop(columns // block["n"], lambda n: over_depth({"b": b, "m": m, "n": n})),
            ),
        )


def _digits_of(instr: Instr, pieces: int) -> _Digits | None:
    return _digits(instr.fields["shape"], pieces, _divisible_dimensions(instr))


def _divisible_dimensions(instr: Instr) -> int:
    return DIMENSIONS - 1 if instr.kind is isa.Reduce else DIMENSIONS


def _indivisible(instr: Instr, pieces: int) -> tuple[int, int] | None:
    """The dimension that keeps an instruction from being split, and at which element to cut it; None if there is no
    such dimension, but too few elements in all that may be split."""
    remaining = pieces
    for d, extent in enumerate(instr.fields["shape"][: _divisible_dimensions(instr)]):
        if extent <= remaining:
            if extent & (extent - 1):
                return d, 1 << (extent.bit_length() - 1)
            remaining //= extent
        elif extent % remaining:
            return d, extent - extent % remaining
        else:
            remaining = 1
    return None


def _named_places(instr: Instr) -> list[tuple[str, Place, bool]]:
    """Tile operands: (name, place, whether it is written)."""
    return [
        (spec.name, instr.fields[spec.name], spec.kind == "written tile")
        for spec in instr.kind.fields
        if isinstance(instr.fields.get(spec.name), Place)
    ]


def _is_linear(place: Place, digits: _Digits, size: int, pieces: int) -> bool:
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


class _First(Enum):
    """First use of a tile by a run."""

    READ = "reads some of it"
    PART = "writes some of it, then reads or leaves what it did not write"
    WHOLE = "writes all of it"


def _written_first(run: _Run) -> dict[Buffer, _First]:
    """For each tile of which piece q is the q-th part of its buffer: what a piece of the run does to it first."""
    found: dict[Buffer, _First] = {}
    written: dict[Buffer, NDArray[np.bool_]] = {}
    for instr in run.instrs:
        digits, sizes = _digits_of(instr, run.pieces), _element_sizes(instr)
        assert digits is not None
        for name, place, is_result in sorted(_named_places(instr), key=lambda named: named[2]):
            buffer = place.buffer
            if buffer in found or not run.linear[buffer]:
                continue
            part = buffer.size_bytes // run.pieces
            if not is_result:
                found[buffer] = _First.PART if buffer in written else _First.READ
            elif _reached(place, digits.extents) * sizes[name] == part:
                found[buffer] = _First.WHOLE
            else:
                bytes_written = written.setdefault(buffer, np.zeros(part, np.bool_))
                strides = (*(stride * sizes[name] for stride in place.strides), 1)
                as_strided(bytes_written[place.offset :], (*digits.extents, sizes[name]), strides)[...] = True
                if bytes_written.all():
                    found[buffer] = _First.WHOLE
    return dict.fromkeys(written, _First.PART) | found


def _reached(place: Place, extents: tuple[int, ...]) -> int:
    """Return how many elements an operand goes through."""
    return _count(tuple(extent for extent, stride in zip(extents, place.strides, strict=True) if stride))


def _moves_of_part(buffer: Buffer, piece: Register, stage: Buffer, size: int) -> list[_Move]:
    """Return the moves, in elements of `size` bytes, between the part of a tile whose number is in a register, and its
    place in a stage."""
    moves = []
    elements, start = stage.size_bytes // size, 0
    while start < elements:
        rest = elements - start
        shape = (1, 1, 1, rest) if rest <= _LONGEST else (1, 1, rest // _LONGEST, _LONGEST)
        place = Place(stage, start * size, _dense(shape))
        parts: Steps = [(piece, stage.size_bytes)]
        moves.append(_Move(buffer, parts, start * size, shape, place.strides, size, place))
        start += _count(shape)
    return moves


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s if e > 1 else 0 for e, s in zip(shape, contiguous(shape), strict=True))
