"""The kinds of kernel of `benchmarks.kernels` as other people write them: one-dimensional grids, masks on every axis,
odd sizes, operands that lie transposed, several rows a program."""

import torch
import triton
import triton.language as tl


@triton.jit
def bias_gelu_kernel(values, bias, out, row_count, column_count, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    tiles = tl.cdiv(column_count, COLUMNS)
    rows = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    place = rows[:, None] * column_count + columns[None, :]
    x = tl.load(values + place, mask=inside) + tl.load(bias + columns, mask=columns < column_count)[None, :]
    tl.store(out + place, 0.5 * x * (1 + tl.erf(x * 0.7071067811865476)), mask=inside)


def bias_gelu(values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """gelu(values + bias) of a contiguous matrix."""
    out = torch.empty_like(values)
    rows, columns = values.shape
    grid = (triton.cdiv(rows, 16) * triton.cdiv(columns, 128),)
    bias_gelu_kernel[grid](values, bias, out, rows, columns, ROWS=16, COLUMNS=128)
    return out


@triton.jit
def row_softmax_kernel(values, out, row_count, column_count, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows[:, None] < row_count) & (columns[None, :] < column_count)
    place = rows[:, None] * column_count + columns[None, :]
    tile = tl.load(values + place, mask=inside, other=-float("inf"))
    tile -= tl.max(tile, axis=1)[:, None]
    powers = tl.exp2(tile * 1.4426950408889634)
    tl.store(out + place, powers / tl.sum(powers, axis=1)[:, None], mask=inside)


def row_softmax(values: torch.Tensor, rows_of_program: int = 8) -> torch.Tensor:
    """Softmax of each row of a contiguous matrix, several rows a program."""
    out = torch.empty_like(values)
    rows, columns = values.shape
    grid = (triton.cdiv(rows, rows_of_program),)
    row_softmax_kernel[grid](values, out, rows, columns, ROWS=rows_of_program, COLUMNS=triton.next_power_of_2(columns))
    return out


@triton.jit
def grouped_order_matmul_kernel(
    left,
    right,
    out,
    M,
    N,
    K,
    stride_am,
    stride_bn,
    stride_cm,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    tile = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = tile // (GROUP * tiles_n) * GROUP
    group = tl.minimum(tiles_m - first, GROUP)
    m = (first + tile % (GROUP * tiles_n) % group) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (tile % (GROUP * tiles_n) // group) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(tl.cdiv(K, BLOCK_K)):
        k = start * BLOCK_K + tl.arange(0, BLOCK_K)
        a = tl.load(left + m[:, None] * stride_am + k[None, :], mask=(m[:, None] < M) & (k[None, :] < K), other=0)
        b = tl.load(right + n[None, :] * stride_bn + k[:, None], mask=(n[None, :] < N) & (k[:, None] < K), other=0)
        total += tl.dot(a, b)
    place = out + m[:, None] * stride_cm + n[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


def matmul_of_transposed(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right.T of contiguous matrices, tiles in groups of rows."""
    (rows, inner), columns = left.shape, right.shape[0]
    out = torch.empty((rows, columns), dtype=left.dtype, device=left.device)
    grid = (triton.cdiv(rows, 128) * triton.cdiv(columns, 64),)
    sizes = (rows, columns, inner, left.stride(0), right.stride(0), out.stride(0))
    grouped_order_matmul_kernel[grid](left, right, out, *sizes, BLOCK_M=128, BLOCK_N=64, BLOCK_K=64, GROUP=4)
    return out


@triton.jit
def attention_of_transposed_key_kernel(
    query, key, value, out, positions, scale, Q: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr
):
    tiles = tl.cdiv(positions, Q)
    start = (tl.program_id(0) // tiles) * positions * WIDTH
    rows = (tl.program_id(0) % tiles) * Q + tl.arange(0, Q)
    width, step = tl.arange(0, WIDTH), tl.arange(0, K)
    places = start + rows[:, None] * WIDTH + width[None, :]
    q = tl.load(query + places, mask=(rows < positions)[:, None], other=0.0) * (scale * 1.4426950408889634)
    largest = tl.full([Q], -float("inf"), tl.float32)
    weight = tl.full([Q], 1.0, tl.float32)
    mixture = tl.zeros([Q, WIDTH], tl.float32)
    for first in range(0, positions, K):
        inside = first + step < positions
        k = tl.load(key + start + width[:, None] + (first + step)[None, :] * WIDTH, mask=inside[None, :], other=0.0)
        score = tl.where(inside[None, :], tl.dot(q, k), -1.0e6)
        new_largest = tl.maximum(largest, tl.max(score, 1))
        power = tl.math.exp2(score - new_largest[:, None])
        shrink = tl.math.exp2(largest - new_largest)
        v = tl.load(value + start + (first + step)[:, None] * WIDTH + width[None, :], mask=inside[:, None], other=0.0)
        mixture = mixture * shrink[:, None] + tl.dot(power, v)
        weight = weight * shrink + tl.sum(power, 1)
        largest = new_largest
    tl.store(out + places, mixture / weight[:, None], mask=(rows < positions)[:, None])


def attention_of_transposed_key(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of contiguous heads x positions x width tensors to all positions."""
    out = torch.empty_like(query)
    heads, positions, width = query.shape
    grid = (triton.cdiv(positions, 64) * heads,)
    sizes = (positions, width**-0.5)
    attention_of_transposed_key_kernel[grid](query, key, value, out, *sizes, Q=64, K=32, WIDTH=width)
    return out
