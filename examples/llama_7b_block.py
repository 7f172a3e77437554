"""One decoder block of Llama 2 7B: how long would this chip take, for a decode step or for a prompt?

    tapeout run --timing-only --chip inference examples/llama_7b_block.py --batch 8 --context 2048
    tapeout run --timing-only --chip inference examples/llama_7b_block.py --prompt 2048

The block is written in plain PyTorch, in bfloat16, so nothing else needs to be imported. No weights are needed.
"""

import argparse
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    hidden: int = 4096
    inner: int = 11008
    heads: int = 32
    rotation_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        return self.hidden // self.heads


class Norm(nn.Module):
    """Rows of root mean square 1, which is worked out in float32, times a weight."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * scale).to(x.dtype)


Angles = tuple[torch.Tensor, torch.Tensor]


def angles(positions: torch.Tensor, sizes: Sizes, dtype: torch.dtype) -> Angles:
    """Cosines and sines by position and channel of a head: a channel and the one half a head further turn together."""
    steps = torch.arange(0, sizes.head, 2, device=positions.device).float()
    angle = positions[:, None].float() * torch.exp(steps * (-math.log(sizes.rotation_base) / sizes.head))
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def turned(x: torch.Tensor, by: Angles) -> torch.Tensor:
    cosine, sine = by
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Block(nn.Module):
    """Attention with a cache, then a gated perceptron. Parameters have the names they have in checkpoints of Llama."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.input_layernorm = Norm(sizes.hidden, sizes.epsilon)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(sizes.hidden, sizes.hidden, bias=False) for _ in range(4)
        )
        self.post_attention_layernorm = Norm(sizes.hidden, sizes.epsilon)
        self.gate_proj, self.up_proj = (nn.Linear(sizes.hidden, sizes.inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(sizes.inner, sizes.hidden, bias=False)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, by: Angles, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """`keys` and `values` (batch, heads, context, channels) are filled in at `positions`. Every token sees the
        whole context or, if they are as many, those up to itself."""
        batch, tokens, _ = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, tokens, self.sizes.heads, self.sizes.head).transpose(1, 2)

        normed = self.input_layernorm(x)
        queries = turned(heads(self.q_proj(normed)), by)
        keys.index_copy_(2, positions, turned(heads(self.k_proj(normed)), by))
        values.index_copy_(2, positions, heads(self.v_proj(normed)))
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=tokens > 1)
        x = x + self.o_proj(attended.transpose(1, 2).reshape(x.shape))
        normed = self.post_attention_layernorm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(normed)) * self.up_proj(normed))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--context", type=int, default=0, help="decode: tokens attended to, the new one among them")
    options.add_argument("--prompt", type=int, default=0, help="prefill: tokens of the prompt")
    chosen = options.parse_args()
    if (chosen.context > 0) == (chosen.prompt > 0):
        options.error("give either --context, to time a decode step, or --prompt, to time a prefill")

    sizes, dtype = Sizes(), torch.bfloat16
    with torch.device("meta"):
        block = Block(sizes).to(dtype)
    block = block.to_empty(device="chip").eval()
    length = chosen.context or chosen.prompt
    tokens = chosen.prompt or 1
    with torch.device("chip"):
        keys, values = (torch.empty(chosen.batch, sizes.heads, length, sizes.head, dtype=dtype) for _ in range(2))
        hidden = torch.empty(chosen.batch, tokens, sizes.hidden, dtype=dtype)
        positions = torch.arange(length - tokens, length)

    start, end = (torch.chip.Event(enable_timing=True) for _ in range(2))
    with torch.no_grad():
        by = angles(positions, sizes, dtype)
        for run in ("first run (nothing is in the last-level SRAM)", "decoder block"):
            torch.chip.synchronize()
            start.record()
            block(hidden, positions, by, keys, values)
            end.record()
            torch.chip.synchronize()
            print(f"{run}: {start.elapsed_time(end):.3f} ms")


if __name__ == "__main__":
    main()
