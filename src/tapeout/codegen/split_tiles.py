"""Makes a kernel fit whose tiles outgrow the scratchpad.

Takes machine code whose buffers do not fit; gives equivalent code in which every buffer above a limit is handled piece
by piece. A run of instructions that treat their tiles row by row in the same way (loads, elementwise functions,
reductions along rows, stores) becomes a loop over pieces of all of them; a tile that only lives within such a run
shrinks to one piece. A large tile that is used across runs gets a home in HBM (the core's workspace) and is staged
through the scratchpad in pieces. Results are bit-identical: no order of accumulation changes.
"""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

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
from tapeout.errors import UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, Unit, operand_dtype
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function

_DMA = (isa.Load, isa.LoadIndexed, isa.Store, isa.StoreIndexed)
_SPLITTABLE = (*_DMA, isa.Atomic, isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Iota, isa.Reduce)
_ALIGNMENT = 64
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
    """Of a tile that does not fit the scratchpad and that no piecewise way is known for."""
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
    """How piece number q picks its place: for each split dimension how many parts, the extent of a part, and how q is
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
    """Instructions to be run piece by piece."""

    pieces: int
    instrs: list[Instr] = field(default_factory=list)
    scalars: list[Instr] = field(default_factory=list)


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
            if run is None or any(True for _ in instr.places()):
                return None
            touched = {r for other in run.instrs for r, _ in other.registers()}
            if any(written and register in touched for register, written in instr.registers()):
                return None
            if instr.kind not in (
                isa.Scalar,
                isa.ScalarSelect,
                isa.ScalarConvert,
                isa.ProgramId,
                isa.GridSize,
            ):
                return None
            return _Run(run.pieces, run.instrs, [*run.scalars, instr])
        if instr.kind not in _SPLITTABLE or (run is None and not self.touches_large(instr)):
            return None
        pieces = max(run.pieces if run else 1, self.needed_pieces(instr))
        candidate = _Run(pieces, [*(run.instrs if run else []), instr], run.scalars if run else [])
        return candidate if self.is_legal(candidate) else None

    def digits(self, instr: Instr, pieces: int) -> _Digits | None:
        dimensions = DIMENSIONS - 1 if instr.kind is isa.Reduce else DIMENSIONS
        return _digits(instr.fields["shape"], pieces, dimensions)

    def is_legal(self, run: _Run) -> bool:
        """Whether running all of it for one piece after the other gives what running each as a whole gives."""
        written: set[Buffer] = set()
        memories: dict[object, list[Instr]] = {}
        for instr in run.instrs:
            if self.digits(instr, run.pieces) is None:
                return False
            written |= {place.buffer for place, writes in instr.places() if writes}
            if instr.memory is not None:
                memories.setdefault(instr.memory, []).append(instr)
        for instr in run.instrs:
            digits, sizes = self.digits(instr, run.pieces), _element_sizes(instr)
            assert digits is not None
            for name, place in _named_places(instr):
                if place.buffer in written and not _is_linear(place, digits, sizes[name], run.pieces):
                    return False
        for memory, touching in memories.items():
            if any(instr.unit is Unit.STORE for instr in touching) and len(touching) > 1:
                first = touching[0].fields
                same = all(
                    instr.fields[key] == first[key]
                    for instr in touching
                    for key in ("base", "strides", "shape")
                    if key in first and key in instr.fields
                )
                plain = all(instr.kind in (isa.Load, isa.Store) for instr in touching)
                if memory is ANYWHERE or not (same and plain):
                    return False
        return True

    # ------------------------------------------------------------------ code for a run

    def flush(self, run: _Run | None) -> None:
        if run is None:
            return
        self.out += run.scalars
        members = {id(instr) for instr in run.instrs}
        stages: dict[Buffer, Buffer] = {}
        staged_from_home: set[Buffer] = set()
        written_first: dict[Buffer, bool] = {}
        for instr in run.instrs:
            digits, sizes = self.digits(instr, run.pieces), _element_sizes(instr)
            assert digits is not None
            reads = {place.buffer for place, writes in instr.places() if not writes}
            for name, place in _named_places(instr):
                whole = place.buffer not in reads and _fills_pieces(place, digits, sizes[name], run.pieces)
                written_first.setdefault(place.buffer, whole)
        written = {place.buffer for instr in run.instrs for place, writes in instr.places() if writes}
        internal = {
            buffer
            for buffer in written
            if buffer in self.uses and written_first[buffer] and all(id(user) in members for user in self.uses[buffer])
        }
        for buffer in internal | (written & self.large):
            stages[buffer] = Buffer(-(-buffer.size_bytes // run.pieces))

        def body(piece: Register) -> None:
            for instr in run.instrs:
                self.piece(instr, piece, run.pieces, stages, internal, staged_from_home, written_first)

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
        staged: set[Buffer], written_first: dict[Buffer, bool],
    ) -> None:  # fmt: skip
        """One instruction for one piece."""
        digits, sizes = self.digits(instr, pieces), _element_sizes(instr)
        assert digits is not None
        numbers = {d: self.digit(piece, digits, d) for d, parts in enumerate(digits.parts) if parts > 1}
        fields = dict(instr.fields)
        fields["shape"] = digits.extents
        stores: list[_Move] = []
        for name, place in _named_places(instr):
            size, buffer = sizes[name], place.buffer
            steps: Steps = [(numbers[d], step) for d, step in _piece_offset(place, digits, size)]
            is_result = name in ("result", "previous") or (name == "tile" and instr.unit is Unit.LOAD)
            if buffer in stages:
                stage = stages[buffer]
                fields[name] = replace(place, buffer=stage)
                shape, strides = _row(stage.size_bytes // size)
                parts: Steps = [(piece, stage.size_bytes)]
                move = _Move(buffer, parts, 0, shape, strides, size, Place(stage, 0, strides))
                if buffer in internal:
                    continue
                if buffer not in staged and not written_first[buffer]:
                    self.transfer(True, move, instr.location)
                    staged.add(buffer)
                if is_result:
                    stores.append(move)
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
        elif instr.kind is isa.Reduce:
            self.reduce(instr)
        elif instr.kind is isa.Gather:
            self.gather(instr)
        elif instr.kind in _SPLITTABLE:
            self.scattered(instr)
        else:
            raise outgrows(instr, instr.kind.mnemonic)

    def scattered(self, instr: Instr) -> None:
        """An instruction on its own, its pieces rearranged on the way from and to their homes."""
        pieces = self.needed_pieces(instr)
        if self.digits(instr, pieces) is None:
            raise outgrows(instr, instr.kind.mnemonic, f"it does not divide into {pieces} pieces")
        self.counted_loop(pieces, lambda piece: self.piece(instr, piece, pieces, {}, set(), set(), {}))

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
            if digits is None:
                raise outgrows(instr, "reduce", f"a row is taken in parts of {width} elements")
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
        zero = self.constant(0)
        if source.buffer not in self.large:
            raise outgrows(instr, "gather", "a tile that is gathered from may be so large, not the result")
        home = self.home(source.buffer)
        base = self.emit_scalar(Function.ADD, self.workspace, self.constant(home.offset + source.offset))
        fields = {
            "dtype": _UNTYPED[size],
            "index_dtype": f["index_dtype"],
            "scale": f["stride"] * size,
            "base": base,
            "strides": tuple(self.constant(s * size) for s in source.strides),
            "low": (zero,) * DIMENSIONS,
            "high": (zero,) * DIMENSIONS,
            "fill": zero,
            "shape": f["shape"],
            "tile": f["result"],
            "index": f["index"],
            "mask": zero,
        }
        load = Instr(isa.LoadIndexed, fields, instr.location, home)
        if any(place.buffer in self.large for place, _ in load.places()):
            self.scattered(load)
        else:
            self.out.append(load)

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


def _named_places(instr: Instr) -> list[tuple[str, Place]]:
    return [
        (spec.name, instr.fields[spec.name])
        for spec in instr.kind.fields
        if isinstance(instr.fields.get(spec.name), Place)
    ]


def _is_linear(place: Place, digits: _Digits, size: int, pieces: int) -> bool:
    """Whether piece q of the operand lies in the q-th of `pieces` equal parts of its buffer."""
    total = place.buffer.size_bytes
    if total % pieces or place.offset:
        return False
    part = total // pieces
    reach = 0
    for d, extent in enumerate(digits.extents):
        if place.strides[d] < 0:
            return False
        reach += (extent - 1) * place.strides[d] * size
        if digits.parts[d] > 1 and place.strides[d] * digits.extents[d] * size != part << digits.shifts[d]:
            return False
    return reach + size <= part


def _fills_pieces(place: Place, digits: _Digits, size: int, pieces: int) -> bool:
    """Whether writing piece q of the operand leaves no byte of the q-th part of its buffer as it was."""
    extents = (extent for extent, stride in zip(digits.extents, place.strides, strict=True) if stride)
    written_bytes = _count(tuple(extents)) * size * pieces
    return _is_linear(place, digits, size, pieces) and written_bytes == place.buffer.size_bytes


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s if e > 1 else 0 for e, s in zip(shape, contiguous(shape), strict=True))


def _row(elements: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of consecutive elements."""
    if elements <= 32768:
        return (1, 1, 1, elements), (0, 0, 0, 1)
    return (1, 1, elements // 32768, 32768), (0, 0, 32768, 1)
