"""Vector instructions to loops over LLVM vectors.

Neighbouring elementwise instructions over one iteration space become one `Group`: one loop nest in which a value
written by one and read with the same access pattern by another stays in a register. `reduction` writes a single
reduce instruction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tapeout.isa import definitions as isa
from tapeout.isa.fields import Instruction
from tapeout.isa.functions import REDUCTION_PARTIALS
from tapeout.numerics import functions
from tapeout.numerics.builder import INTEGER_OF_BITS, KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.sim.functional.analysis import Region, may_overlap
from tapeout.sim.functional.builder import MEMORY_TYPE, TYPE_OF_KIND, LlvmBuilder, Text, Value

WIDEST = 32
NARROW_GROUP_LENGTH = 24
"""Groups longer than this use vectors half as wide: their values would not fit the host's registers."""


@dataclass(frozen=True)
class Access:
    """A tile operand: address relative to the scratchpad as an LLVM value, strides in bytes, for the instruction's shape."""

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
    """A vector instruction with its register values."""

    item: Instruction
    operands: dict[str, Access | Scalar]
    registers: tuple[str, ...] = ()
    """of iota: start, then the four steps"""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.item.shape  # type: ignore[attr-defined, no-any-return]

    @property
    def result(self) -> Access:
        result = self.operands["result"]
        assert isinstance(result, Access)
        return result

    def reads(self) -> list[tuple[str, Access]]:
        return [(n, a) for n, a in self.operands.items() if n != "result" and isinstance(a, Access)]


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
    if any(outer % inner for inner, outer in zip(joined, joined[1:], strict=False)):
        return None
    return tuple(joined)


