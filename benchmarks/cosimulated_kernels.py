"""Kernels small enough for RTL, launched on the chip: run by `benchmarks.cosimulation`."""

import math
from typing import Any

import torch
import triton
import triton.language as tl

import tapeout  # noqa: F401  registers the device


@triton.jit
def add(a, b, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(a + i, mask=i < n) + tl.load(b + i, mask=i < n), mask=i < n)


@triton.jit
def softmax(values, out, n, BLOCK: tl.constexpr):
    start = tl.program_id(0) * n
    i = tl.arange(0, BLOCK)
    row = tl.load(values + start + i, mask=i < n, other=float("-inf"))
    powers = tl.exp(row - tl.max(row, axis=0))
    tl.store(out + start + i, powers / tl.sum(powers, axis=0), mask=i < n)


@triton.jit
def layer_norm(values, weight, bias, out, n, BLOCK: tl.constexpr):
    start = tl.program_id(0) * n
    i = tl.arange(0, BLOCK)
    inside = i < n
    row = tl.load(values + start + i, mask=inside, other=0.0)
    centred = tl.where(inside, row - tl.sum(row, axis=0) / n, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=0) / n + 1e-5)
    normal = centred * scale * tl.load(weight + i, mask=inside) + tl.load(bias + i, mask=inside)
    tl.store(out + start + i, normal, mask=inside)


@triton.jit
def matmul(a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M)[:, None], tl.arange(0, N)[None], tl.arange(0, K)
    tl.store(out + m * N + n, tl.dot(tl.load(a + m * K + k[None]), tl.load(b + k[:, None] * N + n)))


@triton.jit
def attention(query, key, value, out, scale, T: tl.constexpr, D: tl.constexpr, B: tl.constexpr):
    rows, d = tl.program_id(0) * B + tl.arange(0, B)[:, None], tl.arange(0, D)[None]
    q = tl.load(query + rows * D + d)
    top = tl.full((B,), float("-inf"), tl.float32)
    total, result = tl.zeros((B,), tl.float32), tl.zeros((B, D), tl.float32)
    for start in range(0, T, B):
        columns = start + tl.arange(0, B)[:, None]
        scores = tl.dot(q, tl.trans(tl.load(key + columns * D + d))) * scale
        higher = tl.maximum(top, tl.max(scores, 1))
        powers, shrink = tl.exp(scores - higher[:, None]), tl.exp(top - higher)
        total = total * shrink + tl.sum(powers, 1)
        result = result * shrink[:, None] + tl.dot(powers.to(tl.bfloat16), tl.load(value + columns * D + d))
        top = higher
    tl.store(out + rows * D + d, result / total[:, None])


@triton.jit
def embedding(table, index, out, D: tl.constexpr, B: tl.constexpr):
    i, d = tl.program_id(0) * B + tl.arange(0, B), tl.arange(0, D)[None]
    tl.store(out + i[:, None] * D + d, tl.load(table + tl.load(index + i)[:, None] * D + d))


@triton.jit
def count(index, out, B: tl.constexpr):
    tl.atomic_add(out + tl.load(index + tl.program_id(0) * B + tl.arange(0, B)), 1)


@triton.jit
def cumsum(values, out, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(out + i, tl.cumsum(tl.load(values + i), 0))


@triton.jit
def functions(values, out, B: tl.constexpr):
    i = tl.arange(0, B)
    x = tl.load(values + i)
    tl.store(out + i, 0.5 * x * (1 + tl.erf(x * 0.70710678)) + tl.sin(x) + tl.log(tl.abs(x) + 1))


@triton.jit
def sort(values, out, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(out + i, tl.sort(tl.load(values + i)))


@triton.jit
def transpose(values, out, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.arange(0, M), tl.arange(0, N)
    tl.store(out + n[:, None] * M + m[None], tl.trans(tl.load(values + m[:, None] * N + n[None])))


@triton.jit
def argmax(values, out, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.arange(0, M), tl.arange(0, N)
    tl.store(out + m, tl.argmax(tl.load(values + m[:, None] * N + n[None]), 1))


@triton.jit
def whole_numbers(values, out, B: tl.constexpr):
    i = tl.arange(0, B)
    x = tl.load(values + i)
    tl.store(out + i, (x * 7 // 3) % 11 ^ (x << 2))


@triton.jit
def convolution(values, weight, out, B: tl.constexpr):
    i = tl.arange(0, B)
    total = tl.zeros((B,), tl.float32)
    for tap in range(3):
        total += tl.load(values + i + tap) * tl.load(weight + tap)
    tl.store(out + i, total)


@triton.jit
def gated(gate, up, out, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    g = tl.load(gate + i).to(tl.float32)
    tl.store(out + i, (g * tl.sigmoid(g) * tl.load(up + i).to(tl.float32)).to(tl.bfloat16))


@triton.jit
def rotary(values, cosines, sines, out, H: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, H)
    first, second = tl.load(values + row * 2 * H + i), tl.load(values + row * 2 * H + H + i)
    c, s = tl.load(cosines + row * H + i), tl.load(sines + row * H + i)
    tl.store(out + row * 2 * H + i, first * c - second * s)
    tl.store(out + row * 2 * H + H + i, second * c + first * s)


def floats(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Made on the host, so that only the kernels above run on the chip."""
    return torch.randn(shape).to(dtype).to("chip")


def integers(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.randint(0, 100, shape, dtype=dtype).to("chip")


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype).to("chip")


def main() -> None:
    torch.manual_seed(0)
    add[(4,)](floats(1000), floats(1000), zeros(1000), 1000, BLOCK=256)
    softmax[(8,)](floats(8, 100), zeros(8, 100), 100, BLOCK=128)
    layer_norm[(4,)](floats(4, 200), floats(200), floats(200), zeros(4, 200), 200, BLOCK=256)
    product: dict[str, Any] = {"M": 32, "N": 32, "K": 64}
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float32):
        matmul[(1,)](floats(32, 64, dtype=dtype), floats(64, 32, dtype=dtype), zeros(32, 32), **product)
    bytes_ = (integers(32, 64, dtype=torch.int8), integers(64, 32, dtype=torch.int8))
    matmul[(1,)](*bytes_, zeros(32, 32, dtype=torch.int32), **product)
    heads = [floats(64, 32, dtype=torch.bfloat16) for _ in range(3)]
    attention[(2,)](*heads, zeros(64, 32), 1 / math.sqrt(32), T=64, D=32, B=32)
    embedding[(2,)](floats(100, 32), integers(32), zeros(32, 32), D=32, B=16)
    count[(2,)](integers(32), zeros(100, dtype=torch.int32), B=16)
    cumsum[(1,)](floats(128), zeros(128), B=128)
    functions[(1,)](floats(256), zeros(256), B=256)
    sort[(1,)](floats(32), zeros(32), B=32)
    transpose[(1,)](floats(16, 32), zeros(32, 16), M=16, N=32)
    argmax[(1,)](floats(16, 32), zeros(16, dtype=torch.int32), M=16, N=32)
    whole_numbers[(1,)](integers(16), zeros(16, dtype=torch.int32), B=16)
    convolution[(1,)](floats(130), floats(3), zeros(128), B=128)
    halves = [floats(512, dtype=torch.bfloat16) for _ in range(2)]
    gated[(2,)](*halves, zeros(512, dtype=torch.bfloat16), B=256)
    rotary[(4,)](floats(4, 64), floats(4, 32), floats(4, 32), zeros(4, 64), H=32)


if __name__ == "__main__":
    main()
