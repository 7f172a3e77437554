"""A group of vector instructions as a loop nest over LLVM vectors; reductions that stand alone."""

import functools
import math
from collections.abc import Callable

from tapeout.errors import InternalError
from tapeout.isa import definitions as isa
from tapeout.numerics import functions
from tapeout.numerics.builder import INTEGER_OF_BITS, KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import CANONICAL_NAN, DType, exact_bits
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function
from tapeout.sim.functional import abi
from tapeout.sim.functional.builder import MEMORY_TYPE, TYPE_OF_KIND, LlvmBuilder, Text, Value
from tapeout.sim.functional.vector import Access, Group, Scalar, Step, View, extents_of, refine

WIDEST = 32
LONG_GROUP = 24
"""Groups longer than this use vectors half as wide: their values would not fit the host's registers."""

UNROLLED_TURNS = 4
"""Inner loops of reductions with at most so many turns are written out."""

Stride = tuple[str, int]
"""Bytes from one element to the next: an LLVM i64 ("" for one) times a constant."""


def _fixed(stride: int) -> Stride:
    return ("", stride)


def emit_group(text: Text, group: Group) -> None:
    """Write the loop nest of a group."""
    if group.live_steps:
        _Nest(text, group).emit()


class _Place:
    """One operand in memory: where it starts, and its strides along the nest's dimensions."""

    def __init__(self, step: int, name: str, access: Access, start: str, strides: list[Stride]) -> None:
        self.step = step
        self.name = name
        self.dtype = access.dtype
        self.start = start
        self.strides = strides

    @property
    def key(self) -> tuple[int, str]:
        return (self.step, self.name)


