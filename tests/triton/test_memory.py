"""Loads and stores: masks, fills, gathers, scatters, block pointers, descriptors, tiles of any number of dimensions."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tests.triton.harness import run, run_three_ways


@triton.jit
def copy_rows(x, out, rows, columns, stride, other, R: tl.constexpr, C: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    c = tl.arange(0, C)[None, :]
    inside = (r < rows) & (c < columns)
    value = tl.load(x + r * stride + c, mask=inside, other=other)
    tl.store(out + r * C + c, value, mask=r < rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.int64], ids=str)
def test_masks_become_bounds_and_fill(dtype):
    x = torch.randint(-9, 9, (7, 13)).to(dtype)
    arguments = {
        "x": x,
        "out": torch.zeros(7, 16, dtype=dtype),
        "rows": 7,
        "columns": 11,
        "stride": 13,
        "other": 5,
    }
    result = run_three_ways(copy_rows, (2,), arguments, R=4, C=16)["out"]
    assert torch.equal(result[:, :11], x[:, :11])
    assert (result[:, 11:] == 5).all()


@triton.jit
def transposed(x, out, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    tl.store(out + n * M + m, tl.load(x + m * N + n))


def test_transposing_store():
    x = torch.arange(32.0 * 16).view(32, 16)
    result = run_three_ways(transposed, (1,), {"x": x, "out": torch.zeros(16, 32)}, M=32, N=16)["out"]
    assert torch.equal(result, x.T)


@triton.jit
def backward_and_strided(x, out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + n - 1 - i, mask=i < n, other=-1.0))
    tl.store(out + N + i, tl.load(x + 3 * i, mask=3 * i < n, other=-1.0))
    tl.store(out + 2 * N + i, tl.load(x + i, mask=(i >= 3) & (i < n - 2) & (i % 2 == 0), other=-1.0))


def test_negative_strides_and_odd_masks():
    x = torch.arange(20.0)
    result = run_three_ways(backward_and_strided, (1,), {"x": x, "out": torch.zeros(3, 32), "n": 20}, N=32)["out"]
    i = torch.arange(32)
    absent = torch.full((32,), -1.0)
    assert torch.equal(result[0], torch.where(i < 20, 19.0 - i, absent))
    assert torch.equal(result[1], torch.where(3 * i < 20, 3.0 * i, absent))
    assert torch.equal(result[2], torch.where((i >= 3) & (i < 18) & (i % 2 == 0), i.float(), absent))


@triton.jit
def mask_by_data(x, keep, out, N: tl.constexpr):
    i = tl.arange(0, N)
    wanted = tl.load(keep + i) != 0
    value = tl.load(x + i, mask=wanted, other=i.to(tl.float32) * 100)
    tl.store(out + i, value)
    tl.store(out + N + i, value * 2, mask=wanted)


def test_masks_that_are_data():
    x, keep = torch.randn(64), (torch.arange(64) % 3 == 0).to(torch.int8)
    result = run_three_ways(mask_by_data, (1,), {"x": x, "keep": keep, "out": torch.zeros(2, 64)}, N=64)["out"]
    chosen = torch.where(keep != 0, x, torch.arange(64) * 100.0)
    assert torch.equal(result[0], chosen)
    assert torch.equal(result[1], torch.where(keep != 0, chosen * 2, 0.0))


@triton.jit
def gather_rows(table, index, out, n, width, R: tl.constexpr, C: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.arange(0, C)
    inside = r < n
    row = tl.load(index + r, mask=inside, other=0)
    value = tl.load(table + row[:, None] * width + c[None, :], mask=inside[:, None] & (c < width)[None, :], other=0.0)
    tl.store(out + r[:, None] * width + c[None, :], value, mask=inside[:, None] & (c < width)[None, :])


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_row_gather(index_dtype):
    table = torch.randn(50, 24)
    index = torch.randint(0, 50, (13,), generator=torch.Generator().manual_seed(1)).to(index_dtype)
    arguments = {"table": table, "index": index, "out": torch.zeros(13, 24), "n": 13, "width": 24}
    result = run_three_ways(gather_rows, (4,), arguments, R=4, C=32)["out"]
    assert torch.equal(result, table[index.long()])


@triton.jit
def gather_elements(x, index, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + tl.load(index + i)))


@triton.jit
def scatter_elements(x, index, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + tl.load(index + i), tl.load(x + i))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64], ids=str)
def test_element_gather_and_scatter(dtype):
    x = torch.randint(0, 100, (128,)).to(dtype)
    index = torch.randperm(128, generator=torch.Generator().manual_seed(2))
    gathered = run_three_ways(gather_elements, (1,), {"x": x, "index": index, "out": torch.zeros_like(x)}, N=128)["out"]
    assert torch.equal(gathered, x[index])
    scattered = run_three_ways(scatter_elements, (1,), {"x": x, "index": index, "out": torch.zeros_like(x)}, N=128)[
        "out"
    ]
    expected = torch.zeros_like(x)
    expected[index] = x
    assert torch.equal(scattered, expected)


@triton.jit
def scale_many_dimensions(
    x, out, n, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, E: tl.constexpr
):
    a = tl.arange(0, A)[:, None, None, None, None]
    b = tl.arange(0, B)[None, :, None, None, None]
    c = tl.arange(0, C)[None, None, :, None, None]
    d = tl.arange(0, D)[None, None, None, :, None]
    e = tl.arange(0, E)[None, None, None, None, :]
    place = (((a * B + b) * C + c) * D + d) * E + e
    inside = (a < n) & (b < n + 1) & (c >= 1) & (d < n) & (e < E - 1)
    tl.store(out + place, tl.load(x + place, mask=inside, other=7.0) * 2, mask=inside | (a < 1))


def test_five_dimensions_all_masked():
    shape = (2, 4, 2, 4, 8)
    x = torch.randn(shape)
    names = dict(zip("ABCDE", shape, strict=True))
    result = run_three_ways(scale_many_dimensions, (1,), {"x": x, "out": torch.zeros(shape), "n": 1}, **names)["out"]
    a, b, c, d, e = np.ogrid[tuple(slice(extent) for extent in shape)]
    inside = torch.from_numpy((a < 1) & (b < 2) & (c >= 1) & (d < 1) & (e < 7))
    first = torch.from_numpy(np.broadcast_to(a < 1, shape).copy())
    expected = torch.where(inside, x, 7.0) * 2
    assert torch.equal(result, torch.where(inside | first, expected, 0.0))


@triton.jit
def through_block_pointers(x, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    source = tl.make_block_ptr(x, (rows, columns), (columns, 1), (0, 0), (R, C), (1, 0))
    target = tl.make_block_ptr(out, (rows, columns), (columns, 1), (0, 0), (R, C), (1, 0))
    for _ in range(0, columns, C):
        value = tl.load(source, boundary_check=(0, 1), padding_option="zero")
        tl.store(target, value + 1, boundary_check=(0, 1))
        source = tl.advance(source, (0, C))
        target = tl.advance(target, (0, C))


@pytest.mark.skipif(triton.__version__.startswith("3.9"), reason="Triton 3.9 has no block pointers")
@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
def test_block_pointers():
    x = torch.randn(13, 37)
    arguments = {"x": x, "out": torch.zeros(13, 37), "rows": 13, "columns": 37}
    assert torch.equal(run_three_ways(through_block_pointers, (1,), arguments, R=16, C=16)["out"], x + 1)


@triton.jit
def through_device_descriptors(x, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [rows, columns], [columns, 1], [R, C])
    target = tl.make_tensor_descriptor(out, [rows, columns], [columns, 1], [R, C])
    r, c = tl.program_id(0) * R, tl.program_id(1) * C
    target.store([r, c], source.load([r, c]) * 2)


@triton.jit
def through_host_descriptor(source, out, R: tl.constexpr, C: tl.constexpr):
    value = source.load([tl.program_id(0) * R, 0])
    tl.store(out + tl.program_id(0) * R * C + tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :], value)


def test_tensor_descriptors():
    x = torch.randn(20, 40)
    arguments = {"x": x, "out": torch.zeros(20, 40), "rows": 20, "columns": 40}
    assert torch.equal(run_three_ways(through_device_descriptors, (2, 3), arguments, R=16, C=16)["out"], x * 2)
    on_chip, out = x.to("chip"), torch.zeros(32, 32, device="chip")
    through_host_descriptor[(2,)](TensorDescriptor.from_tensor(on_chip, [16, 32]), out, R=16, C=32)
    expected = torch.zeros(32, 32)
    expected[:20] = x[:, :32]
    assert torch.equal(out.cpu(), expected)


@triton.jit
def atomics(out, x, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.atomic_add(out + i % 4, value)
    tl.atomic_max(out + 4 + i * 0, value)
    tl.atomic_min(out + 5 + i * 0, value, mask=i > 3)
    tl.atomic_or(out + 6, tl.sum(value) & 15)
    tl.atomic_xchg(out + 7, tl.program_id(0))
    tl.atomic_cas(out + 8, tl.full((), 1, out.dtype.element_ty), tl.full((), 7, out.dtype.element_ty))
    old = tl.atomic_add(out + 9, 5)
    tl.atomic_add(out + 10, old)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_integer_atomics(dtype):
    x = torch.arange(32).sub(9).to(dtype)
    out = torch.zeros(11, dtype=dtype)
    out[8] = 1
    result = run(atomics, (3,), {"out": out, "x": x}, N=32)["out"].tolist()
    assert result[:4] == [3 * int(x[k::4].sum()) for k in range(4)]
    assert result[4:7] == [22, -5, int(x.sum()) & 15]
    assert result[7] in (0, 1, 2)
    assert result[8:] == [7, 15, 0 + 5 + 10]


@triton.jit
def float_atomics(out, x, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.atomic_add(out + i % 4, value)
    tl.atomic_max(out + 4 + i * 0, value)
    tl.atomic_min(out + 5 + i * 0, value)


def test_float_atomics():
    x = torch.randint(-50, 50, (64,), generator=torch.Generator().manual_seed(3)).float()
    result = run(float_atomics, (2,), {"out": torch.zeros(6), "x": x}, N=64)["out"]
    assert result[:4].tolist() == [2 * float(x[k::4].sum()) for k in range(4)]
    assert result[4:].tolist() == [float(x.max()), float(x.min())]


@triton.jit
def hinted(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    i = tl.max_contiguous(tl.multiple_of(i, 8), 8)
    value = tl.load(x + i, cache_modifier=".cg", eviction_policy="evict_first", volatile=True)
    tl.debug_barrier()
    tl.assume(tl.program_id(0) >= 0)
    tl.store(out + i, value, cache_modifier=".wb", eviction_policy="evict_last")


def test_hints_do_no_harm():
    x = torch.randn(64)
    assert torch.equal(run(hinted, (1,), {"x": x, "out": torch.zeros(64)}, N=64)["out"], x)


@triton.jit
def read_what_was_written(x, N: tl.constexpr):
    i = tl.arange(0, N)
    for _ in range(5):
        tl.store(x + i, tl.load(x + i) + 1)
        tl.store(x + i, tl.load(x + N - 1 - i))


def test_memory_keeps_program_order():
    x = torch.arange(32.0)
    result = run_three_ways(read_what_was_written, (1,), {"x": x}, N=32)["x"]
    assert torch.equal(result, x.flip(0) + 5)


@triton.jit
def pointers_to_pointers(table, out, N: tl.constexpr):
    i = tl.arange(0, N)
    for k in range(2):
        source = tl.load(table + k).to(tl.pointer_type(tl.float32))
        tl.store(out + k * N + i, tl.load(source + i))


def test_addresses_kept_in_memory():
    a, b = torch.randn(16).to("chip"), torch.randn(16).to("chip")
    table = torch.tensor([a.data_ptr(), b.data_ptr()]).to("chip")
    out = torch.zeros(2, 16, device="chip")
    pointers_to_pointers[(1,)](table, out, N=16)
    assert torch.equal(out.cpu(), torch.stack([a.cpu(), b.cpu()]))
