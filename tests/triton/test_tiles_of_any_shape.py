"""Sorting, scans, reductions, flips and gathers of tiles of any shape and type, as properties against NumPy."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.triton.harness import run

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
FLOATS_OF_8_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
MOST_ELEMENTS = 128
examples = settings(max_examples=6)


@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def affine(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def put(pointer, value, SIZE: tl.constexpr):
    if value.type.is_block():
        tl.store(pointer + tl.arange(0, SIZE), tl.reshape(value, (SIZE,)))
    else:
        tl.store(pointer, value)


@triton.jit
def tile_operation(
    x, index, out, places, SHAPE: tl.constexpr, SIZE: tl.constexpr, OPERATION: tl.constexpr, AXIS: tl.constexpr,
    FLAG: tl.constexpr, INDEX_SHAPE: tl.constexpr, INDEX_SIZE: tl.constexpr, RESULT_SIZE: tl.constexpr,
):  # fmt: skip
    value = tl.load(x + tl.arange(0, SIZE)).reshape(SHAPE)
    if OPERATION == "sort":
        result = tl.sort(value, descending=FLAG)
    elif OPERATION == "topk":
        result = tl.topk(value, RESULT_SIZE // (SIZE // SHAPE[-1]))
    elif OPERATION == "flip":
        result = tl.flip(value, AXIS)
    elif OPERATION == "gather":
        result = tl.gather(value, tl.load(index + tl.arange(0, INDEX_SIZE)).reshape(INDEX_SHAPE), AXIS)
    elif OPERATION == "cumsum":
        result = tl.cumsum(value, AXIS, reverse=FLAG, dtype=out.dtype.element_ty)
    elif OPERATION == "cumprod":
        result = tl.cumprod(value, AXIS, reverse=FLAG)
    elif OPERATION == "largest so far":
        result = tl.associative_scan(value, AXIS, larger, reverse=FLAG)
    elif OPERATION == "affine":
        _, result = tl.associative_scan((value, value), AXIS, affine, reverse=FLAG)
    elif OPERATION == "sum":
        result = tl.sum(value, AXIS, keep_dims=FLAG, dtype=out.dtype.element_ty)
    elif OPERATION == "max":
        result, place = tl.max(value, AXIS, return_indices=True, keep_dims=FLAG)
        put(places, place, RESULT_SIZE)
    elif OPERATION == "min":
        result, place = tl.min(value, AXIS, return_indices=True, keep_dims=FLAG)
        put(places, place, RESULT_SIZE)
    elif OPERATION == "any combine":
        result = tl.reduce(value, AXIS, larger, keep_dims=FLAG)
    else:
        result = tl.xor_sum(value, AXIS, keep_dims=FLAG)
    put(out, result, RESULT_SIZE)


@st.composite
def tiles(draw, dtypes, least_dimensions=1):
    """A tile of 1 to 5 dimensions, an axis of it, a yes or no, and a source of random numbers for more."""
    shape, left = [], MOST_ELEMENTS
    for _ in range(draw(st.integers(least_dimensions, 5))):
        extent = 1 << draw(st.integers(0, min(5, left.bit_length() - 1)))
        shape.append(extent)
        left //= extent
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    axis, flag = draw(st.integers(0, len(shape) - 1)), draw(st.booleans())
    if dtype not in INTEGERS:
        return torch.from_numpy(rng.integers(-9, 10, shape) / 4).to(dtype), axis, flag, rng
    info = torch.iinfo(dtype)
    values = rng.integers(max(info.min, -9), 10, shape).astype(str(dtype).removeprefix("torch."))
    values[rng.random(shape) < 0.1] = info.max
    return torch.from_numpy(values), axis, flag, rng


def numbers(x):
    """What a tensor holds, in its own type or, of floats, in float64."""
    return x.numpy() if x.dtype in INTEGERS else x.double().numpy()


def result_of(operation, x, axis, flag, shape, index=None):
    """What the kernel gives: the result and the places of what it picked."""
    index = torch.zeros(1, dtype=torch.int32) if index is None else index
    out, places = torch.zeros(shape, dtype=x.dtype), torch.zeros(shape, dtype=torch.int32)
    constants = {
        "SHAPE": tuple(x.shape), "SIZE": x.numel(), "OPERATION": operation, "AXIS": axis, "FLAG": flag,
        "INDEX_SHAPE": tuple(index.shape), "INDEX_SIZE": index.numel(), "RESULT_SIZE": out.numel(),
    }  # fmt: skip
    results = run(tile_operation, (1,), {"x": x, "index": index, "out": out, "places": places}, **constants)
    return numbers(results["out"]), results["places"].numpy()


def assert_close(result, exact, dtype):
    """Equal, if integers; within 64 roundings of the largest number on the way, if floats."""
    if dtype in INTEGERS:
        assert np.array_equal(result, exact)
        return
    info = torch.finfo(dtype)
    fits = np.abs(exact) < info.max
    np.testing.assert_allclose(result[fits], exact[fits], rtol=64 * info.eps, atol=64 * info.eps * np.abs(exact).max())


@examples
@given(tiles((*INTEGERS, *FLOATS)))
def test_sort(tile):
    x, _, descending, _ = tile
    result, _ = result_of("sort", x, 0, descending, x.shape)
    exact = np.sort(numbers(x), -1)
    assert np.array_equal(result, exact[..., ::-1] if descending else exact)


@examples
@given(tiles((*INTEGERS, *FLOATS)), st.integers(0, 5))
def test_topk(tile, log_count):
    x, _, _, _ = tile
    count = min(1 << log_count, x.shape[-1])
    assume(x.numel() // x.shape[-1] * count > 1)  # Triton's own topk does not give one number in all
    result, _ = result_of("topk", x, 0, False, (*x.shape[:-1], count))
    assert np.array_equal(result, np.sort(numbers(x), -1)[..., ::-1][..., :count])


@examples
@given(tiles((*INTEGERS, *FLOATS, *FLOATS_OF_8_BITS)))
def test_flip(tile):
    x, axis, _, _ = tile
    assume(x.dim() > 1 or x.numel() > 1)  # Triton's own flip does not take a row of one
    result, _ = result_of("flip", x, axis, False, x.shape)
    assert np.array_equal(result, np.flip(numbers(x), axis))


@examples
@given(tiles((*INTEGERS, *FLOATS, *FLOATS_OF_8_BITS)), st.integers(0, 4))
def test_gather(tile, log_count):
    x, axis, _, rng = tile
    shape = [1 << log_count if d == axis else extent for d, extent in enumerate(x.shape)]
    index = rng.integers(0, x.shape[axis], shape, dtype=np.int32)
    result, _ = result_of("gather", x, axis, False, shape, torch.from_numpy(index))
    assert np.array_equal(result, np.take_along_axis(numbers(x), index, axis))


def affine_scan(values, axis):
    state, states = np.zeros_like(values.take(0, axis)), []
    with np.errstate(over="ignore"):
        for part in np.moveaxis(values, axis, 0):
            state = state * part + part
            states.append(state)
    return np.stack(states, axis)


SCANS = {
    "cumsum": lambda values, axis: np.cumsum(values, axis, dtype=values.dtype),
    "cumprod": lambda values, axis: np.cumprod(values, axis, dtype=values.dtype),
    "largest so far": lambda values, axis: np.maximum.accumulate(values, axis),
    "affine": affine_scan,
}


@pytest.mark.parametrize("operation", SCANS)
def test_scan(operation):
    @examples
    @given(tiles((*INTEGERS, *FLOATS)))
    def law(tile):
        x, axis, reverse, _ = tile
        result, _ = result_of(operation, x, axis, reverse, x.shape)
        values = np.flip(numbers(x), axis) if reverse else numbers(x)
        exact = SCANS[operation](values, axis)
        assert_close(result, np.flip(exact, axis) if reverse else exact, x.dtype)

    law()


REDUCTIONS = {
    "sum": lambda values, axis: np.sum(values, axis, dtype=values.dtype),
    "max": np.max,
    "min": np.min,
    "any combine": np.max,
    "xor": np.bitwise_xor.reduce,
}


@pytest.mark.parametrize("operation", REDUCTIONS)
def test_reduction(operation):
    @examples
    @given(tiles(INTEGERS if operation == "xor" else (*INTEGERS, *FLOATS)))
    def law(tile):
        x, axis, keep, _ = tile
        values = numbers(x)
        exact = REDUCTIONS[operation](values, axis)
        result, places = result_of(operation, x, axis, keep, exact.shape)
        assert_close(result, exact, x.dtype)
        if operation in ("max", "min"):
            assert np.array_equal(places, getattr(values, "arg" + operation)(axis))

    law()
