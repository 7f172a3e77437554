"""Layout of a queued instruction in its queue's memory, derived from the instruction's definition.

An entry of a queue has the instruction's words, from 0 on, and from VALUES on the contents of the registers it names,
one word each, in the order of its fields.
"""

from amaranth.hdl import Cat, Signal, Value

from tapeout.isa.fields import (
    IS_REGISTER_BIT,
    REGISTRY,
    SCRATCHPAD_ADDRESS_BITS,
    STRIDE_BITS,
    STRIDES_BIT,
    WORD_BITS,
    Instruction,
    Unit,
    register_places,
)
from tapeout.numerics.dtypes import DType

ENTRY_WORDS = 64
VALUES = 16
"""First word of an entry that holds a register's content."""

OPCODE_OF = {kind: opcode for opcode, kind in REGISTRY.items()}
QUEUED = tuple(kind for kind in REGISTRY.values() if kind.unit is not Unit.SEQUENCER)


def of_unit(unit: Unit) -> tuple[type[Instruction], ...]:
    return tuple(kind for kind in QUEUED if kind.unit is unit)


def word_count(unit: Unit) -> int:
    return max(kind.word_count for kind in of_unit(unit))


def value_count(unit: Unit) -> int:
    return max(len(register_places(kind)) for kind in of_unit(unit))


class View:
    """An entry read as an instruction of one kind."""

    def __init__(self, kind: type[Instruction], words: list[Signal], values: list[Signal]) -> None:
        self.kind = kind
        self.bits = Cat(words)
        self.values = dict(zip(((place.field, place.part) for place in register_places(kind)), values, strict=False))

    def has(self, name: str) -> bool:
        return any(field.name == name for field in self.kind.fields)

    def field(self, name: str) -> Value:
        for field, offset in zip(self.kind.fields, self.kind.offsets, strict=True):
            if field.name == name:
                return self.bits[offset : offset + field.width]
        raise KeyError(f"{self.kind.mnemonic} has no field {name}")

    def element_type(self, name: str) -> "str | DType":
        """Element type of a tile operand, as its definition says: the field that names it, or the type itself.

        Types that depend on the function are not for here."""
        of = next(field.of for field in self.kind.operand_fields if field.name == name)
        assert isinstance(of, str | DType)
        return of

    def element_code(self, name: str) -> Value:
        """Code of the element type of a tile operand whose definition names the field that holds it."""
        of = self.element_type(name)
        assert isinstance(of, str)
        return self.field(of)

    def register(self, name: str, part: int = 0) -> Value:
        """Content of a register the field names."""
        return self.values[name, part]

    def names_register(self, name: str, part: int = 0) -> Value:
        """Return whether the field names a register other than register 0."""
        place = next(p for p in register_places(self.kind) if (p.field, p.part) == (name, part))
        return self.bits[place.bit : place.bit + 8].any()

    def extents(self) -> list[Value]:
        return [self.field("shape")[16 * d : 16 * (d + 1)] for d in range(4)]

    def tile(self, name: str) -> "TileOperand":
        """A tile operand with the content of its register."""
        return TileOperand(self.field(name), self.register(name))

    def is_register(self, name: str) -> Value:
        """Return whether a tile operand is a register's value instead."""
        return self.tile(name).is_register

    def base(self, name: str) -> Value:
        """A tile operand's address, register included."""
        return self.tile(name).base

    def strides(self, name: str) -> list[Value]:
        """A tile operand's strides, in elements, signed."""
        return self.tile(name).strides


class TileOperand:
    """The bits of a tile operand, and what the register it names contains."""

    def __init__(self, bits: Value, content: Value) -> None:
        self.content = content
        self.is_register = bits[IS_REGISTER_BIT]
        self.base = bits[0:SCRATCHPAD_ADDRESS_BITS] + content[0:SCRATCHPAD_ADDRESS_BITS]
        self.strides = [bits[STRIDES_BIT + STRIDE_BITS * d :][:STRIDE_BITS].as_signed() for d in range(4)]


WORDS_LIMIT = VALUES
assert all(kind.word_count <= WORDS_LIMIT for kind in QUEUED)
assert all(VALUES + len(register_places(kind)) <= ENTRY_WORDS for kind in QUEUED)
assert WORD_BITS == 64
