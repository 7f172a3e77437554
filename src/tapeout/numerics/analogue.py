"""Products of matrices in an analogue array, step by step: the meaning that simulators agree with bit for bit.

Of each chunk of at most `sum_depth` steps along k, the operands are converted to whole numbers: a row of the left one
(a column of the right one) is scaled so that its largest magnitude becomes `operand_limit`, and rounded to nearest
even. The products are added exactly. The sum is converted once: in steps of `sum_step`, with noise added, rounded to
nearest even and cut off at `sum_limit` steps. What was converted is scaled back and added to the accumulator, in
float32 (for bytes rounded to a whole number first). A row or column with an infinity or NaN makes its results NaN.

    noise = noise_steps x g(seed, batch, m, n, chunk, sum)
    g: sum of four 16-bit numbers of a hash, of mean 0 and variance 1

The noise is a function of where a sum stands and of its value, so that a program gives the same bytes every time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

GOLDEN = 0x9E3779B97F4A7C15
NOISE_MEAN = 131070
NOISE_SCALE = np.float32(1 / 37837.2)
"""Of the sum of four 16-bit numbers: mean, and one over its standard deviation."""


@dataclass(frozen=True)
class AnalogueProduct:
    """Figures of an analogue array; see the module."""

    operand_limit: int
    sum_limit: int
    sum_depth: int
    sum_step: np.float32
    noise_steps: np.float32
    noise_seed: int

    @staticmethod
    def of(
        *,
        operand_bits: int,
        accumulate_bits: int,
        sum_depth: int,
        sum_range: float,
        noise_steps: float,
        noise_seed: int,
    ) -> "AnalogueProduct":
        """From the figures of a description. `sum_range`: the largest sum converted, of the largest possible."""
        operand_limit = (1 << operand_bits - 1) - 1
        sum_limit = (1 << accumulate_bits - 1) - 1
        step = sum_range * sum_depth * operand_limit**2 / sum_limit
        return AnalogueProduct(
            operand_limit, sum_limit, sum_depth, np.float32(step), np.float32(noise_steps), noise_seed
        )


def multiply_accumulate(spec: AnalogueProduct, lhs: Array, rhs: Array, total: Array) -> Array:
    """`total` [batch, m, n] (float32, or int32 for bytes) with the product of lhs [batch, m, k] and rhs [batch, n, k],
    both float32, added."""
    with np.errstate(all="ignore"):
        for chunk, first in enumerate(range(0, lhs.shape[2], spec.sum_depth)):
            steps = slice(first, first + spec.sum_depth)
            total = _add_chunk(spec, chunk, lhs[:, :, steps], rhs[:, :, steps], total)
    return total


def _add_chunk(spec: AnalogueProduct, chunk: int, lhs: Array, rhs: Array, total: Array) -> Array:
    left, left_scale = _converted(spec, lhs)
    right, right_scale = _converted(spec, rhs)
    sums = np.einsum("bmk,bnk->bmn", left, right)
    steps = sums.astype(np.float32) / spec.sum_step + spec.noise_steps * _noise(spec.noise_seed, chunk, sums)
    limit = np.float32(spec.sum_limit)
    steps = np.clip(np.rint(steps), -limit, limit)
    value = (steps * spec.sum_step) * (left_scale[:, :, None] * right_scale[:, None, :])
    if total.dtype == np.int32:
        whole: Array = total + np.rint(value).astype(np.int32)
        return whole
    added: Array = total + value
    return np.where(np.isnan(added), np.float32(np.nan), added)


def _converted(spec: AnalogueProduct, values: Array) -> tuple[Array, Array]:
    """Whole numbers of the rows, and what one of them is worth (NaN for a row that is not finite)."""
    limit = np.float32(spec.operand_limit)
    largest = np.abs(values).max(axis=2)
    is_finite: Array = np.asarray(np.isfinite(values).all(axis=2))
    scale = np.where(is_finite, largest / limit, np.float32(np.nan))
    inverse = np.where(is_finite & (largest >= np.finfo(np.float32).tiny), limit / largest, np.float32(0))
    rounded = np.rint(np.where(is_finite[:, :, None], values, np.float32(0)) * inverse[:, :, None])
    return np.clip(rounded, -limit, limit).astype(np.int64), scale


def _noise(seed: int, chunk: int, sums: Array) -> Array:
    batch, m, n = np.indices(sums.shape).astype(np.uint64)
    mixed = np.full(sums.shape, seed, np.uint64)
    for part in (batch, m, n, np.full(sums.shape, chunk, np.uint64), sums.astype(np.uint64)):
        mixed = _mixed(mixed + part + np.uint64(GOLDEN))
    pieces = [(mixed >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64) for shift in (0, 16, 32, 48)]
    noise: Array = (np.sum(pieces, axis=0) - NOISE_MEAN).astype(np.float32) * NOISE_SCALE
    return noise


def _mixed(value: Array) -> Array:
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: Array = value ^ value >> np.uint64(31)
    return mixed
