"""Output of a kernel's prints: the layout of records in the print buffer, and their text.

A kernel that prints has one parameter more, the address of a buffer in HBM of `BUFFER_BYTES`. Its first word counts
the bytes of records; each record is the number of its `PrintFormat` and the program's coordinates (`RECORD_WORDS`
i32), then the operands, row-major, each padded to `ALIGNMENT_BYTES`. A record that no longer fits is counted and left
out.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tapeout.numerics.dtypes import BY_LABEL, DType

BUFFER_BYTES = 1 << 20
START_BYTES = 16
CAPACITY_BYTES = BUFFER_BYTES - START_BYTES
RECORD_WORDS = 4
ALIGNMENT_BYTES = 8
PARAMETER = "print buffer"

_FORMATS = {
    DType.F32: "f",
    DType.F64: "d",
    DType.F16: "e",
    DType.I8: "b",
    DType.I16: "h",
    DType.I32: "i",
    DType.I64: "q",
}


@dataclass(frozen=True)
class PrintOperand:
    """`kind` is "signed", "unsigned", "float" or "pointer"."""

    dtype: str
    shape: tuple[int, ...]
    kind: str

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements, and of the padding after them."""
        count = 1
        for extent in self.shape:
            count *= extent
        return -(-count * BY_LABEL[self.dtype].size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class PrintFormat:
    """One print statement: the text before each element, and what is printed."""

    prefix: str
    hexadecimal: bool
    operands: tuple[PrintOperand, ...]

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "PrintFormat":
        """The inverse of `dataclasses.asdict` and JSON."""
        operands = (PrintOperand(p["dtype"], tuple(p["shape"]), p["kind"]) for p in facts["operands"])
        return PrintFormat(facts["prefix"], facts["hexadecimal"], tuple(operands))

    @property
    def record_bytes(self) -> int:
        return 4 * RECORD_WORDS + sum(operand.size_bytes for operand in self.operands)


def read_lines(buffer: bytes, formats: tuple[PrintFormat, ...]) -> Iterator[str]:
    """The text of a buffer's records, one line an element, as Triton prints on other devices."""
    (used,) = struct.unpack_from("<i", buffer)
    position, end = START_BYTES, START_BYTES + min(used, CAPACITY_BYTES)
    while position < end:
        number, x, y, z = struct.unpack_from("<4i", buffer, position)
        form = formats[number]
        if position + form.record_bytes > end:
            break
        place = position + 4 * RECORD_WORDS
        if not form.operands:
            yield f"pid ({x}, {y}, {z}){form.prefix}"
        for k, operand in enumerate(form.operands):
            label = f"(operand {k}) " if len(form.operands) > 1 else ""
            widths = [len(str(extent)) for extent in operand.shape]
            for i, index in enumerate(itertools.product(*map(range, operand.shape))):
                shown = ", ".join(f"{v:{w}}" for v, w in zip(index, widths, strict=True))
                element = _show_element(buffer, place, i, operand, form.hexadecimal)
                yield f"pid ({x}, {y}, {z}) idx ({shown}){form.prefix}{label}{element}"
            place += operand.size_bytes
        position += form.record_bytes
    if used > position - START_BYTES:
        yield f"{used - (position - START_BYTES)} bytes more were printed than the buffer of {BUFFER_BYTES} holds"


def _show_element(buffer: bytes, place: int, index: int, operand: PrintOperand, hexadecimal: bool) -> str:
    dtype = BY_LABEL[operand.dtype]
    code = _FORMATS[dtype]
    if operand.kind != "signed" or hexadecimal:
        code = code.upper() if not dtype.is_float else code
    (value,) = struct.unpack_from("<" + code, buffer, place + index * dtype.size_bytes)
    if operand.kind == "pointer" or (hexadecimal and not dtype.is_float):
        return f"0x{value:0{dtype.bits // 4}x}"
    return f"{value:f}" if dtype.is_float else str(value)
