"""The gamma function and its logarithm.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

import math

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.exponentials import exp_times
from tapeout.passes.math.float_parts import PI, clamp
from tapeout.passes.math.formula import INFINITY, NAN, Term, fma, is_nan, polynomial, select, unary, with_sign_of
from tapeout.passes.math.logarithms import log, log_of_two_terms
from tapeout.passes.math.trigonometry import sinpi

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
    log_high, log_low = log_of_two_terms(z)
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
