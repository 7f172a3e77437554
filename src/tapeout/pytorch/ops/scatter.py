"""Elements reduced into the places that an index names: scatter_reduce, index_reduce and their sums.

Sums of float32 are Inductor's, whose atomic additions know few types. Everything else goes element by element along the
dimension, in the host's order; the columns beside each other are independent and run side by side.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least

COLUMN_TILE = 1024
EXACT_IN_FLOAT32 = 1 << 24
COMPUTED_IN = {torch.bool: torch.int32, torch.float16: torch.float32, torch.bfloat16: torch.float32}


@triton.jit
def _reduce_columns(
    out, index, source, start, size, rows, columns, out_step,
    OPERATION: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """out[start[c] + index[r, c] * out_step] takes in source[r, c], r ascending."""
    column = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    live = column < columns
    first = tl.load(start + column, mask=live, other=0)
    for row in range(rows):
        chosen = tl.load(index + row * columns + column, mask=live, other=0)
        tl.device_assert((chosen >= 0) & (chosen < size), "index out of range")
        place = first + chosen * out_step
        value = tl.load(source + row * columns + column, mask=live)
        old = tl.load(out + place, mask=live)
        if OPERATION == "sum":
            new = old + value
        elif OPERATION == "prod":
            new = old * value
        elif OPERATION == "amax":
            new = tl.where((old != old) | (old > value), old, value)
        else:
            new = tl.where((old != old) | (old < value), old, value)
        tl.store(out + place, new, mask=live)


def scatter_add_out(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor, *, out: torch.Tensor
) -> torch.Tensor:
    if self.dtype == torch.float32:
        return otherwise(torch.ops.aten.scatter_add.out, self, dim, index, src, out=out)
    count("aten::scatter_add")
    return _into(out, self, dim, index, src, "sum", True)


def index_add_out(
    self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1, out: torch.Tensor
) -> torch.Tensor:
    if self.dtype == torch.float32:
        return otherwise(torch.ops.aten.index_add.out, self, dim, index, source, alpha=alpha, out=out)
    count("aten::index_add")
    return _into(out, self, dim, _for_each(index, source, dim), source if alpha == 1 else source * alpha, "sum", True)


def scatter_reduce_out(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor, reduce: str, *,
    include_self: bool = True, out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    count("aten::scatter_reduce")
    return _into(out, self, dim, index, src, reduce, include_self)


def index_reduce_out(
    self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *,
    include_self: bool = True, out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    count("aten::index_reduce")
    return _into(out, self, dim, _for_each(index, source, dim), source, reduce, include_self)


def _for_each(index: torch.Tensor, source: torch.Tensor, dim: int) -> torch.Tensor:
    """The index of each element from those of the slices along a dimension."""
    if source.dim() == 0:
        return index.reshape(())
    shape = [1] * source.dim()
    shape[dim] = index.numel()
    return index.reshape(shape).expand(source.shape)


def _into(
    out: torch.Tensor, self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str,
    include_self: bool,
) -> torch.Tensor:  # fmt: skip
    if out.shape != self.shape:
        out.resize_(self.shape)
    if index.numel() == 0:
        return out.copy_(self)
    if self.dim() == 0:
        flat = _reduced(self.reshape(1), 0, index.reshape(1), source.reshape(1), reduce, include_self)
        return out.copy_(flat.reshape(()))
    source = source[tuple(slice(size) for size in index.shape)]
    return out.copy_(_reduced(self, dim % self.dim(), index.to(torch.int64), source, reduce, include_self))


def _reduced(
    self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, include_self: bool
) -> torch.Tensor:
    compute = COMPUTED_IN.get(self.dtype, self.dtype)
    found, source = self.to(compute), source.to(compute)
    counted_in = torch.float32 if index.shape[dim] < EXACT_IN_FLOAT32 else torch.int32
    taken = torch.zeros(self.shape, dtype=counted_in, device=self.device)
    if reduce == "mean" or not include_self:
        taken.scatter_add_(dim, index, torch.ones(index.shape, dtype=counted_in, device=self.device))
    if not include_self:
        found = torch.where(taken > 0, _neutral(reduce, compute), found)
    found = found.contiguous()
    if reduce in ("sum", "mean") and compute == torch.float32:
        found = found.scatter_add(dim, index, source)
    else:
        found = found.clone() if found.data_ptr() == self.data_ptr() else found
        _reduce_along(found, dim, index, source, "sum" if reduce == "mean" else reduce)
    if reduce == "mean":
        parts = (taken + 1 if include_self else taken.clamp(min=1)).to(compute)
        found = found / parts if compute.is_floating_point else torch.div(found, parts, rounding_mode="floor")
    return found


def _neutral(reduce: str, dtype: torch.dtype) -> float:
    """The value that a reduction starts from."""
    if reduce in ("sum", "mean", "prod"):
        return float(reduce == "prod") if dtype.is_floating_point else int(reduce == "prod")
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    limits = torch.iinfo(dtype)
    return limits.min if reduce == "amax" else limits.max


def _reduce_along(found: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, operation: str) -> None:
    """Into `found`, which is contiguous."""
    rows, columns = index.shape[dim], index.numel() // index.shape[dim]
    start = _offsets([*index.shape[:dim], *index.shape[dim + 1 :]], [*found.stride()[:dim], *found.stride()[dim + 1 :]])
    index, source = (tensor.movedim(dim, 0).contiguous() for tensor in (index, source))
    tile = min(COLUMN_TILE, power_of_two_at_least(columns))
    launch = kernel(
        _reduce_columns,
        (POINTER[found.dtype], POINTER[torch.int64], POINTER[source.dtype], POINTER[torch.int64], *INTEGERS[:4]),
        OPERATION=operation,
        TILE=tile,
    )
    places = start.to(found.device)
    words = (
        found.data_ptr(), index.data_ptr(), source.data_ptr(), places.data_ptr(),
        found.shape[dim], rows, columns, found.stride(dim),
    )  # fmt: skip
    launch((ceil_div(columns, tile), 1, 1), words)


def _offsets(shape: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
    """Return where the elements of a tensor of that shape lie, one after the other."""
    places = torch.zeros(1, dtype=torch.int64)
    for size, stride in zip(shape, strides, strict=True):
        places = (places.unsqueeze(-1) + torch.arange(size) * stride).reshape(-1)
    return places
