"""Reductions and what else runs along a dimension: sum, mean, max, any, all, argmax, softmax, layer norm, cumsum.

The reduced dimensions become the columns of a matrix, everything else its rows; both keep their strides where that
is possible and the tensor is copied on the chip where it is not. A program walks the columns of some rows in tiles.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.elementwise import COMPUTE_DTYPES, TRITON_DTYPES
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
from tapeout.pytorch.ops.tiles import NORM_OPERATIONS, reduction_share, reduction_tile, rows_tile

SCAN_ELEMENTS = 4096
LONGEST_SCAN = 8192
SOFTMAX_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
NORM_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

aten = torch.ops.aten
Function = Callable[..., Any]


@triton.jit
def _reduce(
    source, out, rows, columns, row_stride, column_stride, outer_stride, share, divisor,
    OP: tl.constexpr, COMPUTE: tl.constexpr, START: tl.constexpr, TURNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of matrices at `outer_stride`. `share`: how many columns a program takes, if several share a row. TURNED:
    neighbours in memory are of different rows, so a tile's rows are its second dimension."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1).to(tl.int64) * share
    outer = tl.program_id(2).to(tl.int64)
    source += outer * outer_stride
    out += (outer * rows) * tl.num_programs(1)
    total = tl.full((COLUMNS, ROWS) if TURNED else (ROWS, COLUMNS), START, COMPUTE)
    for start in range(first, tl.minimum(first + share, columns), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        if TURNED:
            inside = (column[:, None] < columns) & (row[None, :] < rows)
            place = column[:, None] * column_stride + row[None, :] * row_stride
        else:
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            place = row[:, None] * row_stride + column[None, :] * column_stride
        value = tl.load(source + place, mask=inside, other=START)
        if OP == "any" or OP == "all":
            value = value != 0
        value = value.to(COMPUTE)
        if OP == "sum" or OP == "mean":
            total += value
        elif OP == "max":
            total = tl.maximum(total, value, propagate_nan=tl.PropagateNan.ALL).to(COMPUTE)
        elif OP == "min":
            total = tl.minimum(total, value, propagate_nan=tl.PropagateNan.ALL).to(COMPUTE)
        elif OP == "any":
            total = total | value
        else:
            total = total & value
    if COMPUTE == tl.bfloat16 or COMPUTE == tl.float16:  # noqa: SIM300 (constexpr on the left, as Triton compares)
        total = total.to(tl.float32)
    AXIS: tl.constexpr = 0 if TURNED else 1
    if OP == "sum" or OP == "mean":
        result = tl.sum(total, axis=AXIS)
    elif OP == "max":
        result = tl.reduce(total, AXIS, _maximum)
    elif OP == "min":
        result = tl.reduce(total, AXIS, _minimum)
    elif OP == "any":
        result = tl.max(total, axis=AXIS)
    else:
        result = tl.min(total, axis=AXIS)
    if OP == "mean":
        result = result / divisor.to(COMPUTE)
    if out.dtype.element_ty == tl.int1:
        result = result != 0
    tl.store(out + row * tl.num_programs(1) + tl.program_id(1), result.to(out.dtype.element_ty), mask=row < rows)


@triton.jit
def _maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _better(value, index, other_value, other_index):
    """The larger value, the earlier one of two equals; NaN is larger than everything."""
    other_wins = (other_value > value) | ((other_value != other_value) & (value == value))
    equal = (other_value == value) | ((other_value != other_value) & (value != value))
    other_wins = other_wins | (equal & (other_index < index))
    return tl.where(other_wins, other_value, value), tl.where(other_wins, other_index, index)


@triton.jit
def _argmax(
    source, out_value, out_index, rows, columns, row_stride, column_stride,
    COMPUTE: tl.constexpr, IN_BITS: tl.constexpr, START: tl.constexpr, HAS_VALUE: tl.constexpr, TURNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """IN_BITS: of float32 and half types, which are compared by their bits. TURNED: as in `_reduce`."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    BITS: tl.constexpr = tl.int16 if COMPUTE.primitive_bitwidth == 16 else tl.int32
    AXIS: tl.constexpr = 0 if TURNED else 1
    rows_of_tile = row[None, :] if TURNED else row[:, None]
    columns_of_tile = tl.arange(0, COLUMNS)[:, None] if TURNED else tl.arange(0, COLUMNS)[None, :]
    best = tl.full((COLUMNS, ROWS) if TURNED else (ROWS, COLUMNS), START, COMPUTE)
    index = tl.broadcast_to(columns_of_tile, best.shape)
    for start in range(0, columns, COLUMNS):
        column = start + columns_of_tile
        inside = (rows_of_tile < rows) & (column < columns)
        place = rows_of_tile * row_stride + column * column_stride
        value = tl.load(source + place, mask=inside, other=START).to(COMPUTE)
        if IN_BITS:  # of equals the first, which is there already: there is one zero and one NaN
            new = tl.maximum(best, value + 0.0, propagate_nan=tl.PropagateNan.ALL).to(COMPUTE)
            wins = new.to(BITS, bitcast=True) != best.to(BITS, bitcast=True)
            best = new
        else:
            wins = (value > best) | ((value != value) & (best == best))
            best = tl.where(wins, value, best)
        index = tl.where(wins, column.to(tl.int32), index)
    best, index = tl.reduce((best, index), AXIS, _better)
    tl.store(out_index + row, index.to(tl.int64), mask=row < rows)
    if HAS_VALUE:
        tl.store(out_value + row, best.to(out_value.dtype.element_ty), mask=row < rows)


