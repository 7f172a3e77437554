"""Random kernels whose tiles lie around the size of the scratchpad, on scratchpads of two sizes, against NumPy."""

from dataclasses import replace

import pytest

from tapeout import chip
from tests.passes.random_kernels import random_kernel

TINY = chip.load("tiny")
SMALL_BYTES = 1 << 14
SMALL = replace(
    TINY,
    name="tiny16384",
    core=replace(TINY.core, scratchpad=replace(TINY.core.scratchpad, size_bytes=SMALL_BYTES)),
)
PARTS, OF_EACH = 6, 6


@pytest.mark.parametrize("part", range(PARTS))
def test_random_kernels_mean_what_numpy_says(part, tmp_path):
    for seed in range(part * OF_EACH, (part + 1) * OF_EACH):
        assert random_kernel(seed, SMALL_BYTES).differences(tmp_path, SMALL) == [], f"seed {seed}"
