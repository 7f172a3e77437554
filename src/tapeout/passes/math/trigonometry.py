"""Trigonometric functions and their inverses, with the reduction of large arguments.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

import itertools

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.float_parts import PI, SPLIT, is_finite, sign_bit
from tapeout.passes.math.formula import (
    NAN,
    Term,
    bits,
    fma,
    is_nan,
    polynomial,
    resize,
    select,
    to_float,
    to_integer,
    unary,
    with_sign_of,
)
from tapeout.passes.math.integers import mulhi_unsigned


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