class _Nest:
    """Dimensions merged and ordered, then bodies written for whole vectors and for the rest."""

    def __init__(self, text: Text, group: Group) -> None:
        self.text = text
        self.group = group
        self.extents = list(extents_of(group.cuts)) or [1]
        self.places: list[_Place] = []
        self.seen: dict[tuple[object, ...], _Place] = {}
        self.same: dict[tuple[int, str], tuple[int, str]] = {}
        """operands that are read where another one is already"""
        self.view_strides: dict[tuple[str, int], str] = {}
        """by view and dimension of its block: one name each, so that strides compare equal when they are"""
        self.iotas: dict[int, list[Stride]] = {}
        for index, step in enumerate(group.steps):
            for name, access in step.reads():
                if (index, name) not in group.forwards:
                    block = group.views.get((index, name))
                    self._place(index, name, access, group.view(index, name, block) if block else None)
            if index in group.places:
                self._place(index, "result", step.result, group.view(index, "result", group.places[index]))
            elif index not in group.dropped:
                self._place(index, "result", step.result, None)
            if step.steps:
                self.iotas[index] = self._iota_steps(step)
        self._merge()
        if group.row is None:
            self._order()

    def _place(self, index: int, name: str, access: Access, view: View | None) -> None:
        text, step = self.text, self.group.steps[index]
        key = (view, access.dtype, self.group.key(access, step.shape))
        if name != "result" and key in self.seen:
            self.same[(index, name)] = self.seen[key].key
            return
        if view is None:
            offset = str(access.base) if access.offset == "0" else text.let(f"add i64 {access.offset}, {access.base}")
            start = text.let(f"getelementptr i8, ptr %scratchpad, i64 {offset}")
            strides = [_fixed(s) for s in refine(access.strides, step.shape, self.group.cuts)]
        else:
            start = text.let(f"load ptr, ptr {view.name}")
            strides = [self._view_stride(view, d, times, access.dtype.size_bytes) for d, times in view.mapping]
        place = _Place(index, name, access, start, strides or [_fixed(0)])
        self.places.append(place)
        if name != "result":
            self.seen[key] = place

    def _view_stride(self, view: View, dimension: int, times: int, size: int) -> Stride:
        if not times:
            return _fixed(0)
        if dimension == view.unit:
            return _fixed(size * times)
        key = (view.name, dimension)
        if key not in self.view_strides:
            at = self.text.let(f"getelementptr i8, ptr {view.name}, i64 {abi.offset_of('View', 'stride', dimension)}")
            self.view_strides[key] = self.text.let(f"load i64, ptr {at}")
        return (self.view_strides[key], times)

    def _iota_steps(self, step: Step) -> list[Stride]:
        """Increment along each dimension."""
        cuts = self.group.cuts
        multiples = [refine(tuple(int(d == e) for e in range(4)), step.shape, cuts) for d in range(4)]
        steps = []
        for dimension in range(len(cuts) - 1):
            chosen = [(step.steps[1 + d], multiples[d][dimension]) for d in range(4) if multiples[d][dimension]]
            steps.append(chosen[0] if chosen and chosen[0][0] != "0" else _fixed(0))
        return steps or [_fixed(0)]

    def _merge(self) -> None:
        """Neighbouring dimensions that every access runs through like one become one; rows of reductions stay apart."""
        row_dimensions = self.group.cuts.index(self.group.row) if self.group.row is not None else 0
        boundary = len(self.extents) - row_dimensions if row_dimensions else None
        columns = [*(place.strides for place in self.places), *self.iotas.values()]
        merged = [[column[0]] for column in columns]
        extents = [self.extents[0]]
        for dimension in range(1, len(self.extents)):
            extent = self.extents[dimension]
            together = dimension != boundary and all(
                done[-1] == (column[dimension][0], column[dimension][1] * extent)
                for done, column in zip(merged, columns, strict=True)
            )
            if together:
                extents[-1] *= extent
            else:
                extents.append(extent)
            for done, column in zip(merged, columns, strict=True):
                done[-1 if together else len(done) :] = [column[dimension]]
        if self.group.row is not None and extents[-1] != self.group.row:
            raise InternalError(f"a reduction's row of {self.group.row} elements became dimensions {extents}")
        self.extents = extents
        for place, strides in zip(self.places, merged, strict=False):
            place.strides = strides
        self.iotas = dict(zip(self.iotas, merged[len(self.places) :], strict=True))

    def _order(self) -> None:
        """Put innermost the dimension along which vectors are cheapest to load and store."""

        def cost(dimension: int) -> float:
            width = min(self.extents[dimension], 16)
            total = 1 / width
            for place in self.places:
                register, stride = place.strides[dimension]
                cheap = not register and abs(stride) in (0, place.dtype.size_bytes)
                total += 1 / width if cheap else 1.5
            return total

        best = min(range(len(self.extents)), key=lambda d: (cost(d), -d))
        order = [d for d in range(len(self.extents)) if d != best] + [best]
        self.extents = [self.extents[d] for d in order]
        for place in self.places:
            place.strides = [place.strides[d] for d in order]
        self.iotas = {index: [steps[d] for d in order] for index, steps in self.iotas.items()}

    def _widest(self) -> int:
        """Elements of a vector, at most: several registers of the host, whose steps overlap."""
        widest = min(WIDEST, self.text.host.vector_bytes)
        return widest // 2 if len(self.group.steps) > LONG_GROUP else widest

    def _width(self) -> int:
        inner, widest = self.extents[-1], self._widest()
        if self.group.row is not None:
            return min(widest, REDUCTION_PARTIALS)
        divisor = math.gcd(inner, widest)
        if inner <= widest:
            return inner
        return divisor if divisor >= min(8, widest) else min(16, widest)

    def _partials(self) -> int:
        """Partial results of each reduction. Where the order does not matter there may be more than are defined."""
        reductions = [s.reduction for s in self.group.steps if s.is_reduction]
        free = all(_is_order_free(item) for item in reductions) and self.extents[-1] % (2 * REDUCTION_PARTIALS) == 0
        return 2 * REDUCTION_PARTIALS if free and len(self.group.steps) <= 4 else REDUCTION_PARTIALS

    # ------------------------------------------------------------------------------------- loops

    def emit(self) -> None:
        self._outer(0, [])

    def _outer(self, dimension: int, indices: list[str]) -> None:
        if dimension < len(self.extents) - 1:
            self.text.loop(self.extents[dimension], lambda i: self._outer(dimension + 1, [*indices, i]))
            return
        starts = {place.key: self._moved(place.start, place.strides, indices) for place in self.places}
        iota_starts = {index: self._iota_start(index, steps, indices) for index, steps in self.iotas.items()}
        held = self._held(starts)
        inner, width = self.extents[-1], self._width()
        whole = inner // width * width
        reductions = {i: s for i, s in enumerate(self.group.steps) if s.is_reduction}
        if reductions:
            self._reduce_row(reductions, inner, width, starts, iota_starts, held)
            return

        def turn(position: str) -> None:
            self._body(position, width, starts, iota_starts, held)

        self.text.loop(whole, turn, width)
        if whole < inner:
            self._body(str(whole), inner - whole, starts, iota_starts, held)

    def _moved(self, start: str, strides: list[Stride], indices: list[str]) -> str:
        text = self.text
        for (register, times), index in zip(strides, indices, strict=False):
            if times and index != "0":
                distance = text.let(f"mul i64 {index}, {times}")
                if register:
                    distance = text.let(f"mul i64 {distance}, {register}")
                start = text.let(f"getelementptr i8, ptr {start}, i64 {distance}")
        return start

    def _iota_start(self, index: int, steps: list[Stride], indices: list[str]) -> str:
        text = self.text
        total = self.group.steps[index].steps[0]
        for (register, times), position in zip(steps, indices, strict=False):
            if register and times and position != "0":
                product = text.let(f"mul i64 {text.let(f'mul i64 {position}, {times}')}, {register}")
                total = text.let(f"add i64 {total}, {product}")
        return total

    def _held(self, starts: dict[tuple[int, str], str]) -> dict[tuple[int, str], str]:
        """Elements that do not change along the inner dimension, read before the inner loop."""
        return {
            place.key: self.text.let(f"load {MEMORY_TYPE[place.dtype]}, ptr {starts[place.key]}, align 1")
            for place in self.places
            if place.name != "result" and place.strides[-1] == ("", 0)
        }

    def _reduce_row(
        self,
        reductions: dict[int, Step],
        inner: int,
        width: int,
        starts: dict[tuple[int, str], str],
        iota_starts: dict[int, str],
        held: dict[tuple[int, str], str],
    ) -> None:
        """The inner loop carries the partial results of every reduction, some vectors of them; then each is folded and
        stored."""
        text = self.text
        builder = LlvmBuilder(text, width)
        parts = self._partials() // width
        kinds = [memory_vector(builder, step.item.dtype) for step in reductions.values()] * parts
        initial = [identity(builder, step.reduction) for step in reductions.values()] * parts

        def body(position: str, carried: list[str]) -> list[str]:
            combined = []
            for part in range(parts):
                here = _plus(text, position, part * width)
                partials = carried[part * len(reductions) : (part + 1) * len(reductions)]
                combined += self._body(
                    here, width, starts, iota_starts, held, dict(zip(reductions, partials, strict=True))
                )
            return combined

        partials = carry(text, kinds, initial, 0, inner, parts * width, body)
        for number, (index, step) in enumerate(reductions.items()):
            if (index, "result") in starts:
                item = step.reduction
                partial = _fold_vectors(text, item, partials[number :: len(reductions)], width)
                total = finished(LlvmBuilder(text, 1), item, fold(text, item, partial, width))
                dtype = step.result.dtype
                text.add(f"store {MEMORY_TYPE[dtype]} {total}, ptr {starts[(index, 'result')]}, align 1")

    # -------------------------------------------------------------------------------------- body

    def _body(
        self,
        position: str,
        width: int,
        starts: dict[tuple[int, str], str],
        iota_starts: dict[int, str],
        held: dict[tuple[int, str], str],
        partials: dict[int, str] | None = None,
    ) -> list[str]:
        """One vector of every step. Gives the new partial results of reductions."""
        builder = LlvmBuilder(self.text, width)
        inner_strides = {place.key: place.strides[-1] for place in self.places}
        results: list[Value] = []
        carried: list[str] = []
        read: dict[tuple[int, str], Value] = {}
        # What lies in HBM is read before anything is written there: a group may work in place.
        ahead = {
            place.key: load_vector(builder, place.dtype, starts[place.key], position, inner_strides[place.key])
            for place in self.places
            if place.key in self.group.views and place.key not in held
        }
        for index, step in enumerate(self.group.steps):
            values: dict[str, Value] = {}
            for name, operand in step.operands.items():
                key = (index, name)
                if name == "result":
                    continue
                if isinstance(operand, Scalar):
                    values[name] = scalar_value(builder, operand)
                elif key in self.group.forwards:
                    writer = self.group.forwards[key]
                    written = self.group.steps[writer].result.dtype
                    values[name] = reread(builder, results[writer], written, operand.dtype)
                elif key in self.same:
                    values[name] = read[self.same[key]]
                else:
                    if key in held:
                        raw = builder.splat_memory(operand.dtype, held[key])
                    else:
                        raw = ahead.get(key) or load_vector(
                            builder, operand.dtype, starts[key], position, inner_strides[key]
                        )
                    values[name] = read[key] = from_memory(builder, operand.dtype, raw)
            if step.is_reduction:
                assert partials is not None
                carried.append(combine(builder, step.reduction, partials[index], values["a"]))
                results.append(values["a"])
                continue
            if step.steps:
                results.append(self._iota(builder, index, position, iota_starts[index]))
            else:
                assert not isinstance(step.item, isa.Reduce | isa.Iota)
                results.append(apply(builder, step.item, values))
            key = (index, "result")
            if key in starts:
                raw = to_memory(builder, step.result.dtype, results[-1])
                store_vector(builder, step.result.dtype, raw, starts[key], position, inner_strides[key])
        return carried

    def _iota(self, builder: LlvmBuilder, index: int, position: str, start: str) -> Value:
        text = self.text
        dtype = self.group.steps[index].result.dtype
        kind = INTEGER_OF_BITS[dtype.bits]
        register, times = self.iotas[index][-1]
        first, step = start, "0"
        if register and times:
            step = text.let(f"mul i64 {register}, {times}")
            first = text.let(f"add i64 {start}, {text.let(f'mul i64 {step}, {position}')}")
        scalars = []
        for value in (first, step):
            if kind is not Kind.I64:
                value = text.let(f"trunc i64 {value} to {TYPE_OF_KIND[kind]}")
            scalars.append(Value(kind, builder.splat(kind, value)))
        lanes = Value(kind, lane_numbers(builder, kind))
        return builder.add(scalars[0], builder.mul(scalars[1], lanes))


