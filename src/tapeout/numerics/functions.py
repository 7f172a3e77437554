"""Definition of every function, conversion and accumulation step of the chip, bit for bit.

Written once, over the primitives of `tapeout.numerics.builder`; the reference evaluator, the functional
simulator and the RTL's tests all run this text. Operands and results travel as `KIND_OF_DTYPE` says.

Rules that hold throughout: round to nearest even; subnormals are kept; a NaN that arithmetic produces is the
canonical NaN of its type, while neg, abs, copy and select move bits. bf16 and f16 arithmetic widens to f32
(exact), computes there and rounds once more, which for +, -, *, / and sqrt gives the correctly rounded
result.

The special functions were fitted here: minimax polynomials (Lawson iteration, coefficients rounded to f32
one after the other), evaluated with f32 fused multiply-adds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tapeout.numerics.builder import INTEGER_OF_BITS, KIND_OF_DTYPE, Builder, Kind
from tapeout.numerics.dtypes import CANONICAL_NAN, DType
from tapeout.numerics.operations import Function, Rounding

ACCURACY_ULP = {
    Function.EXP2: 0.88,
    Function.EXP: 1.02,
    Function.LOG2: 0.97,
    Function.LOG: 0.88,
    Function.SIN: 1.21,
    Function.COS: 1.21,
}
"""Largest errors of the special functions, in units of the last place of the exact result, measured over all
f32 arguments and rounded up. The others round correctly, once for each step they name."""

V = TypeVar("V")
Meaning = Callable[..., Any]
"""(builder, dtype, *operands) -> result"""

SIGN_32 = 0x8000_0000
INFINITY_BITS_32 = 0x7F80_0000
INFINITY = float("inf")

# ------------------------------------------------------------------------------------------------- formats


@dataclass(frozen=True)
class NarrowFormat:
    """A float format narrower than f32: fields, codes of its landmarks (sign bit clear) and its largest
    number."""

    mantissa_bits: int
    bias: int
    largest_code: int
    overflow_code: int
    largest: float


NARROW_FORMATS = {
    DType.BF16: NarrowFormat(7, 127, 0x7F7F, 0x7F80, float.fromhex("0x1.fep127")),
    DType.F16: NarrowFormat(10, 15, 0x7BFF, 0x7C00, 65504.0),
    DType.F8E4M3: NarrowFormat(3, 7, 0x7E, 0x7F, 448.0),
    DType.F8E5M2: NarrowFormat(2, 15, 0x7B, 0x7C, 57344.0),
}
LARGEST_F32 = float.fromhex("0x1.fffffep127")


def widen(b: Builder[V], dtype: DType, a: V) -> V:
    """An element of any float type as F32 (f64: F64), exactly. A NaN stays a NaN, not yet canonical."""
    if dtype in (DType.F32, DType.F64):
        return a
    if dtype is DType.BF16:
        return b.bitcast(_shl(b, b.zero_extend(a, Kind.I32), 16), Kind.F32)
    if dtype is DType.F16:
        return b.f32_from_f16_bits(a)
    if dtype is DType.F8E5M2:
        return b.f32_from_f16_bits(_shl(b, b.zero_extend(a, Kind.I16), 8))
    if dtype is DType.F8E4M3:
        wide = b.zero_extend(a, Kind.I32)
        magnitude = _and(b, wide, 0x7F)
        # Exponent and mantissa put where f32 has them are the value times 2**(7 - 127), subnormals included.
        scaled = _scaled(b, b.bitcast(_shl(b, magnitude, 20), Kind.F32), 127 - 7)
        is_nan = b.eq(magnitude, b.const(Kind.I32, 0x7F, magnitude))
        finite = b.or_(b.bitcast(scaled, Kind.I32), _shl(b, _and(b, wide, 0x80), 24))
        return b.bitcast(b.select(is_nan, b.const(Kind.I32, CANONICAL_NAN[DType.F32], finite), finite), Kind.F32)
    raise AssertionError(f"{dtype} is not a float type")


def narrow(b: Builder[V], dtype: DType, a: V, rounding: Rounding = Rounding.NEAREST_EVEN) -> V:
    """F32 (f64: F64) rounded to a float type, once. NaN gives the canonical NaN; overflow as `Rounding`
    says."""
    a = b.canonical(a)
    if dtype in (DType.F32, DType.F64):
        return a
    if rounding is Rounding.NEAREST_EVEN_SATURATE:
        largest = NARROW_FORMATS[dtype].largest
        a = _clamp(b, a, -largest, largest)
    if dtype is DType.BF16:
        # The two types differ in mantissa bits only, so rounding is integer arithmetic that carries into the
        # exponent; it leaves infinities and the canonical NaN alone.
        bits = b.bitcast(a, Kind.I32)
        if rounding is not Rounding.TOWARD_ZERO:
            bits = b.add(bits, _round_increment(b, bits, 16))
        return b.truncate(_shr_u(b, bits, 16), Kind.I16)
    if dtype is DType.F16 and rounding is not Rounding.TOWARD_ZERO:
        return b.f16_bits_from_f32(a)
    return _narrow_by_fields(b, dtype, a, rounding)


def _narrow_by_fields(b: Builder[V], dtype: DType, a: V, rounding: Rounding) -> V:
    form, nan_code = NARROW_FORMATS[dtype], CANONICAL_NAN[dtype]
    toward_zero = rounding is Rounding.TOWARD_ZERO
    dropped = 23 - form.mantissa_bits
    bits = b.bitcast(a, Kind.I32)
    magnitude = _and(b, bits, SIGN_32 - 1)
    rounded = magnitude if toward_zero else b.add(magnitude, _round_increment(b, magnitude, dropped))
    normal = _add(b, _shr_u(b, rounded, dropped), -((127 - form.bias) << form.mantissa_bits))
    steps = _scaled(b, b.bitcast(magnitude, Kind.F32), form.bias - 1 + form.mantissa_bits)
    steps = b.trunc(steps) if toward_zero else b.round_even(steps)
    smallest_normal = b.const(Kind.I32, (128 - form.bias) << 23, bits)
    subnormal = b.signed_from_float(steps, Kind.I32)
    code = b.select(b.lt(magnitude, smallest_normal), subnormal, normal)
    beyond = form.largest_code if toward_zero else form.overflow_code
    largest = b.const(Kind.I32, form.largest_code, bits)
    code = b.select(b.lt(largest, code), b.const(Kind.I32, beyond, bits), code)
    infinity = b.const(Kind.I32, INFINITY_BITS_32, bits)
    if toward_zero:
        code = b.select(b.eq(magnitude, infinity), b.const(Kind.I32, form.overflow_code, bits), code)
    kind = KIND_OF_DTYPE[dtype]
    code = b.or_(code, _shr_u(b, _and(b, bits, SIGN_32), 32 - kind.bits))
    is_nan = b.lt(infinity, magnitude)
    if form.overflow_code == nan_code:  # no infinity: overflow gives the one canonical NaN, without sign
        is_nan = b.or_(is_nan, b.eq(_and(b, code, nan_code), b.const(Kind.I32, nan_code, bits)))
    code = b.select(is_nan, b.const(Kind.I32, nan_code, bits), code)
    return b.truncate(code, kind)


def _round_increment(b: Builder[V], bits: V, dropped: int) -> V:
    """Return what to add before dropping low bits so that the rest is rounded to nearest even."""
    return _add(b, _and(b, _shr_u(b, bits, dropped), 1), (1 << (dropped - 1)) - 1)


def _f32_to_odd(b: Builder[V], a: V) -> V:
    """F64 to F32, rounded toward zero with the last bit set if anything was lost: rounding the result once
    more, to a narrower type, equals rounding once."""
    truncated, inexact = _f32_toward_zero(b, a)
    return b.bitcast(b.or_(truncated, b.zero_extend(inexact, Kind.I32)), Kind.F32)


def _f32_toward_zero(b: Builder[V], a: V) -> tuple[V, V]:
    """F64 to the bits of the F32 next to it toward zero, and whether that lost anything. NaN stays NaN."""
    nearest = b.canonical(b.float_convert(a, Kind.F32))
    back = b.float_convert(nearest, Kind.F64)
    magnitude, magnitude_back = _absolute(b, a), _absolute(b, back)
    above = b.lt(magnitude, magnitude_back)
    inexact = b.or_(above, b.lt(magnitude_back, magnitude))
    return b.sub(b.bitcast(nearest, Kind.I32), b.zero_extend(above, Kind.I32)), inexact


# --------------------------------------------------------------------------------------------- conversions


def convert(
    b: Builder[V],
    a: V,
    dtype: DType,
    result_dtype: DType,
    unsigned: bool = False,
    rounding: Rounding = Rounding.NEAREST_EVEN,
) -> V:
    """An element of one type as another; see the instruction `convert`."""
    if dtype.is_float and result_dtype.is_float:
        return _float_from_float(b, a, dtype, result_dtype, rounding)
    if dtype.is_float:
        return _integer_from_float(b, a, dtype, result_dtype, unsigned)
    if result_dtype.is_float:
        return _float_from_integer(b, a, dtype, result_dtype, unsigned)
    return _integer_from_integer(b, a, dtype, result_dtype, unsigned)


def _float_from_float(b: Builder[V], a: V, dtype: DType, result_dtype: DType, rounding: Rounding) -> V:
    wide = widen(b, dtype, a)
    if result_dtype is DType.F64:
        return b.canonical(wide if dtype is DType.F64 else b.float_convert(wide, Kind.F64))
    if dtype is not DType.F64:
        return narrow(b, result_dtype, wide, rounding)
    if result_dtype is not DType.F32:
        return narrow(b, result_dtype, _f32_to_odd(b, wide), rounding)
    if rounding is Rounding.TOWARD_ZERO:
        return b.bitcast(_f32_toward_zero(b, wide)[0], Kind.F32)
    if rounding is Rounding.NEAREST_EVEN_SATURATE:
        wide = _clamp(b, wide, -LARGEST_F32, LARGEST_F32)
    return b.canonical(b.float_convert(wide, Kind.F32))


def _integer_from_float(b: Builder[V], a: V, dtype: DType, result_dtype: DType, unsigned: bool) -> V:
    wide = widen(b, dtype, a)
    kind = b.kind(wide)
    if result_dtype is DType.I1:
        return b.le(b.const(kind, 1.0, wide), wide)
    bits = result_dtype.bits
    work = Kind.I64 if bits == 64 else Kind.I32
    low, end = (0, 1 << bits) if unsigned else (-(1 << (bits - 1)), 1 << (bits - 1))
    floor = b.const(kind, float(low), wide)
    from_float = b.unsigned_from_float if unsigned and bits >= 32 else b.signed_from_float
    result = from_float(b.select(b.lt(wide, floor), floor, wide), work)
    result = b.select(b.le(b.const(kind, float(end), wide), wide), b.const(work, end - 1, result), result)
    result = b.select(b.is_nan(wide), b.const(work, 0, result), result)
    return b.truncate(result, KIND_OF_DTYPE[result_dtype])


def _float_from_integer(b: Builder[V], a: V, dtype: DType, result_dtype: DType, unsigned: bool) -> V:
    work = Kind.I64 if dtype is DType.I64 else Kind.I32
    unsigned = unsigned or dtype is DType.I1
    a = b.zero_extend(a, work) if unsigned else b.sign_extend(a, work)
    from_integer = b.float_from_unsigned if unsigned else b.float_from_signed
    if result_dtype in (DType.F32, DType.F64):
        return from_integer(a, KIND_OF_DTYPE[result_dtype])
    if dtype.bits <= 16:
        return narrow(b, result_dtype, from_integer(a, Kind.F32))
    return narrow(b, result_dtype, _f32_from_integer_to_odd(b, a, unsigned))


def _f32_from_integer_to_odd(b: Builder[V], a: V, unsigned: bool) -> V:
    """I32 or I64 to F32, rounded as `_f32_to_odd` does: the leading one goes to the top, 24 bits stay, and the
    last of them is set if anything was lost."""
    kind = b.kind(a)
    zero = b.const(kind, 0, a)
    negative = b.const(Kind.BOOL, False, a) if unsigned else b.lt(a, zero)
    magnitude = b.select(negative, b.sub(zero, a), a)
    is_zero = b.eq(magnitude, zero)
    above = b.select(is_zero, zero, b.leading_zeros(magnitude))
    normal = b.shl(magnitude, above)
    lost = b.ne(_and(b, normal, (1 << (kind.bits - 24)) - 1), zero)
    leading = b.truncate(_shr_u(b, normal, kind.bits - 24), Kind.I32)
    # The leading one itself adds 1 to the exponent.
    exponent = b.sub(_const_like(b, 126 + kind.bits - 1, leading), b.truncate(above, Kind.I32))
    bits = b.or_(b.add(_shl(b, exponent, 23), leading), b.zero_extend(lost, Kind.I32))
    bits = b.select(is_zero, _const_like(b, 0, bits), bits)
    return b.bitcast(b.or_(bits, _shl(b, b.zero_extend(negative, Kind.I32), 31)), Kind.F32)


def _integer_from_integer(b: Builder[V], a: V, dtype: DType, result_dtype: DType, unsigned: bool) -> V:
    kind = KIND_OF_DTYPE[result_dtype]
    if result_dtype is DType.I1:
        return a if dtype is DType.I1 else b.ne(_and(b, a, 1), b.const(b.kind(a), 0, a))
    if result_dtype.bits < dtype.bits:
        return b.truncate(a, kind)
    return b.zero_extend(a, kind) if unsigned or dtype is DType.I1 else b.sign_extend(a, kind)


# ------------------------------------------------------------------------------------------ matrix products

MATRIX_DTYPES = (DType.F32, DType.BF16, DType.F16, DType.F8E4M3, DType.F8E5M2, DType.F64, DType.I8)
FLOAT8 = (DType.F8E4M3, DType.F8E5M2)


def accumulator_dtype(operand_dtype: DType) -> DType:
    """Return what a matrix product of elements of this type accumulates in."""
    return {DType.I8: DType.I32, DType.F64: DType.F64}.get(operand_dtype, DType.F32)


def multiply_accumulate(b: Builder[V], lhs_dtype: DType, rhs_dtype: DType, lhs: V, rhs: V, accumulator: V) -> V:
    """One step of a matrix product. Making only the last of a row of steps canonical gives the same bits."""
    if lhs_dtype is DType.I8:
        return b.add(accumulator, b.mul(b.sign_extend(lhs, Kind.I32), b.sign_extend(rhs, Kind.I32)))
    return b.canonical(b.fma(widen(b, lhs_dtype, lhs), widen(b, rhs_dtype, rhs), accumulator))


# ------------------------------------------------------------------------------------------ small vocabulary


def _const_like(b: Builder[V], value: int | float, like: V) -> V:
    return b.const(b.kind(like), value, like)


def _add(b: Builder[V], a: V, value: int | float) -> V:
    return b.add(a, _const_like(b, value, a))


def _and(b: Builder[V], a: V, mask: int) -> V:
    return b.and_(a, _const_like(b, mask, a))


def _shl(b: Builder[V], a: V, amount: int) -> V:
    return b.shl(a, _const_like(b, amount, a))


def _shr_u(b: Builder[V], a: V, amount: int) -> V:
    return b.shr_u(a, _const_like(b, amount, a))


def _shr_s(b: Builder[V], a: V, amount: int) -> V:
    return b.shr_s(a, _const_like(b, amount, a))


def _scaled(b: Builder[V], a: V, exponent: int) -> V:
    return b.mul(a, _const_like(b, 2.0**exponent, a))


def _clamp(b: Builder[V], a: V, low: float, high: float) -> V:
    """low if a < low, high if a > high, else a; a NaN stays."""
    lowest, highest = _const_like(b, low, a), _const_like(b, high, a)
    a = b.select(b.lt(highest, a), highest, a)
    return b.select(b.lt(a, lowest), lowest, a)


def _polynomial(b: Builder[V], x: V, *coefficients: float) -> V:
    """Horner's rule, highest power first, one fma a step."""
    value = _const_like(b, coefficients[0], x)
    for coefficient in coefficients[1:]:
        value = b.fma(value, x, _const_like(b, coefficient, x))
    return value


