"""Products of two 16-bit numbers on a cell of the RTL: `python -m benchmarks.rtl_products [bf16|f16] [EXPONENT ...]`.

For every left operand with one of these exponents, both signs and every mantissa, all 65536 right operands. A cell
sees operands as sign, significand, exponent and class, and only adds the exponents: with the default exponents every
pair of significands meets at every sum of exponents, and every pair of classes. With all exponents, 2**32 products.
"""

import sys
import time

from tapeout.numerics.dtypes import BY_LABEL
from tests.rtl.product_bench import wrong_products
from tests.rtl.test_products import meanings

MANTISSA_BITS = {"bf16": 7, "f16": 10}
EXPONENTS = {"bf16": (0, 1, 127, 254, 255), "f16": (0, 1, 15, 30, 31)}
"""Subnormals, the least and the largest, one, and infinities with NaNs."""


def main(label: str, exponents: list[int]) -> None:
    """Raises AssertionError at the first exponent at which a product is wrong."""
    dtype, values, bits = BY_LABEL[label], meanings(), MANTISSA_BITS[label]
    start, count = time.perf_counter(), 0
    for exponent in exponents or EXPONENTS[label]:
        for sign in (0, 1):
            first = sign << 15 | exponent << bits
            wrong, example = wrong_products(dtype, dtype, values, first, first + (1 << bits))
            assert not wrong, f"{wrong} products are wrong, the first of codes {example}"
            count += len(values[dtype]) << bits
        print(f"exponent {exponent}: {count:,} products agree; {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "bf16", [int(n, 0) for n in sys.argv[2:]])