def lane_numbers(builder: LlvmBuilder, kind: Kind) -> str:
    if builder.width == 1:
        return "0"
    return "<" + ", ".join(f"{TYPE_OF_KIND[kind]} {lane}" for lane in range(builder.width)) + ">"


# ------------------------------------------------------------------------------------------ elements


def scalar_value(builder: LlvmBuilder, operand: Scalar) -> Value:
    """The low bits of a register as an element of the operand's type (an i1: the lowest bit), in every lane."""
    text, ref = builder.text, operand.ref
    kind = KIND_OF_DTYPE[operand.dtype]
    if kind.bits < 64:
        ref = text.let(f"trunc i64 {ref} to i{kind.bits}")
    if kind.is_float:
        ref = text.let(f"bitcast i{kind.bits} {ref} to {TYPE_OF_KIND[kind]}")
    return Value(kind, builder.splat(kind, ref))


def from_memory(builder: LlvmBuilder, dtype: DType, raw: str) -> Value:
    """An element as read: an i1 is true if its byte is not zero."""
    kind = KIND_OF_DTYPE[dtype]
    if dtype is DType.I1:
        zero = builder.splat(Kind.I8, "0")
        return Value(kind, builder.text.let(f"icmp ne {builder.type(Kind.I8)} {raw}, {zero}"))
    return Value(kind, raw)


