"""Functions of integers, and the two words of a double.

Formulas of functions that the vector engine has; which operation each stands for, and how accurate it is: `libdevice`.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math.formula import Formula, Term, bits, from_bits, resize, unary


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
