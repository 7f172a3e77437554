"""Functions and conversions against oracles that share no code with them: Python integers and rationals,
ml_dtypes, mpmath, NumPy's wider types."""

import functools
import math
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.numerics.builder import KIND_OF_DTYPE
from tapeout.numerics.dtypes import CANONICAL_NAN, DType
from tapeout.numerics.functions import ACCURACY_ULP, MEANING, convert, multiply_accumulate
from tapeout.numerics.numpy_builder import NUMPY_OF_KIND, NumpyBuilder, from_storage, to_storage
from tapeout.numerics.operations import ARITHMETIC_FLOATS, INTEGERS, Function, Rounding

B = NumpyBuilder()

NUMPY_FLOAT = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F8E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
}
NARROW = (DType.BF16, DType.F16, DType.F8E4M3, DType.F8E5M2)


@pytest.fixture(autouse=True)
def quiet():
    """The oracles meet infinities and NaN on purpose; the code under test does without this."""
    with np.errstate(all="ignore"):
        yield


def from_bits(dtype, bits):
    """Values a builder works on, from bit patterns."""
    unsigned = np.asarray(bits, f"u{dtype.size_bytes}").reshape(-1)
    kind = NUMPY_OF_KIND[KIND_OF_DTYPE[dtype]]
    return from_storage(dtype, unsigned.view(np.int8)) if dtype is DType.I1 else unsigned.view(kind)


def to_bits(dtype, value):
    stored = np.ascontiguousarray(to_storage(dtype, value))
    return stored.view(f"u{stored.dtype.itemsize}")


def as_float(dtype, value):
    """Values as the outside library's numbers of that type."""
    return np.ascontiguousarray(value).view(NUMPY_FLOAT[dtype])


def apply(function, dtype, *bits):
    operands = (from_bits(t, x) for t, x in zip(function.operand_dtypes(dtype), bits, strict=True))
    return to_bits(function.result_dtype(dtype), MEANING[function](B, dtype, *operands))


def random_bits(dtype, count, seed=0):
    """Bit patterns: uniform ones, values near 1, and the corners."""
    random = np.random.default_rng(seed)
    unsigned = np.dtype(f"u{dtype.size_bytes}")
    bits = random.integers(0, 1 << dtype.bits, count, np.uint64).astype(unsigned)
    if dtype.is_float:
        near_one = random.normal(size=count).astype(NUMPY_FLOAT[dtype]).view(unsigned)
        bits = np.where(random.random(count) < 0.5, bits, near_one)
        landmarks = np.array([0.0, 1.0, np.inf, np.nan, 0.5, 2.0]).astype(NUMPY_FLOAT[dtype]).view(unsigned)
    else:
        landmarks = np.array([0, 1, 2, dtype.bits - 1, dtype.bits, (1 << dtype.bits - 1) - 1], unsigned)
        near_zero = random.integers(0, 10, count).astype(unsigned)
        bits = np.where(random.random(count) < 0.7, bits, near_zero)
    sign = unsigned.type(1 << dtype.bits - 1)
    corners = np.concatenate([landmarks, landmarks ^ sign, ~landmarks, [unsigned.type(1), sign | unsigned.type(1)]])
    corners = np.repeat(corners, len(corners)) if seed % 2 else np.tile(corners, len(corners))
    return np.concatenate([bits, corners.astype(unsigned)])


def expect(dtype, got_bits, want):
    """Bit equality, `want` being numbers of the outside library; a NaN must be the canonical one."""
    want_bits = want.astype(NUMPY_FLOAT[dtype]).view(got_bits.dtype)
    want_bits = np.where(np.isnan(want.astype(np.float64)), got_bits.dtype.type(CANONICAL_NAN[dtype]), want_bits)
    np.testing.assert_array_equal(got_bits, want_bits)


