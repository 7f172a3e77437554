"""Parts of a floating-point number, scaling by powers of two, and constants in two or three parts."""

import math

from tapeout.numerics.dtypes import DType
from tapeout.passes.math.formula import INFINITY, Term, bits, from_bits, select

MANTISSA_BITS = {DType.F32: 23, DType.F64: 52}
BIAS = {DType.F32: 127, DType.F64: 1023}
LOG2_E, LN_2, LN_10, PI = 1 / math.log(2), math.log(2), math.log(10), math.pi
SPLIT = {  # constants as sums of numbers of the type, the first with few enough bits for exact small multiples
    "ln 2": {
        DType.F32: tuple(map(float.fromhex, ("0x1.62e4p-1", "0x1.7f7d1cp-20", "0x1.ef35793p-45"))),
        DType.F64: tuple(
            map(float.fromhex, ("0x1.62e42fee00000p-1", "0x1.a39ef35793c76p-33", "0x1.cc01f97b57a08p-87"))
        ),
    },
    "ln 10": {
        DType.F32: tuple(map(float.fromhex, ("0x1.26bb1cp+1", "-0x1.12aabap-25"))),
        DType.F64: tuple(map(float.fromhex, ("0x1.26bb1bbb55516p+1", "-0x1.f48ad494ea3e9p-53"))),
    },
    "pi / 2": {
        DType.F32: tuple(map(float.fromhex, ("0x1.921fb6p+0", "-0x1.777a5cp-25"))),
        DType.F64: tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54"))),
    },
    "2 / 3": {
        DType.F32: tuple(map(float.fromhex, ("0x1.555556p-1", "-0x1.555556p-26"))),
        DType.F64: tuple(map(float.fromhex, ("0x1.5555555555555p-1", "0x1.5555555555555p-55"))),
    },
}
LARGEST_EXPONENT = {DType.F32: 90.0, DType.F64: 711.0}
SMALLEST_EXPONENT = {DType.F32: -105.0, DType.F64: -746.0}
WIDE_EXPONENT = {DType.F32: 130.0, DType.F64: 1060.0}
"""Range of exponents that `scale` can reach, on both sides."""


def clamp(a: Term, low: float, high: float) -> Term:
    """low if a < low, high if a > high, else a; a NaN stays."""
    a = select(a > high, high, a)
    return select(a < low, low, a)


def power_of_two(exponent: Term, dtype: DType) -> Term:
    """2**exponent, for an exponent (an integer of the float's width) that is in the normal range."""
    return from_bits((exponent + BIAS[dtype]) << MANTISSA_BITS[dtype], dtype)


def scale(a: Term, exponent: Term) -> Term:
    """a * 2**exponent, rounded once if a is near 1; the exponent may leave the normal range by half as much again."""
    half = exponent >> 1
    return a * power_of_two(half, a.dtype) * power_of_two(exponent - half, a.dtype)


def split_exponent(a: Term, above: float) -> tuple[Term, Term]:
    """a = m * 2**e with m from `above` to 2 * above (at most 1): m, and e as an integer. a positive and finite."""
    dtype, mantissa_bits = a.dtype, MANTISSA_BITS[a.dtype]
    is_subnormal = a < 2.0 ** (1 - BIAS[dtype])
    word = bits(select(is_subnormal, a * 2.0 ** (mantissa_bits + 1), a))
    exponent = (word - bits(a.constant(above))) >> mantissa_bits
    mantissa = from_bits(word - (exponent << mantissa_bits), dtype)
    return mantissa, select(is_subnormal, exponent - (mantissa_bits + 1), exponent)


def sign_bit(a: Term) -> Term:
    return bits(a) < 0


def is_infinite(a: Term) -> Term:
    return abs(a).equals(INFINITY)


def is_finite(a: Term) -> Term:
    return abs(a) < INFINITY
