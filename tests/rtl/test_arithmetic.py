"""Every operation of a lane gives, bit for bit, what the NumPy builder says: all halves, directed and random floats."""

import numpy as np
import pytest

from tapeout.isa.microcode import Operation
from tapeout.numerics.builder import INTEGER_OF_BITS, Kind
from tapeout.numerics.numpy_builder import NUMPY_OF_KIND, NumpyBuilder
from tests.rtl.arithmetic_bench import computed

BUILDER = NumpyBuilder()
COUNT = 100_000
"""Random cases an operation; `python -m benchmarks.rtl_arithmetic` runs ten million."""

LANDMARKS = np.array(
    [
        *(0x0000_0000, 0x0000_0001, 0x0000_0002, 0x007F_FFFF, 0x0080_0000, 0x0080_0001, 0x00FF_FFFF, 0x0100_0000),
        *(0x3F80_0000, 0x3F80_0001, 0x3F7F_FFFF, 0x3F00_0000, 0x4000_0000, 0x4B00_0000, 0x4B80_0001, 0x7F7F_FFFF),
        *(0x7F80_0000, 0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, 0x3400_0000, 0x337F_FFFF, 0x3380_0001, 0x7F00_0000),
        *(0x3EFF_FFFF, 0x3F00_0001, 0x3FC0_0000, 0x4F00_0000, 0x5F00_0000, 0x5F80_0000, 0x477F_E000, 0x477F_F000),
        *(0x3880_0000, 0x3300_0000, 0x3300_0001, 0x387F_E000, 0x387F_F000, 0x3F35_04F3, 0x1800_0000, 0x6000_0000),
    ],
    np.uint32,
)
LANDMARKS = np.concatenate([LANDMARKS, LANDMARKS | 0x8000_0000])


def floats(rng, count):
    """Any bits; near each other in exponent, so that sums cancel and round; small ones; few bits set."""
    bits = rng.integers(0, 1 << 32, count, np.uint32)
    close = (bits & np.uint32(0x807F_FFFF)) | (rng.integers(110, 145, count, np.uint32) << np.uint32(23))
    small = (bits & np.uint32(0x807F_FFFF)) | (rng.integers(0, 30, count, np.uint32) << np.uint32(23))
    sparse = close & (rng.integers(0, 1 << 32, count, np.uint32) | np.uint32(0xFF80_0000))
    sparse &= rng.integers(0, 1 << 32, count, np.uint32) | np.uint32(0xFF80_0000)
    every = np.stack([bits, close, close, small, sparse, rng.choice(LANDMARKS, count)])
    return every[rng.integers(0, len(every), count), np.arange(count)]


def integers(rng, count, bits):
    """Of every length, both signs, zero and the extremes included."""
    value = rng.integers(0, 1 << 64, count, np.uint64, endpoint=False) >> rng.integers(0, 64, count).astype(np.uint64)
    value = np.where(rng.integers(0, 2, count) == 1, ~value, value)
    value[:4] = (0, (1 << 64) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1)
    return value & np.uint64((1 << bits) - 1)


def as_kind(bits, kind):
    if kind is Kind.BOOL:
        return bits != 0
    return bits.astype(f"u{kind.bits // 8}").view(NUMPY_OF_KIND[kind])


def as_bits(value):
    if value.dtype == np.bool_:
        return value.astype(np.uint64)
    return np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}").astype(np.uint64)


def check(operation, width, want, *operands):
    got = computed(operation, width, *operands)
    wrong = got != as_bits(want)
    shown = [[hex(int(x[wrong][0])) for x in (*operands, got, as_bits(want))]] if wrong.any() else []
    assert not wrong.any(), f"{operation.name}: {wrong.sum()} of {len(got)} differ, first (operands, got, want) {shown}"


FLOAT_OPERATIONS = {
    Operation.FLOAT_ADD: ("add", 2),
    Operation.FLOAT_SUBTRACT: ("sub", 2),
    Operation.FLOAT_MULTIPLY: ("mul", 2),
    Operation.FLOAT_MULTIPLY_ADD: ("fma", 3),
    Operation.FLOAT_DIVIDE: ("div", 2),
    Operation.FLOAT_SQUARE_ROOT: ("sqrt", 1),
    Operation.FLOOR: ("floor", 1),
    Operation.CEIL: ("ceil", 1),
    Operation.TRUNC: ("trunc", 1),
    Operation.ROUND_EVEN: ("round_even", 1),
    Operation.CANONICAL: ("canonical", 1),
}