# --------------------------------------------------------------------------------------- float arithmetic


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
@pytest.mark.parametrize("label", ["add", "sub", "mul", "div"])
def test_arithmetic_is_correctly_rounded(dtype, label):
    a, b = random_bits(dtype, 4000, 0), random_bits(dtype, 4000, 1)
    x, y = (as_float(dtype, v) for v in (a, b))
    wide = {DType.F64: np.float64}.get(dtype, np.float64 if dtype is DType.F32 else np.float32)
    operation = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[label]
    # The operation in the type itself where NumPy has it, else in a type wide enough to round innocently.
    native = dtype in (DType.F32, DType.F64)
    want = operation(x, y) if native else operation(x.astype(wide), y.astype(wide)).astype(NUMPY_FLOAT[dtype])
    expect(dtype, apply(Function[label.upper()], dtype, a, b), want)


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
def test_roots_and_reciprocals(dtype):
    a = random_bits(dtype, 4000)
    x = as_float(dtype, a)
    wide = x if dtype is DType.F64 else x.astype(np.float32)
    number = NUMPY_FLOAT[dtype]
    one = wide.dtype.type(1)
    expect(dtype, apply(Function.SQRT, dtype, a), np.sqrt(wide).astype(number))
    expect(dtype, apply(Function.RECIPROCAL, dtype, a), (one / wide).astype(number))
    expect(dtype, apply(Function.RSQRT, dtype, a), (one / np.sqrt(wide)).astype(number))


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
def test_rounding_to_integers_keeps_the_sign_of_zero(dtype):
    a = random_bits(dtype, 4000)
    x = as_float(dtype, a).astype(np.float64)
    for label, operation in {
        "floor": np.floor,
        "ceil": np.ceil,
        "trunc": np.trunc,
        "round_even": np.rint,
    }.items():
        expect(dtype, apply(Function[label.upper()], dtype, a), operation(x).astype(NUMPY_FLOAT[dtype]))


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
def test_neg_and_abs_move_bits(dtype):
    a = random_bits(dtype, 1000)
    sign = a.dtype.type(1 << dtype.bits - 1)
    np.testing.assert_array_equal(apply(Function.NEG, dtype, a), a ^ sign)
    np.testing.assert_array_equal(apply(Function.ABS, dtype, a), a & ~sign)
    np.testing.assert_array_equal(apply(Function.COPY, dtype, a), a)


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
def test_minimum_and_maximum_order_zeros_and_treat_nan(dtype):
    a, b = random_bits(dtype, 2000, 0), random_bits(dtype, 2000, 1)
    x, y = (as_float(dtype, v).astype(np.float64) for v in (a, b))
    key = np.vectorize(lambda v: (v, math.copysign(1, v)), otypes=[object])
    first_is_smaller = key(x) < key(y)
    nan, x_nan, y_nan = np.isnan(x) | np.isnan(y), np.isnan(x), np.isnan(y)
    smaller, larger = np.where(first_is_smaller, x, y), np.where(first_is_smaller, y, x)
    expect(dtype, apply(Function.MINIMUM, dtype, a, b), np.where(nan, np.nan, smaller))
    expect(dtype, apply(Function.MAXIMUM, dtype, a, b), np.where(nan, np.nan, larger))
    expect(dtype, apply(Function.MIN_NUMBER, dtype, a, b), np.where(x_nan, y, np.where(y_nan, x, smaller)))
    expect(dtype, apply(Function.MAX_NUMBER, dtype, a, b), np.where(x_nan, y, np.where(y_nan, x, larger)))


@pytest.mark.parametrize("dtype", ARITHMETIC_FLOATS)
def test_float_comparisons(dtype):
    a, b = random_bits(dtype, 2000, 0), random_bits(dtype, 2000, 1)
    x, y = (as_float(dtype, v).astype(np.float64) for v in (a, b))
    for function, want in {
        Function.EQUAL: x == y,
        Function.NOT_EQUAL: x != y,
        Function.LESS: x < y,
        Function.LESS_EQUAL: x <= y,
    }.items():
        np.testing.assert_array_equal(apply(function, dtype, a, b), want)


def exact_fma(a, b, c, number):
    """Rounded once by Python's exact integer division."""
    a, b, c = float(a), float(b), float(c)
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return math.copysign(0.0, a) * math.copysign(1.0, b) + c if c == 0 else 0.0
    return round_fraction(exact, number)


