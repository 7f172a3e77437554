"""Tiles chosen from the chip: they fit, they fill the cores, and attention is right whatever they are."""

import pytest
import torch
from torch.nn import functional

from tapeout import chip
from tapeout.pytorch.ops import attention, tiles

CHIPS = [chip.load(name) for name in ("training", "inference", "tiny")]
SHAPES = [(1, 1, 1), (1, 512, 300), (8, 4096, 4096), (100, 37, 5000), (4096, 4096, 4096)]


@pytest.mark.parametrize("used", CHIPS, ids=lambda c: c.name)
@pytest.mark.parametrize("rows,columns,inner", SHAPES)
@pytest.mark.parametrize("dtype,size", [("float32", 4), ("bfloat16", 2)])
def test_operands_fit_twice(used, rows, columns, inner, dtype, size):
    tile_rows, tile_columns, depth = tiles.product_tile(used, dtype, size, 1, rows, columns, inner)
    needed = 8 * tile_rows * tile_columns + 2 * (tile_rows + tile_columns) * depth * size
    assert needed <= used.core.scratchpad.size_bytes
    assert tile_rows < 2 * rows and tile_columns < max(32, 2 * columns) and depth < max(32, 2 * inner)


@pytest.mark.parametrize("used", CHIPS[:2], ids=lambda c: c.name)
def test_a_product_fills_the_cores(used):
    tile_rows, tile_columns, _ = tiles.product_tile(used, "bfloat16", 2, 1, 8, 8192, 8192)
    programs = -(-8 // tile_rows) * (8192 // tile_columns)
    assert programs >= used.core_count or tile_columns == tiles.COLUMNS[-1]


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
