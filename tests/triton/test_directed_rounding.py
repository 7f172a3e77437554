"""Results rounded down, up and toward zero, against exact rational arithmetic."""

import math
import operator
from fractions import Fraction

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

from tapeout.errors import UnsupportedError
from tests.triton.harness import run

COUNT = 512
DIRECTIONS = ("rd", "ru", "rz")
ROUNDINGS = {"rd": math.floor, "ru": math.ceil, "rz": math.trunc}


@triton.jit
def three_directions(x, y, z, out, DOWN: tl.constexpr, UP: tl.constexpr, ZERO: tl.constexpr, ARITY: tl.constexpr):
    i = tl.arange(0, 512)
    a, b, c = tl.load(x + i), tl.load(y + i), tl.load(z + i)
    if ARITY == 1:
        down, up, zero = DOWN(a), UP(a), ZERO(a)
    elif ARITY == 2:
        down, up, zero = DOWN(a, b), UP(a, b), ZERO(a, b)
    else:
        down, up, zero = DOWN(a, b, c), UP(a, b, c), ZERO(a, b, c)
    tl.store(out + i, down)
    tl.store(out + 512 + i, up)
    tl.store(out + 1024 + i, zero)


def numbers(dtype, seed):
    """Of all sizes down to subnormal ones and near the largest; some simple, zeros and infinities among them."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    exponents = rng.choice([0.0, 3.0, info.minexp / 2, info.minexp, info.minexp - info.nmant, info.maxexp - 1], COUNT)
    with np.errstate(over="ignore"):
        values = np.ldexp(rng.uniform(1, 2, COUNT), (exponents + rng.integers(-4, 2, COUNT)).astype(int)).astype(dtype)
    values *= rng.choice([-1, 1], COUNT).astype(dtype)
    simple = np.array([0.0, -0.0, 1.0, -1.0, 3.0, 0.5, np.inf, -np.inf], dtype)
    values[:128] = rng.choice(simple, 128)
    return values


def rounded(exact, direction, dtype):
    """An exact number that is not 0, in the type."""
    info = np.finfo(dtype)
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    if abs(exact) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, info.minexp) - info.nmant)
    whole = ROUNDINGS[direction](exact / unit) * unit
    if abs(whole) <= Fraction(float(info.max)):
        return float(whole) if whole else math.copysign(0.0, exact)
    outward = {"rd": exact < 0, "ru": exact > 0, "rz": False}[direction]
    return (1 if exact > 0 else -1) * (math.inf if outward else float(info.max))


def root_rounded(value, direction, dtype):
    """Of a number above 0: the neighbour of its nearest root whose square says it is the right one."""
    nearest = dtype(np.sqrt(dtype(value)))
    for candidate in (np.nextafter(nearest, dtype(np.inf)), nearest, np.nextafter(nearest, dtype(0))):
        square = Fraction(float(candidate)) ** 2
        if direction == "ru" and square < Fraction(value):
            break
        last = candidate
        if direction != "ru" and square <= Fraction(value):
            return float(candidate)
    return float(last)


EXACT = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}


def expected(name, operands, direction, dtype):
    if name == "sqrt":
        return root_rounded(operands[0], direction, dtype)
    parts = [Fraction(v) for v in operands]
    if name == "rcp":
        exact = 1 / parts[0]
    elif name == "fma":
        exact = parts[0] * parts[1] + parts[2]
    else:
        exact = EXACT[name](*parts)
    if exact:
        return rounded(exact, direction, dtype)
    return None


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "rcp", "sqrt", "fma"])
def test_arithmetic(name, dtype):
    arity = {"rcp": 1, "sqrt": 1, "fma": 3}.get(name, 2)
    points = [numbers(dtype, seed) for seed in (1, 2, 3)]
    if name in ("add", "sub", "fma"):  # differences that cancel
        points[1][300:400] = -points[0][300:400] * dtype(1 + np.finfo(dtype).eps)
        with np.errstate(over="ignore"):
            points[2][400:] = -(points[0][400:] * points[1][400:])
    tensors = dict(zip("xyz", map(torch.from_numpy, points), strict=True))
    functions = dict(zip(("DOWN", "UP", "ZERO"), (getattr(libdevice, f"{name}_{d}") for d in DIRECTIONS), strict=True))
    arguments = {**tensors, "out": torch.zeros(3 * COUNT, dtype=tensors["x"].dtype)}
    if name == "fma" and dtype is np.float64:
        with pytest.raises(UnsupportedError, match="function __nv_fma_rd of f64 elements"):
            run(three_directions, (1,), arguments, ARITY=arity, **functions)
        return
    result = run(three_directions, (1,), arguments, ARITY=arity, **functions)["out"].view(3, COUNT)
    plain = {"rcp": lambda a: 1 / a, "sqrt": np.sqrt, "fma": lambda a, b, c: a * b + c}.get(name) or EXACT[name]
    with np.errstate(all="ignore"):
        nearest = plain(*(p.astype(np.float64) for p in points[:arity]))
    compared = 0
    for position in range(COUNT):
        operands = [float(p[position]) for p in points[:arity]]
        is_ordinary = all(map(math.isfinite, operands)) and not (name in ("div", "rcp") and operands[-1] == 0)
        for row, direction in enumerate(DIRECTIONS):
            got = float(result[row, position])
            want = None
            if is_ordinary and not (name == "sqrt" and operands[0] <= 0):
                want = expected(name, operands, direction, dtype)
            if want is None:  # zeros, infinities and NaNs are what they are, but a - a is -0 rounded down
                want = float(nearest[position])
                if want == 0 and direction == "rd" and name in ("add", "sub"):
                    signs = math.copysign(1, operands[0]), math.copysign(1, operands[1]) * (-1 if name == "sub" else 1)
                    want = -0.0 if min(signs) < 0 else 0.0
                elif want == 0 and name == "fma":
                    want = abs(want)
                    got = abs(got)
            else:
                compared += 1
            same = got == want and math.copysign(1, got) == math.copysign(1, want)
            assert same or (math.isnan(got) and math.isnan(want)), f"{name}_{direction}{operands}: {got}, not {want}"
    assert compared > COUNT // 2


@triton.jit
def conversions(x, out, DOWN: tl.constexpr, UP: tl.constexpr, ZERO: tl.constexpr):
    i = tl.arange(0, 64)
    a = tl.load(x + i)
    tl.store(out + i, DOWN(a))
    tl.store(out + 64 + i, UP(a))
    tl.store(out + 128 + i, ZERO(a))


INTEGERS = {"int": torch.int32, "uint": torch.uint32, "ll": torch.int64, "ull": torch.uint64}
CONVERSIONS = [(source, "float") for source in INTEGERS] + [("ll", "double"), ("ull", "double"), ("double", "float")]


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions(source, target):
    rng = np.random.default_rng(5)
    dtype = np.float32 if target == "float" else np.float64
    if source == "double":
        values = numbers(np.float64, 6)[:64]
        values[:32] = rng.uniform(-2, 2, 32) * 2.0 ** rng.integers(-150, 128, 32)
        x = torch.from_numpy(values)
    else:
        info = torch.iinfo(INTEGERS[source])
        sizes = [int(rng.integers(0, 1 << 62)) >> int(rng.integers(0, 62)) for _ in range(56)]
        values = [v % (info.max + 1) * (-1 if info.min and k % 2 else 1) for k, v in enumerate(sizes)]
        values += [0, 1, info.max, info.max - 1, info.min, info.min + 1, info.max - 127, info.max // 3]
        x = torch.tensor(values, dtype=INTEGERS[source])
    functions = {
        direction: getattr(libdevice, f"{source}2{target}_{suffix}")
        for direction, suffix in zip(("DOWN", "UP", "ZERO"), DIRECTIONS, strict=True)
    }
    out = torch.zeros(192, dtype=torch.float32 if target == "float" else torch.float64)
    result = run(conversions, (1,), {"x": x, "out": out}, **functions)["out"].view(3, 64)
    for position, value in enumerate(x.tolist()):
        for row, direction in enumerate(DIRECTIONS):
            exact = math.isfinite(value) and value
            want = rounded(Fraction(value), direction, dtype) if exact else float(value)
            assert float(result[row, position]) == want, f"{value} {direction}"


@triton.jit
def words_of_doubles(x, high, low, out, reciprocal):
    i = tl.arange(0, 64)
    a = tl.load(x + i)
    upper, lower = libdevice.double2hiint(a), libdevice.double2loint(a)
    tl.store(high + i, upper)
    tl.store(low + i, lower)
    tl.store(out + i, libdevice.hiloint2double(upper, lower))
    tl.store(reciprocal + i, libdevice.rcp64h(a))


def test_words_of_doubles():
    x = torch.from_numpy(np.random.default_rng(8).normal(size=64))
    words = {"high": torch.zeros(64, dtype=torch.int32), "low": torch.zeros(64, dtype=torch.int32)}
    arguments = {"x": x, **words, "out": torch.zeros_like(x), "reciprocal": torch.zeros_like(x)}
    result = run(words_of_doubles, (1,), arguments)
    assert torch.equal(torch.stack([result["low"], result["high"]], 1).view(torch.float64)[:, 0], x)
    assert torch.equal(result["out"], x)
    assert torch.equal(result["reciprocal"], ((1 / x).view(torch.int64) & (-1 << 32)).view(torch.float64))
