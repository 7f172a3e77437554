"""Loops, branches, early returns, calls, assertions, and the front end's decorators."""

import pytest
import torch
import triton
import triton.language as tl

from tapeout.errors import LaunchError
from tests.triton.harness import run, run_three_ways


@triton.jit
def nested_loops(x, out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for a in range(n):
        inner = tl.zeros((N,), tl.float32)
        for b in range(a, n):
            inner += tl.load(x + b * N + i)
        total = total * 0.5 + inner
    tl.store(out + i, total)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_nested_loops(n):
    x = torch.randn(4, 16)
    result = run_three_ways(nested_loops, (1,), {"x": x, "out": torch.ones(16), "n": n}, N=16)["out"]
    expected = torch.zeros(16)
    for a in range(n):
        inner = torch.zeros(16)
        for b in range(a, n):
            inner += x[b]
        expected = expected * 0.5 + inner
    assert torch.equal(result, expected)


@triton.jit
def backward_loops(out, low, high, STEP: tl.constexpr):
    k = 0
    for i in range(high, low, -STEP):
        tl.store(out + k, i)
        k += 1
    for i in tl.range(low, high, STEP, num_stages=3):
        tl.store(out + k, i)
        k += 1
    tl.store(out + k, k)


def test_loop_bounds():
    arguments = {"out": torch.zeros(20, dtype=torch.int32), "low": -3, "high": 11}
    result = run_three_ways(backward_loops, (1,), arguments, STEP=4)["out"].tolist()
    expected = [*range(11, -3, -4), *range(-3, 11, 4)]
    assert result[: len(expected) + 1] == [*expected, len(expected)]


@triton.jit
def while_loop(x, out, limit, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    steps = 0
    while tl.max(value) < limit:
        value = value * 2
        steps += 1
        if steps > 20:
            value = tl.zeros_like(value) + limit
    tl.store(out + i, value)
    tl.store(out + N, steps)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_while(limit):
    x = torch.linspace(0.1, 1.0, 16)
    result = run_three_ways(while_loop, (1,), {"x": x, "out": torch.zeros(17), "limit": limit}, N=16)["out"]
    steps = 0
    while x.max() < limit:
        x, steps = x * 2, steps + 1
    assert result.tolist() == [*x.tolist(), steps]


@triton.jit
def branches_with_tiles(x, out, n, N: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, N)
    value = tl.load(x + i)
    count = 0
    if pid % 2 == 0:
        value = value + pid
        count = 10
    elif pid == 3:
        value = value * 3
    else:
        count = 1
        if n > 5:
            value = -value
    scalar = tl.load(x) if pid > 1 else tl.load(x + 1) * 2
    tl.store(out + pid * N + i, value + count + scalar)


@pytest.mark.parametrize("n", [3, 9])
def test_branches_that_carry_tiles(n):
    x = torch.randn(16)
    result = run_three_ways(branches_with_tiles, (5,), {"x": x, "out": torch.zeros(5, 16), "n": n}, N=16)["out"]
    for pid in range(5):
        if pid % 2 == 0:
            value = x + pid + 10
        elif pid == 3:
            value = x * 3
        else:
            value = (-x if n > 5 else x) + 1
        torch.testing.assert_close(result[pid], value + (x[0] if pid > 1 else x[1] * 2))


@triton.jit
def early_returns(x, out, N: tl.constexpr):
    pid = tl.program_id(0)
    if pid == 1:
        return
    value = tl.load(x + pid)
    if value > 0:
        if pid > 3:
            tl.store(out + pid, 7.0)
            return
        value = value + 1
    else:
        if pid == 2:
            return
    tl.store(out + pid, value)


def test_early_returns():
    x = torch.tensor([1.0, 2.0, -3.0, -4.0, 5.0, -6.0, 7.0, 8.0])
    result = run_three_ways(early_returns, (8,), {"x": x, "out": torch.zeros(8)}, N=8)["out"]
    assert result.tolist() == [2.0, 0.0, 0.0, -4.0, 7.0, -6.0, 7.0, 7.0]


@triton.jit
def half_returns(x, out, N: tl.constexpr):
    pid = tl.program_id(0)
    value = tl.load(x + pid)
    if pid & 1:
        value += 1
        if value > 5:
            return
    if pid & 2:
        value += 10
        if value > 25:
            return
    else:
        value += tl.load(x)
    if pid & 4:
        value += 100
        if value > 115:
            tl.store(out + pid, -1.0)
            return
    tl.store(out + pid, value)


def half_returns_of(x: list[float], pid: int) -> float:
    value = x[pid]
    if pid & 1:
        value += 1
        if value > 5:
            return 0.0
    if pid & 2:
        value += 10
        if value > 25:
            return 0.0
    else:
        value += x[0]
    if pid & 4:
        value += 100
        if value > 115:
            return -1.0
    return value


def test_branches_of_which_one_way_returns():
    x = [3.0, 7.0, 16.0, 4.0, 2.0, 1.0, 6.0, 5.0]
    result = run_three_ways(half_returns, (8,), {"x": torch.tensor(x), "out": torch.zeros(8)}, N=8)["out"]
    assert result.tolist() == [half_returns_of(x, pid) for pid in range(8)]


@triton.jit
def sum_until(x, limit, DEPTH: tl.constexpr):
    total = 0.0
    for i in tl.static_range(DEPTH):
        if i < limit:
            value = tl.load(x + i)
            total += value
            if value < 0:
                return total, i
    return total, DEPTH


@triton.jit
def many_half_returns(x, out, limit, DEPTH: tl.constexpr):
    total, place = sum_until(x, limit, DEPTH)
    tl.store(out, total)
    tl.store(out + 1, place)


@pytest.mark.parametrize(("limit", "negative"), [(40, 37), (40, None), (3, 5)])
def test_many_returns_do_not_repeat_code(limit, negative):
    x = torch.arange(1.0, 41.0)
    if negative is not None:
        x[negative] = -1000.0
    result = run(many_half_returns, (1,), {"x": x, "out": torch.zeros(2), "limit": limit}, DEPTH=40)["out"]
    end = limit if negative is None or negative >= limit else negative + 1
    assert result.tolist() == [x[:end].sum().item(), 40 if end == limit else end - 1]


@triton.jit(noinline=True)
def not_inlined(value, place, limit):
    if limit > 3:
        return value * 2, place + 1
    return value, place


@triton.jit
def with_constant(value, FACTOR: tl.constexpr, SHIFT: tl.constexpr = 1):
    return value * FACTOR + SHIFT


@triton.jit
def calls(x, out, limit, N: tl.constexpr):
    i = tl.arange(0, N)
    factor, place = not_inlined(1.5, 0, limit)
    factor, place = not_inlined(factor, place, 5)
    tl.store(out + i, with_constant(tl.load(x + i) * factor, 3))
    tl.store(out + N, place)


@pytest.mark.parametrize("limit", [1, 4])
def test_functions_that_are_not_inlined(limit):
    x = torch.randn(16)
    result = run_three_ways(calls, (1,), {"x": x, "out": torch.zeros(17), "limit": limit}, N=16)["out"]
    times = 2 if limit > 3 else 1
    assert torch.equal(result[:16], x * (1.5 * 2**times) * 3 + 1)
    assert result[16] == times


@triton.jit
def unrolled(x, out, N: tl.constexpr, STEPS: tl.constexpr):
    tl.static_assert(STEPS < 10, "too many steps")
    i = tl.arange(0, N)
    value = tl.load(x + i)
    for k in tl.static_range(STEPS):
        if k % 2 == 0:
            value += k
        else:
            value *= 2
    tl.store(out + i, value)


def test_static_range():
    x = torch.randn(16)
    assert torch.equal(run(unrolled, (1,), {"x": x, "out": torch.zeros(16)}, N=16, STEPS=4)["out"], (x * 2 + 2) * 2)
    with pytest.raises(triton.CompilationError, match="too many steps"):
        run(unrolled, (1,), {"x": x, "out": torch.zeros(16)}, N=16, STEPS=12)


@triton.jit
def asserting(x, N: tl.constexpr):
    tl.device_assert(tl.load(x + tl.arange(0, N)) > 0, "elements must be positive")


def test_device_assert():
    x = torch.ones(16, device="chip")
    asserting[(2,)](x, N=16, debug=True)
    x[5] = -1
    with pytest.raises(LaunchError, match=r"test_control_flow\.py:\d+: elements must be positive"):
        asserting[(2,)](x, N=16, debug=True)
    asserting[(2,)](x, N=16)


@triton.jit
def large_grid(out, n):
    place = tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))
    if place < n:
        tl.store(out + place, place)