def _with_bits(b: Builder[V], a: V, change: Callable[[V, int], V]) -> V:
    """Apply change(bits, width) to the bits of a float or integer value."""
    kind = b.kind(a)
    integer = INTEGER_OF_BITS[kind.bits]
    if kind is integer:
        return change(a, kind.bits)
    return b.bitcast(change(b.bitcast(a, integer), kind.bits), kind)


def _absolute(b: Builder[V], a: V) -> V:
    return _with_bits(b, a, lambda bits, width: _and(b, bits, (1 << (width - 1)) - 1))


def _negated(b: Builder[V], a: V) -> V:
    return _with_bits(b, a, lambda bits, width: b.xor(bits, _const_like(b, 1 << (width - 1), bits)))


# ----------------------------------------------------------------------------------------------- exp and log

ROUNDER = float.fromhex("0x1.8p23")
"""Added to a small f32, it leaves the nearest integer in the low bits of the sum."""


def _power_of_two_times(b: Builder[V], a: V, sum_with_rounder: V) -> V:
    """a * 2**n, rounded once, n in -152..130 being the integer in the low bits of a sum with ROUNDER. The
    factor is applied in two halves because 2**n itself need not be a normal number; a is near 1."""
    one = 0x3F80_0000
    exponent = _shl(b, b.bitcast(sum_with_rounder, Kind.I32), 23)
    half = _and(b, _shr_s(b, exponent, 1), 0xFF80_0000)
    first = b.bitcast(_add(b, half, one), Kind.F32)
    second = b.bitcast(b.sub(_add(b, exponent, one), half), Kind.F32)
    return b.canonical(b.mul(b.mul(a, first), second))


