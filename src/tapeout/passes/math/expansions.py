"""Mathematical functions that are not in the vector engine, as formulas of functions that are.

A formula takes and gives `Term`s. Which operation or function each stands for, and how accurate it is: `libdevice`.
"""

import itertools
import math
from collections.abc import Callable

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.formula import (
    INFINITY,
    INTEGER_OF_FLOAT,
    NAN,
    Term,
    bits,
    fma,
    from_bits,
    is_nan,
    larger,
    narrow,
    polynomial,
    repeat,
    resize,
    select,
    smaller,
    to_float,
    to_integer,
    unary,
    widen,
    with_sign_of,
)

Formula = Callable[..., Term]

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


# ------------------------------------------------------------------------------------------------ floats' parts


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


# --------------------------------------------------------------------------------------------- exponentials


def _exp_parts(high: Term, low: Term | None = None) -> tuple[Term, Term]:
    """e**(high + low) = p * 2**n: p near 1 and n an integer. high within the limits of the exponent; |low| small."""
    ln2 = SPLIT["ln 2"][high.dtype]
    count = unary("roundeven", high * LOG2_E)
    rest = fma(count, -ln2[0], high)
    rest = fma(count, -ln2[1], rest)
    if low is not None:
        rest = rest + low
    tail = polynomial(rest, *coefficients.EXP[high.dtype])
    return fma(rest * rest, tail, rest) + 1.0, to_integer(count, INTEGER_OF_FLOAT[high.dtype])


def _exp_of_sum(high: Term, low: Term, factor: Term | None = None, halvings: int = 0) -> Term:
    """e**(high + low) * factor / 2**halvings, any high; low is ignored where high is far out."""
    limits = SMALLEST_EXPONENT[high.dtype], LARGEST_EXPONENT[high.dtype]
    bounded = clamp(high, *limits)
    power, count = _exp_parts(bounded, select(bounded.equals(high), low, 0.0))
    return scale(power if factor is None else power * factor, count - halvings if halvings else count)


def exp_times(high: Term, low: Term | None, factor: Term) -> Term:
    """e**(high + low) * factor, rounded once at the end; |low| small. The power alone may leave the type's range."""
    limit = WIDE_EXPONENT[high.dtype]
    power, count = _exp_parts(clamp(high, -limit, limit), low)
    return scale(power * factor, count)


def exp(x: Term) -> Term:
    """e**x."""
    if x.dtype is DType.F32:
        return unary("exp", x)
    return scale(*_exp_parts(clamp(x, SMALLEST_EXPONENT[x.dtype], LARGEST_EXPONENT[x.dtype])))


def exp2(x: Term) -> Term:
    """2**x."""
    if x.dtype is DType.F32:
        return unary("exp2", x)
    x = clamp(x, -1080.0, 1030.0)
    count = unary("roundeven", x)
    ln2 = SPLIT["ln 2"][x.dtype]
    fraction = x - count
    high = fraction * LN_2
    low = fma(fraction, LN_2, -high) + fraction * (ln2[0] - LN_2 + ln2[1])
    tail = polynomial(high, *coefficients.EXP[x.dtype])
    power = (fma(high * high, tail, low) + high) + 1.0
    return scale(power, to_integer(count, INTEGER_OF_FLOAT[x.dtype]))


def exp10(x: Term) -> Term:
    """10**x."""
    ln10 = SPLIT["ln 10"][x.dtype]
    high = x * ln10[0]
    low = fma(x, ln10[0], -high) + x * ln10[1]
    return _exp_of_sum(high, low)


def expm1(x: Term) -> Term:
    """e**x - 1."""
    dtype = x.dtype
    x = clamp(x, *{DType.F32: (-30.0, 88.9), DType.F64: (-50.0, 709.9)}[dtype])
    ln2 = SPLIT["ln 2"][dtype]
    count = unary("roundeven", x * LOG2_E)
    rest = fma(count, -ln2[1], fma(count, -ln2[0], x))
    fraction = fma(rest * rest, polynomial(rest, *coefficients.EXP[dtype]), rest)
    half = power_of_two(to_integer(count, INTEGER_OF_FLOAT[dtype]) - 1, dtype)
    return select(x.equals(0.0), x, fma(fraction, half, half - 0.5) * 2.0)


def sinh(x: Term) -> Term:
    """Hyperbolic sine."""
    size = abs(x)
    grown = expm1(select(size > 20.0, 20.0, size))
    near = (grown + grown / (grown + 1.0)) * 0.5
    far = _exp_of_sum(size, size.constant(0.0), halvings=1)
    return with_sign_of(select(size > 20.0, far, near), x)


def cosh(x: Term) -> Term:
    """Hyperbolic cosine."""
    size = abs(x)
    half = _exp_of_sum(size, size.constant(0.0), halvings=1)
    return half + 0.25 / half


