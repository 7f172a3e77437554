"""Scans and gathers of tiles beyond a scratchpad, and of more elements than an instruction counts, against NumPy."""

import numpy as np
import pytest
import triton
import triton.language as tl

from tapeout import chip, runtime
from tapeout.codegen.pipeline import compile_kernel
from tests.passes.kernels import ttir

TYPES = {np.float32: "*fp32", np.int32: "*i32", np.int8: "*i8", np.float16: "*fp16"}


@triton.jit
def affine(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def scanned(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, AXIS: tl.constexpr, KIND: tl.constexpr):
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(x + place)
    if ROWS == 1:
        value, place = value.reshape((COLUMNS,)), place.reshape((COLUMNS,))
    if KIND == "sum":
        value = tl.cumsum(value, AXIS)
    elif KIND == "product":
        value = tl.cumprod(value, AXIS)
    else:
        value = tl.associative_scan((value, value), AXIS, affine)[1]
    tl.store(y + place, value.to(y.dtype.element_ty))


@triton.jit
def picked(x, index, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, AXIS: tl.constexpr):
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(y + place, tl.gather(tl.load(x + place), tl.load(index + place), AXIS))


def launched(kernel, arrays, description, **constants):
    text = ttir(kernel, " ".join(TYPES[array.dtype.type] for array in arrays), **constants)
    words = [array.ctypes.data for array in arrays]
    runtime.load(compile_kernel(text, description), description).launch((1, 1, 1), words)


@pytest.mark.parametrize(
    ("name", "rows", "columns", "axis", "kind", "dtype"),
    [
        ("tiny", 128, 128, 1, "sum", np.float32),
        ("tiny", 128, 256, 1, "sum", np.float16),
        ("tiny", 128, 128, 1, "product", np.float32),
        ("tiny", 128, 128, 1, "affine", np.int32),
        ("tiny", 512, 256, 0, "sum", np.float32),
        ("tiny", 1, 16384, 0, "sum", np.float32),
        ("inference", 256, 1024, 1, "sum", np.float32),
        ("inference", 1, 131072, 0, "sum", np.int32),  # fits, but is longer than an instruction counts
        ("inference", 1, 262144, 0, "sum", np.int32),
    ],
)
def test_scans(name, rows, columns, axis, kind, dtype):
    x = np.random.default_rng(0).choice([-1, 1], (rows, columns)).astype(dtype)
    y = np.zeros_like(x)
    launched(scanned, [x, y], chip.load(name), ROWS=rows, COLUMNS=columns, AXIS=axis, KIND=kind)
    along = 1 if rows == 1 else axis
    expected = np.cumprod(x, along) if kind == "product" else np.cumsum(x, along)
    if kind == "affine":
        expected, x = np.moveaxis(x.copy(), along, 0), np.moveaxis(x, along, 0)
        for k in range(1, len(x)):
            expected[k] = expected[k - 1] * x[k] + x[k]
        expected = np.moveaxis(expected, 0, along)
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    ("rows", "columns", "axis", "dtype"),
    [(128, 128, 1, np.int8), (128, 128, 1, np.float16), (128, 128, 0, np.int8), (4, 65536, 0, np.float32)],
)
def test_gathers(rows, columns, axis, dtype):
    rng = np.random.default_rng(1)
    x = rng.integers(-100, 100, (rows, columns)).astype(dtype)
    index = rng.integers(0, x.shape[axis], x.shape).astype(np.int32)
    y = np.zeros_like(x)
    launched(picked, [x, index, y], chip.load("tiny"), ROWS=rows, COLUMNS=columns, AXIS=axis)
    assert np.array_equal(y, np.take_along_axis(x, index.astype(np.int64), axis))


@triton.jit
def counted(x, y, SIZE: tl.constexpr, BINS: tl.constexpr):
    value = tl.load(x + tl.arange(0, SIZE))
    tl.store(y + tl.arange(0, BINS), tl.histogram(value, BINS, mask=value != 5))


@pytest.mark.parametrize("bins", [4, 128])
def test_histograms(bins):
    x = np.random.default_rng(2).integers(-3, bins + 5, 32768).astype(np.int32)
    y = np.zeros(bins, np.int32)
    launched(counted, [x, y], chip.load("tiny"), SIZE=x.size, BINS=bins)
    assert np.array_equal(y, np.bincount(x[(x >= 0) & (x < bins) & (x != 5)], minlength=bins))
