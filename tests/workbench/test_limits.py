"""The least time of an operator: bytes, products and lanes, and which of them sets it."""

import pytest
import torch

from tapeout import chip as chips
from tapeout.workbench import limits

aten = torch.ops.aten
CHIP = chips.load("inference")


def need(operator, *args, **kwargs):
    return limits.need_of(operator, args, kwargs, operator(*args, **kwargs))


def tile(*shape, dtype=torch.bfloat16):
    return torch.ones(shape, dtype=dtype, device="chip")


def test_bytes_are_each_operand_once_and_the_result():
    a, b = tile(64, 128), tile(128)
    assert need(aten.add.Tensor, a, b).hbm_bytes == 2 * (2 * 64 * 128 + 128)
    assert need(aten.add.Tensor, a, a).hbm_bytes == 2 * (2 * 64 * 128)
    assert need(aten.add.Tensor, a, b.expand(64, 128)).hbm_bytes == 2 * (2 * 64 * 128 + 128)
    assert need(aten.add_.Tensor, a, b).hbm_bytes == 2 * (64 * 128 + 128)
    rows = need(aten.embedding.default, tile(1000, 64), torch.zeros(10, dtype=torch.int64, device="chip"))
    assert rows.hbm_bytes == 2 * 10 * 64 * 2 + 10 * 8


def test_products_are_counted_by_type():
    assert need(aten.mm.default, tile(8, 16), tile(16, 32)).products == {"bfloat16": 8 * 16 * 32}
    a = tile(8, 16, dtype=torch.float32)
    assert need(aten.addmm.default, a[:, 0], a, a.t().contiguous()).products == {"float32": 8 * 16 * 8}


@pytest.mark.parametrize(
    ("operator", "dtype", "plain", "special"),
    [
        (aten.neg.default, torch.bfloat16, 1, 0),
        (aten.exp.default, torch.float32, 0, 1),
        (aten.exp.default, torch.bfloat16, 2, 1),
        (aten.silu.default, torch.bfloat16, 4, 2),
        (aten.clone.default, torch.bfloat16, 0, 0),
    ],
)
def test_lanes_count_the_conversions_that_a_function_needs(operator, dtype, plain, special):
    found = need(operator, tile(16, 16, dtype=dtype))
    assert (found.plain, found.special) == (256 * plain, 256 * special)


def test_the_largest_of_the_times_sets_the_limit():
    lanes_per_s = CHIP.core.vector.lane_count * CHIP.core_count * CHIP.clock_hz
    bandwidth = CHIP.hbm.bandwidth_bytes_per_s
    assert limits.limit_of(limits.Need(bandwidth), CHIP) == limits.Limit(1.0, "HBM")
    assert limits.limit_of(limits.Need(bandwidth, plain=2 * lanes_per_s), CHIP) == limits.Limit(2.0, "lanes")
    products = {"bfloat16": 3 * CHIP.peak_flops_per_s("bfloat16") / 2}
    assert limits.limit_of(limits.Need(bandwidth, products), CHIP) == limits.Limit(3.0, "matrix")


def test_attention_counts_two_products_and_half_of_them_if_causal():
    operator = aten._scaled_dot_product_fused_attention_overrideable.default
    q = tile(1, 4, 64, 32)
    assert need(operator, q, q, q).products == {"bfloat16": 2 * 4 * 64 * 64 * 32}
    assert need(operator, q, q, q, None, 0.0, True).products == {"bfloat16": 4 * 64 * 64 * 32}
