"""Convolutions whose groups have one channel and one output each, in up to two dimensions, on the matrix engine.

A row of the result is a row of the image times a band matrix: the taps of a row of the filter, shifted by a place from
column to column. So each row of taps is a product over all rows of all images of a channel. It multiplies zeros too,
and is still faster than the lanes, which have an operation for each tap and element. Zeros spread an infinity or a NaN
to the whole row: a tile with a NaN in its result is computed again on the lanes, tap by tap.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops.convolution_kernels import inside_of
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, kernel, power_of_two_at_least

MOST_COLUMNS = 64
"""Of a band matrix: places of the result."""

ROWS_OF_A_TILE = 512
BAND_ELEMENTS = 16_384
"""Of a tile in which band matrices are made."""


@triton.jit
def _band(bands, channel_and_row, BAND: tl.constexpr, COLUMNS: tl.constexpr):
    place = tl.arange(0, BAND)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return tl.load(bands + channel_and_row * (BAND * COLUMNS) + place)


@triton.jit
def _make_bands(
    filters, bands, count, taps, filter_tap, filter_step, first, tap_step,
    STEP: tl.constexpr, COUNT: tl.constexpr, BAND: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """bands[n, k, x] = the tap of row n of the filters that place x meets at k: k = x * STEP + first + tap * tap_step.
    COUNT rows for each program."""
    n = tl.program_id(0).to(tl.int64) * COUNT + tl.arange(0, COUNT)
    k, x = tl.arange(0, BAND), tl.arange(0, COLUMNS)
    distance = k[:, None] - x[None, :] * STEP
    result = tl.zeros((COUNT, BAND, COLUMNS), bands.dtype.element_ty)
    for tap in range(0, taps):
        place = filters + n[:, None, None] * filter_step + tap * filter_tap
        weight = tl.load(place, mask=n[:, None, None] < count, other=0.0)
        is_met = distance == (first + tap * tap_step).to(tl.int32)
        result = tl.where(is_met[None, :, :], weight, result)
    place = (n[:, None, None] * BAND + k[None, :, None]) * COLUMNS + x[None, None, :]
    tl.store(bands + place, result, mask=n[:, None, None] < count)


@triton.jit
def _rows(
    source, image, row, first_column, offset, images, height, width, out_height, source_batch, source_row,
    STEP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """(images * rows, columns) of a channel, from a column on; columns are neighbours in memory. Zero outside."""
    b, y, x = image[:, None, None], row[None, :, None], tl.arange(0, COLUMNS)[None, None, :]
    low, high = inside_of(height, offset, STEP)
    high = tl.minimum(high, out_height)
    inside = (b < images) & (y >= low) & (y < high) & (x >= -first_column) & (x < width - first_column)
    place = b * source_batch + y * (source_row * STEP) + x + (offset * source_row + first_column)
    tile = tl.load(source + place, mask=inside, other=0.0)
    return tl.reshape(tile, (image.shape[0] * row.shape[0], COLUMNS))


@triton.jit
def _tap_by_tap(
    source, filters, image, row, column, images, height, width, out_height, out_width, taps, taps_of_row,
    source_batch, source_row, filter_tap, filter_step, start, tap_step, start_of_row, tap_step_of_row,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The same sums in float32, (images * rows, columns), of products that a filter really has."""
    b, y, x = image[:, None, None], row[None, :, None], column + tl.arange(0, COLUMNS)[None, None, :]
    total = tl.zeros((image.shape[0], row.shape[0], COLUMNS), tl.float32)
    for tap in range(0, taps):
        for place in range(0, taps_of_row):
            weight = tl.load(filters + tap * filter_step + place * filter_tap).to(tl.float32)
            down = y * STEP_ROW + start + tap * tap_step
            across = x * STEP_COLUMN + start_of_row + place * tap_step_of_row
            inside = (b < images) & (y < out_height) & (x < out_width)
            inside = inside & (down >= 0) & (down < height) & (across >= 0) & (across < width)
            value = tl.load(source + b * source_batch + down * source_row + across, mask=inside, other=0.0)
            total += tl.where(inside, value.to(tl.float32) * weight, 0.0)
    return tl.reshape(total, (image.shape[0] * row.shape[0], COLUMNS))


