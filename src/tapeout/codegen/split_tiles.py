"""Makes a kernel fit whose tiles outgrow the scratchpad.

Takes machine code whose buffers do not fit; gives equivalent code in which every buffer above a limit is handled piece
by piece. A run of instructions that treat their tiles row by row in the same way (loads, elementwise functions,
reductions along rows, stores) becomes a loop over pieces of all of them; a tile that only lives within such a run
shrinks to one piece. A large tile that is used across runs gets a home in HBM (the core's workspace) and is staged
through the scratchpad in pieces. Results are bit-identical: no order of accumulation changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tapeout.codegen.allocate import ScratchpadOverflow, allocate
from tapeout.codegen.machine import (
    Branch,
    Buffer,
    Constants,
    FieldValue,
    Home,
    Instr,
    Loop,
    Node,
    Place,
    Register,
    walk,
)
from tapeout.codegen.piecewise import (
    Digits,
    First,
    Move,
    Run,
    Steps,
    count,
    dense,
    digits_of,
    digits_of_shape,
    element_sizes,
    indivisible,
    moves_of_part,
    named_places,
    piece_offset,
    reached,
    written_first,
)  # fmt: skip
from tapeout.errors import InternalError, UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, Unit
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function, Rounding

_DMA = (isa.Load, isa.LoadIndexed, isa.Store, isa.StoreIndexed)
_SPLITTABLE = (*_DMA, isa.Atomic, isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Iota, isa.Reduce)
_ALIGNMENT = 64
_UNTYPED = {1: DType.I8, 2: DType.I16, 4: DType.I32, 8: DType.I64}


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
    of_shape = f" of shape {'x'.join(map(str, instr.shape))}" if "shape" in instr.fields else ""
    what = f"{operation}{of_shape} on a tile that outgrows the scratchpad"
    return UnsupportedError(what, where=instr.location or None, hint=hint)


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
        run: Run | None = None
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

    def join(self, run: Run | None, instr: Instr) -> Run | None:
        """The run with the instruction in it, or None if it cannot be part of it."""
        if instr.unit is Unit.SEQUENCER:
            return run if run is not None and run.add_scalar(instr) else None
        if instr.kind not in _SPLITTABLE or (run is None and not self.touches_large(instr)):
            return None
        pieces = self.needed_pieces(instr)
        if run is not None and pieces <= run.pieces:
            return run if run.add(instr) else None
        before = [] if run is None else run.instrs
        longer = Run(pieces, scalars=[] if run is None else run.scalars)
        return longer if all(longer.add(each) for each in (*before, instr)) else None

    # ------------------------------------------------------------------ code for a run

    def flush(self, run: Run | None) -> None:
        if run is None:
            return
        self.out += run.scalars
        members = {id(instr) for instr in run.instrs}
        first_uses = written_first(run)
        internal = {
            buffer
            for buffer in run.written
            if buffer in self.uses
            and first_uses[buffer] is not First.READ
            and all(id(user) in members for user in self.uses[buffer])
        }
        stages = {
            buffer: Buffer(buffer.size_bytes // run.pieces)
            for buffer, is_linear in run.linear.items()
            if is_linear
            and (buffer in internal or (buffer in self.large and (buffer in run.written or run.touches[buffer] > 1)))
        }
        staged = {buffer for buffer, first in first_uses.items() if buffer in internal or first is First.WHOLE}

        def body(piece: Register) -> None:
            for instr in run.instrs:
                self.piece(instr, piece, run.pieces, stages, internal, staged)

        self.counted_loop(run.pieces, body)

    def counted_loop(self, count: int, body: Callable[[Register], None]) -> None:
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

    def digit(self, piece: Register, digits: Digits, d: int) -> Register:
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

    def transfer(self, load: bool, move: "Move", location: str) -> None:
        """Loads elements of a large tile from its home into the scratchpad, or stores them there."""
        home = self.home(move.buffer)
        base = self.emit_scalar(Function.ADD, self.workspace, self.constant(home.offset + move.start))
        zero = self.constant(0)
        fields: dict[str, FieldValue] = {
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
        digits, sizes = digits_of(instr, pieces), element_sizes(instr)
        assert digits is not None
        numbers = {d: self.digit(piece, digits, d) for d, parts in enumerate(digits.parts) if parts > 1}
        fields = {**instr.fields, "shape": digits.extents}
        stores: list[Move] = []
        for name, place, is_result in named_places(instr):
            size, buffer = sizes[name], place.buffer
            steps: Steps = [(numbers[d], step) for d, step in piece_offset(place, digits, size)]
            if buffer in stages:
                fields[name] = replace(place, buffer=stages[buffer])
                if buffer in internal:
                    continue
                moves = moves_of_part(buffer, piece, stages[buffer], size)
                if buffer not in staged:
                    for move in moves:
                        self.transfer(True, move, instr.location)
                    staged.add(buffer)
                if is_result:
                    stores += moves
            elif buffer in self.large:
                own = tuple(e if s else 1 for e, s in zip(digits.extents, place.strides, strict=True))
                fields[name] = stage = Place(Buffer(count(own) * size), 0, dense(own))
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                move = Move(buffer, steps, place.offset, own, strides, size, stage)
                if is_result:
                    stores.append(move)
                else:
                    self.transfer(True, move, instr.location)
            elif steps:
                fields[name] = replace(place, register=self.total(steps))
        if instr.kind in _DMA:
            terms: Steps = []
            strides_of = instr.registers_of("strides")
            low, high = list(instr.registers_of("low")), list(instr.registers_of("high"))
            for d, number in numbers.items():
                begin = self.total([(number, digits.extents[d])])
                terms.append((begin, strides_of[d]))
                for bounds in (low, high):
                    if bounds[d].constant != 0:  # register 0: no bound
                        bounds[d] = self.emit_scalar(Function.SUB, bounds[d], begin)
            fields["base"] = self.total(terms, instr.get("base", Register))
            fields["low"], fields["high"] = tuple(low), tuple(high)
        if instr.kind is isa.Iota:
            own_steps = instr.registers_of("steps")
            moved: Steps = [(self.total([(n, digits.extents[d])]), own_steps[d]) for d, n in numbers.items()]
            fields["start"] = self.total(moved, instr.get("start", Register))
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
        while (digits := digits_of(instr, pieces)) is not None and not self.holds(instr, digits):
            pieces *= 2
        if digits is None:
            cut = indivisible(instr, pieces)
            if cut is not None:
                for start, length in ((0, cut[1]), (cut[1], instr.shape[cut[0]] - cut[1])):
                    self.scattered(self.slice(instr, cut[0], start, length))
            elif instr.kind is isa.Reduce:
                self.reduce(instr)
            else:
                raise InternalError(f"{instr.location}: {instr.kind.mnemonic} of {instr.shape} in {pieces}")
        elif pieces == 1:
            self.piece(instr, self.constant(0), 1, {}, set(), set())
        else:
            self.counted_loop(pieces, lambda piece: self.piece(instr, piece, pieces, {}, set(), set()))

    def holds(self, instr: Instr, digits: Digits) -> bool:
        """Return whether what a piece of the instruction takes of each large tile is within the limit."""
        sizes = element_sizes(instr)
        return all(
            place.buffer not in self.large or reached(place, digits.extents) * sizes[name] <= self.limit
            for name, place, _ in named_places(instr)
        )

    def slice(self, instr: Instr, d: int, start: int, length: int) -> Instr:
        """The instruction for part of a dimension."""
        shape, sizes = instr.shape, element_sizes(instr)
        fields = {**instr.fields, "shape": (*shape[:d], length, *shape[d + 1 :])}
        if start:
            for name, place, _ in named_places(instr):
                fields[name] = replace(place, offset=place.offset + start * place.strides[d] * sizes[name])
            begin = self.constant(start)
            if instr.kind in _DMA:
                strides = instr.registers_of("strides")
                fields["base"] = self.total([(begin, strides[d])], instr.get("base", Register))
                for name in ("low", "high"):
                    bounds = instr.registers_of(name)
                    if bounds[d].constant != 0:  # register 0: no bound
                        moved = self.emit_scalar(Function.SUB, bounds[d], begin)
                        fields[name] = (*bounds[:d], moved, *bounds[d + 1 :])
            if instr.kind is isa.Iota:
                step = instr.registers_of("steps")[d]
                fields["start"] = self.total([(begin, step)], instr.get("start", Register))
        return Instr(instr.kind, fields, instr.location, instr.memory)

    def scalar_load(self, instr: Instr) -> None:
        place, size = instr.get("address", Place), instr.dtype_of("address").size_bytes
        stage = Place(Buffer(size), 0, (0,) * DIMENSIONS)
        move = Move(place.buffer, [], place.offset, (1,) * DIMENSIONS, (0,) * DIMENSIONS, size, stage)
        self.transfer(True, move, instr.location)
        self.out.append(instr.changed(address=stage))

    def reduce(self, instr: Instr) -> None:
        """A row too long for one piece: the 32 partial results, then their combination: the very definition."""
        *kept, extent = instr.shape
        function, dtype = instr.get("function", Function), instr.get("dtype", DType)
        size = dtype.size_bytes
        source, result = instr.get("a", Place), instr.get("result", Place)
        width = REDUCTION_PARTIALS
        if extent <= width or extent % width:
            raise outgrows(instr, "reduce", f"a row is taken in parts of {width} elements")
        rows = count(tuple(kept))

        def one_row(row: Register) -> None:
            digits = digits_of_shape((*kept, 1), rows, DIMENSIONS - 1)
            assert digits is not None
            numbers = {d: self.digit(row, digits, d) for d, parts in enumerate(digits.parts) if parts > 1}
            start = self.total([(n, source.strides[d] * size) for d, n in numbers.items()])
            partial = Place(Buffer(width * size), 0, (0, 0, 0, 1))
            combining: dict[str, FieldValue] = {
                "function": function,
                "dtype": dtype,
                "shape": (1, 1, 1, width),
                "a": partial,
            }
            strides = (0, 0, 0, source.strides[3])
            self.operand(source, start, source.offset, (1, 1, 1, width), strides, size, partial, instr.location)

            def step(number: Register) -> None:
                following = Place(Buffer(width * size), 0, (0, 0, 0, 1))
                jump = source.strides[3] * width * size
                offset = self.total([(number, jump)], self.emit_scalar(Function.ADD, start, self.constant(jump)))
                self.operand(source, offset, source.offset, (1, 1, 1, width), strides, size, following, instr.location)
                self.out.append(Instr(isa.Map2, {**combining, "result": partial, "b": following}, instr.location))

            self.counted_loop(extent // width - 1, step)
            out_steps: Steps = [(n, result.strides[d] * size) for d, n in numbers.items() if result.strides[d]]
            if result.buffer in self.large:
                stage = Place(Buffer(size), 0, (0,) * DIMENSIONS)
                self.out.append(Instr(isa.Reduce, {**combining, "result": stage}, instr.location))
                ones = (1,) * DIMENSIONS
                move = Move(result.buffer, out_steps, result.offset, ones, (0,) * DIMENSIONS, size, stage)
                self.transfer(False, move, instr.location)
            else:
                place = Place(result.buffer, result.offset, (0,) * DIMENSIONS, self.total(out_steps))
                self.out.append(Instr(isa.Reduce, {**combining, "result": place}, instr.location))

        self.counted_loop(rows, one_row)

    def operand(
        self, place: Place, offset: Register, start: int, shape: tuple[int, ...], strides: tuple[int, ...], size: int,
        stage: Place, location: str,
    ) -> None:  # fmt: skip
        """Brings elements of a tile, homed or resident, into a stage."""
        if place.buffer in self.large:
            self.transfer(True, Move(place.buffer, [(offset, 1)], start, shape, strides, size, stage), location)
        else:
            dtype = _UNTYPED[size]
            resident = Place(place.buffer, start, strides, offset)
            fields: dict[str, FieldValue] = {
                "function": Function.COPY,
                "dtype": dtype,
                "shape": shape,
                "result": stage,
                "a": resident,
            }
            self.out.append(Instr(isa.Map1, fields, location))

    def gather(self, instr: Instr) -> None:
        """Picking from a large tile becomes a gather from its home."""
        source, size = instr.get("source", Place), instr.get("dtype", DType).size_bytes
        if source.buffer not in self.large:
            self.scattered(instr)
            return
        index, index_dtype = instr.get("index", Place), instr.get("index_dtype", DType)
        if index_dtype not in (DType.I32, DType.I64):
            index, index_dtype = self.converted(index, index_dtype, DType.I32, instr), DType.I32
        zero = self.constant(0)
        home = self.home(source.buffer)
        base = self.emit_scalar(Function.ADD, self.workspace, self.constant(home.offset + source.offset))
        fields: dict[str, FieldValue] = {
            "dtype": _UNTYPED[size],
            "index_dtype": index_dtype,
            "scale": instr.get("stride", int) * size,
            "base": base,
            "strides": tuple(self.constant(s * size) for s in source.strides),
            "low": (zero,) * DIMENSIONS,
            "high": (zero,) * DIMENSIONS,
            "fill": zero,
            "shape": instr.shape,
            "tile": instr.get("result", Place),
            "index": index,
            "mask": zero,
        }
        self.scattered(Instr(isa.LoadIndexed, fields, instr.location, home))

    def converted(self, place: Place, dtype: DType, result_dtype: DType, user: Instr) -> Place:
        """A tile of integers in another type, which may be a large tile as well."""
        own = tuple(e if s else 1 for e, s in zip(user.shape, place.strides, strict=True))
        result = Place(Buffer(count(own) * result_dtype.size_bytes), 0, dense(own))
        if result.buffer.size_bytes > self.limit:
            self.large.add(result.buffer)
        fields: dict[str, FieldValue] = {
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
        sizes, accumulates = element_sizes(instr), instr.get("accumulate", bool)
        batch, rows, columns, depth = instr.shape
        block = {"m": rows, "n": columns, "k": depth}
        places = {name: instr.get(name, Place) for name in ("accumulator", "lhs", "rhs")}
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
            staged = Place(Buffer(count(own) * size), 0, dense(own))
            if load:
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                move = Move(place.buffer, steps(name, numbers), place.offset, own, strides, size, staged)
                self.transfer(True, move, instr.location)
            return staged

        def over_depth(numbers: dict[str, Register]) -> None:
            accumulator = stage("accumulator", numbers, accumulates)
            if not accumulates:
                dtype = _UNTYPED[sizes["accumulator"]]
                own = (1, block["m"], block["n"], 1)
                clear: dict[str, FieldValue] = {
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
                self.out.append(instr.changed(accumulate=True, shape=shape, accumulator=accumulator, lhs=lhs, rhs=rhs))

            self.counted_loop(depth // block["k"], multiply)
            place = places["accumulator"]
            if place.buffer in self.large:
                own = (1, block["m"], block["n"], 1)
                strides = tuple(s if e > 1 else 0 for e, s in zip(own, place.strides, strict=True))
                size, begin = sizes["accumulator"], steps("accumulator", numbers)
                move = Move(place.buffer, begin, place.offset, own, strides, size, accumulator)
                self.transfer(False, move, instr.location)

        self.counted_loop(
            batch,
            lambda b: self.counted_loop(
                rows // block["m"],
                lambda m: self.counted_loop(columns // block["n"], lambda n: over_depth({"b": b, "m": m, "n": n})),
            ),
        )
