"""Selecting rows, ranges and membership: index_select, embedding, index with one index tensor, arange, isin."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.elementwise import COMPUTE_DTYPES, SCALAR_TYPES, TRITON_DTYPES
from tapeout.pytorch.ops.launch import (
    INTEGERS,
    POINTER,
    ceil_div,
    count,
    kernel,
    otherwise,
    power_of_two_at_least,
    refuse_as_the_host_does,
)
from tapeout.pytorch.ops.tiles import gathered_rows_tile

ROW_TILE = 16
COLUMN_TILE = 256
RANGE_TILE = 4096

aten = torch.ops.aten


@triton.jit
def _rows(
    source, index, out, size, rows, columns, source_row, index_step, share,
    WRAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`share` rows a program. Indices come a turn before their rows, so that rows are always on their way. They are
    judged in the end; until then a wrong one counts as the nearest right one."""
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1).to(tl.int64) * share
    end = tl.minimum(first + share, rows)
    row = first + tl.arange(0, ROWS)
    chosen = tl.load(index + row * index_step, mask=row < end, other=0).to(tl.int64)
    wrong = tl.zeros((ROWS,), tl.int1)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        following = row + ROWS
        next_chosen = tl.load(index + following * index_step, mask=following < end, other=0).to(tl.int64)
        if WRAPS:
            chosen = tl.where(chosen < 0, chosen + size, chosen)
        wrong |= (chosen < 0) | (chosen >= size)
        place = tl.minimum(tl.maximum(chosen, 0), size - 1)
        inside = (row[:, None] < end) & (column[None, :] < columns) & (size > 0)
        value = tl.load(source + place[:, None] * source_row + column[None, :], mask=inside)
        tl.store(out + row[:, None] * columns + column[None, :], value, mask=inside)
        chosen = next_chosen
    tl.device_assert(wrong == 0, "index out of range")


@triton.jit
def _rows_into(
    out, index, source, size, outer_size, rows, columns,
    out_outer, out_row, out_column, source_outer, source_row, source_column, index_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[o, index[r], c] = source[o, r, c]."""
    outer = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    chosen = tl.load(index + row * index_step, mask=row < rows, other=0).to(tl.int64)
    tl.device_assert((chosen >= 0) & (chosen < size), "index out of range")
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    place = outer * source_outer + row[:, None] * source_row + column[None, :] * source_column
    value = tl.load(source + place, mask=inside)
    place = outer * out_outer + chosen[:, None] * out_row + column[None, :] * out_column
    tl.store(out + place, value, mask=inside)


@triton.jit
def _places_of(kept, places, found, size, TILE: tl.constexpr):
    """found[places[i] - 1] = i where kept[i]."""
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    chosen = tl.load(kept + i, mask=i < size, other=0) != 0
    tl.store(found + tl.load(places + i, mask=i < size, other=1) - 1, i, mask=chosen & (i < size))


@triton.jit
def _arange(out, start, start_rest, step, step_rest, size, TYPE: tl.constexpr, TILE: tl.constexpr):
    """The rests are what rounding took from a float's start and step."""
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    number = place.to(TYPE)
    if TYPE.is_int():
        value = start.to(TYPE) + number * step.to(TYPE)
    else:
        value = tl.fma(number, step, start) + tl.fma(number, step_rest, start_rest)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=place < size)


@triton.jit
def _integers_between(out, start, whole, rest, parts, size, TILE: tl.constexpr):
    """start + place * (whole + rest / parts), the fraction cut off; 0 <= rest < parts."""
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    product = place * rest
    value = start + place * whole + product // parts
    value = tl.where((value < 0) & (product % parts != 0), value + 1, value)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=place < size)


