"""The primitives on NumPy arrays: slow and obvious, the reference for every other builder."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tapeout.numerics.builder import Kind
from tapeout.numerics.dtypes import CANONICAL_NAN, DType

Array = np.ndarray[Any, np.dtype[Any]]

NUMPY_OF_KIND = {
    Kind.BOOL: np.dtype(np.bool_),
    Kind.I8: np.dtype(np.int8),
    Kind.I16: np.dtype(np.int16),
    Kind.I32: np.dtype(np.int32),
    Kind.I64: np.dtype(np.int64),
    Kind.F32: np.dtype(np.float32),
    Kind.F64: np.dtype(np.float64),
}
KIND_OF_NUMPY = {numpy: kind for kind, numpy in NUMPY_OF_KIND.items()}
CANONICAL_NAN_OF_KIND = {Kind.F32: CANONICAL_NAN[DType.F32], Kind.F64: CANONICAL_NAN[DType.F64]}

STORAGE = {
    dtype: np.dtype(f"i{dtype.size_bytes}")
    if not dtype.is_float or dtype.bits < 32
    else np.dtype(f"f{dtype.size_bytes}")
    for dtype in DType
}
"""NumPy type of an element in memory; f16, bf16 and float8 as integers of their width."""


def from_storage(dtype: DType, stored: Array) -> Array:
    """Elements as they lie in memory to values a builder works on: an i1 is true if its byte is not 0."""
    return stored != 0 if dtype is DType.I1 else stored


def to_storage(dtype: DType, value: Array) -> Array:
    """Values to elements as they lie in memory: an i1 is the byte 0 or 1."""
    return value.astype(np.int8) if dtype is DType.I1 else value


def _quiet(operation: Callable[..., Array]) -> Callable[..., Array]:
    """NumPy's warnings about infinities, NaN and wrap-around are not ours: each is defined."""

    def quiet(*operands: Any) -> Array:
        with np.errstate(all="ignore"):
            return operation(*operands)

    return quiet


def _unsigned(a: Array) -> Array:
    return a.view(f"u{a.dtype.itemsize}")


