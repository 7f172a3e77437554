"""Norms whose statistics span planes: group norm, batch norm, and the gradients of both.

A tensor (N, C, ...) is N * C planes of `length` neighbours in memory. What is normalised together, a row, is `pieces`
of these planes at equal distances: the channels of a group, or a channel in each sample. A program takes one row: it
passes by for the statistics and again for the result, the second time from the last-level SRAM. The weight belongs to
a piece in group norm and to a row in batch norm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, refuse_as_the_host_does
from tapeout.pytorch.ops.reduce import NORM_DTYPES
from tapeout.pytorch.ops.tiles import PlanesTile, planes_tile

aten = torch.ops.aten
Results = tuple[torch.Tensor, ...]


@triton.jit
def _whole_sum(tile):
    """The sum of a matrix, (1, 1): a number would have the sequencer wait for it."""
    return tl.sum(tl.sum(tile, axis=1, keep_dims=True), axis=0, keep_dims=True)


@triton.jit
def _by_row_or_piece(factors, row, piece, pieces, groups, BY_PIECE: tl.constexpr):
    """Weights of these pieces, (pieces, 1), or the row's, (1, 1)."""
    if BY_PIECE:
        return tl.load(factors + row % groups * pieces + piece, mask=piece < pieces, other=0.0).to(tl.float32)
    else:
        return tl.load(factors + row + tl.zeros((1, 1), tl.int64)).to(tl.float32)


@triton.jit
def _of_whole_rows(
    factors, row, piece, rows, pieces, groups, BY_PIECE: tl.constexpr, ROWS: tl.constexpr, OTHER: tl.constexpr
):
    """The same for several rows: (rows, pieces, 1) or (rows, 1, 1). Rows of a tile are of one sample."""
    if BY_PIECE:
        first = tl.program_id(0).to(tl.int64) * ROWS
        channel = (first % groups + row - first) * pieces + piece
        return tl.load(factors + channel, mask=(row < rows) & (piece < pieces), other=OTHER).to(tl.float32)
    else:
        return tl.load(factors + row, mask=row < rows, other=OTHER).to(tl.float32)


@triton.jit
def _row_sums(tile):
    """The sums of each row's pieces, (rows, 1, 1)."""
    return tl.sum(tl.sum(tile, axis=2, keep_dims=True), axis=1, keep_dims=True)