@triton.jit
def _depthwise(
    source, bands, filters, bias, out,
    images, channels, height, width, out_height, out_width, taps, taps_of_row,
    source_batch, source_channel, source_row, out_batch, out_channel, out_row, filter_tap, filter_step,
    first_column, start, tap_step, start_of_row, tap_step_of_row,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BAND: tl.constexpr,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """A block of images, rows and columns of one channel for each program."""
    channel = tl.program_id(1).to(tl.int64)
    across, down = tl.cdiv(out_width, COLUMNS), tl.cdiv(out_height, ROWS)
    number = tl.program_id(0).to(tl.int64)
    column = number % across * COLUMNS
    row = number // across % down * ROWS + tl.arange(0, ROWS)
    image = number // across // down * IMAGES + tl.arange(0, IMAGES)
    source += channel * source_channel
    total = tl.zeros((IMAGES * ROWS, COLUMNS), tl.float32)
    for tap in range(0, taps):
        a = _rows(
            source, image, row, column * STEP_COLUMN + first_column, start + tap * tap_step, images, height, width,
            out_height, source_batch, source_row, STEP_ROW, BAND,
        )  # fmt: skip
        total = tl.dot(a, _band(bands, channel * taps + tap, BAND, COLUMNS), total, input_precision="ieee")
    if tl.max(tl.where(total == total, 0, 1)) > 0:
        total = _tap_by_tap(
            source, filters + channel * taps * filter_step, image, row, column, images, height, width, out_height,
            out_width, taps, taps_of_row, source_batch, source_row, filter_tap, filter_step, start, tap_step,
            start_of_row, tap_step_of_row, STEP_ROW, STEP_COLUMN, COLUMNS,
        )  # fmt: skip
    if HAS_BIAS:
        total += tl.load(bias + channel + tl.arange(0, 1)[:, None]).to(tl.float32)
    b, y, x = image[:, None, None], row[None, :, None], column + tl.arange(0, COLUMNS)[None, None, :]
    place = channel * out_channel + b * out_batch + y * out_row + x
    result = tl.reshape(total, (IMAGES, ROWS, COLUMNS)).to(out.dtype.element_ty)
    tl.store(out + place, result, mask=(b < images) & (y < out_height) & (x < out_width))


@triton.jit
def _gradient_of_depthwise(
    gradient, source, out,
    images, channels, height, width, out_height, out_width, taps, taps_of_row, share,
    gradient_batch, gradient_channel, gradient_row, source_batch, source_channel, source_row,
    first_column, start, tap_step, first, tap_step_of_row,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BAND: tl.constexpr,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, CHAINS: tl.constexpr,
):  # fmt: skip
    """out[part, channel, row of taps, tap] in float32: sums along the diagonals of the products of rows of the source
    with rows of the gradient, over `share` blocks. A program for a row of taps of a channel, and a part."""
    channel = tl.program_id(0).to(tl.int64) // taps
    tap = tl.program_id(0).to(tl.int64) % taps
    part = tl.program_id(1).to(tl.int64)
    across, down = tl.cdiv(out_width, COLUMNS), tl.cdiv(out_height, ROWS)
    blocks = across * down * tl.cdiv(images, IMAGES)
    source += channel * source_channel
    gradient += channel * gradient_channel
    sums = tl.zeros((CHAINS, BAND, COLUMNS), tl.float32)
    LINES: tl.constexpr = IMAGES * ROWS // CHAINS
    for number in range(part * share, tl.minimum(blocks, (part + 1) * share)):
        column = number % across * COLUMNS
        row = number // across % down * ROWS + tl.arange(0, ROWS)
        image = number // across // down * IMAGES + tl.arange(0, IMAGES)
        a = _rows(
            source, image, row, column * STEP_COLUMN + first_column, start + tap * tap_step, images, height, width,
            out_height, source_batch, source_row, STEP_ROW, BAND,
        )  # fmt: skip
        g = _rows(
            gradient, image, row, column, column * 0, images, out_height, out_width, out_height, gradient_batch,
            gradient_row, 1, COLUMNS,
        )  # fmt: skip
        a, g = tl.reshape(a, (CHAINS, LINES, BAND)), tl.reshape(g, (CHAINS, LINES, COLUMNS))
        sums = tl.dot(tl.permute(a, 0, 2, 1), g, sums, input_precision="ieee")
    total = tl.sum(sums, axis=0)
    distance = tl.arange(0, BAND)[:, None] - tl.arange(0, COLUMNS)[None, :] * STEP_COLUMN
    out += ((part * channels + channel) * taps + tap) * taps_of_row
    for number in range(0, taps_of_row):
        is_met = distance == (first + number * tap_step_of_row).to(tl.int32)
        diagonal = tl.sum(tl.where(is_met, total, 0.0), 1)
        tl.store(out + number + tl.arange(0, 1), tl.sum(tl.reshape(diagonal, (1, BAND)), 1))


Pair = tuple[int, int]


@dataclass(frozen=True)
class Bands:
    """How columns of the result meet columns of the source: a tile of `columns` begins at its first column * step +
    `first_column` of the source, `band` columns of which it meets; place x meets tap n at k = x * step + `first` + n *
    tap_step."""

    columns: int
    band: int
    first_column: int
    first: int


def _bands(width: int, out_width: int, taps: int, step: int, start: int, tap_step: int) -> Bands:
    columns = min(MOST_COLUMNS, power_of_two_at_least(out_width))
    lowest, highest = (f(0, (taps - 1) * tap_step) for f in (min, max))
    reach = power_of_two_at_least((columns - 1) * step + highest - lowest + 1)
    if columns >= out_width and power_of_two_at_least(width) <= reach:  # the whole row, from its beginning
        return Bands(columns, power_of_two_at_least(width), 0, start)
    return Bands(columns, reach, start + lowest, -lowest)


def _block(images: int, height: int) -> Pair:
    """Images and rows of a tile."""
    rows = min(power_of_two_at_least(height), ROWS_OF_A_TILE)
    while rows > 8 and (-height % rows) * 8 > height:  # at most an eighth of them beyond the image
        rows //= 2
    return min(power_of_two_at_least(images), ROWS_OF_A_TILE // rows), rows


def correlate(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, step: Pair, start: Pair,
    tap_step: Pair,
) -> None:  # fmt: skip
    """Write to `out` (images, channels, rows, columns), rows contiguous, what each channel's filter (channels, rows,
    columns of taps) gives: each place meets the source at place * step + start + tap * tap_step."""
    if out.numel() == 0:
        return
    images, channels, height, width = source.shape
    taps, taps_of_row = weight.shape[1:]
    bands = _bands(width, out.shape[3], taps_of_row, step[1], start[1], tap_step[1])
    rows_of_taps = channels * taps
    flat = weight.reshape(rows_of_taps, taps_of_row)
    made = torch.empty((rows_of_taps, bands.band, bands.columns), dtype=source.dtype, device=source.device)
    count = max(1, BAND_ELEMENTS // bands.band // bands.columns)
    launch = kernel(
        _make_bands,
        (POINTER[flat.dtype], POINTER[made.dtype], *INTEGERS[:6]),
        STEP=step[1],
        COUNT=count,
        BAND=bands.band,
        COLUMNS=bands.columns,
    )
    words = (flat.data_ptr(), made.data_ptr(), rows_of_taps, taps_of_row, flat.stride(1), flat.stride(0))
    launch((ceil_div(rows_of_taps, count), 1, 1), (*words, bands.first, tap_step[1]))
    tile_images, tile_rows = _block(images, out.shape[2])
    shift = source if bias is None else bias
    launch = kernel(
        _depthwise,
        (*(POINTER[t.dtype] for t in (source, made, flat, shift, out)), *INTEGERS[:21]),
        IMAGES=tile_images,
        ROWS=tile_rows,
        COLUMNS=bands.columns,
        BAND=bands.band,
        STEP_ROW=step[0],
        STEP_COLUMN=step[1],
        HAS_BIAS=bias is not None,
    )
    words = (
        *(t.data_ptr() for t in (source, made, flat, shift, out)),
        images, channels, height, width, *out.shape[2:], taps, taps_of_row,
        *source.stride()[:3], *out.stride()[:3], flat.stride(1), flat.stride(0),
        bands.first_column, start[0], tap_step[0], start[1], tap_step[1],
    )  # fmt: skip
    blocks = ceil_div(images, tile_images) * ceil_div(out.shape[2], tile_rows) * ceil_div(out.shape[3], bands.columns)
    launch((blocks, channels, 1), words)


def gradient_of_filters(
    gradient: torch.Tensor, source: torch.Tensor, taps: Pair, step: Pair, start: Pair, tap_step: Pair
) -> torch.Tensor:
    """The gradient of `correlate`'s filters in float32, (parts, channels, *taps), to be added up over the parts."""
    images, channels, height, width = source.shape
    out_height, out_width = gradient.shape[2:]
    bands = _bands(width, out_width, taps[1], step[1], start[1], tap_step[1])
    tile_images, tile_rows = _block(images, out_height)
    blocks = ceil_div(images, tile_images) * ceil_div(out_height, tile_rows) * ceil_div(out_width, bands.columns)
    chip, programs = chips.active(), channels * taps[0]
    share = ceil_div(blocks, min(blocks, ceil_div(2 * chip.core_count, programs)))
    parts = ceil_div(blocks, share)
    out = torch.empty((parts, channels, *taps), dtype=torch.float32, device=source.device)
    launch = kernel(
        _gradient_of_depthwise,
        (POINTER[gradient.dtype], POINTER[source.dtype], POINTER[out.dtype], *INTEGERS[:20]),
        IMAGES=tile_images,
        ROWS=tile_rows,
        COLUMNS=bands.columns,
        BAND=bands.band,
        STEP_ROW=step[0],
        STEP_COLUMN=step[1],
        CHAINS=min(chip.core.matrix.accumulator_interleave, tile_images * tile_rows),
    )
    words = (
        gradient.data_ptr(), source.data_ptr(), out.data_ptr(),
        images, channels, height, width, out_height, out_width, *taps, share,
        *gradient.stride()[:3], *source.stride()[:3], bands.first_column, start[0], tap_step[0], bands.first,
        tap_step[1],
    )  # fmt: skip
    launch((programs, parts, 1), words)
    return out