def to_memory(builder: LlvmBuilder, dtype: DType, value: Value) -> str:
    if dtype is DType.I1:
        return builder.zero_extend(value, Kind.I8).ref
    return builder.exact(value)


def reread(builder: LlvmBuilder, value: Value, written: DType, read: DType) -> Value:
    """Return what reading gives after writing `value`, without memory in between."""
    if KIND_OF_DTYPE[written] is KIND_OF_DTYPE[read]:
        return value
    if written is DType.I1:
        return builder.zero_extend(value, Kind.I8)
    if read is DType.I1:
        return builder.ne(value, builder.constant(Kind.I8, 0))
    return builder.bitcast(value, KIND_OF_DTYPE[read])


def apply(builder: LlvmBuilder, item: isa.Map | isa.Convert, values: dict[str, Value]) -> Value:
    """The elementwise instruction's function on its operands' values."""
    if isinstance(item, isa.Convert):
        return functions.convert(builder, values["a"], item.dtype, item.result_dtype, item.unsigned, item.rounding)
    meaning = functions.MEANING[item.function]
    result: Value = meaning(builder, item.dtype, *(values[n] for n in "abc" if n in values))
    return result


def memory_vector(builder: LlvmBuilder, dtype: DType) -> str:
    scalar = MEMORY_TYPE[dtype]
    return scalar if builder.width == 1 else f"<{builder.width} x {scalar}>"