def refine(strides: tuple[int, ...], shape: tuple[int, ...], cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Strides along the dimensions between cuts, outermost first."""
    refined = []
    dimension, inner, outer = len(shape), 1, 1
    for cut in cuts[:-1]:
        while cut >= outer:
            dimension -= 1
            inner, outer = outer, outer * shape[dimension]
        refined.append(strides[dimension] * (cut // inner))
    return tuple(reversed(refined))


Key = tuple[int, int, int, tuple[int, ...], int]


class Group:
    """Elementwise instructions to be written as one loop nest."""

    def __init__(self, text: Text, ranges: dict[int, tuple[int, int]]) -> None:
        self.text = text
        self.ranges = ranges
        self.steps: list[Step] = []
        self.cuts: tuple[int, ...] = (1,)
        self.writers: dict[Key, int] = {}
        self.written: list[tuple[Key, Region]] = []
        self.read: list[tuple[Key, Region]] = []
        self.forwards: dict[tuple[int, str], int] = {}

    def _key(self, access: Access, shape: tuple[int, ...], cuts: tuple[int, ...]) -> Key:
        strides = refine(access.strides, shape, cuts)
        return (access.base, access.region.register, access.region.version, strides, access.dtype.size_bytes)

    def conflicts(self, region: Region, written: bool) -> bool:
        """Whether something outside the group that touches `region` must come after the group."""
        touched = [*self.written, *self.read] if written else self.written
        return any(may_overlap(region, other, self.ranges) for _, other in touched)

    def add(self, step: Step) -> bool:
        """Take the instruction into the group, if that keeps the meaning."""
        cuts = join_cuts(self.cuts, cuts_of(step.shape)) if self.steps else cuts_of(step.shape)
        if cuts is None:
            return False
        if cuts != self.cuts:
            self._recut(cuts)
        forwards, reads = {}, []
        for name, access in step.reads():
            key = self._key(access, step.shape, cuts)
            writer = self.writers.get(key)
            if writer is not None:
                forwards[(len(self.steps), name)] = writer
            elif any(may_overlap(access.region, region, self.ranges) for _, region in self.written):
                return False
            else:
                reads.append((key, access.region))
        result = step.result
        key = self._key(result, step.shape, cuts)
        for other, region in [*self.read, *reads, *self.written] if self.steps else []:
            if other != key and may_overlap(result.region, region, self.ranges):
                return False
        self.forwards |= forwards
        self.read += reads
        self.written.append((key, result.region))
        self.writers[key] = len(self.steps)
        self.steps.append(step)
        return True

    def _recut(self, cuts: tuple[int, ...]) -> None:
        old, self.cuts = self.cuts, cuts
        shape = tuple(b // a for a, b in zip(old, old[1:], strict=False))[::-1]

        def again(key: Key) -> Key:
            return (*key[:3], refine(key[3], shape, cuts), key[4])

        self.writers = {again(key): writer for key, writer in self.writers.items()}
        self.written = [(again(key), region) for key, region in self.written]
        self.read = [(again(key), region) for key, region in self.read]

    # ------------------------------------------------------------------------------------ writing

    def emit(self) -> None:
        """Write the loop nest."""
        nest = _Nest(self)
        nest.emit()


class _Nest:
    """One group's loops: dimensions merged and ordered, then bodies written for whole vectors and for the rest."""

    def __init__(self, group: Group) -> None:
        self.text = group.text
        self.group = group
        cuts = group.cuts
        extents = [b // a for a, b in zip(cuts, cuts[1:], strict=False)][::-1] or [1]
        self.accesses: list[tuple[int, str, Access, list[int]]] = []
        self.iotas: dict[int, list[tuple[str, int]]] = {}
        last_writer = {key: index for key, index in group.writers.items()}
        for index, step in enumerate(group.steps):
            for name, operand in step.operands.items():
                if not isinstance(operand, Access) or (index, name) in group.forwards:
                    continue
                strides = list(refine(operand.strides, step.shape, cuts)) or [0]
                if name == "result":
                    key = group._key(operand, step.shape, cuts)
                    if last_writer[key] != index:
                        continue
                self.accesses.append((index, name, operand, strides))
            if step.registers:
                origin = refine((0, 1, 2, 3), step.shape, cuts)
                self.iotas[index] = self._iota_steps(step, cuts)
                del origin
        self._merge(extents)
        self._order()

    @staticmethod
    def _iota_steps(step: Step, cuts: tuple[int, ...]) -> list[tuple[str, int]]:
        """(register value, multiplier) along each dimension."""
        steps = []
        multipliers = [refine(tuple(int(d == e) for e in range(4)), step.shape, cuts) for d in range(4)]
        for dimension in range(len(cuts) - 1):
            chosen = [(step.registers[1 + d], multipliers[d][dimension]) for d in range(4) if multipliers[d][dimension]]
            steps.append(chosen[0] if chosen else ("0", 0))
        return [("0", 0) if ref == "0" else (ref, times) for ref, times in steps] or [("0", 0)]

    def _merge(self, extents: list[int]) -> None:
        """Neighbouring dimensions that every access runs through like one become one."""
        merged = [extents[0]]
        columns = [[strides[0]] for *_, strides in self.accesses]
        iotas = {index: [steps[0]] for index, steps in self.iotas.items()}
        for dimension in range(1, len(extents)):
            extent = extents[dimension]
            together = all(
                column[-1] == strides[dimension] * extent
                for column, (*_, strides) in zip(columns, self.accesses, strict=True)
            ) and all(
                iotas[index][-1] == (steps[dimension][0], steps[dimension][1] * extent)
                for index, steps in self.iotas.items()
            )
            if together:
                merged[-1] *= extent
            else:
                merged.append(extent)
            for column, (*_, strides) in zip(columns, self.accesses, strict=True):
                column[-1 if together else len(column) :] = [strides[dimension]]
            for index, steps in self.iotas.items():
                iotas[index][-1 if together else len(iotas[index]) :] = [steps[dimension]]
        self.extents = merged
        self.accesses = [(*access[:3], column) for access, column in zip(self.accesses, columns, strict=True)]
        self.iotas = iotas

    def _order(self) -> None:
        """Put innermost the dimension along which vectors are cheapest to load and store."""

        def cost(dimension: int) -> float:
            width = min(self.extents[dimension], 16)
            total = 0.0
            for _, _, access, strides in self.accesses:
                stride = abs(strides[dimension])
                total += 1 / width if stride in (0, access.dtype.size_bytes) else 1.5
            return total + 1 / width

        best = min(range(len(self.extents)), key=lambda d: (cost(d), -d))
        order = [d for d in range(len(self.extents)) if d != best] + [best]
        self.extents = [self.extents[d] for d in order]
        self.accesses = [(*access[:3], [access[3][d] for d in order]) for access in self.accesses]
        self.iotas = {index: [steps[d] for d in order] for index, steps in self.iotas.items()}

    def _width(self) -> int:
        inner = self.extents[-1]
        widest = WIDEST if len(self.group.steps) <= NARROW_GROUP_LENGTH else WIDEST // 2
        divisor = math.gcd(inner, widest)
        if inner <= widest:
            return inner
        return divisor if divisor >= 8 else min(16, widest)

    def emit(self) -> None:
        self._outer(0, [])

    def _outer(self, dimension: int, indices: list[str]) -> None:
        if dimension < len(self.extents) - 1:
            self.text.loop(self.extents[dimension], lambda i: self._outer(dimension + 1, [*indices, i]))
            return
        bases = {(index, name): self._address(access, strides, indices) for index, name, access, strides in self.accesses}
        starts = {index: self._iota_start(index, steps, indices) for index, steps in self.iotas.items()}
        held = self._held(bases)
        inner, width = self.extents[-1], self._width()
        whole = inner // width * width
        self.text.loop(whole, lambda i: self._body(i, width, bases, starts, held), width)
        if whole < inner:
            self._body(str(whole), inner - whole, bases, starts, held)

    def _address(self, access: Access, strides: list[int], indices: list[str]) -> str:
        text = self.text
        offset = str(access.base) if access.offset == "0" else text.let(f"add i64 {access.offset}, {access.base}")
        for stride, index in zip(strides, indices, strict=False):
            if stride and index != "0":
                offset = text.let(f"add i64 {offset}, {text.let(f'mul i64 {index}, {stride}')}")
        return text.let(f"getelementptr i8, ptr %scratchpad, i64 {offset}")

    def _iota_start(self, index: int, steps: list[tuple[str, int]], indices: list[str]) -> str:
        text = self.text
        total = self.group.steps[index].registers[0]
        for (ref, times), position in zip(steps, indices, strict=False):
            if ref != "0" and times and position != "0":
                product = text.let(f"mul i64 {text.let(f'mul i64 {position}, {times}')}, {ref}")
                total = text.let(f"add i64 {total}, {product}")
        return total

    def _held(self, bases: dict[tuple[int, str], str]) -> dict[tuple[int, str], str]:
        """Elements that do not change along the inner dimension, read before the inner loop."""
        held = {}
        for index, name, access, strides in self.accesses:
            if name != "result" and strides[-1] == 0:
                memory_type = MEMORY_TYPE[access.dtype]
                held[(index, name)] = self.text.let(f"load {memory_type}, ptr {bases[(index, name)]}, align 1")
        return held

    def _body(
        self,
        position: str,
        width: int,
        bases: dict[tuple[int, str], str],
        starts: dict[int, str],
        held: dict[tuple[int, str], str],
    ) -> None:
        builder = LlvmBuilder(self.text, width)
        strides_of = {(index, name): strides[-1] for index, name, _, strides in self.accesses}
        results: list[Value] = []
        for index, step in enumerate(self.group.steps):
            values: dict[str, Value] = {}
            for name, operand in step.operands.items():
                if name == "result":
                    continue
                place = (index, name)
                if isinstance(operand, Scalar):
                    values[name] = scalar_value(builder, operand)
                elif place in self.group.forwards:
                    writer = self.group.forwards[place]
                    values[name] = reread(builder, results[writer], self.group.steps[writer].result.dtype, operand.dtype)
                elif place in held:
                    values[name] = from_memory(
                        builder, operand.dtype, builder.splat_memory(operand.dtype, held[place])
                    )
                else:
                    raw = load_vector(builder, operand.dtype, bases[place], position, strides_of[place])
                    values[name] = from_memory(builder, operand.dtype, raw)
            if step.registers:
                result = self._iota(builder, index, position, starts[index])
            else:
                result = apply(builder, step.item, values)
            results.append(result)
            place = (index, "result")
            if place in bases:
                raw = to_memory(builder, step.result.dtype, result)
                store_vector(builder, step.result.dtype, raw, bases[place], position, strides_of[place])

    def _iota(self, builder: LlvmBuilder, index: int, position: str, start: str) -> Value:
        text = self.text
        dtype = self.group.steps[index].result.dtype
        kind = INTEGER_OF_BITS[dtype.bits]
        ref, times = self.iotas[index][-1]
        if ref == "0" or not times:
            first, step = start, "0"
        else:
            step = text.let(f"mul i64 {ref}, {times}")
            first = text.let(f"add i64 {start}, {text.let(f'mul i64 {step}, {position}')}")
        scalars = []
        for value in (first, step):
            if kind is not Kind.I64 and value.startswith("%"):
                value = text.let(f"trunc i64 {value} to {TYPE_OF_KIND[kind]}")
            scalars.append(Value(kind, builder.splat(kind, value)))
        lanes = Value(kind, lane_numbers(builder, kind))
        result = builder.add(scalars[0], builder.mul(scalars[1], lanes))
        if dtype is DType.I1:
            return builder.ne(builder.and_(result, builder.constant(kind, 1)), builder.constant(kind, 0))
        return result


def lane_numbers(builder: LlvmBuilder, kind: Kind) -> str:
    if builder.width == 1:
        return "0"
    wrap = 1 << (kind.bits - 1)
    assert builder.width <= wrap
    return "<" + ", ".join(f"{TYPE_OF_KIND[kind]} {lane}" for lane in range(builder.width)) + ">"


def scalar_value(builder: LlvmBuilder, operand: Scalar) -> Value:
    """The low bits of a register, as an element of the operand's type, in every lane."""
    text, dtype, ref = builder.text, operand.dtype, operand.ref
    kind = KIND_OF_DTYPE[dtype]
    if dtype is DType.I1:
        low = text.let(f"trunc i64 {ref} to i8")
        return Value(kind, builder.splat(kind, text.let(f"icmp ne i8 {low}, 0")))
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
    """What reading gives after writing `value`, without memory in between."""
    if written is read or KIND_OF_DTYPE[written] is KIND_OF_DTYPE[read]:
        return value
    if written is DType.I1:
        return builder.zero_extend(value, Kind.I8)
    if read is DType.I1:
        return builder.ne(value, builder.constant(Kind.I8, 0))
    return builder.bitcast(value, KIND_OF_DTYPE[read])


def apply(builder: LlvmBuilder, item: Instruction, values: dict[str, Value]) -> Value:
    """The elementwise instruction's function on its operands' values."""
    match item:
        case isa.Convert():
            return functions.convert(
                builder, values["a"], item.dtype, item.result_dtype, item.unsigned, item.rounding
            )
        case _:
            meaning = functions.MEANING[item.function]  # type: ignore[attr-defined]
            return meaning(builder, item.dtype, *(values[n] for n in "abc" if n in values))  # type: ignore[attr-defined, no-any-return]


def memory_vector(builder: LlvmBuilder, dtype: DType) -> str:
    scalar = MEMORY_TYPE[dtype]
    return scalar if builder.width == 1 else f"<{builder.width} x {scalar}>"


def _at(builder: LlvmBuilder, base: str, position: str, stride: int) -> str:
    if position == "0" or stride == 0:
        return base
    text = builder.text
    offset = text.let(f"mul i64 {position}, {stride}") if position.startswith("%") else str(int(position) * stride)
    return text.let(f"getelementptr i8, ptr {base}, i64 {offset}")


def _lane_addresses(builder: LlvmBuilder, address: str, stride: int) -> str:
    lanes = ", ".join(f"i64 {lane * stride}" for lane in range(builder.width))
    return builder.text.let(f"getelementptr i8, ptr {address}, <{builder.width} x i64> <{lanes}>")


def load_vector(builder: LlvmBuilder, dtype: DType, base: str, position: str, stride: int) -> str:
    text, kind = builder.text, memory_vector(builder, dtype)
    address = _at(builder, base, position, stride)
    if builder.width == 1 or stride == dtype.size_bytes:
        return text.let(f"load {kind}, ptr {address}, align 1")
    width = builder.width
    ones = "<" + ", ".join(["i1 true"] * width + []) + ">"
    suffix = f"v{width}{MEMORY_TYPE[dtype].replace('float', 'f32').replace('double', 'f64')}"
    return text.call(
        kind,
        f"llvm.masked.gather.{suffix}.v{width}p0",
        (f"<{width} x ptr>", _lane_addresses(builder, address, stride)),
        (f"<{width} x i1>", ones),
        (kind, "poison"),
    )


def store_vector(builder: LlvmBuilder, dtype: DType, raw: str, base: str, position: str, stride: int) -> None:
    text, kind = builder.text, memory_vector(builder, dtype)
    address = _at(builder, base, position, stride)
    if builder.width == 1 or stride == dtype.size_bytes:
        text.add(f"store {kind} {raw}, ptr {address}, align 1")
        return
    width = builder.width
    if stride == 0:
        last = text.let(f"extractelement {kind} {raw}, i64 {width - 1}")
        text.add(f"store {MEMORY_TYPE[dtype]} {last}, ptr {address}, align 1")
        return
    ones = "<" + ", ".join(["i1 true"] * width) + ">"
    suffix = f"v{width}{MEMORY_TYPE[dtype].replace('float', 'f32').replace('double', 'f64')}"
    pointers = _lane_addresses(builder, address, stride)
    function = f"llvm.masked.scatter.{suffix}.v{width}p0"
    text.declarations.add(f"declare void @{function}({kind}, <{width} x ptr>, <{width} x i1>)")
    text.add(f"call void @{function}({kind} {raw}, <{width} x ptr> {pointers}, <{width} x i1> {ones})")


# ------------------------------------------------------------------------------------------------ reduce


def reduction(text: Text, step: Step) -> None:
    """One reduce instruction."""
    item = step.item
    source, result = step.operands["a"], step.result
    assert isinstance(source, Access)
    length = step.shape[3]
    dtype = source.dtype
    kept = [
        (extent, source.strides[d], result.strides[d]) for d, extent in enumerate(step.shape[:3]) if extent > 1
    ]
    meaning = functions.MEANING[item.function]  # type: ignore[attr-defined]

    def combine(builder: LlvmBuilder, a: str, b: str) -> str:
        x, y = from_memory(builder, dtype, a), from_memory(builder, dtype, b)
        return to_memory(builder, dtype, meaning(builder, dtype, x, y))

    if source.strides[3] in (dtype.size_bytes, 0) or length == 1:
        columns = None
    else:
        unit = [k for k in kept if k[1] == dtype.size_bytes]
        columns = unit[0] if unit else None
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
            _reduce_row(text, dtype, combine, from_base, source.strides[3], length, to_base)
            return
        extent, from_stride, to_stride = columns
        width = min(extent, 16)
        whole = extent // width * width

        def some(position: str, count: int) -> None:
            builder = LlvmBuilder(text, count)
            _reduce_columns(
                builder, dtype, combine, _at(builder, from_base, position, from_stride), source.strides[3], length,
                lambda raw: store_vector(builder, dtype, raw, to_base, position, to_stride),
            )

        text.loop(whole, lambda i: some(i, width), width)
        if whole < extent:
            some(str(whole), extent - whole)

    nest([])


Combine = Callable[[LlvmBuilder, str, str], str]


def _reduce_row(
    text: Text, dtype: DType, combine: Combine, base: str, stride: int, length: int, to_base: str
) -> None:
    """Partial results side by side in one vector, then folded in halves."""
    width = min(length, REDUCTION_PARTIALS)
    builder = LlvmBuilder(text, width)
    partial = load_vector(builder, dtype, base, "0", stride)
    whole, rest = length // width * width, length % width
    kind = memory_vector(builder, dtype)
    if whole > width:
        partial = _fold_loop(
            text, kind, partial, width, whole, width,
            lambda p, i: combine(builder_at(text, width), p, load_vector(builder, dtype, base, i, stride)),
        )
    if rest:
        narrow = LlvmBuilder(text, rest)
        head = _part(text, dtype, partial, width, 0, rest)
        head = combine(narrow, head, load_vector(narrow, dtype, base, str(whole), stride))
        partial = _concatenate(text, dtype, head, rest, _part(text, dtype, partial, width, rest, width), width - rest)
    while width > 1:
        half = -(-width // 2)
        pairs = width - half
        narrow = LlvmBuilder(text, pairs)
        head = combine(narrow, _part(text, dtype, partial, width, 0, pairs), _part(text, dtype, partial, width, half, width))
        if pairs < half:
            head = _concatenate(text, dtype, head, pairs, _part(text, dtype, partial, width, pairs, half), half - pairs)
        partial, width = head, half
    text.add(f"store {MEMORY_TYPE[dtype]} {partial}, ptr {to_base}, align 1")


def builder_at(text: Text, width: int) -> LlvmBuilder:
    return LlvmBuilder(text, width)


def _fold_loop(
    text: Text, kind: str, initial: str, start: int, end: int, step: int, body: Callable[[str, str], str]
) -> str:
    """for i = start, start + step, ... < end: carried = body(carried, i)"""
    before = text.block
    label, after = text.name("fold")[1:], text.name("folded")[1:]
    index, carried = text.name("i"), text.name("p")
    text.add(f"br label %{label}")
    text.label(label)
    place = len(text.lines)
    text.add("")
    text.add("")
    combined = body(carried, index)
    following = text.let(f"add nuw nsw i64 {index}, {step}")
    done = text.let(f"icmp uge i64 {following}, {end}")
    text.lines[place] = f"{index} = phi i64 [{start}, %{before}], [{following}, %{text.block}]"
    text.lines[place + 1] = f"{carried} = phi {kind} [{initial}, %{before}], [{combined}, %{text.block}]"
    text.add(f"br i1 {done}, label %{after}, label %{label}")
    text.label(after)
    return combined


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
        lanes = ", ".join(f"i32 {lane if lane < count else 'poison'}".replace("i32 poison", "i32 poison") for lane in range(width))
        part_kind = _vector_type(dtype, count)
        return text.let(f"shufflevector {part_kind} {part}, {part_kind} poison, <{width} x i32> <{lanes}>")

    lanes = ", ".join(f"i32 {lane if lane < a_width else width + lane - a_width}" for lane in range(width))
    return text.let(
        f"shufflevector {kind} {stretched(a, a_width)}, {kind} {stretched(b, b_width)}, <{width} x i32> <{lanes}>"
    )


def _reduce_columns(
    builder: LlvmBuilder,
    dtype: DType,
    combine: Combine,
    base: str,
    stride: int,
    length: int,
    finish: Callable[[str], None],
) -> None:
    """Many rows at a time, a row per lane; partial results lie in memory."""
    text, width = builder.text, builder.width
    kind = memory_vector(builder, dtype)
    partials = min(length, REDUCTION_PARTIALS)
    size = width * dtype.size_bytes

    def partial(index: str) -> str:
        return text.let(f"getelementptr i8, ptr %partials, i64 {text.let(f'mul i64 {index}, {size}')}")

    def source(index: str) -> str:
        return text.let(f"getelementptr i8, ptr {base}, i64 {text.let(f'mul i64 {index}, {stride}')}")

    def load(address: str) -> str:
        return text.let(f"load {kind}, ptr {address}, align 1")

    def first(j: str) -> None:
        total = load(source(j))
        turns = length // partials
        if turns > 1:
            def step(carried: str, i: str) -> str:
                place = text.let(f"add i64 {i}, {j}")
                return combine(LlvmBuilder(text, width), carried, load(source(place)))

            total = _fold_loop(text, kind, total, partials, turns * partials, partials, step)
        text.add(f"store {kind} {total}, ptr {partial(j)}, align 1")

    text.loop(partials, first)

    def into(j: str, other: Callable[[str], str]) -> None:
        here = partial(j)
        combined = combine(LlvmBuilder(text, width), load(here), load(other(j)))
        text.add(f"store {kind} {combined}, ptr {here}, align 1")

    rest = length % partials
    if rest:
        start = length - rest
        text.loop(rest, lambda j: into(j, lambda j: source(text.let(f"add i64 {j}, {start}"))))
    while partials > 1:
        half = -(-partials // 2)
        text.loop(partials - half, lambda j, h=half: into(j, lambda j: partial(text.let(f"add i64 {j}, {h}"))))
        partials = half
    finish(load("%partials"))