@pytest.mark.parametrize("operation", FLOAT_OPERATIONS, ids=lambda operation: operation.name)
def test_floats(operation):
    name, arity = FLOAT_OPERATIONS[operation]
    rng = np.random.default_rng(operation.value)
    directed = np.meshgrid(*[LANDMARKS] * arity) if arity < 3 else [rng.choice(LANDMARKS, 200_000) for _ in range(3)]
    count = COUNT // 5 if operation in (Operation.FLOAT_DIVIDE, Operation.FLOAT_SQUARE_ROOT) else COUNT
    operands = [np.concatenate([part.reshape(-1), floats(rng, count)]) for part in directed]
    want = BUILDER.canonical(getattr(BUILDER, name)(*(as_kind(x, Kind.F32) for x in operands)))
    check(operation, 32, want, *(x.astype(np.uint64) for x in operands))


def test_products_that_nearly_cancel_round_once():
    """a * b - c for c next to the product: what is left lies far below the product's last place."""
    rng = np.random.default_rng(5)
    a, b = floats(rng, COUNT), floats(rng, COUNT)
    with np.errstate(all="ignore"):
        product = (-(as_kind(a, Kind.F32) * as_kind(b, Kind.F32))).view(np.uint32)
    c = product + rng.integers(-2, 3, COUNT).astype(np.uint32)
    want = BUILDER.canonical(BUILDER.fma(*(as_kind(x, Kind.F32) for x in (a, b, c))))
    check(Operation.FLOAT_MULTIPLY_ADD, 32, want, *(x.astype(np.uint64) for x in (a, b, c)))


def test_every_pair_of_float8_and_every_bfloat16_product_pattern():
    """bf16 and float8 products: every significand pair under every class of exponent sum is exact in f32."""
    codes = np.arange(256, dtype=np.uint32)
    a, b = (x.reshape(-1) for x in np.meshgrid(codes, codes))
    significand_a, significand_b = (a & 127) << np.uint32(16), (b & 127) << np.uint32(16)
    for exponent_a, exponent_b in ((127, 127), (0, 127), (0, 150), (1, 126), (254, 127), (254, 1), (64, 63), (60, 50)):
        left = significand_a | np.uint32(exponent_a << 23) | (a >> 7) << np.uint32(31)
        right = significand_b | np.uint32(exponent_b << 23) | (b >> 7) << np.uint32(31)
        want = BUILDER.canonical(BUILDER.mul(as_kind(left, Kind.F32), as_kind(right, Kind.F32)))
        check(Operation.FLOAT_MULTIPLY, 32, want, left.astype(np.uint64), right.astype(np.uint64))


FLOAT_PREDICATES = {
    Operation.FLOAT_EQUAL: "eq",
    Operation.FLOAT_NOT_EQUAL: "ne",
    Operation.FLOAT_LESS: "lt",
    Operation.FLOAT_LESS_EQUAL: "le",
}


@pytest.mark.parametrize("operation", FLOAT_PREDICATES, ids=lambda operation: operation.name)
def test_float_predicates(operation):
    rng = np.random.default_rng(operation.value)
    a, b = (np.concatenate([x.reshape(-1), floats(rng, COUNT)]) for x in np.meshgrid(LANDMARKS, LANDMARKS))
    want = getattr(BUILDER, FLOAT_PREDICATES[operation])(as_kind(a, Kind.F32), as_kind(b, Kind.F32))
    check(operation, 32, want, a.astype(np.uint64), b.astype(np.uint64))


def test_is_nan():
    bits = np.concatenate([LANDMARKS, floats(np.random.default_rng(0), COUNT)])
    check(Operation.IS_NAN, 32, np.isnan(bits.view(np.float32)), bits.astype(np.uint64))


def test_every_half_becomes_the_float_it_is():
    bits = np.arange(1 << 16, dtype=np.uint16)
    want = BUILDER.canonical(BUILDER.f32_from_f16_bits(bits.view(np.int16)))
    check(Operation.FLOAT_FROM_HALF, 32, want, bits.astype(np.uint64))


def test_floats_become_halves():
    rng = np.random.default_rng(1)
    bits = np.concatenate([LANDMARKS, floats(rng, COUNT), rng.integers(0x3280_0000, 0x4780_1000, COUNT, np.uint32)])
    value = BUILDER.canonical(bits.view(np.float32))
    check(Operation.HALF_FROM_FLOAT, 16, BUILDER.f16_bits_from_f32(value), as_bits(value))


