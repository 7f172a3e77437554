"""A decoder layer of SmolLM2 at reduced width, compiled by Inductor: `tapeout cosim benchmarks/cosimulated_layer.py
--chip tiny` runs each of its kernels in RTL too."""

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

import tapeout  # noqa: F401  registers the device

TOKENS = 8
CONFIG = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=1,
    attn_implementation="sdpa",
)


def main() -> None:
    torch.manual_seed(0)
    layer = LlamaDecoderLayer(CONFIG, 0).eval()
    hidden = torch.randn(1, TOKENS, CONFIG.hidden_size)
    rotation = LlamaRotaryEmbedding(CONFIG)(hidden, torch.arange(TOKENS)[None])
    with torch.no_grad():
        expected = layer(hidden, position_embeddings=rotation)
        compiled = torch.compile(layer.to("chip"))
        result = compiled(hidden.to("chip"), position_embeddings=tuple(part.to("chip") for part in rotation))
    first = expected[0] if isinstance(expected, tuple) else expected
    mine = result[0] if isinstance(result, tuple) else result
    torch.testing.assert_close(mine.cpu(), first, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    main()