def exp2(b: Builder[V], dtype: DType, a: V) -> V:
    """2**n * 2**f, n the nearest integer, f = a - n exactly."""
    a = _clamp(b, a, -151.0, 129.0)
    total = _add(b, a, ROUNDER)
    fraction = b.sub(a, _add(b, total, -ROUNDER))
    power = _polynomial(
        b,
        fraction,
        float.fromhex("0x1.416b50p-13"),
        float.fromhex("0x1.5f082ep-10"),
        float.fromhex("0x1.3b2de0p-7"),
        float.fromhex("0x1.c6af7cp-5"),
        float.fromhex("0x1.ebfbdcp-3"),
        float.fromhex("0x1.62e430p-1"),
        1.0,
    )
    return _power_of_two_times(b, power, total)


LOG2_E = float.fromhex("0x1.715476p+0")
LN2_HIGH = float.fromhex("0x1.62e430p-1")
LN2_LOW = float.fromhex("-0x1.05c610p-29")


def exp(b: Builder[V], dtype: DType, a: V) -> V:
    """2**n * e**r, n the integer nearest to a / ln 2, r = a - n ln 2."""
    a = _clamp(b, a, -105.0, 90.0)
    total = b.fma(a, _const_like(b, LOG2_E, a), _const_like(b, ROUNDER, a))
    count = _add(b, total, -ROUNDER)
    rest = b.fma(count, _const_like(b, -LN2_HIGH, a), a)
    rest = b.fma(count, _const_like(b, -LN2_LOW, a), rest)
    tail = _polynomial(
        b,
        rest,
        float.fromhex("0x1.6a4d14p-10"),
        float.fromhex("0x1.12398ap-7"),
        float.fromhex("0x1.5558b0p-5"),
        float.fromhex("0x1.555492p-3"),
        float.fromhex("0x1.fffffcp-2"),
    )
    power = _add(b, b.fma(b.mul(rest, rest), tail, rest), 1.0)
    return _power_of_two_times(b, power, total)


