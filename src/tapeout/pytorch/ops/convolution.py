"""Convolutions in one to three dimensions, transposed ones, and their gradients.

Products whose operands the load engine takes from the images by its access patterns (`convolution_kernels.py`). The
gradient of the input is a convolution too, with the filters reversed, and so is a transposed convolution; with a stride
s, places that differ by s meet the same taps, and each such set is a convolution of its own. All is done in three
dimensions; absent ones have one element.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from tapeout import chip as chips
from tapeout.pytorch.ops import convolution_kernels as kernels
from tapeout.pytorch.ops import depthwise, fallback
from tapeout.pytorch.ops.convolution_tiles import Problem, correlation_tile, gradient_tile, turning_cycles
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, power_of_two_at_least
from tapeout.pytorch.ops.matmul import MATRIX_DTYPES, add_parts, has_products, is_multiplied, multiply

PACKED_ELEMENTS = 16_384
"""Elements of a tile of filters that are packed."""

MOST_SKIPPED = 16

FEW_CHANNELS, MOST_MERGED = 4, 64
"""Where channels are so few, a row of taps becomes channels too, of which there are at most so many."""

aten = torch.ops.aten

Triple = tuple[int, int, int]


def _packed(weight: torch.Tensor, groups: int, *, turned: bool) -> torch.Tensor:
    """Filters (outputs, channels of a group, taps z, y, x) as (groups, z, y, x, channels, outputs of a group);
    `turned`: with outputs for channels and channels for outputs."""
    outputs, channels, *taps = weight.shape
    tap_count = math.prod(taps)
    flat = weight.reshape(outputs, channels, tap_count)
    outputs //= groups
    group_step, steps = outputs * flat.stride(0), (flat.stride(0), flat.stride(1))
    sizes = (outputs, channels)
    if turned:
        sizes, steps = (channels, outputs), (steps[1], steps[0])
    out = torch.empty((groups, *taps, sizes[1], sizes[0]), dtype=weight.dtype, device=weight.device)
    tile_taps = power_of_two_at_least(tap_count)
    rows = min(64, power_of_two_at_least(sizes[0]))
    columns = max(1, min(64, power_of_two_at_least(sizes[1]), PACKED_ELEMENTS // rows // tile_taps))
    launch = kernel(
        kernels.packed_filters,
        (POINTER[weight.dtype], POINTER[out.dtype], *INTEGERS[:7]),
        ROWS=rows,
        COLUMNS=columns,
        TAPS=tile_taps,
    )
    if out.numel():
        words = (flat.data_ptr(), out.data_ptr(), *sizes, tap_count, group_step, *steps, flat.stride(2))
        launch((ceil_div(sizes[0], rows), ceil_div(sizes[1], columns), groups), words)
    return out


def _is_last(tensor: torch.Tensor) -> bool:
    """Return whether channels are neighbours in memory, and not columns."""
    return tensor.stride(1) == 1 and (tensor.stride(4) != 1 or tensor.shape[4] == 1) and tensor.shape[1] > 1


def _skipped(source: torch.Tensor, step: int) -> int:
    """Of how many columns that are loaded one is used: where they are neighbours in memory, whole rows are faster."""
    return step if not _is_last(source) and source.stride(4) == 1 and step in (2, 4, 8, MOST_SKIPPED) else 1


def _problem(
    source: torch.Tensor, out: torch.Tensor, groups: int, channels: int, outputs: int, taps: int, step: int
) -> Problem:
    return Problem(
        images=source.shape[0],
        groups=groups,
        channels=channels,
        outputs=outputs,
        depth=out.shape[2],
        height=out.shape[3],
        width=out.shape[4],
        taps=taps,
        is_last=_is_last(source),
        skipped=_skipped(source, step),
    )


def _correlation(
    source: torch.Tensor, filters: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, step: Triple,
    start: Triple, tap_step: Triple,
) -> None:  # fmt: skip
    """Write to `out` (batch, outputs, z, y, x) the sums over what the taps of packed filters meet at
    place * step + start + tap * tap_step."""
    if out.numel() == 0:
        return
    groups, *taps, channels, outputs = filters.shape
    problem = _problem(source, out, groups, max(1, channels), outputs, math.prod(taps), step[2])
    chip, dtype, size_bytes = chips.active(), MATRIX_DTYPES[source.dtype], source.element_size()
    tile, cycles = correlation_tile(chip, dtype, size_bytes, problem)
    if not problem.is_last and source.shape[1] > 1:  # rows may be so short that it pays to have channels last
        turned = dataclasses.replace(problem, is_last=True, skipped=1)
        other, fewer = correlation_tile(chip, dtype, size_bytes, turned)
        if fewer + turning_cycles(chip, source.numel() * size_bytes) < cycles:
            source, problem, tile = source.contiguous(memory_format=torch.channels_last_3d), turned, other
    shift = source if bias is None else bias
    launch = kernel(
        kernels.correlation,
        (*(POINTER[t.dtype] for t in (source, filters, shift, out)), *INTEGERS[:32]),
        IMAGES=tile.images,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        CHANNELS=tile.channels,
        OUTPUTS=tile.outputs,
        STEP_ROW=step[1],
        STEP_COLUMN=step[2],
        SKIPPED=problem.skipped,
        CHAINS=tile.chains,
        LAST=problem.is_last,
        PIXELS_FIRST=tile.pixels_first,
        HAS_BIAS=bias is not None,
    )
    images, _, depth, height, width = source.shape
    words = (
        *(t.data_ptr() for t in (source, filters, shift, out)),
        images, channels, outputs, depth, height, width, *out.shape[3:], *taps,
        *source.stride(), *filters.stride()[:4], *out.stride(), step[0], *start, *tap_step,
    )  # fmt: skip
    blocks = ceil_div(images, tile.images) * ceil_div(out.shape[3], tile.rows) * ceil_div(out.shape[4], tile.columns)
    launch((blocks * out.shape[2], ceil_div(outputs, tile.outputs), groups), words)


def _pointwise(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, *, turned: bool
) -> None:
    """A convolution of one tap that meets each place itself: a product. `turned`: with the filters transposed."""
    filters = weight.reshape(weight.shape[0], weight.shape[1])
    if turned:
        filters = filters.transpose(0, 1)
    shift = None if bias is None else bias.view(1, -1, 1)
    if _is_last(source) and _is_last(out):  # each pixel is a row
        left, target = (t.permute(0, 2, 3, 4, 1).reshape(1, -1, t.shape[1]) for t in (source, out))
        right = filters.transpose(0, 1).unsqueeze(0)
        shift = None if shift is None else shift.view(1, 1, -1)
    else:
        right, target = source.flatten(2), out.flatten(2)
        left = filters.expand(source.shape[0], *filters.shape)
    shift = None if shift is None else shift.expand(target.shape)
    multiply(left, right, target, shift, beta=0.0 if shift is None else 1.0)


def _is_pointwise(
    source: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, groups: int, step: Triple, padding: Triple
) -> bool:
    one = (1, 1, 1)
    if groups != 1 or tuple(weight.shape[2:]) != one or step != one or padding != (0, 0, 0) or not weight.numel():
        return False
    return source.shape[2:] == out.shape[2:] and all(t.is_contiguous() or _is_dense_last(t) for t in (source, out))


def _is_dense_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last_3d)


def _is_depthwise(weight: torch.Tensor, channels: int, groups: int, step: Triple) -> bool:
    """Return whether each channel has a filter of its own, of two dimensions at most, for one output."""
    return groups > 1 and weight.shape[:2] == (channels, 1) and channels == groups and weight.shape[2] == step[0] == 1


def _layers(tensor: torch.Tensor) -> torch.Tensor:
    """(images, channels, rows, columns) with columns contiguous, of a tensor whose third dimension has one element or
    is made one with the images'."""
    batch, channels, depth, height, width = tensor.shape
    flat = tensor.transpose(1, 2).reshape(batch * depth, channels, height, width) if depth > 1 else tensor.select(2, 0)
    return flat if flat.stride(3) == 1 else flat.contiguous()


