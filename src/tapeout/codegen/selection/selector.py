"""What selection keeps while it walks a kernel, and how it makes instructions."""

from collections import Counter
from collections.abc import Callable, Mapping

from tapeout.chip import Chip
from tapeout.codegen.access_patterns import aligned, pieces
from tapeout.codegen.machine import (
    Buffer,
    Constants,
    FieldValue,
    Instr,
    Node,
    Place,
    Register,
    View,
    contiguous,
)
from tapeout.errors import UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, Instruction
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function, Rounding
from tapeout.tile.ir import Kernel, Operation, Region, Type, Value, walk

Tile = View | Register
"""A tile (or scalar) as an operand: in the scratchpad, or one register value everywhere."""


class Selector:
    """Walks the kernel once; `code` is the list nodes are appended to. `handlers`: what makes code of an operation, by
    its name; `elementwise` does of all others that have one result."""

    def __init__(self, kernel: Kernel, chip: Chip, handlers: "Mapping[str, Handler]", elementwise: "Handler") -> None:
        self.kernel = kernel
        self.chip = chip
        self.handlers = handlers
        self.elementwise = elementwise
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

    def unsupported(self, operation: str, dtype: DType | None = None, hint: str | None = None) -> UnsupportedError:
        where = f"{self.location} in kernel {self.kernel.name}" if self.location else f"kernel {self.kernel.name}"
        return UnsupportedError(operation, dtype=dtype.label if dtype else None, where=where, hint=hint)

    def emit(self, kind: type[Instruction], memory: object = None, **fields: FieldValue) -> None:
        self.code.append(Instr(kind, fields, self.location, memory))

    def code_of(self, select: Callable[[], None]) -> list[Node]:
        """The nodes that `select` appends, as a list of their own."""
        outer, self.code = self.code, []
        select()
        inside, self.code = self.code, outer
        return inside

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

    def vector(
        self,
        kind: type[Instruction],
        shape: tuple[int, ...],
        operands: dict[str, tuple[Tile, DType]],
        **fields: FieldValue,
    ) -> None:
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

    def check_function(self, function: Function) -> None:
        """Refuse a function that the chip's description leaves out."""
        if function.label in self.chip.core.vector.left_out:
            raise self.unsupported(
                f"the function {function.label!r}", hint=f"chip {self.chip.name} leaves it out of its vector engine"
            )

    def map(self, function: Function, dtype: DType, sources: list[Tile], result: View) -> View:
        self.check_dtype(dtype)
        self.check_function(function)
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
        handler = self.handlers.get(name)
        if handler is not None:
            handler(self, operation)
            return
        if operation.results and len(operation.results) == 1:
            self.elementwise(self, operation)
            return
        raise self.unsupported(f"operation {name}")


Handler = Callable[[Selector, Operation], None]
