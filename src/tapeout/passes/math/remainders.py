"""Norms, remainders, rounding and neighbours of a number.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math.float_parts import (
    BIAS,
    MANTISSA_BITS,
    clamp,
    is_finite,
    is_infinite,
    scale,
    sign_bit,
    split_exponent,
)
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
    repeat,
    resize,
    select,
    smaller,
    to_float,
    unary,
    widen,
    with_sign_of,
)


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
