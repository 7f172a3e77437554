"""Error functions, the normal distribution, and their inverses.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

import math

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import coefficients
from tapeout.passes.math.exponentials import exp, exp_of_sum
from tapeout.passes.math.float_parts import clamp
from tapeout.passes.math.formula import INFINITY, Term, fma, polynomial, select, unary, with_sign_of
from tapeout.passes.math.logarithms import log


def erfc(x: Term) -> Term:
    """1 - erf(x), to full relative accuracy far out."""
    size = clamp(abs(x), 0.0, 30.0)
    q = (size - 4.0) / (size + 4.0)
    shape = (polynomial(q, *coefficients.ERFCX[x.dtype]) + 1.0) / fma(size, 2.0, 1.0)
    square = size * size
    result = exp_of_sum(-square, -fma(size, size, -square), shape)
    return select(x < 0.0, 2.0 - result, result)


def erfcx(x: Term) -> Term:
    """e**(x**2) erfc(x)."""
    size = abs(x)
    bounded = clamp(size, 0.0, 1e17)
    q = (bounded - 4.0) / (bounded + 4.0)
    result = (polynomial(q, *coefficients.ERFCX[x.dtype]) + 1.0) / fma(size, 2.0, 1.0)
    square = size * size
    doubled = exp_of_sum(square, fma(size, size, -square)) * 2.0
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