def _at(text: Text, base: str, position: str, stride: Stride) -> str:
    register, times = stride
    if position == "0" or times == 0:
        return base
    offset = text.let(f"mul i64 {position}, {times}") if position.startswith("%") else str(int(position) * times)
    if register:
        offset = text.let(f"mul i64 {offset}, {register}")
    return text.let(f"getelementptr i8, ptr {base}, i64 {offset}")


def _lane_addresses(builder: LlvmBuilder, address: str, stride: Stride) -> str:
    text, width = builder.text, builder.width
    register, times = stride
    lanes = "<" + ", ".join(f"i64 {lane * times}" for lane in range(width)) + ">"
    if register:
        lanes = text.let(f"mul <{width} x i64> {lanes}, {builder.splat(Kind.I64, register)}")
    return text.let(f"getelementptr i8, ptr {address}, <{width} x i64> {lanes}")


def _masked(builder: LlvmBuilder, dtype: DType) -> tuple[str, str]:
    """Suffix of a masked intrinsic's name, and the mask of all lanes."""
    width = builder.width
    element = MEMORY_TYPE[dtype].replace("float", "f32").replace("double", "f64")
    return f"v{width}{element}.v{width}p0", "splat (i1 true)"


def load_vector(builder: LlvmBuilder, dtype: DType, base: str, position: str, stride: Stride) -> str:
    text, kind, width = builder.text, memory_vector(builder, dtype), builder.width
    address = _at(text, base, position, stride)
    if width == 1 or stride == ("", dtype.size_bytes):
        return text.let(f"load {kind}, ptr {address}, align 1")
    suffix, ones = _masked(builder, dtype)
    return text.call(
        kind,
        f"llvm.masked.gather.{suffix}",
        (f"<{width} x ptr>", _lane_addresses(builder, address, stride)),
        (f"<{width} x i1>", ones),
        (kind, "poison"),
    )


def store_vector(builder: LlvmBuilder, dtype: DType, raw: str, base: str, position: str, stride: Stride) -> None:
    text, kind, width = builder.text, memory_vector(builder, dtype), builder.width
    address = _at(text, base, position, stride)
    if width == 1 or stride == ("", dtype.size_bytes):
        text.add(f"store {kind} {raw}, ptr {address}, align 1")
        return
    suffix, ones = _masked(builder, dtype)
    function = f"llvm.masked.scatter.{suffix}"
    text.declarations.add(f"declare void @{function}({kind}, <{width} x ptr>, <{width} x i1>)")
    pointers = _lane_addresses(builder, address, stride)
    text.add(f"call void @{function}({kind} {raw}, <{width} x ptr> {pointers}, <{width} x i1> {ones})")


# ---------------------------------------------------------------------------------------- reductions

ORDER_MATTERS = (Function.ADD, Function.MUL)
"""Order-dependent reductions, for floats. The other reductions, and all of integers, give the same bits in every
order."""


