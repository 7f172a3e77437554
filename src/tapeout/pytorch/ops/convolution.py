"""Convolutions in one to three dimensions, transposed ones, and their gradients, as matrix products.

Every element that a tap of the filter meets is laid out as a column of a matrix by one kernel of block reads; what is
left is a product with the filter. The gradient of the input is a convolution too, of the spread-out gradient with the
filter reversed, and so is a transposed convolution. All is done in three dimensions; absent ones have one element.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch._prims_common import suggest_memory_format

from tapeout.pytorch.ops import fallback
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, power_of_two_at_least
from tapeout.pytorch.ops.matmul import is_multiplied, multiply

TILE_ELEMENTS = 4096

aten = torch.ops.aten


@triton.jit
def _columns(
    source, out,
    channels, depth, height, width, out_depth, out_height, out_width, tap_rows, tap_columns,
    source_batch, source_channel, source_layer, source_row, source_column,
    out_channel, out_tap, out_batch,
    layer_step, row_step, column_step, layer_start, row_start, column_start,
    tap_layer_step, tap_row_step, tap_column_step,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[c, tap, b, z, y, x] = source[b, c, z, y, x each * step + start + tap * tap_step], zero outside. A program for
    a tap and a layer, a batch, and some channels, rows and columns."""
    tap = tl.program_id(1).to(tl.int64) // out_depth
    layer = tl.program_id(1).to(tl.int64) % out_depth
    batch = tl.program_id(2).to(tl.int64)
    row_tiles = tl.cdiv(out_height, ROWS)
    column_tiles = tl.cdiv(out_width, COLUMNS)
    place = tl.program_id(0).to(tl.int64)
    column = place % column_tiles * COLUMNS + tl.arange(0, COLUMNS)
    row = place // column_tiles % row_tiles * ROWS + tl.arange(0, ROWS)
    channel = place // column_tiles // row_tiles * CHANNELS + tl.arange(0, CHANNELS)
    z = layer * layer_step + layer_start + tap // tap_columns // tap_rows * tap_layer_step
    y = row * row_step + row_start + tap // tap_columns % tap_rows * tap_row_step
    x = column * column_step + column_start + tap % tap_columns * tap_column_step
    c, y, x = channel[:, None, None], y[None, :, None], x[None, None, :]
    inside = (c < channels) & (z >= 0) & (z < depth) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    source += batch * source_batch + z * source_layer
    value = tl.load(source + c * source_channel + y * source_row + x * source_column, mask=inside, other=0.0)
    row, column = row[None, :, None], column[None, None, :]
    out += tap * out_tap + batch * out_batch + layer * out_height * out_width
    target = out + c * out_channel + row * out_width + column
    tl.store(target, value, mask=(c < channels) & (row < out_height) & (column < out_width))


Triple = tuple[int, int, int]


