"""Everything the pipelined lanes have a recipe for gives, bit for bit, what its one definition says."""

import numpy as np
import pytest

from tapeout.isa.microcode import vector_programs
from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import MEANING, convert
from tapeout.numerics.numpy_builder import NUMPY_OF_KIND, NumpyBuilder
from tapeout.rtl.pipelined.recipes import recipe_of
from tests.rtl.lane_bench import computed
from tests.rtl.test_arithmetic import as_bits, floats, integers

BUILDER = NumpyBuilder()
COUNT = 2000
KEYS = [key for key in vector_programs() if key[0] in ("function", "convert")]


def elements(rng, dtype):
    """Bits of elements of a type: of 8 and 16 bits any, of wider ones also what is hard for floats or integers."""
    if dtype is DType.I1:
        return rng.integers(0, 2, COUNT, np.uint64)
    if dtype.is_float and dtype.bits == 32:
        return floats(rng, COUNT).astype(np.uint64)
    return integers(rng, COUNT, dtype.bits)


def as_elements(bits, dtype):
    kind = KIND_OF_DTYPE[dtype]
    if kind is Kind.BOOL:
        return bits != 0
    return bits.astype(f"u{kind.bits // 8}").view(NUMPY_OF_KIND[kind])


def expected(key, operands):
    if key[0] == "convert":
        _, dtype, result, unsigned, rounding = key
        return convert(BUILDER, as_elements(operands[0], dtype), dtype, result, unsigned, rounding)
    _, function, dtype = key
    values = [as_elements(x, of) for x, of in zip(operands, function.operand_dtypes(dtype), strict=True)]
    return MEANING[function](BUILDER, dtype, *values)


@pytest.mark.parametrize("kind", ["function", "convert"])
def test_recipes_give_what_the_definition_says(kind):
    wrong = {}
    for number, key in enumerate(KEYS):
        recipe = recipe_of(key)
        if key[0] != kind or recipe is None:
            continue
        rng = np.random.default_rng(number)
        of = key[1].operand_dtypes(key[2]) if kind == "function" else (key[1],)
        operands = [elements(rng, dtype) for dtype in of]
        want = as_bits(np.asarray(expected(key, operands)))
        got = computed(recipe, *operands)
        differs = got != want
        if differs.any():
            at = int(np.flatnonzero(differs)[0])
            wrong[str(key)] = [hex(int(x[at])) for x in (*operands, got, want)]
    assert wrong == {}


def test_common_functions_have_recipes():
    missing = {str(key[1].label) for key in KEYS if key[0] == "function" and recipe_of(key) is None}
    slow = {"sqrt", "rsqrt", "reciprocal", "exp2", "log2", "sin", "cos", "exp", "log", "div"}
    assert missing - slow == {"mul", "mulhi_s", "mulhi_u", "div_s", "div_u", "rem_s", "rem_u"}  # mul: of i64
