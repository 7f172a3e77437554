"""Kernels as people write them: normalisations, attention, dropout, embeddings, losses, locks."""

import math

import pytest
import torch
import triton
import triton.language as tl

from tests.triton.harness import run, run_three_ways


@triton.jit
def softmax(x, out, columns, stride, BLOCK: tl.constexpr):
    row, c = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * stride + c, mask=c < columns, other=-float("inf")).to(tl.float32)
    e = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * stride + c, (e / tl.sum(e, 0)).to(out.dtype.element_ty), mask=c < columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_softmax(dtype):
    x = torch.randn(5, 45).to(dtype)
    result = run_three_ways(softmax, (5,), {"x": x, "out": torch.zeros_like(x), "columns": 45, "stride": 45}, BLOCK=64)
    torch.testing.assert_close(result["out"], x.softmax(1))


@triton.jit
def flash_attention(q, k, v, out, length, scale, D: tl.constexpr, B: tl.constexpr, CAUSAL: tl.constexpr):
    start_row, head = tl.program_id(0) * B, tl.program_id(1) * length * D
    rows, d = start_row + tl.arange(0, B), tl.arange(0, D)
    inside = (rows < length)[:, None]
    queries = tl.load(q + head + rows[:, None] * D + d[None, :], mask=inside, other=0.0)
    best = tl.full((B,), -float("inf"), tl.float32)
    total = tl.zeros((B,), tl.float32)
    result = tl.zeros((B, D), tl.float32)
    end = tl.minimum(start_row + B, length) if CAUSAL else length
    for start in range(0, end, B):
        columns = start + tl.arange(0, B)
        keys = tl.load(k + head + columns[None, :] * D + d[:, None], mask=(columns < length)[None, :], other=0.0)
        values = tl.load(v + head + columns[:, None] * D + d[None, :], mask=(columns < length)[:, None], other=0.0)
        scores = tl.dot(queries, keys) * scale
        allowed = (columns < length)[None, :]
        if CAUSAL:
            allowed = allowed & (columns[None, :] <= rows[:, None])
        scores = tl.where(allowed, scores, -float("inf"))
        highest = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - highest[:, None])
        shrink = tl.exp(best - highest)
        total = total * shrink + tl.sum(weights, 1)
        result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None])
        best = highest
    result = result / total[:, None]
    tl.store(out + head + rows[:, None] * D + d[None, :], result.to(out.dtype.element_ty), mask=inside)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_flash_attention(dtype, causal):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 50, 32, generator=generator).to(dtype) for _ in range(3))
    arguments = {"q": q, "k": k, "v": v, "out": torch.zeros_like(q), "length": 50, "scale": 1 / math.sqrt(32)}
    run_it = run_three_ways if dtype is torch.float32 and causal else run
    result = run_it(flash_attention, (4, 2), arguments, D=32, B=16, CAUSAL=causal)["out"]
    expected = torch.nn.functional.scaled_dot_product_attention(*(t.float() for t in (q, k, v)), is_causal=causal)
    torch.testing.assert_close(result.float(), expected, rtol=2e-3 if dtype is torch.float16 else 1e-5, atol=2e-3)


@triton.jit
def layer_norm(x, weight, bias, out, mean, deviation, columns, epsilon, BLOCK: tl.constexpr):
    row, c = tl.program_id(0), tl.arange(0, BLOCK)
    inside = c < columns
    value = tl.load(x + row * columns + c, mask=inside, other=0.0).to(tl.float32)
    average = tl.sum(value, 0) / columns
    centred = tl.where(inside, value - average, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(centred * centred, 0) / columns + epsilon)
    tl.store(mean + row, average)
    tl.store(deviation + row, inverse)
    result = centred * inverse * tl.load(weight + c, mask=inside) + tl.load(bias + c, mask=inside)
    tl.store(out + row * columns + c, result, mask=inside)


