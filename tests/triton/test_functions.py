"""Mathematical functions against exact arithmetic: the accuracy stated for each is kept, special values are C's."""

import inspect
import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

from tapeout.passes.math.libdevice import ACCURACY_LIMITS, ACCURACY_ULP, LIBDEVICE
from tests.triton.harness import run

SINGLE_POINTS, DOUBLE_POINTS, BLOCK = 256, 128, 128
BITS_OF_REFERENCE = 130
mp = mpmath.MPContext()
mp.prec = BITS_OF_REFERENCE


@triton.jit
def apply(x, out, FUNCTION: tl.constexpr, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + i, FUNCTION(tl.load(x + i)).to(out.dtype.element_ty))


@triton.jit
def apply_to_two(x, y, out, FUNCTION: tl.constexpr, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + i, FUNCTION(tl.load(x + i), tl.load(y + i)).to(out.dtype.element_ty))


def linear(low, high):
    return lambda rng, n: rng.uniform(low, high, n)


def wide(low, high, sign=1):
    return lambda rng, n: sign * np.exp(rng.uniform(math.log(low), math.log(high), n))


def signed_root(x):
    return mp.sign(x) * mp.cbrt(abs(x))


def inverse_of_erfc(x):
    if x > 1:
        return -inverse_of_erfc(2 - x)
    if x > 0.1:
        return mp.erfinv(1 - x)
    power = -mp.log(x * (2 - x))
    start = mp.sqrt(power - mp.log(power * mp.pi) / 2)
    return mp.findroot(lambda t: mp.log(mp.erfc(t)) - mp.log(x), start)


# name: (exact function, domains of its argument or arguments)
ONE = {
    "exp": (mp.exp, [linear(-87, 88), linear(-1, 1)]),
    "exp2": (lambda x: mp.mpf(2) ** x, [linear(-126, 127), linear(-1, 1)]),
    "exp10": (lambda x: mp.mpf(10) ** x, [linear(-37, 38)]),
    "expm1": (mp.expm1, [linear(-10, 80), wide(1e-7, 1)]),
    "log": (mp.log, [wide(1e-38, 1e38), linear(0.5, 2)]),
    "log2": (lambda x: mp.log(x, 2), [wide(1e-38, 1e38), linear(0.5, 2)]),
    "log10": (mp.log10, [wide(1e-38, 1e38), linear(0.5, 2)]),
    "log1p": (mp.log1p, [linear(-0.99, 1), wide(1e-9, 1e20)]),
    "cbrt": (signed_root, [linear(-9, 9), wide(1e-40, 1e38)]),
    "rcbrt": (lambda x: 1 / signed_root(x), [linear(-9, 9)]),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), [wide(1e-38, 1e38)]),
    "sin": (mp.sin, [linear(-10, 10), linear(-1e6, 1e6)]),
    "cos": (mp.cos, [linear(-10, 10), linear(-1e6, 1e6)]),
    "tan": (mp.tan, [linear(-10, 10), linear(-1e6, 1e6)]),
    "sinpi": (mp.sinpi, [linear(-4, 4)]),
    "cospi": (mp.cospi, [linear(-4, 4)]),
    "asin": (mp.asin, [linear(-1, 1)]),
    "acos": (mp.acos, [linear(-1, 1)]),
    "atan": (mp.atan, [linear(-3, 3), wide(1e-8, 1e8)]),
    "sinh": (mp.sinh, [linear(-88, 88), linear(-2, 2), wide(1e-8, 1)]),
    "cosh": (mp.cosh, [linear(-88, 88)]),
    "tanh": (mp.tanh, [linear(-10, 10), wide(1e-8, 1)]),
    "asinh": (mp.asinh, [linear(-5, 5), wide(1e-8, 1e20)]),
    "acosh": (mp.acosh, [linear(1, 3), wide(1, 1e20)]),
    "atanh": (mp.atanh, [linear(-1, 1), wide(1e-8, 1)]),
    "erf": (mp.erf, [linear(-4, 4), wide(1e-8, 1)]),
    "erfc": (mp.erfc, [linear(-4, 9), linear(-1, 1)]),
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), [linear(0, 10), wide(10, 1e5)]),
    "erfinv": (mp.erfinv, [linear(-0.999, 0.999)]),
    "normcdf": (mp.ncdf, [linear(-2, 5)]),
    "lgamma": (lambda x: mp.re(mp.loggamma(x)), [linear(0.01, 10), wide(1e-8, 1e20)]),
    "tgamma": (mp.gamma, [linear(-34, 35), linear(-3, 9)]),
    "erfcinv": (inverse_of_erfc, [linear(0, 2), wide(1e-37, 1)]),
    "normcdfinv": (lambda p: -mp.sqrt(2) * inverse_of_erfc(2 * p), [linear(0, 1), wide(1e-37, 0.5)]),
    "j0": (lambda x: mp.besselj(0, x), [linear(-10, 10), wide(1e-8, 1e4)]),
    "j1": (lambda x: mp.besselj(1, x), [linear(-10, 10), wide(1e-8, 1e4)]),
    "y0": (lambda x: mp.bessely(0, x), [linear(0, 10), wide(1e-8, 1e4)]),
    "y1": (lambda x: mp.bessely(1, x), [linear(0, 10), wide(1e-8, 1e4)]),
    "cyl_bessel_i0": (lambda x: mp.besseli(0, x), [linear(-9, 9), wide(1e-8, 90)]),
    "cyl_bessel_i1": (lambda x: mp.besseli(1, x), [linear(-9, 9), wide(1e-8, 90)]),
}
TWO = {
    "pow": (lambda x, y: x**y, [(linear(0.2, 3), linear(-50, 50)), (linear(0.9, 1.1), linear(-500, 500))]),
    "atan2": (mp.atan2, [(linear(-3, 3), linear(-3, 3)), (wide(1e-8, 1e8), wide(1e-8, 1e8, -1))]),
    "hypot": (mp.hypot, [(linear(-3, 3), linear(-3, 3)), (wide(1e-37, 1e37), wide(1e-37, 1e37))]),
    "rhypot": (lambda x, y: 1 / mp.hypot(x, y), [(linear(-3, 3), linear(-3, 3))]),
}


