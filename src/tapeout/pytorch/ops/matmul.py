"""Matrix products: mm, addmm, bmm, baddbmm, of any strides, in float32, float16 and bfloat16, accumulated in float32.

Two kernels. One computes output tiles on the matrix engine, of sizes that `tiles` chooses for the chip. With one row (a
decode step) each weight is used once, and the vector engine may be the faster of the two: then it multiplies and sums.
"""

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, refuse_as_the_host_does
from tapeout.pytorch.ops.tiles import Lie, lanes_are_faster, product_tile, row_tile, sum_tile

MATRIX_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
"""Types that the matrix engine multiplies, and the chip's names of them."""


def has_products(dtype: torch.dtype) -> bool:
    """Return whether the active chip's matrix engine multiplies the type."""
    name = MATRIX_DTYPES.get(dtype)
    return name is not None and chips.active().core.matrix.multiply_accumulates_per_cycle(name) > 0


def is_multiplied(dtype: torch.dtype) -> bool:
    """Return whether the matrix engine multiplies the type, or else float32, which holds its values and products
    exactly."""
    return dtype in MATRIX_DTYPES and (has_products(dtype) or has_products(torch.float32))


@triton.jit
def _operands(
    left, right, start, end, row, column, rows, columns,
    left_row, left_inner, right_inner, right_column,
    INNER: tl.constexpr, CONTIGUOUS_ROWS: tl.constexpr, CONTIGUOUS_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Tiles (rows, k) and (k, columns), zero outside; each read as it lies in memory, and transposed on the chip."""
    k = start + tl.arange(0, INNER)
    if CONTIGUOUS_ROWS:
        left_inside = (k[:, None] < end) & (row[None, :] < rows)
        place = k[:, None] * left_inner + row[None, :] * left_row
        a = tl.trans(tl.load(left + place, mask=left_inside, other=0.0))
    else:
        left_inside = (row[:, None] < rows) & (k[None, :] < end)
        a = tl.load(left + row[:, None] * left_row + k[None, :] * left_inner, mask=left_inside, other=0.0)
    if CONTIGUOUS_COLUMNS:
        right_inside = (column[:, None] < columns) & (k[None, :] < end)
        place = column[:, None] * right_column + k[None, :] * right_inner
        b = tl.trans(tl.load(right + place, mask=right_inside, other=0.0))
    else:
        right_inside = (k[:, None] < end) & (column[None, :] < columns)
        place = k[:, None] * right_inner + column[None, :] * right_column
        b = tl.load(right + place, mask=right_inside, other=0.0)
    return a, b


@triton.jit
def _tiles(
    left, right, bias, out,
    rows, columns, inner, share, parts,
    left_batch, left_row, left_inner,
    right_batch, right_inner, right_column,
    bias_batch, bias_row, bias_column,
    out_part, out_batch, out_row, out_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, CHAINS: tl.constexpr, IS_ONE_STEP: tl.constexpr,
    CONTIGUOUS_ROWS: tl.constexpr, CONTIGUOUS_COLUMNS: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
):  # fmt: skip
    """One tile of `out = alpha * left @ right + beta * bias` for each program: columns, rows, batch and part.

    A part is `share` of the inner dimension, and has an output of its own. Within it, CHAINS sums of one output run
    side by side, each over its own k: they take turns in the matrix array as tiles of different outputs do. What is
    left of k is added at the end."""
    batch = tl.program_id(2).to(tl.int64) // parts
    part = tl.program_id(2).to(tl.int64) % parts
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    left += batch * left_batch
    right += batch * right_batch
    first = part * share
    end = tl.minimum(inner, first + share)
    rest = first
    if CHAINS > 1:
        sums = tl.zeros((CHAINS, ROWS, COLUMNS), tl.float32)
        rest = first + (end - first) // (CHAINS * INNER) * (CHAINS * INNER)
        chain = tl.arange(0, CHAINS)[:, None, None] * INNER
        for start in range(first, rest, CHAINS * INNER):
            k = start + tl.arange(0, INNER)
            if CONTIGUOUS_ROWS:
                place = (chain + k[None, :, None]) * left_inner + row[None, None, :] * left_row
                a = tl.permute(tl.load(left + place, mask=row[None, None, :] < rows, other=0.0), 0, 2, 1)
            else:
                place = row[None, :, None] * left_row + (chain + k[None, None, :]) * left_inner
                a = tl.load(left + place, mask=row[None, :, None] < rows, other=0.0)
            if CONTIGUOUS_COLUMNS:
                place = column[None, :, None] * right_column + (chain + k[None, None, :]) * right_inner
                b = tl.permute(tl.load(right + place, mask=column[None, :, None] < columns, other=0.0), 0, 2, 1)
            else:
                place = (chain + k[None, :, None]) * right_inner + column[None, None, :] * right_column
                b = tl.load(right + place, mask=column[None, None, :] < columns, other=0.0)
            sums = tl.dot(a, b, sums, input_precision="ieee")
        total = tl.sum(sums, axis=0)
    elif not IS_ONE_STEP:
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
    if IS_ONE_STEP:
        a, b = _operands(
            left, right, first, end, row, column, rows, columns, left_row, left_inner, right_inner, right_column,
            INNER, CONTIGUOUS_ROWS, CONTIGUOUS_COLUMNS,
        )  # fmt: skip
        total = tl.dot(a, b, input_precision="ieee")
    else:
        for start in range(rest, end, INNER):
            a, b = _operands(
                left, right, start, end, row, column, rows, columns, left_row, left_inner, right_inner, right_column,
                INNER, CONTIGUOUS_ROWS, CONTIGUOUS_COLUMNS,
            )  # fmt: skip
            total = tl.dot(a, b, total, input_precision="ieee")
    if ALPHA != 1.0:
        total *= ALPHA
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    if BETA != 0.0:
        place = batch * bias_batch + row[:, None] * bias_row + column[None, :] * bias_column
        total += BETA * tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    place = part * out_part + batch * out_batch + row[:, None] * out_row + column[None, :] * out_column
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sum_of_parts(
    parts, bias, out,
    count, rows, columns, part_step, part_batch,
    bias_batch, bias_row, bias_column,
    out_batch, out_row, out_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
):  # fmt: skip
    """`out = alpha * (the sum of what the programs of each part stored, in order) + beta * bias`; a tile a program."""
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    place = batch * part_batch + row[:, None] * columns + column[None, :]
    total = tl.load(parts + place, mask=inside, other=0.0)
    for part in range(1, count):
        total += tl.load(parts + part * part_step + place, mask=inside, other=0.0)
    if ALPHA != 1.0:
        total *= ALPHA
    if BETA != 0.0:
        place = batch * bias_batch + row[:, None] * bias_row + column[None, :] * bias_column
        total += BETA * tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    place = batch * out_batch + row[:, None] * out_row + column[None, :] * out_column
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _row(
    left, right, bias, out,
    columns, inner,
    left_batch, left_inner,
    right_batch, right_inner, right_column,
    bias_batch, bias_column,
    out_batch, out_column,
    COLUMNS: tl.constexpr, INNER: tl.constexpr,
    CONTIGUOUS_COLUMNS: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
):  # fmt: skip
    """The same for one row: a piece of the columns for each program, and the batch."""
    batch = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    left += batch * left_batch
    right += batch * right_batch
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)
        a = tl.load(left + k * left_inner, mask=k < inner, other=0.0).to(tl.float32)
        if CONTIGUOUS_COLUMNS:
            right_inside = (column[:, None] < columns) & (k[None, :] < inner)
            place = column[:, None] * right_column + k[None, :] * right_inner
            b = tl.load(right + place, mask=right_inside, other=0.0).to(tl.float32)
            total += tl.sum(b * a[None, :], axis=1)
        else:
            right_inside = (k[:, None] < inner) & (column[None, :] < columns)
            place = k[:, None] * right_inner + column[None, :] * right_column
            b = tl.load(right + place, mask=right_inside, other=0.0).to(tl.float32)
            total += tl.sum(b * a[:, None], axis=0)
    if ALPHA != 1.0:
        total *= ALPHA
    inside = column < columns
    if BETA != 0.0:
        place = batch * bias_batch + column * bias_column
        total += BETA * tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + batch * out_batch + column * out_column, total.to(out.dtype.element_ty), mask=inside)


def multiply(
    left: torch.Tensor,
    right: torch.Tensor,
    out: torch.Tensor,
    bias: torch.Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None:
    """out[b] = alpha * left[b] @ right[b] + beta * bias[b]; three dimensions each, bias broadcast to out's shape, of a
    type for which `is_multiplied`."""
    if not has_products(left.dtype):
        wide = torch.empty(out.shape, dtype=torch.float32, device=out.device)
        multiply(left.float(), right.float(), wide, bias, alpha, beta)
        out.copy_(wide)
        return
    batches, rows, inner = left.shape
    columns = right.shape[2]
    if batches == 0 or rows == 0 or columns == 0:
        return
    if bias is None or beta == 0.0:
        bias, beta = out, 0.0
    left_batch, left_row, left_inner = left.stride()
    right_batch, right_inner, right_column = right.stride()
    bias_batch, bias_row, bias_column = bias.stride()
    out_batch, out_row, out_column = out.stride()
    addresses = (left.data_ptr(), right.data_ptr(), bias.data_ptr(), out.data_ptr())
    pointers = (POINTER[left.dtype], POINTER[right.dtype], POINTER[bias.dtype], POINTER[out.dtype])
    contiguous_columns = right_inner == 1 and right_column != 1
    chip, dtype, size_bytes = chips.active(), MATRIX_DTYPES[left.dtype], left.element_size()
    if rows == 1 and lanes_are_faster(chip, dtype, size_bytes, batches * columns, inner):
        column_tile, depth = row_tile(chip, size_bytes, batches * columns, inner, contiguous_columns)
        launch = kernel(
            _row,
            (*pointers, *INTEGERS[:11]),
            COLUMNS=column_tile,
            INNER=depth,
            CONTIGUOUS_COLUMNS=contiguous_columns,
            ALPHA=float(alpha),
            BETA=float(beta),
        )
        words = (
            *addresses, columns, inner,
            left_batch, left_inner, right_batch, right_inner, right_column,
            bias_batch, bias_column, out_batch, out_column,
        )  # fmt: skip
        launch((ceil_div(columns, column_tile), 1, batches), words)
        return
    contiguous_rows = left_row == 1 and left_inner != 1
    line = chip.memory_side.line_bytes // size_bytes
    lies = (
        Lie(not contiguous_rows, (left_inner if contiguous_rows else left_row) % line == 0),
        Lie(contiguous_columns, (right_column if contiguous_columns else right_inner) % line == 0),
    )
    tile = product_tile(chip, dtype, size_bytes, batches, rows, columns, inner, lies)
    tiles = (ceil_div(columns, tile.columns), ceil_div(rows, tile.rows))
    target, out_part, shift, scale = out, 0, beta, alpha
    if tile.parts > 1:
        target = torch.empty((tile.parts, batches, rows, columns), dtype=torch.float32, device=out.device)
        out_part, out_batch, out_row, out_column = target.stride()
        shift, scale = 0.0, 1.0
    launch = kernel(
        _tiles,
        (*pointers[:3], POINTER[target.dtype], *INTEGERS[:18]),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        INNER=tile.depth,
        CHAINS=tile.chains,
        IS_ONE_STEP=tile.chains == 1 and tile.share <= tile.depth,
        CONTIGUOUS_ROWS=contiguous_rows,
        CONTIGUOUS_COLUMNS=contiguous_columns,
        ALPHA=float(scale),
        BETA=float(shift),
    )
    tile_words = (
        *addresses[:3], target.data_ptr(), rows, columns, inner, tile.share, tile.parts,
        left_batch, left_row, left_inner, right_batch, right_inner, right_column,
        bias_batch, bias_row, bias_column, out_part, out_batch, out_row, out_column,
    )  # fmt: skip
    launch((*tiles, batches * tile.parts), tile_words)
    if tile.parts > 1:
        add_parts(target, out, bias, alpha, beta)


def add_parts(
    parts: torch.Tensor, out: torch.Tensor, bias: torch.Tensor | None = None, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """out = alpha * (sum over the first dimension of `parts`, in order) + beta * bias, broadcast to out's shape."""
    if bias is None or beta == 0.0:
        bias, beta = out, 0.0
    count, batches, rows, columns = parts.shape
    row_tile, column_tile = sum_tile(chips.active(), batches, rows, columns)
    launch = kernel(
        _sum_of_parts,
        (POINTER[parts.dtype], POINTER[bias.dtype], POINTER[out.dtype], *INTEGERS[:11]),
        ROWS=row_tile,
        COLUMNS=column_tile,
        ALPHA=float(alpha),
        BETA=float(beta),
    )
    words = (
        parts.data_ptr(), bias.data_ptr(), out.data_ptr(), count, rows, columns, *parts.stride()[:2],
        *bias.stride(), *out.stride(),
    )  # fmt: skip
    launch((ceil_div(columns, column_tile), ceil_div(rows, row_tile), batches), words)


def _is_ours(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> bool:
    return is_multiplied(left.dtype) and right.dtype == left.dtype and out.dtype == left.dtype


def mm_out(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    if len({left.dtype, right.dtype, out.dtype}) > 1:
        refuse_as_the_host_does(torch.ops.aten.mm.out, left, right, out=out)
    if not _is_ours(left, right, out):
        return otherwise(torch.ops.aten.mm.out, left, right, out=out)
    shape = (left.shape[0], right.shape[1])
    if out.shape != shape:
        out.resize_(shape)
    multiply(left.unsqueeze(0), right.unsqueeze(0), out.unsqueeze(0))
    count("aten::mm")
    return out


def bmm_out(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    if len({left.dtype, right.dtype, out.dtype}) > 1:
        refuse_as_the_host_does(torch.ops.aten.bmm.out, left, right, out=out)
    if not _is_ours(left, right, out):
        return otherwise(torch.ops.aten.bmm.out, left, right, out=out)
    shape = (left.shape[0], left.shape[1], right.shape[2])
    if out.shape != shape:
        out.resize_(shape)
    multiply(left, right, out)
    count("aten::bmm")
    return out


def addmm_out(
    bias: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: torch.Tensor,
) -> torch.Tensor:
    if len({bias.dtype, left.dtype, right.dtype, out.dtype}) > 1:
        refuse_as_the_host_does(torch.ops.aten.addmm.out, bias, left, right, beta=beta, alpha=alpha, out=out)
    if not _is_ours(left, right, out):
        return otherwise(torch.ops.aten.addmm.out, bias, left, right, beta=beta, alpha=alpha, out=out)
    shape = (left.shape[0], right.shape[1])
    if out.shape != shape:
        out.resize_(shape)
    multiply(
        left.unsqueeze(0),
        right.unsqueeze(0),
        out.unsqueeze(0),
        bias.expand(shape).unsqueeze(0),
        alpha,
        beta,
    )
    count("aten::addmm")
    return out


def baddbmm_out(
    bias: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: torch.Tensor,
) -> torch.Tensor:
    if len({bias.dtype, left.dtype, right.dtype, out.dtype}) > 1:
        refuse_as_the_host_does(torch.ops.aten.baddbmm.out, bias, left, right, beta=beta, alpha=alpha, out=out)
    if not _is_ours(left, right, out):
        return otherwise(torch.ops.aten.baddbmm.out, bias, left, right, beta=beta, alpha=alpha, out=out)
    shape = (left.shape[0], left.shape[1], right.shape[2])
    if out.shape != shape:
        out.resize_(shape)
    multiply(left, right, out, bias.expand(shape), alpha, beta)
    count("aten::baddbmm")
    return out
