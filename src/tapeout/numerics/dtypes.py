"""The element types a chip knows: name, width, kind and the code used in instructions.

Everything that handles an element asks here for its width and names; rounding is in `functions`.
"""

import enum
import math
import struct


class DType(enum.Enum):
    """An element type. `code` is its number in an instruction; `bits` its width in memory.

    An i1 in memory is a byte: true if it is not 0, written as 0 or 1. In a register it is the lowest bit.

    `triton_name` is what Triton's signatures say, `long_name` what a chip's description and figures say of its rate:
    the two float8 types share one.
    """

    F32 = ("f32", 0, 32, "float", "fp32", "float32")
    BF16 = ("bf16", 1, 16, "float", "bf16", "bfloat16")
    F16 = ("f16", 2, 16, "float", "fp16", "float16")
    F8E4M3 = ("f8e4m3", 3, 8, "float", "fp8e4nv", "float8")
    F8E5M2 = ("f8e5m2", 4, 8, "float", "fp8e5", "float8")
    F64 = ("f64", 5, 64, "float", "fp64", "float64")
    I1 = ("i1", 6, 8, "int", "i1", "bool")
    I8 = ("i8", 7, 8, "int", "i8", "int8")
    I16 = ("i16", 8, 16, "int", "i16", "int16")
    I32 = ("i32", 9, 32, "int", "i32", "int32")
    I64 = ("i64", 10, 64, "int", "i64", "int64")

    def __init__(self, label: str, code: int, bits: int, kind: str, triton_name: str, long_name: str) -> None:
        self.label = label
        self.code = code
        self.bits = bits
        self.kind = kind
        self.triton_name = triton_name
        self.long_name = long_name

    @property
    def size_bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"DType.{self.name}"


BY_LABEL = {dtype.label: dtype for dtype in DType}
BY_CODE = {dtype.code: dtype for dtype in DType}


def exact_bits(value: float, dtype: DType) -> int:
    """Bits of a value that the float type represents exactly (or NaN: the canonical one), as an unsigned
    integer."""
    if math.isnan(value):
        return CANONICAL_NAN[dtype]
    if dtype is DType.F64:
        return int.from_bytes(struct.pack("<d", value), "little")
    if dtype in (DType.F32, DType.BF16):
        bits = int.from_bytes(struct.pack("<f", value), "little")
        return bits >> (32 - dtype.bits)
    if dtype in (DType.F16, DType.F8E5M2):
        bits = int.from_bytes(struct.pack("<e", value), "little")
        return bits >> (16 - dtype.bits)
    sign = 0x80 if math.copysign(1.0, value) < 0 else 0
    _, exponent = math.frexp(abs(value))
    if value == 0.0:
        return sign
    exponent = max(exponent - 1, -6)
    significand = int(abs(value) / 2.0 ** (exponent - 3))
    return sign | ((exponent + 7) << 3) + significand - 8 if significand >= 8 else sign | significand


CANONICAL_NAN = {
    DType.F32: 0x7FC00000,
    DType.BF16: 0x7FC0,
    DType.F16: 0x7E00,
    DType.F64: 0x7FF8000000000000,
    DType.F8E4M3: 0x7F,
    DType.F8E5M2: 0x7E,
}
"""The one NaN that arithmetic yields."""
