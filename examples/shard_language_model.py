"""SmolLM2 trained with FSDP2 on several chips: each holds a share of every weight, and a share of the batch.

    tapeout run --chip training --ranks 4 examples/shard_language_model.py
    tapeout run --chip training --ranks 1 examples/shard_language_model.py       the same losses on one chip
    torchrun --nproc-per-node 4 examples/shard_language_model.py --tiny          a model of SmolLM2's form, small

It learns the text of examples/island.txt, byte by byte if the model is tiny. Rank 0 prints the mean loss of each step.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tapeout.workbench import language_model

TEXT = Path(__file__).with_name("island.txt")
BATCH_SIZE = 8
LENGTH = 64


def load(tiny: bool) -> tuple[LlamaForCausalLM, torch.Tensor]:
    """The model on the host and the tokens of the text."""
    if not tiny:
        files = language_model.files()
        tokens = AutoTokenizer.from_pretrained(files)(TEXT.read_text("utf-8"))["input_ids"]
        return LlamaForCausalLM.from_pretrained(files, dtype=torch.float32), torch.tensor(tokens)
    torch.manual_seed(0)
    form = LlamaConfig(  # three query heads to a key head, tied weights: as SmolLM2's
        hidden_size=48, intermediate_size=128, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
        vocab_size=256, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(form), torch.tensor(list(TEXT.read_bytes()))


def train(model: LlamaForCausalLM, tokens: torch.Tensor, steps: int, rank: int, ranks: int) -> list[float]:
    """The mean loss over all ranks, step by step. Which rows a step takes does not depend on the number of ranks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    shuffle = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH_SIZE,), generator=shuffle)
        rows = torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()]).chunk(ranks)[rank].to("chip")
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small model of the same form")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    dist.init_process_group()
    model, tokens = load(options.tiny)
    model = model.to("chip")
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    losses = train(model, tokens, options.steps, dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 0:
        print("losses", *(f"{loss:.6f}" for loss in losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
