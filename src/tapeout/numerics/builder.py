"""The primitive operations from which every function of the chip is spelled out.

`tapeout.numerics.functions` writes each vector and scalar function once, over a `Builder`. A builder gives
the primitives a meaning: NumPy arrays (`numpy_builder`, the reference), LLVM vectors (the functional
simulator), RTL. The vocabulary is what a CPU's vector unit and a hardware lane have in common; whatever two
of them would do differently (NaN payloads, shifts beyond the width, out-of-range conversions, division by
zero) is left out here and settled by `functions`.
"""

import enum
from typing import Protocol, TypeVar

from tapeout.numerics.dtypes import DType


class Kind(enum.Enum):
    """Type of a value inside a computation. Integers have no sign; the operation says how bits are read."""

    BOOL = ("bool", 1)
    I8 = ("i8", 8)
    I16 = ("i16", 16)
    I32 = ("i32", 32)
    I64 = ("i64", 64)
    F32 = ("f32", 32)
    F64 = ("f64", 64)

    def __init__(self, label: str, bits: int) -> None:
        self.label = label
        self.bits = bits

    @property
    def is_float(self) -> bool:
        return self in (Kind.F32, Kind.F64)

    @property
    def is_integer(self) -> bool:
        return self in (Kind.I8, Kind.I16, Kind.I32, Kind.I64)

    def __repr__(self) -> str:
        return f"Kind.{self.name}"


KIND_OF_DTYPE = {
    DType.F32: Kind.F32,
    DType.BF16: Kind.I16,
    DType.F16: Kind.I16,
    DType.F8E4M3: Kind.I8,
    DType.F8E5M2: Kind.I8,
    DType.F64: Kind.F64,
    DType.I1: Kind.BOOL,
    DType.I8: Kind.I8,
    DType.I16: Kind.I16,
    DType.I32: Kind.I32,
    DType.I64: Kind.I64,
}
"""Kind in which an element enters and leaves a function: float types without an arithmetic of their own as their
bits. An i1 element in memory is a byte: true if it is not 0, written as 0 or 1."""

INTEGER_OF_BITS = {8: Kind.I8, 16: Kind.I16, 32: Kind.I32, 64: Kind.I64}

V = TypeVar("V")