class NumpyBuilder:
    """`tapeout.numerics.builder.Builder` on arrays of at least one dimension."""

    def kind(self, value: Array) -> Kind:
        return KIND_OF_NUMPY[value.dtype]

    def const(self, kind: Kind, value: int | float | bool, like: Array) -> Array:
        if kind.is_integer:
            value = (int(value) + (1 << kind.bits - 1)) % (1 << kind.bits) - (1 << kind.bits - 1)
        return np.full(like.shape, value, NUMPY_OF_KIND[kind])

    add = staticmethod(_quiet(np.add))
    sub = staticmethod(_quiet(np.subtract))
    mul = staticmethod(_quiet(np.multiply))
    div = staticmethod(_quiet(np.divide))
    sqrt = staticmethod(_quiet(np.sqrt))
    floor = staticmethod(_quiet(np.floor))
    ceil = staticmethod(_quiet(np.ceil))
    trunc = staticmethod(_quiet(np.trunc))
    round_even = staticmethod(_quiet(np.rint))
    is_nan = staticmethod(_quiet(np.isnan))

    def fma(self, a: Array, b: Array, c: Array) -> Array:
        a, b, c = np.broadcast_arrays(a, b, c)
        return _fma_f32(a, b, c) if a.dtype == np.float32 else _fma_f64(a, b, c)

    def canonical(self, a: Array) -> Array:
        bits = a.view(f"i{a.dtype.itemsize}")
        nan = bits.dtype.type(CANONICAL_NAN_OF_KIND[self.kind(a)])
        return np.where(np.isnan(a), nan, bits).view(a.dtype)

    eq = staticmethod(_quiet(np.equal))
    ne = staticmethod(_quiet(np.not_equal))
    lt = staticmethod(_quiet(np.less))
    le = staticmethod(_quiet(np.less_equal))

    def ult(self, a: Array, b: Array) -> Array:
        return _unsigned(a) < _unsigned(b)

    def ule(self, a: Array, b: Array) -> Array:
        return _unsigned(a) <= _unsigned(b)

    and_ = staticmethod(_quiet(np.bitwise_and))
    or_ = staticmethod(_quiet(np.bitwise_or))
    xor = staticmethod(_quiet(np.bitwise_xor))
    not_ = staticmethod(_quiet(np.bitwise_not))

    def select(self, condition: Array, a: Array, b: Array) -> Array:
        storage = f"i{a.dtype.itemsize}"  # moved as integers: a float move may touch a NaN's bits
        return np.where(condition, a.view(storage), b.view(storage)).view(a.dtype)

    def shl(self, a: Array, amount: Array) -> Array:
        return np.left_shift(_unsigned(a), _unsigned(amount)).view(a.dtype)

    def shr_s(self, a: Array, amount: Array) -> Array:
        return np.right_shift(a, amount)

    def shr_u(self, a: Array, amount: Array) -> Array:
        return np.right_shift(_unsigned(a), _unsigned(amount)).view(a.dtype)

    def div_s(self, a: Array, b: Array) -> Array:
        quotient = np.floor_divide(a, b)
        return np.where((quotient < 0) & (quotient * b != a), quotient + 1, quotient).astype(a.dtype)

    def div_u(self, a: Array, b: Array) -> Array:
        return np.floor_divide(_unsigned(a), _unsigned(b)).view(a.dtype)

    def rem_s(self, a: Array, b: Array) -> Array:
        return np.fmod(a, b)

    def rem_u(self, a: Array, b: Array) -> Array:
        return np.fmod(_unsigned(a), _unsigned(b)).view(a.dtype)

    def leading_zeros(self, a: Array) -> Array:
        rest, count = _unsigned(a).copy(), np.full(a.shape, 8 * a.dtype.itemsize, a.dtype)
        for _ in range(8 * a.dtype.itemsize):
            count -= (rest != 0).astype(a.dtype)
            rest >>= rest.dtype.type(1)
        return count

    def population_count(self, a: Array) -> Array:
        return np.bitwise_count(_unsigned(a)).astype(a.dtype)

    def bitcast(self, a: Array, kind: Kind) -> Array:
        return np.ascontiguousarray(a).view(NUMPY_OF_KIND[kind])

    def sign_extend(self, a: Array, kind: Kind) -> Array:
        return a.astype(NUMPY_OF_KIND[kind])

    def zero_extend(self, a: Array, kind: Kind) -> Array:
        return (a if a.dtype == np.bool_ else _unsigned(a)).astype(NUMPY_OF_KIND[kind])

    def truncate(self, a: Array, kind: Kind) -> Array:
        return a.astype(NUMPY_OF_KIND[kind])

    @staticmethod
    @_quiet
    def float_convert(a: Array, kind: Kind) -> Array:
        return a.astype(NUMPY_OF_KIND[kind])

    @staticmethod
    @_quiet
    def f32_from_f16_bits(a: Array) -> Array:
        return a.view(np.float16).astype(np.float32)

    @staticmethod
    @_quiet
    def f16_bits_from_f32(a: Array) -> Array:
        return a.astype(np.float16).view(np.int16)

    def float_from_signed(self, a: Array, kind: Kind) -> Array:
        return a.astype(NUMPY_OF_KIND[kind])

    def float_from_unsigned(self, a: Array, kind: Kind) -> Array:
        return _unsigned(a).astype(NUMPY_OF_KIND[kind])

    @staticmethod
    @_quiet
    def signed_from_float(a: Array, kind: Kind) -> Array:
        return a.astype(NUMPY_OF_KIND[kind])

    @staticmethod
    @_quiet
    def unsigned_from_float(a: Array, kind: Kind) -> Array:
        return a.astype(f"u{kind.bits // 8}").view(NUMPY_OF_KIND[kind])


@_quiet
def _fma_f32(a: Array, b: Array, c: Array) -> Array:
    """The product is exact in f64. Their sum is rounded to f64 with its last bit set if it was inexact
    (round to odd), so that rounding it to f32 equals rounding the exact sum: f64 has more than twice f32's
    bits plus two."""
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    is_even_and_inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(is_even_and_inexact, bits + step, bits).view(np.float64).astype(np.float32)


def _fma_f64(a: Array, b: Array, c: Array) -> Array:
    """Compute in exact rational arithmetic, element by element."""
    exact = [_fma_exact(float(x), float(y), float(z)) for x, y, z in zip(a.flat, b.flat, c.flat, strict=True)]
    return np.array(exact, np.float64).reshape(a.shape)


def _fma_exact(a: float, b: float, c: float) -> float:
    if not np.isfinite([a, b, c]).all():
        # Infinite or NaN whatever the rounding; a finite product must not overflow to an infinity on the way.
        return c if np.isfinite([a, b]).all() else a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:  # the product is 0 or -c, hence exact; IEEE addition gives the zero its sign
        return a * b + c
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
