"""The weights of a tile of scores, in a softmax that is kept normalised as the tiles come."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def weights_of(
    scores, largest, bias, start, row, queries, keys, bias_row, bias_column, scale,
    KEYS: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Weights of the keys from `start` on, relative to the largest score, which is new; and what shrinks the sums that
    were relative to the one before. `scale` has log2(e) in it, and the largest scores and weights are powers of two:
    exp2 is what the vector engine has. With a bias they are powers of four, so that a bias near float32's lowest number
    (what masks of padding are made of) stays finite, and a row of them gives the mean of the values."""
    column = start + tl.arange(0, KEYS)
    if MASKED:  # scaled first: a score that does not count is minus infinity, whatever the scale
        scores *= scale
        inside = (row[:, None] < queries) & (column[None, :] < keys)
        if HAS_BIAS:
            if CAUSAL:
                inside &= row[:, None] >= column[None, :]
            place = bias + row[:, None] * bias_row + column[None, :] * bias_column
            scores += tl.load(place, mask=inside, other=-float("inf")).to(tl.float32) * (0.5 * LOG2_E)
        else:
            visible = tl.minimum(row + 1, keys) if CAUSAL else row * 0 + keys
            scores = tl.where(column[None, :] < visible[:, None], scores, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
    else:
        new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
    reference = tl.where(new_largest == -float("inf"), 0.0, new_largest)
    if HAS_BIAS:
        weights = tl.exp2(2.0 * (scores - reference[:, None]))
        shrink = tl.exp2(2.0 * (largest - reference))
    else:
        power = scores - reference[:, None] if MASKED else tl.fma(scores, scale, -reference[:, None])
        weights = tl.exp2(power)
        shrink = tl.exp2(largest - reference)
    return weights, shrink, new_largest
