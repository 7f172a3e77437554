"""Parts of an instruction: field kinds, and the decorator that turns a class into an instruction.

A field knows its width, how it is packed into bits and unpacked, and how it is written in assembly. An
instruction is a frozen dataclass whose annotations are fields; `instruction` records it in `REGISTRY`, from
which the encoder, the assembler, the manual and the simulators work. Nothing here knows a particular
instruction.
"""

import dataclasses
import enum
import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

from tapeout.chip.description import (
    REGISTER_NUMBER_LIMIT,
    SCRATCHPAD_ADDRESS_LIMIT_BYTES,
    SEMAPHORE_NUMBER_LIMIT,
)
from tapeout.errors import TapeoutError
from tapeout.numerics.dtypes import BY_CODE, BY_LABEL, DType

REGISTER_COUNT = REGISTER_NUMBER_LIMIT
SEMAPHORE_COUNT = SEMAPHORE_NUMBER_LIMIT
WORD_BITS = 64
DIMENSIONS = 4
MAX_EXTENT = 65535
SCRATCHPAD_ADDRESS_BITS = (SCRATCHPAD_ADDRESS_LIMIT_BYTES - 1).bit_length()
STRIDE_BITS = 23
ROTATION_UNIT_BYTES = 64

# A tile operand, from bit 0: address, register, whether it is that register's value instead, four strides.
REGISTER_BIT = SCRATCHPAD_ADDRESS_BITS
IS_REGISTER_BIT = REGISTER_BIT + 8
STRIDES_BIT = IS_REGISTER_BIT + 1
TILE_BITS = STRIDES_BIT + 4 * STRIDE_BITS


class EncodingError(TapeoutError):
    """An instruction, its text or its bits are not legal."""


class Unit(enum.Enum):
    """Unit that executes an instruction. The sequencer executes at once; the others have an in-order queue each."""

    SEQUENCER = "sequencer"
    LOAD = "load"
    STORE = "store"
    MATRIX = "matrix"
    VECTOR = "vector"


REQUIRED: Any = object()
"""Default of a field that has none."""

QUEUES = (Unit.LOAD, Unit.STORE, Unit.MATRIX, Unit.VECTOR)


@dataclasses.dataclass(frozen=True, slots=True)
class AccessPattern:
    """A tile in the scratchpad: element (i0, i1, i2, i3) lies at byte
    `base + register + (i0*strides[0] + ... + i3*strides[3]) * element size`. Strides count elements, may be
    negative, and are 0 along a dimension that is broadcast. `register` names a scalar register whose value,
    read when the instruction is issued, is added to the address; register 0 always reads zero."""

    base: int
    strides: tuple[int, int, int, int]
    register: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class RegisterValue:
    """An operand that is one scalar, broadcast: the low bits of a scalar register, read when the
    instruction is issued."""

    register: int


Operand = AccessPattern | RegisterValue


ElementType = str | DType | Callable[[Any], DType]
"""An operand's element type: named by a field, fixed, or worked out from the instruction."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of an instruction: how wide, and how its value travels to bits and text and back."""

    width: int
    doc: str
    pack: Callable[[Any], int]
    unpack: Callable[[int], Any]
    show: Callable[[Any], str]
    read: Callable[[str], Any]
    kind: str
    default: Any = REQUIRED
    name: str = ""
    of: "ElementType | None" = None
    over: "Callable[[Any], tuple[int, ...]] | None" = None
    reads: bool = True
    writes: bool = False
    reads_if: str | None = None
    picked: bool = False

    @property
    def is_operand(self) -> bool:
        """True if the operand is a tile (or, where that is allowed, a register in its place)."""
        return self.of is not None


def _check_range(value: int, low: int, high: int, what: str) -> int:
    if not isinstance(value, int) or not low <= value < high:
        raise EncodingError(f"{what} {value!r} is outside {low}..{high - 1}")
    return value


