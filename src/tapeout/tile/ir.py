"""The tile IR: values in SSA form, operations with regions, and their text.

An operation's name and operands are those of Triton's IR where it has one (`arith.addf`, `tt.dot`, `scf.for`); passes
add their own under `tile.`. Control flow is structured: `scf.for`, `scf.if`, `scf.while`; only the body of a kernel as
imported may have several blocks (early returns), which the first pass removes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from tapeout.isa.printing import PrintFormat
from tapeout.numerics.dtypes import DType

DEFAULT_STAGES = 3


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (shape ()) or tile. Pointers hold 64-bit addresses and know what they point to."""

    dtype: DType
    shape: tuple[int, ...] = ()
    pointee: DType | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def is_float(self) -> bool:
        return self.dtype.is_float

    def with_shape(self, shape: tuple[int, ...]) -> "Type":
        return Type(self.dtype, shape, self.pointee)

    def __str__(self) -> str:
        element = f"ptr<{self.pointee}>" if self.pointee else str(self.dtype)
        return "x".join([*map(str, self.shape), element])


@dataclass(eq=False, slots=True)
class Value:
    """A value: the result of an operation or an argument of a block. `owner` is that operation, None for arguments."""

    type: Type
    owner: "Operation | None" = None
    name: str = ""


@dataclass(eq=False, slots=True)
class Operation:
    """An operation. `attributes` hold what is not a value; `location` is "file:line" of the kernel's source."""

    name: str
    operands: list[Value]
    results: list[Value]
    attributes: dict[str, Any] = field(default_factory=dict)
    regions: list["Region"] = field(default_factory=list)
    location: str = ""

    @property
    def result(self) -> Value:
        return self.results[0]

    def own_results(self) -> "Operation":
        """Makes this operation the owner of its results (after it took them over from another one)."""
        for result in self.results:
            result.owner = self
        return self


@dataclass(eq=False, slots=True)
class Block:
    arguments: list[Value]
    operations: list[Operation] = field(default_factory=list)
    label: str = ""


@dataclass(eq=False, slots=True)
class Region:
    blocks: list[Block]

    @property
    def block(self) -> Block:
        """The only block of a structured region."""
        return self.blocks[0]


@dataclass(eq=False)
class Kernel:
    """A kernel (or a function it calls): its parameters are the arguments of the body's first block. `stages`: in how
    many steps its loops around a product are to be pipelined."""

    name: str
    body: Region
    functions: dict[str, "Kernel"] = field(default_factory=dict)
    prints: list[PrintFormat] = field(default_factory=list)
    stages: int = DEFAULT_STAGES

    @property
    def parameters(self) -> list[Value]:
        return self.body.blocks[0].arguments


def make(
    name: str, operands: list[Value], types: list[Type], attributes: dict[str, Any] | None = None, location: str = ""
) -> Operation:
    """A new operation with fresh results of the given types."""
    operation = Operation(name, operands, [], attributes or {}, [], location)
    operation.results = [Value(type, operation) for type in types]
    return operation


def walk(region: Region) -> Iterator[Operation]:
    """All operations of a region, outer before inner, in order."""
    for block in region.blocks:
        for operation in block.operations:
            yield operation
            for inner in operation.regions:
                yield from walk(inner)


def clone(operation: Operation, mapping: dict[Value, Value]) -> Operation:
    """A copy that reads what `mapping` says instead of its operands; it adds the copy's own results to `mapping`.
    Attributes must not hold values."""

    def copied(value: Value, owner: Operation | None) -> Value:
        return mapping.setdefault(value, Value(value.type, owner, value.name))

    operands = [mapping.get(operand, operand) for operand in operation.operands]
    made = Operation(operation.name, operands, [], operation.attributes, [], operation.location)
    for region in operation.regions:
        blocks = []
        for block in region.blocks:
            arguments = [copied(argument, None) for argument in block.arguments]
            blocks.append(Block(arguments, [clone(inner, mapping) for inner in block.operations], block.label))
        made.regions.append(Region(blocks))
    made.results = [copied(result, made) for result in operation.results]
    return made


def show(kernel: Kernel) -> str:
    """The kernel as text: one operation a line."""
    names: dict[int, str] = {}

    def name(value: Value) -> str:
        return names.setdefault(id(value), f"%{len(names)}")

    def show_attribute(attribute: Any) -> str:
        if isinstance(attribute, Value):
            return name(attribute)
        if is_dataclass(attribute):
            parts = ((f.name, getattr(attribute, f.name)) for f in fields(attribute))
            return "(" + " ".join(f"{k}={show_attribute(v)}" for k, v in parts if v is not None) + ")"
        if isinstance(attribute, tuple | list):
            return "[" + ",".join(show_attribute(item) for item in attribute) + "]"
        return str(attribute)

    lines: list[str] = []

    def show_region(region: Region, indent: str) -> None:
        for number, block in enumerate(region.blocks):
            if block.arguments or number:
                arguments = ", ".join(f"{name(a)}: {a.type}" for a in block.arguments)
                lines.append(f"{indent}^{block.label or number}({arguments}):")
            for operation in block.operations:
                results = ", ".join(name(r) for r in operation.results)
                operands = " ".join(name(o) for o in operation.operands)
                attributes = " ".join(f"{k}={show_attribute(v)}" for k, v in operation.attributes.items())
                types = ", ".join(str(r.type) for r in operation.results)
                parts = [p for p in (operation.name, operands, f"{{{attributes}}}" if attributes else "") if p]
                line = indent + (f"{results} = " if results else "") + " ".join(parts)
                lines.append(line + (f" : {types}" if types else ""))
                for inner in operation.regions:
                    lines.append(indent + "{")
                    show_region(inner, indent + "  ")
                    lines.append(indent + "}")

    lines.append(f"kernel {kernel.name}")
    show_region(kernel.body, "  ")
    return "\n".join(lines) + "\n"
