"""Models that a Python file builds: the shape found, and what is refused."""

from dataclasses import replace

import pytest

from tapeout.training import TrainingError, model_of
from tapeout.training.shapes import parameter_count

DECODER = """
import torch
from torch import nn
import torch.nn.functional as F

class Block(nn.Module):
    def __init__(self, width, heads, shared, inner, gated=True):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, width + 2 * shared * self.size, bias=False)
        self.back = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, inner, bias=False) if gated else None
        self.up, self.down = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x):
        batch, length, width = x.shape
        split = [width, self.shared * self.size, self.shared * self.size]
        parts = self.qkv(self.norm(x)).split(split, -1)
        q, k, v = (each.view(batch, length, -1, self.size).transpose(1, 2) for each in parts)
        many = self.heads // self.shared
        k, v = k.repeat_interleave(many, 1), v.repeat_interleave(many, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        x = x + self.back(y)
        y = self.norm2(x)
        y = F.silu(self.gate(y)) * self.up(y) if self.gate is not None else F.gelu(self.up(y))
        return x + self.down(y)

class Decoder(nn.Module):
    def __init__(self, blocks, width, words, tied=False):
        super().__init__()
        self.words, self.blocks = nn.Embedding(words, width), nn.ModuleList(blocks)
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
"""


@pytest.fixture
def file(tmp_path):
    def written(text):
        path = tmp_path / "mine.py"
        path.write_text(DECODER + text)
        return f"{path}:build"

    return written


def test_a_large_decoder_is_read_without_memory(file):
    shape = model_of(
        file("def build():\n    return Decoder([Block(8192, 64, 8, 28672) for _ in range(20)], 8192, 128256)")
    )
    known = model_of("llama-3.1-70b")
    assert shape.layers == 20
    for name in ("hidden", "heads", "key_value_heads", "head_size", "intermediate", "vocabulary", "gated"):
        assert getattr(shape, name) == getattr(known, name), name
    assert parameter_count(shape) == parameter_count(replace(known, layers=20))


def test_a_tied_decoder_without_gates(file):
    shape = model_of(
        file(
            "def build():\n    return Decoder([Block(1024, 16, 16, 4096, False) for _ in range(4)], 1024, 50304, True)"
        )
    )
    assert not shape.gated and shape.tied and shape.key_value_heads == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build():\n    return 3", "returns a int; it is to return a torch.nn.Module"),
        ("def other():\n    return 3", "has no function 'build'; write one that returns the model"),
        ("def build():\n    return nn.Linear(2, 2)", "has no ModuleList or Sequential of blocks"),
        ("def build():\n    raise RuntimeError('no')", "building the model raised RuntimeError: no"),
        (
            "def build():\n    return Decoder([Block(256, 4, 4, 512), Block(256, 4, 4, 1024)], 256, 1000)",
            "blocks 0 and 1 differ",
        ),
        (
            "def build():\n    return Decoder([nn.Linear(64, 64), nn.Linear(64, 64)], 64, 99)",
            "a block is not that of a decoder of width 64: products 64 to 64; no attention",
        ),
        ("def build():\n    return Decoder([Block(256, 4, 4, 512), 3], 256, 1000)", "building the model raised"),
        (
            "class Reads(Decoder):\n    def forward(self, tokens):\n"
            "        return super().forward(tokens)[: int(tokens.sum())]\n"
            "def build():\n    return Reads([Block(256, 4, 4, 512)], 256, 1000)",
            "does not run on fake tokens of shape",
        ),
    ],
)
def test_what_is_no_decoder_is_refused(file, text, message):
    with pytest.raises(TrainingError, match=message):
        model_of(file(text))


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(TrainingError, match=r"no Python file; a module is written file.py:function"):
        model_of(f"{tmp_path}/none.py:build")
