"""Bessel functions of orders 0 and 1, as formulas of functions that the vector engine has.

Near 0 polynomials in x**2 (for Y beside its logarithm and pole), up to 8 polynomials in x, beyond Hankel's amplitudes P
and Q with the sine and cosine of x: J0 = (P (cos x + sin x) - Q (sin x - cos x)) / sqrt(pi x), and so on.
"""

import math

from tapeout.passes.math import coefficients
from tapeout.passes.math.exponentials import exp_times
from tapeout.passes.math.formula import INFINITY, Term, polynomial, select, unary, with_sign_of
from tapeout.passes.math.logarithms import log
from tapeout.passes.math.trigonometry import sine_and_cosine

NEAR_END, MIDDLE_END = 4.0, 8.0
CENTRE_OF_SQUARES, CENTRE = 8.0, 6.0
"""Centres of the squares of 0..4, and of 4..8, from which the polynomials' arguments are counted."""
GROWING_END = 8.0
TWO_OVER_PI = 2 / math.pi


def _near(square: Term, table: coefficients.Table) -> Term:
    return polynomial(square - CENTRE_OF_SQUARES, *table[square.dtype])


def _middle(x: Term, table: coefficients.Table) -> Term:
    return polynomial(x - CENTRE, *table[x.dtype])


def _far(x: Term, p: coefficients.Table, q: coefficients.Table) -> tuple[Term, Term, Term, Term]:
    """Return, for x >= 8: P / sqrt(pi x), Q / sqrt(pi x), sin x + cos x, sin x - cos x."""
    inverse = MIDDLE_END / x
    square = inverse * inverse
    scale = (1 / math.sqrt(math.pi)) / unary("sqrt", x)
    sine, cosine = sine_and_cosine(x)
    return (
        polynomial(square - 0.5, *p[x.dtype]) * scale,
        polynomial(square - 0.5, *q[x.dtype]) * inverse * scale,
        sine + cosine,
        sine - cosine,
    )


def _joined(x: Term, near: Term, middle: Term, far: Term) -> Term:
    """The part that x >= 0 lies in; 0 at infinity."""
    beyond = select(x.equals(INFINITY), 0.0, far)
    return select(x < NEAR_END, near, select(x < MIDDLE_END, middle, beyond))


def j0(x: Term) -> Term:
    """First kind, order 0."""
    size = abs(x)
    p, q, total, difference = _far(size, coefficients.P0, coefficients.Q0)
    near, middle = _near(size * size, coefficients.J0_NEAR), _middle(size, coefficients.J0_MIDDLE)
    return _joined(size, near, middle, p * total - q * difference)


def j1(x: Term) -> Term:
    """First kind, order 1."""
    size = abs(x)
    p, q, total, difference = _far(size, coefficients.P1, coefficients.Q1)
    near, middle = size * _near(size * size, coefficients.J1_NEAR), _middle(size, coefficients.J1_MIDDLE)
    value = _joined(size, near, middle, p * difference + q * total)
    return select(x < 0.0, -value, select(x.equals(0.0), x, value))


def y0(x: Term) -> Term:
    """Second kind, order 0; NaN below 0."""
    p, q, total, difference = _far(x, coefficients.P0, coefficients.Q0)
    square = x * x
    logarithm = log(x) * TWO_OVER_PI
    near = logarithm * _near(square, coefficients.J0_NEAR) + _near(square, coefficients.Y0_NEAR)
    return _joined(x, near, _middle(x, coefficients.Y0_MIDDLE), p * difference + q * total)


def y1(x: Term) -> Term:
    """Second kind, order 1; NaN below 0."""
    p, q, total, difference = _far(x, coefficients.P1, coefficients.Q1)
    square = x * x
    regular = log(x) * TWO_OVER_PI * _near(square, coefficients.J1_NEAR) + _near(square, coefficients.Y1_NEAR)
    near = select(x.equals(0.0), -INFINITY, x * regular - TWO_OVER_PI / x)
    return _joined(x, near, _middle(x, coefficients.Y1_MIDDLE), q * difference - p * total)


def _grown(size: Term, small: Term, large: Term) -> Term:
    """e**size times what belongs to it: up to 8, or over the root of size beyond."""
    value = exp_times(size, None, select(size < GROWING_END, small, large / unary("sqrt", size)))
    return select(size < INFINITY, value, size)


def i0(x: Term) -> Term:
    """Modified, order 0."""
    size = abs(x)
    small = polynomial(size - GROWING_END / 2, *coefficients.I0_NEAR[x.dtype])
    return _grown(size, small, polynomial(GROWING_END / size - 0.5, *coefficients.I0_FAR[x.dtype]))


def i1(x: Term) -> Term:
    """Modified, order 1."""
    size = abs(x)
    small = size * polynomial(size - GROWING_END / 2, *coefficients.I1_NEAR[x.dtype])
    value = _grown(size, small, polynomial(GROWING_END / size - 0.5, *coefficients.I1_FAR[x.dtype]))
    return with_sign_of(value, x)
