"""A listing says what the function does: run line by line, it gives the function's bits."""

import re

import numpy as np
import pytest

from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.functions import MEANING
from tapeout.numerics.listing import listing
from tapeout.numerics.numpy_builder import NUMPY_OF_KIND, NumpyBuilder
from tapeout.numerics.operations import Function

KIND_OF_LABEL = {kind.label: kind for kind in Kind}
CASES = [(function, dtype) for function in Function for dtype in function.dtypes]


def run_listing(lines, operands):
    """Interpret the text. A constant's kind is that of the other operands: try until the primitive accepts it."""
    builder, values = NumpyBuilder(), dict(operands)
    like = next(iter(operands.values()))

    def operand(text, kinds):
        if text in values:
            return values[text]
        if text in KIND_OF_LABEL:
            return KIND_OF_LABEL[text]
        number = float.fromhex(text) if re.search(r"p|\.|inf|nan", text) else int(text, 0)
        return builder.const(kinds, number, like)

    for line in lines[:-1]:
        name, label, operation, inside = re.fullmatch(r"(\w+): (\w+) = (\w+)\((.*)\)", line).groups()
        texts = inside.split(", ")
        known = [builder.kind(values[t]) for t in texts if t in values]
        kind = KIND_OF_LABEL[label] if operation == "select" or not known else known[-1]
        method = getattr(builder, operation, None) or getattr(builder, operation + "_")
        values[name] = method(*(operand(text, kind) for text in texts))
    return operand(lines[-1].removeprefix("result = "), None)


@pytest.mark.parametrize(("function", "dtype"), CASES, ids=lambda x: getattr(x, "label", None))
def test_listing_computes_the_function(function, dtype):
    random = np.random.default_rng(0)
    operands = {}
    for letter, operand_dtype in zip("abc", function.operand_dtypes(dtype), strict=False):
        numpy = NUMPY_OF_KIND[KIND_OF_DTYPE[operand_dtype]]
        bits = random.integers(0, 256, 64 * numpy.itemsize, np.uint8)
        operands[letter] = bits.view(numpy) if numpy != np.bool_ else bits > 127
    want = MEANING[function](NumpyBuilder(), dtype, *operands.values())
    got = run_listing(listing(function, dtype), operands)
    assert got.tobytes() == want.tobytes()
