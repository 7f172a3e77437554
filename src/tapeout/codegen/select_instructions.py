"""Tile IR to machine code: every operation becomes instructions over virtual registers and buffers.

Takes a kernel whose accesses are raised; gives `machine` nodes. Integer and pointer scalars live in registers of the
sequencer; floating-point scalars and everything computed from tiles live in the scratchpad, a scalar as a tile of one
element. Operations that only rearrange (broadcast, transpose, expand, reshape of contiguous tiles, split, bitcast)
cost nothing: they change the access pattern. A tile carried by a loop has one buffer; the operation that computes its
next value writes there directly when the old value is no longer needed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tapeout.chip import Chip
from tapeout.codegen.access_patterns import aligned, aligned_to, pieces, reshaped_strides, slice_of
from tapeout.codegen.engine_functions import (
    ATOMICS,
    BINARY,
    CASTS,
    COMPARE_FLOAT,
    COMPARE_INTEGER,
    INTEGER_BINARY,
    MATRIX_OPERANDS,
    REARRANGING,
    RENAMES,
    UNARY,
    binary_function,
)
from tapeout.codegen.machine import (
    ANYWHERE,
    Branch,
    Buffer,
    Constants,
    Instr,
    Loop,
    Node,
    Place,
    Register,
    View,
    contiguous,
)
from tapeout.errors import InternalError, UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, MAX_EXTENT
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTIONS, AtomicFunction, Function, Rounding
from tapeout.passes.raise_accesses import Access
from tapeout.tile.ir import DEFAULT_STAGES, Kernel, Operation, Region, Type, Value, walk

MOST_STAGES = 8
MOST_BYTES_OF_AN_INDEX = (1 << 16) - 1
"""Units that an index may count in an access to HBM, which gathers from large tiles become."""
Tile = View | Register
"""A tile (or scalar) as an operand: in the scratchpad, or one register value everywhere."""


class Selector:
    """Walks the kernel once; `code` is the list nodes are appended to."""

    def __init__(self, kernel: Kernel, chip: Chip) -> None:
        self.kernel = kernel
        self.chip = chip
        self.bindings: dict[Value, Tile] = {}
        self.code: list[Node] = []
        self.location = ""
        self.constant = Constants()
        self.destinations: dict[Value, View] = {}
        self.combine_shape: tuple[int, ...] | None = None
        self.order_free = True
        self.messages: list[str] = []
        self.use_counts = Counter(operand for operation in walk(kernel.body) for operand in operation.operands)
        self.computed_here: set[Value] = set()

    # ------------------------------------------------------------------ small tools

    def unsupported(self, operation: str, dtype: DType | None = None, hint: str | None = None) -> UnsupportedError:
        where = f"{self.location} in kernel {self.kernel.name}" if self.location else f"kernel {self.kernel.name}"
        return UnsupportedError(operation, dtype=dtype.label if dtype else None, where=where, hint=hint)

    def emit(self, kind: Any, memory: object = None, **fields: Any) -> None:
        self.code.append(Instr(kind, fields, self.location, memory))

    def new_view(self, dtype: DType, shape: tuple[int, ...]) -> View:
        size = dtype.size_bytes
        for extent in shape:
            size *= extent
        return View(Buffer(size), 0, contiguous(shape), shape, dtype)

    def check_dtype(self, dtype: DType) -> None:
        if dtype is DType.F64 and not self.chip.core.vector.float64:
            raise self.unsupported(
                "float64 arithmetic", hint=f"chip {self.chip.name} has no float64 in its vector engine"
            )

    def shape_of(self, type: Type) -> tuple[int, ...]:
        return self.combine_shape if self.combine_shape is not None else type.shape

    def result_view(self, value: Value) -> View:
        if value in self.destinations and self.combine_shape is None:
            return self.destinations[value]
        return self.new_view(value.type.dtype, self.shape_of(value.type))

    def place(self, tile: Tile, dtype: DType, offset: int, strides: tuple[int, ...]) -> Place | Register:
        if isinstance(tile, Register):
            return tile
        return Place(tile.buffer, (tile.offset + offset) * dtype.size_bytes, strides)

    def vector(self, kind: Any, shape: tuple[int, ...], operands: dict[str, tuple[Tile, DType]], **fields: Any) -> None:
        """Emits a vector instruction over `shape`, cut into as many as its limits ask for."""
        zero = (0,) * len(shape)
        strides = [
            zero if isinstance(tile, Register) else aligned(tile.strides, shape) for tile, _ in operands.values()
        ]
        for extents, offsets, piece_strides in pieces(shape, strides):
            places = {
                name: self.place(tile, dtype, offset, own)
                for (name, (tile, dtype)), offset, own in zip(operands.items(), offsets, piece_strides, strict=True)
            }
            self.emit(kind, shape=extents, **places, **fields)

    def map(self, function: Function, dtype: DType, sources: list[Tile], result: View) -> View:
        self.check_dtype(dtype)
        if dtype not in function.dtypes:
            allowed = ", ".join(map(str, function.dtypes))
            raise self.unsupported(function.label, dtype, f"the vector engine computes it for {allowed}")
        kind = (isa.Map1, isa.Map2, isa.Map3)[function.arity - 1]
        operands: dict[str, tuple[Tile, DType]] = {"result": (result, function.result_dtype(dtype))}
        for name, source, source_dtype in zip("abc", sources, function.operand_dtypes(dtype), strict=False):
            operands[name] = (source, source_dtype)
        self.vector(kind, result.shape, operands, function=function, dtype=dtype)
        return result

    def compute(self, function: Function, dtype: DType, *sources: Tile, shape: tuple[int, ...]) -> View:
        """A vector function into a new tile."""
        return self.map(function, dtype, list(sources), self.new_view(function.result_dtype(dtype), shape))

    def convert(
        self,
        source: Tile,
        dtype: DType,
        result: View,
        unsigned: bool = False,
        rounding: Rounding = Rounding.NEAREST_EVEN,
    ) -> View:
        self.check_dtype(dtype)
        self.check_dtype(result.dtype)
        operands = {"result": (result, result.dtype), "a": (source, dtype)}
        self.vector(
            isa.Convert,
            result.shape,
            operands,
            dtype=dtype,
            result_dtype=result.dtype,
            unsigned=unsigned,
            rounding=rounding,
        )
        return result

    def copy(self, source: Tile, result: View) -> View:
        operands: dict[str, tuple[Tile, DType]] = {"result": (result, result.dtype), "a": (source, result.dtype)}
        self.vector(isa.Map1, result.shape, operands, function=Function.COPY, dtype=result.dtype)
        return result

    def scalar_op(self, function: Function, dtype: DType, a: Register, b: Register) -> Register:
        destination = Register()
        self.emit(isa.Scalar, destination=destination, a=a, b=b, function=function, dtype=dtype)
        return destination

    def move(self, source: Register, destination: Register) -> None:
        self.emit(
            isa.Scalar, destination=destination, a=source, b=self.constant(0), function=Function.OR, dtype=DType.I64
        )

    def multiply(self, a: Register, factor: int) -> Register:
        if a.constant is not None:
            return self.constant(a.constant * factor)
        return a if factor == 1 else self.scalar_op(Function.MUL, DType.I64, a, self.constant(factor))

    def add(self, a: Register, b: Register) -> Register:
        if a.constant is not None and b.constant is not None:
            return self.constant(a.constant + b.constant)
        if b.constant == 0:
            return a
        return self.scalar_op(Function.ADD, DType.I64, a, b)

    # ------------------------------------------------------------------ operands

    def tile(self, value: Value) -> Tile:
        return self.bindings[value]

    def register(self, value: Value | int) -> Register:
        """A scalar as a register; what lies in the scratchpad is read by the sequencer."""
        if isinstance(value, int):
            return self.constant(value)
        binding = self.bindings[value]
        if isinstance(binding, Register):
            return binding
        destination = Register()
        address = Place(binding.buffer, binding.offset * binding.dtype.size_bytes, (0,) * DIMENSIONS)
        self.emit(isa.ScalarLoad, destination=destination, address=address, dtype=binding.dtype)
        return destination

    def view(self, value: Value) -> View:
        """A tile in the scratchpad, with the strides of its type's shape."""
        binding = self.bindings[value]
        if isinstance(binding, View):
            return binding
        return self.copy(binding, self.new_view(value.type.dtype, value.type.shape))

    # ------------------------------------------------------------------ regions and operations

    def run(self) -> None:
        """The whole program: arguments, then the loop over this core's programs of the grid."""
        for index, parameter in enumerate(self.kernel.parameters):
            register = Register()
            self.emit(isa.Argument, destination=register, index=index)
            self.bindings[parameter] = register
        prologue, self.code = self.code, []
        more = Register()
        self.emit(isa.NextProgram, destination=more)
        head, self.code = self.code, []
        self.region(self.kernel.body)
        body, self.code = self.code, prologue
        self.code.append(Loop(head, more, body))

    def region(self, region: Region) -> None:
        outer, self.computed_here = self.computed_here, set()
        for operation in region.block.operations:
            if operation.name not in ("scf.yield", "scf.condition"):
                self.operation(operation)
                self.computed_here.update(operation.results)
        self.computed_here = outer

    def operation(self, operation: Operation) -> None:
        self.location = operation.location or self.location
        name = operation.name
        if name in REARRANGING:
            self.bindings[operation.result] = self.rearrange(operation)
            return
        handler = HANDLERS.get(name)
        if handler is not None:
            handler(self, operation)
            return
        if operation.results and len(operation.results) == 1:
            self.elementwise(operation)
            return
        raise self.unsupported(f"operation {name}")

    # ------------------------------------------------------------------ rearranging

    def rearrange(self, operation: Operation) -> Tile:
        source, result = operation.operands[0], operation.result
        binding = self.bindings[source]
        if operation.name in RENAMES:
            if isinstance(binding, Register):
                return binding
            if binding.dtype.size_bytes == result.type.dtype.size_bytes:
                return replace(binding, dtype=result.type.dtype)
            if result.type.shape:
                raise self.unsupported(f"{operation.name} to {result.type.dtype}", binding.dtype)
            return self.register(source)  # read in its own width
        if isinstance(binding, Register):
            return binding
        shape = result.type.shape
        name = operation.name
        if name == "tt.splat":
            return replace(binding, strides=(0,) * len(shape), shape=shape)
        if name == "tt.unsplat":
            return replace(binding, strides=(), shape=())
        if name == "tt.broadcast":
            return replace(binding, strides=aligned(binding.strides, binding.shape), shape=shape)
        if name == "tt.expand_dims":
            axis = operation.attributes["axis"]
            return replace(binding, strides=(*binding.strides[:axis], 0, *binding.strides[axis:]), shape=shape)
        if name == "tile.slice":
            axis = operation.attributes["axis"]
            return slice_of(binding, axis, operation.attributes["start"], shape[axis])
        if name == "tt.trans":
            return replace(
                binding, strides=tuple(binding.strides[d] for d in operation.attributes["order"]), shape=shape
            )
        strides = reshaped_strides(binding, shape)
        if strides is None:
            dense = self.copy(binding, self.new_view(binding.dtype, binding.shape))
            return replace(dense, strides=contiguous(shape), shape=shape)
        return replace(binding, strides=strides, shape=shape)

    # ------------------------------------------------------------------ elementwise

    def elementwise(self, operation: Operation) -> None:
        name, result = operation.name, operation.result
        scalar = not self.shape_of(result.type) and self.combine_shape is None
        if scalar and not result.type.is_float and not any(o.type.is_float for o in operation.operands):
            self.bindings[result] = self.scalar(operation)
            return
        sources = [self.tile(o) for o in operation.operands]
        dtype = operation.operands[0].type.dtype if operation.operands else result.type.dtype
        self.bindings[result] = self.compute_elementwise(operation, name, sources, dtype)

    def compute_elementwise(self, operation: Operation, name: str, sources: list[Tile], dtype: DType) -> Tile:
        result_type = operation.result.type
        shape = self.shape_of(result_type)
        out = self.result_view(operation.result)
        if name in BINARY:
            return self.map(binary_function(name, dtype), dtype, sources, out)
        if name in UNARY:
            if dtype in UNARY[name].dtypes:
                return self.map(UNARY[name], dtype, sources, out)
            raise self.unsupported(name, dtype)
        if name == "math.fma":
            return self.map(Function.FMA, dtype, sources, out)
        if name == "arith.cmpi":
            function, swapped = COMPARE_INTEGER[operation.attributes["words"][0]]
            return self.map(function, dtype, sources[::-1] if swapped else sources, out)
        if name == "arith.cmpf":
            return self.compare_floats(operation.attributes["words"][0], dtype, sources, shape, out)
        if name == "arith.select":
            return self.map(Function.SELECT, operation.operands[1].type.dtype, sources, out)
        if name == "tt.addptr":
            pointee = operation.operands[0].type.pointee
            assert pointee is not None
            offset = self.convert(sources[1], operation.operands[1].type.dtype, self.new_view(DType.I64, shape))
            scaled = self.compute(Function.MUL, DType.I64, offset, self.constant(pointee.size_bytes), shape=shape)
            return self.map(Function.ADD, DType.I64, [sources[0], scaled], out)
        if name in CASTS:
            return self.cast(operation, name, sources[0], dtype, out)
        if name == "math.absi":
            zero = self.constant(0)
            negated = self.compute(Function.SUB, dtype, zero, sources[0], shape=shape)
            return self.map(Function.MAX_SIGNED, dtype, [sources[0], negated], out)
        if name == "tt.clampf":
            nan_wins = operation.attributes["propagateNan"] == "all"
            highest, lowest = (
                (Function.MAXIMUM, Function.MINIMUM) if nan_wins else (Function.MAX_NUMBER, Function.MIN_NUMBER)
            )
            low = self.compute(highest, dtype, sources[0], sources[1], shape=shape)
            return self.map(lowest, dtype, [low, sources[2]], out)
        label = operation.attributes.get("symbol", name)
        what = f"function {label}" if label != name else f"operation {name}"
        raise self.unsupported(what, dtype)

    def compare_floats(
        self, predicate: str, dtype: DType, sources: list[Tile], shape: tuple[int, ...], out: View
    ) -> Tile:
        a, b = sources
        one = self.constant(1)
        if predicate in ("true", "false"):
            return self.copy(self.constant(int(predicate == "true")), out)
        if predicate in ("one", "ueq"):
            less = self.compute(Function.LESS, dtype, a, b, shape=shape)
            greater = self.compute(Function.LESS, dtype, b, a, shape=shape)
            if predicate == "one":
                return self.map(Function.OR, DType.I1, [less, greater], out)
            either = self.compute(Function.OR, DType.I1, less, greater, shape=shape)
            return self.map(Function.XOR, DType.I1, [either, one], out)
        if predicate in ("ord", "uno"):
            function, joint = (
                (Function.EQUAL, Function.AND) if predicate == "ord" else (Function.NOT_EQUAL, Function.OR)
            )
            first = self.compute(function, dtype, a, a, shape=shape)
            second = self.compute(function, dtype, b, b, shape=shape)
            return self.map(joint, DType.I1, [first, second], out)
        function, swapped, inverted = COMPARE_FLOAT[predicate]
        ordered = [b, a] if swapped else [a, b]
        if not inverted:
            return self.map(function, dtype, ordered, out)
        plain = self.compute(function, dtype, *ordered, shape=shape)
        return self.map(Function.XOR, DType.I1, [plain, one], out)

    def cast(self, operation: Operation, name: str, source: Tile, dtype: DType, out: View) -> Tile:
        rounding = Rounding.NEAREST_EVEN
        if out.dtype in (DType.F8E4M3, DType.F8E5M2):
            rounding = Rounding.NEAREST_EVEN_SATURATE
        if operation.attributes.get("rounding") == "rtz":
            rounding = Rounding.TOWARD_ZERO
        unsigned = name in ("arith.extui", "arith.uitofp", "arith.fptoui")
        if name == "arith.extsi" and dtype is DType.I1:  # converted, a true i1 is 1; its sign says -1
            ones = self.convert(source, dtype, self.new_view(out.dtype, out.shape))
            return self.map(Function.SUB, out.dtype, [self.constant(0), ones], out)
        return self.convert(source, dtype, out, unsigned, rounding)

    # ------------------------------------------------------------------ scalars on the sequencer

    def scalar(self, operation: Operation) -> Register:
        name, operands = operation.name, operation.operands
        dtype = operation.result.type.dtype
        if name in INTEGER_BINARY:
            a, b = (self.register(o) for o in operands)
            if a.constant is not None and b.constant is not None and dtype is DType.I64:
                folded = {Function.ADD: int.__add__, Function.SUB: int.__sub__, Function.MUL: int.__mul__}
                if INTEGER_BINARY[name] in folded:
                    return self.constant(folded[INTEGER_BINARY[name]](a.constant, b.constant))
            return self.scalar_op(binary_function(name, dtype), dtype, a, b)
        if name == "arith.cmpi":
            function, swapped = COMPARE_INTEGER[operation.attributes["words"][0]]
            a, b = (self.register(o) for o in (operands[::-1] if swapped else operands))
            return self.scalar_op(function, operands[0].type.dtype, a, b)
        if name == "arith.select":
            condition, a, b = (self.register(o) for o in operands)
            destination = Register()
            self.emit(isa.ScalarSelect, destination=destination, condition=condition, a=a, b=b)
            return destination
        if name in ("arith.extsi", "arith.extui", "arith.trunci"):
            source = self.register(operands[0])
            narrow = operands[0].type.dtype if name != "arith.trunci" else dtype
            if name == "arith.extsi" and narrow is not DType.I1:
                return source
            destination = Register()
            unsigned = name == "arith.extui" or (narrow is DType.I1 and name == "arith.trunci")
            self.emit(isa.ScalarConvert, destination=destination, a=source, dtype=narrow, unsigned=unsigned)
            return destination
        if name == "tt.addptr":
            pointee = operands[0].type.pointee
            assert pointee is not None
            offset = self.multiply(self.register(operands[1]), pointee.size_bytes)
            return self.add(self.register(operands[0]), offset)
        if name == "math.absi":
            source = self.register(operands[0])
            negated = self.scalar_op(Function.SUB, dtype, self.constant(0), source)
            return self.scalar_op(Function.MAX_SIGNED, dtype, source, negated)
        if name in ("math.ctlz", "math.ctpop"):
            return self.scalar_op(UNARY[name], dtype, self.register(operands[0]), self.constant(0))
        raise self.unsupported(f"operation {name} on {dtype} scalars")

    # ------------------------------------------------------------------ sources

    def constant_op(self, operation: Operation) -> None:
        value, result = operation.attributes["value"], operation.result
        if isinstance(value, int):
            self.bindings[result] = self.constant(value)
            return
        tile = self.new_view(result.type.dtype, result.type.shape)
        for position, element in enumerate(value):
            one = replace(tile, offset=position, strides=(), shape=())
            self.copy(self.constant(element), one)
        self.bindings[result] = tile

    def program_id(self, operation: Operation) -> None:
        axis = "xyz".index(operation.attributes["words"][0])
        kind = isa.ProgramId if operation.name == "tt.get_program_id" else isa.GridSize
        register = Register()
        self.emit(kind, destination=register, axis=axis)
        self.bindings[operation.result] = register

    def make_range(self, operation: Operation) -> None:
        out = self.result_view(operation.result)
        for extents, offsets, (strides, counts) in pieces(out.shape, [out.strides, (1,) * len(out.shape)]):
            self.emit(
                isa.Iota,
                dtype=out.dtype,
                start=self.constant(operation.attributes["start"] + offsets[1]),
                steps=tuple(self.constant(count) for count in counts),
                shape=extents,
                result=self.place(out, out.dtype, offsets[0], strides),
            )
        self.bindings[operation.result] = out

    # ------------------------------------------------------------------ memory

    def transfer(self, access: Access, tile: Tile, dtype: DType, shape: tuple[int, ...], load: bool) -> None:
        """Emits loads or stores of a tile, cut to what a descriptor holds."""
        base = self.register(access.base)
        strides = [self.register(s) for s in access.strides_bytes]
        low = [None if b is None else self.register(b) for b in access.low]
        high = [None if b is None else self.register(b) for b in access.high]
        fill = self.constant(0)
        if access.fill is not None:
            filler = self.bindings[access.fill]
            if isinstance(filler, View):
                element = replace(filler, strides=(), shape=())
                fill = Register()
                place = Place(element.buffer, element.offset * dtype.size_bytes, (0,) * DIMENSIONS)
                self.emit(isa.ScalarLoad, destination=fill, address=place, dtype=dtype)
            else:
                fill = filler
        index = None if access.index is None else self.view(access.index)
        mask = None if access.mask is None else self.view(access.mask)
        if not shape:
            shape, strides, low, high = (1,), [self.constant(0)], [None], [*high, None][:1]
            tile = tile if isinstance(tile, Register) else replace(tile, strides=(0,), shape=(1,))
            index = None if index is None else replace(index, strides=(0,), shape=(1,))
        tile_strides = (0,) * len(shape) if isinstance(tile, Register) else aligned(tile.strides, shape)
        index_strides = (0,) * len(shape) if index is None else aligned_to(index, shape)
        mask_strides = (0,) * len(shape) if mask is None else aligned_to(mask, shape)

        def descend(
            dims: list[int], base: Register, offsets: tuple[int, int, int], low: list[Any], high: list[Any]
        ) -> None:
            """`dims` are the dimensions still to run; too long ones, and the shortest beyond four, are unrolled."""
            long = next((d for d in dims if shape_now[d] > MAX_EXTENT), None)
            if long is not None:
                unroll(long, MAX_EXTENT // 2 + 1, dims, base, offsets, low, high)
                return
            if len(dims) > DIMENSIONS:
                unroll(min(dims, key=lambda d: shape_now[d]), 1, dims, base, offsets, low, high)
                return
            padding = DIMENSIONS - len(dims)
            zero = self.constant(0)

            def registers(values: list[Register | None]) -> tuple[Register, ...]:
                return (zero,) * padding + tuple(zero if values[d] is None else values[d] for d in dims)  # type: ignore[misc]

            def place(view: Tile | None, view_strides: tuple[int, ...], offset: int) -> Place | Register:
                if view is None or isinstance(view, Register):
                    return zero if view is None else view
                own = (0,) * padding + tuple(view_strides[d] for d in dims)
                return self.place(view, view.dtype, offset, own)

            fields: dict[str, Any] = {
                "dtype": dtype,
                "base": base,
                "strides": registers(list(strides)),
                "low": registers(low),
                "high": registers(_shown_bounds(high, dims, self.constant)),
                "shape": (1,) * padding + tuple(shape_now[d] for d in dims),
                "tile": place(tile, tile_strides, offsets[0]),
            }
            if load:
                fields["fill"] = fill
            kind: Any = isa.Load if load else isa.Store
            if index is not None or mask is not None:
                kind = isa.LoadIndexed if load else isa.StoreIndexed
                fields["index"] = place(index, index_strides, offsets[1])
                fields["mask"] = place(mask, mask_strides, offsets[2])
                fields["index_dtype"] = DType.I64 if index is None else index.dtype
                fields["scale"] = access.scale_bytes
            self.emit(kind, memory=access.root if access.root is not None else ANYWHERE, **fields)

        shape_now = list(shape)

        def unroll(
            d: int,
            step: int,
            dims: list[int],
            base: Register,
            offsets: tuple[int, int, int],
            low: list[Any],
            high: list[Any],
        ) -> None:
            extent = shape_now[d]
            shape_now[d] = step
            for start in range(0, extent, step):
                shifted = self.add(base, self.multiply(strides[d], start))
                new_offsets = (
                    offsets[0] + start * tile_strides[d],
                    offsets[1] + start * index_strides[d],
                    offsets[2] + start * mask_strides[d],
                )
                new_low, new_high = list(low), list(high)
                if step > 1:
                    back = self.constant(-start)
                    new_low[d] = None if low[d] is None else self.add(low[d], back)
                    new_high[d] = None if high[d] is None else self.add(high[d], back)
                    descend(dims, shifted, new_offsets, new_low, new_high)
                    continue
                rest = [x for x in dims if x != d]
                new_low[d] = new_high[d] = None
                for condition in conditions(start, low[d], high[d]):
                    end = new_high[rest[0]] or self.constant(shape[rest[0]])
                    new_high[rest[0]] = self.scalar_op(Function.MUL, DType.I64, end, condition)
                descend(rest, shifted, new_offsets, new_low, new_high)
            shape_now[d] = extent

        def conditions(index: int, low: Register | None, high: Register | None) -> Iterator[Register]:
            """Registers that are 1 if an index is within bounds, else 0."""
            here = self.constant(index)
            if low is not None:
                yield self.scalar_op(Function.LESS_EQUAL, DType.I64, low, here)
            if high is not None:
                yield self.scalar_op(Function.LESS, DType.I64, here, high)

        wanted = [d for d in range(len(shape)) if shape[d] > 1 or low[d] is not None or high[d] is not None]
        descend(wanted or [0], base, (0, 0, 0), low, high)

    def load(self, operation: Operation) -> None:
        result = operation.result
        if operation.attributes.get("volatile"):  # read for what another program may have written
            self.order_free = False
        out = self.result_view(result)
        self.transfer(operation.attributes["access"], out, result.type.dtype, result.type.shape, load=True)
        self.bindings[result] = out

    def store(self, operation: Operation) -> None:
        value = operation.operands[0]
        self.transfer(operation.attributes["access"], self.tile(value), value.type.dtype, value.type.shape, load=False)

    def atomic(self, operation: Operation) -> None:
        """Element addresses as an index tile of bytes, the whole mask as a tile."""
        access: Access = operation.attributes["access"]
        count = operation.attributes["value_count"]
        values = operation.operands[:count]
        result = operation.result
        shape, dtype = result.type.shape, result.type.dtype
        self.order_free = False
        function = AtomicFunction.COMPARE_SWAP if count == 2 else ATOMICS[operation.attributes["words"][0]]
        if dtype.is_float and function not in (
            AtomicFunction.ADD,
            AtomicFunction.EXCHANGE,
            AtomicFunction.COMPARE_SWAP,
        ):
            raise self.unsupported(f"atomic {function.label}", dtype)
        index: View = self.new_view(DType.I64, shape)
        strides = tuple(self.register(s) for s in access.strides_bytes)
        zero = self.constant(0)
        if shape and len([e for e in shape if e > 1]) > DIMENSIONS:
            raise self.unsupported(f"an atomic on a tile of {len(shape)} dimensions", hint=f"{DIMENSIONS} are possible")
        padding = DIMENSIONS - len(shape)
        self.emit(
            isa.Iota,
            dtype=DType.I64,
            start=zero,
            steps=(zero,) * padding + strides,
            shape=(1,) * padding + shape,
            result=self.place(index, DType.I64, 0, (0,) * padding + index.strides),
        )
        if access.index is not None:
            residual = self.view(access.index)
            residual = replace(residual, strides=aligned_to(residual, shape), shape=shape)
            wide = self.convert(residual, residual.dtype, self.new_view(DType.I64, shape))
            scaled = self.compute(Function.MUL, DType.I64, wide, self.constant(access.scale_bytes), shape=shape)
            index = self.compute(Function.ADD, DType.I64, index, scaled, shape=shape)
        mask: Tile = zero
        for d, (low, high) in enumerate(zip(access.low, access.high, strict=False)):
            if (low is not None or high is not None) and shape:
                mask = self.bound_mask(shape, d, low, high, mask)
        if not shape and access.high and access.high[0] is not None:
            mask = self.copy(self.register(access.high[0]), self.new_view(DType.I1, ()))
        if access.mask is not None:
            tile = self.view(access.mask)
            tile = replace(tile, strides=aligned_to(tile, shape), shape=shape)
            mask = tile if mask is zero else self.compute(Function.AND, DType.I1, mask, tile, shape=shape)
        out = self.result_view(result)
        operands: dict[str, tuple[Tile, DType]] = {
            "tile": (self.tile(values[0]), dtype),
            "other": (self.tile(values[1]) if count == 2 else zero, dtype),
            "index": (index, DType.I64),
            "mask": (mask, DType.I1),
            "previous": (out, dtype),
        }
        base = self.register(access.base)
        zeros = (0,) * len(shape)
        all_strides = [zeros if isinstance(t, Register) else aligned(t.strides, shape) for t, _ in operands.values()]
        for extents, offsets, piece_strides in pieces(shape, all_strides):
            places = {
                name: self.place(tile, own_dtype, offset, own)
                for (name, (tile, own_dtype)), offset, own in zip(operands.items(), offsets, piece_strides, strict=True)
            }
            self.emit(
                isa.Atomic,
                memory=access.root if access.root is not None else ANYWHERE,
                dtype=dtype,
                index_dtype=DType.I64,
                function=function,
                scale=1,
                base=base,
                shape=extents,
                **places,
            )
        self.bindings[result] = out

    def bound_mask(self, shape: tuple[int, ...], d: int, low: Any, high: Any, mask: Tile) -> Tile:
        """i1 tile: low <= i_d < high, joined with what is there."""
        position = self.new_view(DType.I64, (shape[d],))
        one, zero = self.constant(1), self.constant(0)
        self.emit(
            isa.Iota,
            dtype=DType.I64,
            start=zero,
            steps=(zero, zero, zero, one),
            shape=(1, 1, 1, shape[d]),
            result=self.place(position, DType.I64, 0, (0, 0, 0, 1)),
        )
        strides = tuple(1 if k == d else 0 for k in range(len(shape)))
        along = replace(position, strides=strides, shape=shape)
        for bound, swapped in ((high, False), (low, True)):
            if bound is None:
                continue
            register = self.register(bound)
            function = Function.LESS_EQUAL if swapped else Function.LESS
            operands: tuple[Tile, Tile] = (register, along) if swapped else (along, register)
            inside = self.compute(function, DType.I64, *operands, shape=shape)
            joined = isinstance(mask, View)
            mask = self.compute(Function.AND, DType.I1, mask, inside, shape=shape) if joined else inside
        return mask

    # ------------------------------------------------------------------ matrix

    def dot(self, operation: Operation) -> None:
        lhs_value, rhs_value, accumulator_value = operation.operands
        lhs, rhs = self.view(lhs_value), self.view(rhs_value)
        result = operation.result
        for dtype in (lhs.dtype, rhs.dtype):
            self.check_dtype(dtype)
        if lhs.dtype is DType.F64:
            accumulator_dtype = DType.F64
        elif lhs.dtype not in MATRIX_OPERANDS:
            raise self.unsupported("dot", lhs.dtype, f"the matrix engine takes {', '.join(map(str, MATRIX_OPERANDS))}")
        else:
            accumulator_dtype = DType.I32 if lhs.dtype is DType.I8 else DType.F32
        shape = result.type.shape
        accumulator = self.bindings[accumulator_value]
        accumulate = not (isinstance(accumulator, Register) and accumulator.constant == 0)
        if result.type.dtype is accumulator_dtype:
            out = self.result_view(result)
            if self.is_sum_for_the_next(accumulator_value) and result not in self.destinations:
                assert isinstance(accumulator, View)
                out = accumulator
            in_place = isinstance(accumulator, View) and accumulator == out
            if accumulate and not in_place:
                self.copy(accumulator, out)
        else:
            out = self.new_view(accumulator_dtype, shape)
            if accumulate:
                self.convert(accumulator, result.type.dtype, out)
        *batch, rows, columns = shape
        depth = lhs.shape[-1]
        batches = batch[0] if batch else 1

        def strides(view: View, row: int, column: int) -> tuple[int, ...]:
            own = [0] * DIMENSIONS
            if batch:
                own[0] = view.strides[0] if view.shape[0] > 1 else 0
            own[row], own[column] = aligned(view.strides[-2:], view.shape[-2:])
            return tuple(own)

        self.emit(
            isa.MatrixMultiply,
            lhs_dtype=lhs.dtype,
            rhs_dtype=rhs.dtype,
            accumulate=accumulate,
            shape=(batches, rows, columns, depth),
            accumulator=self.place(out, accumulator_dtype, 0, strides(out, 1, 2)),
            lhs=self.place(lhs, lhs.dtype, 0, strides(lhs, 1, 3)),
            rhs=self.place(rhs, rhs.dtype, 0, strides(rhs, 3, 2)),
        )
        if out.dtype is not result.type.dtype:
            out = self.convert(out, out.dtype, self.result_view(result))
        self.bindings[result] = out

    def is_sum_for_the_next(self, value: Value) -> bool:
        """Return whether a product made just here is of use to one other operation only, which may then add to it in
        place."""
        owner = value.owner
        return (
            owner is not None
            and owner.name == "tt.dot"
            and value in self.computed_here
            and self.use_counts[value] == 1
            and value not in self.destinations
        )

    # ------------------------------------------------------------------ reductions and scans

    def reduce(self, operation: Operation) -> None:
        axis = operation.attributes["axis"]
        region = operation.regions[0]
        function = _combine_function(region)
        sources = [self.view(o) for o in operation.operands]
        kept = tuple(e for d, e in enumerate(sources[0].shape) if d != axis)
        if function is not None and len(sources) == 1 and sources[0].dtype in function.dtypes:
            self.check_dtype(sources[0].dtype)
            self.bindings[operation.result] = self.reduce_simply(operation, function, sources[0], axis, kept)
            return
        extent = sources[0].shape[axis]
        current = sources
        while extent > 1:
            half = extent // 2
            parts = [[slice_of(view, axis, start, half) for view in current] for start in (0, half)]
            current = [self.dense(t) for t in self.combine(region, parts[0], parts[1], parts[0][0].shape)]
            extent = half
        for view, result in zip(current, operation.results, strict=True):
            strides = tuple(s for d, s in enumerate(view.strides) if d != axis)
            final = replace(view, strides=strides, shape=kept)
            if result in self.destinations:
                final = self.copy(final, self.destinations[result])
            self.bindings[result] = final

    def reduce_simply(
        self, operation: Operation, function: Function, source: View, axis: int, kept: tuple[int, ...]
    ) -> View:
        out = self.result_view(operation.result)
        extent = source.shape[axis]
        while extent > MAX_EXTENT:  # halve until an instruction can take it
            half = extent // 2
            parts = [slice_of(source, axis, start, half) for start in (0, half)]
            source = self.compute(function, source.dtype, *parts, shape=parts[0].shape)
            extent = half
        source_strides = aligned(source.strides, source.shape)
        kept_strides = tuple(s for d, s in enumerate(source_strides) if d != axis)
        for extents, offsets, (out_strides, in_strides) in pieces(
            kept, [aligned(out.strides, kept), kept_strides], DIMENSIONS - 1
        ):
            self.emit(
                isa.Reduce,
                function=function,
                dtype=source.dtype,
                shape=(*extents, extent),
                result=self.place(out, out.dtype, offsets[0], (*out_strides, 0)),
                a=self.place(source, source.dtype, offsets[1], (*in_strides, source_strides[axis])),
            )
        return out

    def combine(self, region: Region, left: list[Any], right: list[Any], shape: tuple[int, ...]) -> list[Tile]:
        """A combine function applied to whole tiles."""
        block = region.block
        for argument, tile in zip(block.arguments, [*left, *right], strict=True):
            self.bindings[argument] = tile
        saved, self.combine_shape = self.combine_shape, shape
        for operation in block.operations[:-1]:
            self.operation(operation)
        self.combine_shape = saved
        return [self.bindings[o] for o in block.operations[-1].operands]

    def dense(self, tile: Tile) -> View:
        if isinstance(tile, View):
            return tile
        raise InternalError("a combine function yields a constant")

    def scan(self, operation: Operation) -> None:
        """Inclusive scan by doubling: after step s each element holds the combination of the 2s elements up to it."""
        axis, region = operation.attributes["axis"], operation.regions[0]
        reverse = operation.attributes.get("reverse", False)
        current = [self.view(o) for o in operation.operands]
        extent = current[0].shape[axis]
        step = 1
        while step < extent:
            rest = extent - step
            early, late = (step, 0) if reverse else (0, step)
            before = [slice_of(v, axis, early, rest) for v in current]
            after = [slice_of(v, axis, late, rest) for v in current]
            combined = self.combine(region, before, after, before[0].shape)
            following = [self.new_view(v.dtype, v.shape) for v in current]
            for old, new, tile in zip(current, following, combined, strict=True):
                self.copy(tile, slice_of(new, axis, late, rest))
                unchanged = rest if reverse else 0
                self.copy(slice_of(old, axis, unchanged, step), slice_of(new, axis, unchanged, step))
            current = following
            step *= 2
        for view, result in zip(current, operation.results, strict=True):
            self.bindings[result] = self.copy(view, self.destinations[result]) if result in self.destinations else view

    # ------------------------------------------------------------------ joining

    def join(self, operation: Operation) -> None:
        out = self.result_view(operation.result)
        for position, operand in enumerate(operation.operands):
            part = replace(
                out, offset=out.offset + position * out.strides[-1], strides=out.strides[:-1], shape=out.shape[:-1]
            )
            self.copy(self.tile(operand), part)
        self.bindings[operation.result] = out

    def split(self, operation: Operation) -> None:
        source = self.tile(operation.operands[0])
        for position, result in enumerate(operation.results):
            if isinstance(source, Register):
                self.bindings[result] = source
            else:
                self.bindings[result] = replace(
                    source,
                    offset=source.offset + position * source.strides[-1],
                    strides=source.strides[:-1],
                    shape=source.shape[:-1],
                )

    def cat(self, operation: Operation) -> None:
        out = self.result_view(operation.result)
        start = 0
        for operand in operation.operands:
            length = operand.type.shape[0]
            self.copy(self.tile(operand), slice_of(out, 0, start, length))
            start += length
        self.bindings[operation.result] = out

    def gather(self, operation: Operation) -> None:
        source, index = self.view(operation.operands[0]), self.view(operation.operands[1])
        axis = operation.attributes["axis"]
        out = self.result_view(operation.result)
        stride = aligned(source.strides, source.shape)[axis]
        if stride < 0 or stride == 0:
            source = self.copy(source, self.new_view(source.dtype, source.shape))
            stride = source.strides[axis]
        if stride * source.dtype.size_bytes > MOST_BYTES_OF_AN_INDEX:
            wide = self.convert(index, index.dtype, self.new_view(DType.I64, index.shape))
            index = self.compute(Function.MUL, DType.I64, wide, self.constant(stride), shape=index.shape)
            stride = 1
        along = tuple(0 if d == axis else s for d, s in enumerate(aligned(source.strides, source.shape)))
        for extents, offsets, (out_strides, in_strides, index_strides) in pieces(
            out.shape, [out.strides, along, aligned(index.strides, index.shape)]
        ):
            self.emit(
                isa.Gather,
                dtype=out.dtype,
                index_dtype=index.dtype,
                stride=stride,
                shape=extents,
                result=self.place(out, out.dtype, offsets[0], out_strides),
                source=self.place(source, source.dtype, offsets[1], in_strides),
                index=self.place(index, index.dtype, offsets[2], index_strides),
            )
        self.bindings[operation.result] = out

    # ------------------------------------------------------------------ control flow

    def for_loop(self, operation: Operation) -> None:
        low, high, step = (self.register(o) for o in operation.operands[:3])
        body = operation.regions[0].block
        phis = self.enter_loop(body.arguments[1:], operation.operands[3:])
        counter = Register()
        self.move(low, counter)
        self.bindings[body.arguments[0]] = counter
        outer, self.code = self.code, []
        condition = Register()
        dtype = body.arguments[0].type.dtype
        less = Function.LESS_UNSIGNED if operation.attributes["unsigned"] else Function.LESS
        self.emit(isa.Scalar, destination=condition, a=counter, b=high, function=less, dtype=dtype)
        head, self.code = self.code, []
        terminator = body.operations[-1]
        self.coalesce(body.arguments[1:], phis, terminator.operands, body.operations)
        self.region(operation.regions[0])
        self.assign(phis, terminator.operands)
        self.emit(isa.Scalar, destination=counter, a=counter, b=step, function=Function.ADD, dtype=dtype)
        inside, self.code = self.code, outer
        self.code.append(Loop(head, condition, inside, self.stages(operation)))
        for result, phi in zip(operation.results, phis, strict=True):
            self.bindings[result] = phi

    def stages(self, loop: Operation) -> int:
        """In how many steps a loop is pipelined: as it says itself; around a product, as its kernel says."""
        own: int | None = loop.attributes.get("tt.num_stages")
        if own is None and any(operation.name == "tt.dot" for operation in loop.regions[0].block.operations):
            own = self.kernel.stages
        return DEFAULT_STAGES if own is None else max(1, min(own, MOST_STAGES))

    def enter_loop(self, arguments: list[Value], initial: list[Value]) -> list[Tile]:
        phis: list[Tile] = []
        for argument, value in zip(arguments, initial, strict=True):
            phi: Tile
            if argument.type.shape or argument.type.is_float:
                phi = self.copy(self.tile(value), self.new_view(argument.type.dtype, argument.type.shape))
            else:
                phi = Register()
                self.move(self.register(value), phi)
            self.bindings[argument] = phi
            phis.append(phi)
        return phis

    def assign(self, phis: list[Tile], values: list[Value]) -> None:
        """Gives loop-carried places their next values, all at once."""
        own = {id(p.buffer) if isinstance(p, View) else id(p) for p in phis}
        pending: list[tuple[Tile, Tile]] = []
        for phi, value in zip(phis, values, strict=True):
            source: Tile = self.tile(value) if isinstance(phi, View) else self.register(value)
            if source == phi:
                continue
            if id(source.buffer if isinstance(source, View) else source) in own:
                if isinstance(phi, View):
                    source = self.copy(source, self.new_view(phi.dtype, phi.shape))
                else:
                    assert isinstance(source, Register)
                    spare = Register()
                    self.move(source, spare)
                    source = spare
            pending.append((phi, source))
        for phi, source in pending:
            if isinstance(phi, View):
                self.copy(source, phi)
            else:
                assert isinstance(source, Register)
                self.move(source, phi)

    def coalesce(
        self, arguments: list[Value], phis: list[Tile], yielded: list[Value], operations: list[Operation]
    ) -> None:
        """Lets the operation that computes a carried tile's next value write into the tile's own buffer, where the old
        value is not read afterwards."""
        position = {id(operation): k for k, operation in enumerate(operations)}
        for argument, phi, value in zip(arguments, phis, yielded, strict=True):
            if not isinstance(phi, View) or yielded.count(value) != 1:
                continue
            while value not in self.destinations and _may_overwrite(argument, value, operations, position):
                self.destinations[value] = phi
                assert value.owner is not None
                if value.owner.name != "tt.dot":
                    break
                # What a product is added to may be computed in the same place, if that is all it is for.
                addend = value.owner.operands[2]
                if self.use_counts[addend] != 1 or addend.type != value.type:
                    break
                value = addend

    def branch(self, operation: Operation) -> None:
        condition = self.register(operation.operands[0])
        outs: list[Tile] = []
        for result in operation.results:
            if result.type.shape or result.type.is_float:
                outs.append(self.new_view(result.type.dtype, result.type.shape))
            else:
                outs.append(Register())
        outer = self.code
        sides: list[list[Node]] = []
        for region in operation.regions:
            self.code = []
            self.region(region)
            operations = region.block.operations
            if operations and operations[-1].name == "scf.yield":
                self.assign(outs, operations[-1].operands)
            sides.append(self.code)
        self.code = outer
        self.code.append(Branch(condition, sides[0], sides[1] if len(sides) > 1 else []))
        for result, out in zip(operation.results, outs, strict=True):
            self.bindings[result] = out

    def while_loop(self, operation: Operation) -> None:
        before, after = (r.block for r in operation.regions)
        phis = self.enter_loop(before.arguments, operation.operands)
        outer, self.code = self.code, []
        self.region(operation.regions[0])
        terminator = before.operations[-1]
        forwarded = [self.bindings[v] for v in terminator.operands[1:]]
        results: list[Tile] = []
        for value, tile in zip(terminator.operands[1:], forwarded, strict=True):
            if isinstance(tile, View):
                results.append(self.copy(tile, self.new_view(value.type.dtype, value.type.shape)))
            else:
                kept = Register()
                self.move(tile, kept)
                results.append(kept)
        condition = Register()
        self.move(self.register(terminator.operands[0]), condition)
        head, self.code = self.code, []
        for argument, tile in zip(after.arguments, results, strict=True):
            self.bindings[argument] = tile
        self.region(operation.regions[1])
        self.assign(phis, after.operations[-1].operands)
        inside, self.code = self.code, outer
        self.code.append(Loop(head, condition, inside))
        for result, tile in zip(operation.results, results, strict=True):
            self.bindings[result] = tile

    # ------------------------------------------------------------------ assertions

    def assertion(self, operation: Operation) -> None:
        condition = operation.operands[0]
        if condition.type.shape:
            tile = self.view(condition)
            dense = self.copy(tile, self.new_view(DType.I1, tile.shape))
            size = condition.type.size
            while size > 1:
                extent = min(size, 1 << 15)
                out = self.new_view(DType.I1, (size // extent,))
                for part in range(size // extent):
                    self.emit(
                        isa.Reduce,
                        function=Function.AND,
                        dtype=DType.I1,
                        shape=(1, 1, 1, extent),
                        result=Place(out.buffer, part, (0, 0, 0, 0)),
                        a=Place(dense.buffer, part * extent, (0, 0, 0, 1)),
                    )
                dense, size = out, size // extent
            holds = Register()
            self.emit(isa.ScalarLoad, destination=holds, address=Place(dense.buffer, 0, (0, 0, 0, 0)), dtype=DType.I1)
        else:
            holds = self.register(condition)
        message = f"{self.location}: {operation.attributes.get('message', '')}"
        self.messages.append(message)
        trap = Instr(isa.Trap, {"code": len(self.messages) - 1}, self.location)
        self.code.append(Branch(holds, [], [trap]))


def _combine_function(region: Region) -> Function | None:
    """The vector function a combine region is, if it is just one that reductions know."""
    block = region.block
    if len(block.operations) != 2:
        return None
    operation, last = block.operations
    if operation.name not in BINARY:
        return None
    function = binary_function(operation.name, operation.result.type.dtype)
    if function not in REDUCTIONS or last.operands != operation.results:
        return None
    return function if set(operation.operands) == set(block.arguments) else None


def _may_overwrite(argument: Value, value: Value, operations: list[Operation], position: dict[int, int]) -> bool:
    """Return whether the operation that computes `value` may write over `argument`: it is one of the loop's body, and
    nothing reads the argument later, nor the operation itself in another order than it writes."""
    owner = value.owner
    if owner is None or id(owner) not in position:
        return False
    if owner.name in REARRANGING or owner.name == "arith.constant" or owner.name.startswith("scf."):
        return False
    views = {argument}
    for k, operation in enumerate(operations):
        reads = [o for o in _reads(operation) if o in views]
        if operation.name in REARRANGING and reads:
            views.add(operation.result)
        elif operation is owner:
            elementwise = owner.name not in (
                "tt.reduce",
                "tt.scan",
                "tt.gather",
                "tt.cat",
                "tt.join",
                "tile.load",
                "tile.atomic",
            )
            if reads and (not elementwise or any(o is not argument for o in reads)):
                return False
            if owner.name == "tt.dot" and argument in owner.operands[:2]:
                return False
        elif reads and k > position[id(owner)]:
            return False
    return True


def _reads(operation: Operation) -> list[Value]:
    values = list(operation.operands)
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                values += _reads(inner)
    return values


def _shown_bounds(high: list[Any], dims: list[int], constant: Callable[[int], Register]) -> list[Any]:
    """An upper bound that is the constant 0 must not look like register 0, which means no bound."""
    return [constant(-1) if h is not None and h.constant == 0 and d in dims else h for d, h in enumerate(high)]


HANDLERS: dict[str, Callable[[Selector, Operation], None]] = {
    "arith.constant": Selector.constant_op,
    "tt.get_program_id": Selector.program_id,
    "tt.get_num_programs": Selector.program_id,
    "tt.make_range": Selector.make_range,
    "tile.load": Selector.load,
    "tile.store": Selector.store,
    "tile.atomic": Selector.atomic,
    "tt.dot": Selector.dot,
    "tt.reduce": Selector.reduce,
    "tt.scan": Selector.scan,
    "tt.join": Selector.join,
    "tt.split": Selector.split,
    "tt.cat": Selector.cat,
    "tt.gather": Selector.gather,
    "scf.for": Selector.for_loop,
    "scf.if": Selector.branch,
    "scf.while": Selector.while_loop,
    "tt.assert": Selector.assertion,
}


@dataclass(frozen=True)
class Selected:
    """Machine code of a kernel. `constants`: the registers in it that hold them. `messages`: of its assertions.
    `order_free`: whether programs of a grid may run in any order."""

    code: list[Node]
    constants: Constants
    messages: tuple[str, ...]
    order_free: bool


def select_instructions(kernel: Kernel, chip: Chip) -> Selected:
    """Machine code of a kernel for a chip."""
    selector = Selector(kernel, chip)
    selector.run()
    return Selected(selector.code, selector.constant, tuple(selector.messages), selector.order_free)
