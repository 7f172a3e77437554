"""A cell's products: float8, in both formats and mixed, and int8 exhaustively; bfloat16 and float16 in part
(`python -m benchmarks.rtl_products` goes through all pairs)."""

import numpy as np
import pytest

from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import widen
from tapeout.numerics.numpy_builder import NumpyBuilder
from tests.rtl.product_bench import wrong_products

SMALL = ((DType.F8E4M3, DType.F8E5M2), (DType.F8E5M2, DType.F8E4M3), *((t, t) for t in (DType.F8E4M3, DType.F8E5M2)))


def meanings():
    """What every code of the types means, exactly."""
    values = {DType.I8: np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)}
    for dtype in (DType.F8E4M3, DType.F8E5M2, DType.BF16, DType.F16):
        codes = np.arange(1 << dtype.bits, dtype=f"u{dtype.size_bytes}").view(f"i{dtype.size_bytes}")
        with np.errstate(invalid="ignore"):  # signalling NaNs
            values[dtype] = widen(NumpyBuilder(), dtype, codes).astype(np.float64)
    return values


@pytest.mark.parametrize(("lhs", "rhs"), [*SMALL, (DType.I8, DType.I8)], ids=str)
def test_every_product_of_eight_bits(lhs, rhs):
    assert wrong_products(lhs, rhs, meanings()) == (0, None)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
@pytest.mark.parametrize("code", [0x0001, 0x3F81, 0x80FF])
def test_products_of_one_code_with_every_code(dtype, code):
    assert wrong_products(dtype, dtype, meanings(), code, code + 1) == (0, None)