def _split_for_log(b: Builder[V], a: V) -> tuple[V, V]:
    """a = 2**n * (1 + f), 1 + f in sqrt(1/2)..sqrt(2): n and f as F32, both exact. a positive and finite."""
    is_subnormal = b.lt(a, _const_like(b, 2.0**-126, a))
    bits = b.bitcast(b.select(is_subnormal, _scaled(b, a, 23), a), Kind.I32)
    root_half = 0x3F35_04F3
    exponent = _shr_s(b, _add(b, bits, -root_half), 23)
    mantissa = b.bitcast(b.sub(bits, _shl(b, exponent, 23)), Kind.F32)
    count = b.float_from_signed(exponent, Kind.F32)
    count = b.select(is_subnormal, _add(b, count, -23.0), count)
    return count, _add(b, mantissa, -1.0)


def _log_limits(b: Builder[V], a: V, result: V) -> V:
    """-inf for 0, NaN below 0 and for NaN, inf for inf, else the result computed."""
    zero, infinity = _const_like(b, 0.0, a), _const_like(b, INFINITY, a)
    result = b.select(b.lt(a, infinity), result, infinity)
    result = b.select(b.eq(a, zero), _const_like(b, -INFINITY, a), result)
    return b.canonical(b.select(b.le(zero, a), result, _const_like(b, float("nan"), a)))