@pytest.mark.parametrize("bits", (32, 64))
@pytest.mark.parametrize("sign", ("signed", "unsigned"))
def test_integers_become_floats(bits, sign):
    value = integers(np.random.default_rng(bits), COUNT, bits)
    want = getattr(BUILDER, f"float_from_{sign}")(as_kind(value, INTEGER_OF_BITS[bits]), Kind.F32)
    check(Operation[f"FLOAT_FROM_{sign.upper()}"], bits, want, value)


@pytest.mark.parametrize("bits", (32, 64))
@pytest.mark.parametrize("sign", ("signed", "unsigned"))
def test_floats_become_integers(bits, sign):
    value = floats(np.random.default_rng(bits), COUNT).view(np.float32)
    low, end = (0, 2.0**bits) if sign == "unsigned" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
    value = value[(value >= low) & (value < end)]
    want = getattr(BUILDER, f"{sign}_from_float")(value, INTEGER_OF_BITS[bits])
    check(Operation.INTEGER_FROM_FLOAT, bits, want, as_bits(value))


INTEGER_OPERATIONS = {
    Operation.ADD: "add",
    Operation.SUBTRACT: "sub",
    Operation.MULTIPLY: "mul",
    Operation.AND: "and_",
    Operation.OR: "or_",
    Operation.XOR: "xor",
    Operation.EQUAL: "eq",
    Operation.NOT_EQUAL: "ne",
    Operation.LESS: "lt",
    Operation.LESS_EQUAL: "le",
    Operation.LESS_UNSIGNED: "ult",
    Operation.LESS_EQUAL_UNSIGNED: "ule",
    Operation.DIVIDE: "div_u",
    Operation.REMAINDER: "rem_u",
    Operation.DIVIDE_SIGNED: "div_s",
    Operation.REMAINDER_SIGNED: "rem_s",
}
SHIFTS = {
    Operation.SHIFT_LEFT: "shl",
    Operation.SHIFT_RIGHT: "shr_u",
    Operation.SHIFT_RIGHT_SIGNED: "shr_s",
}


@pytest.mark.parametrize("bits", (8, 16, 32, 64))
def test_integers(bits):
    kind = INTEGER_OF_BITS[bits]
    for operation, name in INTEGER_OPERATIONS.items():
        if operation is Operation.MULTIPLY and bits == 64:
            continue  # tested below: it multiplies 32 bits by 32
        rng = np.random.default_rng(operation.value)
        divides = operation.value >= Operation.DIVIDE.value
        a, b = integers(rng, COUNT // 10 if divides else COUNT, bits), None
        b = integers(rng, len(a), bits)
        if divides:  # what a divider is never asked
            asked = (b != 0) & ~((a == 1 << (bits - 1)) & (b == (1 << bits) - 1))
            a, b = a[asked], b[asked]
        check(operation, bits, getattr(BUILDER, name)(as_kind(a, kind), as_kind(b, kind)), a, b)
    for operation, name in SHIFTS.items():
        rng = np.random.default_rng(operation.value)
        a, amount = integers(rng, COUNT, bits), rng.integers(0, bits, COUNT).astype(np.uint64)
        check(operation, bits, getattr(BUILDER, name)(as_kind(a, kind), as_kind(amount, kind)), a, amount)
    a = integers(np.random.default_rng(bits), COUNT, bits)
    check(Operation.NOT, bits, ~as_kind(a, kind), a)
    check(Operation.LEADING_ZEROS, bits, BUILDER.leading_zeros(as_kind(a, kind)), a)
    check(Operation.POPULATION_COUNT, bits, BUILDER.population_count(as_kind(a, kind)), a)
    if bits < 64:
        extended = BUILDER.sign_extend(as_kind(a, kind), Kind.I64)
        check(Operation[f"EXTEND_SIGN_{bits}"], 64, extended, integers(np.random.default_rng(bits), COUNT, bits))


def test_products_of_32_bits_have_64():
    rng = np.random.default_rng(0)
    a, b = integers(rng, COUNT, 32), integers(rng, COUNT, 32)
    check(Operation.MULTIPLY, 64, a * b, a, b)


def test_select_and_copy():
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 2, COUNT).astype(np.uint64), integers(rng, COUNT, 64), integers(rng, COUNT, 64)
    check(Operation.SELECT, 64, np.where(a == 1, b, c), a, b, c)
    check(Operation.COPY, 8, b & np.uint64(255), b)