@triton.jit
def layer_norm_backward(
    x,
    weight,
    mean,
    deviation,
    gradient,
    dx,
    dweight,
    dbias,
    lock,
    columns,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, c = tl.program_id(0), tl.arange(0, BLOCK)
    inside = c < columns
    value = tl.load(x + row * columns + c, mask=inside, other=0.0)
    g = tl.load(gradient + row * columns + c, mask=inside, other=0.0)
    w = tl.load(weight + c, mask=inside, other=0.0)
    inverse = tl.load(deviation + row)
    normal = tl.where(inside, (value - tl.load(mean + row)) * inverse, 0.0)
    wg = w * g
    along = tl.sum(normal * wg, 0) / columns
    average = tl.sum(wg, 0) / columns
    tl.store(dx + row * columns + c, (wg - (normal * along + average)) * inverse, mask=inside)
    group = row % GROUPS
    while tl.atomic_cas(lock + group, 0, 1) == 1:
        pass
    place = group * columns + c
    tl.store(dweight + place, tl.load(dweight + place, mask=inside) + g * normal, mask=inside)
    tl.store(dbias + place, tl.load(dbias + place, mask=inside) + g, mask=inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock + group, 0)


def test_layer_norm_forward_and_backward():
    generator = torch.Generator().manual_seed(2)
    rows, columns = 7, 50
    x, gradient = (torch.randn(rows, columns, generator=generator) for _ in range(2))
    weight, bias = (torch.randn(columns, generator=generator) for _ in range(2))
    arguments = {
        "x": x, "weight": weight, "bias": bias, "out": torch.zeros_like(x), "mean": torch.zeros(rows),
        "deviation": torch.zeros(rows), "columns": columns, "epsilon": 1e-5,
    }  # fmt: skip
    forward = run_three_ways(layer_norm, (rows,), arguments, BLOCK=64)
    for t in (x, weight, bias):
        t.requires_grad_()
    expected = torch.nn.functional.layer_norm(x, (columns,), weight, bias, 1e-5)
    torch.testing.assert_close(forward["out"], expected.detach())
    dx, dw, db = torch.autograd.grad(expected, (x, weight, bias), gradient)
    arguments = {
        "x": x.detach(), "weight": weight.detach(), "mean": forward["mean"], "deviation": forward["deviation"],
        "gradient": gradient, "dx": torch.zeros(rows, columns), "dweight": torch.zeros(2, columns),
        "dbias": torch.zeros(2, columns), "lock": torch.zeros(2, dtype=torch.int32), "columns": columns,
    }  # fmt: skip
    backward = run(layer_norm_backward, (rows,), arguments, GROUPS=2, BLOCK=64)
    torch.testing.assert_close(backward["dx"], dx, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backward["dweight"].sum(0), dw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backward["dbias"].sum(0), db, rtol=1e-4, atol=1e-5)


PHILOX_ROUNDS, PHILOX_MULTIPLIERS, PHILOX_KEY_STEPS = 10, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)


def philox(seed, counter):
    """Philox-4x32-10 of one counter in its first word, as published (Salmon et al., 2011)."""
    c, key, mask = [counter & 0xFFFFFFFF, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32], 0xFFFFFFFF
    for _ in range(PHILOX_ROUNDS):
        low, high = PHILOX_MULTIPLIERS[0] * c[0], PHILOX_MULTIPLIERS[1] * c[2]
        c = [high >> 32 ^ c[1] ^ key[0], high & mask, low >> 32 ^ c[3] ^ key[1], low & mask]
        key = [(k + step) & mask for k, step in zip(key, PHILOX_KEY_STEPS, strict=True)]
    return c


