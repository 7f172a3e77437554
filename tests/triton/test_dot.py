"""Matrix products: every operand type, odd sizes behind masks, batches, accumulators, microscaling formats."""

import pytest
import torch
import triton
import triton.language as tl

from tests.triton.harness import run, run_three_ways


@triton.jit
def matmul(
    a, b, c, m, n, k, stride_a, stride_b, stride_c,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr = None,
):  # fmt: skip
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    left, right = a + rm[:, None] * stride_a + rk[None, :], b + rk[:, None] * stride_b + rn[None, :]
    accumulator = tl.zeros((BM, BN), ACCUMULATOR)
    for start in range(0, k, BK):
        x = tl.load(left, mask=(rm[:, None] < m) & (rk[None, :] < k - start), other=0.0)
        y = tl.load(right, mask=(rk[:, None] < k - start) & (rn[None, :] < n), other=0.0)
        accumulator = tl.dot(x, y, accumulator, out_dtype=ACCUMULATOR, input_precision=PRECISION)
        left += BK
        right += BK * stride_b
    inside = (rm[:, None] < m) & (rn[None, :] < n)
    tl.store(c + rm[:, None] * stride_c + rn[None, :], accumulator.to(c.dtype.element_ty), mask=inside)


def operands(dtype, m, n, k):
    generator = torch.Generator().manual_seed(m * n + k)
    if dtype.is_floating_point:
        return [torch.randn(shape, generator=generator).to(dtype) for shape in ((m, k), (k, n))]
    return [torch.randint(-128, 128, shape, generator=generator).to(dtype) for shape in ((m, k), (k, n))]


@pytest.mark.parametrize("size", [(33, 17, 45), (64, 64, 64)], ids=str)
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int8,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float64,
    ],
    ids=str,
)
def test_matmul(dtype, size):
    m, n, k = size
    a, b = operands(dtype, m, n, k)
    accumulator, result_dtype = {
        torch.int8: (tl.int32, torch.int32),
        torch.float64: (tl.float64, torch.float64),
    }.get(dtype, (tl.float32, torch.float32))
    arguments = {
        "a": a, "b": b, "c": torch.zeros(m, n, dtype=result_dtype),
        "m": m, "n": n, "k": k, "stride_a": k, "stride_b": n, "stride_c": n,
    }  # fmt: skip
    constants = {"BM": 32, "BN": 32, "BK": 16, "ACCUMULATOR": accumulator}
    grid = triton.cdiv(m, 32), triton.cdiv(n, 32)
    if dtype is torch.float64 or m == 64:
        result = run(matmul, grid, arguments, **constants)["c"]
    else:
        result = run_three_ways(matmul, grid, arguments, adversaries=(), **constants)["c"]
    if dtype is torch.int8:
        assert torch.equal(result, (a.long() @ b.long()).int())
    else:
        tolerance = 1e-12 if dtype is torch.float64 else 1e-5
        exact = a.double() @ b.double()
        torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))


@pytest.mark.parametrize("precision", ["ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"])
def test_named_precisions_are_at_least_as_good(precision):
    a, b = operands(torch.float32, 32, 32, 32)
    arguments = {"a": a, "b": b, "c": torch.zeros(32, 32)}
    arguments |= dict.fromkeys(["m", "n", "k", "stride_a", "stride_b", "stride_c"], 32)
    constants = {"BM": 32, "BN": 32, "BK": 16, "ACCUMULATOR": tl.float32, "PRECISION": precision}
    result = run(matmul, (1, 1), arguments, **constants)["c"]
    torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


@triton.jit
def half_accumulator(a, b, c, N: tl.constexpr):
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    x, y = tl.load(a + i * N + j), tl.load(b + i * N + j)
    tl.store(c + i * N + j, tl.dot(x, y, tl.load(c + i * N + j), out_dtype=tl.float16))


def test_accumulator_of_another_type():
    a, b = operands(torch.float16, 32, 32, 32)
    c = torch.randn(32, 32).half()
    result = run_three_ways(half_accumulator, (1,), {"a": a, "b": b, "c": c}, N=32)["c"]
    torch.testing.assert_close(result.double(), c.double() + a.double() @ b.double(), rtol=2e-3, atol=2e-2)