class Builder(Protocol[V]):
    """Elementwise primitives on values of type V (an array, an LLVM vector, a signal).

    A value knows its kind. Operands of one operation have the same kind and length, conditions being BOOL.
    Nothing here traps. "Unspecified" results must still be a value: functions never let one through.

    Floats are IEEE 754, rounded to nearest even, subnormals kept on input and output. Where a float
    operation gives a NaN, its sign and payload are unspecified until `canonical` is applied: a builder may
    emit `canonical` where it is called, or later, at the value's first use that can tell (`bitcast`,
    `select` into a stored value, the store itself).
    """

    def kind(self, value: V) -> Kind: ...

    def const(self, kind: Kind, value: int | float | bool, like: V) -> V:
        """A constant, as long as `like`. Floats are exactly representable; integers may be given signed or
        unsigned."""
        ...

    # floats (F32, F64); add, sub, mul also wrap integers

    def add(self, a: V, b: V) -> V:
        """a + b; integers wrap."""
        ...

    def sub(self, a: V, b: V) -> V:
        """a - b; integers wrap."""
        ...

    def mul(self, a: V, b: V) -> V:
        """a * b; integers keep the low half."""
        ...

    def div(self, a: V, b: V) -> V:
        """a / b, floats."""
        ...

    def sqrt(self, a: V) -> V: ...

    def fma(self, a: V, b: V, c: V) -> V:
        """a * b + c, floats, rounded once."""
        ...

    def floor(self, a: V) -> V: ...

    def ceil(self, a: V) -> V: ...

    def trunc(self, a: V) -> V: ...

    def round_even(self, a: V) -> V:
        """Nearest integer, ties to even. Like floor, ceil and trunc it keeps the sign of a zero result."""
        ...

    def is_nan(self, a: V) -> V: ...

    def canonical(self, a: V) -> V:
        """a, or the canonical NaN of its kind (0x7fc00000, 0x7ff8000000000000) if it is a NaN."""
        ...

    # comparisons; on floats false with NaN, except `ne`, which is true

    def eq(self, a: V, b: V) -> V: ...

    def ne(self, a: V, b: V) -> V: ...

    def lt(self, a: V, b: V) -> V:
        """a < b, floats or signed integers."""
        ...

    def le(self, a: V, b: V) -> V:
        """a <= b, floats or signed integers."""
        ...

    def ult(self, a: V, b: V) -> V:
        """a < b, unsigned integers."""
        ...

    def ule(self, a: V, b: V) -> V:
        """a <= b, unsigned integers."""
        ...

    # bits (integers and BOOL)

    def and_(self, a: V, b: V) -> V: ...

    def or_(self, a: V, b: V) -> V: ...

    def xor(self, a: V, b: V) -> V: ...

    def not_(self, a: V) -> V: ...

    def select(self, condition: V, a: V, b: V) -> V:
        """a where condition, else b; any kind, bits unchanged."""
        ...

    # integers

    def shl(self, a: V, amount: V) -> V:
        """a << amount; unspecified unless 0 <= amount < bits."""
        ...

    def shr_s(self, a: V, amount: V) -> V:
        """a >> amount, sign fill; unspecified unless 0 <= amount < bits."""
        ...

    def shr_u(self, a: V, amount: V) -> V:
        """a >> amount, zero fill; unspecified unless 0 <= amount < bits."""
        ...

    def div_s(self, a: V, b: V) -> V:
        """Signed quotient toward zero. b is never 0, nor -1 with the smallest a."""
        ...

    def div_u(self, a: V, b: V) -> V:
        """Unsigned quotient; b is never 0."""
        ...

    def rem_s(self, a: V, b: V) -> V:
        """a - b * div_s(a, b), under the same conditions."""
        ...

    def rem_u(self, a: V, b: V) -> V:
        """a - b * div_u(a, b); b is never 0."""
        ...

    def leading_zeros(self, a: V) -> V:
        """Number of zero bits above the highest one bit; the width for 0."""
        ...

    def population_count(self, a: V) -> V: ...

    # from kind to kind

    def bitcast(self, a: V, kind: Kind) -> V:
        """The same bits as another kind of the same width (not BOOL)."""
        ...

    def sign_extend(self, a: V, kind: Kind) -> V:
        """To a wider integer (or the same)."""
        ...

    def zero_extend(self, a: V, kind: Kind) -> V:
        """To a wider integer (or the same); from BOOL: 0 or 1."""
        ...

    def truncate(self, a: V, kind: Kind) -> V:
        """Low bits, as a narrower integer (or the same)."""
        ...

    def float_convert(self, a: V, kind: Kind) -> V:
        """F32 to F64 (exact) or F64 to F32 (rounded to nearest even)."""
        ...

    def f32_from_f16_bits(self, a: V) -> V:
        """I16 holding an IEEE half to F32, exact; a NaN gives a NaN."""
        ...

    def f16_bits_from_f32(self, a: V) -> V:
        """F32 to the bits of the nearest IEEE half, as I16. The canonical NaN gives 0x7e00; no other NaN is
        asked."""
        ...

    def float_from_signed(self, a: V, kind: Kind) -> V:
        """Signed I32 or I64 to F32 or F64, rounded once to nearest even."""
        ...

    def float_from_unsigned(self, a: V, kind: Kind) -> V:
        """Unsigned I32 or I64 to F32 or F64, rounded once to nearest even."""
        ...

    def signed_from_float(self, a: V, kind: Kind) -> V:
        """F32 or F64 to I32 or I64, toward zero; unspecified for NaN and where the result does not fit."""
        ...

    def unsigned_from_float(self, a: V, kind: Kind) -> V:
        """F32 or F64 to unsigned I32 or I64, toward zero; unspecified for NaN and where the result does not
        fit."""
        ...