def tanh(x: Term) -> Term:
    """Hyperbolic tangent."""
    size = abs(x)
    if x.dtype is DType.F64:
        grown = expm1(select(size > 20.0, 20.0, size) * 2.0)
        return with_sign_of(grown / (grown + 2.0), x)
    square = x * x
    near = fma(x * square, polynomial(square, *coefficients.TANH[x.dtype]), x)
    far = 1.0 - 2.0 / (exp(size * 2.0) + 1.0)
    return with_sign_of(select(size < 0.55, near, far), x)


# ----------------------------------------------------------------------------------------------- logarithms


def _log_limits(x: Term, result: Term) -> Term:
    """-inf for 0, NaN below 0 and for NaN, inf for inf, else the result computed."""
    result = select(x < INFINITY, result, INFINITY)
    result = select(x.equals(0.0), -INFINITY, result)
    return select(x >= 0.0, result, NAN)


def _log_parts(x: Term) -> tuple[Term, Term, Term]:
    """x = 2**e * (1 + f): e as a float, f, and log(1 + f) - f, to about an ulp of f."""
    mantissa, exponent = split_exponent(x, math.sqrt(0.5))
    f = mantissa - 1.0
    s = f / (f + 2.0)
    square = s * s
    tail = square * polynomial(square, *coefficients.ATANH[x.dtype])
    half_square = f * f * 0.5
    return to_float(exponent, x.dtype), f, s * (half_square + tail) - half_square


def log(x: Term) -> Term:
    """Natural logarithm."""
    if x.dtype is DType.F32:
        return unary("log", x)
    exponent, f, correction = _log_parts(x)
    ln2 = SPLIT["ln 2"][x.dtype]
    result = fma(exponent, ln2[0], fma(exponent, ln2[1], correction) + f)
    return _log_limits(x, result)


def log2(x: Term) -> Term:
    """Logarithm to base 2."""
    if x.dtype is DType.F32:
        return unary("log2", x)
    exponent, f, correction = _log_parts(x)
    return _log_limits(x, fma(f + correction, LOG2_E, exponent))


def log10(x: Term) -> Term:
    """Logarithm to base 10."""
    return log(x) * (1 / LN_10)


def log1p(x: Term) -> Term:
    """log(1 + x)."""
    total = x + 1.0
    back = total - 1.0
    lost = (1.0 - (total - back)) + (x - back)
    plain = log(total)
    result = select((total > 0.0) & (total < INFINITY), plain + lost / total, plain)
    return select(x.equals(0.0), x, result)


def asinh(x: Term) -> Term:
    """Inverse hyperbolic sine."""
    size = abs(x)
    limit = 2.0 ** {DType.F32: 13, DType.F64: 28}[x.dtype]
    near = log1p(size + size * size / (unary("sqrt", fma(size, size, 1.0)) + 1.0))
    return with_sign_of(select(size > limit, log(size) + LN_2, near), x)


def acosh(x: Term) -> Term:
    """Inverse hyperbolic cosine; NaN below 1."""
    limit = 2.0 ** {DType.F32: 13, DType.F64: 28}[x.dtype]
    above = x - 1.0
    near = log1p(above + unary("sqrt", fma(above, above, above * 2.0)))
    return select(x < 1.0, NAN, select(x > limit, log(x) + LN_2, near))


def atanh(x: Term) -> Term:
    """Inverse hyperbolic tangent."""
    size = abs(x)
    return with_sign_of(log1p(size * 2.0 / (1.0 - size)) * 0.5, x)


def _log_of_two_terms(x: Term) -> tuple[Term, Term]:
    """log(x) as a sum of two floats, the second correcting the first. x positive and finite."""
    dtype = x.dtype
    mantissa, exponent_number = split_exponent(x, math.sqrt(0.5))
    exponent = to_float(exponent_number, dtype)
    f = mantissa - 1.0
    divisor = f + 2.0
    s = f / divisor
    s_low = (fma(-s, divisor, f) - s * (f - (divisor - 2.0))) / divisor
    square = s * s
    square_low = fma(s, s, -square) + s * s_low * 2.0
    # 2 atanh(s) = 2 s + s * square * (2/3 + square * more), every product with what rounding took
    first, first_low = SPLIT["2 / 3"][dtype]
    more = square * polynomial(square, *coefficients.ATANH[dtype][:-1])
    factor = more + first
    factor_low = (first - factor) + more + first_low
    cubic = square * factor
    cubic_low = fma(square, factor, -cubic) + (square * factor_low + square_low * factor)
    tail = s * cubic
    tail_low = fma(s, cubic, -tail) + (s * cubic_low + s_low * cubic)
    twice = s * 2.0
    total = twice + tail
    low = ((twice - total) + tail) + (tail_low + s_low * 2.0)
    ln2 = SPLIT["ln 2"][dtype]
    whole = exponent * ln2[0]
    high = whole + total
    return high, ((whole - high) + total) + fma(exponent, ln2[1], low)