def log2(b: Builder[V], dtype: DType, a: V) -> V:
    """n + f * log2(e) + f * f * q(f)."""
    count, f = _split_for_log(b, a)
    tail = _polynomial(
        b,
        f,
        float.fromhex("-0x1.c39b94p-4"),
        float.fromhex("0x1.7f281ep-3"),
        float.fromhex("-0x1.87f7eep-3"),
        float.fromhex("0x1.a2c9dcp-3"),
        float.fromhex("-0x1.eaa24ap-3"),
        float.fromhex("0x1.277f44p-2"),
        float.fromhex("-0x1.715afep-2"),
        float.fromhex("0x1.ec7094p-2"),
        float.fromhex("-0x1.715470p-1"),
        float.fromhex("0x1.4ae0c0p-26"),  # log2(e) - LOG2_E
    )
    fraction = b.fma(f, _const_like(b, LOG2_E, f), b.mul(f, tail))
    return _log_limits(b, a, b.add(count, fraction))


def log(b: Builder[V], dtype: DType, a: V) -> V:
    """n ln 2 + f + f * f * q(f)."""
    count, f = _split_for_log(b, a)
    tail = _polynomial(
        b,
        f,
        float.fromhex("-0x1.383ebcp-4"),
        float.fromhex("0x1.087e60p-3"),
        float.fromhex("-0x1.0f4f0ep-3"),
        float.fromhex("0x1.226b2ap-3"),
        float.fromhex("-0x1.542402p-3"),
        float.fromhex("0x1.99a428p-3"),
        float.fromhex("-0x1.000438p-2"),
        float.fromhex("0x1.555550p-2"),
        float.fromhex("-0x1.fffff8p-2"),
    )
    low = b.fma(b.mul(f, f), tail, b.mul(count, _const_like(b, LN2_LOW, f)))
    result = b.fma(count, _const_like(b, LN2_HIGH, f), b.add(f, low))
    return _log_limits(b, a, result)


# ---------------------------------------------------------------------------------------------- sin and cos

TWO_OVER_PI_WORDS = (
    0x00000028,
    0xBE60DB93,
    0x91054A7F,
    0x09D5F47D,
    0x4D377036,
    0xD8A5664F,
    0x10E4107F,
    0x00000000,
)
"""floor(2 / pi * 2**198) in words of 32 bits, highest first; the last word is never shifted in."""

QUARTER_TURN_HIGH = float.fromhex("0x1.921fb6p-62")
QUARTER_TURN_LOW = float.fromhex("-0x1.777a5cp-87")
"""pi / 2 * 2**-62 in two parts."""


