"""The functional simulator computes every function, conversion and product as the NumPy builder does, bit for bit."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout import runtime
from tapeout.chip import load
from tapeout.isa import AccessPattern, Function, Parameter, Program, RegisterValue, Rounding
from tapeout.isa import definitions as isa
from tapeout.numerics import functions
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import NARROW_FORMATS
from tapeout.numerics.numpy_builder import STORAGE, NumpyBuilder, from_storage, to_storage
from tapeout.numerics.operations import REDUCTIONS
from tapeout.sim.evaluator import run
from tapeout.sim.state import Memory

CHIP = load("inference")
COUNT = 512
NO_BOUNDS = (0, 0, 0, 0)


def field_widths(dtype):
    """(exponent bits, mantissa bits)"""
    mantissa = {DType.F32: 23, DType.F64: 52}.get(dtype) or NARROW_FORMATS[dtype].mantissa_bits
    return dtype.bits - 1 - mantissa, mantissa


def landmarks(dtype):
    """Bit patterns where functions change their mind: zeros, subnormals, one, the largest, infinities, NaNs, limits."""
    if not dtype.is_float:
        top = 1 << (dtype.bits - 1)
        return [0, 1, 2, top - 1, top, 2 * top - 1, dtype.bits - 1, dtype.bits]
    exponent_bits, mantissa_bits = field_widths(dtype)
    sign, infinity = 1 << (dtype.bits - 1), ((1 << exponent_bits) - 1) << mantissa_bits
    one = ((1 << (exponent_bits - 1)) - 1) << mantissa_bits
    positive = [0, 1, (1 << mantissa_bits) - 1, 1 << mantissa_bits, one - 1, one, one + 1, infinity - 1, infinity]
    nans = [infinity | 1, infinity | 1 << (mantissa_bits - 1), infinity | ((1 << mantissa_bits) - 1)]
    return [*positive, *nans, *(sign | bits for bits in (*positive, *nans))]


def samples(dtype, source):
    """Elements as they lie in memory: landmarks in many combinations, values near one, random bits."""
    size = dtype.size_bytes
    if dtype is DType.I1:
        return source.integers(0, 2, COUNT).astype(np.int8)
    bits = source.integers(0, 256, COUNT * size, dtype=np.uint8).view(f"u{size}").copy()
    special = np.array(landmarks(dtype), dtype=np.uint64).astype(bits.dtype)
    bits[: COUNT // 3] = special[source.integers(0, len(special), COUNT // 3)]
    if dtype.is_float:
        exponent_bits, mantissa_bits = field_widths(dtype)
        middle = (1 << (exponent_bits - 1)) - 1
        near = source.integers(middle - 2, middle + 3, COUNT // 3).astype(bits.dtype) << bits.dtype.type(mantissa_bits)
        kept = bits.dtype.type((1 << (dtype.bits - 1)) | ((1 << mantissa_bits) - 1))
        bits[COUNT // 3 : 2 * (COUNT // 3)] = near | (bits[COUNT // 3 : 2 * (COUNT // 3)] & kept)
    else:
        bits[COUNT // 3 : 2 * (COUNT // 3)] = source.integers(-70, 71, COUNT // 3).astype(bits.dtype)
    return bits.view(STORAGE[dtype])


def run_on_chip(instructions, operand_dtypes, result_dtype, arrays, result_count=COUNT):
    """Load the arrays into tiles, run `instructions(patterns, result)`, give what they left in the result's tile."""
    items, patterns, address = [], [], 0

    def flat(dtype, count):
        nonlocal address
        pattern = AccessPattern(address, (0, 0, 0, 1))
        address += -(-count * dtype.size_bytes // 64) * 64
        return pattern

    for number, (dtype, array) in enumerate(zip(operand_dtypes, arrays, strict=True)):
        patterns.append(flat(dtype, len(array)))
        items += [
            isa.Argument(destination=10 + number, index=number),
            isa.LoadImmediate(destination=30 + number, value=dtype.size_bytes),
            isa.Load(
                dtype=dtype,
                base=10 + number,
                strides=(0, 0, 0, 30 + number),
                shape=(1, 1, 1, len(array)),
                tile=patterns[-1],
            ),
        ]
    last = len(arrays)
    result = flat(result_dtype, result_count)
    items += [
        *instructions(patterns, result),
        isa.Argument(destination=9, index=last),
        isa.LoadImmediate(destination=29, value=result_dtype.size_bytes),
        isa.Store(dtype=result_dtype, base=9, strides=(0, 0, 0, 29), shape=(1, 1, 1, result_count), tile=result),
        isa.Halt(),
    ]
    parameters = tuple(Parameter(f"p{n}", "*i8") for n in range(last + 1))
    program = Program("functions", CHIP.name, tuple(items), parameters, scratchpad_bytes=address)
    out = np.zeros(result_count, STORAGE[result_dtype])
    runtime.load(program, CHIP).launch((1, 1, 1), [a.ctypes.data for a in (*arrays, out)])
    return out


def assert_same_bits(got, want, dtype, what):
    unsigned = f"u{dtype.size_bytes}"
    got, want = got.view(unsigned), np.ascontiguousarray(want).view(unsigned)
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), f"{what}: element {wrong[0]} is {got[wrong[0]]:#x}, not {want[wrong[0]]:#x}"