def gather_rows(source: torch.Tensor, index: torch.Tensor, *, wraps: bool = False) -> torch.Tensor | None:
    """source[index] for a vector of indices into the first dimension; None: not for this kernel. `wraps`: negative
    indices count from the end, otherwise they are out of range."""
    if source.dtype not in TRITON_DTYPES or index.dtype not in (torch.int64, torch.int32) or index.dim() != 1:
        return None
    if not source[:1].is_contiguous() or source.dim() == 0:
        return None
    out = torch.empty((index.shape[0], *source.shape[1:]), dtype=source.dtype, device="chip")
    if out.numel() == 0:
        return out
    rows, columns = index.shape[0], out.numel() // index.shape[0]
    row_tile, column_tile, share = gathered_rows_tile(chips.active(), rows, columns)
    launch = kernel(
        _rows,
        (POINTER[source.dtype], POINTER[index.dtype], POINTER[out.dtype], *INTEGERS[:6]),
        WRAPS=wraps,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (
        source.data_ptr(), index.data_ptr(), out.data_ptr(),
        source.shape[0], rows, columns, source.stride(0), index.stride(0), share,
    )  # fmt: skip
    launch((ceil_div(columns, column_tile), ceil_div(rows, share), 1), words)
    return out


def index_select(self: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    if index.dim() > 1:
        refuse_as_the_host_does(aten.index_select.default, self, dim, index)
    if self.dim() and dim % self.dim() == 0:
        out = gather_rows(self, index.reshape(-1))
        if out is not None:
            count("aten::index_select")
            return out
    return otherwise(aten.index_select.default, self, dim, index)


def embedding(
    weight: torch.Tensor,
    indices: torch.Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    out = gather_rows(weight, indices.reshape(-1))
    if out is None:
        return otherwise(aten.embedding.default, weight, indices, padding_idx, scale_grad_by_freq, sparse)
    count("aten::embedding")
    return out.view(*indices.shape, *weight.shape[1:])


def index_copy_out(
    self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, out: torch.Tensor
) -> torch.Tensor:
    operator = aten.index_copy.out
    fits = self.dtype in TRITON_DTYPES and self.dim() > 0 and index.dtype in (torch.int64, torch.int32)
    if not fits or out.shape != self.shape or not out.is_contiguous() or source.dim() != self.dim():
        return otherwise(operator, self, dim, index, source, out=out)
    if out.data_ptr() != self.data_ptr():
        out.copy_(self)
    if source.numel() == 0:
        return out
    dim = dim % self.dim()
    into, given = (t.flatten(0, dim - 1) if dim else t.unsqueeze(0) for t in (out, source))
    into, given = (t.flatten(2) if t.dim() > 2 else t.unsqueeze(-1) for t in (into, given))
    outer_size, rows, columns = given.shape
    row_tile = min(ROW_TILE, power_of_two_at_least(rows))
    column_tile = min(COLUMN_TILE, power_of_two_at_least(columns))
    launch = kernel(
        _rows_into,
        (POINTER[out.dtype], POINTER[index.dtype], POINTER[source.dtype], *INTEGERS[:11]),
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (
        into.data_ptr(), index.data_ptr(), given.data_ptr(), into.shape[1], outer_size, rows, columns,
        *into.stride(), *given.stride(), index.stride(0) if index.dim() else 0,
    )  # fmt: skip
    launch((ceil_div(columns, column_tile), ceil_div(rows, row_tile), outer_size), words)
    count("aten::index_copy")
    return out


def _without_masks(indices: list[torch.Tensor | None], device: torch.device) -> list[torch.Tensor | None]:
    """Indices on the chip, where those of a tensor there may lie on the host too. A mask is the indices of its true
    elements, one tensor for each of its dimensions."""
    expanded: list[torch.Tensor | None] = []
    for index in indices:
        if index is None:
            expanded.append(None)
        elif index.dtype in (torch.bool, torch.uint8):
            expanded += nonzero(index.to(device)).unbind(1)
        else:
            expanded.append(index.to(device))
    return expanded


def _fits(self: torch.Tensor, indices: list[torch.Tensor | None]) -> bool:
    """Return whether masks have the shapes of what they choose from, and the others are integers that broadcast."""
    place = 0
    shape: tuple[int, ...] = ()
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            if index.shape != self.shape[place : place + index.dim()]:
                return False
            place += index.dim()
            continue
        place += 1
        if index is None:
            continue
        if index.dtype not in (torch.int64, torch.int32) or not _broadcasts(index.shape, shape):
            return False
        shape = torch.broadcast_shapes(shape, index.shape)
    return place <= self.dim()


def _broadcasts(shape: Sequence[int], other: Sequence[int]) -> bool:
    return all(1 in (n, m) or n == m for n, m in zip(reversed(shape), reversed(other), strict=False))


def _chosen_shape(self: torch.Tensor, indices: list[torch.Tensor | None]) -> list[int]:
    """The shape of self[indices], of indices without masks."""
    places = [place for place, index in enumerate(indices) if index is not None]
    picked = torch.broadcast_shapes(*(index.shape for index in indices if index is not None))
    kept = [size for place, size in enumerate(self.shape) if place not in places]
    together = places == list(range(places[0], places[-1] + 1)) if places else False
    start = places[0] if together else 0
    return [*kept[:start], *picked, *kept[start:]]


def _expands(shape: Sequence[int], target: Sequence[int]) -> bool:
    sizes = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(own in (1, wanted) for own, wanted in sizes)


def index_tensor(self: torch.Tensor, indices: list[torch.Tensor | None]) -> torch.Tensor:
    """self[indices], by a kernel of our own where one tensor indexes the first dimension."""
    if not _fits(self, indices):
        refuse_as_the_host_does(aten.index.Tensor, self, indices)
    indices = _without_masks(indices, self.device)
    first = indices[0] if indices else None
    if first is not None and all(other is None for other in indices[1:]):
        out = gather_rows(self, first.reshape(-1), wraps=True) if first.dtype != torch.bool else None
        if out is not None:
            count("aten::index")
            return out.view(*first.shape, *self.shape[1:])
    return otherwise(aten.index.Tensor, self, indices)


def nonzero(self: torch.Tensor) -> torch.Tensor:
    """(count, dimensions): where the elements are not zero. Their number comes to the host: it is a size."""
    kept = (self != 0).reshape(-1)
    places = kept.cumsum(0)
    found = torch.empty(int(places[-1]) if kept.numel() else 0, dtype=torch.int64, device=self.device)
    if found.numel():
        tile = min(RANGE_TILE, power_of_two_at_least(kept.numel()))
        launch = kernel(_places_of, (POINTER[torch.bool], *(POINTER[torch.int64],) * 2, "i64"), TILE=tile)
        words = (kept.data_ptr(), places.data_ptr(), found.data_ptr(), kept.numel())
        launch((ceil_div(kept.numel(), tile), 1, 1), words)
    count("aten::nonzero")
    columns = []
    for size in reversed(self.shape):
        columns.append(found % size)
        found = found // size
    if not columns:
        return torch.empty((found.shape[0], 0), dtype=torch.int64, device=self.device)
    return torch.stack(columns[::-1]).t()


def nonzero_static(self: torch.Tensor, *, size: int, fill_value: int = -1) -> torch.Tensor:
    """The first `size` of them, filled up with `fill_value` if they are fewer; column by column in memory, as torch
    expects it of all devices but the CPU."""
    found = nonzero(self)[:size]
    out = torch.full((self.dim(), size), fill_value, dtype=torch.int64, device=self.device).t()
    out[: found.shape[0]] = found
    count("aten::nonzero_static")
    return out


def masked_select(self: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    source, mask = torch.broadcast_tensors(self, mask)
    (place,) = nonzero(mask.reshape(-1)).unbind(1)
    return source.reshape(-1).index_select(0, place)


def index_put_(
    self: torch.Tensor, indices: list[torch.Tensor | None], values: torch.Tensor, accumulate: bool = False,
    unsafe: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Implement `self[indices] = values`; torch's own way there has an operator that cannot be traced."""
    mask = indices[0] if len(indices) == 1 else None
    type_of_mask = None if mask is None or accumulate or values.numel() != 1 else mask.dtype
    if not _fits(self, indices) or self.dtype != values.dtype or type_of_mask == torch.uint8:
        refuse_as_the_host_does(aten.index_put_.default, self, indices, values, accumulate)
        values = values.to(self.dtype)
    if mask is not None and type_of_mask in (torch.bool, torch.uint8):
        padded = mask.to(self.device)[(..., *(None,) * (self.dim() - mask.dim()))]
        return self.masked_fill_(padded, values.reshape(()).to(self.dtype))
    indices = _without_masks(indices, self.device)
    if not _fits(self, indices) or not _expands(values.shape, _chosen_shape(self, indices)):
        refuse_as_the_host_does(aten.index_put_.default, self, indices, values, accumulate)
    if any(index is not None and index.numel() == 0 for index in indices):
        return self
    result: torch.Tensor = otherwise(aten.index_put_.default, self, indices, values, accumulate)
    return result


def arange_out(start: float, end: float, step: float = 1, *, out: torch.Tensor) -> torch.Tensor:
    operator = aten.arange.start_out
    if out.dtype not in TRITON_DTYPES or out.dtype == torch.bool or step == 0 or (end - start) * step < 0:
        return otherwise(operator, start, end, step, out=out)
    integral = not out.dtype.is_floating_point
    size = math.ceil((float(end) - float(start)) / float(step))
    if integral:
        start, end, step = int(start), int(end), int(step)
        if out.dtype == torch.int64:
            if step == 0:
                raise ValueError("step must be nonzero")
            size = -((start - end) // step)
    _fit_vector(out, size)
    if size == 0:
        return out
    if not out.is_contiguous():
        return otherwise(operator, start, end, step, out=out)
    compute = torch.int64 if integral else COMPUTE_DTYPES.get(out.dtype, out.dtype)
    tile = min(RANGE_TILE, power_of_two_at_least(size))
    launch = kernel(
        _arange,
        (POINTER[out.dtype], *(SCALAR_TYPES[compute],) * 4, "i64"),
        TYPE=TRITON_DTYPES[compute],
        TILE=tile,
    )
    numbers = []
    for value in (start, step):
        rounded = torch.scalar_tensor(value, dtype=compute, device="cpu").item()
        numbers += [scalars.word(rounded, compute), scalars.word(value - rounded, compute)]
    launch((ceil_div(size, tile), 1, 1), (out.data_ptr(), *numbers, size))
    count("aten::arange")
    return out


def linspace_out(start: float, end: float, steps: int, *, out: torch.Tensor) -> torch.Tensor:
    """Compute ranges of integers in exact arithmetic."""
    operator = aten.linspace.out
    if out.dtype in (torch.float16, torch.bfloat16):
        for value in (start, end):
            scalars.element(value, out.dtype)
    _fit_vector(out, steps)
    if out.dtype not in RANGES_OF_INTEGERS or steps < 2 or not out.is_contiguous():
        return otherwise(operator, start, end, steps, out=out)
    first, last = (int(scalars.element(value, out.dtype)) for value in (start, end))
    whole, rest = divmod(last - first, steps - 1)
    tile = min(RANGE_TILE, power_of_two_at_least(steps))
    launch = kernel(_integers_between, (POINTER[out.dtype], *("i64",) * 5), TILE=tile)
    launch((ceil_div(steps, tile), 1, 1), (out.data_ptr(), first, whole, rest, steps - 1, steps))
    count("aten::linspace")
    return out


def logspace_out(start: float, end: float, steps: int, base: float = 10.0, *, out: torch.Tensor) -> torch.Tensor:
    """Compute integers one by one: powers must be exact."""
    if out.dtype not in RANGES_OF_INTEGERS:
        return otherwise(aten.logspace.out, start, end, steps, base, out=out)
    _fit_vector(out, steps)
    return out.copy_(torch.logspace(start, end, steps, base, dtype=out.dtype, device="cpu"))


RANGES_OF_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _fit_vector(out: torch.Tensor, size: int) -> None:
    if out.numel() != size:
        out.resize_(size)


def isin_out(
    elements: torch.Tensor,
    test_elements: torch.Tensor,
    *,
    assume_unique: bool = False,
    invert: bool = False,
    out: torch.Tensor,
) -> torch.Tensor:
    """A comparison of all pairs: for the short lists (stop tokens, special tokens) it is called with."""
    if test_elements.numel() > 1024 or elements.device != test_elements.device:
        operator: Any = aten.isin.Tensor_Tensor_out
        return otherwise(operator, elements, test_elements, assume_unique=assume_unique, invert=invert, out=out)
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    out.copy_(found.logical_not() if invert else found)
    return out


def histc(self: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> torch.Tensor:
    """Return how many elements lie in each of `bins` equal parts of [min, max]; of the elements' own range if min ==
    max."""
    if bins <= 0:
        raise RuntimeError(f"torch.histc: bins must be > 0, but got {bins}")
    low, high = float(min), float(max)
    if low == high and self.numel():
        low, high = float(self.amin()), float(self.amax())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")
    wide = torch.float64 if self.dtype in (torch.float64, torch.int64) else torch.float32
    values = self.flatten().to(wide)
    inside = (values >= low) & (values <= high)
    part = ((values - low) * bins / (high - low)).clamp(0, bins - 1).to(torch.int64)
    counts = torch.zeros(bins, dtype=torch.int32, device=self.device)
    return counts.index_add_(0, part, inside.to(torch.int32)).to(self.dtype)
