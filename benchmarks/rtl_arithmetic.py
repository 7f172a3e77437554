"""Float32 additions and fused multiply-adds of the RTL against the reference, ten million random cases each:
`python -m benchmarks.rtl_arithmetic [millions]`."""

import sys

import numpy as np

from tests.rtl import test_arithmetic as tests

BATCH = 1_000_000


def main(millions: int) -> None:
    """Raises AssertionError at the first case that differs."""
    for number in range(millions):
        rng = np.random.default_rng(1000 + number)
        for operation, (name, arity) in tests.FLOAT_OPERATIONS.items():
            if operation.name not in ("FLOAT_ADD", "FLOAT_MULTIPLY_ADD"):
                continue
            operands = [tests.floats(rng, BATCH) for _ in range(arity)]
            values = [tests.as_kind(part, tests.Kind.F32) for part in operands]
            want = tests.BUILDER.canonical(getattr(tests.BUILDER, name)(*values))
            tests.check(operation, 32, want, *(part.astype(np.uint64) for part in operands))
        print(f"{(number + 1) * BATCH:,} additions and fused multiply-adds agree", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