def mapped(function, dtype):
    kind = {1: isa.Map1, 2: isa.Map2, 3: isa.Map3}[function.arity]

    def instructions(patterns, result):
        operands = dict(zip("abc", patterns, strict=False))
        return [kind(function=function, dtype=dtype, shape=(1, 1, 1, COUNT), result=result, **operands)]

    return instructions


@pytest.mark.parametrize("function", Function, ids=lambda f: f.label)
def test_functions(function):
    source = np.random.default_rng(function.code)
    for dtype in function.dtypes:
        dtypes, result_dtype = function.operand_dtypes(dtype), function.result_dtype(dtype)
        arrays = [samples(d, source) for d in dtypes]
        got = run_on_chip(mapped(function, dtype), dtypes, result_dtype, arrays)
        operands = (from_storage(d, a) for d, a in zip(dtypes, arrays, strict=True))
        want = functions.MEANING[function](NumpyBuilder(), dtype, *operands)
        assert_same_bits(got, to_storage(result_dtype, want), result_dtype, f"{function.label} on {dtype}")


@pytest.mark.parametrize("dtype", DType, ids=str)
def test_conversions(dtype):
    source = np.random.default_rng(dtype.code)
    for result_dtype, unsigned, rounding in itertools.product(DType, (False, True), Rounding):
        floats = dtype.is_float and result_dtype.is_float
        if dtype is result_dtype or (floats and unsigned) or (not floats and rounding is not Rounding.NEAREST_EVEN):
            continue
        array = samples(dtype, source)

        def instructions(patterns, result, to=result_dtype, unsigned=unsigned, rounding=rounding):
            return [
                isa.Convert(
                    dtype=dtype,
                    result_dtype=to,
                    unsigned=unsigned,
                    rounding=rounding,
                    shape=(1, 1, 1, COUNT),
                    result=result,
                    a=patterns[0],
                )
            ]

        got = run_on_chip(instructions, [dtype], result_dtype, [array])
        value = from_storage(dtype, array)
        want = functions.convert(NumpyBuilder(), value, dtype, result_dtype, unsigned, rounding)
        what = f"{dtype} to {result_dtype}, unsigned={unsigned}, {rounding.label}"
        assert_same_bits(got, to_storage(result_dtype, want), result_dtype, what)


