"""SmolLM2-135M learns a small text: full fine-tuning, every one of its 135 million parameters.

    python examples/finetune_language_model.py --steps 20

Prints the loss of each step. The text, a guide to an island that does not exist, is examples/island.txt.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from tapeout import language_model

TEXT = Path(__file__).with_name("island.txt")


def windows(tokenizer: Any, length: int) -> torch.Tensor:
    """(count, length): the text's tokens, cut into pieces of equal length."""
    tokens = tokenizer(TEXT.read_text("utf-8"), return_tensors="pt").input_ids[0]
    count = len(tokens) // length
    return tokens[: count * length].view(count, length)


def finetune(model: Any, pieces: torch.Tensor, *, step_count: int, batch_size: int, rate: float = 2e-5) -> list[float]:
    """Losses, step by step. Takes the pieces in order, again and again."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    losses = []
    for step in range(step_count):
        rows = torch.arange(step * batch_size, (step + 1) * batch_size) % len(pieces)
        batch = pieces[rows].to(model.device)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="chip")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--length", type=int, default=64)
    given = options.parse_args()
    smollm = language_model.load(device=given.device, compiled=False)
    pieces = windows(smollm.tokenizer, given.length)
    losses = finetune(smollm.model, pieces, step_count=given.steps, batch_size=given.batch)
    for step, loss in enumerate(losses):
        print(f"step {step:2}  loss {loss:.5f}")


if __name__ == "__main__":
    main()
