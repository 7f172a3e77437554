"""One decoder block of Llama 2 7B: how long would this chip take, for a decode step or for a prompt?

    tapeout run --timing-only --chip inference examples/llama_7b_block.py --batch 8 --context 2048
    tapeout run --timing-only --chip inference examples/llama_7b_block.py --prompt 2048

The block is transformers' own, in bfloat16. No weights are needed.
"""

import argparse

import torch
from transformers import LlamaConfig, StaticCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 1,
    "max_position_embeddings": 4096,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--context", type=int, default=0, help="decode: tokens attended to, the new one among them")
    options.add_argument("--prompt", type=int, default=0, help="prefill: tokens of the prompt")
    chosen = options.parse_args()
    if (chosen.context > 0) == (chosen.prompt > 0):
        options.error("give either --context, to time a decode step, or --prompt, to time a prefill")

    config = LlamaConfig(**LLAMA_2_7B, dtype=torch.bfloat16, attn_implementation="sdpa")
    with torch.device("meta"):
        block = LlamaDecoderLayer(config, 0).bfloat16()
    block = block.to_empty(device="chip").eval()
    rotary = LlamaRotaryEmbedding(config).to("chip")
    length = chosen.context or chosen.prompt
    tokens = chosen.prompt or 1
    cache = StaticCache(config, max_cache_len=length)
    hidden = torch.empty(chosen.batch, tokens, config.hidden_size, dtype=torch.bfloat16, device="chip")
    position = torch.arange(length - tokens, length, device="chip")

    start, end = (torch.chip.Event(enable_timing=True) for _ in range(2))
    with torch.no_grad():
        angles = rotary(hidden, position[None])
        for run in ("first run (the cache is set up)", "decoder block"):
            torch.chip.synchronize()
            start.record()
            block(hidden, position_embeddings=angles, past_key_values=cache, cache_position=position)
            end.record()
            torch.chip.synchronize()
            print(f"{run}: {start.elapsed_time(end):.3f} ms")


if __name__ == "__main__":
    main()
