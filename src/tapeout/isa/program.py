"""A Program: the instructions of one kernel and what a launch must provide. Encoded, it is the binary the
chip runs.

Encoding: a header (magic, version, lengths, checksum), a JSON description, then 64-bit little-endian words.
Every instruction starts with its opcode (8 bits) and its length in words (4 bits); its other fields follow
in order, none across a word boundary unless it is wider than what a word has left at its start.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from tapeout.isa import definitions  # noqa: F401  (fills the registry)
from tapeout.isa.fields import (
    BY_MNEMONIC,
    LENGTH_BITS,
    OPCODE_BITS,
    REGISTRY,
    REQUIRED,
    WORD_BITS,
    EncodingError,
    Instruction,
)
from tapeout.isa.printing import PrintFormat

MAGIC = b"TAPEOUT\0"
VERSION = 1
_HEADER = struct.Struct("<8sIIQI")


@dataclass(frozen=True)
class Parameter:
    """One launch argument: its name, Triton type (`*fp32`, `i32`, `fp32`, ...) and whether the kernel
    writes through it."""

    name: str
    type: str


@dataclass(frozen=True)
class Program:
    """The binary that runs on the chip.

    `scratchpad_bytes`: how much scratchpad a core needs. `workspace_bytes`: private HBM a core needs.
    `order_free`: programs of the grid share nothing they write (no atomics), so they may run in any order.
    `lines`: for each instruction an index into `locations` ("file:line"), or -1.
    `messages`: what trap codes mean. `prints`: what records in the print buffer mean; if there are any, the last
    parameter is that buffer's address.
    """

    name: str
    chip: str
    instructions: tuple[Instruction, ...]
    parameters: tuple[Parameter, ...] = ()
    scratchpad_bytes: int = 0
    workspace_bytes: int = 0
    order_free: bool = True
    lines: tuple[int, ...] = ()
    locations: tuple[str, ...] = ()
    messages: tuple[str, ...] = field(default=())
    prints: tuple[PrintFormat, ...] = ()

    def location(self, index: int) -> str:
        """Source line ("file:line") of an instruction, or "unknown"."""
        line = self.lines[index] if index < len(self.lines) else -1
        return self.locations[line] if line >= 0 else "unknown"

    @cached_property
    def text(self) -> str:
        """Assembly: one instruction a line, branch targets as labels L<index>."""
        targets = {i.target_index for i in self.instructions if i.target_index is not None}
        lines = []
        for index, item in enumerate(self.instructions):
            if index in targets:
                lines.append(f"L{index}:")
            lines.append("    " + show(item))
        return "\n".join(lines) + "\n"

    def encode(self) -> bytes:
        """The binary. `Program.decode(program.encode()) == program`."""
        facts = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "instructions"}
        facts |= {name: [asdict(part) for part in facts[name]] for name in ("parameters", "prints")}
        description = json.dumps(facts, separators=(",", ":")).encode()
        words = encode(self.instructions)
        content = description + words
        return _HEADER.pack(MAGIC, VERSION, len(description), len(words), zlib.crc32(content)) + content

    @staticmethod
    def decode(data: bytes) -> "Program":
        if len(data) < _HEADER.size or not data.startswith(MAGIC):
            raise EncodingError("not a program: the header is missing")
        _, version, description_bytes, word_bytes, checksum = _HEADER.unpack_from(data)
        if version != VERSION:
            raise EncodingError(f"program of format {version}; this release reads format {VERSION}")
        expected_bytes = _HEADER.size + description_bytes + word_bytes
        if len(data) != expected_bytes:
            raise EncodingError(f"program is cut off: {len(data)} bytes, {expected_bytes} expected")
        content = data[_HEADER.size :]
        if zlib.crc32(content) != checksum:
            raise EncodingError("program is damaged: its checksum does not match")
        facts = json.loads(content[:description_bytes])
        facts["parameters"] = tuple(Parameter(**p) for p in facts["parameters"])
        facts["prints"] = tuple(PrintFormat.from_facts(p) for p in facts["prints"])
        for name in ("lines", "locations", "messages"):
            facts[name] = tuple(facts[name])
        return Program(instructions=decode(content[description_bytes:]), **facts)


def encode(instructions: Sequence[Instruction]) -> bytes:
    """Bits of a sequence of instructions. Branch targets become word numbers."""
    starts, position = [], 0
    for item in instructions:
        starts.append(position)
        position += item.word_count
    out = bytearray()
    for item in instructions:
        bits = item.opcode | item.word_count << OPCODE_BITS
        for spec, offset in zip(item.fields, item.offsets, strict=True):
            value = getattr(item, spec.name)
            try:
                if spec.kind == "target":
                    value = starts[value]
                bits |= spec.pack(value) << offset
            except (EncodingError, IndexError, AttributeError) as error:
                raise EncodingError(f"{item.mnemonic}: {spec.name}={value!r}: {error}") from None
        out += bits.to_bytes(item.word_count * WORD_BITS // 8, "little")
    return bytes(out)


def decode(data: bytes) -> tuple[Instruction, ...]:
    """Instructions of a sequence of words. Branch targets become instruction indices."""
    if len(data) % 8:
        raise EncodingError(f"{len(data)} bytes are not whole 64-bit words")
    items: list[tuple[type[Instruction], dict[str, object]]] = []
    index_of_word: dict[int, int] = {}
    position, word_count = 0, len(data) // 8
    while position < word_count:
        first = int.from_bytes(data[8 * position : 8 * position + 8], "little")
        kind = REGISTRY.get(first & 255)
        if kind is None:
            raise EncodingError(f"word {position}: opcode {first & 255:#x} is not an instruction")
        length = first >> OPCODE_BITS & ((1 << LENGTH_BITS) - 1)
        if length != kind.word_count or position + length > word_count:
            raise EncodingError(f"word {position}: {kind.mnemonic} takes {kind.word_count} words, not {length}")
        bits = int.from_bytes(data[8 * position : 8 * (position + length)], "little")
        values = {}
        for spec, offset in zip(kind.fields, kind.offsets, strict=True):
            try:
                values[spec.name] = spec.unpack(bits >> offset & ((1 << spec.width) - 1))
            except KeyError as error:
                raise EncodingError(f"word {position}: {kind.mnemonic}: {spec.name}={error} is not defined") from None
        index_of_word[position] = len(items)
        items.append((kind, values))
        position += length
    out = []
    for kind, values in items:
        if "target" in values:
            if values["target"] not in index_of_word:
                raise EncodingError(f"{kind.mnemonic}: word {values['target']} does not start an instruction")
            values["target"] = index_of_word[values["target"]]
        out.append(kind(**values))
    if encode(out) != data:  # so that every program has one encoding only
        raise EncodingError("bits that no field uses are not zero, or a field holds what it must not")
    return tuple(out)


def show(item: Instruction) -> str:
    """One line of assembly: mnemonic, then field=value for every field that is not at its default."""
    parts = [item.mnemonic]
    for spec in item.fields:
        value = getattr(item, spec.name)
        if value != spec.default:
            parts.append(f"{spec.name}={spec.show(value)}")
    return " ".join(parts)


def assemble(text: str) -> tuple[Instruction, ...]:
    """Instructions of assembly text. `;` starts a comment. Labels are any word followed by a colon."""
    lines: list[tuple[int, str]] = []
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split(";")[0].strip()
        if line.endswith(":"):
            labels[line[:-1]] = len(lines)
        elif line:
            lines.append((number, line))
    out = []
    for number, line in lines:
        mnemonic, *parts = line.split()
        kind = BY_MNEMONIC.get(mnemonic)
        if kind is None:
            raise EncodingError(f"line {number}: {mnemonic!r} is not an instruction")
        specs = {spec.name: spec for spec in kind.fields}
        values = {}
        for part in parts:
            name, _, value = part.partition("=")
            if name not in specs:
                raise EncodingError(f"line {number}: {mnemonic} has no field {name!r}; it has {', '.join(specs)}")
            try:
                values[name] = labels[value] if specs[name].kind == "target" else specs[name].read(value)
            except (KeyError, ValueError) as error:
                raise EncodingError(f"line {number}: {mnemonic}: {name}={value!r} is not legal ({error})") from None
        try:
            out.append(kind(**values))
        except TypeError:
            missing = [name for name, spec in specs.items() if name not in values and spec.default is REQUIRED]
            raise EncodingError(f"line {number}: {mnemonic} lacks {', '.join(missing)}") from None
    return tuple(out)