def test_every_stated_accuracy_is_tested():
    assert set(ACCURACY_ULP) == set(ONE) | set(TWO)


def test_every_function_of_libdevice_is_there_but_four():
    symbols = set(re.findall(r'"(__nv_\w+)"', inspect.getsource(libdevice)))
    assert len(symbols) > 300
    products_of_f64 = {f"__nv_fma_{direction}" for direction in ("rd", "ru", "rz")}
    assert symbols - set(LIBDEVICE) == {"__nv_jn", "__nv_jnf", "__nv_yn", "__nv_ynf"} | products_of_f64


def worst_error_ulp(results, exact, dtype, measures=None):
    """Largest distance in units in the last place of the exact result (of the smallest normal number: at least), or of
    a measure that stands for it."""
    info = np.finfo(dtype)
    worst = 0.0
    for result, value, measure in zip(results.tolist(), exact, measures or exact, strict=True):
        _, exponent = mp.frexp(measure)
        unit = mp.ldexp(1, max(int(exponent) - 1, int(math.log2(info.tiny))) - info.nmant)
        worst = max(worst, float(abs(mp.mpf(result) - value) / unit)) if math.isfinite(result) else math.inf
    return worst


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_accuracy(name, dtype):
    rng = np.random.default_rng(7)
    count = SINGLE_POINTS if dtype is np.float32 else DOUBLE_POINTS
    exact, domains = (ONE | TWO)[name]
    for domain in domains:
        parts = domain if isinstance(domain, tuple) else (domain,)
        points = [part(rng, count).astype(dtype) for part in parts]
        x = torch.from_numpy(points[0])
        arguments = {"x": x, "out": torch.zeros_like(x)}
        if len(points) == 2:
            arguments["y"] = torch.from_numpy(points[1])
        kernel = apply if len(points) == 1 else apply_to_two
        out = run(kernel, (count // BLOCK,), arguments, FUNCTION=getattr(libdevice, name), N=BLOCK)["out"]
        expected = [exact(*(mp.mpf(float(v)) for v in values)) for values in zip(*points, strict=True)]
        measures = None
        if name in ("j0", "j1", "y0", "y1"):  # which have zeros where no number is near
            sizes = [1 / mp.sqrt(1 + abs(float(v))) if abs(v) > 0.5 else 0 for v in points[0]]
            measures = [max(abs(value), size) for value, size in zip(expected, sizes, strict=True)]
        worst = worst_error_ulp(out.numpy(), expected, dtype, measures)
        assert worst <= ACCURACY_ULP[name][dtype is np.float64], f"{worst:.2f} ulp"


NEAREST_TO_A_MULTIPLE_OF_HALF_PI = math.ldexp(6381956970095103, 797)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_angles(name):
    """f64 angles of any size, the one nearest to a multiple of pi / 2 among them."""
    rng = np.random.default_rng(9)
    points = wide(2.0**29, 1.7e308)(rng, 2 * BLOCK) * rng.choice([-1, 1], 2 * BLOCK)
    points[:6] = 2.0**30, -(2.0**30), 2.0**31, 1.7976931348623157e308, 1e22, NEAREST_TO_A_MULTIPLE_OF_HALF_PI
    x = torch.from_numpy(points)
    arguments = {"x": x, "out": torch.zeros_like(x)}
    out = run(apply, (2,), arguments, FUNCTION=getattr(libdevice, name), N=BLOCK)["out"]
    with mp.workprec(1400):
        expected = [getattr(mp, name)(mp.mpf(float(value))) for value in points]
    assert worst_error_ulp(out.numpy(), expected, np.float64) <= ACCURACY_ULP[name][1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_remainder_of_floats_is_exact(dtype):
    @triton.jit
    def kernel(x, y, out, N: tl.constexpr):
        i = tl.arange(0, N)
        tl.store(out + i, tl.load(x + i) % tl.load(y + i))

    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(256, generator=generator) * 10.0 ** torch.randint(-3, 4, (256,), generator=generator)).to(dtype)
    y = torch.randn(256, generator=generator).to(dtype)
    y[0], x[1], y[2], x[3] = 0.0, float("inf"), float("inf"), float("nan")
    out = run(kernel, (1,), {"x": x, "y": y, "out": torch.zeros_like(x)}, N=256)["out"]
    expected = torch.fmod(x.double(), y.double()).to(dtype)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-40, -1e30, 2.5, INF, -INF, NAN]
SPECIAL_ONE = {
    "exp": torch.exp, "expm1": torch.expm1, "log": torch.log, "log2": torch.log2, "log10": torch.log10,
    "log1p": torch.log1p, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin, "acos": torch.acos,
    "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "tanh": torch.tanh, "asinh": torch.asinh,
    "acosh": torch.acosh, "atanh": torch.atanh, "erf": torch.erf, "erfc": torch.erfc, "erfinv": torch.erfinv,
    "lgamma": torch.lgamma, "floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "rint": torch.round,
    "nearbyint": torch.round, "abs": torch.abs, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "isnan": torch.isnan,
    "isinf": torch.isinf, "signbit": torch.signbit, "finitef": torch.isfinite,
}  # fmt: skip
SPECIAL_TWO = {
    "pow": torch.pow, "atan2": torch.atan2, "hypot": torch.hypot, "copysign": torch.copysign, "fmod": torch.fmod,
    "nextafter": torch.nextafter,
}  # fmt: skip


def pairs():
    grid = torch.tensor([(a, b) for a in SPECIAL for b in SPECIAL])
    return torch.cat([grid, grid.new_ones(256 - len(grid), 2)])


POLES = {  # at 0, -0, inf, -inf, NaN, -1, 2, 1
    "tgamma": [INF, -INF, INF, NAN, NAN, NAN, 1.0, 1.0], "erfcinv": [INF, INF, NAN, NAN, NAN, NAN, -INF, 0.0],
    "normcdfinv": [-INF, -INF, NAN, NAN, NAN, NAN, NAN, INF], "j0": [1.0, 1.0, 0.0, 0.0, NAN, 0.765197687, 0.223890779,
    0.765197687], "j1": [0.0, -0.0, 0.0, -0.0, NAN, -0.440050586, 0.576724808, 0.440050586],
    "y0": [-INF, -INF, 0.0, NAN, NAN, NAN, 0.510375673, 0.0882569642],
    "y1": [-INF, -INF, 0.0, NAN, NAN, NAN, -0.107032432, -0.781212821],
    "cyl_bessel_i0": [1.0, 1.0, INF, INF, NAN, 1.26606588, 2.2795853, 1.26606588],
    "cyl_bessel_i1": [0.0, -0.0, INF, -INF, NAN, -0.565159104, 1.59063685, 0.565159104],
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", POLES)
def test_poles_and_limits(name, dtype):
    x = torch.tensor([0.0, -0.0, INF, -INF, NAN, -1.0, 2.0, 1.0], dtype=dtype)
    out = run(apply, (1,), {"x": x, "out": torch.zeros_like(x)}, FUNCTION=getattr(libdevice, name), N=8)["out"]
    expected = torch.tensor(POLES[name], dtype=dtype)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0, equal_nan=True)
    numbers = ~expected.isnan()
    assert torch.equal(torch.signbit(out)[numbers], torch.signbit(expected)[numbers])


@pytest.mark.parametrize("name", SPECIAL_ONE)
def test_special_values(name):
    x = torch.tensor([*SPECIAL, 1.0, 2.0, -3.0])
    out = run(apply, (1,), {"x": x, "out": torch.zeros(16)}, FUNCTION=getattr(libdevice, name), N=16)["out"]
    torch.testing.assert_close(out, SPECIAL_ONE[name](x).float(), rtol=1e-6, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("name", SPECIAL_TWO)
def test_special_pairs(name):
    x, y = pairs().unbind(1)
    arguments = {"x": x.contiguous(), "y": y.contiguous(), "out": torch.zeros(256)}
    out = run(apply_to_two, (1,), arguments, FUNCTION=getattr(libdevice, name), N=256)["out"]
    expected = SPECIAL_TWO[name](x, y)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0, equal_nan=True)
    numbers = ~expected.isnan()
    assert torch.equal(torch.signbit(out)[numbers], torch.signbit(expected)[numbers])


@pytest.mark.parametrize("name", ["round", "llround", "llrint", "ilogb", "logb"])
def test_roundings_and_exponents(name):
    x = torch.tensor([0.5, 1.5, -2.5, 2.4999, 1e-40, -7.0, 1e9, 1.0])
    out = run(apply, (1,), {"x": x, "out": torch.zeros(8)}, FUNCTION=getattr(libdevice, name), N=8)["out"]
    away = [math.copysign(math.floor(abs(v) + 0.5), v) for v in x.tolist()]
    exponents = [float(math.frexp(v)[1] - 1) for v in x.tolist()]
    expected = {"llrint": [round(v) for v in x.tolist()], "ilogb": exponents, "logb": exponents}.get(name, away)
    assert out.tolist() == expected


@triton.jit
def scale_by_powers(x, exponent, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, libdevice.ldexp(tl.load(x + i), tl.load(exponent + i)))


def test_ldexp_rounds_once():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(256, generator=generator)
    x[:8] *= 1e-39
    exponent = torch.randint(-160, 160, (256,), generator=generator, dtype=torch.int32)
    out = run(scale_by_powers, (1,), {"x": x, "exponent": exponent, "out": torch.zeros(256)}, N=256)["out"]
    assert torch.equal(out, (x.double() * torch.exp2(exponent.double())).float())


INTEGER = {
    "clz": lambda v: 32 - (v & 0xFFFFFFFF).bit_length(),
    "popc": lambda v: (v & 0xFFFFFFFF).bit_count(),
    "ffs": lambda v: (v & -v).bit_length(),
    "brev": lambda v: int(f"{v & 0xFFFFFFFF:032b}"[::-1], 2),
}


@pytest.mark.parametrize("name", INTEGER)
def test_integer_functions(name):
    x = torch.tensor([0, 1, -1, 2, 12345, -(2**31), 2**31 - 1, 1 << 20], dtype=torch.int32)
    out = run(apply, (1,), {"x": x, "out": torch.zeros_like(x)}, FUNCTION=getattr(libdevice, name), N=8)["out"]
    assert [v & 0xFFFFFFFF for v in out.tolist()] == [INTEGER[name](v) & 0xFFFFFFFF for v in x.tolist()]


def test_table_in_the_documentation(request):
    rows = [
        f"| `{name}` | {single:g} | {double:g} | {ACCURACY_LIMITS.get(name, '')} |"
        for name, (single, double) in sorted(ACCURACY_ULP.items())
    ]
    text = (
        "# Accuracy of mathematical functions\n\n"
        "The largest error in units in the last place of the exact result. Functions not listed (`sqrt`, `fma`, "
        "`fmod`, roundings, the arithmetic and conversions of a named direction, ...) are exact or correctly rounded; "
        "of libdevice only `jn`, `yn` and, for float64, `fma_rd`, `fma_ru` and `fma_rz` are missing. Generated from "
        "the table in `tapeout.passes.math.libdevice` by `pytest tests/triton/test_functions.py --update-golden`.\n\n"
        "| function | float32 | float64 | where |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    path = Path(__file__).parents[2] / "docs" / "functions.md"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert path.read_text() == text, "docs/functions.md is out of date; run this test with --update-golden"
