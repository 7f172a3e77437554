"""Operators that follow from an order (kthvalue, median, mode, unique) or count (bincount, repeat_interleave).

Made of other operators of the chip, most of all of sort. Where a result's size depends on values, these come to the
host as they would on a GPU.
"""

from typing import Any

import torch

from tapeout.pytorch.ops.elementwise import TRITON_DTYPES
from tapeout.pytorch.ops.launch import count, otherwise

LONGEST_KEY = 64  # columns that unique_dim sorts by

aten = torch.ops.aten
Pair = tuple[torch.Tensor, torch.Tensor]


def _pick(order: Any, place: torch.Tensor | int, dim: int, keepdim: bool) -> Pair:
    """Values and indices at one place of a sort's result, a number or one for each row."""
    parts = []
    for part in order:
        picked = part.narrow(dim, place, 1) if isinstance(place, int) else part.gather(dim, place)
        parts.append(picked if keepdim else picked.squeeze(dim))
    return parts[0], parts[1]


def _put(found: Pair, values: torch.Tensor, indices: torch.Tensor) -> Pair:
    for part, out in zip(found, (values, indices), strict=True):
        if out.shape != part.shape:
            out.resize_(part.shape)
        out.copy_(part)
    return values, indices


def _is_ours(self: torch.Tensor, dim: int) -> bool:
    return self.dtype in TRITON_DTYPES and self.dim() > 0 and self.shape[dim] > 0


def kthvalue_out(
    self: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False, *, values: torch.Tensor, indices: torch.Tensor
) -> Pair:
    if not _is_ours(self, dim) or not 0 < k <= self.shape[dim]:
        otherwise(aten.kthvalue.values, self, k, dim, keepdim, values=values, indices=indices)
        return values, indices
    count("aten::kthvalue")
    return _put(_pick(self.sort(dim=dim, stable=True), k - 1, dim, keepdim), values, indices)


