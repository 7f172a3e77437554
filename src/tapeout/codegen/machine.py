"""Machine code before allocation: instructions over virtual registers and buffers, in structured control flow.

What `select_instructions` gives and the later passes take: a list of nodes, each an `Instr` (an instruction of the ISA
whose fields may hold `Register` and `Place` objects), a `Loop` or a `Branch`.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tapeout.isa.fields import Instruction, Unit
from tapeout.numerics.dtypes import DType
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
class Instr:
    """One instruction to be. `fields` are those of `kind`, with virtual registers and places in them.
    `memory` names what it touches in HBM (None: nothing; ANYWHERE: any of it but the workspace)."""

    kind: type[Instruction]
    fields: dict[str, Any]
    location: str = ""
    memory: object = None

    @property
    def unit(self) -> Unit:
        return self.kind.unit

    def places(self) -> Iterator[tuple[Place, bool]]:
        """Buffers it touches: (place, whether it writes). An accumulator is both."""
        for spec in self.kind.fields:
            value = self.fields.get(spec.name)
            if isinstance(value, Place):
                yield value, spec.writes

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

    def operand(value: Any) -> str:
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
                lines.append(f"{indent}{node.kind.mnemonic} {fields}".rstrip())
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