def _unfold(
    source: torch.Tensor, taps: Triple, size: Triple, step: Triple, start: Triple, tap_step: Triple
) -> torch.Tensor:
    """(channels, taps, batch, size): the elements each tap of a filter meets at each place of the result."""
    batch, channels, *extents = source.shape
    out = torch.empty((channels, math.prod(taps), batch, math.prod(size)), dtype=source.dtype, device=source.device)
    if out.numel() == 0:
        return out
    columns = min(power_of_two_at_least(size[2]), 256)
    rows = min(power_of_two_at_least(size[1]), TILE_ELEMENTS // columns)
    depth = min(power_of_two_at_least(channels), TILE_ELEMENTS // columns // rows)
    launch = kernel(
        _columns,
        (POINTER[source.dtype], POINTER[out.dtype], *INTEGERS[:26]),
        CHANNELS=depth,
        ROWS=rows,
        COLUMNS=columns,
    )
    words = (
        source.data_ptr(), out.data_ptr(), channels, *extents, *size, *taps[1:], *source.stride(),
        *out.stride()[:3], *step, *start, *tap_step,
    )  # fmt: skip
    tiles = ceil_div(size[2], columns) * ceil_div(size[1], rows) * ceil_div(channels, depth)
    launch((tiles, math.prod(taps) * size[0], batch), words)
    return out


def _grouped(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """(groups, rows, ...) of a tensor whose first dimension is made of groups."""
    return tensor.reshape(groups, tensor.shape[0] // groups, -1)


def _product_of_filters(
    filters: torch.Tensor, columns: torch.Tensor, size: Triple, bias: torch.Tensor | None, form: torch.memory_format
) -> torch.Tensor:
    """(batch, outputs, size): filters (groups, outputs, channels * taps) times what _unfold gave."""
    groups, outputs, inner = filters.shape
    batch, places = columns.shape[2:]
    matrix = columns.view(groups, inner, batch, places)
    shape = (batch, groups * outputs, *size)
    out = torch.empty(shape, dtype=columns.dtype, device=columns.device, memory_format=form)
    split = out.flatten(2).unflatten(1, (groups, outputs))
    for group in range(groups):
        shift = None
        if bias is not None:
            shift = bias[group * outputs : (group + 1) * outputs].view(1, -1, 1).expand(batch, outputs, places)
        multiply(
            filters[group].expand(batch, -1, -1),
            matrix[group].permute(1, 0, 2),
            split[:, group],
            shift,
            beta=0.0 if shift is None else 1.0,
        )
    return out


def _correlate(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, step: Triple, padding: Triple,
    spread: Triple, groups: int, form: torch.memory_format,
) -> torch.Tensor:  # fmt: skip
    size = _triple(
        (source.shape[2 + d] + 2 * padding[d] - spread[d] * (weight.shape[2 + d] - 1) - 1) // step[d] + 1
        for d in range(3)
    )
    taps = _triple(weight.shape[2:])
    columns = _unfold(source, taps, size, step, _triple(-p for p in padding), spread)
    return _product_of_filters(_grouped(weight, groups), columns, size, bias, form)


def _spread(
    gradient: torch.Tensor, weight: torch.Tensor, size: Triple, bias: torch.Tensor | None, step: Triple,
    padding: Triple, spread: Triple, groups: int, form: torch.memory_format,
) -> torch.Tensor:  # fmt: skip
    """The gradient of _correlate's source, which has that size; a transposed convolution."""
    batch, outputs = gradient.shape[:2]
    if step != (1, 1, 1):
        wide = [(n - 1) * s + 1 for n, s in zip(gradient.shape[2:], step, strict=True)]
        apart = torch.zeros((batch, outputs, *wide), dtype=gradient.dtype, device=gradient.device)
        apart[:, :, :: step[0], :: step[1], :: step[2]] = gradient
        gradient = apart
    taps = _triple(weight.shape[2:])
    # Result place y meets gradient place y + padding - tap * spread.
    columns = _unfold(gradient, taps, size, (1, 1, 1), padding, _triple(-s for s in spread))
    channels = weight.shape[1]
    turned = weight.reshape(groups, outputs // groups, channels, math.prod(taps)).transpose(1, 2)
    return _product_of_filters(turned.reshape(groups, channels, -1), columns, size, bias, form)


def _gradient_of_filters(
    gradient: torch.Tensor, source: torch.Tensor, weight: torch.Tensor, step: Triple, padding: Triple, spread: Triple,
    groups: int,
) -> torch.Tensor:  # fmt: skip
    taps = _triple(weight.shape[2:])
    columns = _unfold(source, taps, _triple(gradient.shape[2:]), step, _triple(-p for p in padding), spread)
    left = _grouped(gradient.transpose(0, 1).contiguous(), groups)
    right = columns.view(groups, left.shape[2] and columns.numel() // groups // left.shape[2], left.shape[2])
    out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    multiply(left, right.transpose(1, 2), _grouped(out, groups))
    return out


def _triple(values: Any) -> Triple:
    first, second, third = values
    return first, second, third


def _in_three_dimensions(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[(slice(None), slice(None), *(None,) * (5 - tensor.dim()))]


def _without_dimensions(tensor: torch.Tensor, absent: int) -> torch.Tensor:
    """Without the dimensions of one element that came in the place of absent ones."""
    for _ in range(absent):
        tensor = tensor.select(2, 0)
    return tensor


def _three(values: Sequence[int], filler: int) -> Triple:
    return _triple((*(filler,) * (3 - len(values)), *values))


CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _outer_form(tensor: torch.Tensor) -> torch.memory_format:
    return CHANNELS_LAST.get(tensor.dim(), torch.contiguous_format)


def _form(input: torch.Tensor, weight: torch.Tensor) -> torch.memory_format:
    """Return how results lie in memory, in three dimensions: channels last if the input or the filters do."""
    is_last = any(suggest_memory_format(t) is not torch.contiguous_format for t in (input, weight) if t.dim() > 3)
    return torch.channels_last_3d if is_last else torch.contiguous_format


NOT_OURS = "convolutions are made for one, two or three dimensions and the types of the matrix engine"


def _is_ours(*tensors: torch.Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    return (
        is_multiplied(first.dtype) and first.dim() in (3, 4, 5) and all(other.dtype == first.dtype for other in given)
    )


def convolution(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> torch.Tensor:  # fmt: skip
    if not _is_ours(input, weight, bias):
        result: torch.Tensor = fallback.on_host(
            aten.convolution.default, NOT_OURS, input, weight, bias, stride, padding, dilation, transposed,
            output_padding, groups,
        )  # fmt: skip
        is_last = _form(input, weight) is not torch.contiguous_format
        return result.contiguous(memory_format=_outer_form(input) if is_last else torch.contiguous_format)
    form = _form(input, weight)
    source, filters = _in_three_dimensions(input), _in_three_dimensions(weight)
    step, before, spread = _three(stride, 1), _three(padding, 0), _three(dilation, 1)
    if transposed:
        after = _three(output_padding, 0)
        size = _triple(
            (source.shape[2 + d] - 1) * step[d] - 2 * before[d] + spread[d] * (filters.shape[2 + d] - 1) + after[d] + 1
            for d in range(3)
        )
        out = _spread(source, filters, size, bias, step, before, spread, groups, form)
    else:
        out = _correlate(source, filters, bias, step, before, spread, groups, form)
    count("aten::convolution")
    return _without_dimensions(out, 5 - input.dim())


def convolution_backward(
    grad_output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    if not _is_ours(grad_output, input, weight):
        bias_sizes = [weight.shape[1] * groups if transposed else weight.shape[0]]
        result: tuple[torch.Tensor | None, ...] = fallback.on_host(
            aten.convolution_backward.default, NOT_OURS, grad_output, input, weight, bias_sizes, stride, padding,
            dilation, transposed, output_padding, groups, output_mask,
        )  # fmt: skip
        return result
    form = _form(input, weight)
    gradient, source, filters = (_in_three_dimensions(t) for t in (grad_output, input, weight))
    step, before, spread = _three(stride, 1), _three(padding, 0), _three(dilation, 1)
    of_input = of_weight = of_bias = None
    if output_mask[0]:
        if transposed:
            of_input = _correlate(gradient, filters, None, step, before, spread, groups, form)
        else:
            of_input = _spread(gradient, filters, _triple(source.shape[2:]), None, step, before, spread, groups, form)
        of_input = _without_dimensions(of_input, 5 - input.dim())
    if output_mask[1]:
        small, large = (source, gradient) if transposed else (gradient, source)
        of_weight = _gradient_of_filters(small, large, filters, step, before, spread, groups).view(weight.shape)
        if form is not torch.contiguous_format:
            of_weight = of_weight.contiguous(memory_format=_outer_form(weight))
    if output_mask[2]:
        of_bias = gradient.sum((0, 2, 3, 4))
    count("aten::convolution_backward")
    return of_input, of_weight, of_bias