def _reduce_angle(b: Builder[V], magnitude: V) -> tuple[V, V, V]:
    """a = q * pi/2 + high + low for a finite a >= 0 : q (I32, modulo 4) and high + low in -pi/4..pi/4.

    a is m * 2**s with a 24-bit integer m. m times the 96 bits of 2/pi that begin at bit s is a modulo 4
    quarter turns, in fixed point with 62 bits of fraction: enough for the f32 closest to a multiple of pi/2.
    """
    bits = b.bitcast(magnitude, Kind.I32)
    shift = _add(b, _shr_u(b, bits, 23), -126)
    is_small = b.lt(shift, _const_like(b, 0, shift))  # a < 1/2
    mantissa = b.or_(_and(b, bits, 0x7F_FFFF), _const_like(b, 0x80_0000, bits))

    first_word = _shr_u(b, _and(b, shift, 0xFF), 5)
    at_word = [b.eq(first_word, _const_like(b, number, first_word)) for number in range(4)]
    words = []
    for position in range(4):
        word = _const_like(b, TWO_OVER_PI_WORDS[4 + position], bits)
        for number in (3, 2, 1, 0):
            word = b.select(at_word[number], _const_like(b, TWO_OVER_PI_WORDS[number + position], bits), word)
        words.append(word)
    left = _and(b, shift, 31)
    right = b.xor(left, _const_like(b, 31, left))
    window = [b.or_(b.shl(words[i], left), b.shr_u(_shr_u(b, words[i + 1], 1), right)) for i in range(3)]

    wide = b.zero_extend(mantissa, Kind.I64)
    turns = _shl(b, b.zero_extend(b.mul(mantissa, window[0]), Kind.I64), 32)
    turns = b.add(turns, b.mul(wide, b.zero_extend(window[1], Kind.I64)))
    turns = b.add(turns, _shr_u(b, b.mul(wide, b.zero_extend(window[2], Kind.I64)), 32))

    quadrant = b.truncate(_shr_u(b, _add(b, turns, 1 << 61), 62), Kind.I32)
    fraction = _shr_s(b, _shl(b, turns, 2), 2)
    high = b.float_from_signed(fraction, Kind.F32)
    low = b.float_from_signed(b.sub(fraction, b.signed_from_float(high, Kind.I64)), Kind.F32)
    unit = _const_like(b, QUARTER_TURN_HIGH, high)
    angle = b.mul(high, unit)
    rest = b.fma(high, unit, _negated(b, angle))
    rest = b.fma(low, unit, b.fma(high, _const_like(b, QUARTER_TURN_LOW, high), rest))

    zero = _const_like(b, 0.0, angle)
    quadrant = b.select(is_small, _const_like(b, 0, quadrant), quadrant)
    return quadrant, b.select(is_small, magnitude, angle), b.select(is_small, zero, rest)


def _sine_of_quadrant(b: Builder[V], a: V, quadrant: V, angle: V, rest: V, sign: V) -> V:
    """sin(quadrant * pi/2 + angle + rest), sign bits flipped by `sign`; NaN where a is not finite."""
    square = b.mul(angle, angle)
    sine = _polynomial(
        b,
        square,
        float.fromhex("-0x1.995400p-13"),
        float.fromhex("0x1.110778p-7"),
        float.fromhex("-0x1.555546p-3"),
    )
    sine = b.add(angle, b.fma(b.mul(angle, square), sine, rest))
    cosine = _polynomial(
        b,
        square,
        float.fromhex("0x1.99e80cp-16"),
        float.fromhex("-0x1.6c0c28p-10"),
        float.fromhex("0x1.55554ap-5"),
        -0.5,
    )
    cosine = _add(b, b.fma(square, cosine, b.mul(_negated(b, angle), rest)), 1.0)
    is_odd = b.ne(_and(b, quadrant, 1), _const_like(b, 0, quadrant))
    bits = b.bitcast(b.select(is_odd, cosine, sine), Kind.I32)
    bits = b.xor(bits, b.xor(sign, _shl(b, _and(b, quadrant, 2), 30)))
    is_finite = b.lt(_absolute(b, a), _const_like(b, INFINITY, a))
    return b.select(is_finite, b.bitcast(bits, Kind.F32), _const_like(b, float("nan"), a))


def sin(b: Builder[V], dtype: DType, a: V) -> V:
    """Sine, for every finite f32."""
    quadrant, angle, rest = _reduce_angle(b, _absolute(b, a))
    sign = _and(b, b.bitcast(a, Kind.I32), SIGN_32)
    return _sine_of_quadrant(b, a, quadrant, angle, rest, sign)


def cos(b: Builder[V], dtype: DType, a: V) -> V:
    """Cosine, for every finite f32."""
    quadrant, angle, rest = _reduce_angle(b, _absolute(b, a))
    return _sine_of_quadrant(b, a, _add(b, quadrant, 1), angle, rest, _const_like(b, 0, quadrant))


# -------------------------------------------------------------------------------- everything else, by a table


def _floating(operation: Meaning) -> Meaning:
    """A function of floats: widen, compute, round to the type."""

    def meaning(b: Builder[Any], dtype: DType, *operands: Any) -> Any:
        return narrow(b, dtype, operation(b, *(widen(b, dtype, a) for a in operands)))

    return meaning


def _integral(operation: Meaning) -> Meaning:
    def meaning(b: Builder[Any], dtype: DType, *operands: Any) -> Any:
        return operation(b, *operands)

    return meaning


def _by_type(floating: Meaning, integral: Meaning, logical: Meaning | None = None) -> Meaning:
    """One of several meanings, by what the operands are."""

    def meaning(b: Builder[Any], dtype: DType, *operands: Any) -> Any:
        if dtype is DType.I1 and logical is not None:
            return logical(b, *operands)
        return (floating if dtype.is_float else integral)(b, dtype, *operands)

    return meaning


def _no_floating(b: Builder[Any], dtype: DType, *operands: Any) -> Any:
    raise AssertionError(f"not a function of {dtype}")


def _comparison(floating: Meaning | None, integral: Meaning, logical: Meaning) -> Meaning:
    """A predicate: no rounding of its result."""

    def of_floats(b: Builder[Any], dtype: DType, a: Any, c: Any) -> Any:
        assert floating is not None
        return floating(b, widen(b, dtype, a), widen(b, dtype, c))

    return _by_type(of_floats if floating else _no_floating, _integral(integral), logical)


