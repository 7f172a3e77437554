"""Machine code before allocation: instructions over virtual registers and buffers, in structured control flow.

What `select_instructions` gives and the later passes take: a list of nodes, each an `Instr` (an instruction of the ISA
whose fields may hold `Register` and `Place` objects), a `Loop` or a `Branch`.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVar

from tapeout.errors import InternalError
from tapeout.isa.fields import REGISTRY, Instruction, Unit, operand_dtype
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import AtomicFunction, Function, Rounding
from tapeout.tile.ir import DEFAULT_STAGES


@dataclass(eq=False, slots=True)
class Register:
    """A virtual scalar register; one with a `constant` is never written by an instruction of its own."""

    constant: int | None = None


class Constants:
    """Registers that hold constants, one for each value (as signed 64 bits)."""

    def __init__(self, registers: dict[int, Register] | None = None) -> None:
        self.registers = dict(registers or {})

    def __call__(self, value: int) -> Register:
        value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
        return self.registers.setdefault(value, Register(value))

    def copy(self) -> "Constants":
        """The same registers, to which others can be added."""
        return Constants(self.registers)


@dataclass(eq=False, slots=True)
class Buffer:
    """A tile's memory. `address` is set by allocation; `rotation` is the loop whose copies it cycles through."""

    size_bytes: int
    address: int = -1
    rotation: "Loop | None" = None


@dataclass(frozen=True, slots=True)
class Place:
    """An operand in a buffer: byte offset of its first element (plus that in a register) and strides in elements."""

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    register: Register | None = None


@dataclass(eq=False, slots=True)
class Home:
    """Place of a spilled tile in the core's workspace in HBM."""

    offset: int


class Anywhere(enum.Enum):
    """The memory that an access in HBM touches when nothing is known of its root."""

    ANYWHERE = enum.auto()


ANYWHERE = Anywhere.ANYWHERE


@dataclass(frozen=True, slots=True)
class View:
    """A tile as it lies in a buffer: offset and strides in elements, one stride a dimension of the tile."""

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: DType


@dataclass(eq=False, slots=True)
class Label:
    """A place among the instructions that a branch goes to. `index` is set when all of them are in a row."""

    index: int = -1


Choice = DType | Function | AtomicFunction | Rounding
FieldValue = Register | Place | Label | Choice | int | tuple[int, ...] | tuple[Register, ...]
"""Value of a field before allocation: registers and places stand for the numbers and access patterns to come."""

Wanted = TypeVar("Wanted", Register, Place, DType, Function, bool, int)


_NAMES = {opcode: frozenset(field.name for field in kind.fields) for opcode, kind in REGISTRY.items()}


