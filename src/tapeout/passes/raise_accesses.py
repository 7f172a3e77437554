"""Loads and stores through tiles of pointers become accesses a DMA engine understands.

Takes a structured kernel; gives one in which `tt.load`, `tt.store` (and atomics) are `tile.load`, `tile.store`,
`tile.atomic` with an `Access`: a scalar base address, a stride per dimension, bounds per dimension taken from the mask,
and only where the address or the mask is not affine, an index tile or a mask tile. Index arithmetic that this leaves
unused is removed by the next pass.

An integer tile is followed as a `Form`: base + sum(coefficient_d * i_d) + residual, base and coefficients scalar, the
residual a tile as small as broadcasting allows. Index arithmetic is taken not to overflow (as Triton itself assumes).
A pointer tile carried by a loop that moves by a scalar each time is replaced by a carried scalar offset.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from tapeout.numerics.dtypes import DType
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value, make

Scalar = int | Value
I64 = Type(DType.I64)
_UNIFORM_OPERATIONS = {
    "arith.divsi", "arith.remsi", "arith.divui", "arith.remui", "arith.andi", "arith.ori", "arith.xori", "arith.shli",
    "arith.shrsi", "arith.shrui", "arith.minsi", "arith.maxsi", "arith.minui", "arith.maxui",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """base + sum(terms[d] * i_d) + residual. For a pointer tile, `pointer` is its scalar origin and the rest counts
    elements."""

    base: Scalar
    terms: dict[int, Scalar] = field(default_factory=dict)
    residual: Value | None = None
    pointer: Value | None = None

    @property
    def is_uniform(self) -> bool:
        return not self.terms and self.residual is None


@dataclass(frozen=True)
class Access:
    """Location of a tile in HBM. Element i is at base + sum(i_d * strides_bytes[d]) (+ index[i] * scale_bytes) and is
    touched if low[d] <= i_d < high[d] (None: no bound) and mask[i]. `fill` is what an untouched element loads as.
    `root` is the kernel parameter the address derives from, if known."""

    base: Scalar
    strides_bytes: tuple[Scalar, ...]
    low: tuple[Scalar | None, ...]
    high: tuple[Scalar | None, ...]
    fill: Value | None = None
    index: Value | None = None
    scale_bytes: int = 0
    mask: Value | None = None
    root: Value | None = None

    def values(self) -> list[Value]:
        parts = [self.base, *self.strides_bytes, *self.low, *self.high, self.fill, self.index, self.mask]
        return [part for part in parts if isinstance(part, Value)]


@dataclass
class _Mask:
    """A conjunction: per-dimension bounds, and tiles for the rest."""

    low: dict[int, list[Scalar]] = field(default_factory=dict)
    high: dict[int, list[Scalar]] = field(default_factory=dict)
    uniform: list[Value] = field(default_factory=list)
    tiles: list[Value] = field(default_factory=list)

    def __and__(self, other: "_Mask") -> "_Mask":
        def merge(a: dict[int, list[Scalar]], b: dict[int, list[Scalar]]) -> dict[int, list[Scalar]]:
            return {d: a.get(d, []) + b.get(d, []) for d in {**a, **b}}

        return _Mask(
            merge(self.low, other.low),
            merge(self.high, other.high),
            self.uniform + other.uniform,
            self.tiles + other.tiles,
        )

    def moved(self, dimension: Any) -> "_Mask":
        return _Mask(
            {dimension(d): b for d, b in self.low.items()},
            {dimension(d): b for d, b in self.high.items()},
            self.uniform,
            self.tiles,
        )


class _Raiser:
    """Rewrites one region at a time; `out` is the list operations are appended to."""

    def __init__(self) -> None:
        self.forms: dict[Value, Form] = {}
        self.masks: dict[Value, _Mask] = {}
        self.splats: dict[Value, Value] = {}
        self.out: list[Operation] = []
        self.location = ""
        self.roots: dict[Value, Value] = {}

    # ------------------------------------------------------------------ scalar arithmetic, folded where constant

    def emit(self, name: str, operands: list[Value], type: Type, attributes: dict[str, Any] | None = None) -> Value:
        operation = make(name, operands, [type], attributes, self.location)
        self.out.append(operation)
        return operation.result

    def value(self, scalar: Scalar) -> Value:
        return self.emit("arith.constant", [], I64, {"value": scalar}) if isinstance(scalar, int) else scalar

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        if b == 0:
            return a
        return self.emit("arith.addi", [self.value(a), self.value(b)], I64)

    def subtract(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if b == 0:
            return a
        if a is b:
            return 0
        return self.emit("arith.subi", [self.value(a), self.value(b)], I64)

    def multiply(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        if b == 1:
            return a
        return self.emit("arith.muli", [self.value(a), self.value(b)], I64)

    def smallest(self, values: list[Scalar], name: str) -> Scalar:
        result = values[0]
        for value in values[1:]:
            if isinstance(result, int) and isinstance(value, int):
                result = min(result, value) if name == "arith.minsi" else max(result, value)
            else:
                result = self.emit(name, [self.value(result), self.value(value)], I64)
        return result

    # ------------------------------------------------------------------ forms

    def form(self, value: Value) -> Form:
        if value in self.forms:
            return self.forms[value]
        if not value.type.shape:
            return Form(0, pointer=value) if value.type.pointee else Form(value)
        return Form(0, residual=value)

    def is_opaque(self, value: Value) -> bool:
        return self.form(value).residual is value

    def add_residuals(self, a: Value | None, b: Value | None, subtract: bool = False) -> Value | None:
        if b is None:
            return a
        if a is None:
            if not subtract:
                return b
            zero = self.emit("arith.constant", [], b.type, {"value": 0})
            return self.emit("arith.subi", [zero, b], b.type)
        shape = tuple(max(x, y) for x, y in zip(a.type.shape, b.type.shape, strict=True))
        dtype = max(a.type.dtype, b.type.dtype, key=lambda d: d.bits)
        operands = [self.broadcast(self.widen(v, dtype), shape) for v in (a, b)]
        return self.emit("arith.subi" if subtract else "arith.addi", operands, Type(dtype, shape))

    def widen(self, value: Value, dtype: DType) -> Value:
        if value.type.dtype is dtype:
            return value
        return self.emit("arith.extsi", [value], Type(dtype, value.type.shape))

    def broadcast(self, value: Value, shape: tuple[int, ...]) -> Value:
        return value if value.type.shape == shape else self.emit("tt.broadcast", [value], value.type.with_shape(shape))

    def combine(self, a: Form, b: Form, subtract: bool) -> Form:
        merge = self.subtract if subtract else self.add
        terms = dict(a.terms)
        for dimension, coefficient in b.terms.items():
            terms[dimension] = merge(terms.get(dimension, 0), coefficient)
        terms = {d: c for d, c in terms.items() if c != 0}
        residual = self.add_residuals(a.residual, b.residual, subtract)
        return Form(merge(a.base, b.base), terms, residual, a.pointer)

    def scale(self, a: Form, factor: Scalar) -> Form:
        residual = a.residual
        if residual is not None and factor != 1:
            splat = self.emit("tt.splat", [self.value(factor)], Type(DType.I64, residual.type.shape))
            residual = self.emit("arith.muli", [self.widen(residual, DType.I64), splat], splat.type)
        terms = {d: self.multiply(c, factor) for d, c in a.terms.items()}
        return Form(self.multiply(a.base, factor), {d: c for d, c in terms.items() if c != 0}, residual)

    def derive_form(self, operation: Operation) -> Form | None:
        """The form of an operation's integer or pointer tile, or None if it is just itself."""
        name, operands, result = operation.name, operation.operands, operation.result
        if not result.type.shape:
            return None
        if name == "tt.make_range":
            return Form(operation.attributes["start"], {0: 1})
        if name == "arith.constant":
            constant = operation.attributes["value"]
            return Form(constant) if isinstance(constant, int) else None
        if name == "tt.splat":
            return self.form(operands[0])
        if name == "tt.bitcast" and operands[0].type.pointee and result.type.pointee:
            same_size = operands[0].type.pointee.size_bytes == result.type.pointee.size_bytes
            return self.form(operands[0]) if same_size and not self.is_opaque(operands[0]) else None
        if name == "tt.addptr":
            origin, offset = self.form(operands[0]), self.form(operands[1])
            if origin.pointer is None:
                return None
            return self.combine(origin, offset, subtract=False)
        if name in ("arith.addi", "arith.subi"):
            a, b = (self.form(o) for o in operands)
            if a.residual is operands[0] and b.residual is operands[1]:
                return None
            return self.combine(a, b, name == "arith.subi")
        if name == "arith.muli":
            a, b = (self.form(o) for o in operands)
            if b.is_uniform and not self.is_opaque(operands[0]):
                return self.scale(a, b.base)
            if a.is_uniform and not self.is_opaque(operands[1]):
                return self.scale(b, a.base)
            return None
        if name == "arith.extsi" and operands[0].type.dtype is not DType.I1:
            return None if self.is_opaque(operands[0]) else self.form(operands[0])
        if name in _UNIFORM_OPERATIONS:
            a, b = (self.form(o) for o in operands)
            if a.is_uniform and b.is_uniform and a.pointer is None:
                if isinstance(a.base, int) and isinstance(b.base, int):
                    return None
                return Form(self.emit(name, [self.value(a.base), self.value(b.base)], Type(result.type.dtype)))
            return None
        if name in ("tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape"):
            return self.reshaped_form(operation)
        return None

    def reshaped_form(self, operation: Operation) -> Form | None:
        source, result = operation.operands[0], operation.result
        form = self.form(source)
        opaque = self.is_opaque(source)
        if operation.name == "tt.broadcast":
            return form
        if operation.name == "tt.reshape":
            if opaque or form.residual is not None or len(source.type.shape) != 1:
                return None
            coefficient = form.terms.get(0)
            if coefficient is None:
                return form
            terms, step = {}, 1
            for dimension in reversed(range(len(result.type.shape))):
                if result.type.shape[dimension] > 1:
                    terms[dimension] = self.multiply(coefficient, step)
                step *= result.type.shape[dimension]
            return Form(form.base, terms, None, form.pointer)
        if operation.name == "tt.expand_dims":
            axis = operation.attributes["axis"]
            move = {d: d if d < axis else d + 1 for d in range(len(source.type.shape))}
        else:
            order = operation.attributes["order"]
            move = {old: new for new, old in enumerate(order)}
        residual = form.residual
        if opaque:
            residual = result
        elif residual is not None:
            shape = list(residual.type.shape)
            if operation.name == "tt.expand_dims":
                shape.insert(operation.attributes["axis"], 1)
            else:
                shape = [shape[old] for old in operation.attributes["order"]]
            residual = self.emit(
                operation.name, [residual], residual.type.with_shape(tuple(shape)), operation.attributes
            )
        return Form(form.base, {move[d]: c for d, c in form.terms.items()}, residual, form.pointer)

    # ------------------------------------------------------------------ masks

    def mask(self, value: Value) -> _Mask:
        if value in self.masks:
            return self.masks[value]
        return _Mask(tiles=[value]) if value.type.shape else _Mask(uniform=[value])

    def derive_mask(self, operation: Operation) -> _Mask | None:
        name, operands = operation.name, operation.operands
        if operation.result.type.dtype is not DType.I1:
            return None
        if name == "arith.constant":
            return _Mask() if operation.attributes["value"] in (1, -1) else None
        if name == "tt.splat":
            return _Mask(uniform=[operands[0]])
        if name == "arith.andi":
            return self.mask(operands[0]) & self.mask(operands[1])
        if not operation.result.type.shape:
            return None
        if name == "tt.broadcast":
            return self.mask(operands[0])
        if name == "tt.expand_dims":
            axis, source = operation.attributes["axis"], self.mask(operands[0])
            if source.tiles == [operands[0]]:
                return None
            moved = source.moved(lambda d: d if d < axis else d + 1)
            moved.tiles = [self.emit(name, [t], _expanded(t.type, axis), {"axis": axis}) for t in source.tiles]
            return moved
        if name == "arith.cmpi":
            return self.compare(operation)
        return None

    def compare(self, operation: Operation) -> _Mask | None:
        predicate = operation.attributes["words"][0]
        left, right = (self.form(o) for o in operation.operands)
        if left.residual is not None or right.residual is not None or left.pointer or right.pointer:
            return None
        if predicate not in ("slt", "sle", "sgt", "sge"):
            return None
        if predicate in ("sgt", "sge"):
            left, right = right, left
        terms = dict(left.terms)
        for dimension, coefficient in right.terms.items():
            terms[dimension] = self.subtract(terms.get(dimension, 0), coefficient)
        terms = {d: c for d, c in terms.items() if c != 0}
        if not terms:
            operands = [self.value(left.base), self.value(right.base)]
            return _Mask(
                uniform=[self.emit("arith.cmpi", operands, Type(DType.I1), {"words": [predicate.replace("g", "l")]})]
            )
        if len(terms) > 1:
            return None
        ((dimension, coefficient),) = terms.items()
        if not isinstance(coefficient, int) or abs(coefficient) & (abs(coefficient) - 1):
            return None
        bits, extent = operation.operands[0].type.dtype.bits, operation.result.type.shape[dimension]
        if abs(coefficient) * extent >= 1 << (bits - 1):
            return None  # may wrap in the kernel's own arithmetic, which only the vector engine follows
        # coefficient * i < distance, where "<=" is "<" a distance larger by one
        distance = self.subtract(right.base, left.base)
        if predicate in ("sle", "sge"):
            distance = self.add(distance, 1)
        if coefficient > 0:
            return _Mask(high={dimension: [self.shift(self.add(distance, coefficient - 1), coefficient)]})
        # i > distance / coefficient, i.e. i >= floor(-distance / |coefficient|) + 1
        quotient = self.shift(self.subtract(0, distance), -coefficient)
        return _Mask(low={dimension: [self.add(quotient, 1)]})

    def shift(self, value: Scalar, divisor: int) -> Scalar:
        """floor(value / divisor) for a power of two."""
        if divisor == 1:
            return value
        bits = divisor.bit_length() - 1
        if isinstance(value, int):
            return value >> bits
        return self.emit("arith.shrsi", [value, self.value(bits)], I64)

    # ------------------------------------------------------------------ accesses

    def access(self, pointer: Value, mask: Value | None, other: Value | None) -> Access:
        form, pointee = self.form(pointer), pointer.type.pointee
        assert pointee is not None
        size, shape = pointee.size_bytes, pointer.type.shape
        conditions = self.mask(mask) if mask is not None else _Mask()
        base: Scalar = 0
        strides: tuple[Scalar, ...] = (0,) * len(shape)
        scale, root = 1, None  # a residual of addresses
        if form.pointer is not None:
            base = self.add(form.pointer, self.multiply(form.base, size))
            strides = tuple(self.multiply(form.terms.get(d, 0), size) for d in range(len(shape)))
            scale, root = size, self.root(form.pointer)
        low = [
            self.smallest(conditions.low[d], "arith.maxsi") if d in conditions.low else None for d in range(len(shape))
        ]
        high = [
            self.smallest(conditions.high[d], "arith.minsi") if d in conditions.high else None
            for d in range(len(shape))
        ]
        for condition in conditions.uniform:
            zero_or_one = self.emit("tile.extend", [condition], I64)
            if not shape:
                high.append(zero_or_one)
            elif high[0] is None:
                high[0] = self.multiply(zero_or_one, shape[0])
            else:
                high[0] = self.emit("arith.muli", [self.value(high[0]), zero_or_one], I64)
        if not shape and len(high) > 1:
            high = [self.smallest(high, "arith.minsi")]  # type: ignore[arg-type]
        tile = None
        for part in conditions.tiles:
            if tile is None:
                tile = part
            else:
                both = tuple(max(x, y) for x, y in zip(tile.type.shape, part.type.shape, strict=True))
                tile = self.emit(
                    "arith.andi", [self.broadcast(tile, both), self.broadcast(part, both)], Type(DType.I1, both)
                )
        return Access(base, strides, tuple(low), tuple(high), other, form.residual, scale, tile, root)

    def root(self, pointer: Value) -> Value | None:
        while pointer.owner is not None and pointer.owner.name in ("tt.addptr", "tt.bitcast", "arith.addi"):
            pointer = pointer.owner.operands[0]
        return pointer if pointer.owner is None and pointer.type.pointee else None

    # ------------------------------------------------------------------ regions

    def rewrite_block(self, operations: list[Operation]) -> list[Operation]:
        outer, self.out = self.out, []
        for operation in operations:
            self.location = operation.location or self.location
            self.rewrite(operation)
        result, self.out = self.out, outer
        return result

    def rewrite(self, operation: Operation) -> None:
        name, operands = operation.name, operation.operands
        if name == "tt.load":
            mask = operands[1] if len(operands) > 1 else None
            other = operands[2] if len(operands) > 2 else None
            access = self.access(operands[0], mask, other)
            attributes: dict[str, Any] = {"access": access, "masked": mask}
            if operation.attributes.get("isVolatile"):
                attributes["volatile"] = True
            if mask is not None and other is not None and not self.is_constant_like(other):
                self.blend(operation, access, mask, other)
            else:
                self.take_over(operation, "tile.load", access.values(), attributes)
            return
        if name == "tt.store":
            access = self.access(operands[0], operands[2] if len(operands) > 2 else None, None)
            self.take_over(operation, "tile.store", [operands[1], *access.values()], {"access": access})
            return
        if name in ("tt.atomic_rmw", "tt.atomic_cas"):
            mask_position = 2 if name == "tt.atomic_rmw" else 3
            mask = operands[mask_position] if len(operands) > mask_position else None
            access = self.access(operands[0], mask, None)
            values = operands[1:mask_position]
            more = {"access": access, "value_count": len(values)}
            self.take_over(operation, "tile.atomic", [*values, *access.values()], operation.attributes | more)
            return
        if name == "scf.for":
            self.rewrite_for(operation)
            return
        if operation.regions and name in ("scf.if", "scf.while"):
            regions = [
                Region([Block(r.block.arguments, self.rewrite_block(r.block.operations))]) for r in operation.regions
            ]
            self.take_over(operation, name, operands, operation.attributes, regions)
            return
        if name == "tile.alias" and operation.result.type.shape:
            self.forms[operation.result] = self.form(operands[0])
        self.out.append(operation)
        if len(operation.results) == 1 and not operation.result.type.is_float:
            form = self.derive_form(operation)
            if form is not None:
                self.forms[operation.result] = form
            condition = self.derive_mask(operation)
            if condition is not None:
                self.masks[operation.result] = condition

    def take_over(
        self,
        operation: Operation,
        name: str,
        operands: list[Value],
        attributes: dict[str, Any],
        regions: list[Region] | None = None,
    ) -> None:
        """Emits an operation that yields what the given one yielded."""
        made = Operation(name, operands, operation.results, attributes, regions or [], operation.location)
        self.out.append(made.own_results())

    def is_constant_like(self, value: Value) -> bool:
        """Return whether one scalar fills the whole tile."""
        while value.owner is not None and value.owner.name in ("tt.broadcast", "tt.expand_dims", "tt.reshape"):
            value = value.owner.operands[0]
        if not value.type.shape:
            return True
        owner = value.owner
        return owner is not None and (
            owner.name == "tt.splat" or (owner.name == "arith.constant" and isinstance(owner.attributes["value"], int))
        )

    def blend(self, operation: Operation, access: Access, mask: Value, other: Value) -> None:
        """A load whose replacement for masked-out elements is itself a tile: load, then select."""
        plain = replace(access, fill=None)
        loaded = self.emit("tile.load", plain.values(), operation.result.type, {"access": plain, "masked": mask})
        self.take_over(operation, "arith.select", [mask, loaded, other], {})

    def rewrite_for(self, operation: Operation) -> None:
        """Carried integer and pointer tiles that keep their form but for a scalar get that scalar carried instead."""
        body = operation.regions[0].block
        initial = operation.operands[3:]
        arguments = body.arguments[1:]
        candidates = [
            k
            for k, value in enumerate(initial)
            if value.type.shape
            and not value.type.is_float
            and value.type.dtype is not DType.I1
            and not self.is_opaque(value)
        ]
        while True:
            offsets = {k: Value(I64) for k in candidates}
            saved = dict(self.forms), dict(self.masks)
            outer, self.out = self.out, []
            for k in candidates:
                start = self.form(initial[k])
                self.forms[arguments[k]] = replace(start, base=self.add(start.base, offsets[k]))
            head, self.out = self.out, outer
            operations = self.rewrite_block(body.operations)
            terminator = operations[-1]
            kept = [k for k in candidates if _same_but_base(self.form(terminator.operands[k]), self.form(initial[k]))]
            if kept == candidates:
                break
            self.forms, self.masks = saved
            candidates = kept
        outer, self.out = self.out, []
        steps = [
            self.value(self.subtract(self.form(terminator.operands[k]).base, self.form(initial[k]).base))
            for k in candidates
        ]
        tail, self.out = self.out, outer
        yielded = Operation("scf.yield", [*terminator.operands, *steps], [], {}, [], terminator.location)
        block = Block([*body.arguments, *(offsets[k] for k in candidates)], head + operations[:-1] + tail + [yielded])
        zeros = [self.value(0) for _ in candidates]
        made = Operation(
            "scf.for", [*operation.operands, *zeros], [], operation.attributes, [Region([block])], operation.location
        )
        made.results = [*operation.results, *(Value(I64) for _ in candidates)]
        self.out.append(made.own_results())
        for position, k in enumerate(candidates):
            start = self.form(initial[k])
            moved = made.results[len(operation.results) + position]
            self.forms[operation.results[k]] = replace(start, base=self.add(start.base, moved))


def _expanded(type: Type, axis: int) -> Type:
    return type.with_shape((*type.shape[:axis], 1, *type.shape[axis:]))


def _same_but_base(a: Form, b: Form) -> bool:
    return a.terms == b.terms and a.residual is b.residual and a.pointer is b.pointer


def raise_accesses(kernel: Kernel) -> Kernel:
    raiser = _Raiser()
    body = kernel.body.block
    operations = raiser.rewrite_block(body.operations)
    return replace(kernel, body=Region([Block(body.arguments, operations)]))