def test_grids_of_any_shape():
    out = torch.zeros(70 * 9 * 5, dtype=torch.int32)
    result = run(large_grid, (70, 9, 5), {"out": out, "n": out.numel()})["out"]
    assert torch.equal(result, torch.arange(out.numel(), dtype=torch.int32))
    run(large_grid, (0,), {"out": out, "n": 5})


@triton.jit
def maybe_none(x, bias, out, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    if bias is not None:
        value += tl.load(bias + i)
    tl.store(out + i, value)


def test_arguments_that_are_none_or_special_numbers():
    x = torch.randn(16)
    assert torch.equal(run(maybe_none, (1,), {"x": x, "bias": None, "out": torch.zeros(16)}, N=16)["out"], x)
    assert torch.equal(run(maybe_none, (1,), {"x": x, "bias": x, "out": torch.zeros(16)}, N=16)["out"], x + x)


@triton.jit
def typed_arguments(out, a, b, c, d):
    tl.store(out, a)
    tl.store(out + 1, b)
    tl.store(out + 2, c)
    tl.store(out + 3, d)


@pytest.mark.parametrize("values", [(1, 2**40, -5, True), (16, -(2**62), 2**31, False), (0.5, 1e-3, -2.0, 3)], ids=str)
def test_argument_types(values):
    out = torch.zeros(4, dtype=torch.float64)
    result = run(typed_arguments, (1,), dict(zip(["out", "a", "b", "c", "d"], [out, *values], strict=True)))["out"]
    torch.testing.assert_close(result, torch.tensor(values, dtype=torch.float64), rtol=1e-7, atol=0)
