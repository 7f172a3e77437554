"""Sums, products, quotients, roots and conversions rounded down, up or toward zero, as formulas.

Each is the result rounded to nearest, moved to its neighbour where the exact value lies on the side asked for. On which
side it lies is found exactly: factors are compared without their exponents, so nothing underflows on the way.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math.float_parts import BIAS, is_finite, scale, sign_bit, split_exponent
from tapeout.passes.math.formula import (
    INFINITY,
    Formula,
    Term,
    bits,
    fma,
    from_bits,
    narrow,
    resize,
    select,
    to_float,
    to_integer,
    unary,
    widen,
)
from tapeout.passes.math.remainders import clamp_integer, nextafter
from tapeout.passes.math.trigonometry import LEAST_I64

DIRECTIONS = ("rd", "ru", "rz")


def _moved(direction: str, result: Term, below: Term, above: Term) -> Term:
    """The result, or the number after it on the side where the exact value lies: `below` or `above` the result."""
    if direction == "rd":
        return select(below, nextafter(result, result.constant(-INFINITY)), result)
    if direction == "ru":
        return select(above, nextafter(result, result.constant(INFINITY)), result)
    is_further_out = ((result > 0.0) & below) | ((result < 0.0) & above)
    return select(is_further_out, from_bits(bits(result) - 1, result.dtype), result)


def _moved_by_size(direction: str, result: Term, rest: Term, *operands: Term) -> Term:
    """`rest` has the sign of |exact| - |result|; where an operand is 0, infinite or NaN the result is exact."""
    is_rounded = is_finite(operands[0]) & operands[0].differs(0.0)
    for operand in operands[1:]:
        is_rounded = is_rounded & is_finite(operand) & operand.differs(0.0)
    rest = select(sign_bit(result), -rest, rest)
    return _moved(direction, result, is_rounded & (rest < 0.0), is_rounded & (rest > 0.0))


def _with_sign_of_no_difference(direction: str, result: Term, total: Term, a: Term, b: Term) -> Term:
    """a - a is -0 when rounding down."""
    if direction != "rd":
        return result
    return select(total.equals(0.0) & ((bits(a) | bits(b)) < 0), -0.0, result)


def _parts(a: Term) -> tuple[Term, Term]:
    """|a| as a number from 1 to 2 and an exponent."""
    return split_exponent(abs(a), 1.0)


def _scaled(size: Term, exponent: Term) -> Term:
    """size * 2**exponent, where that is near 1; 0 and infinity stay."""
    reach = 2 * BIAS[size.dtype] - 4
    return scale(size, clamp_integer(exponent, -reach, reach))


def _rest_of_sum(total: Term, a: Term, b: Term) -> Term:
    """a + b - total, exact."""
    a_is_larger = abs(a) >= abs(b)
    larger, smaller = select(a_is_larger, a, b), select(a_is_larger, b, a)
    return smaller - (total - larger)


def add(direction: str) -> Formula:
    def formula(a: Term, b: Term) -> Term:
        total = a + b
        rest = _rest_of_sum(total, a, b)  # where the sum overflows, an infinity of the other sign
        result = _moved(direction, total, rest < 0.0, rest > 0.0)
        return _with_sign_of_no_difference(direction, result, total, a, b)

    return formula


def subtract(direction: str) -> Formula:
    return lambda a, b: add(direction)(a, -b)


def multiply(direction: str) -> Formula:
    def formula(a: Term, b: Term) -> Term:
        product = a * b
        (a_part, a_exponent), (b_part, b_exponent) = _parts(a), _parts(b)
        size = _scaled(abs(product), -(a_exponent + b_exponent))
        return _moved_by_size(direction, product, fma(a_part, b_part, -size), a, b)

    return formula


def divide(direction: str) -> Formula:
    def formula(a: Term, b: Term) -> Term:
        quotient = a / b
        (a_part, a_exponent), (b_part, b_exponent) = _parts(a), _parts(b)
        size = _scaled(abs(quotient), b_exponent - a_exponent)
        return _moved_by_size(direction, quotient, fma(-size, b_part, a_part), a, b)

    return formula


def reciprocal(direction: str) -> Formula:
    return lambda a: divide(direction)(a.constant(1.0), a)


def square_root(direction: str) -> Formula:
    def formula(a: Term) -> Term:
        root = unary("sqrt", a)
        part, exponent = _parts(a)
        half = exponent >> 1
        part = select((exponent & 1).equals(0), part, part * 2.0)
        size = _scaled(root, -half)
        return _moved_by_size(direction, root, fma(-size, size, part), a)

    return formula


def fused_multiply_add(direction: str) -> Formula:
    """Compute for f32 by way of f64, in which the product is exact."""

    def formula(a: Term, b: Term, c: Term) -> Term:
        result = fma(a, b, c)
        product, addend = widen(a, DType.F64) * widen(b, DType.F64), widen(c, DType.F64)
        total = product + addend
        difference = total - widen(result, DType.F64)
        rest = select(difference.equals(0.0), _rest_of_sum(total, product, addend), difference)
        moved = _moved(direction, result, rest < 0.0, rest > 0.0)
        return _with_sign_of_no_difference(direction, moved, total, product, addend)

    return formula


def from_integer(direction: str, dtype: DType, unsigned: bool) -> Formula:
    def formula(a: Term) -> Term:
        result = to_float(a, dtype, unsigned)
        is_u64 = unsigned and a.dtype is DType.I64
        exact, back = resize(a, DType.I64, unsigned), to_integer(result, DType.I64, is_u64)
        if is_u64:  # compared as signed numbers
            exact, back = exact ^ LEAST_I64, back ^ LEAST_I64
        is_beyond = result.equals(2.0 ** (64 if is_u64 else 63))  # not an integer of the type any more
        return _moved(direction, result, (exact < back) | is_beyond, (exact > back) & ~is_beyond)

    return formula


def to_single(direction: str) -> Formula:
    """f64 to f32."""

    def formula(a: Term) -> Term:
        result = narrow(a, DType.F32)
        back = widen(result, DType.F64)
        return _moved(direction, result, a < back, a > back)

    return formula


def _functions() -> dict[str, Formula]:
    table: dict[str, Formula] = {}
    integers = {"int": False, "uint": True, "ll": False, "ull": True}
    for direction in DIRECTIONS:
        for letter in "fd":
            table |= {
                f"{letter}add_{direction}": add(direction),
                f"{letter}sub_{direction}": subtract(direction),
                f"{letter}mul_{direction}": multiply(direction),
                f"{letter}div_{direction}": divide(direction),
                f"{letter}rcp_{direction}": reciprocal(direction),
                f"{letter}sqrt_{direction}": square_root(direction),
            }
        for source, unsigned in integers.items():
            table[f"{source}2float_{direction}"] = from_integer(direction, DType.F32, unsigned)
            table[f"{source}2double_{direction}"] = from_integer(direction, DType.F64, unsigned)
        table[f"fmaf_{direction}"] = fused_multiply_add(direction)
        table[f"double2float_{direction}"] = to_single(direction)
    return table


FUNCTIONS = _functions()
"""Formulas by libdevice's names, without `__nv_`. No `fma_rd`, `fma_ru`, `fma_rz` of f64: nothing holds their
products."""
