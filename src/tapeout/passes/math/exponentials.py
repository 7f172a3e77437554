"""Exponentials and hyperbolic functions.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.float_parts import (
    LARGEST_EXPONENT,
    LN_2,
    LOG2_E,
    SMALLEST_EXPONENT,
    SPLIT,
    WIDE_EXPONENT,
    clamp,
    power_of_two,
    scale,
)
from tapeout.passes.math.formula import INTEGER_OF_FLOAT, Term, fma, polynomial, select, to_integer, unary, with_sign_of


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


def exp_of_sum(high: Term, low: Term, factor: Term | None = None, halvings: int = 0) -> Term:
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
    return exp_of_sum(high, low)


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
    far = exp_of_sum(size, size.constant(0.0), halvings=1)
    return with_sign_of(select(size > 20.0, far, near), x)


def cosh(x: Term) -> Term:
    """Hyperbolic cosine."""
    size = abs(x)
    half = exp_of_sum(size, size.constant(0.0), halvings=1)
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