@triton.jit
def _softmax(
    source, out, rows, columns, row_stride, column_stride, out_row_stride, out_column_stride,
    COMPUTE: tl.constexpr, LOG: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """WHOLE: a tile holds whole rows, which are read once; else they pass by three times."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    if WHOLE:
        column = tl.arange(0, COLUMNS).to(tl.int64)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        place = row[:, None] * row_stride + column[None, :] * column_stride
        value = tl.load(source + place, mask=inside, other=float("-inf")).to(COMPUTE)
        value -= tl.max(value, axis=1)[:, None]
        weights = tl.exp(value)
        total = tl.sum(weights, axis=1)
        result = value - tl.log(total)[:, None] if LOG else weights * (1.0 / total)[:, None]
        place = row[:, None] * out_row_stride + column[None, :] * out_column_stride
        tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
    else:
        largest = tl.full((ROWS,), float("-inf"), COMPUTE)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            place = row[:, None] * row_stride + column[None, :] * column_stride
            value = tl.load(source + place, mask=inside, other=float("-inf")).to(COMPUTE)
            largest = tl.maximum(largest, tl.max(value, axis=1))
        total = tl.zeros((ROWS,), COMPUTE)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            place = row[:, None] * row_stride + column[None, :] * column_stride
            value = tl.load(source + place, mask=inside, other=float("-inf")).to(COMPUTE)
            total += tl.sum(tl.exp(value - largest[:, None]), axis=1)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            place = row[:, None] * row_stride + column[None, :] * column_stride
            value = tl.load(source + place, mask=inside, other=float("-inf")).to(COMPUTE) - largest[:, None]
            result = value - tl.log(total)[:, None] if LOG else tl.exp(value) * (1.0 / total)[:, None]
            place = row[:, None] * out_row_stride + column[None, :] * out_column_stride
            tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _cumsum(
    source, out, rows, columns, row_stride, column_stride, out_row_stride, out_column_stride,
    COMPUTE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    place = row[:, None] * row_stride + column[None, :] * column_stride
    value = tl.cumsum(tl.load(source + place, mask=inside, other=0).to(COMPUTE), axis=1)
    place = row[:, None] * out_row_stride + column[None, :] * out_column_stride
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _normalised(offset, rstd, weight, bias, column, columns, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr):
    value = offset * rstd[:, None]
    factor = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)[None, :] if HAS_WEIGHT else 1.0
    if HAS_BIAS:
        return tl.fma(value, factor, tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :])
    return value * factor


@triton.jit
def _layer_norm(
    source, weight, bias, out, out_mean, out_rstd, rows, columns, epsilon,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, WHOLE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """WHOLE: a tile holds whole rows, which are read once; else they pass by three times. PADDED: a tile has more
    columns than there are."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    if WHOLE:
        column = tl.arange(0, COLUMNS).to(tl.int64)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
        count = columns.to(tl.float32)
        mean = tl.sum(value, axis=1) / count
        offset = value - mean[:, None]
        if PADDED:
            offset = tl.where(inside, offset, 0.0)
        rstd = tl.rsqrt(tl.fma(tl.sum(offset * offset, axis=1), 1.0 / count, epsilon))
        value = _normalised(offset, rstd, weight, bias, column, columns, HAS_WEIGHT, HAS_BIAS)
        tl.store(out + row[:, None] * columns + column[None, :], value.to(out.dtype.element_ty), mask=inside)
    else:
        total = tl.zeros((ROWS,), tl.float32)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
            total += tl.sum(value, axis=1)
        mean = total / columns.to(tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
            offset = tl.where(inside, value - mean[:, None], 0.0)
            total += tl.sum(offset * offset, axis=1)
        rstd = tl.rsqrt(total / columns.to(tl.float32) + epsilon)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
            offset = value - mean[:, None]
            value = _normalised(offset, rstd, weight, bias, column, columns, HAS_WEIGHT, HAS_BIAS)
            tl.store(out + row[:, None] * columns + column[None, :], value.to(out.dtype.element_ty), mask=inside)
    tl.store(out_mean + row, mean, mask=row < rows)
    tl.store(out_rstd + row, rstd, mask=row < rows)


def as_matrix(source: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """(kept elements, reduced elements); a view if the strides allow it, else a copy made on the chip."""
    if source.dim() == 2 and len(dims) == 1 and dims[0] in (1, -1):
        return source
    reduced = sorted(dim % source.dim() for dim in dims) if source.dim() else []
    kept = [dim for dim in range(source.dim()) if dim not in reduced]
    rows = 1
    for dim in kept:
        rows *= source.shape[dim]
    columns = source.numel() // rows if rows else 0
    return source.permute([*kept, *reduced]).reshape(rows, columns)


def start_of(name: str, dtype: torch.dtype) -> Any:
    """The value that changes nothing."""
    if name in ("sum", "mean", "any"):
        return 0
    if name == "all":
        return 1
    if dtype.is_floating_point:
        return float("-inf") if name == "max" else float("inf")
    return torch.iinfo(dtype).min if name == "max" else torch.iinfo(dtype).max


def reduce_into(name: str, source: torch.Tensor, dims: Sequence[int], out: torch.Tensor) -> bool:
    """out (contiguous) = the reduction over `dims` (all, if empty). False: not for this kernel."""
    if source.dtype not in TRITON_DTYPES or out.dtype not in TRITON_DTYPES or source.numel() == 0:
        return False
    if not out.is_contiguous():
        return False
    if source.dtype == torch.bool:
        name = {"max": "any", "min": "all"}.get(name, name)
    dims = dims if len(dims) else range(source.dim())
    if name in ("max", "min"):
        compute = source.dtype
    else:
        compute = torch.int32 if name in ("any", "all") else COMPUTE_DTYPES.get(out.dtype, out.dtype)
    reduced = {dim % source.dim() for dim in dims} if source.dim() else set()  # a number has no dimension to reduce
    divisor = math.prod(source.shape[dim] for dim in reduced)
    _reduce_dims(name, source, reduced, out, divisor, compute)
    return True


LEAST_NEIGHBOURS = 32
"""Kept neighbours in memory for which it pays to leave them where they are."""


def _reduce_dims(
    name: str, source: torch.Tensor, dims: set[int], out: torch.Tensor, divisor: int, compute: torch.dtype
) -> None:
    """out = the reduction over `dims`. Where a matrix would have to be laid out first, neighbours in memory are reduced
    first, then what is left of them."""
    last = max(dims, default=-1)
    first = last
    while first - 1 in dims:
        first -= 1
    kept, after = source.shape[:first], source.shape[last + 1 :]
    rest = dims - set(range(first, last + 1))
    is_matrix = not rest and (first <= 0 or not after)
    is_thin = bool(after) and math.prod(after) < LEAST_NEIGHBOURS
    if is_matrix or is_thin or not source.is_contiguous():
        _reduce_matrix(name, as_matrix(source, sorted(dims)).unsqueeze(0), out, divisor, compute)
        return
    matrices = source.view(math.prod(kept), -1, math.prod(after)).mT
    if not after:
        matrices = matrices.transpose(0, 1)
    if not rest:
        _reduce_matrix(name, matrices, out, divisor, compute)
        return
    part = torch.empty((*kept, *after), dtype=compute, device=source.device)
    _reduce_matrix("sum" if name == "mean" else name, matrices, part, divisor, compute)
    _reduce_dims(name, part, rest, out, divisor, compute)


def _reduce_matrix(name: str, matrices: torch.Tensor, out: torch.Tensor, divisor: int, compute: torch.dtype) -> None:
    """out = the reduction of each row of each matrix. Where rows are fewer than the cores, several programs share one,
    and a second launch reduces what they leave."""
    outer, rows, columns = matrices.shape
    strides = (matrices.stride(1), matrices.stride(2), matrices.stride(0))
    turned = strides[0] == 1 and strides[1] != 1
    row_tile, column_tile = reduction_tile(chips.active(), rows, columns, turned, outer)
    share = reduction_share(chips.active(), rows, columns, (row_tile, column_tile), outer)
    parts = ceil_div(columns, share)
    target = out if parts == 1 else torch.empty((1, outer * rows, parts), dtype=compute, device=out.device)
    launch = kernel(
        _reduce,
        (POINTER[matrices.dtype], POINTER[target.dtype], *INTEGERS[:7]),
        OP="sum" if name == "mean" and parts > 1 else name,
        COMPUTE=TRITON_DTYPES[compute],
        START=start_of(name, compute),
        TURNED=turned,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (matrices.data_ptr(), target.data_ptr(), rows, columns, *strides, share, divisor)
    launch((ceil_div(rows, row_tile), parts, outer), words)
    if parts > 1:
        _reduce_matrix(name, target, out, divisor, compute)


def argmax_into(source: torch.Tensor, dim: int | None, values: torch.Tensor | None, indices: torch.Tensor) -> bool:
    if source.dtype not in TRITON_DTYPES or source.numel() == 0 or not indices.is_contiguous():
        return False
    if values is not None and not values.is_contiguous():
        return False
    matrix = as_matrix(source, range(source.dim()) if dim is None else (dim,))
    rows, columns = matrix.shape
    if columns >= 1 << 31:
        return False
    in_bits = source.dtype in NORM_DTYPES
    compute = torch.int32 if source.dtype == torch.bool else COMPUTE_DTYPES.get(source.dtype, source.dtype)
    compute = source.dtype if in_bits else compute
    turned = matrix.stride(0) == 1 and matrix.stride(1) != 1
    row_tile, column_tile = reduction_tile(chips.active(), rows, columns, turned)
    values_or_any = values if values is not None else source
    launch = kernel(
        _argmax,
        (POINTER[source.dtype], POINTER[values_or_any.dtype], POINTER[torch.int64], *INTEGERS[:4]),
        COMPUTE=TRITON_DTYPES[compute],
        IN_BITS=in_bits,
        START=start_of("max", compute),
        HAS_VALUE=values is not None,
        TURNED=turned,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (matrix.data_ptr(), values_or_any.data_ptr(), indices.data_ptr(), rows, columns, *matrix.stride())
    launch((ceil_div(rows, row_tile), 1, 1), words)
    return True


def _kept_shape(source: torch.Tensor, dims: Sequence[int] | None, keepdim: bool) -> list[int]:
    count_of_dims = source.dim()
    reduced = {dim % max(count_of_dims, 1) for dim in dims} if dims else set(range(count_of_dims))
    if keepdim:
        return [1 if dim in reduced else size for dim, size in enumerate(source.shape)]
    return [size for dim, size in enumerate(source.shape) if dim not in reduced]


def _fit(out: torch.Tensor, shape: Sequence[int]) -> None:
    if list(out.shape) != list(shape):
        out.resize_(shape)


def _over_dims(operator: Any, name: str) -> Function:
    def run(
        self: torch.Tensor,
        dim: Sequence[int] | None = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
        out: torch.Tensor,
    ) -> torch.Tensor:
        _fit(out, _kept_shape(self, dim, keepdim))
        if reduce_into(name, self, dim or (), out):
            count(operator._schema.name)
            return out
        options = {} if dtype is None else {"dtype": dtype}
        return otherwise(operator, self, dim, keepdim, **options, out=out)

    return run


def _over_dim(operator: Any, name: str) -> Function:
    def run(self: torch.Tensor, dim: int, keepdim: bool = False, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, _kept_shape(self, (dim,), keepdim))
        if reduce_into(name, self, (dim,), out):
            count(operator._schema.name)
            return out
        return otherwise(operator, self, dim, keepdim, out=out)

    return run


def _over_all(operator: Any, name: str) -> Function:
    def run(self: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, ())
        if reduce_into(name, self, (), out):
            count(operator._schema.name)
            return out
        return otherwise(operator, self, out=out)

    return run


def _to_scalar(operator: Any, name: str) -> Function:
    def run(self: torch.Tensor) -> torch.Tensor:
        out = torch.empty((), dtype=self.dtype, device="chip")
        if reduce_into(name, self, (), out):
            count(operator._schema.name)
            return out
        return otherwise(operator, self)

    return run


sum_out = _over_dims(aten.sum.IntList_out, "sum")
mean_out = _over_dims(aten.mean.out, "mean")
amax_out = _over_dims(aten.amax.out, "max")
amin_out = _over_dims(aten.amin.out, "min")
any_dim_out = _over_dim(aten.any.out, "any")
all_dim_out = _over_dim(aten.all.out, "all")
any_out = _over_all(aten.any.all_out, "any")
all_out = _over_all(aten.all.all_out, "all")
max_all = _to_scalar(aten.max.default, "max")
min_all = _to_scalar(aten.min.default, "min")


def equal(self: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same shape and the same elements."""
    if self.shape != other.shape:
        return False
    count("aten::equal")
    return bool(torch.eq(self, other).all())


def argmax_out(self: torch.Tensor, dim: int | None = None, keepdim: bool = False, *, out: torch.Tensor) -> torch.Tensor:
    _fit(out, _kept_shape(self, None if dim is None else (dim,), keepdim))
    if argmax_into(self, dim, None, out):
        count("aten::argmax")
        return out
    return otherwise(aten.argmax.out, self, dim, keepdim, out=out)


def max_dim_out(
    self: torch.Tensor, dim: int, keepdim: bool = False, *, max: torch.Tensor, max_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = _kept_shape(self, (dim,), keepdim)
    _fit(max, shape)
    _fit(max_values, shape)
    if argmax_into(self, dim, max, max_values):
        count("aten::max")
    else:
        otherwise(aten.max.dim_max, self, dim, keepdim, max=max, max_values=max_values)
    return max, max_values


def _softmax_out(operator: Any, log: bool) -> Function:
    def run(self: torch.Tensor, dim: int, half_to_float: bool, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, self.shape)
        if self.dtype not in SOFTMAX_DTYPES or self.dim() == 0:
            return otherwise(operator, self, dim, half_to_float, out=out)
        if self.numel() == 0:
            return out
        dim = dim % self.dim()
        if dim != self.dim() - 1 or not out.is_contiguous():  # columns last: a view for the input, copied back
            moved = torch.empty(self.movedim(dim, -1).shape, dtype=out.dtype, device="chip")
            run(self.movedim(dim, -1), -1, half_to_float, out=moved)
            return out.copy_(moved.movedim(-1, dim))
        matrix, target = as_matrix(self, (dim,)), out.view(-1, out.shape[-1])
        rows, columns = matrix.shape
        row_tile, column_tile = rows_tile(chips.active(), rows, columns, NORM_OPERATIONS)
        launch = kernel(
            _softmax,
            (POINTER[self.dtype], POINTER[out.dtype], *INTEGERS[:6]),
            COMPUTE=TRITON_DTYPES[COMPUTE_DTYPES.get(self.dtype, self.dtype)],
            LOG=log,
            WHOLE=column_tile >= columns,
            ROWS=row_tile,
            COLUMNS=column_tile,
        )
        words = (matrix.data_ptr(), target.data_ptr(), rows, columns, *matrix.stride(), *target.stride())
        launch((ceil_div(rows, row_tile), 1, 1), words)
        count(operator._schema.name)
        return out

    return run


softmax_out = _softmax_out(aten._softmax.out, log=False)
log_softmax_out = _softmax_out(aten._log_softmax.out, log=True)


def cumsum_out(self: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None, out: torch.Tensor) -> torch.Tensor:
    _fit(out, self.shape)
    fits = self.dtype in TRITON_DTYPES and out.dtype in TRITON_DTYPES and self.numel() > 0
    if not fits or self.dim() == 0 or dim % self.dim() != self.dim() - 1 or self.shape[-1] > LONGEST_SCAN:
        return otherwise(aten.cumsum.out, self, dim, dtype=dtype, out=out)
    if not out.is_contiguous():
        return otherwise(aten.cumsum.out, self, dim, dtype=dtype, out=out)
    matrix, target = as_matrix(self, (dim,)), out.view(-1, out.shape[-1])
    rows, columns = matrix.shape
    column_tile = power_of_two_at_least(columns)
    row_tile = min(power_of_two_at_least(rows), max(1, SCAN_ELEMENTS // column_tile))
    launch = kernel(
        _cumsum,
        (POINTER[self.dtype], POINTER[out.dtype], *INTEGERS[:6]),
        COMPUTE=TRITON_DTYPES[COMPUTE_DTYPES.get(out.dtype, out.dtype)],
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (matrix.data_ptr(), target.data_ptr(), rows, columns, *matrix.stride(), *target.stride())
    launch((ceil_div(rows, row_tile), 1, 1), words)
    count("aten::cumsum")
    return out


def native_layer_norm(
    self: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, ...]:
    operands = [self, *(t for t in (weight, bias) if t is not None)]
    normalised = tuple(normalized_shape)
    same_type = all(t.dtype in (self.dtype, torch.float32) for t in operands)
    if (
        not normalised
        or self.shape[-len(normalised) :] != normalised
        or not same_type
        or any(t.shape != normalised for t in operands[1:])
    ):
        refuse_as_the_host_does(aten.native_layer_norm.default, self, normalized_shape, weight, bias, eps)
    if any(t.dtype not in NORM_DTYPES for t in operands) or self.numel() == 0:
        result: tuple[torch.Tensor, ...] = otherwise(
            aten.native_layer_norm.default, self, normalized_shape, weight, bias, eps
        )
        return result
    source = self.contiguous()
    weight, bias = (None if t is None else t.contiguous() for t in (weight, bias))
    kept = self.dim() - len(normalized_shape)
    columns = math.prod(normalized_shape)
    rows = self.numel() // columns
    out = torch.empty_like(source)
    statistics = (*self.shape[:kept], *(1 for _ in normalized_shape))
    mean, rstd = (torch.empty(statistics, dtype=torch.float32, device="chip") for _ in range(2))
    row_tile, column_tile = rows_tile(chips.active(), rows, columns, NORM_OPERATIONS)
    tensors = [source, *(source if t is None else t for t in (weight, bias)), out, mean, rstd]
    launch = kernel(
        _layer_norm,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:2], "fp32"),
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        WHOLE=column_tile >= columns,
        PADDED=column_tile != columns,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    words = (*(t.data_ptr() for t in tensors), rows, columns, scalars.word(eps, torch.float32))
    launch((ceil_div(rows, row_tile), 1, 1), words)
    count("aten::native_layer_norm")
    return out, mean, rstd