@dataclass(eq=False, slots=True)
class Instr:
    """One instruction to be. `fields` are those of `kind`, without the semaphores of a queue, which are in `waits` and
    `signals`. `memory` names what it touches in HBM (None: nothing; ANYWHERE: any of it but the workspace)."""

    kind: type[Instruction]
    fields: Mapping[str, FieldValue]
    location: str = ""
    memory: object = None
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if unknown := self.fields.keys() - _NAMES[self.kind.opcode]:
            raise InternalError(f"{self.kind.mnemonic} has no field {', '.join(sorted(unknown))}")

    @property
    def unit(self) -> Unit:
        return self.kind.unit

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the four loops of an instruction that has them."""
        shape = self.fields["shape"]
        assert isinstance(shape, tuple)
        return tuple(extent for extent in shape if isinstance(extent, int))

    def get(self, name: str, kind: type[Wanted]) -> Wanted:
        """Value of a field, which is of a certain kind: `instr.get("dtype", DType)`."""
        value = self.fields[name]
        if not isinstance(value, kind):
            raise InternalError(f"{self.kind.mnemonic}: {name} is {value!r}, not a {kind.__name__}")
        return value

    def registers_of(self, name: str) -> tuple[Register, ...]:
        """The registers of a field that names one for each dimension."""
        value = self.fields[name]
        assert isinstance(value, tuple)
        return tuple(register for register in value if isinstance(register, Register))

    def dtype_of(self, name: str) -> DType:
        """Element type of a tile operand."""
        facts = SimpleNamespace(**self.fields)
        return self.get("dtype", DType) if name == "address" else operand_dtype(self.kind, name, facts)

    def changed(self, **fields: FieldValue) -> "Instr":
        """The instruction with other values in some fields."""
        return Instr(self.kind, {**self.fields, **fields}, self.location, self.memory)

    def places(self) -> Iterator[tuple[Place, bool]]:
        """Buffers it touches: (place, whether it writes). One that is written may be read too: a write is ordered with
        everything that a read is."""
        for spec in self.kind.fields:
            value = self.fields.get(spec.name)
            if isinstance(value, Place):
                yield value, spec.writes

    def semaphores(self) -> dict[str, int]:
        """The fields that `waits` and `signals` become."""
        waits = zip(("wait_a", "wait_b"), self.waits, strict=False)
        return {**dict(waits), **dict(zip(("signal_a", "signal_b"), self.signals, strict=False))}

    def registers(self) -> Iterator[tuple[Register, bool]]:
        """Registers it reads (False) and writes (True); one it does both to comes twice."""
        for spec in self.kind.fields:
            value = self.fields.get(spec.name)
            if isinstance(value, Register):
                if spec.reads:
                    yield value, False
                if spec.writes:
                    yield value, True
            elif isinstance(value, Place) and value.register is not None:
                yield value.register, False
            elif isinstance(value, tuple):
                for item in value:
                    if isinstance(item, Register):
                        yield item, False


@dataclass(eq=False, slots=True)
class Loop:
    """Runs `head`, then, while `condition` is not zero, `body` and `head` again. Its tiles may have `stages` copies;
    they get `copies`, at `offset`."""

    head: list["Node"]
    condition: Register
    body: list["Node"]
    stages: int = DEFAULT_STAGES
    copies: int = 1
    offset: Register | None = None


@dataclass(eq=False, slots=True)
class Branch:
    condition: Register
    then: list["Node"]
    otherwise: list["Node"] = field(default_factory=list)


Node = Instr | Loop | Branch


def children(node: Node) -> list[list[Node]]:
    if isinstance(node, Loop):
        return [node.head, node.body]
    if isinstance(node, Branch):
        return [node.then, node.otherwise]
    return []


def walk(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        for inner in children(node):
            yield from walk(inner)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def show(code: list[Node]) -> str:
    """Machine code as text: virtual registers %n, buffers #n (with address and number of copies once they have one)."""
    numbers: dict[int, int] = {}

    def number(item: object) -> int:
        return numbers.setdefault(id(item), len(numbers))

    def operand(value: object) -> str:
        if isinstance(value, Register):
            return str(value.constant) if value.constant is not None else f"%{number(value)}"
        if isinstance(value, Place):
            buffer = value.buffer
            address = f"@{buffer.address:#x}" if buffer.address >= 0 else ""
            copies = f"*{buffer.rotation.copies}" if buffer.rotation is not None else ""
            offset = f"+{value.offset}" if value.offset else ""
            moved = f"+{operand(value.register)}" if value.register is not None else ""
            return f"#{number(buffer)}{address}{copies}{offset}{moved}{{{','.join(map(str, value.strides))}}}"
        if isinstance(value, tuple):
            return "(" + ",".join(map(operand, value)) + ")"
        return str(getattr(value, "label", value))

    lines: list[str] = []

    def show_nodes(nodes: list[Node], indent: str) -> None:
        for node in nodes:
            if isinstance(node, Instr):
                fields = " ".join(f"{name}={operand(value)}" for name, value in node.fields.items())
                semaphores = "".join(f" {name}={number}" for name, number in node.semaphores().items())
                lines.append(f"{indent}{node.kind.mnemonic} {fields}".rstrip() + semaphores)
            elif isinstance(node, Loop):
                lines.append(f"{indent}loop {{")
                show_nodes(node.head, indent + "  ")
                lines.append(f"{indent}}} while {operand(node.condition)} {{")
                show_nodes(node.body, indent + "  ")
                lines.append(f"{indent}}}")
            else:
                lines.append(f"{indent}if {operand(node.condition)} {{")
                show_nodes(node.then, indent + "  ")
                if node.otherwise:
                    lines.append(f"{indent}}} else {{")
                    show_nodes(node.otherwise, indent + "  ")
                lines.append(f"{indent}}}")

    show_nodes(code, "")
    return "\n".join(lines) + "\n"