def _depthwise(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, step: Triple,
    start: Triple, tap_step: Triple,
) -> None:  # fmt: skip
    """Do what `_correlation` does, for filters of one channel and one output."""
    is_whole = out.shape[2] == 1 and out.stride(4) == 1
    shape = (out.shape[0] * out.shape[2], out.shape[1], *out.shape[3:])
    target = out.select(2, 0) if is_whole else torch.empty(shape, dtype=out.dtype, device=out.device)
    filters = weight.select(2, 0).select(1, 0)
    depthwise.correlate(_layers(source), filters, bias, target, step[1:], start[1:], tap_step[1:])
    if not is_whole:
        out.copy_(target.unflatten(0, (out.shape[0], out.shape[2])).transpose(1, 2))


def _correlate(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, step: Triple, padding: Triple,
    spread: Triple, groups: int, form: torch.memory_format,
) -> torch.Tensor:  # fmt: skip
    size = _triple(
        (source.shape[2 + d] + 2 * padding[d] - spread[d] * (weight.shape[2 + d] - 1) - 1) // step[d] + 1
        for d in range(3)
    )
    shape = (source.shape[0], weight.shape[0], *size)
    out = torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=form)
    if _is_pointwise(source, weight, out, groups, step, padding):
        _pointwise(source, weight, bias, out, turned=False)
    elif _is_depthwise(weight, source.shape[1], groups, step):
        _depthwise(source, weight, bias, out, step, _triple(-p for p in padding), spread)
    else:
        start = _triple(-p for p in padding)
        if (
            groups == spread[2] == 1
            and weight.shape[4] > 1
            and weight.shape[1] <= FEW_CHANNELS
            and weight.shape[4] * weight.shape[1] <= MOST_MERGED
        ):
            source, weight = _merged(source, weight, size[2], step[2], padding[2])
            start, step = (start[0], start[1], 0), (step[0], step[1], 1)
        filters = _packed(weight, groups, turned=False)
        _correlation(source, filters, bias, out, step, start, spread)
    return out