def pow(x: Term, y: Term) -> Term:
    """x**y with C's special cases."""
    size = abs(x)
    high, low = _log_of_two_terms(select(is_finite(x) & (size > 0.0), size, 1.0))
    product = y * high
    result = _exp_of_sum(product, fma(y, high, -product) + y * low)
    large = y.constant(INFINITY)
    result = select(size.equals(0.0), select(y < 0.0, large, 0.0), result)
    result = select(is_infinite(x), select(y < 0.0, 0.0, large), result)
    half = y * 0.5
    is_integer = unary("floor", y).equals(y)
    is_odd = is_integer & unary("floor", half).differs(half)
    result = select((x < 0.0) & is_finite(x) & ~is_integer, NAN, result)
    result = select(sign_bit(x) & is_odd, -result, result)
    result = select(is_nan(x) | is_nan(y), NAN, result)
    is_one = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & is_infinite(y))
    return select(is_one, 1.0, result)


def powi(x: Term, y: Term) -> Term:
    """x to an integer power."""
    return pow(x, to_float(y, x.dtype))


def cbrt(x: Term) -> Term:
    """Cube root."""
    is_tiny = abs(x) < 2.0 ** (50 - BIAS[x.dtype])  # its rest would not be exact
    size = select(is_tiny, abs(x) * 2.0**60, abs(x))
    root = exp2(log2(size) * (1 / 3))
    rest = fma(-(root * root), root, size)
    refined = fma(rest / (root * root), 1 / 3, root)
    refined = select(is_tiny, refined * 2.0**-20, refined)
    return select(x.equals(0.0) | is_infinite(x), x, with_sign_of(refined, x))


def rcbrt(x: Term) -> Term:
    """Reciprocal of the cube root."""
    return 1.0 / cbrt(x)


# --------------------------------------------------------------------------------------------- trigonometry


def _asin_core(x: Term) -> tuple[Term, Term]:
    """Return, for |x|: whether it is above a half, and asin(x) or else (above) half of pi / 2 - asin(x)."""
    size = abs(x)
    is_far = size > 0.5
    square = select(is_far, (1.0 - size) * 0.5, size * size)
    root = select(is_far, unary("sqrt", square), size)
    return is_far, fma(root * square, polynomial(square, *coefficients.ASIN[x.dtype]), root)


def asin(x: Term) -> Term:
    """Inverse sine; NaN outside -1..1."""
    quarter, quarter_low = SPLIT["pi / 2"][x.dtype]
    is_far, core = _asin_core(x)
    far = quarter - (core * 2.0 - quarter_low)
    return with_sign_of(select(is_far, far, core), x)


def acos(x: Term) -> Term:
    """Inverse cosine; NaN outside -1..1."""
    quarter, quarter_low = SPLIT["pi / 2"][x.dtype]
    is_far, core = _asin_core(x)
    near = quarter - (with_sign_of(core, x) - quarter_low)
    twice = core * 2.0
    far = select(x < 0.0, 2 * quarter - (twice - 2 * quarter_low), twice)
    return select(is_far, far, near)


def _atan_of_unit(a: Term) -> Term:
    """atan(a), 0 <= a <= 1."""
    square = a * a
    return fma(a * square, polynomial(square, *coefficients.ATAN[a.dtype]), a)


def atan(x: Term) -> Term:
    """Inverse tangent."""
    quarter, quarter_low = SPLIT["pi / 2"][x.dtype]
    size = abs(x)
    is_far = size > 1.0
    angle = _atan_of_unit(select(is_far, 1.0 / size, size))
    return with_sign_of(select(is_far, quarter - (angle - quarter_low), angle), x)


def atan2(y: Term, x: Term) -> Term:
    """Angle of the point (x, y), with C's special cases."""
    quarter, quarter_low = SPLIT["pi / 2"][x.dtype]
    across, up = abs(x), abs(y)
    is_steep = up > across
    long, short = select(is_steep, up, across), select(is_steep, across, up)
    ratio = select(long.equals(short), select(long.equals(0.0), 0.0, long.constant(1.0)), short / long)
    angle = _atan_of_unit(ratio)
    angle = select(is_steep, quarter - (angle - quarter_low), angle)
    angle = select(sign_bit(x), 2 * quarter - (angle - 2 * quarter_low), angle)
    return select(is_nan(x) | is_nan(y), NAN, with_sign_of(angle, y))


LEAST_I64 = -(1 << 63)
NEAR_ANGLES = 2.0**30
"""Up to here a multiple of pi / 2 in three floats is subtracted; beyond, the angle is multiplied by bits of 2 / pi."""


