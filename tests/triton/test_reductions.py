"""Reductions, scans, sorting, histograms: with any operation, several operands, and their tie rules."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.triton.harness import run, run_three_ways

ROWS, COLUMNS = 8, 32


def values(dtype, seed=0, shape=(ROWS, COLUMNS)):
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0 if not dtype.is_signed else -100, 100, shape, generator=generator).to(dtype)


@triton.jit
def reduce_all(x, out, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr, OPERATION: tl.constexpr):
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    value = tl.load(x + r * C + c)
    if OPERATION == "sum":
        result = tl.sum(value, AXIS)
    elif OPERATION == "max":
        result = tl.max(value, AXIS)
    elif OPERATION == "min":
        result = tl.min(value, AXIS)
    elif OPERATION == "xor":
        result = tl.xor_sum(value, AXIS)
    elif OPERATION == "argmax":
        result = tl.argmax(value, AXIS)
    else:
        result = tl.argmin(value, AXIS)
    tl.store(out + tl.arange(0, R if AXIS == 1 else C), result)


DTYPES = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation", ["sum", "max", "min"])
def test_reductions(operation, dtype, axis):
    x = values(dtype)
    wide = {torch.int8: torch.int32, torch.int16: torch.int32, torch.uint8: torch.int32}
    out_dtype = wide.get(dtype, dtype) if operation == "sum" else dtype
    out = torch.zeros(ROWS if axis == 1 else COLUMNS, dtype=out_dtype)
    result = run(reduce_all, (1,), {"x": x, "out": out}, R=ROWS, C=COLUMNS, AXIS=axis, OPERATION=operation)["out"]
    if operation == "sum":
        tolerance = {
            torch.float16: 3e-2,
            torch.bfloat16: 2e-1,
            torch.float32: 1e-5,
            torch.float64: 1e-13,
        }.get(dtype, 0)
        exact = x.double().sum(axis) if dtype.is_floating_point else x.long().sum(axis)
        torch.testing.assert_close(result.to(exact.dtype), exact, rtol=tolerance, atol=tolerance)
    else:
        assert torch.equal(result, x.amax(axis) if operation == "max" else x.amin(axis))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("operation", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.float16], ids=str)
def test_ties_go_to_the_first(dtype, operation, axis):
    x = values(torch.int32, 4).remainder(3).to(dtype)
    out = torch.zeros(ROWS if axis == 1 else COLUMNS, dtype=torch.int32)
    constants = {"R": ROWS, "C": COLUMNS, "AXIS": axis, "OPERATION": operation}
    result = run_three_ways(reduce_all, (1,), {"x": x, "out": out}, **constants)["out"]
    numpy = x.float().numpy()
    assert np.array_equal(result.numpy(), numpy.argmax(axis) if operation == "argmax" else numpy.argmin(axis))


def test_xor_sum():
    x = values(torch.int32, 5)
    out = torch.zeros(ROWS, dtype=torch.int32)
    result = run_three_ways(reduce_all, (1,), {"x": x, "out": out}, R=ROWS, C=COLUMNS, AXIS=1, OPERATION="xor")["out"]
    assert np.array_equal(result.numpy(), np.bitwise_xor.reduce(x.numpy(), 1))


@triton.jit
def longest(a, b):
    return tl.where(tl.abs(a) >= tl.abs(b), a, b)


@triton.jit
def welford(mean_a, m2_a, weight_a, mean_b, m2_b, weight_b):
    delta = mean_b - mean_a
    weight = weight_a + weight_b
    share = tl.where(weight == 0.0, 0.0, weight_b / weight)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * weight_a * share, weight


@triton.jit
def custom_reductions(x, out, R: tl.constexpr, C: tl.constexpr):
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    value = tl.load(x + r * C + c)
    rows = tl.arange(0, R)
    tl.store(out + rows, tl.reduce(value, 1, longest))
    mean, m2, weight = tl.reduce((value, tl.zeros_like(value), tl.full((R, C), 1.0, tl.float32)), 1, welford)
    tl.store(out + R + rows, mean)
    tl.store(out + 2 * R + rows, m2 / weight)
    best, place = tl.max(value, 1, return_indices=True)
    tl.store(out + 3 * R + rows, best + place)
    tl.store(out + 4 * R, tl.sum(value))
    tl.store(out + 4 * R + 1, tl.max(tl.sum(value, 1, keep_dims=True)))


def test_any_combine_function():
    x = values(torch.float32, 6)
    out = torch.zeros(4 * ROWS + 2)
    result = run_three_ways(custom_reductions, (1,), {"x": x, "out": out}, R=ROWS, C=COLUMNS)["out"]
    rows = result[: 4 * ROWS].view(4, ROWS)
    torch.testing.assert_close(rows[0], x.gather(1, x.abs().argmax(1, keepdim=True))[:, 0])
    torch.testing.assert_close(rows[1], x.mean(1))
    torch.testing.assert_close(rows[2], x.var(1, correction=0))
    torch.testing.assert_close(rows[3], x.amax(1) + x.argmax(1))
    torch.testing.assert_close(result[-2:], torch.stack([x.sum(), x.sum(1).max()]), rtol=1e-5, atol=1e-5)


@triton.jit
def affine(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def running_max(a, b):
    return tl.maximum(a, b)


@triton.jit
def scans(x, y, out, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr, REVERSE: tl.constexpr):
    place = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    a, b = tl.load(x + place), tl.load(y + place)
    size: tl.constexpr = R * C
    tl.store(out + place, tl.cumsum(a, AXIS, REVERSE))
    tl.store(out + size + place, tl.cumprod(b, AXIS, REVERSE))
    tl.store(out + 2 * size + place, tl.associative_scan(a, AXIS, running_max, REVERSE))
    _, state = tl.associative_scan((b, a), AXIS, affine, REVERSE)
    tl.store(out + 3 * size + place, state)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_scans(axis, reverse):
    x, y = values(torch.float32, 7), values(torch.float32, 8).sigmoid()
    out = torch.zeros(4, ROWS, COLUMNS)
    constants = {"R": ROWS, "C": COLUMNS, "AXIS": axis, "REVERSE": reverse}
    result = run_three_ways(scans, (1,), {"x": x, "y": y, "out": out}, **constants)["out"]
    a, b = (t.double().flip(axis) if reverse else t.double() for t in (x, y))
    state, states = torch.zeros_like(a.select(axis, 0)), []
    for k in range(a.shape[axis]):
        state = state * b.select(axis, k) + a.select(axis, k)
        states.append(state)
    expected = torch.stack([a.cumsum(axis), b.cumprod(axis), a.cummax(axis).values, torch.stack(states, axis)])
    expected = expected.flip(axis + 1) if reverse else expected
    torch.testing.assert_close(result.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8], ids=str)
def test_integer_cumsum_wraps(dtype):
    @triton.jit
    def kernel(x, out, N: tl.constexpr):
        i = tl.arange(0, N)
        tl.store(out + i, tl.cumsum(tl.load(x + i), 0, dtype=x.dtype.element_ty))

    x = values(dtype, 9, (128,))
    result = run(kernel, (1,), {"x": x, "out": torch.zeros_like(x)}, N=128)["out"]
    assert torch.equal(result, x.cumsum(0).to(dtype))


@triton.jit
def ordering(x, out, top, N: tl.constexpr, K: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, N)
    value = tl.load(x + row * N + i)[None, :]
    tl.store(out + row * N + i[None, :], tl.sort(value, descending=False))
    tl.store(top + row * K + tl.arange(0, K)[None, :], tl.topk(value, K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.float16], ids=str)
def test_sort_and_topk(dtype):
    x = values(dtype, 10, (2, 64))
    arguments = {"x": x, "out": torch.zeros_like(x), "top": torch.zeros(2, 8, dtype=dtype)}
    if dtype is torch.float32:
        result = run_three_ways(ordering, (2,), arguments, adversaries=(), N=64, K=8)
    else:
        result = run(ordering, (2,), arguments, N=64, K=8)
    assert torch.equal(result["out"], x.sort(1).values)
    assert torch.equal(result["top"], x.sort(1, descending=True).values[:, :8])


@triton.jit
def count(x, out, n, N: tl.constexpr, BINS: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + tl.arange(0, BINS), tl.histogram(tl.load(x + i), BINS, mask=i < n))


@pytest.mark.parametrize("bins", [1, 16, 256])
def test_histogram(bins):
    x = torch.randint(0, bins + 2, (512,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    arguments = {"x": x, "out": torch.zeros(bins, dtype=torch.int32), "n": 400}
    result = run_three_ways(count, (1,), arguments, adversaries=(), N=512, BINS=bins)["out"]
    assert torch.equal(result, torch.bincount(x[:400], minlength=bins)[:bins].int())
