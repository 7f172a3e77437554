"""Norms in one kernel each: RMS norm, and the gradients of it and of layer norm. Layer norm itself is in `reduce`.

Rows are what is normalised, in tiles of whole rows. A program of a gradient walks its share of the rows and keeps the
sums of the weight's and the bias's gradients; what programs leave of these is added up by a reduction.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise
from tapeout.pytorch.ops.reduce import NORM_DTYPES
from tapeout.pytorch.ops.tiles import NORM_OPERATIONS, norm_gradient_tile, rows_tile

aten = torch.ops.aten


@triton.jit
def _rms_norm(
    source, weight, out, out_rstd, rows, columns, epsilon,
    HAS_WEIGHT: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """WHOLE: a tile holds whole rows, which are read once; else they pass by twice."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    count = columns.to(tl.float32)
    if WHOLE:
        column = tl.arange(0, COLUMNS).to(tl.int64)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.fma(tl.sum(value * value, axis=1), 1.0 / count, epsilon))
        value = value * rstd[:, None]
        if HAS_WEIGHT:
            value *= tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        tl.store(out + row[:, None] * columns + column[None, :], value.to(out.dtype.element_ty), mask=inside)
    else:
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
            total = tl.fma(value, value, total)
        rstd = tl.rsqrt(tl.fma(tl.sum(total, axis=1), 1.0 / count, epsilon))
        for start in range(0, columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = (row[:, None] < rows) & (column[None, :] < columns)
            value = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
            value = value * rstd[:, None]
            if HAS_WEIGHT:
                value *= tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
            tl.store(out + row[:, None] * columns + column[None, :], value.to(out.dtype.element_ty), mask=inside)
    tl.store(out_rstd + row, rstd, mask=row < rows)


@triton.jit
def _norm_gradient(
    grad, source, weight, mean, rstd, out, weight_parts, bias_parts, rows, columns, share,
    CENTRED: tl.constexpr, HAS_WEIGHT: tl.constexpr, WEIGHT_GRADIENT: tl.constexpr, BIAS_GRADIENT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """CENTRED: the mean was subtracted, as in layer norm. Beyond a row's end the gradient is 0, and all it makes."""
    column = tl.arange(0, COLUMNS).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * share
    end = tl.minimum(first + share, rows)
    weight_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    bias_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    per_column = 1.0 / columns.to(tl.float32)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row[:, None] < end) & (column[None, :] < columns)
        place = row[:, None] * columns + column[None, :]
        slope = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(rstd + row, mask=row < end, other=0.0).to(tl.float32)
        if CENTRED:
            centre = tl.load(mean + row, mask=row < end, other=0.0).to(tl.float32)
            value = tl.fma(value, scale[:, None], (-centre * scale)[:, None])
        else:
            value = value * scale[:, None]
        if WEIGHT_GRADIENT:
            weight_sum = tl.fma(slope, value, weight_sum)
        if BIAS_GRADIENT:
            bias_sum += slope
        if HAS_WEIGHT:
            slope *= tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        along = tl.sum(slope * value, axis=1) * per_column
        result = tl.fma(value, -along[:, None], slope)
        if CENTRED:
            average = tl.sum(slope, axis=1) * per_column
            result = tl.fma(result, scale[:, None], (-average * scale)[:, None])
        else:
            result = result * scale[:, None]
        tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
    part = tl.program_id(0).to(tl.int64) * columns + column
    if WEIGHT_GRADIENT:
        tl.store(weight_parts + part, tl.sum(weight_sum, axis=0), mask=column < columns)
    if BIAS_GRADIENT:
        tl.store(bias_parts + part, tl.sum(bias_sum, axis=0), mask=column < columns)


def _fits(self: torch.Tensor, normalized_shape: Sequence[int], *others: torch.Tensor | None) -> bool:
    normalised = tuple(normalized_shape)
    given = [tensor for tensor in others if tensor is not None]
    if not normalised or self.shape[-len(normalised) :] != normalised or self.numel() == 0:
        return False
    if any(t.shape != normalised for t in given):
        return False
    return all(t.dtype in NORM_DTYPES for t in (self, *given))


def fused_rms_norm(
    input: torch.Tensor, normalized_shape: Sequence[int], weight: torch.Tensor | None, eps: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised rows, and one over their root mean squares, as float32."""
    if not _fits(input, normalized_shape, weight):
        refused: tuple[torch.Tensor, torch.Tensor] = otherwise(
            aten._fused_rms_norm.default, input, normalized_shape, weight, eps
        )
        return refused
    source, weight = input.contiguous(), None if weight is None else weight.contiguous()
    columns = math.prod(normalized_shape)
    rows = source.numel() // columns
    out = torch.empty_like(source)
    kept = input.shape[: input.dim() - len(normalized_shape)]
    rstd = torch.empty((*kept, *(1 for _ in normalized_shape)), dtype=torch.float32, device="chip")
    row_tile, column_tile = rows_tile(chips.active(), rows, columns, NORM_OPERATIONS)
    tensors = (source, source if weight is None else weight, out, rstd)
    launch = kernel(
        _rms_norm,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:2], "fp32"),
        HAS_WEIGHT=weight is not None,
        WHOLE=column_tile >= columns,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    words = (*(t.data_ptr() for t in tensors), rows, columns, scalars.word(epsilon, torch.float32))
    launch((ceil_div(rows, row_tile), 1, 1), words)
    count("aten::_fused_rms_norm")
    return out, rstd


def native_layer_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    operator = aten.native_layer_norm_backward.default
    gradients = _gradients(operator, grad_out, input, normalized_shape, mean, rstd, weight, output_mask)
    if gradients is None:
        refused: tuple[torch.Tensor | None, ...] = otherwise(
            operator, grad_out, input, normalized_shape, mean, rstd, weight, bias, output_mask
        )
        return refused
    return gradients


def fused_rms_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    operator = aten._fused_rms_norm_backward.default
    gradients = _gradients(operator, grad_out, input, normalized_shape, None, rstd, weight, (*output_mask, False))
    if gradients is None:
        refused: tuple[torch.Tensor | None, ...] = otherwise(
            operator, grad_out, input, normalized_shape, rstd, weight, output_mask
        )
        return refused
    return gradients[:2]


def _gradients(
    operator: Any,
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    mean: torch.Tensor | None,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...] | None:
    """Gradients of the input, the weight and the bias, as far as wanted; None: not for this kernel."""
    statistics = [tensor for tensor in (mean, rstd) if tensor is not None]
    if not _fits(input, normalized_shape, weight) or grad_out.dtype not in NORM_DTYPES:
        return None
    columns = math.prod(normalized_shape)
    rows = input.numel() // columns
    if any(t.dtype not in NORM_DTYPES or t.numel() != rows for t in statistics):
        return None
    tile = norm_gradient_tile(chips.active(), rows, columns)
    if tile is None:
        return None
    row_tile, column_tile, share = tile
    source, grad = input.contiguous(), grad_out.contiguous()
    factor = None if weight is None else weight.contiguous()
    parts = ceil_div(rows, share)
    out = torch.empty_like(source)
    made = [torch.empty((parts if is_wanted else 0, columns), device="chip") for is_wanted in wanted[1:]]
    statistics = [tensor.contiguous() for tensor in statistics]
    tensors = (grad, source, source if factor is None else factor, statistics[0], statistics[-1], out, *made)
    launch = kernel(
        _norm_gradient,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:3]),
        CENTRED=mean is not None,
        HAS_WEIGHT=factor is not None,
        WEIGHT_GRADIENT=wanted[1],
        BIAS_GRADIENT=wanted[2],
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    launch((parts, 1, 1), (*(t.data_ptr() for t in tensors), rows, columns, share))
    count(operator._schema.name)
    dtype = input.dtype if weight is None else weight.dtype
    sums = [
        part.sum(0).to(dtype).view(tuple(normalized_shape)) if is_wanted else None
        for part, is_wanted in zip(made, wanted[1:], strict=True)
    ]
    return (out if wanted[0] else None, *sums)