def round_fraction(exact, number):
    info = np.finfo(number)
    sign, exact = (-1.0, -exact) if exact < 0 else (1.0, exact)
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if Fraction(2) ** exponent > exact:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    rounded = round(exact / quantum) * quantum  # Python rounds half to even
    return sign * (math.inf if rounded > Fraction(float(info.max)) else float(rounded))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_f32_fma_is_rounded_once(data):
    words = st.integers(0, 2**32 - 1)
    a, b = data.draw(words), data.draw(words)
    product = np.array([a, b], np.uint32).view(np.float32).astype(np.float64).prod()
    near = int(np.float32(-product).view(np.uint32))
    tiny = int(np.float32(product * 2.0**-25).view(np.uint32))
    offset = data.draw(st.integers(-3, 3))
    c = data.draw(st.sampled_from([near + offset, tiny + offset, data.draw(words)])) % 2**32
    check_fma_f32(np.array([a]), np.array([b]), np.array([c]))


def check_fma_f32(a, b, c):
    x, y, z = (np.asarray(v, np.uint32).view(np.float32) for v in (a, b, c))
    want = np.array([exact_fma(*v, np.float32) for v in zip(x, y, z, strict=True)], np.float32)
    expect(DType.F32, apply(Function.FMA, DType.F32, a, b, c), want)


def test_f32_fma_on_halfway_sums_and_subnormals():
    random = np.random.default_rng(5)
    one = np.float32(1).view(np.uint32)
    a = one + random.integers(0, 2**23, 3000, np.uint32)
    b = one + (1 << random.integers(0, 24, 3000).astype(np.uint32))
    c = random_bits(DType.F32, 3000, 2)[:3000]
    c[:1500] = (np.float32(2.0**25).view(np.uint32) + random.integers(-9, 9, 1500)).astype(np.uint32)
    check_fma_f32(a, b, c)
    shift = np.uint32(100 << 23)
    check_fma_f32(a - shift, b - np.uint32(30 << 23), np.arange(3000, dtype=np.uint32))


@settings(max_examples=100, deadline=None)
@given(*[st.floats(allow_nan=True, allow_infinity=True)] * 3)
def test_f64_fma_is_rounded_once(a, b, c):
    bits = [np.array([v], np.float64).view(np.uint64) for v in (a, b, c)]
    expect(DType.F64, apply(Function.FMA, DType.F64, *bits), np.array([exact_fma(a, b, c, np.float64)]))


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16])
def test_narrow_fma_rounds_the_f32_fma(dtype):
    bits = [random_bits(dtype, 2000, seed)[:2000] for seed in range(3)]
    wide = [as_float(dtype, v).astype(np.float32).view(np.uint32) for v in bits]
    f32 = apply(Function.FMA, DType.F32, *wide).view(np.float32)
    expect(dtype, apply(Function.FMA, dtype, *bits), f32.astype(NUMPY_FLOAT[dtype]))


@pytest.mark.parametrize("dtype", tuple(DType))
def test_select_moves_bits(dtype):
    a, b = random_bits(dtype, 500, 0), random_bits(dtype, 500, 1)
    if dtype is DType.I1:
        a, b = a & 1, b & 1
    condition = np.arange(len(a), dtype=np.uint8) % 3
    np.testing.assert_array_equal(apply(Function.SELECT, dtype, condition, a, b), np.where(condition, a, b))


# ------------------------------------------------------------------------------------------------ integers


def signed_of(value, bits):
    return value - (1 << bits) if value >> bits - 1 else value