@triton.jit
def random_numbers(words, uniform, normal, seed, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    a, b, c, d = tl.randint4x(seed, i)
    tl.store(words + 4 * i, a)
    tl.store(words + 4 * i + 1, b)
    tl.store(words + 4 * i + 2, c)
    tl.store(words + 4 * i + 3, d)
    tl.store(uniform + i, tl.rand(seed, i))
    tl.store(normal + i, tl.randn(seed, i))


@pytest.mark.parametrize("seed", [5, 1 << 40 | 77])
def test_random_numbers_are_philox(seed):
    n = 128
    arguments = {"words": torch.zeros(n, 4, dtype=torch.int32), "seed": seed}
    arguments |= {"uniform": torch.zeros(n), "normal": torch.zeros(n)}
    result = run(random_numbers, (2,), arguments, N=64)
    expected = torch.tensor([philox(seed, i) for i in range(n)])
    assert torch.equal(result["words"].long() & 0xFFFFFFFF, expected)
    assert ((result["uniform"] >= 0) & (result["uniform"] < 1)).all()
    assert result["normal"].isfinite().all() and abs(float(result["normal"].mean())) < 0.4


@triton.jit
def seeded_dropout(x, out, n, p, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n)
    kept = tl.rand(seed, i) > p
    tl.store(out + i, tl.where(kept, value / (1 - p), 0.0), mask=i < n)


def test_dropout():
    x = torch.randn(200)
    arguments = {"x": x, "out": torch.zeros(200), "n": 200, "p": 0.3, "seed": 123}
    result = run_three_ways(seeded_dropout, (2,), arguments, BLOCK=128)["out"]
    words = torch.tensor([philox(123, i)[0] for i in range(200)]).int()
    uniform = torch.where(words < 0, -words - 1, words).float() * 4.6566127342e-10
    torch.testing.assert_close(result, torch.where(uniform > 0.3, x / 0.7, 0.0))


@triton.jit
def embedding_bag(table, index, offsets, out, width, BLOCK: tl.constexpr):
    bag, c = tl.program_id(0), tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(tl.load(offsets + bag), tl.load(offsets + bag + 1)):
        total += tl.load(table + tl.load(index + k) * width + c, mask=c < width, other=0.0)
    tl.store(out + bag * width + c, total, mask=c < width)


@triton.jit
def embedding_gradient(gradient, index, dtable, n, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    r, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (r < n)[:, None] & (c < width)[None, :]
    row = tl.load(index + r, mask=r < n, other=0)
    value = tl.load(gradient + r[:, None] * width + c[None, :], mask=inside, other=0.0)
    tl.atomic_add(dtable + row[:, None] * width + c[None, :], value, mask=inside)


def test_embedding_bag_and_its_gradient():
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(30, 20, generator=generator)
    index = torch.randint(0, 30, (25,), generator=generator)
    offsets = torch.tensor([0, 4, 4, 11, 25])
    arguments = {"table": table, "index": index, "offsets": offsets, "out": torch.zeros(4, 20), "width": 20}
    result = run_three_ways(embedding_bag, (4,), arguments, BLOCK=32)["out"]
    expected = torch.nn.functional.embedding_bag(index, table, offsets[:-1], mode="sum")
    torch.testing.assert_close(result, expected)
    gradient = torch.randint(-4, 5, (25, 20), generator=generator).float()
    arguments = {"gradient": gradient, "index": index, "dtable": torch.zeros(30, 20), "n": 25, "width": 20}
    result = run(embedding_gradient, (4,), arguments, ROWS=8, BLOCK=32)["dtable"]
    assert torch.equal(result, torch.zeros(30, 20).index_add(0, index, gradient))


@triton.jit
def cross_entropy(logits, labels, loss, vocabulary, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best, total = -float("inf"), 0.0
    for start in range(0, vocabulary, BLOCK):
        c = start + tl.arange(0, BLOCK)
        value = tl.load(logits + row * vocabulary + c, mask=c < vocabulary, other=-float("inf"))
        highest = tl.maximum(best, tl.max(value, 0))
        total = total * tl.exp(best - highest) + tl.sum(tl.exp(value - highest), 0)
        best = highest
    label = tl.load(labels + row)
    tl.store(loss + row, tl.log(total) + best - tl.load(logits + row * vocabulary + label))


def test_cross_entropy_with_carried_scalars():
    logits, labels = torch.randn(6, 75) * 4, torch.randint(0, 75, (6,))
    arguments = {"logits": logits, "labels": labels, "loss": torch.zeros(6), "vocabulary": 75}
    result = run_three_ways(cross_entropy, (6,), arguments, BLOCK=32)["loss"]
    torch.testing.assert_close(result, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))


@triton.jit
def rotary(x, cosine, sine, out, heads, D: tl.constexpr):
    position, head = tl.program_id(0), tl.program_id(1)
    half = tl.arange(0, D // 2)
    start = (position * heads + head) * D
    a, b = tl.load(x + start + half), tl.load(x + start + D // 2 + half)
    c, s = tl.load(cosine + position * (D // 2) + half), tl.load(sine + position * (D // 2) + half)
    tl.store(out + start + half, a * c - b * s)
    tl.store(out + start + D // 2 + half, b * c + a * s)


def test_rotary_embedding():
    x = torch.randn(5, 3, 16)
    angles = torch.arange(5.0)[:, None] / 10 ** torch.linspace(0, 3, 8)[None, :]
    arguments = {"x": x, "cosine": angles.cos(), "sine": angles.sin(), "out": torch.zeros_like(x), "heads": 3}
    result = run_three_ways(rotary, (5, 3), arguments, D=16)["out"]
    a, b = x.chunk(2, -1)
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    torch.testing.assert_close(result, torch.cat([a * c - b * s, b * c + a * s], -1))


@triton.jit
def convolution(x, weight, out, channels, height, width, K: tl.constexpr, BO: tl.constexpr, BP: tl.constexpr):
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    row, column = pixel // width, pixel % width
    filters = tl.arange(0, BO)
    total = tl.zeros((BO, BP), tl.float32)
    for c in range(channels):
        for dy in tl.static_range(K):
            for dx in tl.static_range(K):
                y, z = row + dy - K // 2, column + dx - K // 2
                inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
                value = tl.load(x + (c * height + y) * width + z, mask=inside, other=0.0)
                total += tl.load(weight + ((filters * channels + c) * K + dy) * K + dx)[:, None] * value[None, :]
    inside = (pixel < height * width)[None, :]
    tl.store(out + filters[:, None] * (height * width) + pixel[None, :], total, mask=inside)


def test_convolution_by_gather():
    x, weight = torch.randn(3, 6, 7), torch.randn(4, 3, 3, 3)
    arguments = {
        "x": x,
        "weight": weight,
        "out": torch.zeros(4, 6, 7),
        "channels": 3,
        "height": 6,
        "width": 7,
    }
    result = run_three_ways(convolution, (3,), arguments, adversaries=(), K=3, BO=4, BP=16)["out"]
    expected = torch.nn.functional.conv2d(x[None], weight, padding=1)[0]
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
