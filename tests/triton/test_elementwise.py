"""Arithmetic, comparisons and casts of tiles: exact where integers, correctly rounded where floats."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.triton.harness import run, run_three_ways

N = 128
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def values(dtype, seed=0, size=N):
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return (torch.randn(size, generator=generator) * 8).to(dtype)
    if dtype is torch.bool:
        return torch.randint(0, 2, (size,), generator=generator).bool()
    bits = torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator)
    return bits.view(dtype)[:size].clone() if dtype.itemsize == 8 else bits.view(torch.uint8).view(dtype)[:size].clone()


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, tl.load(x + i, mask=inside) + tl.load(y + i, mask=inside), mask=inside)


@pytest.mark.parametrize("size", [1, 127, 128, 1000])
def test_vector_add(size):
    x, y = values(torch.float32, 1, size), values(torch.float32, 2, size)
    arguments = {"x": x, "y": y, "out": torch.zeros(size), "n": size}
    result = run_three_ways(vector_add, (triton.cdiv(size, 128),), arguments, BLOCK=128)
    assert torch.equal(result["out"], x + y)


@triton.jit
def integer_arithmetic(x, y, add, sub, mul, quotient, rest, low, both, either, differing, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(add + i, a + b)
    tl.store(sub + i, a - b)
    tl.store(mul + i, a * b)
    tl.store(quotient + i, a // b)
    tl.store(rest + i, a % b)
    tl.store(low + i, tl.minimum(a, b))
    tl.store(both + i, a & b)
    tl.store(either + i, a | b)
    tl.store(differing + i, a ^ b)


@pytest.mark.parametrize("dtype", INTEGERS + UNSIGNED, ids=str)
def test_integers_wrap_and_divide_toward_zero(dtype):
    x, y = values(dtype, 1), values(dtype, 2)
    y.numpy()[y.numpy() == 0] = 3
    if dtype.is_signed:
        x[0], y[0] = torch.iinfo(dtype).min, -1
    names = ["add", "sub", "mul", "quotient", "rest", "low", "both", "either", "differing"]
    outs = {name: torch.zeros_like(x) for name in names}
    result = run_three_ways(integer_arithmetic, (1,), {"x": x, "y": y, **outs}, N=N)
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    expected = {
        "add": [a + b for a, b in pairs],
        "sub": [a - b for a, b in pairs],
        "mul": [a * b for a, b in pairs],
        "quotient": [_toward_zero(a, b) for a, b in pairs],
        "rest": [a - b * _toward_zero(a, b) for a, b in pairs],
        "low": [min(a, b) for a, b in pairs],
        "both": [a & b for a, b in pairs],
        "either": [a | b for a, b in pairs],
        "differing": [a ^ b for a, b in pairs],
    }
    modulus = 2 ** (8 * dtype.itemsize)
    for name, want in expected.items():
        assert [v % modulus for v in result[name].tolist()] == [v % modulus for v in want], name


def _toward_zero(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@triton.jit
def shifts(x, amount, left, right, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(amount + i)
    tl.store(left + i, a << b)
    tl.store(right + i, a >> b)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.uint32], ids=str)
def test_shifts(dtype):
    x = values(dtype, 3)
    amount = torch.arange(N).remainder(8 * dtype.itemsize).to(dtype)
    result = run(
        shifts,
        (1,),
        {"x": x, "amount": amount, "left": torch.zeros_like(x), "right": torch.zeros_like(x)},
        N=N,
    )
    assert np.array_equal(result["left"].numpy(), x.numpy() << amount.numpy())
    assert np.array_equal(result["right"].numpy(), x.numpy() >> amount.numpy())


@triton.jit
def float_arithmetic(x, y, add, mul, div, fused, largest, chosen, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(add + i, a + b)
    tl.store(mul + i, a * b)
    tl.store(div + i, a / b)
    tl.store(fused + i, tl.fma(a, b, a))
    tl.store(largest + i, tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL))
    tl.store(chosen + i, tl.where(a < b, a, -b))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_round_once(dtype):
    x, y = values(dtype, 1), values(dtype, 2)
    x[3], y[4], x[5], y[5], y[6] = float("nan"), float("inf"), 0.0, 0.0, 0.0
    names = ["add", "mul", "div", "fused", "largest", "chosen"]
    outs = {name: torch.zeros_like(x) for name in names}
    outs["div"] = (x[:1] / y[:1]).repeat(N)
    result = run_three_ways(float_arithmetic, (1,), {"x": x, "y": y, **outs}, N=N)
    expected = {
        "add": x + y,
        "mul": x * y,
        "largest": torch.maximum(x, y),
        "chosen": torch.where(x < y, x, -y),
    }
    if dtype in (torch.float32, torch.float64):
        expected["div"] = x / y
    for name, want in expected.items():
        torch.testing.assert_close(result[name], want, rtol=0, atol=0, equal_nan=True, msg=name)
    exact = x.double() * y.double() + x.double()
    torch.testing.assert_close(
        result["fused"].double(), exact.to(dtype).double(), rtol=2e-7, atol=1e-30, equal_nan=True
    )


@triton.jit
def compare(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a < b)
    tl.store(out + N + i, a <= b)
    tl.store(out + 2 * N + i, a > b)
    tl.store(out + 3 * N + i, a >= b)
    tl.store(out + 4 * N + i, a == b)
    tl.store(out + 5 * N + i, a != b)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int32, torch.uint8, torch.uint64, torch.bool], ids=str
)
def test_comparisons(dtype):
    x, y = values(dtype, 1), values(dtype, 2)
    y[::3] = x[::3]
    if dtype.is_floating_point:
        x[1], y[2], x[4], y[4] = float("nan"), float("nan"), 0.0, -0.0
    result = run(compare, (1,), {"x": x, "y": y, "out": torch.zeros(6 * N, dtype=torch.bool)}, N=N)["out"].view(6, N)
    a, b = (x.float().numpy(), y.float().numpy()) if dtype is torch.bfloat16 else (x.numpy(), y.numpy())
    for row, want in zip(result.numpy(), [a < b, a <= b, a > b, a >= b, a == b, a != b], strict=True):
        assert np.array_equal(row, want)


@triton.jit
def cast(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


CAST_TYPES = [
    torch.bool,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


@pytest.mark.parametrize("target", CAST_TYPES, ids=str)
@pytest.mark.parametrize("source", CAST_TYPES, ids=str)
def test_casts(source, target):
    x = values(source, 5)
    if source.is_floating_point:
        x = x.clamp(0 if target is torch.uint8 else -100, 100)
        if target.is_floating_point:
            x[0], x[1] = float("nan"), float("-inf")
    result = run(cast, (1,), {"x": x, "out": torch.zeros(N, dtype=target)}, N=N)["out"]
    torch.testing.assert_close(result, x.to(target), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("narrow", FLOAT8, ids=str)
@pytest.mark.parametrize("wide", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_float8_widens_exactly_and_narrows_back(narrow, wide):
    codes = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(narrow)
    widened = run(cast, (1,), {"x": codes, "out": torch.zeros(256, dtype=wide)}, N=256)["out"]
    torch.testing.assert_close(widened, codes.to(wide), rtol=0, atol=0, equal_nan=True)
    back = run(cast, (1,), {"x": widened, "out": codes.clone()}, N=256)["out"]
    finite = codes.float().isfinite()
    assert torch.equal(back.view(torch.uint8)[finite], codes.view(torch.uint8)[finite])


@triton.jit
def round_toward_zero(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty, fp_downcast_rounding="rtz"))


@pytest.mark.parametrize("target", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_toward_zero(target):
    x = values(torch.float32, 7)
    result = run(round_toward_zero, (1,), {"x": x, "out": torch.zeros(N, dtype=target)}, N=N)["out"].float()
    assert (result.abs() <= x.abs()).all()
    nearest = x.to(target).float()
    step = (result - nearest).abs() / nearest.abs()
    assert (step < 2.0 ** (-7 if target is torch.bfloat16 else -10)).all()


@triton.jit
def reinterpret(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty, bitcast=True))


@pytest.mark.parametrize(
    "pair",
    [(torch.float32, torch.int32), (torch.int16, torch.bfloat16), (torch.float8_e5m2, torch.uint8)],
    ids=str,
)
def test_bitcasts(pair):
    source, target = pair
    x = values(source, 9)
    result = run(reinterpret, (1,), {"x": x, "out": torch.zeros(N, dtype=target)}, N=N)["out"]
    assert torch.equal(result.view(torch.uint8), x.view(torch.uint8))


@triton.jit
def logic(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i) > 0, tl.load(y + i) > 0
    tl.store(out + i, (a & b) | ~(a | b))
    tl.store(out + N + i, a * b)
    tl.store(out + 2 * N + i, a + b)
    tl.store(out + 3 * N + i, tl.where(a, 1, -1) > 0)


def test_logic():
    x, y = values(torch.float32, 1), values(torch.float32, 2)
    result = run_three_ways(logic, (1,), {"x": x, "y": y, "out": torch.zeros(4 * N, dtype=torch.bool)}, N=N)[
        "out"
    ].view(4, N)
    a, b = x > 0, y > 0
    assert torch.equal(result[0], a == b)
    assert torch.equal(result[1], a & b)
    assert torch.equal(result[2], a ^ b)
    assert torch.equal(result[3], a)


@triton.jit
def high_product(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.umulhi(tl.load(x + i), tl.load(y + i)))


@pytest.mark.parametrize("dtype", [torch.uint32, torch.uint64], ids=str)
def test_umulhi(dtype):
    x, y = values(dtype, 1), values(dtype, 2)
    result = run(high_product, (1,), {"x": x, "y": y, "out": torch.zeros_like(x)}, N=N)["out"]
    bits = 8 * dtype.itemsize
    assert result.tolist() == [(int(a) * int(b)) >> bits for a, b in zip(x.tolist(), y.tolist(), strict=True)]


@triton.jit
def scalars(x, out, count, factor):
    total = 0.0
    step = count * 3 - 1
    for k in range(count):
        total += tl.load(x + k) * factor
    tl.store(out, total)
    tl.store(out + 1, step // 4 + (step % 4) * 10)
    tl.store(out + 2, tl.where(step > 5, 1, 0))
    tl.store(out + 3, tl.program_id(0) + tl.num_programs(0) * 100)


def test_scalars():
    x = torch.arange(1, 9).float()
    result = run_three_ways(scalars, (1,), {"x": x, "out": torch.zeros(4), "count": 7, "factor": 0.5})["out"]
    assert result.tolist() == [14.0, 5.0, 1.0, 100.0]


@triton.jit
def three_way(a, b):
    if a < b:
        return -1
    elif a == b:
        return 0
    return 1


@triton.jit
def powers(a, b):
    total = a
    for k in range(3):
        total = total * a + (b if a > 0 else k)
    return total, total - b


@triton.jit
def swap_neighbours(a0, a1):
    return a1, a0


@triton.jit
def mapped(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, tl.map_elementwise(three_way, a, b))
    c, d = tl.map_elementwise(powers, a, b)
    tl.store(out + N + i, c)
    tl.store(out + 2 * N + i, d)
    (e,) = tl.map_elementwise(swap_neighbours, a, pack=2)
    tl.store(out + 3 * N + i, e)


def test_functions_mapped_over_elements():
    x, y = (torch.randint(-5, 6, (N,), generator=torch.Generator().manual_seed(s), dtype=torch.int32) for s in (1, 2))
    out = torch.zeros(4, N, dtype=torch.int32)
    result = run_three_ways(mapped, (1,), {"x": x, "y": y, "out": out}, N=N)["out"]
    assert torch.equal(result[0], torch.sign(x - y))
    total = x
    for k in range(3):
        total = total * x + torch.where(x > 0, y, k)
    assert torch.equal(result[1], total)
    assert torch.equal(result[2], total - y)
    assert torch.equal(result[3], x.view(-1, 2).flip(1).flatten())


@triton.jit
def clamped(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(out + i, tl.clamp(value, -1.0, 2.0))
    tl.store(out + N + i, tl.clamp(value, -1.0, 2.0, propagate_nan=tl.PropagateNan.ALL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_clamp_and_nan(dtype):
    x = values(dtype, 11)
    x[3] = float("nan")
    result = run_three_ways(clamped, (1,), {"x": x, "out": torch.zeros(2, N, dtype=dtype)}, N=N)["out"]
    numbers = ~x.isnan()
    assert torch.equal(result[:, numbers], x.clamp(-1, 2)[numbers].expand(2, -1))
    assert result[0, 3].isfinite() and result[1, 3].isnan()
