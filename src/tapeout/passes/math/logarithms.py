"""Logarithms, powers, cube roots and inverse hyperbolic functions.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

import math

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.exponentials import exp2, exp_of_sum
from tapeout.passes.math.float_parts import (
    BIAS,
    LN_2,
    LN_10,
    LOG2_E,
    SPLIT,
    is_finite,
    is_infinite,
    sign_bit,
    split_exponent,
)
from tapeout.passes.math.formula import (
    INFINITY,
    NAN,
    Term,
    fma,
    is_nan,
    polynomial,
    select,
    to_float,
    unary,
    with_sign_of,
)


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


def log_of_two_terms(x: Term) -> tuple[Term, Term]:
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
    high, low = log_of_two_terms(select(is_finite(x) & (size > 0.0), size, 1.0))
    product = y * high
    result = exp_of_sum(product, fma(y, high, -product) + y * low)
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
