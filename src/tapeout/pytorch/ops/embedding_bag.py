"""Embedding bags: the sum, mean or maximum of some rows of a table for each bag, and the gradient of the table."""

from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least
from tapeout.pytorch.ops.tiles import rows_tile
from tapeout.runtime import session

COLUMN_TILE = 256
SUM, MEAN, MAX = 0, 1, 2
TABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

aten = torch.ops.aten


@triton.jit
def _entries(indices, first, length, n):
    """Return which of some entries of each bag exist, and the rows they name."""
    there = n[None, :] < length[:, None]
    return there, tl.load(indices + (first[:, None] + n[None, :]), mask=there, other=0).to(tl.int64)


@triton.jit
def _places(there, row, rows, table_row, padding):
    """Return where the rows of some entries begin, which of them count, and which are wrong."""
    right = there & (row.to(tl.uint64) < rows)
    return row * table_row, right & (row != padding), there ^ right


@triton.jit
def _rows(
    start, counts, first, length, bag, n, table, scales, bag_of, column, columns,
    SCALED: tl.constexpr, NOTED: tl.constexpr, WHOLE: tl.constexpr, BAGS: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """The rows of some entries of each bag: (bags, entries, columns), zero for an entry that does not count."""
    entry = first[:, None] + n[None, :]
    if NOTED:
        tl.store(bag_of + entry, tl.broadcast_to(bag[:, None], (BAGS, ENTRIES)), mask=n[None, :] < length[:, None])
    mask = counts[:, :, None]
    if not WHOLE:
        mask = mask & (column < columns)[None, None, :]
    value = tl.load(table + start[:, :, None] + column[None, None, :], mask=mask, other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(scales + entry, mask=counts, other=0.0).to(tl.float32)[:, :, None]
    return value


@triton.jit
def _add(total, chosen, value, counts, row, MODE: tl.constexpr, BAGS: tl.constexpr, COLUMNS: tl.constexpr):
    """The rows of some entries of each bag taken into its result."""
    if MODE == 2:
        value = tl.reshape(value, (BAGS, COLUMNS))
        better = counts & ((value > total) | (chosen < 0))
        total = tl.where(better, value, total)
        chosen = tl.where(better, row, chosen)
    else:
        one, other = tl.split(tl.permute(value, (0, 2, 1)))
        total = total + one + other
    return total, chosen


@triton.jit
def _bags(
    table, indices, offsets, scales, out, bag_of, bag_size, largest_of,
    entries, bags, bags_end, rows, columns, table_row, padding, even,
    MODE: tl.constexpr, SCALED: tl.constexpr, NOTED: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr,
    BAGS: tl.constexpr, COLUMNS: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Some bags and some columns for each program; `bag_of` (if NOTED) and `bag_size` are what the gradient wants to
    know. Twice ENTRIES of every bag at a time (2, of a maximum 1). Before rows have come, the places of the next are
    worked out, and the indices of those after these asked for, so that the rows of the next are on their way while
    these are added. WHOLE: a tile has all columns and no more, so that a row is one piece of memory. EVEN: every bag
    has `even` entries, and the offsets are not read."""
    bag = tl.program_id(1).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    is_bag = bag < bags
    if EVEN:
        first = bag * even
        length = tl.where(is_bag, even, 0)
        longest = even
    else:
        first = tl.load(offsets + bag, mask=is_bag, other=0).to(tl.int64)
        last = tl.load(offsets + bag + 1, mask=bag + 1 < bags_end, other=0).to(tl.int64)
        last = tl.where(bag + 1 < bags_end, last, entries)
        length = tl.where(is_bag, last - first, 0)
        longest = tl.max(length, 0)
    total = tl.zeros((BAGS, COLUMNS), tl.float32)
    chosen = 0
    if MODE == 2:
        total = tl.full((BAGS, COLUMNS), -float("inf"), tl.float32)
        chosen = tl.full((BAGS, COLUMNS), -1, tl.int64)
    sizes = tl.zeros((BAGS, ENTRIES), tl.int32)
    wrong = tl.broadcast_to((is_bag & (first < 0))[:, None], (BAGS, ENTRIES))
    n = tl.arange(0, ENTRIES)
    there, row = _entries(indices, first, length, n)
    start, counts, wrong_now = _places(there, row, rows, table_row, padding)
    wrong |= wrong_now
    there_1, row_1 = _entries(indices, first, length, n + ENTRIES)
    there_2, row_2 = _entries(indices, first, length, n + 2 * ENTRIES)
    for done in range(0, longest, 2 * ENTRIES):
        value = _rows(
            start, counts, first, length, bag, n + done, table, scales, bag_of, column, columns,
            SCALED, NOTED, WHOLE, BAGS, ENTRIES,
        )  # fmt: skip
        start_1, counts_1, wrong_now = _places(there_1, row_1, rows, table_row, padding)
        value_1 = _rows(
            start_1, counts_1, first, length, bag, n + (done + ENTRIES), table, scales, bag_of, column, columns,
            SCALED, NOTED, WHOLE, BAGS, ENTRIES,
        )  # fmt: skip
        wrong |= wrong_now
        sizes += counts.to(tl.int32) + counts_1.to(tl.int32)
        total, chosen = _add(total, chosen, value, counts, row, MODE, BAGS, COLUMNS)
        row_now = row_1
        there_1, row_1 = _entries(indices, first, length, n + (done + 3 * ENTRIES))
        start, counts, wrong_now = _places(there_2, row_2, rows, table_row, padding)
        wrong |= wrong_now
        row = row_2
        there_2, row_2 = _entries(indices, first, length, n + (done + 4 * ENTRIES))
        total, chosen = _add(total, chosen, value_1, counts_1, row_now, MODE, BAGS, COLUMNS)
    tl.device_assert(wrong == 0, "index out of range")
    size = tl.sum(sizes, 1).to(tl.int64)
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
        if session.timing_only:
            assert session.clock is not None
            session.clock.assume("aten::_embedding_bag: all bags are taken to be of the same length")
        bag_tile, tile = rows_tile(chips.active(), bags, columns)
        tensors = (weight, indices, offsets, weight if scales is None else scales, out, bag_of, bag_size, largest_of)
        launch = kernel(
            _bags,
            (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:8]),
            MODE=mode,
            SCALED=scales is not None,
            NOTED=has_gradient,
            WHOLE=tile == columns,
            EVEN=session.timing_only,
            BAGS=bag_tile,
            COLUMNS=tile,
            ENTRIES=1 if mode == MAX else 2,
        )
        even = ceil_div(indices.shape[0], bags)
        words = (indices.shape[0], bags, offsets.shape[0], rows, columns, weight.stride(0), padding_idx, even)
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
