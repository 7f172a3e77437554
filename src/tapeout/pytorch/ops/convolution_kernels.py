"""Kernels of convolutions: products of tiles that the load engine takes from images by its access patterns.

A tile of pixels is a block of images, rows and columns; what a tap of the filters meets there is the same block a
little further on, zero beyond the image's sides. So no columns are laid out in memory. All is done in three dimensions;
absent ones have one element.
"""

import triton
import triton.language as tl


@triton.jit
def _every_other(tile):
    """Elements 0, 2, 4, ... of the last of three dimensions."""
    even, _ = tl.split(tl.reshape(tile, (tile.shape[0], tile.shape[1], tile.shape[2] // 2, 2)))
    return even


@triton.jit
def inside_of(extent, offset, STEP: tl.constexpr):
    """The first place i and the end of the places with 0 <= i * STEP + offset < extent; numbers <= 0 are as good as
    0. Divisions take the sequencer 20 cycles."""
    if STEP == 1:
        low, high = -offset, extent - offset
    elif (STEP & (STEP - 1)) == 0:
        BITS: tl.constexpr = STEP.bit_length() - 1
        low, high = (STEP - 1 - offset) >> BITS, (extent - offset + (STEP - 1)) >> BITS
    else:
        low, high = (STEP - 1 - offset) // STEP, (extent - offset + (STEP - 1)) // STEP
    return low, high


@triton.jit
def _met(
    source, channel, image, row, column, row_offset, column_offset, is_layer,
    channels, images, height, width, out_height, out_width,
    source_batch, source_channel, source_row, source_column,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, SKIPPED: tl.constexpr, CHAINS: tl.constexpr, LAST: tl.constexpr,
    IS_CUT: tl.constexpr,
):  # fmt: skip
    """(chains, channels, pixels): what a tap meets in a block of pixels, zero outside.

    The pixel in a row and a column meets the source at row * STEP_ROW + row_offset, column * STEP_COLUMN +
    column_offset. Of SKIPPED columns that are loaded, all neighbours in memory, one is used: `column` counts them then.
    LAST: channels are neighbours in memory. IS_CUT: what pixels beyond
    the result meet is zero as well."""
    STEP: tl.constexpr = STEP_COLUMN // SKIPPED
    row_low, row_high = inside_of(height, row_offset, STEP_ROW)
    column_low, column_high = inside_of(width, column_offset, STEP)
    if IS_CUT:
        row_high, column_high = tl.minimum(row_high, out_height), tl.minimum(column_high, out_width * SKIPPED)
    source += row_offset * source_row + column_offset * source_column
    PIXELS: tl.constexpr = image.shape[0] * row.shape[0] * column.shape[0]
    if LAST:
        b, y, x, c = image[:, None, None, None], row[None, :, None, None], column[None, None, :, None], channel
        c = c[None, None, None, :]
        inside = (b < images) & (y >= row_low) & (y < row_high) & (x >= column_low) & (x < column_high) & (c < channels)
        place = b * source_batch + y * (source_row * STEP_ROW) + x * (source_column * STEP) + c * source_channel
        tile = tl.load(source + place, mask=inside & is_layer, other=0.0)
        tile = tl.permute(tl.reshape(tile, (PIXELS, CHAINS, channel.shape[0] // CHAINS)), 1, 2, 0)
    else:
        c, b, y, x = channel[:, None, None, None], image[None, :, None, None], row[None, None, :, None], column
        x = x[None, None, None, :]
        inside = (b < images) & (y >= row_low) & (y < row_high) & (x >= column_low) & (x < column_high) & (c < channels)
        place = c * source_channel + b * source_batch + y * (source_row * STEP_ROW) + x * (source_column * STEP)
        tile = tl.load(source + place, mask=inside & is_layer, other=0.0)
        tile = tl.reshape(tile, (CHAINS, channel.shape[0] // CHAINS, PIXELS))
        if SKIPPED >= 2:
            tile = _every_other(tile)
        if SKIPPED >= 4:
            tile = _every_other(tile)
        if SKIPPED >= 8:
            tile = _every_other(tile)
        if SKIPPED >= 16:
            tile = _every_other(tile)
    return tile


@triton.jit
def _block_of_pixels(
    number, images, out_height, out_width, IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The first image, row and column of a block, and what is left of the number."""
    across, down = tl.cdiv(out_width, COLUMNS), tl.cdiv(out_height, ROWS)
    column = number % across * COLUMNS
    row = number // across % down * ROWS
    over = tl.cdiv(images, IMAGES)
    return number // across // down % over * IMAGES, row, column, number // across // down // over


@triton.jit
def correlation(
    source, filters, bias, out,
    images, channels, outputs, depth, height, width, out_height, out_width,
    taps_z, taps_y, taps_x,
    source_batch, source_channel, source_z, source_y, source_x,
    filter_group, filter_z, filter_y, filter_x,
    out_batch, out_channel, out_z, out_y, out_x,
    step_z, start_z, start_y, start_x, tap_z, tap_y, tap_x,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, SKIPPED: tl.constexpr, CHAINS: tl.constexpr,
    LAST: tl.constexpr, PIXELS_FIRST: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """out[b, o, z, y, x] = bias[o] + the sum over taps and channels of source[b, c, ...] * filters[tap, c, o].

    The source is met at place * step + start + tap * tap_step along each dimension. A program for a block of pixels of
    one layer, OUTPUTS of a group, and the group; channels and outputs are those of a group. The filters of a tap are
    contiguous, (channels, outputs). CHAINS sums of one output run side by side, each over its own channels.
    PIXELS_FIRST: pixels are the rows of the matrix array, else outputs."""
    group = tl.program_id(2).to(tl.int64)
    first_image, first_row, first_column, layer = _block_of_pixels(
        tl.program_id(0).to(tl.int64), images, out_height, out_width, IMAGES, ROWS, COLUMNS
    )
    image = first_image + tl.arange(0, IMAGES)
    row = first_row + tl.arange(0, ROWS)
    column = first_column + tl.arange(0, COLUMNS)
    wide = first_column * SKIPPED + tl.arange(0, COLUMNS * SKIPPED)
    output = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)
    source += group * channels * source_channel
    filters += group * filter_group
    PIXELS: tl.constexpr = IMAGES * ROWS * COLUMNS
    if PIXELS_FIRST:
        sums = tl.zeros((CHAINS, PIXELS, OUTPUTS), tl.float32)
    else:
        sums = tl.zeros((CHAINS, OUTPUTS, PIXELS), tl.float32)
    first_channel = tl.zeros((), tl.int64)
    kz, ky, kx = first_channel, first_channel, first_channel
    for _ in range(0, taps_z * taps_y * taps_x * tl.cdiv(channels, CHAINS * CHANNELS)):
        channel = first_channel + tl.arange(0, CHAINS * CHANNELS)
        z = layer * step_z + start_z + kz * tap_z
        a = _met(
            source + z * source_z, channel, image, row, wide, start_y + ky * tap_y, start_x + kx * tap_x,
            (z >= 0) & (z < depth), channels, images, height, width, out_height, out_width,
            source_batch, source_channel, source_y, source_x, STEP_ROW, STEP_COLUMN, SKIPPED, CHAINS, LAST, False,
        )  # fmt: skip
        place = kz * filter_z + ky * filter_y + kx * filter_x + channel[:, None] * outputs + output[None, :]
        w = tl.load(filters + place, mask=(channel[:, None] < channels) & (output[None, :] < outputs), other=0.0)
        w = tl.reshape(w, (CHAINS, CHANNELS, OUTPUTS))
        if PIXELS_FIRST:
            sums = tl.dot(tl.permute(a, 0, 2, 1), w, sums, input_precision="ieee")
        else:
            sums = tl.dot(tl.permute(w, 0, 2, 1), a, sums, input_precision="ieee")
        first_channel += CHAINS * CHANNELS
        turn = (first_channel >= channels).to(tl.int64)
        first_channel *= 1 - turn
        kx += turn
        turn = (kx == taps_x).to(tl.int64)
        kx *= 1 - turn
        ky += turn
        turn = (ky == taps_y).to(tl.int64)
        ky *= 1 - turn
        kz += turn
    total = tl.sum(sums, axis=0) if CHAINS > 1 else tl.reshape(sums, (sums.shape[1], sums.shape[2]))
    b, y, x = image[:, None, None, None], row[None, :, None, None], column[None, None, :, None]
    o = output[None, None, None, :]
    if PIXELS_FIRST:
        if HAS_BIAS:
            shift = tl.load(bias + group * outputs + output, mask=output < outputs, other=0.0)
            total += shift.to(tl.float32)[None, :]
        total = tl.reshape(total, (IMAGES, ROWS, COLUMNS, OUTPUTS))
    else:
        if HAS_BIAS:
            shift = tl.load(bias + group * outputs + output, mask=output < outputs, other=0.0)
            total += shift.to(tl.float32)[:, None]
        total = tl.reshape(total, (OUTPUTS, IMAGES, ROWS, COLUMNS))
        b, y, x = image[None, :, None, None], row[None, None, :, None], column[None, None, None, :]
        o = output[:, None, None, None]
    inside = (b < images) & (y < out_height) & (x < out_width) & (o < outputs)
    out += group * outputs * out_channel + layer * out_z
    place = b * out_batch + o * out_channel + y * out_y + x * out_x
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gradient_of_filters(
    gradient, source, out,
    images, channels, outputs, depth, height, width, out_depth, out_height, out_width,
    taps_z, taps_y, taps_x, share,
    gradient_batch, gradient_channel, gradient_z, gradient_y, gradient_x,
    source_batch, source_channel, source_z, source_y, source_x,
    step_z, start_z, start_y, start_x, tap_z, tap_y, tap_x,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    STEP_ROW: tl.constexpr, STEP_COLUMN: tl.constexpr, SKIPPED: tl.constexpr, CHAINS: tl.constexpr,
    LAST: tl.constexpr, GRADIENT_LAST: tl.constexpr,
):  # fmt: skip
    """out[part, group, tap, o, c] = the sum over `share` blocks of pixels of gradient[o] * what is met of source[c].

    Float32, contiguous. A program for a tile of channels and outputs, a tap of a group, and a part. CHAINS sums run
    side by side, each over its own pixels."""
    taps = taps_z * taps_y * taps_x
    group = tl.program_id(1).to(tl.int64) // taps
    tap = tl.program_id(1).to(tl.int64) % taps
    part = tl.program_id(2).to(tl.int64)
    kx, ky, kz = tap % taps_x, tap // taps_x % taps_y, tap // taps_x // taps_y
    across = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0).to(tl.int64) % across * CHANNELS + tl.arange(0, CHANNELS)
    output = tl.program_id(0).to(tl.int64) // across * OUTPUTS + tl.arange(0, OUTPUTS)
    source += group * channels * source_channel
    gradient += group * outputs * gradient_channel
    PIXELS: tl.constexpr = IMAGES * ROWS * COLUMNS
    blocks = tl.cdiv(out_width, COLUMNS) * tl.cdiv(out_height, ROWS) * tl.cdiv(images, IMAGES) * out_depth
    sums = tl.zeros((CHAINS, OUTPUTS, CHANNELS), tl.float32)
    for number in range(part * share, tl.minimum(blocks, (part + 1) * share)):
        first_image, first_row, first_column, layer = _block_of_pixels(
            number, images, out_height, out_width, IMAGES, ROWS, COLUMNS
        )
        image = first_image + tl.arange(0, IMAGES)
        row = first_row + tl.arange(0, ROWS)
        wide = first_column * SKIPPED + tl.arange(0, COLUMNS * SKIPPED)
        z = layer * step_z + start_z + kz * tap_z
        a = _met(
            source + z * source_z, channel, image, row, wide, start_y + ky * tap_y, start_x + kx * tap_x,
            (z >= 0) & (z < depth), channels, images, height, width, out_height, out_width,
            source_batch, source_channel, source_y, source_x, STEP_ROW, STEP_COLUMN, SKIPPED, 1, LAST, True,
        )  # fmt: skip
        g = _met(
            gradient + layer * gradient_z, output, image, row, first_column + tl.arange(0, COLUMNS), layer * 0,
            layer * 0, layer >= 0, outputs, images, out_height, out_width, out_height, out_width,
            gradient_batch, gradient_channel, gradient_y, gradient_x, 1, 1, 1, 1, GRADIENT_LAST, False,
        )  # fmt: skip
        a = tl.permute(tl.reshape(a, (CHANNELS, CHAINS, PIXELS // CHAINS)), 1, 2, 0)
        g = tl.permute(tl.reshape(g, (OUTPUTS, CHAINS, PIXELS // CHAINS)), 1, 0, 2)
        sums = tl.dot(g, a, sums, input_precision="ieee")
    total = tl.sum(sums, axis=0) if CHAINS > 1 else tl.reshape(sums, (OUTPUTS, CHANNELS))
    line = (part * tl.num_programs(1) + tl.program_id(1)) * outputs + output
    inside = (output[:, None] < outputs) & (channel[None, :] < channels)
    tl.store(out + line[:, None] * channels + channel[None, :], total, mask=inside)


@triton.jit
def packed_filters(
    filters, out, rows, columns, taps, filter_group, filter_row, filter_column, filter_tap,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """out[group, tap, column, row] = filters[group, row, column, tap], contiguous. A program for some rows and columns,
    and a group."""
    group = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    tap = tl.arange(0, TAPS)
    r, c, t = row[:, None, None], column[None, :, None], tap[None, None, :]
    inside = (r < rows) & (c < columns) & (t < taps)
    place = group * filter_group + r * filter_row + c * filter_column + t * filter_tap
    tile = tl.load(filters + place, mask=inside, other=0.0)
    r, c, t = row[None, None, :], column[None, :, None], tap[:, None, None]
    inside = (r < rows) & (c < columns) & (t < taps)
    tl.store(out + ((group * taps + t) * columns + c) * rows + r, tl.permute(tile, 2, 1, 0), mask=inside)


@triton.jit
def interleaved(source, out, lines, width, apart, PHASES: tl.constexpr, LINES: tl.constexpr, COLUMNS: tl.constexpr):
    """out[line, column * PHASES + phase] = source[phase, line, column]; rows of the source are `apart`, those of the
    result have `width`."""
    line = tl.program_id(1).to(tl.int64) * LINES + tl.arange(0, LINES)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    phase = tl.arange(0, PHASES)
    place = (phase[:, None, None] * lines + line[None, :, None]) * apart + column[None, None, :]
    inside = (line[None, :, None] < lines) & (column[None, None, :] < apart)
    tile = tl.load(source + place, mask=inside, other=0.0)
    tile = tl.reshape(tl.permute(tile, 1, 2, 0), (LINES, COLUMNS * PHASES))
    wide = tl.program_id(0).to(tl.int64) * (COLUMNS * PHASES) + tl.arange(0, COLUMNS * PHASES)
    tl.store(out + line[:, None] * width + wide[None, :], tile, mask=(line[:, None] < lines) & (wide[None, :] < width))