def _near_quadrant(x: Term) -> tuple[Term, Term, Term]:
    """x in f64, up to NEAR_ANGLES, as an integer multiple of pi / 2 and a rest of two floats: (integer, rest, its low
    part)."""
    steps = tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54", "-0x1.f1976b7ed8fbcp-110")))
    count = unary("roundeven", x * (2 / PI))
    angle = fma(count, -steps[0], x)
    middle = fma(count, -steps[1], angle)
    rest = fma(count, -steps[1], angle - middle) + count * -steps[2]
    return to_integer(count, DType.I64), middle, rest


def _far_quadrant(x: Term) -> tuple[Term, Term, Term]:
    """The same for any finite x not below NEAR_ANGLES, whose integer mantissa is multiplied by those 192 bits of 2 / pi
    that make out the product modulo 4; after Payne and Hanek, "Radian reduction for trigonometric functions" (1983)."""
    word = bits(abs(x))
    mantissa = (word & ((1 << 52) - 1)) | (1 << 52)
    first_bit = (word >> 52) - 1013  # the first bit wanted, in a table that starts with 64 zeros
    table: list[Term] = [x.constant(w - (w >> 63 << 64), DType.I64) for w in (0, *coefficients.TWO_OVER_PI)]
    for log_step in (4, 3, 2, 1, 0):  # keep what can be reached: after the last step, four words
        step, keep = 1 << log_step, (1 << log_step) + 3
        is_beyond = (first_bit & (step << 6)).differs(0)
        table = [
            select(is_beyond, table[k + step], table[k]) if k + step < len(table) else table[k] for k in range(keep)
        ]
    shift = first_bit & 63
    high, middle, low = (
        (a << shift) | ((b.shift_right_unsigned(1)).shift_right_unsigned(63 - shift))
        for a, b in itertools.pairwise(table)
    )
    carried = mulhi_unsigned(mantissa, low)
    middle_product = mantissa * middle
    middle_sum = middle_product + carried
    carry = resize((middle_sum ^ LEAST_I64) < (carried ^ LEAST_I64), DType.I64, unsigned=True)
    words = (mantissa * high + mulhi_unsigned(mantissa, middle) + carry, middle_sum, mantissa * low)
    # Two bits are the quadrant, the next ones a fraction; from a half on it is taken from above.
    fraction = [(a << 2) | b.shift_right_unsigned(62) for a, b in itertools.pairwise(words)]
    fraction.append(words[2] << 2)
    sign = fraction[0] >> 63
    quadrant = words[0].shift_right_unsigned(62) - sign
    pieces = []
    for position, part in enumerate(fraction):
        size = part ^ sign
        pieces.append(to_float(size.shift_right_unsigned(32), DType.F64) * 2.0 ** (-64 * position - 32))
        pieces.append(to_float(size & 0xFFFFFFFF, DType.F64) * 2.0 ** (-64 * position - 64))
    total, rest = pieces[0], x.constant(0.0)
    for piece in pieces[1:]:
        following = total + piece
        rest = rest + (piece - (following - total))
        total = following
    quarter, quarter_low = SPLIT["pi / 2"][DType.F64]
    angle = total * quarter
    angle_low = fma(total, quarter, -angle) + fma(total, quarter_low, rest * quarter)
    flips = sign ^ (bits(x) >> 63)
    negative = flips.differs(0)
    quadrant = select(bits(x) < 0, -quadrant, quadrant)
    return quadrant, select(negative, -angle, angle), select(negative, -angle_low, angle_low)


def _at_quadrant(quadrant: Term, middle: Term, rest: Term) -> tuple[Term, Term]:
    """Sine and cosine of quadrant * pi / 2 + middle + rest in f64."""
    square = middle * middle
    sine = fma(middle * square, polynomial(square, *coefficients.SINE[middle.dtype]), rest) + middle
    tail = fma(square * square, polynomial(square, *coefficients.COSINE[middle.dtype]), -(middle * rest))
    half = square * 0.5
    base = 1.0 - half
    cosine = base + (((1.0 - base) - half) + tail)
    is_odd = (quadrant & 1).differs(0)
    sine, cosine = select(is_odd, cosine, sine), select(is_odd, sine, cosine)
    sine = select((quadrant & 2).differs(0), -sine, sine)
    return sine, select(((quadrant + 1) & 2).differs(0), -cosine, cosine)


def sine_and_cosine(x: Term) -> tuple[Term, Term]:
    """Return sine and cosine of an angle, with their common part computed once."""
    if x.dtype is DType.F32:
        return unary("sin", x), unary("cos", x)
    is_near = abs(x) < NEAR_ANGLES
    parts = zip(_near_quadrant(x), _far_quadrant(x), strict=True)
    quadrant, middle, rest = (select(is_near, near, far) for near, far in parts)
    sine, cosine = _at_quadrant(quadrant, middle, rest)
    angle_exists = is_finite(x)
    return select(angle_exists, sine, NAN), select(angle_exists, cosine, NAN)