@triton.jit
def batched(a, b, c, B: tl.constexpr, N: tl.constexpr):
    batch = tl.arange(0, B)[:, None, None] * N * N
    place = batch + tl.arange(0, N)[None, :, None] * N + tl.arange(0, N)[None, None, :]
    x, y = tl.load(a + place), tl.load(b + place)
    tl.store(c + place, tl.dot(x, tl.trans(y, (0, 2, 1))))


def test_batches_and_transposed_operands():
    a, b = (torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    result = run_three_ways(batched, (1,), {"a": a, "b": b, "c": torch.zeros(4, 16, 16)}, B=4, N=16)["c"]
    torch.testing.assert_close(result, a @ b.mT, rtol=1e-5, atol=1e-5)


FLOAT4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


@triton.jit
def scaled(
    a, scale_a, b, scale_b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    FORMAT_A: tl.constexpr, FORMAT_B: tl.constexpr, WITH_B: tl.constexpr,
):  # fmt: skip
    depth_a: tl.constexpr = K // 2 if FORMAT_A == "e2m1" else K
    depth_b: tl.constexpr = K // 2 if FORMAT_B == "e2m1" else K
    m, n = tl.arange(0, M), tl.arange(0, N)
    x = tl.load(a + m[:, None] * depth_a + tl.arange(0, depth_a)[None, :])
    y = tl.load(b + tl.arange(0, depth_b)[:, None] * N + n[None, :])
    groups = tl.arange(0, K // 32)[None, :]
    s = tl.load(scale_a + m[:, None] * (K // 32) + groups)
    if WITH_B:
        t = tl.load(scale_b + n[:, None] * (K // 32) + groups)
        result = tl.dot_scaled(x, s, FORMAT_A, y, t, FORMAT_B)
    else:
        result = tl.dot_scaled(x, s, FORMAT_A, y, None, FORMAT_B)
    tl.store(c + m[:, None] * N + n[None, :], result)


@pytest.mark.parametrize("with_b", [True, False])
@pytest.mark.parametrize("formats", [("e2m1", "e4m3"), ("e5m2", "e2m1"), ("bf16", "e2m1"), ("fp16", "e4m3")], ids=str)
def test_microscaling(formats, with_b):
    m, n, k = 32, 16, 64
    generator = torch.Generator().manual_seed(5)
    types = {
        "e4m3": torch.float8_e4m3fn,
        "e5m2": torch.float8_e5m2,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }

    def operand(format, rows, columns, axis):
        if format != "e2m1":
            tile = torch.randn(rows, columns, generator=generator).to(types[format])
            return tile, tile.double()
        codes = torch.randint(0, 16, (rows, columns), generator=generator, dtype=torch.uint8)
        exact = FLOAT4[(codes & 7).long()].double() * torch.where(codes > 7, -1.0, 1.0)
        even, odd = (codes[:, p::2] if axis == 1 else codes[p::2] for p in (0, 1))
        return even | (odd << 4), exact

    a, exact_a = operand(formats[0], m, k, 1)
    b, exact_b = operand(formats[1], k, n, 0)
    scale_a, scale_b = (torch.randint(120, 134, (r, k // 32), generator=generator, dtype=torch.uint8) for r in (m, n))
    arguments = {"a": a, "scale_a": scale_a, "b": b, "scale_b": scale_b, "c": torch.zeros(m, n)}
    constants = {"M": m, "N": n, "K": k, "FORMAT_A": formats[0], "FORMAT_B": formats[1], "WITH_B": with_b}
    result = run_three_ways(scaled, (1,), arguments, adversaries=(), **constants)["c"]

    def spread(scale):
        return torch.exp2(scale.double() - 127).repeat_interleave(32, 1)

    exact = (exact_a * spread(scale_a)) @ (exact_b * (spread(scale_b).T if with_b else 1.0))
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))