def quotient(a, b):
    """Toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGER_ORACLE = {
    Function.ADD: lambda a, b, s, t, w: a + b,
    Function.SUB: lambda a, b, s, t, w: a - b,
    Function.MUL: lambda a, b, s, t, w: a * b,
    Function.MUL_HIGH_SIGNED: lambda a, b, s, t, w: (s * t) >> w,
    Function.MUL_HIGH_UNSIGNED: lambda a, b, s, t, w: (a * b) >> w,
    Function.DIV_SIGNED: lambda a, b, s, t, w: quotient(s, t) if t else -1,
    Function.DIV_UNSIGNED: lambda a, b, s, t, w: a // b if b else -1,
    Function.REM_SIGNED: lambda a, b, s, t, w: s - t * quotient(s, t) if t else s,
    Function.REM_UNSIGNED: lambda a, b, s, t, w: a % b if b else a,
    Function.MIN_SIGNED: lambda a, b, s, t, w: min(s, t),
    Function.MAX_SIGNED: lambda a, b, s, t, w: max(s, t),
    Function.MIN_UNSIGNED: lambda a, b, s, t, w: min(a, b),
    Function.MAX_UNSIGNED: lambda a, b, s, t, w: max(a, b),
    Function.AND: lambda a, b, s, t, w: a & b,
    Function.OR: lambda a, b, s, t, w: a | b,
    Function.XOR: lambda a, b, s, t, w: a ^ b,
    Function.SHIFT_LEFT: lambda a, b, s, t, w: a << b if b < w else 0,
    Function.SHIFT_RIGHT_SIGNED: lambda a, b, s, t, w: s >> min(b, w - 1),
    Function.SHIFT_RIGHT_UNSIGNED: lambda a, b, s, t, w: a >> b if b < w else 0,
    Function.EQUAL: lambda a, b, s, t, w: a == b,
    Function.NOT_EQUAL: lambda a, b, s, t, w: a != b,
    Function.LESS: lambda a, b, s, t, w: s < t,
    Function.LESS_EQUAL: lambda a, b, s, t, w: s <= t,
    Function.LESS_UNSIGNED: lambda a, b, s, t, w: a < b,
    Function.LESS_EQUAL_UNSIGNED: lambda a, b, s, t, w: a <= b,
    Function.COPY: lambda a, w: a,
    Function.COUNT_LEADING_ZEROS: lambda a, w: w - a.bit_length(),
    Function.POPULATION_COUNT: lambda a, w: a.bit_count(),
}


def test_every_integer_function_has_an_oracle():
    wanted = {f for f in Function if set(INTEGERS) <= set(f.dtypes)} - {Function.SELECT}
    assert wanted == set(INTEGER_ORACLE)
    assert set(MEANING) == set(Function)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("function", INTEGER_ORACLE, ids=lambda f: f.label)
def test_integer_functions_against_python(function, dtype):
    width = dtype.bits
    columns = [random_bits(dtype, 500, seed) for seed in range(function.arity)]
    got = apply(function, dtype, *columns)
    oracle = INTEGER_ORACLE[function]
    for values, result in zip(zip(*columns, strict=True), got, strict=True):
        plain = [int(v) for v in values]
        signed = [signed_of(v, width) for v in plain]
        want = oracle(*plain, *signed, width) if function.arity == 2 else oracle(*plain, width)
        assert int(result) == want % (1 << width if not function.is_predicate else 2), (values, function)


@pytest.mark.parametrize(
    "function", [f for f in Function if f.arity == 2 and DType.I1 in f.dtypes], ids=lambda f: f.label
)
def test_logical_functions_by_truth_table(function):
    a, b = np.array([0, 0, 1, 255], np.uint8), np.array([0, 7, 0, 1], np.uint8)
    oracle = INTEGER_ORACLE[function]
    want = [oracle(int(x != 0), int(y != 0), int(x != 0), int(y != 0), 1) & 1 for x, y in zip(a, b, strict=True)]
    assert apply(function, DType.I1, a, b).tolist() == want


# --------------------------------------------------------------------------------------------- conversions


def every_or_some(dtype):
    """Every bit pattern of the small types, random ones of the large; few of f64, whose oracle is slow."""
    if dtype.bits <= 16:
        return np.arange(1 << dtype.bits, dtype=f"u{dtype.size_bytes}")
    return random_bits(dtype, 60_000 if dtype is DType.F32 else 6_000)


def converted(bits, dtype, result_dtype, unsigned=False, rounding=Rounding.NEAREST_EVEN):
    return to_bits(result_dtype, convert(B, from_bits(dtype, bits), dtype, result_dtype, unsigned, rounding))


@pytest.mark.parametrize("dtype", NUMPY_FLOAT)
@pytest.mark.parametrize("result_dtype", NUMPY_FLOAT)
def test_float_to_float_rounds_to_nearest_even(dtype, result_dtype):
    bits = np.concatenate([every_or_some(dtype), halfway_bits(dtype, result_dtype)])
    x = as_float(dtype, bits)
    if dtype is DType.F64 and result_dtype in NARROW:
        # ml_dtypes rounds f64 twice for some targets; numpy's longdouble-free oracle is exact rationals
        # below.
        want = np.array([round_to(v, result_dtype) for v in x.tolist()], np.float64)
    else:
        want = x.astype(NUMPY_FLOAT[result_dtype])
    expect(result_dtype, converted(bits, dtype, result_dtype), want.astype(NUMPY_FLOAT[result_dtype]))


def halfway_bits(dtype, result_dtype):
    """Values between neighbours of the narrower type: the middle, and one bit to either side of it."""
    if dtype not in (DType.F32, DType.F64) or result_dtype.bits > 16:
        return np.zeros(0, f"u{dtype.size_bytes}")
    every = np.arange(1 << result_dtype.bits, dtype=f"u{result_dtype.size_bytes}")[
        :: 1 if result_dtype.bits == 8 else 37
    ]
    values = np.sort(as_float(result_dtype, every).astype(np.float64))
    values = values[np.isfinite(values)]
    middle = ((values[1:] + values[:-1]) / 2).astype(NUMPY_FLOAT[dtype]).view(f"u{dtype.size_bytes}")
    return np.concatenate([middle, middle + middle.dtype.type(1), middle - middle.dtype.type(1)])


@functools.cache
def limits_of(dtype):
    """Smallest and largest positive number of a narrow type, by listing them all."""
    every = as_float(dtype, np.arange(1, 1 << dtype.bits - 1, dtype=f"u{dtype.size_bytes}")).astype(np.float64)
    return float(every[0]), float(every[np.isfinite(every)][-1])


def round_to(value, dtype, toward_zero=False, saturate=False):
    """A Python float rounded to a narrow type in exact arithmetic."""
    if math.isnan(value):
        return math.nan
    finite = as_float(dtype, np.arange((1 << dtype.bits - 1), dtype=f"u{dtype.size_bytes}")).astype(np.float64)
    finite = finite[np.isfinite(finite)]
    largest, smallest = float(finite[-1]), float(finite[1])
    mantissa = {DType.BF16: 7, DType.F16: 10, DType.F8E4M3: 3, DType.F8E5M2: 2, DType.F32: 23}[dtype]
    overflow = math.nan if dtype is DType.F8E4M3 else math.inf
    if math.isinf(value):
        return math.copysign(largest if saturate else overflow, value)
    if value == 0:
        return value
    exponent = math.frexp(value)[1] - 1
    quantum = max(Fraction(2) ** (exponent - mantissa), Fraction(smallest))
    steps = Fraction(abs(value)) / quantum
    rounded = (math.floor(steps) if toward_zero else round(steps)) * quantum
    if rounded > Fraction(largest):
        rounded = largest if toward_zero or saturate else overflow
    return math.copysign(float(rounded), value)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.BF16, DType.F16])
@pytest.mark.parametrize("result_dtype", NARROW)
@pytest.mark.parametrize("rounding", [Rounding.TOWARD_ZERO, Rounding.NEAREST_EVEN_SATURATE])
def test_other_roundings_against_exact_arithmetic(dtype, result_dtype, rounding):
    bits = np.concatenate([random_bits(dtype, 3000), halfway_bits(dtype, result_dtype)[:3000]])
    mode = {"toward_zero": rounding is Rounding.TOWARD_ZERO}
    mode["saturate"] = not mode["toward_zero"]
    want = np.array([round_to(v, result_dtype, **mode) for v in as_float(dtype, bits).astype(np.float64).tolist()])
    got = converted(bits, dtype, result_dtype, rounding=rounding)
    expect(result_dtype, got, want.astype(NUMPY_FLOAT[result_dtype]))


def test_f64_to_f32_other_roundings():
    bits = random_bits(DType.F64, 5000)
    bits[:2000] = random_bits(DType.F32, 2000)[:2000].view(np.float32).astype(np.float64).view(np.uint64) + np.uint64(7)
    x = bits.view(np.float64)
    nearest = x.astype(np.float32)
    beyond = np.abs(nearest.astype(np.float64)) > np.abs(x)
    toward_zero = np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)
    largest = np.finfo(np.float32).max
    saturated = np.where(np.isinf(nearest), np.copysign(largest, nearest), nearest)
    expect(DType.F32, converted(bits, DType.F64, DType.F32, rounding=Rounding.TOWARD_ZERO), toward_zero)
    expect(DType.F32, converted(bits, DType.F64, DType.F32, rounding=Rounding.NEAREST_EVEN_SATURATE), saturated)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("result_dtype", INTEGERS)
@pytest.mark.parametrize("dtype", NUMPY_FLOAT)
def test_float_to_integer_saturates(dtype, result_dtype, unsigned):
    limits = np.array([127, 128, 255, 256, 32768, 65536, 2**31, 2**32, 2.0**63, 2.0**64, 127.9, -0.9])
    bits = np.concatenate([random_bits(dtype, 3000), as_float_bits(dtype, limits), as_float_bits(dtype, -limits)])
    low, high = (
        (0, 2**result_dtype.bits - 1) if unsigned else (-(2**result_dtype.bits) // 2, 2**result_dtype.bits // 2 - 1)
    )
    got = converted(bits, dtype, result_dtype, unsigned)
    for value, result in zip(as_float(dtype, bits).astype(np.float64).tolist(), got.tolist(), strict=True):
        if math.isnan(value):
            want = 0
        elif math.isinf(value):
            want = high if value > 0 else low
        else:
            want = min(max(math.trunc(value), low), high)
        assert result == want % 2**result_dtype.bits, value


def as_float_bits(dtype, values):
    return values.astype(NUMPY_FLOAT[dtype]).view(f"u{dtype.size_bytes}")


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("dtype", (*INTEGERS, DType.I1))
@pytest.mark.parametrize("result_dtype", NUMPY_FLOAT)
def test_integer_to_float_rounds_once(dtype, result_dtype, unsigned):
    bits = random_bits(dtype, 2000)
    if dtype.bits >= 32:  # halfway cases of every width: few bits, far apart, plus or minus one
        random = np.random.default_rng(2)
        top = [1 << n for n in random.integers(0, dtype.bits, 2000).tolist()]
        low = [1 << n for n in random.integers(0, dtype.bits, 2000).tolist()]
        bits[:2000] = [
            (t + u + int(v)) % 2**dtype.bits for t, u, v in zip(top, low, random.integers(-1, 2, 2000), strict=True)
        ]
    plain = [int(v != 0) if dtype is DType.I1 else int(v) for v in bits]
    values = [v if unsigned or dtype is DType.I1 else signed_of(v, dtype.bits) for v in plain]
    if result_dtype is DType.F64:
        want = np.array([float(v) for v in values])
    elif result_dtype is DType.F32:
        want = np.array([round_fraction(Fraction(v), np.float32) if v else 0.0 for v in values])
    else:
        want = np.array([round_integer(v, result_dtype) for v in values])
    expect(result_dtype, converted(bits, dtype, result_dtype, unsigned), want.astype(NUMPY_FLOAT[result_dtype]))


def round_integer(value, dtype):
    """Drop to 53 bits with a sticky last bit, which cannot change a rounding to far fewer."""
    magnitude = abs(value)
    extra = max(magnitude.bit_length() - 53, 0)
    kept = (magnitude >> extra) | int(magnitude & ((1 << extra) - 1) != 0)
    return round_to(math.copysign(float(kept << extra), value), dtype) if value else 0.0


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("dtype", (DType.I1, *INTEGERS))
@pytest.mark.parametrize("result_dtype", (DType.I1, *INTEGERS))
def test_integer_to_integer(dtype, result_dtype, unsigned):
    bits = random_bits(dtype, 200)
    for value, result in zip(bits.tolist(), converted(bits, dtype, result_dtype, unsigned).tolist(), strict=True):
        as_integer = int(value != 0) if dtype is DType.I1 else signed_of(value, dtype.bits)
        want = value if unsigned and dtype is not DType.I1 else as_integer
        assert result == want % (2 if result_dtype is DType.I1 else 2**result_dtype.bits)


# --------------------------------------------------------------------------------------- special functions


def special_arguments(label):
    random = np.random.default_rng(11)
    every = random.integers(0, 2**32, 30_000, np.uint64).astype(np.uint32).view(np.float32)
    if label.startswith("exp"):
        dense = [
            random.uniform(-155, 130, 30_000),
            random.normal(size=10_000),
            [-126.49649810791016, 59.30603790283203],
        ]
    elif label.startswith("log"):
        every = np.abs(every)
        dense = [
            random.uniform(0.4, 2.1, 30_000),
            1 + random.normal(size=10_000) * 1e-3,
            [1.4040091037750244, 1.2743293046951294],
        ]
    else:
        near = np.arange(1, 20_000) * (np.pi / 2)
        dense = [
            random.uniform(-10, 10, 20_000),
            near,
            near * 2.0**40,
            [3.958618977480065e36, 7.931699438348962e30, 16367173.0 * 2.0**72],
        ]
    values = np.concatenate([every, *(np.asarray(part, np.float32) for part in dense)])
    return values[np.isfinite(values)]


@pytest.mark.parametrize("label", [function.label for function in ACCURACY_ULP])
def test_special_functions_are_as_accurate_as_promised(label):
    x = special_arguments(label)
    got = apply(Function[label.upper()], DType.F32, x.view(np.uint32)).view(np.float32)
    wide = x.astype(np.float64)
    want = getattr(np, label)(wide)
    large = np.abs(wide) > 1e5 if label in ("sin", "cos") else np.zeros(len(x), bool)
    with mpmath.workprec(300):
        want[large] = [float(getattr(mpmath, label)(mpmath.mpf(v))) for v in wide[large].tolist()]
    overflow = np.abs(want) >= float.fromhex("0x1.ffffffp127")
    np.testing.assert_array_equal(got[overflow], np.sign(want[overflow]) * np.inf)
    ulp = np.exp2(np.maximum(np.floor(np.log2(np.abs(want))), -126) - 23)
    error = (np.abs(got - want) / ulp)[~overflow & (want != 0)]
    assert error.max() <= ACCURACY_ULP[Function[label.upper()]]


def test_special_functions_at_their_limits():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1e-45, -1e-45], np.float32)
    n, i = np.nan, np.inf
    tiny_log2 = -149.0
    for label, want in {
        "exp2": [1, 1, i, 0, n, 0.5, 1, 1],
        "exp": [1, 1, i, 0, n, np.float32(np.exp(-1.0)), 1, 1],
        "log2": [-i, -i, i, n, n, n, tiny_log2, n],
        "log": [-i, -i, i, n, n, n, np.float32(tiny_log2 * np.log(2.0)), n],
        "sin": [0.0, -0.0, n, n, n, np.float32(np.sin(-1.0)), 1e-45, -1e-45],
        "cos": [1, 1, n, n, n, np.float32(np.cos(-1.0)), 1, 1],
    }.items():
        got = apply(Function[label.upper()], DType.F32, x.view(np.uint32))
        expect(DType.F32, got, np.array(want, np.float32))


def test_exp2_of_integers_is_exact_down_to_the_last_subnormal():
    n = np.arange(-160, 140).astype(np.float32)
    want = np.exp2(n.astype(np.float64)).astype(np.float32)
    expect(DType.F32, apply(Function.EXP2, DType.F32, n.view(np.uint32)), want)


# ---------------------------------------------------------------------------------------- matrix products


@pytest.mark.parametrize("dtype", [*NUMPY_FLOAT, DType.I8])
def test_matrix_step(dtype):
    lhs, rhs = random_bits(dtype, 300, 0), random_bits(dtype, 300, 1)
    accumulator_dtype = {DType.I8: DType.I32, DType.F64: DType.F64}.get(dtype, DType.F32)
    accumulator = np.resize(random_bits(accumulator_dtype, 300, 2), len(lhs))
    operands = (from_bits(dtype, lhs), from_bits(dtype, rhs), from_bits(accumulator_dtype, accumulator))
    got = to_bits(accumulator_dtype, multiply_accumulate(B, dtype, dtype, *operands))
    if dtype is DType.I8:
        want = lhs.view(np.int8).astype(np.int64) * rhs.view(np.int8) + accumulator.view(np.int32)
        np.testing.assert_array_equal(got, want.astype(np.uint32))
        return
    number = NUMPY_FLOAT[accumulator_dtype]
    numbers = [as_float(dtype, lhs), as_float(dtype, rhs), accumulator.view(number)]
    want = [exact_fma(*v, number) for v in zip(*numbers, strict=True)]
    expect(accumulator_dtype, got, np.array(want, number))