def _sine_of_half_turn(x: Term) -> Term:
    """sin(x), |x| up to pi."""
    return sin(x) if x.dtype is DType.F32 else _at_quadrant(*_near_quadrant(x))[0]


def sin(x: Term) -> Term:
    """Sine."""
    return unary("sin", x) if x.dtype is DType.F32 else sine_and_cosine(x)[0]


def cos(x: Term) -> Term:
    """Cosine."""
    return unary("cos", x) if x.dtype is DType.F32 else sine_and_cosine(x)[1]


def tan(x: Term) -> Term:
    """Tangent."""
    sine, cosine = sine_and_cosine(x)
    return sine / cosine


def _within_a_turn(x: Term) -> Term:
    """x less an even integer, -1 to 1."""
    return x - unary("roundeven", x * 0.5) * 2.0


def sinpi(x: Term) -> Term:
    """sin(pi x)."""
    rest = _within_a_turn(x)
    folded = select(abs(rest) > 0.5, with_sign_of(1.0 - abs(rest), rest), rest)
    return _sine_of_half_turn(folded * PI)


def cospi(x: Term) -> Term:
    """cos(pi x)."""
    return _sine_of_half_turn((0.5 - abs(_within_a_turn(x))) * PI)


# ------------------------------------------------------------------------------------------- error functions


def erfc(x: Term) -> Term:
    """1 - erf(x), to full relative accuracy far out."""
    size = clamp(abs(x), 0.0, 30.0)
    q = (size - 4.0) / (size + 4.0)
    shape = (polynomial(q, *coefficients.ERFCX[x.dtype]) + 1.0) / fma(size, 2.0, 1.0)
    square = size * size
    result = _exp_of_sum(-square, -fma(size, size, -square), shape)
    return select(x < 0.0, 2.0 - result, result)


def erfcx(x: Term) -> Term:
    """e**(x**2) erfc(x)."""
    size = abs(x)
    bounded = clamp(size, 0.0, 1e17)
    q = (bounded - 4.0) / (bounded + 4.0)
    result = (polynomial(q, *coefficients.ERFCX[x.dtype]) + 1.0) / fma(size, 2.0, 1.0)
    square = size * size
    doubled = _exp_of_sum(square, fma(size, size, -square)) * 2.0
    return select(x < 0.0, doubled - result, result)


def erf(x: Term) -> Term:
    """Error function."""
    size, square = abs(x), x * x
    near = fma(x, polynomial(square, *coefficients.ERF[x.dtype]), x)
    if x.dtype is DType.F64:
        return select(size < 0.5, near, with_sign_of(1.0 - erfc(size), x))
    bounded = select(size > 4.0, 4.0, size)
    far = 1.0 - exp(-polynomial(bounded, *coefficients.LOG_ERFC[x.dtype]))
    return select(size < 0.925, near, with_sign_of(far, x))


def _erfinv_over_x(w: Term) -> Term:
    """erfinv(x) / x for w = -log(1 - x**2)."""
    root = unary("sqrt", w)
    if w.dtype is DType.F32:
        central = polynomial(w - 2.5, *coefficients.ERFINV_CENTRAL[w.dtype])
        return select(w < 5.0, central, polynomial(root - 3.0, *coefficients.ERFINV_TAIL[w.dtype]))
    central = polynomial(w - 3.125, *coefficients.ERFINV_CENTRAL[w.dtype])
    middle = polynomial(root - 3.25, *coefficients.ERFINV_MIDDLE[w.dtype])
    tail = polynomial(root - 5.0, *coefficients.ERFINV_TAIL[w.dtype])
    return select(w < 6.25, central, select(w < 16.0, middle, tail))


ERFCINV_FAR = {DType.F32: (4.0, 0.171875), DType.F64: (6.0, 0.1015625)}
"""Root of w from which on the far formula holds, and the centre of its reciprocal."""


def erfinv(x: Term) -> Term:
    """Inverse of erf."""
    result = x * _erfinv_over_x(-log(fma(-x, x, 1.0)))
    return select(abs(x).equals(1.0), x * INFINITY, result)


def erfcinv(x: Term) -> Term:
    """Inverse of erfc, to full relative accuracy near 0."""
    w = -log(x * (2.0 - x))
    root = unary("sqrt", w)
    first, centre = ERFCINV_FAR[x.dtype]
    far = polynomial(1.0 / root - centre, *coefficients.ERFCINV_FAR[x.dtype]) * root
    is_far = root > first
    result = (1.0 - x) * select(is_far, far, _erfinv_over_x(w))
    result = select(x.equals(0.0), INFINITY, result)
    return select(x.equals(2.0), -INFINITY, result)