def _median(self: torch.Tensor, dim: int, keepdim: bool, ignore_nan: bool) -> Pair:
    """The lower one of two medians. The first NaN, if there is any that is not to be ignored."""
    order = self.sort(dim=dim, stable=True)
    size = self.shape[dim]
    if not self.is_floating_point():
        return _pick(order, (size - 1) // 2, dim, keepdim)
    numbers = (order[0] == order[0]).sum(dim, keepdim=True)
    middle = (numbers - 1).clamp(min=0) // 2
    return _pick(order, middle if ignore_nan else torch.where(numbers < size, numbers, middle), dim, keepdim)


def _median_of_dim(operator: Any, ignore_nan: bool) -> Any:
    def run(
        self: torch.Tensor, dim: int, keepdim: bool = False, *, values: torch.Tensor, indices: torch.Tensor
    ) -> Pair:
        if not _is_ours(self, dim):
            otherwise(operator, self, dim, keepdim, values=values, indices=indices)
            return values, indices
        count(operator._schema.name)
        return _put(_median(self, dim, keepdim, ignore_nan), values, indices)

    return run


def _median_of_all(operator: Any, ignore_nan: bool) -> Any:
    def run(self: torch.Tensor) -> torch.Tensor:
        if self.dtype not in TRITON_DTYPES or self.numel() == 0:
            result: torch.Tensor = otherwise(operator, self)
            return result
        count(operator._schema.name)
        return _median(self.reshape(-1), 0, False, ignore_nan)[0]

    return run


median_dim_out = _median_of_dim(aten.median.dim_values, ignore_nan=False)
nanmedian_dim_out = _median_of_dim(aten.nanmedian.dim_values, ignore_nan=True)
median = _median_of_all(aten.median.default, ignore_nan=False)
nanmedian = _median_of_all(aten.nanmedian.default, ignore_nan=True)


def mode(self: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Pair:
    """The most frequent value, the smallest of several, and the place of its last occurrence."""
    if not _is_ours(self, dim):
        result: Pair = otherwise(aten.mode.default, self, dim, keepdim)
        return result
    order = self.movedim(dim, -1).sort(dim=-1, stable=True)
    values = order[0]
    place = torch.arange(values.shape[-1], device=values.device).expand(values.shape)
    is_first = _differs_from_previous(values, -1)
    run_length = place - torch.where(is_first, place, 0).cummax(-1).values
    found = _pick(order, run_length.argmax(-1, keepdim=True), -1, True)
    count("aten::mode")
    kept = [part.movedim(-1, dim) for part in found]
    return (kept[0], kept[1]) if keepdim else (kept[0].squeeze(dim), kept[1].squeeze(dim))


def _differs_from_previous(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return whether an element is another than the one before it along the dimension; the first one is."""
    is_first = torch.ones(values.shape, dtype=torch.bool, device=values.device)
    size = values.shape[dim]
    if size > 1:
        later = values.narrow(dim, 1, size - 1) != values.narrow(dim, 0, size - 1)
        is_first.narrow(dim, 1, size - 1).copy_(later)
    return is_first


def _groups(is_first: torch.Tensor, with_counts: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return, for runs given by their first elements: where they start, which one each element is in, and their
    lengths."""
    starts = is_first.nonzero().squeeze(1)
    group = is_first.cumsum(0) - 1
    lengths = torch.empty(0, dtype=torch.int64, device=is_first.device)
    if with_counts:
        end = torch.full((1,), is_first.shape[0], device=is_first.device)
        lengths = torch.cat([starts, end]).diff()
    return starts, group, lengths


def _none(like: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.int64, device=like.device)


def unique2(
    self: torch.Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if self.dtype not in TRITON_DTYPES or self.numel() == 0:
        result: tuple[torch.Tensor, ...] = otherwise(aten._unique2.default, self, sorted, return_inverse, return_counts)
        return result[0], result[1], result[2]
    values, order = self.reshape(-1).sort(stable=True)
    starts, group, lengths = _groups(_differs_from_previous(values, 0), return_counts)
    inverse = torch.empty_like(order).index_copy_(0, order, group).view(self.shape) if return_inverse else _none(self)
    count("aten::_unique2")
    return values.index_select(0, starts), inverse, lengths


def unique_consecutive(
    self: torch.Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if self.dtype not in TRITON_DTYPES or self.numel() == 0:
        result: tuple[torch.Tensor, ...] = otherwise(
            aten.unique_consecutive.default, self, return_inverse, return_counts, dim
        )
        return result[0], result[1], result[2]
    source = self.reshape(-1) if dim is None else self.movedim(dim, 0)
    is_first = _differs_from_previous(source.reshape(source.shape[0], -1), 0).any(1)
    starts, group, lengths = _groups(is_first, return_counts)
    values = source.index_select(0, starts)
    count("aten::unique_consecutive")
    inverse = (group.view(self.shape) if dim is None else group) if return_inverse else _none(self)
    return values if dim is None else values.movedim(0, dim), inverse, lengths


def unique_dim(
    self: torch.Tensor, dim: int, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = self.movedim(dim, 0).reshape(self.shape[dim], -1) if self.dim() and self.numel() else self
    if self.dtype not in TRITON_DTYPES or self.numel() == 0 or rows.shape[1] > LONGEST_KEY:
        result: tuple[torch.Tensor, ...] = otherwise(
            aten.unique_dim.default, self, dim, sorted, return_inverse, return_counts
        )
        return result[0], result[1], result[2]
    order = torch.arange(rows.shape[0], device=self.device)
    for column in reversed(rows.unbind(1)):  # stable: the leading column decides last
        order = order[column[order].argsort(stable=True)]
    starts, group, lengths = _groups(_differs_from_previous(rows[order], 0).any(1), return_counts)
    inverse = torch.empty_like(order).index_copy_(0, order, group) if return_inverse else _none(self)
    count("aten::unique_dim")
    return self.index_select(dim, order[starts]), inverse, lengths


def bincount(self: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    is_count = self.dim() == 1 and self.dtype in TRITON_DTYPES and not self.is_floating_point()
    if not is_count or self.numel() == 0 or minlength < 0 or (weights is not None and weights.shape != self.shape):
        result: torch.Tensor = otherwise(aten.bincount.default, self, weights, minlength)
        return result
    smallest, largest = torch.stack(self.aminmax()).tolist()
    if smallest < 0:
        raise RuntimeError(f"bincount counts integers from 0 on, and one of these is {smallest}")
    is_plain = weights is None
    if weights is None:
        weights = torch.ones(self.shape, dtype=torch.int32, device=self.device)
    elif weights.dtype != torch.float32:
        weights = weights.double()
    bins = torch.zeros(max(largest + 1, minlength), dtype=weights.dtype, device=self.device)
    bins.scatter_add_(0, self.long(), weights)
    count("aten::bincount")
    return bins.long() if is_plain else bins


def repeat_interleave(repeats: torch.Tensor, *, output_size: int | None = None) -> torch.Tensor:
    """Each index as often as `repeats` says."""
    if repeats.numel() == 0 or repeats.dim() != 1:
        result: torch.Tensor = otherwise(aten.repeat_interleave.Tensor, repeats, output_size=output_size)
        return result
    ends = repeats.cumsum(0)
    smallest, total = torch.stack([repeats.min().long(), ends[-1]]).tolist()
    if smallest < 0:
        raise RuntimeError(f"repeats are counts, and one of these is {smallest}")
    count("aten::repeat_interleave")
    return torch.searchsorted(ends, torch.arange(total, device=repeats.device), right=True).to(repeats.dtype)