def _neg(b: Builder[V], dtype: DType, a: V) -> V:
    return _negated(b, a)


def _abs(b: Builder[V], dtype: DType, a: V) -> V:
    return _absolute(b, a)


def _reciprocal(b: Builder[V], a: V) -> V:
    return b.div(_const_like(b, 1.0, a), a)


def _smaller(b: Builder[V], a: V, c: V) -> V:
    """The smaller of two numbers, -0 below +0: equal operands differ in the sign of zero at most."""
    integer = INTEGER_OF_BITS[b.kind(a).bits]
    either = b.bitcast(b.or_(b.bitcast(a, integer), b.bitcast(c, integer)), b.kind(a))
    return b.select(b.eq(a, c), either, b.select(b.lt(a, c), a, c))


def _larger(b: Builder[V], a: V, c: V) -> V:
    integer = INTEGER_OF_BITS[b.kind(a).bits]
    both = b.bitcast(b.and_(b.bitcast(a, integer), b.bitcast(c, integer)), b.kind(a))
    return b.select(b.eq(a, c), both, b.select(b.lt(c, a), a, c))


def _nan_wins(pick: Meaning) -> Meaning:
    def operation(b: Builder[Any], a: Any, c: Any) -> Any:
        return b.select(b.is_nan(a), a, b.select(b.is_nan(c), c, pick(b, a, c)))

    return operation


def _number_wins(pick: Meaning) -> Meaning:
    def operation(b: Builder[Any], a: Any, c: Any) -> Any:
        return b.select(b.is_nan(a), c, b.select(b.is_nan(c), a, pick(b, a, c)))

    return operation


def _mul_high(b: Builder[V], a: V, c: V, signed: bool) -> V:
    kind = b.kind(a)
    if kind.bits < 64:
        extend = b.sign_extend if signed else b.zero_extend
        double = INTEGER_OF_BITS[2 * kind.bits]
        return b.truncate(_shr_u(b, b.mul(extend(a, double), extend(c, double)), kind.bits), kind)
    low_half = (1 << 32) - 1
    a_low, a_high = _and(b, a, low_half), _shr_u(b, a, 32)
    c_low, c_high = _and(b, c, low_half), _shr_u(b, c, 32)
    middle = b.add(b.mul(a_high, c_low), _shr_u(b, b.mul(a_low, c_low), 32))
    other = b.add(b.mul(a_low, c_high), _and(b, middle, low_half))
    high = b.add(b.mul(a_high, c_high), b.add(_shr_u(b, middle, 32), _shr_u(b, other, 32)))
    if not signed:
        return high
    # A negative operand, read unsigned, is 2**64 too large.
    high = b.sub(high, b.and_(_shr_s(b, a, 63), c))
    return b.sub(high, b.and_(_shr_s(b, c, 63), a))


def _safe_divisor(b: Builder[V], a: V, c: V, signed: bool) -> tuple[V, V]:
    """c with 1 in place of what a divider need not handle, and whether c is 0."""
    by_zero = b.eq(c, _const_like(b, 0, c))
    unsafe = by_zero
    if signed:
        smallest = _const_like(b, 1 << (b.kind(a).bits - 1), a)
        unsafe = b.or_(unsafe, b.and_(b.eq(a, smallest), b.eq(c, _const_like(b, -1, c))))
    return b.select(unsafe, _const_like(b, 1, c), c), by_zero


def _div(b: Builder[V], a: V, c: V, signed: bool) -> V:
    divisor, by_zero = _safe_divisor(b, a, c, signed)
    quotient = b.div_s(a, divisor) if signed else b.div_u(a, divisor)
    return b.select(by_zero, _const_like(b, -1, a), quotient)


def _rem(b: Builder[V], a: V, c: V, signed: bool) -> V:
    divisor, by_zero = _safe_divisor(b, a, c, signed)
    return b.select(by_zero, a, b.rem_s(a, divisor) if signed else b.rem_u(a, divisor))


def _shift(b: Builder[V], a: V, c: V, name: str) -> V:
    width = b.kind(a).bits
    within = b.ult(c, _const_like(b, width, c))
    if name == "shr_s":
        return b.shr_s(a, b.select(within, c, _const_like(b, width - 1, c)))
    amount = b.select(within, c, _const_like(b, 0, c))
    shifted = b.shl(a, amount) if name == "shl" else b.shr_u(a, amount)
    return b.select(within, shifted, _const_like(b, 0, a))


def _logical_less(b: Builder[V], a: V, c: V) -> V:
    return b.and_(b.not_(a), c)


def _logical_less_equal(b: Builder[V], a: V, c: V) -> V:
    return b.or_(b.not_(a), c)


def _logical_equal(b: Builder[V], a: V, c: V) -> V:
    return b.not_(b.xor(a, c))


def _number_or_word(floating: Meaning, integral: Meaning) -> Meaning:
    return _by_type(_floating(floating), _integral(integral))


def _word(integral: Meaning, logical: Meaning | None = None) -> Meaning:
    return _by_type(_no_floating, _integral(integral), logical)