def evaluated(program, arrays, result_count, result_dtype):
    """What the reference evaluator makes of a program whose arguments are these arrays and the result."""
    out = np.zeros(result_count, STORAGE[result_dtype])
    parts = [np.ascontiguousarray(a).view(np.uint8) for a in (*arrays, out)]
    starts = np.cumsum([64, *(-(-len(p) // 64) * 64 for p in parts)])
    data = np.zeros(starts[-1], np.uint8)
    for part, start in zip(parts, starts, strict=False):
        data[start : start + len(part)] = part
    run(program, CHIP, (1, 1, 1), [int(s) for s in starts[:-1]], Memory(0, data))
    return data[starts[-2] : starts[-2] + len(parts[-1])].view(STORAGE[result_dtype])


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.label)
@pytest.mark.parametrize(
    "rows, length, by_column",
    [(3, 1, False), (5, 7, False), (2, 64, False), (2, 96, False), (17, 45, True), (16, 64, True)],
)
def test_reductions(function, rows, length, by_column):
    """Short, uneven and long rows, next to each other and strided: the same order of combining."""
    source = np.random.default_rng(rows * length)
    for dtype in function.dtypes:
        array = np.resize(samples(dtype, source), rows * length)
        inner, outer = (rows, 1) if by_column else (1, length)
        items = [
            isa.Argument(destination=1, index=0),
            isa.LoadImmediate(destination=2, value=dtype.size_bytes),
            isa.Load(
                dtype=dtype,
                base=1,
                strides=(0, 0, 0, 2),
                shape=(1, 1, 1, rows * length),
                tile=AccessPattern(0, (0, 0, 0, 1)),
                signal_a=1,
            ),
            isa.Reduce(
                function=function,
                dtype=dtype,
                shape=(1, 1, rows, length),
                result=AccessPattern(8192, (0, 0, 1, 0)),
                a=AccessPattern(0, (0, 0, outer, inner)),
                wait_a=1,
                signal_a=2,
            ),
            isa.Argument(destination=3, index=1),
            isa.Store(
                dtype=dtype,
                base=3,
                strides=(0, 0, 0, 2),
                shape=(1, 1, 1, rows),
                tile=AccessPattern(8192, (0, 0, 0, 1)),
                wait_a=2,
            ),
            isa.Halt(),
        ]
        parameters = (Parameter("a", "*i8"), Parameter("out", "*i8"))
        program = Program("reduction", CHIP.name, tuple(items), parameters, scratchpad_bytes=16384)
        got = np.zeros(rows, STORAGE[dtype])
        runtime.load(program, CHIP).launch((1, 1, 1), [array.ctypes.data, got.ctypes.data])
        want = evaluated(program, [array], rows, dtype)
        assert_same_bits(got, want, dtype, f"{function.label} on {dtype}")


def chain(names):
    """A program of f32 instructions, each on the results of earlier ones, of which only the last is stored."""

    def instructions(patterns, result):
        values = list(patterns)
        items = []
        for number, (name, picks) in enumerate(names):
            function = functions_by_label[name]
            target = result if number == len(names) - 1 else AccessPattern(65536 + 4 * COUNT * number, (0, 0, 0, 1))
            operands = [values[p % len(values)] for p in picks[: function.arity]]
            kind = {1: isa.Map1, 2: isa.Map2, 3: isa.Map3}[function.arity]
            items.append(
                kind(
                    function=function,
                    dtype=DType.F32,
                    shape=(1, 1, 1, COUNT),
                    result=target,
                    **dict(zip("abc", operands, strict=False)),
                )
            )
            values.append(target)
        return items

    return instructions


functions_by_label = {
    f.label: f for f in Function if DType.F32 in f.dtypes and not f.is_predicate and f is not Function.SELECT
}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(functions_by_label)), st.tuples(*[st.integers(0, 30)] * 3)),
        min_size=2,
        max_size=6,
    ),
    st.integers(0, 1 << 30),
)
def test_chains_of_functions_keep_every_bit(names, seed):
    """What stays in registers between instructions is what memory would have given back, NaNs included."""
    source = np.random.default_rng(seed)
    arrays = [samples(DType.F32, source) for _ in range(2)]
    got = run_on_chip(chain(names), [DType.F32] * 2, DType.F32, arrays)
    values = list(arrays)
    for name, picks in names:
        function = functions_by_label[name]
        operands = [values[p % len(values)] for p in picks[: function.arity]]
        values.append(functions.MEANING[function](NumpyBuilder(), DType.F32, *operands))
    assert_same_bits(got, values[-1], DType.F32, str(names))


@pytest.mark.parametrize(
    "dtype, value",
    [(DType.F16, 0x3C00), (DType.I1, 2), (DType.I1, 3), (DType.I8, 0x1FF), (DType.F64, -5), (DType.F32, 1 << 31)],
)
def test_register_operands_are_their_low_bits(dtype, value):
    def instructions(patterns, result):
        def copy(target, source):
            return isa.Map1(function=Function.COPY, dtype=dtype, shape=(1, 1, 1, 33), result=target, a=source)

        between = AccessPattern(4096, (0, 0, 0, 1))
        return [
            isa.LoadImmediate(destination=5, value=value),
            copy(between, RegisterValue(5)),
            copy(result, between),
        ]

    got = run_on_chip(instructions, [], dtype, [], result_count=33)
    want = value & 1 if dtype is DType.I1 else value & ((1 << dtype.bits) - 1)
    assert (got.view(f"u{dtype.size_bytes}") == want).all()
