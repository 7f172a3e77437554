"""A language model of SmolLM2's shape at small size on the active chip: logits against float64 on the host."""

import json

import torch
from torch import nn

VOCABULARY, HIDDEN, HEADS, KEY_HEADS, INNER, LAYERS, LENGTH = 96, 48, 3, 1, 128, 1, 8


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def turned(x, angles):
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        size = HIDDEN // HEADS
        self.before, self.between = Norm(), Norm()
        self.q, self.o = nn.Linear(HIDDEN, HIDDEN, bias=False), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.k, self.v = (nn.Linear(HIDDEN, KEY_HEADS * size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(HIDDEN, INNER, bias=False) for _ in range(2))
        self.down = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x, angles):
        batch, length, _ = x.shape
        y = self.before(x)
        q, k, v = (w(y).view(batch, length, -1, HIDDEN // HEADS).transpose(1, 2) for w in (self.q, self.k, self.v))
        q, k = turned(q, angles), turned(k, angles)
        k, v = (t.repeat_interleave(HEADS // KEY_HEADS, 1) for t in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, HIDDEN))
        y = self.between(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()

    def forward(self, tokens):
        size = HIDDEN // HEADS
        steps = torch.arange(tokens.shape[1], device=tokens.device, dtype=self.embed.weight.dtype)
        rates = 1e4 ** (-torch.arange(0, size, 2, device=tokens.device, dtype=steps.dtype) / size)
        angles = torch.outer(steps, rates).repeat(1, 2)
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, angles)
        return self.norm(x) @ self.embed.weight.T


def main():
    torch.manual_seed(0)
    model, tokens = Model(), torch.randint(VOCABULARY, (2, LENGTH))
    with torch.no_grad():
        exact = model.double()(tokens)
        found = model.float().to("chip")(tokens.to("chip")).cpu().double()
    error = float((found - exact).norm() / exact.norm())
    same = float((found.argmax(-1) == exact.argmax(-1)).double().mean())
    print(json.dumps({"error": error, "same": same}))


main()
