"""Cross-entropy of rows of logits and class indices, forward and backward, without the softmax in memory.

Takes aten's `cross_entropy_loss`, which torch would compose of a log-softmax and its gathering. A launch walks the
logits once, for the largest and the sum of exponentials of each row, and a second one gathers the targets' logits; the
gradient is a third, from the logits again, and a last one that subtracts one at the targets. Everything else (weights
of classes, classes that are not along the last dimension, probabilities as targets) stays composed, as does whatever
is traced.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.errors import LaunchError, SanitizerError
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, refuse_as_the_host_does
from tapeout.pytorch.ops.reduce import NORM_DTYPES
from tapeout.pytorch.ops.tiles import logits_tile

aten = torch.ops.aten
NONE, MEAN = 0, 1
"""Reductions by torch's numbers; 2 is the sum."""

ROWS_OF_LOSSES = 64

LEAST = tl.constexpr(-3e38)
"""What no row's largest is below: less minus infinity would be no number."""


@triton.jit
def _exponentials(
    source, bases, totals, sums, rows, columns, row_stride, share,
    SMOOTHED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The largest of each row, the sum of exponentials of what each is less, and the row's sum if SMOOTHED.

    A program takes every n-th of the blocks of rows, so that cores read neighbours, `share` of them tile by tile in one
    loop. It writes what it has of a block after each tile: the last one stands."""
    lane = tl.arange(0, ROWS)
    across = tl.cdiv(columns, COLUMNS)
    largest = tl.full((ROWS,), LEAST, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    plain = tl.zeros((ROWS,), tl.float32)
    for step in range(0, share * across):
        row = (tl.program_id(0) + step // across * tl.num_programs(0)).to(tl.int64) * ROWS + lane
        column = step % across * COLUMNS + tl.arange(0, COLUMNS)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        place = source + row[:, None] * row_stride + column[None, :]
        begins = step % across == 0
        before = tl.where(begins, LEAST, largest)
        total = tl.where(begins, 0.0, total)
        value = tl.load(place, mask=inside, other=float("-inf")).to(tl.float32)
        largest = tl.maximum(before, tl.max(value, axis=1))
        shift = before - largest
        weights = tl.exp(value - largest[:, None])
        total *= tl.exp(shift)
        total += tl.sum(weights, axis=1)
        tl.store(bases + row, largest, mask=row < rows)
        tl.store(totals + row, total, mask=row < rows)
        if SMOOTHED:
            plain = tl.where(begins, 0.0, plain) + tl.sum(tl.where(inside, value, 0.0), axis=1)
            tl.store(sums + row, plain, mask=row < rows)


@triton.jit
def _losses(
    source, target, bases, totals, sums, out, rows, columns, row_stride, ignored, smoothing,
    SMOOTHED: tl.constexpr, REDUCED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The loss of each row; or the sum of some rows' and how many of them count, REDUCED."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    chosen = tl.load(target + row, mask=row < rows, other=0)
    counts = (row < rows) & (chosen != ignored)
    chosen = tl.where(counts, chosen, 0)
    tl.device_assert((chosen >= 0) & (chosen < columns), "target out of range")
    found = (chosen >= 0) & (chosen < columns)
    logit = tl.load(source + row * row_stride + chosen, mask=counts & found, other=0.0).to(tl.float32)
    base = tl.load(bases + row, mask=row < rows, other=0.0)
    log_total = tl.log(tl.load(totals + row, mask=row < rows, other=1.0))
    loss = base - logit + log_total
    if SMOOTHED:
        plain = tl.load(sums + row, mask=row < rows, other=0.0) / columns.to(tl.float32)
        loss = tl.fma(1.0 - smoothing, loss, smoothing * (base - plain + log_total))
    loss = tl.where(counts, loss, 0.0)
    if REDUCED:
        one = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
        tl.store(out + one, tl.sum(loss, axis=0, keep_dims=True))
        tl.store(out + tl.num_programs(0) + one, tl.sum(counts.to(tl.float32), axis=0, keep_dims=True))
    else:
        tl.store(out + row, loss.to(out.dtype.element_ty), mask=row < rows)


@triton.jit
def _sum_of_parts(parts, out, out_count, number, MEAN: tl.constexpr, PARTS: tl.constexpr):
    total = tl.zeros((PARTS,), tl.float32)
    counted = tl.zeros((PARTS,), tl.float32)
    for start in range(0, number, PARTS):
        place = start + tl.arange(0, PARTS)
        total += tl.load(parts + place, mask=place < number, other=0.0)
        counted += tl.load(parts + number + place, mask=place < number, other=0.0)
    one = tl.zeros((1,), tl.int64)
    loss = tl.sum(total, axis=0, keep_dims=True)
    counts = tl.sum(counted, axis=0, keep_dims=True)
    tl.store(out_count + one, counts)
    if MEAN:
        loss = loss / counts
    tl.store(out + one, loss.to(out.dtype.element_ty))


@triton.jit
def _slope(grad, number, target, row, rows, ignored, REDUCED: tl.constexpr, MEAN: tl.constexpr):
    """What the losses' gradients are to be multiplied with, of rows that count."""
    chosen = tl.load(target + row, mask=row < rows, other=ignored)
    slope = tl.load(grad + (row * 0 if REDUCED else row), mask=row < rows, other=0.0).to(tl.float32)
    if MEAN:
        slope = slope / tl.load(number + row * 0)
    return tl.where(chosen != ignored, slope, 0.0), chosen


@triton.jit
def _logits_gradient(
    grad, number, source, target, bases, totals, out, rows, columns, row_stride, ignored, smoothing,
    SMOOTHED: tl.constexpr, REDUCED: tl.constexpr, MEAN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The softmax times the loss's gradient: all but the one at the target."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    slope, _ = _slope(grad, number, target, row, rows, ignored, REDUCED, MEAN)
    base = tl.load(bases + row, mask=row < rows, other=0.0)
    share = slope / tl.load(totals + row, mask=row < rows, other=1.0)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    value = tl.load(source + row[:, None] * row_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    result = tl.exp(value - base[:, None])
    if SMOOTHED:
        result = tl.fma(result, share[:, None], (slope * (-smoothing / columns.to(tl.float32)))[:, None])
    else:
        result *= share[:, None]
    tl.store(out + row[:, None] * columns + column[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _targets_gradient(
    grad, number, source, target, bases, totals, out, rows, columns, row_stride, ignored, smoothing,
    SMOOTHED: tl.constexpr, REDUCED: tl.constexpr, MEAN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient at the targets, whole, so that it is rounded once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    slope, chosen = _slope(grad, number, target, row, rows, ignored, REDUCED, MEAN)
    counts = (row < rows) & (chosen != ignored)
    value = tl.load(source + row * row_stride + chosen, mask=counts, other=0.0).to(tl.float32)
    result = tl.exp(value - tl.load(bases + row, mask=row < rows, other=0.0))
    result = result / tl.load(totals + row, mask=row < rows, other=1.0)
    if SMOOTHED:
        result -= 1.0 - smoothing + smoothing / columns.to(tl.float32)
    else:
        result -= 1.0
    tl.store(out + row * columns + chosen, (result * slope).to(out.dtype.element_ty), mask=counts)


def forward(
    self: torch.Tensor, target: torch.Tensor, reduction: int, ignore_index: int, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss; of each row its largest and the sum of exponentials of what each is less, (2, rows); how many rows
    count (only where reduced)."""
    rows, columns = self.shape
    smoothed, reduced = label_smoothing != 0, reduction != NONE
    exponentials = torch.empty((2, rows), dtype=torch.float32, device="chip")
    sums = torch.empty(rows if smoothed else 0, dtype=torch.float32, device="chip")
    row_tile, column_tile, share = logits_tile(chips.active(), rows, columns, is_reduced=True)
    launch = kernel(
        _exponentials,
        (POINTER[self.dtype], *(POINTER[torch.float32],) * 3, *INTEGERS[:4]),
        SMOOTHED=smoothed,
        ROWS=row_tile,
        COLUMNS=column_tile,
    )
    addresses = (t.data_ptr() for t in (self, *exponentials, sums))
    launch((ceil_div(rows, row_tile * share), 1, 1), (*addresses, rows, columns, self.stride(0), share))
    programs = ceil_div(rows, ROWS_OF_LOSSES)
    parts = torch.empty(2 * programs, dtype=torch.float32, device="chip") if reduced else None
    out = torch.empty(() if reduced else rows, dtype=self.dtype, device="chip")
    number = torch.empty(1 if reduced else 0, dtype=torch.float32, device="chip")
    tensors = (self, target, *exponentials, sums, out if parts is None else parts)
    launch = kernel(
        _losses,
        (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:4], "fp32"),
        SMOOTHED=smoothed,
        REDUCED=reduced,
        ROWS=ROWS_OF_LOSSES,
    )
    numbers = (rows, columns, self.stride(0), ignore_index, scalars.word(label_smoothing, torch.float32))
    try:
        launch((programs, 1, 1), (*(t.data_ptr() for t in tensors), *numbers))
    except LaunchError as error:
        if not isinstance(error, SanitizerError):
            given = (self, target, None, reduction, ignore_index, label_smoothing)
            refuse_as_the_host_does(aten.cross_entropy_loss.default, *given)
        raise
    if parts is not None:
        pointers = (POINTER[torch.float32], POINTER[out.dtype], POINTER[torch.float32], "i64")
        launch = kernel(_sum_of_parts, pointers, MEAN=reduction == MEAN, PARTS=1024)
        launch((1, 1, 1), (parts.data_ptr(), out.data_ptr(), number.data_ptr(), programs))
    count("aten::cross_entropy_loss")
    return out, exponentials, number


def backward(
    grad: torch.Tensor, self: torch.Tensor, target: torch.Tensor, exponentials: torch.Tensor, number: torch.Tensor,
    reduction: int, ignore_index: int, label_smoothing: float,
) -> torch.Tensor:  # fmt: skip
    """The gradient of the logits."""
    rows, columns = self.shape
    out = torch.empty((rows, columns), dtype=self.dtype, device="chip")
    row_tile, column_tile, _ = logits_tile(chips.active(), rows, columns, is_reduced=False)
    reduced = reduction != NONE
    tensors = (grad.contiguous(), number if reduced else exponentials, self, target, *exponentials, out)
    types = (*(POINTER[t.dtype] for t in tensors), *INTEGERS[:4], "fp32")
    kind = {"SMOOTHED": label_smoothing != 0, "REDUCED": reduced, "MEAN": reduction == MEAN}
    smoothing = scalars.word(label_smoothing, torch.float32)
    words = (*(t.data_ptr() for t in tensors), rows, columns, self.stride(0), ignore_index, smoothing)
    launch = kernel(_logits_gradient, types, **kind, ROWS=row_tile, COLUMNS=column_tile)
    launch((ceil_div(columns, column_tile), ceil_div(rows, row_tile), 1), words)
    launch = kernel(_targets_gradient, types, **kind, ROWS=ROWS_OF_LOSSES)
    launch((ceil_div(rows, ROWS_OF_LOSSES), 1, 1), words)
    count("aten::cross_entropy_loss_backward")
    return out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, self: torch.Tensor, target: torch.Tensor, reduction: int, ignore_index: int, label_smoothing: float
    ) -> torch.Tensor:
        loss, *kept = torch.ops.tapeout.cross_entropy(self, target, reduction, ignore_index, label_smoothing)
        ctx.save_for_backward(self, target, *kept)
        ctx.options = (reduction, ignore_index, label_smoothing)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        self, target, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            loss = _composed(self, target, None, *ctx.options)
            return torch.autograd.grad(loss, self, grad, create_graph=True)[0], None, None, None, None
        found = torch.ops.tapeout.cross_entropy_backward(grad, self, target, *kept, *ctx.options)
        return found, None, None, None, None


def _composed(*arguments: Any) -> torch.Tensor:
    loss: torch.Tensor = aten.cross_entropy_loss.default.decompose(*arguments)
    return loss


PLAIN = (torch.Tensor, torch.nn.Parameter)
TRACERS = ("PROXY", "FUNCTIONAL", "FAKE")


def _fits(self: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> bool:
    is_plain = type(self) in PLAIN and type(target) in PLAIN and self.device == target.device
    if not is_plain or weight is not None or self.dim() != 2 or target.dim() != 1 or target.dtype != torch.int64:
        return False
    if self.dtype not in NORM_DTYPES or self.numel() == 0 or self.stride(1) != 1 or target.shape[0] != self.shape[0]:
        return False
    return target.is_contiguous() and 4 * self.shape[0] >= chips.active().core_count


def _is_traced() -> bool:
    mode = torch._C._TorchDispatchModeKey
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or any(torch._C._get_dispatch_mode(getattr(mode, name)) is not None for name in TRACERS)
    )


def cross_entropy_loss(
    self: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, reduction: int = MEAN,
    ignore_index: int = -100, label_smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """aten's operator, with autograd."""
    if not _fits(self, target, weight) or not 0 <= label_smoothing <= 1 or _is_traced():
        return _composed(self, target, weight, reduction, ignore_index, label_smoothing)
    options = (reduction, ignore_index, label_smoothing)
    if torch.is_grad_enabled() and self.requires_grad:
        found: torch.Tensor = _CrossEntropy.apply(self, target, *options)
        return found
    loss: torch.Tensor = torch.ops.tapeout.cross_entropy(self, target, *options)[0]
    return loss
