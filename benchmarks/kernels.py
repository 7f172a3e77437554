"""Triton kernels as people write them for GPUs: vector add, softmax, matrix product, causal flash attention.

Each comes with a function that launches it on tensors of any device Triton has a back end for (with
TRITON_INTERPRET=1: on CPU tensors) and with the same computation in PyTorch to compare with.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(left, right, out, length, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < length
    total = tl.load(left + offsets, mask=inside) + tl.load(right + offsets, mask=inside)
    tl.store(out + offsets, total, mask=inside)


def add(left: torch.Tensor, right: torch.Tensor, block: int = 1024) -> torch.Tensor:
    out = torch.empty_like(left)
    add_kernel[(triton.cdiv(left.numel(), block),)](left, right, out, left.numel(), BLOCK=block)
    return out


@triton.jit
def softmax_kernel(values, out, row_stride, column_count, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < column_count
    line = tl.load(values + row * row_stride + columns, mask=inside, other=float("-inf"))
    powers = tl.exp(line - tl.max(line, axis=0))
    tl.store(out + row * row_stride + columns, powers / tl.sum(powers, axis=0), mask=inside)


def softmax(values: torch.Tensor) -> torch.Tensor:
    """Softmax of each row of a contiguous matrix."""
    out = torch.empty_like(values)
    rows, columns = values.shape
    block = triton.next_power_of_2(columns)
    softmax_kernel[(rows,)](values, out, values.stride(0), columns, BLOCK=block)
    return out


@triton.jit
def matmul_kernel(
    left,
    right,
    out,
    row_count,
    column_count,
    inner_count,
    left_row_stride,
    left_inner_stride,
    right_inner_stride,
    right_column_stride,
    out_row_stride,
    out_column_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    left_tile = left + rows[:, None] * left_row_stride + inner[None, :] * left_inner_stride
    right_tile = right + inner[:, None] * right_inner_stride + columns[None, :] * right_column_stride
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner_count, INNER):
        left_inside = (rows[:, None] < row_count) & (inner[None, :] < inner_count - start)
        right_inside = (inner[:, None] < inner_count - start) & (columns[None, :] < column_count)
        a = tl.load(left_tile, mask=left_inside, other=0.0)
        b = tl.load(right_tile, mask=right_inside, other=0.0)
        total = tl.dot(a, b, total)
        left_tile += INNER * left_inner_stride
        right_tile += INNER * right_inner_stride
    place = out + rows[:, None] * out_row_stride + columns[None, :] * out_column_stride
    inside = (rows[:, None] < row_count) & (columns[None, :] < column_count)
    tl.store(place, total.to(out.dtype.element_ty), mask=inside)


def matmul(left: torch.Tensor, right: torch.Tensor, tile: tuple[int, int, int] = (64, 64, 32)) -> torch.Tensor:
    """`left @ right` in output tiles of rows x columns, `tile[2]` products at a time."""
    rows, inner = left.shape
    columns = right.shape[1]
    out = torch.empty((rows, columns), dtype=left.dtype, device=left.device)
    grid = (triton.cdiv(rows, tile[0]), triton.cdiv(columns, tile[1]))
    strides = (*left.stride(), *right.stride(), *out.stride())
    matmul_kernel[grid](left, right, out, rows, columns, inner, *strides, ROWS=tile[0], COLUMNS=tile[1], INNER=tile[2])
    return out


@triton.jit
def attention_kernel(
    query,
    key,
    value,
    out,
    head_stride,
    position_stride,
    position_count,
    scale,
    POSITIONS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    head = tl.program_id(1) * head_stride
    first = tl.program_id(0) * POSITIONS
    rows = first + tl.arange(0, POSITIONS)
    width = tl.arange(0, WIDTH)
    row_places = head + rows[:, None] * position_stride + width[None, :]
    row_inside = rows[:, None] < position_count
    q = tl.load(query + row_places, mask=row_inside, other=0.0)

    largest = tl.full((POSITIONS,), float("-inf"), tl.float32)
    weight = tl.zeros((POSITIONS,), tl.float32)
    mixture = tl.zeros((POSITIONS, WIDTH), tl.float32)
    for start in range(0, first + POSITIONS, POSITIONS):
        columns = start + tl.arange(0, POSITIONS)
        places = head + columns[:, None] * position_stride + width[None, :]
        inside = columns[:, None] < position_count
        k = tl.load(key + places, mask=inside, other=0.0)
        v = tl.load(value + places, mask=inside, other=0.0)
        score = tl.dot(q, tl.trans(k)) * scale
        score = tl.where(rows[:, None] >= columns[None, :], score, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(score, axis=1))
        power = tl.exp(score - new_largest[:, None])
        shrink = tl.exp(largest - new_largest)
        weight = weight * shrink + tl.sum(power, axis=1)
        mixture = tl.dot(power.to(v.dtype), v, mixture * shrink[:, None])
        largest = new_largest
    tl.store(out + row_places, (mixture / weight[:, None]).to(out.dtype.element_ty), mask=row_inside)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block: int = 64) -> torch.Tensor:
    """Causal attention of contiguous heads x positions x width tensors, without storing the scores."""
    out = torch.empty_like(query)
    heads, positions, width = query.shape
    attention_kernel[(triton.cdiv(positions, block), heads)](
        query,
        key,
        value,
        out,
        query.stride(0),
        query.stride(1),
        positions,
        width**-0.5,
        POSITIONS=block,
        WIDTH=width,
    )
    return out