def _is_order_free(item: isa.Reduce) -> bool:
    return item.function not in ORDER_MATTERS or not item.dtype.is_float


def identity_bits(function: Function, dtype: DType) -> int:
    """Bits e with function(e, x) = x for every x (NaNs become canonical)."""
    top = 1 << (dtype.bits - 1)
    ones = (top << 1) - 1 if dtype is not DType.I1 else 1
    least = 0 if dtype is DType.I1 else top
    greatest = 1 if dtype is DType.I1 else top - 1
    match function:
        case Function.ADD:
            return exact_bits(-0.0, dtype) if dtype.is_float else 0
        case Function.MUL:
            return exact_bits(1.0, dtype) if dtype.is_float else 1
        case Function.MINIMUM:
            return exact_bits(math.inf, dtype)
        case Function.MAXIMUM:
            return exact_bits(-math.inf, dtype)
        case Function.MIN_NUMBER | Function.MAX_NUMBER:
            return CANONICAL_NAN[dtype]
        case Function.MIN_SIGNED:
            return greatest
        case Function.MAX_SIGNED:
            return least
        case Function.MIN_UNSIGNED | Function.AND:
            return ones
        case _:  # max_u, or, xor
            return 0


def identity(builder: LlvmBuilder, item: isa.Reduce) -> str:
    """A vector of identities, as in memory."""
    dtype: DType = item.dtype
    bits = identity_bits(item.function, dtype)
    integer = INTEGER_OF_BITS[dtype.bits]
    value = builder.constant(integer, bits)
    if dtype in (DType.F32, DType.F64):
        return builder.bitcast(value, KIND_OF_DTYPE[dtype]).ref
    return value.ref


def combine(builder: LlvmBuilder, item: isa.Reduce, partial: str, value: Value) -> str:
    """function(partial, value), partial results being as in memory but for the bits of NaNs in f32 and f64: those
    become canonical at the end (`finished`), which gives the same."""
    dtype: DType = item.dtype
    meaning = functions.MEANING[item.function]
    combined = meaning(builder, dtype, from_memory(builder, dtype, partial), value)
    return combined.ref if dtype in (DType.F32, DType.F64) else to_memory(builder, dtype, combined)


def finished(builder: LlvmBuilder, item: isa.Reduce, partial: str) -> str:
    """The result of a reduction of more than one element."""
    dtype: DType = item.dtype
    if dtype not in (DType.F32, DType.F64):
        return partial
    return builder.exact(builder.canonical(Value(KIND_OF_DTYPE[dtype], partial)))


def _combine_raw(text: Text, width: int, item: isa.Reduce, a: str, b: str) -> str:
    builder = LlvmBuilder(text, width)
    return combine(builder, item, a, from_memory(builder, item.dtype, b))


def carry(
    text: Text,
    kinds: list[str],
    initial: list[str],
    start: int,
    end: int,
    step: int,
    body: Callable[[str, list[str]], list[str]],
) -> list[str]:
    """carried = initial; for i = start, start + step, ... < end: carried = body(i, carried)"""
    if end - start <= UNROLLED_TURNS * step:
        for position in range(start, end, step):
            initial = body(str(position), initial)
        return initial
    before = text.block
    label, after = text.name("fold")[1:], text.name("folded")[1:]
    index = text.name("i")
    carried = [text.name("p") for _ in kinds]
    text.add(f"br label %{label}")
    text.label(label)
    place = len(text.lines)
    text.lines += [""] * (1 + len(kinds))
    combined = body(index, carried)
    following = text.let(f"add nuw nsw i64 {index}, {step}")
    done = text.let(f"icmp uge i64 {following}, {end}")
    text.lines[place] = f"{index} = phi i64 [{start}, %{before}], [{following}, %{text.block}]"
    for offset, (kind, name, first, last) in enumerate(zip(kinds, carried, initial, combined, strict=True), 1):
        text.lines[place + offset] = f"{name} = phi {kind} [{first}, %{before}], [{last}, %{text.block}]"
    text.add(f"br i1 {done}, label %{after}, label %{label}")
    text.label(after)
    return combined


