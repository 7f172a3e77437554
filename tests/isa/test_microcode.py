"""Microprograms give what the functions they were made from give, step by step on NumPy's primitives."""

import numpy as np
import pytest

from tapeout.isa import microcode
from tapeout.isa.microcode import Operation, Place
from tapeout.numerics.builder import INTEGER_OF_BITS, KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import MEANING, convert
from tapeout.numerics.numpy_builder import NumpyBuilder
from tapeout.numerics.operations import Function, Rounding
from tests.rtl.test_arithmetic import (
    FLOAT_OPERATIONS,
    FLOAT_PREDICATES,
    INTEGER_OPERATIONS,
    SHIFTS,
    as_bits,
    as_kind,
    floats,
    integers,
)

BUILDER = NumpyBuilder()
COUNT = 2000
ALL_BITS = np.uint64((1 << 64) - 1)
CONVERSIONS = {
    Operation.FLOAT_FROM_HALF: (lambda a: BUILDER.f32_from_f16_bits(as_kind(a, Kind.I16))),
    Operation.HALF_FROM_FLOAT: (lambda a: BUILDER.f16_bits_from_f32(as_kind(a, Kind.F32))),
    Operation.IS_NAN: (lambda a: BUILDER.is_nan(as_kind(a, Kind.F32))),
}


def executed(program, operands):
    """A microprogram on operands of 64 bits each, as a lane executes it."""
    temporaries, result = {}, None
    for step in program:
        values = []
        for source in step.sources:
            if source.place is Place.TEMPORARY:
                values.append(temporaries[source.number])
            elif source.place is Place.OPERAND:
                values.append(operands[source.number])
            else:
                assert source.place is Place.CONSTANT
                values.append(np.full(len(operands[0]), source.number, np.uint64))
        value = one_step(step.operation, step.width, values)
        if step.target is None:
            result = value
        else:
            temporaries[step.target] = value
    return result


def one_step(operation, width, values):
    mask = np.uint64((1 << width) - 1)
    name, bits = operation.name, [value & ALL_BITS for value in values]
    if operation in (Operation.COPY, Operation.SELECT):
        picked = bits[0] if operation is Operation.COPY else np.where(bits[0] & np.uint64(1) == 1, bits[1], bits[2])
        return picked & mask
    if operation is Operation.MULTIPLY:
        low = np.uint64((1 << 32) - 1)
        return ((bits[0] & low) * (bits[1] & low)) & mask
    if name.startswith("EXTEND_SIGN"):
        narrow = INTEGER_OF_BITS[int(name.rsplit("_", 1)[1])]
        return as_bits(as_kind(bits[0], narrow).astype(np.int64)) & mask
    if operation in CONVERSIONS:
        return canonical_bits(CONVERSIONS[operation](bits[0]))
    if operation in FLOAT_OPERATIONS or operation in FLOAT_PREDICATES:
        method = FLOAT_PREDICATES.get(operation) or FLOAT_OPERATIONS[operation][0]
        return canonical_bits(getattr(BUILDER, method)(*(as_kind(value, Kind.F32) for value in bits)))
    if name.startswith("FLOAT_FROM"):
        kind = INTEGER_OF_BITS[width]
        return canonical_bits(getattr(BUILDER, name.lower())(as_kind(bits[0], kind), Kind.F32))
    if operation is Operation.INTEGER_FROM_FLOAT:
        value = as_kind(bits[0], Kind.F32)
        fits = np.isfinite(value) & (np.abs(value) < 2.0**64)  # elsewhere unspecified: functions choose otherwise
        exact = [int(v) if ok else 0 for v, ok in zip(value, fits, strict=True)]
        return np.array([v % (1 << 64) for v in exact], np.uint64) & mask
    if operation is Operation.NOT:
        return ~bits[0] & mask
    kind = Kind.BOOL if width == 1 else INTEGER_OF_BITS[width]
    if operation in (Operation.LEADING_ZEROS, Operation.POPULATION_COUNT):
        return as_bits(getattr(BUILDER, name.lower())(as_kind(bits[0], kind)))
    if operation in SHIFTS:
        amount = as_kind(bits[1] % np.uint64(width), kind)
        return as_bits(getattr(BUILDER, SHIFTS[operation])(as_kind(bits[0], kind), amount))
    return as_bits(getattr(BUILDER, INTEGER_OPERATIONS[operation])(*(as_kind(value, kind) for value in bits)))


def canonical_bits(value):
    return as_bits(BUILDER.canonical(value) if value.dtype == np.float32 else value)


def elements(rng, dtype):
    """Random elements of a type, as a lane holds them."""
    if dtype is DType.I1:
        return rng.integers(0, 2, COUNT).astype(np.uint64)
    if dtype is DType.F32:
        return floats(rng, COUNT).astype(np.uint64)
    if dtype.is_float:
        return rng.integers(0, 1 << dtype.bits, COUNT).astype(np.uint64)
    return integers(rng, COUNT, dtype.bits)


@pytest.mark.parametrize("function", Function, ids=lambda function: function.label)
def test_functions(function):
    rng = np.random.default_rng(function.code)
    for dtype in function.dtypes:
        if dtype not in microcode.COMPUTED:
            continue
        kinds = [KIND_OF_DTYPE[operand] for operand in function.operand_dtypes(dtype)]
        operands = [elements(rng, operand) for operand in function.operand_dtypes(dtype)]
        want = MEANING[function](BUILDER, dtype, *(as_kind(x, k) for x, k in zip(operands, kinds, strict=True)))
        got = executed(microcode.function_program(function, dtype), operands)
        np.testing.assert_array_equal(got, as_bits(want), err_msg=f"{function.label} on {dtype}")


@pytest.mark.parametrize("dtype", microcode.COMPUTED, ids=str)
def test_conversions(dtype):
    rng = np.random.default_rng(dtype.code)
    operand = elements(rng, dtype)
    for result_dtype in microcode.COMPUTED:
        for unsigned, rounding in ((False, Rounding.NEAREST_EVEN), (True, Rounding.TOWARD_ZERO),
                                   (False, Rounding.NEAREST_EVEN_SATURATE)):  # fmt: skip
            want = convert(BUILDER, as_kind(operand, KIND_OF_DTYPE[dtype]), dtype, result_dtype, unsigned, rounding)
            program = microcode.convert_program(dtype, result_dtype, unsigned, rounding)
            got = executed(program, [operand])
            np.testing.assert_array_equal(
                got, as_bits(want), err_msg=f"{dtype} to {result_dtype} {unsigned} {rounding}"
            )


def test_one_memory_holds_every_program():
    programs = microcode.vector_programs()
    rom = microcode.rom(programs)
    assert set(rom.start_of) == set(programs)
    for key, program in programs.items():
        last = [word >> (microcode.STEP_BITS - 1) for word in rom.words[rom.start_of[key] :][: len(program)]]
        assert last == [0] * (len(program) - 1) + [1]