def normcdfinv(x: Term) -> Term:
    """Inverse of the normal distribution function."""
    return erfcinv(x * 2.0) * -math.sqrt(2)


def normcdf(x: Term) -> Term:
    """Normal distribution function, as half of erfc(-x / sqrt(2))."""
    return erfc(x * -math.sqrt(0.5)) * 0.5


# ------------------------------------------------------------------------------------------------------ gamma

HALF_LOG_2_PI = 0.5 * math.log(2 * PI)
STIRLING = {  # of the terms in 1 / x, 1 / x**3, ...: Bernoulli numbers over 2 k (2 k - 1), last first
    DType.F32: (1 / 1260, -1 / 360, 1 / 12),
    DType.F64: (-3617 / 122400, 1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12),
}


def lgamma(x: Term) -> Term:
    """Logarithm of |gamma(x)|."""
    size = abs(x)
    near_one = size - 1.0
    small = near_one * polynomial(near_one, *coefficients.LGAMMA_NEAR_1[x.dtype])
    below = size * polynomial(size, *coefficients.LGAMMA_NEAR_1[x.dtype]) - log(size)
    near_two = size - 2.0
    medium = near_two * polynomial(near_two, *coefficients.LGAMMA_NEAR_2[x.dtype])
    large = polynomial(size - 5.0, *coefficients.LGAMMA_NEAR_5[x.dtype])
    inverse = 1.0 / size
    series = polynomial(inverse * inverse, *STIRLING[x.dtype]) * inverse
    huge = fma(size - 0.5, log(size) - 1.0, series + (HALF_LOG_2_PI - 0.5))
    result = select(size < 8.0, large, select(size < INFINITY, huge, INFINITY))
    result = select(size < 3.0, medium, result)
    result = select(size < 1.5, small, result)
    result = select(size < 0.5, below, result)
    reflected = log(PI / abs(x * sinpi(x))) - result
    reflected = select(unary("floor", x).equals(x), INFINITY, reflected)
    return select(is_nan(x), NAN, select(x < 0.0, reflected, result))


LARGEST_GAMMA = {DType.F32: 50.0, DType.F64: 200.0}
"""Beyond, gamma is infinite, and 0 on the other side."""


def _log_gamma_of_two_terms(z: Term) -> tuple[Term, Term, Term]:
    """log(gamma(z)) as a sum of two floats, and its derivative, roughly. z from 8 on."""
    log_high, log_low = _log_of_two_terms(z)
    half = z - 0.5
    product = half * log_high
    high = product - z
    inverse = 1.0 / z
    low = ((product - high) - z) + (fma(half, log_high, -product) + half * log_low)
    tail = polynomial(inverse * inverse, *STIRLING[z.dtype]) * inverse + HALF_LOG_2_PI + low
    total = high + tail
    return total, tail - (total - high), log_high - inverse * 0.5


def tgamma(x: Term) -> Term:
    """Gamma. Up to 8 by way of gamma(x + 8) = gamma(x) x (x + 1) ... (x + 7); below 0 by reflection."""
    size = abs(x)
    is_small = size < 8.0
    shifted = select(is_small, size + 8.0, clamp(size, 8.0, LARGEST_GAMMA[x.dtype]))
    lost = select(is_small, size - (shifted - 8.0), 0.0)
    high, low, slope = _log_gamma_of_two_terms(shifted)
    low = fma(lost, slope, low)
    ends = fma(size, size, size * 7.0)  # x (x + 7); (x + 1) (x + 6) is 6 more, and so on
    steps = (size + 7.0) * ((ends + 6.0) * ((ends + 10.0) * (ends + 12.0)))
    above = select(is_small, 1.0 / (size * steps), 1.0)
    below = select(is_small, steps, 1.0 / size) * (-PI / sinpi(size))
    is_negative = x < 0.0
    high, low = select(is_negative, -high, high), select(is_negative, -low, low)
    result = exp_times(high, low, select(is_negative, below, above))
    result = select(x.equals(0.0), with_sign_of(x.constant(INFINITY), x), result)
    return select(is_nan(x) | (is_negative & unary("floor", x).equals(x)), NAN, result)


# --------------------------------------------------------------------------------- roots of sums of squares


def _scaled_norm(parts: tuple[Term, ...]) -> tuple[Term, Term, Term]:
    """The root of the sum of squares of the parts over a power of two, that power, and where a part is infinite."""
    dtype = parts[0].dtype
    sizes = [abs(part) for part in parts]
    largest = sizes[0]
    for size in sizes[1:]:
        largest = larger(largest, size)
    exponent_field = ((1 << (dtype.bits - 1)) - 1) & ~((1 << MANTISSA_BITS[dtype]) - 1)
    limit = 2.0 ** (BIAS[dtype] - 1)
    unit = clamp(from_bits(bits(largest) & exponent_field, dtype), 1 / limit, limit)
    inverse = 1.0 / unit
    scaled = [size * inverse for size in sizes]
    total = scaled[-1] * scaled[-1]
    for part in scaled[-2::-1]:
        total = fma(part, part, total)
    return unary("sqrt", total), unit, largest.equals(INFINITY)