def _plus(text: Text, position: str, distance: int) -> str:
    if not position.startswith("%"):
        return str(int(position) + distance)
    return text.let(f"add nuw nsw i64 {position}, {distance}") if distance else position


def _fold_vectors(text: Text, item: isa.Reduce, vectors: list[str], width: int) -> str:
    """Partial results that are several vectors, combined in halves down to one."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [_combine_raw(text, width, item, low, high) for low, high in pairs]
    return vectors[0]


def fold(text: Text, item: isa.Reduce, partial: str, width: int) -> str:
    """Partial results, combined in halves."""
    dtype: DType = item.dtype
    while width > 1:
        half = -(-width // 2)
        pairs = width - half
        low, high = _part(text, dtype, partial, width, 0, pairs), _part(text, dtype, partial, width, half, width)
        head = _combine_raw(text, pairs, item, low, high)
        if pairs < half:
            rest = _part(text, dtype, partial, width, pairs, half)
            head = _concatenate(text, dtype, head, pairs, rest, half - pairs)
        partial, width = head, half
    return partial


def emit_reduction(text: Text, step: Step) -> None:
    """A reduce instruction whose rows are short, uneven or scattered."""
    item = step.reduction
    source, result = step.operands["a"], step.result
    assert isinstance(source, Access)
    length, dtype = step.shape[3], source.dtype
    kept = [(extent, source.strides[d], result.strides[d]) for d, extent in enumerate(step.shape[:3]) if extent > 1]
    columns = None
    if source.strides[3] not in (dtype.size_bytes, 0) and length > 1:
        columns = next((k for k in kept if k[1] == dtype.size_bytes), None)
    if columns:
        kept.remove(columns)

    def address(access: Access, indices: list[str], which: int) -> str:
        offset = str(access.base) if access.offset == "0" else text.let(f"add i64 {access.offset}, {access.base}")
        for index, dimension in zip(indices, kept, strict=True):
            if dimension[which] and index != "0":
                offset = text.let(f"add i64 {offset}, {text.let(f'mul i64 {index}, {dimension[which]}')}")
        return text.let(f"getelementptr i8, ptr %scratchpad, i64 {offset}")

    def nest(indices: list[str]) -> None:
        if len(indices) < len(kept):
            text.loop(kept[len(indices)][0], lambda i: nest([*indices, i]))
            return
        from_base, to_base = address(source, indices, 1), address(result, indices, 2)
        if not columns:
            _reduce_row(text, item, from_base, source.strides[3], length, to_base)
            return
        extent, from_stride, to_stride = columns
        width = min(extent, 16)
        whole = extent // width * width

        def some(position: str, count: int) -> None:
            builder = LlvmBuilder(text, count)
            total = _reduce_columns(
                builder, item, _at(text, from_base, position, _fixed(from_stride)), source.strides[3], length
            )
            store_vector(builder, dtype, total, to_base, position, _fixed(to_stride))

        text.loop(whole, lambda i: some(i, width), width)
        if whole < extent:
            some(str(whole), extent - whole)

    nest([])


def _reduce_row(text: Text, item: isa.Reduce, base: str, stride: int, length: int, to_base: str) -> None:
    """Partial results side by side in one vector, then folded in halves."""
    dtype: DType = item.dtype
    width = min(length, REDUCTION_PARTIALS)
    builder = LlvmBuilder(text, width)
    raw = load_vector(builder, dtype, base, "0", _fixed(stride))
    partial = to_memory(builder, dtype, from_memory(builder, dtype, raw))  # a row of one i1 becomes 0 or 1 as well
    whole, rest = length // width * width, length % width
    if whole > width:

        def turn(position: str, carried: list[str]) -> list[str]:
            here = LlvmBuilder(text, width)
            loaded = load_vector(here, dtype, base, position, _fixed(stride))
            return [_combine_raw(text, width, item, carried[0], loaded)]

        (partial,) = carry(text, [memory_vector(builder, dtype)], [partial], width, whole, width, turn)
    if rest:
        loaded = load_vector(LlvmBuilder(text, rest), dtype, base, str(whole), _fixed(stride))
        head = _combine_raw(text, rest, item, _part(text, dtype, partial, width, 0, rest), loaded)
        partial = _concatenate(text, dtype, head, rest, _part(text, dtype, partial, width, rest, width), width - rest)
    total = fold(text, item, partial, width)
    if length > 1:
        total = finished(LlvmBuilder(text, 1), item, total)
    text.add(f"store {MEMORY_TYPE[dtype]} {total}, ptr {to_base}, align 1")


def _reduce_columns(builder: LlvmBuilder, item: isa.Reduce, base: str, stride: int, length: int) -> str:
    """Many rows at a time, a row per lane; partial results lie in memory."""
    text, width = builder.text, builder.width
    dtype: DType = item.dtype
    kind = memory_vector(builder, dtype)
    partials = min(length, REDUCTION_PARTIALS)
    size = width * dtype.size_bytes

    def partial(index: str) -> str:
        return text.let(f"getelementptr i8, ptr %partials, i64 {text.let(f'mul i64 {index}, {size}')}")

    def source(index: str) -> str:
        return text.let(f"getelementptr i8, ptr {base}, i64 {text.let(f'mul i64 {index}, {stride}')}")

    def load(address: str) -> str:
        return text.let(f"load {kind}, ptr {address}, align 1")

    turns = length // partials * partials

    def first(j: str) -> None:
        total = load(source(j))
        if turns > partials:

            def turn(position: str, carried: list[str]) -> list[str]:
                place = text.let(f"add i64 {position}, {j}")
                return [_combine_raw(text, width, item, carried[0], load(source(place)))]

            (total,) = carry(text, [kind], [total], partials, turns, partials, turn)
        text.add(f"store {kind} {total}, ptr {partial(j)}, align 1")

    text.loop(partials, first)

    def into(j: str, other: Callable[[str], str]) -> None:
        here = partial(j)
        combined = _combine_raw(text, width, item, load(here), load(other(j)))
        text.add(f"store {kind} {combined}, ptr {here}, align 1")

    if length > turns:
        text.loop(length - turns, lambda j: into(j, lambda j: source(text.let(f"add i64 {j}, {turns}"))))
    while partials > 1:
        half = -(-partials // 2)
        upper = functools.partial(lambda h, j: partial(text.let(f"add i64 {j}, {h}")), half)
        text.loop(partials - half, functools.partial(lambda other, j: into(j, other), upper))
        partials = half
    return finished(LlvmBuilder(text, width), item, load("%partials"))


def _vector_type(dtype: DType, width: int) -> str:
    return MEMORY_TYPE[dtype] if width == 1 else f"<{width} x {MEMORY_TYPE[dtype]}>"


def _part(text: Text, dtype: DType, vector: str, width: int, start: int, end: int) -> str:
    """Elements [start, end) of a vector."""
    kind = _vector_type(dtype, width)
    if end - start == width:
        return vector
    if end - start == 1:
        return text.let(f"extractelement {kind} {vector}, i64 {start}")
    lanes = ", ".join(f"i32 {lane}" for lane in range(start, end))
    return text.let(f"shufflevector {kind} {vector}, {kind} poison, <{end - start} x i32> <{lanes}>")


def _concatenate(text: Text, dtype: DType, a: str, a_width: int, b: str, b_width: int) -> str:
    width = a_width + b_width
    kind = _vector_type(dtype, width)

    def stretched(part: str, count: int) -> str:
        if count == 1:
            return text.let(f"insertelement {kind} poison, {MEMORY_TYPE[dtype]} {part}, i64 0")
        lanes = ", ".join(f"i32 {lane if lane < count else 'poison'}" for lane in range(width))
        part_kind = _vector_type(dtype, count)
        return text.let(f"shufflevector {part_kind} {part}, {part_kind} poison, <{width} x i32> <{lanes}>")

    lanes = ", ".join(f"i32 {lane if lane < a_width else width + lane - a_width}" for lane in range(width))
    return text.let(
        f"shufflevector {kind} {stretched(a, a_width)}, {kind} {stretched(b, b_width)}, <{width} x i32> <{lanes}>"
    )