MEANING: dict[Function, Meaning] = {
    Function.COPY: lambda b, dtype, a: a,
    Function.NEG: _neg,
    Function.ABS: _abs,
    Function.SQRT: _floating(lambda b, a: b.sqrt(a)),
    Function.RSQRT: _floating(lambda b, a: _reciprocal(b, b.sqrt(a))),
    Function.RECIPROCAL: _floating(_reciprocal),
    Function.EXP2: exp2,
    Function.LOG2: log2,
    Function.SIN: sin,
    Function.COS: cos,
    Function.FLOOR: _floating(lambda b, a: b.floor(a)),
    Function.CEIL: _floating(lambda b, a: b.ceil(a)),
    Function.TRUNC: _floating(lambda b, a: b.trunc(a)),
    Function.ROUND_EVEN: _floating(lambda b, a: b.round_even(a)),
    Function.COUNT_LEADING_ZEROS: _word(lambda b, a: b.leading_zeros(a)),
    Function.POPULATION_COUNT: _word(lambda b, a: b.population_count(a)),
    Function.EXP: exp,
    Function.LOG: log,
    Function.ADD: _number_or_word(lambda b, a, c: b.add(a, c), lambda b, a, c: b.add(a, c)),
    Function.SUB: _number_or_word(lambda b, a, c: b.sub(a, c), lambda b, a, c: b.sub(a, c)),
    Function.MUL: _number_or_word(lambda b, a, c: b.mul(a, c), lambda b, a, c: b.mul(a, c)),
    Function.DIV: _floating(lambda b, a, c: b.div(a, c)),
    Function.MINIMUM: _floating(_nan_wins(_smaller)),
    Function.MAXIMUM: _floating(_nan_wins(_larger)),
    Function.MIN_NUMBER: _floating(_number_wins(_smaller)),
    Function.MAX_NUMBER: _floating(_number_wins(_larger)),
    Function.MUL_HIGH_SIGNED: _word(lambda b, a, c: _mul_high(b, a, c, signed=True)),
    Function.MUL_HIGH_UNSIGNED: _word(lambda b, a, c: _mul_high(b, a, c, signed=False)),
    Function.DIV_SIGNED: _word(lambda b, a, c: _div(b, a, c, signed=True)),
    Function.DIV_UNSIGNED: _word(lambda b, a, c: _div(b, a, c, signed=False)),
    Function.REM_SIGNED: _word(lambda b, a, c: _rem(b, a, c, signed=True)),
    Function.REM_UNSIGNED: _word(lambda b, a, c: _rem(b, a, c, signed=False)),
    Function.MIN_SIGNED: _word(lambda b, a, c: b.select(b.lt(a, c), a, c), lambda b, a, c: b.and_(a, c)),
    Function.MAX_SIGNED: _word(lambda b, a, c: b.select(b.lt(c, a), a, c), lambda b, a, c: b.or_(a, c)),
    Function.MIN_UNSIGNED: _word(lambda b, a, c: b.select(b.ult(a, c), a, c), lambda b, a, c: b.and_(a, c)),
    Function.MAX_UNSIGNED: _word(lambda b, a, c: b.select(b.ult(c, a), a, c), lambda b, a, c: b.or_(a, c)),
    Function.AND: _word(lambda b, a, c: b.and_(a, c), lambda b, a, c: b.and_(a, c)),
    Function.OR: _word(lambda b, a, c: b.or_(a, c), lambda b, a, c: b.or_(a, c)),
    Function.XOR: _word(lambda b, a, c: b.xor(a, c), lambda b, a, c: b.xor(a, c)),
    Function.SHIFT_LEFT: _word(lambda b, a, c: _shift(b, a, c, "shl")),
    Function.SHIFT_RIGHT_SIGNED: _word(lambda b, a, c: _shift(b, a, c, "shr_s")),
    Function.SHIFT_RIGHT_UNSIGNED: _word(lambda b, a, c: _shift(b, a, c, "shr_u")),
    Function.EQUAL: _comparison(lambda b, a, c: b.eq(a, c), lambda b, a, c: b.eq(a, c), _logical_equal),
    Function.NOT_EQUAL: _comparison(
        lambda b, a, c: b.ne(a, c), lambda b, a, c: b.ne(a, c), lambda b, a, c: b.xor(a, c)
    ),
    Function.LESS: _comparison(lambda b, a, c: b.lt(a, c), lambda b, a, c: b.lt(a, c), _logical_less),
    Function.LESS_EQUAL: _comparison(lambda b, a, c: b.le(a, c), lambda b, a, c: b.le(a, c), _logical_less_equal),
    Function.LESS_UNSIGNED: _comparison(None, lambda b, a, c: b.ult(a, c), _logical_less),
    Function.LESS_EQUAL_UNSIGNED: _comparison(None, lambda b, a, c: b.ule(a, c), _logical_less_equal),
    Function.FMA: _floating(lambda b, a, c, d: b.fma(a, c, d)),
    Function.SELECT: lambda b, dtype, condition, a, c: b.select(condition, a, c),
}
"""Definition of each function. Operands and result are of `function.operand_dtypes` and
`function.result_dtype`."""