@triton.jit
def _whole_plane_norm(
    source, weight, bias, out, out_mean, out_rstd, running_mean, running_variance,
    rows, pieces, length, row_stride, piece_stride, groups, epsilon, momentum,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BY_PIECE: tl.constexpr, STATISTICS: tl.constexpr,
    PADDED: tl.constexpr, ROWS: tl.constexpr, PIECES: tl.constexpr, COLUMNS: tl.constexpr, ACROSS: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """The same for rows that TILES tiles hold, ACROSS of them side by side: they are read once."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None, None]
    piece = tl.arange(0, PIECES).to(tl.int64)[None, :, None]
    column = tl.arange(0, COLUMNS).to(tl.int64)[None, None, :]
    place = row * row_stride + piece * piece_stride + column
    values = ()
    for tile in tl.static_range(TILES):
        above, start = tile // ACROSS * PIECES, tile % ACROSS * COLUMNS
        inside = (row < rows) & (above + piece < pieces) & (start + column < length)
        there = source + place + (above * piece_stride + start)
        value = tl.load(there, mask=inside, other=0.0).to(tl.float32)
        values = values + (value,)  # type: ignore[assignment]  # noqa: RUF005 (which Triton reads)
    if STATISTICS == "given":
        mean = tl.load(running_mean + row, mask=row < rows, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.load(running_variance + row, mask=row < rows, other=1.0).to(tl.float32) + epsilon)
    else:
        total = values[0]  # type: ignore[misc]
        for tile in tl.static_range(1, TILES):
            total += values[tile]
        number = (pieces * length).to(tl.float32)
        mean = _row_sums(total) * (1.0 / number)
        squares = tl.zeros((ROWS, PIECES, COLUMNS), tl.float32)
        for tile in tl.static_range(TILES):
            offset = values[tile] - mean
            above, start = tile // ACROSS * PIECES, tile % ACROSS * COLUMNS
            if PADDED and (tile % ACROSS == ACROSS - 1 or tile >= TILES - ACROSS):
                inside = (row < rows) & (above + piece < pieces) & (start + column < length)
                offset = tl.where(inside, offset, 0.0)
            squares = offset * offset if tile == 0 else tl.fma(offset, offset, squares)
        spread = _row_sums(squares)
        rstd = tl.rsqrt(tl.fma(spread, 1.0 / number, epsilon))
        if STATISTICS == "kept":
            old = (1.0 - momentum) * tl.load(running_mean + row, mask=row < rows, other=0.0).to(tl.float32)
            new = tl.fma(mean, momentum, old)
            tl.store(running_mean + row, new.to(running_mean.dtype.element_ty), mask=row < rows)
            old = (1.0 - momentum) * tl.load(running_variance + row, mask=row < rows, other=0.0).to(tl.float32)
            new = tl.fma(spread, momentum / (number - 1.0), old)
            tl.store(running_variance + row, new.to(running_variance.dtype.element_ty), mask=row < rows)
    tl.store(out_mean + row, mean, mask=row < rows)
    tl.store(out_rstd + row, rstd, mask=row < rows)
    for tile in tl.static_range(TILES):
        above, start = tile // ACROSS * PIECES, tile % ACROSS * COLUMNS
        scale = rstd
        if HAS_WEIGHT:
            scale = rstd * _of_whole_rows(weight, row, above + piece, rows, pieces, groups, BY_PIECE, ROWS, 0.0)
        move = -mean * scale
        if HAS_BIAS:
            move += _of_whole_rows(bias, row, above + piece, rows, pieces, groups, BY_PIECE, ROWS, 0.0)
        inside = (row < rows) & (above + piece < pieces) & (start + column < length)
        result = tl.fma(values[tile], scale, move)
        tl.store(out + place + (above * piece_stride + start), result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _whole_plane_gradient(
    grad, source, weight, mean, scale, out, weight_sums, bias_sums,
    rows, pieces, length, row_stride, piece_stride, groups, epsilon,
    HAS_WEIGHT: tl.constexpr, BY_PIECE: tl.constexpr, GIVEN: tl.constexpr, INPUT_GRADIENT: tl.constexpr,
    ROWS: tl.constexpr, PIECES: tl.constexpr, COLUMNS: tl.constexpr, ACROSS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The same for rows that TILES tiles hold, ACROSS of them side by side: they are read once."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None, None]
    piece = tl.arange(0, PIECES).to(tl.int64)[None, :, None]
    column = tl.arange(0, COLUMNS).to(tl.int64)[None, None, :]
    place = row * row_stride + piece * piece_stride + column
    slopes, values = (), ()
    for tile in tl.static_range(TILES):
        above, start = tile // ACROSS * PIECES, tile % ACROSS * COLUMNS
        inside = (row < rows) & (above + piece < pieces) & (start + column < length)
        there = place + (above * piece_stride + start)
        slope = tl.load(grad + there, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(source + there, mask=inside, other=0.0).to(tl.float32)
        slopes = slopes + (slope,)  # type: ignore[assignment]  # noqa: RUF005
        values = values + (value,)  # type: ignore[assignment]  # noqa: RUF005
    centre = tl.load(mean + row, mask=row < rows, other=0.0).to(tl.float32)
    rstd = tl.load(scale + row, mask=row < rows, other=1.0).to(tl.float32)
    if GIVEN:
        rstd = tl.rsqrt(rstd + epsilon)
    slope_total = tl.zeros((ROWS, 1, 1), tl.float32)
    along_total = tl.zeros((ROWS, 1, 1), tl.float32)
    DOWN: tl.constexpr = TILES // ACROSS
    for down in tl.static_range(DOWN):
        slope_sum = slopes[down * ACROSS]  # type: ignore[var-annotated]
        along_sum = slope_sum * (values[down * ACROSS] - centre)
        for tile in tl.static_range(down * ACROSS + 1, (down + 1) * ACROSS):
            slope_sum += slopes[tile]
            along_sum = tl.fma(slopes[tile], values[tile] - centre, along_sum)
        slope_sum = tl.sum(slope_sum, axis=2, keep_dims=True)
        along_sum = tl.sum(along_sum, axis=2, keep_dims=True) * rstd
        if BY_PIECE:
            below = down * PIECES + piece
            sums = row * pieces + below
            kept = (row < rows) & (below < pieces)
            tl.store(bias_sums + sums, slope_sum.to(bias_sums.dtype.element_ty), mask=kept)
            tl.store(weight_sums + sums, along_sum.to(weight_sums.dtype.element_ty), mask=kept)
            if HAS_WEIGHT:
                factor = _of_whole_rows(weight, row, below, rows, pieces, groups, True, ROWS, 0.0)
                slope_sum *= factor
                along_sum *= factor
        slope_total += tl.sum(slope_sum, axis=1, keep_dims=True)
        along_total += tl.sum(along_sum, axis=1, keep_dims=True)
    if not BY_PIECE:
        tl.store(bias_sums + row, slope_total.to(bias_sums.dtype.element_ty), mask=row < rows)
        tl.store(weight_sums + row, along_total.to(weight_sums.dtype.element_ty), mask=row < rows)
        if HAS_WEIGHT:
            weight_of_row = _of_whole_rows(weight, row, piece, rows, pieces, groups, False, ROWS, 0.0)
            slope_total *= weight_of_row
            along_total *= weight_of_row
    if INPUT_GRADIENT:
        per_element = 1.0 / (pieces * length).to(tl.float32)
        tilt = -along_total * per_element * rstd * rstd
        move = -slope_total * per_element * rstd - tilt * centre
        for tile in tl.static_range(TILES):
            above, start = tile // ACROSS * PIECES, tile % ACROSS * COLUMNS
            steep = rstd
            if HAS_WEIGHT:
                steep = rstd * _of_whole_rows(weight, row, above + piece, rows, pieces, groups, BY_PIECE, ROWS, 0.0)
            if GIVEN:  # noqa: SIM108
                result = slopes[tile] * steep
            else:
                result = tl.fma(slopes[tile], steep, tl.fma(values[tile], tilt, move))
            inside = (row < rows) & (above + piece < pieces) & (start + column < length)
            tl.store(out + place + (above * piece_stride + start), result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _plane_norm(
    source, weight, bias, out, out_mean, out_rstd, running_mean, running_variance,
    pieces, length, row_stride, piece_stride, groups, epsilon, momentum,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BY_PIECE: tl.constexpr, STATISTICS: tl.constexpr,
    PADDED: tl.constexpr, PIECES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """BY_PIECE: weight and bias belong to pieces, else to rows. STATISTICS: `own` of the row; `kept`: own, and the
    running ones follow them; `given`: the running ones. PADDED: tiles reach beyond the planes.

    Sums are of differences to the mean of the first tile. That lies among the row's values, so the square of what it
    is off is at most as many times the variance as the row has tiles."""
    row = tl.program_id(0).to(tl.int64)
    own = row + tl.zeros((1, 1), tl.int64)
    piece = tl.arange(0, PIECES).to(tl.int64)[:, None]
    column = tl.arange(0, COLUMNS).to(tl.int64)[None, :]
    place = row * row_stride + piece * piece_stride + column
    if STATISTICS == "given":
        mean = tl.load(running_mean + own).to(tl.float32)
        rstd = tl.rsqrt(tl.load(running_variance + own).to(tl.float32) + epsilon)
    else:
        inside = (piece < pieces) & (column < length)
        first = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
        known = tl.minimum(pieces, PIECES) * tl.minimum(length, COLUMNS)
        shift = _whole_sum(first) * (1.0 / known.to(tl.float32))
        total = tl.zeros((PIECES, COLUMNS), tl.float32)
        squares = tl.zeros((PIECES, COLUMNS), tl.float32)
        across = tl.cdiv(length, COLUMNS)
        for step in range(0, tl.cdiv(pieces, PIECES) * across):
            above, start = step // across * PIECES, step % across * COLUMNS
            inside = (above + piece < pieces) & (start + column < length)
            value = tl.load(source + place + (above * piece_stride + start), mask=inside, other=0.0).to(tl.float32)
            value -= shift
            if PADDED:
                value = tl.where(inside, value, 0.0)
            total += value
            squares = tl.fma(value, value, squares)
        number = (pieces * length).to(tl.float32)
        offset = _whole_sum(total) * (1.0 / number)
        spread = tl.fma(-offset * number, offset, _whole_sum(squares))
        spread = tl.maximum(spread, 0.0, propagate_nan=tl.PropagateNan.ALL)
        mean = shift + offset
        rstd = tl.rsqrt(tl.fma(spread, 1.0 / number, epsilon))
        if STATISTICS == "kept":
            new = tl.fma(mean, momentum, (1.0 - momentum) * tl.load(running_mean + own).to(tl.float32))
            tl.store(running_mean + own, new.to(running_mean.dtype.element_ty))
            old = (1.0 - momentum) * tl.load(running_variance + own).to(tl.float32)
            new = tl.fma(spread, momentum / (number - 1.0), old)
            tl.store(running_variance + own, new.to(running_variance.dtype.element_ty))
    tl.store(out_mean + own, mean)
    tl.store(out_rstd + own, rstd)
    for above in range(0, pieces, PIECES):
        scale = rstd
        if HAS_WEIGHT:
            scale = rstd * _by_row_or_piece(weight, row, above + piece, pieces, groups, BY_PIECE)
        move = -mean * scale
        if HAS_BIAS:
            move += _by_row_or_piece(bias, row, above + piece, pieces, groups, BY_PIECE)
        for start in range(0, length, COLUMNS):
            inside = (above + piece < pieces) & (start + column < length)
            there = place + (above * piece_stride + start)
            value = tl.load(source + there, mask=inside, other=0.0).to(tl.float32)
            tl.store(out + there, tl.fma(value, scale, move).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _plane_gradient(
    grad, source, weight, mean, scale, out, weight_sums, bias_sums,
    pieces, length, row_stride, piece_stride, groups, epsilon,
    HAS_WEIGHT: tl.constexpr, BY_PIECE: tl.constexpr, GIVEN: tl.constexpr, INPUT_GRADIENT: tl.constexpr,
    PIECES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """GIVEN: the statistics did not come from the input; then `scale` is the variance, else one over the deviation. The
    sums of the weight's and bias's gradients are of a piece of a row, or of a row, as BY_PIECE says."""
    row = tl.program_id(0).to(tl.int64)
    own = row + tl.zeros((1, 1), tl.int64)
    piece = tl.arange(0, PIECES).to(tl.int64)[:, None]
    column = tl.arange(0, COLUMNS).to(tl.int64)[None, :]
    place = row * row_stride + piece * piece_stride + column
    centre = tl.load(mean + own).to(tl.float32)
    rstd = tl.load(scale + own).to(tl.float32)
    if GIVEN:
        rstd = tl.rsqrt(rstd + epsilon)
    slope_total = tl.zeros((PIECES if BY_PIECE else 1, 1), tl.float32)
    along_total = tl.zeros((PIECES if BY_PIECE else 1, 1), tl.float32)
    for above in range(0, pieces, PIECES):
        slopes = tl.zeros((PIECES, COLUMNS), tl.float32)
        along = tl.zeros((PIECES, COLUMNS), tl.float32)
        for start in range(0, length, COLUMNS):
            inside = (above + piece < pieces) & (start + column < length)
            there = place + (above * piece_stride + start)
            slope = tl.load(grad + there, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(source + there, mask=inside, other=0.0).to(tl.float32)
            slopes += slope
            along = tl.fma(slope, value - centre, along)
        if BY_PIECE:
            slope_sum = tl.sum(slopes, axis=1, keep_dims=True)
            along_sum = tl.sum(along, axis=1, keep_dims=True) * rstd
            sums = row * pieces + above + piece
            tl.store(bias_sums + sums, slope_sum.to(bias_sums.dtype.element_ty), mask=above + piece < pieces)
            tl.store(weight_sums + sums, along_sum.to(weight_sums.dtype.element_ty), mask=above + piece < pieces)
            if HAS_WEIGHT:
                factor = _by_row_or_piece(weight, row, above + piece, pieces, groups, True)
                slope_sum *= factor
                along_sum *= factor
            slope_total += slope_sum
            along_total += along_sum
        else:
            slope_total += _whole_sum(slopes)
            along_total += _whole_sum(along) * rstd
    if BY_PIECE:
        slope_total = tl.sum(slope_total, axis=0, keep_dims=True)
        along_total = tl.sum(along_total, axis=0, keep_dims=True)
    else:
        tl.store(bias_sums + own, slope_total.to(bias_sums.dtype.element_ty))
        tl.store(weight_sums + own, along_total.to(weight_sums.dtype.element_ty))
        if HAS_WEIGHT:
            weight_of_row = _by_row_or_piece(weight, row, piece, pieces, groups, False)
            slope_total *= weight_of_row
            along_total *= weight_of_row
    if INPUT_GRADIENT:
        per_element = 1.0 / (pieces * length).to(tl.float32)
        tilt = -along_total * per_element * rstd * rstd
        move = -slope_total * per_element * rstd - tilt * centre
        for above in range(0, pieces, PIECES):
            steep = rstd
            if HAS_WEIGHT:
                steep = rstd * _by_row_or_piece(weight, row, above + piece, pieces, groups, BY_PIECE)
            for start in range(0, length, COLUMNS):
                inside = (above + piece < pieces) & (start + column < length)
                there = place + (above * piece_stride + start)
                slope = tl.load(grad + there, mask=inside, other=0.0).to(tl.float32)
                if GIVEN:
                    result = slope * steep
                else:
                    value = tl.load(source + there, mask=inside, other=0.0).to(tl.float32)
                    result = tl.fma(slope, steep, tl.fma(value, tilt, move))
                tl.store(out + there, result.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class _Rows:
    """How rows lie in a contiguous tensor; `groups`: rows of a sample, after which the weights begin anew."""

    rows: int
    pieces: int
    length: int
    row_stride: int
    piece_stride: int
    groups: int

    @property
    def words(self) -> tuple[int, ...]:
        return self.pieces, self.length, self.row_stride, self.piece_stride, self.groups

    def tile(self, tensors: int, *, by_piece: bool) -> PlanesTile:
        alike = self.groups if by_piece else 0
        return planes_tile(chips.active(), self.rows, self.pieces, self.length, tensors, alike)


def _rows_of_groups(samples: int, channels: int, length: int, groups: int) -> _Rows:
    pieces = channels // groups
    return _Rows(samples * groups, pieces, length, pieces * length, length, groups)


def _rows_of_channels(source: torch.Tensor) -> _Rows:
    samples, channels = source.shape[:2]
    length = math.prod(source.shape[2:])
    return _Rows(channels, samples, length, length, channels * length, channels)


SHORTEST_PLANE = 16
"""Neighbours in memory that a plane must have: fewer leave most of a tile's row empty."""

LONGEST_OF_FEW_CORES = 1 << 16
"""Elements of a row, which one core takes, where most cores would have none."""


def _fits(source: torch.Tensor, rows: _Rows, *others: torch.Tensor | None) -> bool:
    given = [tensor for tensor in others if tensor is not None]
    is_of_few_cores = 8 * rows.rows < chips.active().core_count and rows.pieces * rows.length > LONGEST_OF_FEW_CORES
    return (
        source.is_contiguous()
        and source.numel() > 0
        and rows.length >= SHORTEST_PLANE
        and not is_of_few_cores
        and all(tensor.dtype in NORM_DTYPES for tensor in (source, *given))
    )


def _are_mixed(source: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Return whether weights and statistics are not all of the input's type, nor all float32."""
    types = {tensor.dtype for tensor in others if tensor is not None}
    return types not in (set(), {source.dtype}, {torch.float32})


def _forward(
    source: torch.Tensor, rows: _Rows, weight: torch.Tensor | None, bias: torch.Tensor | None, *,
    by_piece: bool, statistics: str, running: tuple[torch.Tensor, torch.Tensor] | None, epsilon: float, momentum: float,
) -> Results:  # fmt: skip
    out = torch.empty_like(source)
    mean, rstd = (torch.empty(rows.rows, dtype=torch.float32, device="chip") for _ in range(2))
    factors = [source if tensor is None else tensor.contiguous() for tensor in (weight, bias)]
    tensors = (source, *factors, out, mean, rstd, *(running or (mean, rstd)))
    tile = rows.tile(1, by_piece=by_piece)
    launch = kernel(
        _whole_plane_norm if tile.is_whole else _plane_norm,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[: 5 + tile.is_whole], "fp32", "fp32"),
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        BY_PIECE=by_piece,
        STATISTICS=statistics,
        PADDED=rows.pieces % tile.pieces != 0 or rows.length % tile.columns != 0,
        **tile.constants,
    )
    words = (rows.rows, *rows.words) if tile.is_whole else rows.words
    numbers = (scalars.word(epsilon, torch.float32), scalars.word(momentum, torch.float32))
    launch((ceil_div(rows.rows, tile.rows), 1, 1), (*(t.data_ptr() for t in tensors), *words, *numbers))
    return out, mean, rstd


def _gradients(
    grad: torch.Tensor, source: torch.Tensor, rows: _Rows, weight: torch.Tensor | None,
    statistics: tuple[torch.Tensor, torch.Tensor], sums_dtype: torch.dtype, *,
    by_piece: bool, is_given: bool, with_input: bool, epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The input's gradient, and the sums of the weight's and the bias's, of each row or of each of its pieces."""
    out = torch.empty_like(source) if with_input else source
    number = rows.rows * (rows.pieces if by_piece else 1)
    sums = torch.empty((2, number), dtype=sums_dtype, device="chip")
    factor = source if weight is None else weight.contiguous()
    kept = [tensor.contiguous() for tensor in statistics]
    tensors = (grad.contiguous(), source, factor, *kept, out, *sums.unbind())
    tile = rows.tile(2, by_piece=by_piece)
    launch = kernel(
        _whole_plane_gradient if tile.is_whole else _plane_gradient,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[: 5 + tile.is_whole], "fp32"),
        HAS_WEIGHT=weight is not None,
        BY_PIECE=by_piece,
        GIVEN=is_given,
        INPUT_GRADIENT=with_input,
        **tile.constants,
    )
    words = (rows.rows, *rows.words) if tile.is_whole else rows.words
    addresses = (t.data_ptr() for t in tensors)
    launch((ceil_div(rows.rows, tile.rows), 1, 1), (*addresses, *words, scalars.word(epsilon, torch.float32)))
    return out, sums


def native_group_norm(
    input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, N: int, C: int, HxW: int, group: int,
    eps: float,
) -> Results:  # fmt: skip
    """The normalised groups; mean and one over the deviation of each as float32, (N, group)."""
    is_whole = group > 0 and C % group == 0 and input.numel() == N * C * HxW
    rows = _rows_of_groups(N, C, HxW, group if is_whole else 1)
    of_channels = all(t is None or t.shape == (C,) for t in (weight, bias))
    if _are_mixed(input, weight, bias):
        refuse_as_the_host_does(aten.native_group_norm.default, input, weight, bias, N, C, HxW, group, eps)
    if not is_whole or not of_channels or not _fits(input, rows, weight, bias):
        refused: Results = otherwise(aten.native_group_norm.default, input, weight, bias, N, C, HxW, group, eps)
        return refused
    out, mean, rstd = _forward(
        input, rows, weight, bias, by_piece=True, statistics="own", running=None, epsilon=eps, momentum=0.0
    )
    count("aten::native_group_norm")
    return out, mean.view(N, group), rstd.view(N, group)


def native_group_norm_backward(
    grad_out: torch.Tensor, input: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor | None,
    N: int, C: int, HxW: int, group: int, output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    rows = _rows_of_groups(N, C, HxW, group)
    if not _fits(input, rows, grad_out, weight, mean, rstd):
        refused: tuple[torch.Tensor | None, ...] = otherwise(
            aten.native_group_norm_backward.default, grad_out, input, mean, rstd, weight, N, C, HxW, group, output_mask
        )
        return refused
    out, sums = _gradients(
        grad_out, input, rows, weight, (mean, rstd), torch.float32,
        by_piece=True, is_given=False, with_input=output_mask[0], epsilon=0.0,
    )  # fmt: skip
    count("aten::native_group_norm_backward")
    dtype = input.dtype if weight is None else weight.dtype
    parts = sums.view(2, N, C).sum(1, dtype=dtype) if any(output_mask[1:]) else sums
    wanted = zip(parts, output_mask[1:], strict=True)
    return (out if output_mask[0] else None, *(part if is_wanted else None for part, is_wanted in wanted))


def native_batch_norm(
    input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None, training: bool, momentum: float, eps: float,
) -> Results:  # fmt: skip
    """The normalised channels, and of each the mean and one over the deviation that it was normalised with, as float32.
    The running statistics follow in training."""
    running = None if running_mean is None or running_var is None else (running_mean, running_var)
    channels = input.shape[1] if input.dim() > 1 else 0
    vectors = [tensor for tensor in (weight, bias, running_mean, running_var) if tensor is not None]
    is_ours = channels > 0 and all(tensor.shape == (channels,) for tensor in vectors)
    is_ours = is_ours and (running is not None or (training and running_mean is None and running_var is None))
    is_ours = is_ours and all(tensor.is_contiguous() for tensor in running or ())
    if _are_mixed(input, *vectors):
        refuse_as_the_host_does(
            aten.native_batch_norm.default, input, weight, bias, running_mean, running_var, training, momentum, eps
        )
    if not is_ours or not _fits(input, rows := _rows_of_channels(input), *vectors):
        refused: Results = otherwise(
            aten.native_batch_norm.default, input, weight, bias, running_mean, running_var, training, momentum, eps
        )
        return refused
    statistics = "given" if not training else "own" if running is None else "kept"
    results = _forward(
        input, rows, weight, bias, by_piece=False, statistics=statistics, running=running, epsilon=eps,
        momentum=momentum,
    )  # fmt: skip
    count("aten::native_batch_norm")
    return results


def native_batch_norm_backward(
    grad_out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None, save_mean: torch.Tensor | None, save_invstd: torch.Tensor | None, train: bool,
    eps: float, output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    mean, scale = (save_mean, save_invstd) if train else (running_mean, running_var)
    is_ours = mean is not None and scale is not None and input.dim() > 1
    if not is_ours or not _fits(input, rows := _rows_of_channels(input), grad_out, weight, mean, scale):
        refused: tuple[torch.Tensor | None, ...] = otherwise(
            aten.native_batch_norm_backward.default, grad_out, input, weight, running_mean, running_var, save_mean,
            save_invstd, train, eps, output_mask,
        )  # fmt: skip
        return refused
    assert mean is not None and scale is not None
    out, sums = _gradients(
        grad_out, input, rows, weight, (mean, scale), input.dtype if weight is None else weight.dtype,
        by_piece=False, is_given=not train, with_input=output_mask[0], epsilon=eps,
    )  # fmt: skip
    count("aten::native_batch_norm_backward")
    wanted = zip(sums, output_mask[1:], strict=True)
    return (out if output_mask[0] else None, *(part if is_wanted else None for part, is_wanted in wanted))
