"""Embedding bags: the sum, mean or maximum of some rows of a table for each bag, and the gradient of the table."""

import torch
import triton
import triton.language as tl

from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least

COLUMN_TILE = 256
SUM, MEAN, MAX = 0, 1, 2
TABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

aten = torch.ops.aten


@triton.jit
def _bags(
    table, indices, offsets, scales, out, bag_of, bag_size, largest_of,
    entries, bags, bags_end, rows, columns, table_row, padding,
    MODE: tl.constexpr, SCALED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One bag and some columns for each program; `bag_of` and `bag_size` are what the gradient wants to know."""
    bag = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns
    first = tl.load(offsets + bag)
    last = entries
    if bag + 1 < bags_end:
        last = tl.load(offsets + bag + 1).to(tl.int64)
    total = tl.zeros((COLUMNS,), tl.float32)
    if MODE == 2:
        total = tl.full((COLUMNS,), -float("inf"), tl.float32)
    chosen = tl.full((COLUMNS,), -1, tl.int64)
    size = tl.zeros((), tl.int64)
    for entry in range(first.to(tl.int64), last):
        row = tl.load(indices + entry).to(tl.int64)
        tl.device_assert((row >= 0) & (row < rows), "index out of range")
        tl.store(bag_of + entry, bag)
        if row != padding:
            value = tl.load(table + row * table_row + column, mask=inside, other=0.0).to(tl.float32)
            if SCALED:
                value *= tl.load(scales + entry).to(tl.float32)
            if MODE == 2:
                better = (value > total) | (chosen < 0)
                chosen = tl.where(better, row, chosen)
                total = tl.where(better, value, total)
            else:
                total += value
            size += 1
    if MODE == 1:
        total = total / tl.maximum(size, 1).to(tl.float32)
    if MODE == 2:
        total = tl.where(chosen < 0, 0.0, total)
        tl.store(largest_of + bag * columns + column, chosen, mask=inside)
    tl.store(out + bag * columns + column, total.to(out.dtype.element_ty), mask=inside)
    tl.store(bag_size + bag, size)


@triton.jit
def _gradient_of_table(
    gradient, indices, bag_of, bag_size, scales, out, columns, gradient_row, gradient_column, padding,
    MODE: tl.constexpr, SCALED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of an entry's bag to the entry's row, one entry and some columns for each program."""
    entry = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.load(indices + entry).to(tl.int64)
    bag = tl.load(bag_of + entry).to(tl.int64)
    value = tl.load(gradient + bag * gradient_row + column * gradient_column, mask=column < columns, other=0.0).to(
        tl.float32
    )
    if MODE == 1:
        value /= tl.maximum(tl.load(bag_size + bag), 1).to(tl.float32)
    if SCALED:
        value *= tl.load(scales + entry).to(tl.float32)
    tl.atomic_add(out + row * columns + column, value, mask=(column < columns) & (row != padding))


def embedding_bag(
    weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, scale_grad_by_freq: bool = False,
    mode: int = SUM, sparse: bool = False, per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    if weight.dtype not in TABLE_DTYPES or weight.stride(-1) != 1:
        result: tuple[torch.Tensor, ...] = otherwise(
            aten._embedding_bag.default, weight, indices, offsets, scale_grad_by_freq, mode, sparse,
            per_sample_weights, include_last_offset, padding_idx,
        )  # fmt: skip
        return result
    indices, offsets = indices.contiguous(), offsets.contiguous()
    scales = None if per_sample_weights is None else per_sample_weights.contiguous()
    rows, columns = weight.shape
    bags = offsets.shape[0] - int(include_last_offset)
    out = torch.empty((bags, columns), dtype=weight.dtype, device=weight.device)
    bag_of = torch.empty(indices.shape, dtype=offsets.dtype, device=weight.device)
    bag_size = torch.empty((bags,), dtype=offsets.dtype, device=weight.device)
    largest_of = torch.empty((bags, columns) if mode == MAX else (0,), dtype=offsets.dtype, device=weight.device)
    if bags:
        tile = min(COLUMN_TILE, power_of_two_at_least(columns))
        tensors = (weight, indices, offsets, weight if scales is None else scales, out, bag_of, bag_size, largest_of)
        launch = kernel(
            _bags,
            (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:7]),
            MODE=mode,
            SCALED=scales is not None,
            COLUMNS=tile,
        )
        words = (indices.shape[0], bags, offsets.shape[0], rows, columns, weight.stride(0), padding_idx)
        launch((ceil_div(columns, tile), bags, 1), (*(t.data_ptr() for t in tensors), *words))
    count("aten::_embedding_bag")
    return out, bag_of, bag_size, largest_of


def embedding_bag_backward(
    grad: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, offset2bag: torch.Tensor,
    bag_size: torch.Tensor, maximum_indices: torch.Tensor, num_weights: int, scale_grad_by_freq: bool, mode: int,
    sparse: bool, per_sample_weights: torch.Tensor | None, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    if sparse:
        raise NotImplementedError("embedding_bag(sparse=True): the chip has strided tensors only; use sparse=False")
    return embedding_bag_dense_backward(
        grad, indices, offset2bag, bag_size, maximum_indices, num_weights, scale_grad_by_freq, mode,
        per_sample_weights, padding_idx,
    )  # fmt: skip


def embedding_bag_dense_backward(
    grad: torch.Tensor, indices: torch.Tensor, offset2bag: torch.Tensor, bag_size: torch.Tensor,
    maximum_indices: torch.Tensor, num_weights: int, scale_grad_by_freq: bool, mode: int,
    per_sample_weights: torch.Tensor | None, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    out = torch.zeros((num_weights, grad.shape[1]), dtype=torch.float32, device=grad.device)
    if scale_grad_by_freq or grad.dtype not in TABLE_DTYPES:
        result: torch.Tensor = otherwise(
            aten._embedding_bag_dense_backward.default, grad, indices, offset2bag, bag_size, maximum_indices,
            num_weights, scale_grad_by_freq, mode, per_sample_weights, padding_idx,
        )  # fmt: skip
        return result
    if mode == MAX:
        held = maximum_indices.reshape(-1, grad.shape[1])
        out.scatter_add_(0, held.clamp(min=0), torch.where(held < 0, 0.0, grad.float()))
    elif indices.numel():
        scales = None if per_sample_weights is None else per_sample_weights.contiguous()
        tile = min(COLUMN_TILE, power_of_two_at_least(grad.shape[1]))
        indices, offset2bag = indices.contiguous(), offset2bag.contiguous()
        tensors = (grad, indices, offset2bag, bag_size, grad if scales is None else scales, out)
        launch = kernel(
            _gradient_of_table,
            (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:4]),
            MODE=mode,
            SCALED=scales is not None,
            COLUMNS=tile,
        )
        words = (grad.shape[1], *grad.stride(), padding_idx)
        launch((ceil_div(grad.shape[1], tile), indices.shape[0], 1), (*(t.data_ptr() for t in tensors), *words))
    count("aten::_embedding_bag_dense_backward")
    return out.to(grad.dtype)