def _merged(
    source: torch.Tensor, weight: torch.Tensor, width: int, step: int, padding: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A source of few channels, and filters, with the taps of a row as channels: with channels last and zeros at the
    sides, what these meet are neighbours in memory. Pixels overlap."""
    batch, channels, depth, height, extent = source.shape
    taps = weight.shape[4]
    wide = max((width - 1) * step + taps, padding + extent)
    padded = torch.empty((batch, depth, height, wide, channels), dtype=source.dtype, device=source.device)
    padded[:, :, :, :padding].zero_()
    padded[:, :, :, padding + extent :].zero_()
    padded[:, :, :, padding : padding + extent].copy_(source.permute(0, 2, 3, 4, 1))
    by_image, by_layer, by_row, by_column, _ = padded.stride()
    shape = (batch, taps * channels, depth, height, width)
    overlapping = padded.as_strided(shape, (by_image, 1, by_layer, by_row, step * by_column))
    filters = weight.permute(0, 4, 1, 2, 3).reshape(weight.shape[0], taps * channels, *weight.shape[2:4], 1)
    return overlapping, filters


def _spread(
    gradient: torch.Tensor, weight: torch.Tensor, size: Triple, bias: torch.Tensor | None, step: Triple,
    padding: Triple, spread: Triple, groups: int, form: torch.memory_format,
) -> torch.Tensor:  # fmt: skip
    """The gradient of _correlate's source, which has that size; a transposed convolution.

    Place y meets gradient place (y + padding - tap * spread) / step where that is whole."""
    shape = (gradient.shape[0], groups * weight.shape[1], *size)
    out = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=form)
    if _is_pointwise(gradient, weight, out, groups, step, padding):
        _pointwise(gradient, weight, bias, out, turned=True)
        return out
    if step == (1, 1, 1) and _is_depthwise(weight, gradient.shape[1], groups, step):
        _depthwise(gradient, weight, bias, out, step, padding, _triple(-s for s in spread))
        return out
    filters = _packed(weight, groups, turned=True)
    target, columns = out, ceil_div(size[2], step[2])
    is_apart = step[2] > 1 and not _is_last(out)
    if is_apart:  # columns of one phase lie side by side first, and are interleaved then
        target = torch.empty((step[2], *shape[:4], columns), dtype=out.dtype, device=out.device)
    for phase in itertools.product(*(range(s) for s in step)):
        if any(p >= n for p, n in zip(phase, size, strict=True)):
            continue
        taps = [
            [k for k in range(weight.shape[2 + d]) if (phase[d] + padding[d] - k * spread[d]) % step[d] == 0]
            for d in range(3)
        ]
        between = [k[1] - k[0] if len(k) > 1 else 1 for k in taps]
        first = [k[0] if k else 0 for k in taps]
        slices = tuple(slice(f, f + len(k) * n, n) for f, k, n in zip(first, taps, between, strict=True))
        own = target[phase[2]] if is_apart else out[..., phase[2] :: step[2]]
        own = own[..., : ceil_div(size[2] - phase[2], step[2])]
        _correlation(
            gradient,
            filters[(slice(None), *slices)],
            bias,
            own[:, :, phase[0] :: step[0], phase[1] :: step[1]],
            (1, 1, 1),
            _triple((phase[d] + padding[d] - first[d] * spread[d]) // step[d] for d in range(3)),
            _triple(-between[d] * spread[d] // step[d] for d in range(3)),
        )
    if is_apart:
        _interleave(target, out)
    return out


def _interleave(source: torch.Tensor, out: torch.Tensor) -> None:
    """out[..., column * phases + phase] = source[phase, ..., column]; both contiguous."""
    phases, columns, width = source.shape[0], source.shape[-1], out.shape[-1]
    lines = math.prod(out.shape[:-1])
    if lines * width == 0:
        return
    tile_phases, tile_columns = power_of_two_at_least(phases), min(128, power_of_two_at_least(columns))
    tile_lines = max(1, 16_384 // tile_phases // tile_columns)
    if tile_phases != phases:
        for phase in range(phases):
            own = out[..., phase::phases]
            own.copy_(source[phase][..., : own.shape[-1]])
        return
    launch = kernel(
        kernels.interleaved,
        (POINTER[source.dtype], POINTER[out.dtype], *INTEGERS[:3]),
        PHASES=phases,
        LINES=tile_lines,
        COLUMNS=tile_columns,
    )
    words = (source.data_ptr(), out.data_ptr(), lines, width, columns)
    launch((ceil_div(columns, tile_columns), ceil_div(lines, tile_lines), 1), words)


def _gradient_of_filters(
    gradient: torch.Tensor, source: torch.Tensor, weight: torch.Tensor, step: Triple, padding: Triple, spread: Triple,
    groups: int,
) -> torch.Tensor:  # fmt: skip
    """The gradient of _correlate's filters, given that of its result."""
    out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    taps = tuple(weight.shape[2:])
    tap_count, channels, outputs = math.prod(taps), weight.shape[1], weight.shape[0] // groups
    if out.numel() == 0:
        return out
    if gradient.numel() == 0:
        return out.zero_()
    if _is_depthwise(weight, source.shape[1], groups, step) and padding[0] == 0:
        start = (-padding[1], -padding[2])
        sums = depthwise.gradient_of_filters(
            _layers(gradient), _layers(source), (taps[1], taps[2]), step[1:], start, spread[1:]
        )
        add_parts(sums.view(sums.shape[0], 1, weight.shape[0], -1), out.view(1, weight.shape[0], -1))
        return out
    problem = _problem(source, gradient, groups, channels, outputs, tap_count, step[2])
    chip, dtype, size_bytes = chips.active(), MATRIX_DTYPES[source.dtype], source.element_size()
    is_gradient_last = _is_last(gradient)
    tile, share, cycles = gradient_tile(chip, dtype, size_bytes, problem, is_gradient_last)
    if not problem.is_last and source.shape[1] > 1 and gradient.shape[1] > 1:
        turned = dataclasses.replace(problem, is_last=True, skipped=1)
        other, other_share, fewer = gradient_tile(chip, dtype, size_bytes, turned, True)
        if fewer + turning_cycles(chip, (source.numel() + gradient.numel()) * size_bytes) < cycles:
            source, gradient = (t.contiguous(memory_format=torch.channels_last_3d) for t in (source, gradient))
            problem, tile, share, is_gradient_last = turned, other, other_share, True
    blocks = ceil_div(problem.images, tile.images) * ceil_div(problem.height, tile.rows)
    parts = ceil_div(blocks * ceil_div(problem.width, tile.columns) * problem.depth, share)
    sums = torch.empty((parts, groups, tap_count, outputs, channels), dtype=torch.float32, device=source.device)
    launch = kernel(
        kernels.gradient_of_filters,
        (POINTER[gradient.dtype], POINTER[source.dtype], POINTER[sums.dtype], *INTEGERS[:30]),
        IMAGES=tile.images,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        CHANNELS=tile.channels,
        OUTPUTS=tile.outputs,
        STEP_ROW=step[1],
        STEP_COLUMN=step[2],
        SKIPPED=problem.skipped,
        CHAINS=tile.chains,
        LAST=problem.is_last,
        GRADIENT_LAST=is_gradient_last,
    )
    images, _, depth, height, width = source.shape
    words = (
        gradient.data_ptr(), source.data_ptr(), sums.data_ptr(),
        images, channels, outputs, depth, height, width, *gradient.shape[2:], *taps, share,
        *gradient.stride(), *source.stride(), step[0], *(-p for p in padding), *spread,
    )  # fmt: skip
    tiles = ceil_div(channels, tile.channels) * ceil_div(outputs, tile.outputs)
    launch((tiles, groups * tap_count, parts), words)
    # (groups, taps, outputs, channels) for each part, to (groups, outputs, channels, taps)
    by_tap = out.view(groups * outputs * channels, tap_count).transpose(0, 1) if groups == 1 else None
    if by_tap is None:
        by_tap = torch.empty((groups * tap_count, outputs * channels), dtype=out.dtype, device=out.device)
    add_parts(sums.view(parts, 1, groups * tap_count, outputs * channels), by_tap.unsqueeze(0))
    if groups > 1:
        out.view(groups, outputs * channels, tap_count).copy_(by_tap.view(groups, tap_count, -1).transpose(1, 2))
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


def form_of_results(input: torch.Tensor, weight: torch.Tensor) -> torch.memory_format:
    """Return how results lie in memory: channels last if the input or the filters do."""
    is_last = any(suggest_memory_format(t) is not torch.contiguous_format for t in (input, weight) if t.dim() > 3)
    return CHANNELS_LAST[input.dim()] if is_last else torch.contiguous_format


def _form(input: torch.Tensor, weight: torch.Tensor) -> torch.memory_format:
    """The same of results in three dimensions."""
    is_last = form_of_results(input, weight) is not torch.contiguous_format
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
        return result.contiguous(memory_format=form_of_results(input, weight))
    if not has_products(input.dtype):
        wide = convolution(
            input.float(), weight.float(), None if bias is None else bias.float(), stride, padding, dilation,
            transposed, output_padding, groups,
        )  # fmt: skip
        return wide.to(input.dtype)
    if bias is not None:
        bias = bias.contiguous()  # kernels read it by channel
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
    if not has_products(input.dtype):
        of_wide = convolution_backward(
            grad_output.float(), input.float(), weight.float(), stride, padding, dilation, transposed, output_padding,
            groups, output_mask,
        )  # fmt: skip
        return tuple(None if t is None else t.to(input.dtype) for t in of_wide)
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
        of_weight = of_weight.contiguous(memory_format=form_of_results(input, weight))
    if output_mask[2]:
        of_bias = gradient.sum((0, 2, 3, 4))
    count("aten::convolution_backward")
    return of_input, of_weight, of_bias
