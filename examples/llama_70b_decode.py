"""One decode step of Llama 3 70B: how long would this chip take? No weights are needed, and no memory for them.

    tapeout run --timing-only --chip training examples/llama_70b_decode.py

The model is transformers' own, in bfloat16: 141 GB of weights and 5.4 GB of keys and values, which `training` has room
for. On a chip that has not, it ends with torch's OutOfMemoryError, as it would there; --layers makes the model smaller.
"""

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

LLAMA_3_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--layers", type=int, default=80)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--context", type=int, default=2048, help="tokens in the cache before this step")
    chosen = options.parse_args()

    config = LlamaConfig(**LLAMA_3_70B, num_hidden_layers=chosen.layers, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).bfloat16()
    model = model.to_empty(device="chip").eval()
    cache = StaticCache(config, max_cache_len=chosen.context + 1)
    token = torch.empty(chosen.batch, 1, dtype=torch.int64, device="chip")
    position = torch.full((1, 1), chosen.context, device="chip")

    start, end = (torch.chip.Event(enable_timing=True) for _ in range(2))
    with torch.no_grad():
        for step in ("first step (the cache is set up)", "decode step"):
            torch.chip.synchronize()
            start.record()
            model(token, position_ids=position, cache_position=position[0], past_key_values=cache)
            end.record()
            torch.chip.synchronize()
            print(f"{step}: {start.elapsed_time(end):.2f} ms")
    print(f"HBM in use: {torch.chip.memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
