"""Tiles chosen from the chip: they fit, they fill the cores, and attention is right whatever they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tapeout import chip
from tapeout.pytorch.ops import attention, tiles

CHIPS = [chip.load(name) for name in ("training", "inference", "tiny")]
SHAPES = [(1, 1, 1), (1, 512, 300), (8, 4096, 4096), (100, 37, 5000), (4096, 4096, 4096)]


@pytest.mark.parametrize("used", CHIPS, ids=lambda c: c.name)
@pytest.mark.parametrize("rows,columns,inner", SHAPES)
@pytest.mark.parametrize("dtype,size", [("float32", 4), ("bfloat16", 2)])
def test_operands_fit_twice(used, rows, columns, inner, dtype, size):
    tile = tiles.product_tile(used, dtype, size, 1, rows, columns, inner)
    needed = 8 * tile.rows * tile.columns + 2 * tile.chains * (tile.rows + tile.columns) * tile.depth * size
    assert needed <= used.core.scratchpad.size_bytes
    assert tile.rows < 2 * rows and tile.columns < max(32, 2 * columns) and tile.depth < max(32, 2 * inner)
    assert (tile.parts - 1) * tile.share < inner <= tile.parts * tile.share


@pytest.mark.parametrize("used", CHIPS[:2], ids=lambda c: c.name)
def test_a_product_fills_the_cores(used):
    tile = tiles.product_tile(used, "bfloat16", 2, 1, 8, 8192, 8192)
    programs = -(-8 // tile.rows) * (8192 // tile.columns)
    assert programs >= used.core_count or tile.columns == tiles.COLUMNS[-1]


def test_a_long_product_of_few_outputs_is_shared_by_cores():
    for used in CHIPS[:2]:
        tile = tiles.product_tile(used, "bfloat16", 2, 1, 64, 64, 100_000)
        assert tile.parts * -(-64 // tile.rows) * -(-64 // tile.columns) >= used.core_count // 4
        assert tile.chains > 1  # more sums than the array's tiles: they take turns


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([(1, 3), (2, 1)]), st.integers(2, 70), st.integers(1, 90), st.integers(1, 3000),
    st.booleans(), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 2**31),
)  # fmt: skip
def test_products_of_any_size_and_layout(batch, rows, columns, inner, turns_left, turns_right, dtype, seed):
    """Against float64 on the host: sums of up to 3,000 products of numbers near 1, in float32, rounded once."""
    generator = torch.Generator().manual_seed(seed)

    def operand(rows_, columns_, turns):
        sides = (columns_, rows_) if turns else (rows_, columns_)
        made = torch.randn(batch[0], *sides, generator=generator).to(dtype)
        return made.transpose(1, 2) if turns else made

    left, right = operand(rows, inner, turns_left), operand(inner, columns, turns_right)
    bias = torch.randn(columns, generator=generator).to(dtype)
    found = torch.baddbmm(bias.to("chip"), left.to("chip"), right.to("chip"), alpha=0.5).cpu()
    expected = bias.double() + 0.5 * (left.double() @ right.double())
    magnitude = left.double().abs() @ right.double().abs() + bias.double().abs()
    slack = 2**-8 * expected.abs() if dtype == torch.bfloat16 else 0.0
    assert ((found.double() - expected).abs() <= 1e-6 * magnitude + slack).all()


def test_a_growing_context_seldom_chooses_anew():
    tiles._product_tile.cache_clear()
    for inner in range(1025, 2049):
        tiles.product_tile(CHIPS[1], "float32", 4, 9, 1, 64, inner)
    assert tiles._product_tile.cache_info().misses == 8


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": -0.3}, {"scale": 0.0}, {"bias": True}], ids=str)
def test_attention_of_many_tiles(options):
    """Enough keys that scores are computed ahead, and a last tile that is not full."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 40) for n in (90, 1100, 1100))
    options = dict(options)
    if options.pop("bias", False):
        options["attn_mask"] = torch.randn(1, 2, 90, 1100)
    _, key_tile = tiles.attention_tile(chip.active(), "float32", 4, 2, 90, 1100, 40, 40)
    assert attention.LEAST_STEPS_AHEAD * key_tile <= 1100 and 1100 % key_tile
    expected = functional.scaled_dot_product_attention(q, k, v, **options)
    on_chip = {name: o.to("chip") if isinstance(o, torch.Tensor) else o for name, o in options.items()}
    found = functional.scaled_dot_product_attention(q.to("chip"), k.to("chip"), v.to("chip"), **on_chip)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_causal_attention_with_more_queries_than_keys():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16) for n in (150, 70, 70))
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    found = functional.scaled_dot_product_attention(q.to("chip"), k.to("chip"), v.to("chip"), is_causal=True)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