def _two_complement(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def register(doc: str, *, default: Any = REQUIRED, reads: bool = True, writes: bool = False) -> Any:
    """A register that the instruction reads, or writes, or both."""
    return Field(
        8,
        doc,
        lambda v: _check_range(v, 0, REGISTER_COUNT, "register"),
        int,
        lambda v: f"r{v}",
        lambda s: int(s.removeprefix("r")),
        "register",
        default,
        reads=reads,
        writes=writes,
    )


def registers(doc: str, *, default: Any = REQUIRED) -> Any:
    """Four registers, one a dimension; 0 where the dimension has none."""

    def pack(values: tuple[int, ...]) -> int:
        if len(values) != DIMENSIONS:
            raise EncodingError(f"{values!r} does not name {DIMENSIONS} registers")
        return sum(_check_range(v, 0, REGISTER_COUNT, "register") << (8 * i) for i, v in enumerate(values))

    return Field(
        32,
        doc,
        pack,
        lambda bits: tuple(bits >> (8 * i) & 255 for i in range(DIMENSIONS)),
        lambda v: ",".join(f"r{x}" for x in v),
        lambda s: tuple(int(x.removeprefix("r")) for x in s.split(",")),
        "registers",
        default,
    )


def semaphore(doc: str, *, default: Any = REQUIRED) -> Any:
    return Field(
        6,
        doc,
        lambda v: _check_range(v, 0, SEMAPHORE_COUNT, "semaphore"),
        int,
        lambda v: f"s{v}",
        lambda s: int(s.removeprefix("s")),
        "semaphore",
        default,
    )


def unsigned(width: int, doc: str, *, default: Any = REQUIRED) -> Any:
    return Field(
        width,
        doc,
        lambda v: _check_range(v, 0, 1 << width, "value"),
        int,
        str,
        lambda s: int(s, 0),
        "unsigned",
        default,
    )


def scratchpad_address(doc: str) -> Any:
    return unsigned(SCRATCHPAD_ADDRESS_BITS, doc)


def rotation(doc: str) -> Any:
    """Bytes of the scratchpad, encoded in units of ROTATION_UNIT_BYTES, so that two of them fit a word."""
    limit = 1 << SCRATCHPAD_ADDRESS_BITS

    def pack(value: int) -> int:
        _check_range(value, 0, limit, "value")
        if value % ROTATION_UNIT_BYTES:
            raise EncodingError(f"value {value} is not a multiple of {ROTATION_UNIT_BYTES}")
        return value // ROTATION_UNIT_BYTES

    return Field(
        (limit // ROTATION_UNIT_BYTES - 1).bit_length(),
        f"{doc}, in units of {ROTATION_UNIT_BYTES} bytes",
        pack,
        lambda bits: bits * ROTATION_UNIT_BYTES,
        str,
        lambda s: int(s, 0),
        "rotation",
    )


def signed(width: int, doc: str) -> Any:
    low, high = -(1 << (width - 1)), 1 << (width - 1)
    return Field(
        width,
        doc,
        lambda v: _check_range(v, low, high, "value") & ((1 << width) - 1),
        lambda bits: _two_complement(bits, width),
        str,
        lambda s: int(s, 0),
        "signed",
    )


def flag(doc: str, *, default: Any = REQUIRED) -> Any:
    def pack(value: bool) -> int:
        if not isinstance(value, bool):
            raise EncodingError(f"flag {value!r} is neither True nor False")
        return int(value)

    return Field(1, doc, pack, bool, lambda v: str(int(v)), lambda s: {"0": False, "1": True}[s], "flag", default)


def dtype(doc: str) -> Any:
    return Field(4, doc, lambda v: v.code, BY_CODE.__getitem__, str, BY_LABEL.__getitem__, "dtype")


def choice(kind: type[enum.Enum], width: int, doc: str) -> Any:
    """One member of an enumeration whose values are (label, code, ...) with properties `label` and `code`."""
    by_code = {member.code: member for member in kind}  # type: ignore[attr-defined]
    by_label = {member.label: member for member in kind}  # type: ignore[attr-defined]
    return Field(
        width,
        doc,
        lambda v: v.code,
        by_code.__getitem__,
        lambda v: v.label,
        by_label.__getitem__,
        kind.__name__,
    )


def target(doc: str) -> Any:
    """The place a branch goes to: the index of an instruction; in the encoding, the number of its first
    word."""
    return Field(24, doc, int, int, lambda v: f"L{v}", lambda s: int(s.removeprefix("L")), "target")


def shape(doc: str) -> Any:
    """Extents of the four loops an instruction runs, outermost first; unused outer ones are 1."""

    def pack(values: tuple[int, ...]) -> int:
        if len(values) != DIMENSIONS:
            raise EncodingError(f"shape {values!r} has not {DIMENSIONS} extents")
        return sum(_check_range(v, 1, MAX_EXTENT + 1, "extent") << (16 * i) for i, v in enumerate(values))

    return Field(
        64,
        doc,
        pack,
        lambda bits: tuple(bits >> (16 * i) & 0xFFFF for i in range(DIMENSIONS)),
        lambda v: "x".join(map(str, v)),
        lambda s: tuple(int(x) for x in s.split("x")),
        "shape",
    )


_PATTERN_TEXT = re.compile(r"@(0x[0-9a-f]+)(?:\+r(\d+))?\{([-\d,]+)\}")


def _show_operand(value: Operand) -> str:
    if isinstance(value, RegisterValue):
        return f"r{value.register}"
    offset = f"+r{value.register}" if value.register else ""
    return f"@{value.base:#x}{offset}{{{','.join(map(str, value.strides))}}}"


def _read_operand(text: str) -> Operand:
    if match := _PATTERN_TEXT.fullmatch(text):
        strides = tuple(int(s) for s in match[3].split(","))
        return AccessPattern(int(match[1], 16), strides, int(match[2] or 0))  # type: ignore[arg-type]
    if re.fullmatch(r"r\d+", text):
        return RegisterValue(int(text[1:]))
    raise EncodingError(f"operand {text!r} is neither a register (r7) nor an access pattern (@0x100{{0,0,8,1}})")


def _pack_operand(value: Operand) -> int:
    if isinstance(value, RegisterValue):
        return 1 << IS_REGISTER_BIT | _check_range(value.register, 0, REGISTER_COUNT, "register") << REGISTER_BIT
    bits = _check_range(value.base, 0, 1 << SCRATCHPAD_ADDRESS_BITS, "scratchpad address")
    bits |= _check_range(value.register, 0, REGISTER_COUNT, "register") << REGISTER_BIT
    if len(value.strides) != DIMENSIONS:
        raise EncodingError(f"access pattern {value!r} has not {DIMENSIONS} strides")
    half = 1 << (STRIDE_BITS - 1)
    for i, stride in enumerate(value.strides):
        bits |= (_check_range(stride, -half, half, "stride") & (2 * half - 1)) << (STRIDES_BIT + STRIDE_BITS * i)
    return bits


def _unpack_operand(bits: int) -> Operand:
    register_number = bits >> REGISTER_BIT & 255
    if bits >> IS_REGISTER_BIT & 1:
        return RegisterValue(register_number)
    mask = (1 << STRIDE_BITS) - 1
    strides = tuple(
        _two_complement(bits >> (STRIDES_BIT + STRIDE_BITS * i) & mask, STRIDE_BITS) for i in range(DIMENSIONS)
    )
    return AccessPattern(bits & ((1 << SCRATCHPAD_ADDRESS_BITS) - 1), strides, register_number)  # type: ignore[arg-type]


def operand(
    doc: str,
    *,
    of: ElementType = "dtype",
    over: Callable[[Any], tuple[int, ...]] | None = None,
    written: bool = False,
    reads_if: str | None = None,
    scalar: bool = False,
    picked: bool = False,
) -> Any:
    """A tile operand. `of`: its element type. `over`: the extents it has, if they are not the instruction's shape.
    `written`: the instruction writes it; then `reads_if` names the flag with which it reads it too. `scalar`: a
    register value is allowed too. `picked`: which of its elements are read is up to an index."""

    def pack(value: Operand) -> int:
        if isinstance(value, RegisterValue) and not scalar:
            raise EncodingError(f"{doc}: a register value is not allowed here")
        return _pack_operand(value)

    kind = "written tile" if written else "tile or register" if scalar else "tile"
    return Field(
        TILE_BITS,
        doc,
        pack,
        _unpack_operand,
        _show_operand,
        _read_operand,
        kind,
        of=of,
        over=over,
        reads=not written,
        writes=written,
        reads_if=reads_if,
        picked=picked,
    )


class Instruction:
    """Base of all instructions. Class attributes are set by `instruction`; `fields` starts after opcode and
    length."""

    opcode: ClassVar[int]
    mnemonic: ClassVar[str]
    unit: ClassVar[Unit]
    fields: ClassVar[tuple[Field, ...]]
    operand_fields: ClassVar[tuple[Field, ...]]
    offsets: ClassVar[tuple[int, ...]]
    word_count: ClassVar[int]
    meaning: ClassVar[str]
    numerics: ClassVar[str]
    cost: ClassVar[Any]

    @property
    def queue(self) -> Unit:
        """The queue this instruction goes to (the sequencer's own instructions: SEQUENCER)."""
        return self.unit

    @property
    def target_index(self) -> int | None:
        """The branch target, for instructions that have one."""
        return getattr(self, "target", None)


Declared = TypeVar("Declared", bound=Instruction)


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(
        register,
        registers,
        semaphore,
        unsigned,
        scratchpad_address,
        rotation,
        signed,
        flag,
        dtype,
        choice,
        target,
        shape,
        operand,
    ),
)
def _declares_fields(cls: type[Declared]) -> type[Declared]:
    return cls


@_declares_fields
class Queued(Instruction):
    """Base of the instructions that wait in a queue: what they take before they start and give when they end."""

    wait_a: int = semaphore("semaphore taken before the start (0: none)", default=0)
    wait_b: int = semaphore("second semaphore taken before the start", default=0)
    signal_a: int = semaphore("semaphore given at the end (0: none)", default=0)
    signal_b: int = semaphore("second semaphore given at the end", default=0)


@dataclasses.dataclass(frozen=True, slots=True)
class OperandUse:
    """One operand of an instruction: where it is, what its elements are, over which extents the instruction walks it,
    and what happens to it. `picked`: which of its elements are read is up to an index."""

    name: str
    operand: Operand
    dtype: DType
    extents: tuple[int, ...]
    reads: bool
    writes: bool
    picked: bool


def operand_dtype(kind: type[Instruction], name: str, facts: object) -> DType:
    """Element type of operand `name`. `facts` has the instruction's fields as attributes: the instruction itself, or
    one to be."""
    return _element_dtype(next(field for field in kind.operand_fields if field.name == name), facts)


def _element_dtype(field: Field, facts: object) -> DType:
    of = field.of
    if isinstance(of, str):
        found: DType = getattr(facts, of)
        return found
    assert of is not None
    return of if isinstance(of, DType) else of(facts)


def operands(item: Instruction) -> list[OperandUse]:
    """Every operand of an instruction that is a tile or a register in its place, in the order of its fields."""
    return [
        OperandUse(
            field.name,
            getattr(item, field.name),
            _element_dtype(field, item),
            field.over(item) if field.over else item.shape,  # type: ignore[attr-defined]
            field.reads or (field.reads_if is not None and getattr(item, field.reads_if)),
            field.writes,
            field.picked,
        )
        for field in type(item).operand_fields
    ]


def tiles(item: Instruction) -> list[tuple[OperandUse, AccessPattern]]:
    """The operands that are tiles, each with its access pattern."""
    return [(use, use.operand) for use in operands(item) if isinstance(use.operand, AccessPattern)]


def read_registers(kind: type[Instruction]) -> tuple[str, ...]:
    """The fields that each name one register whose value the instruction reads, in order."""
    return tuple(field.name for field in kind.fields if field.kind == "register" and field.reads)


def written_register(item: Instruction) -> int:
    """The register an instruction of the sequencer writes; 0 if none."""
    names = [field.name for field in item.fields if field.kind == "register" and field.writes]
    return getattr(item, names[0]) if names else 0


@dataclasses.dataclass(frozen=True)
class RegisterPlace:
    """A register named by a field (`part` of several): the bit of the instruction where its number begins."""

    field: str
    part: int
    bit: int

    def register_of(self, item: Instruction) -> int:
        """Its number in an instruction; 0 in the place of a tile that no register displaces."""
        value = getattr(item, self.field)
        if isinstance(value, tuple):
            return int(value[self.part])
        return int(value if isinstance(value, int) else value.register)


def register_places(kind: type[Instruction]) -> tuple[RegisterPlace, ...]:
    """Every register an instruction names, in the order their contents have in a queue's entry."""
    places = []
    for field, offset in zip(kind.fields, kind.offsets, strict=True):
        if field.kind == "register":
            places.append(RegisterPlace(field.name, 0, offset))
        elif field.kind == "registers":
            places += [RegisterPlace(field.name, part, offset + 8 * part) for part in range(4)]
        elif field.is_operand:
            places.append(RegisterPlace(field.name, 0, offset + REGISTER_BIT))
    return tuple(places)


REGISTRY: dict[int, type[Instruction]] = {}
BY_MNEMONIC: dict[str, type[Instruction]] = {}


def _lay_out(fields: list[Field], first_bit: int) -> tuple[tuple[int, ...], int]:
    """Places fields from `first_bit` up, in order; none straddles a word unless it starts one."""
    offsets, position = [], first_bit
    for field in fields:
        room = WORD_BITS - position % WORD_BITS
        if field.width > room and room != WORD_BITS:
            position += room
        offsets.append(position)
        position += field.width
    return tuple(offsets), -(-position // WORD_BITS)


OPCODE_BITS, LENGTH_BITS = 8, 4


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(
        register,
        registers,
        semaphore,
        unsigned,
        scratchpad_address,
        rotation,
        signed,
        flag,
        dtype,
        choice,
        target,
        shape,
        operand,
    ),
)
def instruction(
    opcode: int, mnemonic: str, unit: Unit, *, meaning: str, cost: Callable[..., Any], numerics: str = "Exact."
) -> Callable[[type[Declared]], type[Declared]]:
    """Makes a class of annotated fields an instruction. The docstring is its summary; `meaning` is the
    pseudo-code, `numerics` a paragraph of its manual page, `cost` a function of `tapeout.isa.costs`. Instructions of a
    queue get the semaphore fields."""

    def build(cls: type[Declared]) -> type[Declared]:
        declared: dict[str, Field] = {}
        if issubclass(cls, Queued):
            declared |= {name: vars(Queued)[name] for name in Queued.__annotations__}
        for name in cls.__annotations__:
            declared[name] = vars(cls)[name]
        named = {name: dataclasses.replace(field, name=name) for name, field in declared.items()}
        own = [name for name in cls.__annotations__]
        order = own + [name for name in named if name not in own]
        members = [
            (name, Any)
            if named[name].default is REQUIRED
            else (name, Any, dataclasses.field(default=named[name].default))
            for name in order
        ]
        members.sort(key=lambda member: len(member))
        extra = {k: v for k, v in vars(cls).items() if isinstance(v, property)}
        made: Any = dataclasses.make_dataclass(cls.__name__, members, bases=cls.__bases__, frozen=True, namespace=extra)
        made.__doc__, made.__module__ = cls.__doc__, cls.__module__
        made.opcode, made.mnemonic, made.unit = opcode, mnemonic, unit
        made.meaning, made.numerics, made.cost = meaning, numerics, staticmethod(cost)
        made.fields = tuple(named.values())
        made.operand_fields = tuple(field for field in made.fields if field.is_operand)
        made.offsets, made.word_count = _lay_out(list(made.fields), OPCODE_BITS + LENGTH_BITS)
        if opcode in REGISTRY or mnemonic in BY_MNEMONIC:
            raise EncodingError(f"{mnemonic}: opcode {opcode:#x} or mnemonic is taken")
        definition: type[Declared] = made
        REGISTRY[opcode] = BY_MNEMONIC[mnemonic] = definition
        return definition

    return build
