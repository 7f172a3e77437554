"""Embedding bags: the sum, mean or maximum of some rows of a table for each bag, and the gradient of the table."""

from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least
from tapeout.pytorch.ops.tiles import rows_tile

COLUMN_TILE = 256
SUM, MEAN, MAX = 0, 1, 2
TABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

aten = torch.ops.aten


@triton.jit
def _entry(indices, entry, last, rows, table_row, padding):
    """The row of one entry of each bag, where it begins, whether it counts, and whether it is wrong."""
    there = entry < last
    row = tl.load(indices + entry, mask=there, other=0).to(tl.int64)
    is_row = (row >= 0) & (row < rows)
    return row, row * table_row, there & is_row & (row != padding), there & (is_row == 0)


@triton.jit
def _add(
    total, chosen, size, row, start, counts, entry, last, bag, table, scales, bag_of, column, columns,
    MODE: tl.constexpr, SCALED: tl.constexpr, NOTED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Takes one entry of each bag, where it has one, into the bag's result."""
    if NOTED:
        tl.store(bag_of + entry, bag, mask=entry < last)
    mask = counts[:, None]
    if not WHOLE:
        mask = mask & (column < columns)[None, :]
    value = tl.load(table + start[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(scales + entry, mask=entry < last, other=0.0).to(tl.float32)[:, None]
    if MODE == 2:
        better = counts[:, None] & ((value > total) | (chosen < 0))
        chosen = tl.where(better, row[:, None], chosen)
        total = tl.where(better, value, total)
    else:
        total += value
    return total, chosen, size + counts.to(tl.int64)


@triton.jit
def _bags(
    table, indices, offsets, scales, out, bag_of, bag_size, largest_of,
    entries, bags, bags_end, rows, columns, table_row, padding,
    MODE: tl.constexpr, SCALED: tl.constexpr, NOTED: tl.constexpr, WHOLE: tl.constexpr,
    BAGS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some bags and some columns for each program; `bag_of` (if NOTED) and `bag_size` are what the gradient wants to
    know. Two entries of every bag at a time; the places of the next two are worked out before these rows have come.
    WHOLE: a tile has all columns and no more, so that a row is one piece of memory."""
    bag = tl.program_id(1).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    is_bag = bag < bags
    first = tl.load(offsets + bag, mask=is_bag, other=0).to(tl.int64)
    last = tl.load(offsets + bag + 1, mask=bag + 1 < bags_end, other=0).to(tl.int64)
    last = tl.where(bag + 1 < bags_end, last, entries)
    last = tl.where(is_bag, last, first)
    total = tl.zeros((BAGS, COLUMNS), tl.float32)
    if MODE == 2:
        total = tl.full((BAGS, COLUMNS), -float("inf"), tl.float32)
        chosen = tl.full((BAGS, COLUMNS), -1, tl.int64)
    else:
        chosen = tl.full((BAGS, 1), -1, tl.int64)
    size = tl.zeros((BAGS,), tl.int64)
    wrong = is_bag & (first < 0)
    longest = tl.max(last - first, 0)
    row_0, start_0, counts_0, wrong_0 = _entry(indices, first + 0, last, rows, table_row, padding)
    row_1, start_1, counts_1, wrong_1 = _entry(indices, first + 1, last, rows, table_row, padding)
    for n in range(0, longest, 2):
        entry = first + n
        wrong = wrong | wrong_0 | wrong_1
        next_row_0, next_start_0, next_counts_0, wrong_0 = _entry(indices, entry + 2, last, rows, table_row, padding)
        next_row_1, next_start_1, next_counts_1, wrong_1 = _entry(indices, entry + 3, last, rows, table_row, padding)
        total, chosen, size = _add(
            total, chosen, size, row_0, start_0, counts_0, entry + 0, last, bag, table, scales, bag_of,
            column, columns, MODE, SCALED, NOTED, WHOLE,
        )  # fmt: skip
        total, chosen, size = _add(
            total, chosen, size, row_1, start_1, counts_1, entry + 1, last, bag, table, scales, bag_of,
            column, columns, MODE, SCALED, NOTED, WHOLE,
        )  # fmt: skip
        row_0, start_0, counts_0 = next_row_0, next_start_0, next_counts_0
        row_1, start_1, counts_1 = next_row_1, next_start_1, next_counts_1
    tl.device_assert(wrong == 0, "index out of range")
    inside = is_bag[:, None] & (column < columns)[None, :]
    if MODE == 1:
        total = total / tl.maximum(size, 1).to(tl.float32)[:, None]
    if MODE == 2:
        total = tl.where(chosen < 0, 0.0, total)
        tl.store(largest_of + bag[:, None] * columns + column[None, :], chosen, mask=inside)
    tl.store(out + bag[:, None] * columns + column[None, :], total.to(out.dtype.element_ty), mask=inside)
    tl.store(bag_size + bag, size, mask=is_bag)


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


def embedding_bag_forward_only(*arguments: Any, **options: Any) -> tuple[torch.Tensor, ...]:
    """Without what only the gradient wants to know, which bag each entry is in: there is room for it, not filled."""
    return embedding_bag(*arguments, **options, has_gradient=False)


def embedding_bag(
    weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, scale_grad_by_freq: bool = False,
    mode: int = SUM, sparse: bool = False, per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int = -1, *, has_gradient: bool = True,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    if weight.dtype not in TABLE_DTYPES or weight.stride(-1) != 1:
        result: tuple[torch.Tensor, ...] = otherwise(
            aten._embedding_bag.default, weight, indices, offsets, scale_grad_by_freq, mode, sparse,
            per_sample_weights, include_last_offset, padding_idx,
        )  # fmt: skip
        return _in_the_form_of_devices(result, indices, offsets, mode)
    indices, offsets = indices.contiguous(), offsets.contiguous()
    scales = None if per_sample_weights is None else per_sample_weights.contiguous()
    rows, columns = weight.shape
    bags = offsets.shape[0] - int(include_last_offset)
    out = torch.empty((bags, columns), dtype=weight.dtype, device=weight.device)
    bag_of = torch.empty(indices.shape, dtype=offsets.dtype, device=weight.device)
    # As long as torch has it on devices: with `include_last_offset` its last element is of no bag, and not written.
    bag_size = torch.empty(offsets.shape, dtype=offsets.dtype, device=weight.device)
    largest_of = torch.empty((bags, columns) if mode == MAX else (0,), dtype=offsets.dtype, device=weight.device)
    if bags:
        bag_tile, tile = rows_tile(chips.active(), bags, columns)
        tensors = (weight, indices, offsets, weight if scales is None else scales, out, bag_of, bag_size, largest_of)
        launch = kernel(
            _bags,
            (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:7]),
            MODE=mode,
            SCALED=scales is not None,
            NOTED=has_gradient,
            WHOLE=tile == columns,
            BAGS=bag_tile,
            COLUMNS=tile,
        )
        words = (indices.shape[0], bags, offsets.shape[0], rows, columns, weight.stride(0), padding_idx)
        launch((ceil_div(columns, tile), ceil_div(bags, bag_tile), 1), (*(t.data_ptr() for t in tensors), *words))
    count("aten::_embedding_bag")
    return out, bag_of, bag_size, largest_of


def _in_the_form_of_devices(
    on_host: tuple[torch.Tensor, ...], indices: torch.Tensor, offsets: torch.Tensor, mode: int
) -> tuple[torch.Tensor, ...]:
    """The host's results, in the shapes that torch expects of every device but the CPU."""
    out, bag_of, bag_size, largest_of = on_host
    if bag_of.shape != indices.shape:
        entry = torch.arange(indices.shape[0], dtype=offsets.dtype, device=offsets.device)
        bag_of = torch.searchsorted(offsets, entry, right=True, out_int32=offsets.dtype == torch.int32) - 1
    bag_size = torch.nn.functional.pad(bag_size, (0, offsets.shape[0] - bag_size.shape[0]))
    return out, bag_of, bag_size, largest_of if mode == MAX else largest_of[:0]


def embedding_bag_backward(
    grad: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, offset2bag: torch.Tensor,
    bag_size: torch.Tensor, maximum_indices: torch.Tensor, num_weights: int, scale_grad_by_freq: bool, mode: int,
    sparse: bool, per_sample_weights: torch.Tensor | None, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    if sparse:
        gradient: torch.Tensor = aten._embedding_bag_sparse_backward(
            grad, indices, offsets, offset2bag, bag_size, num_weights, scale_grad_by_freq, mode, per_sample_weights,
            padding_idx,
        )  # fmt: skip
        return gradient
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
