"""What only rearranges tiles: join, split, interleave, transpose, reshape, flip, broadcast, gather."""

import pytest
import torch
import triton
import triton.language as tl

from tests.triton.harness import run, run_three_ways


@triton.jit
def joining(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    pair = tl.join(a, b)
    tl.store(out + 2 * i[:, None] + tl.arange(0, 2)[None, :], pair)
    left, right = tl.split(pair)
    tl.store(out + 2 * N + i, left - right)
    tl.store(out + 3 * N + tl.arange(0, 2 * N), tl.interleave(a, b))
    tl.store(out + 5 * N + tl.arange(0, 2 * N), tl.cat(a, b, can_reorder=True))


def test_join_split_interleave_cat():
    x, y = torch.randn(32), torch.randn(32)
    result = run_three_ways(joining, (1,), {"x": x, "y": y, "out": torch.zeros(7 * 32)}, N=32)["out"]
    pair = torch.stack([x, y], 1).flatten()
    assert torch.equal(result[:64], pair)
    assert torch.equal(result[64:96], x - y)
    assert torch.equal(result[96:160], pair)
    assert torch.equal(result[160:].sort().values, torch.cat([x, y]).sort().values)


@triton.jit
def permuting(x, out, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    a, b, c = tl.arange(0, A)[:, None, None], tl.arange(0, B)[None, :, None], tl.arange(0, C)[None, None, :]
    value = tl.load(x + (a * B + b) * C + c)
    turned = tl.permute(value + 1, (2, 0, 1))
    tl.store(
        out
        + tl.arange(0, C)[:, None, None] * (A * B)
        + tl.arange(0, A)[None, :, None] * B
        + tl.arange(0, B)[None, None, :],
        turned,
    )
    flat = tl.reshape(turned * 2, (A * B * C,))
    tl.store(out + A * B * C + tl.arange(0, A * B * C), flat)
    tl.store(out + 2 * A * B * C + tl.arange(0, A * B * C), tl.ravel(tl.trans(value, 2, 1, 0)))


def test_permute_and_reshape():
    x = torch.randn(4, 8, 2)
    result = run_three_ways(permuting, (1,), {"x": x, "out": torch.zeros(3, 64)}, A=4, B=8, C=2)["out"]
    turned = (x + 1).permute(2, 0, 1).flatten()
    assert torch.equal(result[0], turned)
    assert torch.equal(result[1], turned * 2)
    assert torch.equal(result[2], x.permute(2, 1, 0).flatten())


@triton.jit
def flipping(x, out, A: tl.constexpr, B: tl.constexpr):
    place = tl.arange(0, A)[:, None] * B + tl.arange(0, B)[None, :]
    value = tl.load(x + place)
    tl.store(out + place, tl.flip(value, 0))
    tl.store(out + A * B + place, tl.flip(value, 1))


def test_flip():
    x = torch.randn(4, 16)
    result = run_three_ways(flipping, (1,), {"x": x, "out": torch.zeros(2, 4, 16)}, A=4, B=16)["out"]
    assert torch.equal(result, torch.stack([x.flip(0), x.flip(1)]))


@triton.jit
def picking(x, index, out, R: tl.constexpr, C: tl.constexpr, K: tl.constexpr, AXIS: tl.constexpr):
    source = tl.load(x + tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :])
    rows: tl.constexpr = K if AXIS == 0 else R
    columns: tl.constexpr = C if AXIS == 0 else K
    place = tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]
    tl.store(out + place, tl.gather(source, tl.load(index + place), AXIS))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float64], ids=str)
def test_gather_within_a_tile(dtype, axis):
    x = torch.randint(-50, 50, (8, 16)).to(dtype)
    shape = (4, 16) if axis == 0 else (8, 4)
    index = torch.randint(0, x.shape[axis], shape, dtype=torch.int32)
    arguments = {"x": x, "index": index, "out": torch.zeros(shape, dtype=dtype)}
    result = run_three_ways(picking, (1,), arguments, R=8, C=16, K=4, AXIS=axis)["out"]
    assert torch.equal(result, x.gather(axis, index.long()))


@triton.jit
def constants_and_broadcasts(x, out, R: tl.constexpr, C: tl.constexpr):
    row = tl.load(x + tl.arange(0, C))
    place = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    value = tl.broadcast_to(row[None, :], (R, C)) + tl.full((R, 1), 2.0, tl.float32) * tl.arange(0, R)[:, None]
    tl.store(out + place, tl.where(place % 3 == 0, value, tl.zeros((R, C), tl.float32)))


def test_constants_and_broadcasts():
    x = torch.randn(16)
    result = run_three_ways(constants_and_broadcasts, (1,), {"x": x, "out": torch.zeros(4, 16)}, R=4, C=16)["out"]
    value = x[None, :] + 2.0 * torch.arange(4.0)[:, None]
    assert torch.equal(result, torch.where(torch.arange(64).view(4, 16) % 3 == 0, value, 0.0))


@triton.jit
def tuples(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    pair = (tl.load(x + i), tl.load(y + i))
    total = pair[0]
    for k in tl.static_range(2):
        total += pair[k] * (k + 1)
    swapped = pair[::-1]
    tl.store(out + i, total - swapped[0])


def test_tuples():
    x, y = torch.randn(16), torch.randn(16)
    result = run(tuples, (1,), {"x": x, "y": y, "out": torch.zeros(16)}, N=16)["out"]
    torch.testing.assert_close(result, x + x + 2 * y - y)


@triton.jit
def scalars_of_a_tile(x, out):
    a, b = tl.split(tl.load(x + tl.arange(0, 2)))
    tl.store(out, a)
    tl.store(out + 1 + tl.arange(0, 2), tl.join(b, a * 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_split_and_join_of_scalars(dtype):
    x = torch.tensor([3, 5]).to(dtype)
    result = run_three_ways(scalars_of_a_tile, (1,), {"x": x, "out": torch.zeros(3, dtype=dtype)})["out"]
    assert result.tolist() == [3, 5, 6]