def hypot(*parts: Term) -> Term:
    """sqrt(x**2 + y**2 + ...), no overflow in between."""
    root, unit, is_huge = _scaled_norm(parts)
    return select(is_huge, INFINITY, root * unit)


def rhypot(*parts: Term) -> Term:
    """1 / sqrt(x**2 + y**2 + ...)."""
    root, unit, is_huge = _scaled_norm(parts)
    return select(is_huge, 0.0, 1.0 / root / unit)


# ------------------------------------------------------------------------------------- remainders and rounding


def fmod(x: Term, y: Term) -> Term:
    """x - y * trunc(x / y), exact: long division of the mantissas as integers."""
    if x.dtype in (DType.F16, DType.BF16):
        return narrow(fmod(widen(x, DType.F32), widen(y, DType.F32)), x.dtype)
    dtype, mantissa_bits = x.dtype, MANTISSA_BITS[x.dtype]
    integer = INTEGER_OF_FLOAT[dtype]
    hidden = 1 << mantissa_bits

    def parts(a: Term) -> tuple[Term, Term]:
        word = bits(abs(a))
        field = word >> mantissa_bits
        mantissa = (word & (hidden - 1)) | select(field.equals(0), 0, field.constant(hidden))
        return resize(mantissa, DType.I64), larger(field, 1)

    (x_mantissa, x_exponent), (y_mantissa, y_exponent) = parts(x), parts(y)
    distance = resize(x_exponent - y_exponent, DType.I64)
    step = 62 - mantissa_bits
    longest = (1 << (dtype.bits - 1 - mantissa_bits)) - 3

    def shift_down(rest: Term, left: Term) -> tuple[Term, Term]:
        now = larger(smaller(left, step), 0)
        return (rest << now).remainder_unsigned(y_mantissa), left - now

    rest, _ = repeat(-(-longest // step), (x_mantissa.remainder_unsigned(y_mantissa), distance), shift_down)
    exponent = y_exponent - (BIAS[dtype] + mantissa_bits)
    result = scale(to_float(rest, dtype), resize(exponent, integer))
    result = select((abs(x) < abs(y)), abs(x), result)
    bad = y.equals(0.0) | is_nan(y) | ~is_finite(x)
    return select(bad, NAN, with_sign_of(result, x))


def remainder(x: Term, y: Term) -> Term:
    """x - y * n, n the integer nearest to x / y, ties to even; exact."""
    size = abs(y)
    doubled = size * 2.0
    rest = abs(select(doubled < INFINITY, fmod(x, doubled), x))
    # 2 a > b asked as a > b - a, whose rounding does not change the answer
    once = rest > size - rest
    less = select(once, rest - size, rest)
    less = select(once & (less >= size - less), less - size, less)
    bad = y.equals(0.0) | is_nan(y) | ~is_finite(x)
    flipped = from_bits(bits(less) ^ (bits(x) & (-1 << (x.dtype.bits - 1))), x.dtype)
    return select(bad, NAN, flipped)


def round_half_away(x: Term) -> Term:
    """Nearest integer, ties away from zero."""
    whole = unary("trunc", x)
    away = select(abs(x - whole) >= 0.5, abs(whole) + 1.0, abs(whole))
    return with_sign_of(away, x)


def nextafter(x: Term, y: Term) -> Term:
    """The number after x on the way to y."""
    word = bits(x)
    away_from_zero = (x < y) ^ sign_bit(x)
    moved = from_bits(word + select(away_from_zero, word.constant(1), -1), x.dtype)
    smallest = with_sign_of(from_bits(word.constant(1), x.dtype), y)
    result = select(x.equals(0.0), smallest, moved)
    return select(is_nan(x) | is_nan(y), NAN, select(x.equals(y), y, result))


def ldexp(x: Term, exponent: Term) -> Term:
    """x * 2**exponent, rounded once."""
    dtype = x.dtype
    mantissa, own = split_exponent(abs(x), 1.0)
    reach = 3 * BIAS[dtype]
    total = resize(clamp_integer(exponent, -reach, reach), own.dtype) + own
    low, high = -BIAS[dtype] - MANTISSA_BITS[dtype] - 2, BIAS[dtype] + 2
    scaled = with_sign_of(scale(mantissa, clamp_integer(total, low, high)), x)
    return select(x.equals(0.0) | ~is_finite(x), x, scaled)


def clamp_integer(a: Term, low: int, high: int) -> Term:
    return larger(smaller(a, high), low)


def ilogb(x: Term) -> Term:
    """The exponent as an i32; the smallest i32 for 0 and NaN, the largest for infinity."""
    _, exponent = split_exponent(abs(x), 1.0)
    result = resize(exponent, DType.I32)
    result = select(is_infinite(x), (1 << 31) - 1, result)
    return select(x.equals(0.0) | is_nan(x), -1 << 31, result)


def logb(x: Term) -> Term:
    """The exponent as a float."""
    _, exponent = split_exponent(abs(x), 1.0)
    result = select(x.equals(0.0), -INFINITY, to_float(exponent, x.dtype))
    return select(is_nan(x), NAN, select(is_infinite(x), INFINITY, result))


def fdim(x: Term, y: Term) -> Term:
    """x - y, or 0 where it is negative."""
    return select(x <= y, 0.0, x - y)


def saturate(x: Term) -> Term:
    """Within 0..1; NaN gives 0."""
    return smaller(larger(x, 0.0), 1.0)


# --------------------------------------------------------------------------------------------------- integers


def mulhi_signed(a: Term, b: Term) -> Term:
    """Upper half of the signed product."""
    high = a.emit("tt.mulhiui", [a, b], a.dtype)
    sign = a.dtype.bits - 1
    return high - ((a >> sign) & b) - ((b >> sign) & a)


def mulhi_unsigned(a: Term, b: Term) -> Term:
    return a.emit("tt.mulhiui", [a, b], a.dtype)


def mul24(a: Term, b: Term) -> Term:
    """Low 32 bits of the product of the low 24 bits, signed."""
    return ((a << 8) >> 8) * ((b << 8) >> 8)


def umul24(a: Term, b: Term) -> Term:
    return (a & 0xFFFFFF) * (b & 0xFFFFFF)


def reverse_bits(a: Term) -> Term:
    """The lowest bit becomes the highest, and so on."""
    width, masks = a.dtype.bits, {1: 0x55, 2: 0x33, 4: 0x0F}
    distance = 1
    while distance < width:
        repeated = masks.get(distance)
        if repeated is not None:
            mask = int.from_bytes(bytes([repeated]) * (width // 8), "little")
        else:
            mask = sum(((1 << distance) - 1) << start for start in range(0, width, 2 * distance))
        signed_mask = mask - (1 << width) if mask >> (width - 1) else mask
        a = ((a & signed_mask) << distance) | (a.shift_right_unsigned(distance) & signed_mask)
        distance *= 2
    return a


def find_first_set(a: Term) -> Term:
    """1 + the place of the lowest one bit, 0 if there is none."""
    lowest = a & (0 - a)
    width = a.dtype.bits
    return resize(width - unary("ctlz", lowest), DType.I32)


def count_leading_zeros(a: Term) -> Term:
    return resize(unary("ctlz", a), DType.I32)


def population_count(a: Term) -> Term:
    return resize(unary("ctpop", a), DType.I32)


def average(rounded_up: bool, unsigned: bool) -> Formula:
    """(a + b) / 2 without overflow."""

    def formula(a: Term, b: Term) -> Term:
        wide = [resize(x, DType.I64, unsigned) for x in (a, b)]
        return resize((wide[0] + wide[1] + int(rounded_up)) >> 1, a.dtype)

    return formula


def sum_of_absolute_difference(unsigned: bool) -> Formula:
    def formula(a: Term, b: Term, c: Term) -> Term:
        difference = resize(a, DType.I64, unsigned) - resize(b, DType.I64, unsigned)
        return resize(abs(difference), a.dtype) + c

    return formula


def byte_permute(a: Term, b: Term, selector: Term) -> Term:
    """Four bytes of the eight of b:a, picked by the low three bits of the selector's nibbles."""
    both = resize(a, DType.I64, unsigned=True) | (resize(b, DType.I64) << 32)
    result = None
    for position in range(4):
        place = resize((selector.shift_right_unsigned(4 * position) & 7) << 3, DType.I64)
        byte = resize(both.shift_right_unsigned(place) & 0xFF, DType.I32) << (8 * position)
        result = byte if result is None else result | byte
    assert result is not None
    return result


# ------------------------------------------------------------------------------------------- words of a double


def high_word(x: Term) -> Term:
    """The upper 32 bits of an f64."""
    return resize(bits(x).shift_right_unsigned(32), DType.I32)


def low_word(x: Term) -> Term:
    return resize(bits(x), DType.I32)


def double_of_words(high: Term, low: Term) -> Term:
    return from_bits((resize(high, DType.I64) << 32) | resize(low, DType.I64, unsigned=True), DType.F64)


def reciprocal_of_high_word(x: Term) -> Term:
    """1 / x with the lower 32 bits 0."""
    return from_bits(bits(1.0 / x) & (-1 << 32), DType.F64)
