"""More Triton kernels as people write them: normalisation, dropout, grouped products, convolution, scans, sorting,
embedding bags. In the form of `benchmarks.kernels`."""

import torch
import triton
import triton.language as tl


@triton.jit
def layer_norm_kernel(values, weight, bias, out, mean, deviation, column_count, epsilon, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < column_count
    line = tl.load(values + row * column_count + columns, mask=inside, other=0.0)
    average = tl.sum(line, axis=0) / column_count
    distance = tl.where(inside, line - average, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(distance * distance, axis=0) / column_count + epsilon)
    w = tl.load(weight + columns, mask=inside)
    b = tl.load(bias + columns, mask=inside)
    tl.store(out + row * column_count + columns, distance * inverse * w + b, mask=inside)
    tl.store(mean + row, average)
    tl.store(deviation + row, inverse)


def _layer_norm(values, weight, bias):
    rows, columns = values.shape
    out, mean, deviation = torch.empty_like(values), *(values.new_empty(rows) for _ in range(2))
    block = triton.next_power_of_2(columns)
    layer_norm_kernel[(rows,)](values, weight, bias, out, mean, deviation, columns, 1e-5, BLOCK=block)
    return out, mean, deviation


def layer_norm(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Layer norm of the rows of a contiguous matrix."""
    return _layer_norm(values, weight, bias)[0]


@triton.jit
def layer_norm_backward_kernel(
    values, weight, mean, deviation, gradient, of_values, of_weight, lock, column_count, GROUPS, BLOCK: tl.constexpr
):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < column_count
    line = tl.load(values + row * column_count + columns, mask=inside, other=0.0)
    g = tl.load(gradient + row * column_count + columns, mask=inside, other=0.0)
    w = tl.load(weight + columns, mask=inside, other=0.0)
    inverse = tl.load(deviation + row)
    normal = tl.where(inside, (line - tl.load(mean + row)) * inverse, 0.0)
    along = tl.sum(normal * w * g, axis=0) / column_count
    average = tl.sum(w * g, axis=0) / column_count
    tl.store(of_values + row * column_count + columns, (w * g - (normal * along + average)) * inverse, mask=inside)
    group = row % GROUPS
    while tl.atomic_cas(lock + group, 0, 1) == 1:
        pass
    place = of_weight + group * column_count + columns
    tl.store(place, tl.load(place, mask=inside) + g * normal, mask=inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock + group, 0)


def layer_norm_backward(values: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradients of the values, and below them that of the weight, summed by groups of rows under a lock each."""
    rows, columns = values.shape
    groups = 16
    _, mean, deviation = _layer_norm(values, weight, torch.zeros_like(weight))
    out = values.new_zeros(rows + groups, columns)
    lock = torch.zeros(groups, dtype=torch.int32, device=values.device)
    arguments = (values, weight, mean, deviation, gradient, out, out[rows:], lock, columns, groups)
    layer_norm_backward_kernel[(rows,)](*arguments, BLOCK=triton.next_power_of_2(columns))
    return torch.cat([out[:rows], out[rows:].sum(0, keepdim=True)])


@triton.jit
def dropout_kernel(values, out, length, share, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < length
    kept = tl.rand(seed, offsets) > share
    value = tl.load(values + offsets, mask=inside)
    tl.store(out + offsets, tl.where(kept, value / (1 - share), 0.0), mask=inside)


def dropout(values: torch.Tensor, block: int = 1024) -> torch.Tensor:
    """Half of the values, doubled."""
    out = torch.empty_like(values)
    dropout_kernel[(triton.cdiv(values.numel(), block),)](values, out, values.numel(), 0.5, 7, BLOCK=block)
    return out


@triton.jit
def grouped_matmul_kernel(left, right, out, starts, columns, inner, ROWS: tl.constexpr, INNER: tl.constexpr):
    """Group g multiplies rows starts[g] to starts[g + 1] of `left` by its own matrix."""
    group = tl.program_id(1)
    first, end = tl.load(starts + group), tl.load(starts + group + 1)
    column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    step = tl.arange(0, INNER)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None]
        total = tl.zeros((ROWS, ROWS), tl.float32)
        for k in range(0, inner, INNER):
            a = tl.load(left + row[:, None] * inner + (k + step)[None, :], mask=inside, other=0.0)
            b = tl.load(right + (group * inner + k + step)[:, None] * columns + column[None, :])
            total = tl.dot(a, b, total)
        tl.store(out + row[:, None] * columns + column[None, :], total, mask=inside)


def grouped_matmul(left: torch.Tensor, right: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    groups, inner, columns = right.shape
    out = torch.empty((left.shape[0], columns), dtype=torch.float32, device=left.device)
    grouped_matmul_kernel[(columns // 64, groups)](left, right, out, starts, columns, inner, ROWS=64, INNER=32)
    return out


@triton.jit
def convolution_kernel(
    image, weight, out, height, width, CHANNELS: tl.constexpr, FILTERS: tl.constexpr, BLOCK: tl.constexpr
):
    """3 x 3, zeros around the image: each tap gathers a block of pixels."""
    batch = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel, filter = tl.arange(0, CHANNELS), tl.arange(0, FILTERS)
    total = tl.zeros((BLOCK, FILTERS), tl.float32)
    for tap in range(9):
        from_y, from_x = y + tap // 3 - 1, x + tap % 3 - 1
        inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
        place = ((batch * CHANNELS + channel)[None, :] * height + from_y[:, None]) * width + from_x[:, None]
        pixels = tl.load(image + place, mask=inside[:, None], other=0.0)
        w = tl.load(weight + (filter[None, :] * CHANNELS + channel[:, None]) * 9 + tap)
        total = tl.dot(pixels, w, total)
    place = (batch * FILTERS + filter)[None, :] * height * width + pixel[:, None]
    tl.store(out + place, total, mask=(pixel < height * width)[:, None])


def convolution(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = image.shape
    filters = weight.shape[0]
    out = torch.empty((batch, filters, height, width), dtype=torch.float32, device=image.device)
    grid = (triton.cdiv(height * width, 128), batch)
    convolution_kernel[grid](image, weight, out, height, width, CHANNELS=channels, FILTERS=filters, BLOCK=128)
    return out


@triton.jit
def cumsum_kernel(values, out, columns: tl.constexpr):
    place = tl.program_id(0) * columns + tl.arange(0, columns)
    tl.store(out + place, tl.cumsum(tl.load(values + place), axis=0))


def cumsum(values: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(values)
    cumsum_kernel[(values.shape[0],)](values, out, columns=values.shape[1])
    return out


@triton.jit
def sort_kernel(values, out, columns: tl.constexpr):
    place = tl.program_id(0) * columns + tl.arange(0, columns)
    tl.store(out + place, tl.sort(tl.load(values + place)))


def sort(values: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(values)
    sort_kernel[(values.shape[0],)](values, out, columns=values.shape[1])
    return out


@triton.jit
def embedding_bag_kernel(table, index, bag, out, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = item < count
    row, target = tl.load(index + item, mask=inside, other=0), tl.load(bag + item, mask=inside, other=0)
    column = tl.arange(0, WIDTH)[None, :]
    value = tl.load(table + row[:, None] * WIDTH + column, mask=inside[:, None], other=0.0)
    tl.atomic_add(out + target[:, None] * WIDTH + column, value, mask=inside[:, None])


def embedding_bag(table: torch.Tensor, index: torch.Tensor, bag: torch.Tensor) -> torch.Tensor:
    """Sums of rows of a table by bag, of which there are BAGS."""
    out = torch.zeros((BAGS, table.shape[1]), device=table.device)
    grid = (triton.cdiv(len(index), 64),)
    embedding_bag_kernel[grid](table, index, bag, out, len(index), WIDTH=table.shape[1], BLOCK=64)
    return out


BAGS = 512
