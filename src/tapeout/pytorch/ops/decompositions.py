"""Operators told in terms of others, for Inductor to compile: those it leaves to a vendor's library.

Each function has the signature of aten's operator and is traced, never called with values; what it decides by is
constant in a compiled function (numbers, ranks, types).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tapeout.pytorch.ops.matmul import is_multiplied

aten = torch.ops.aten
HALF_DTYPES = (torch.float16, torch.bfloat16)


@functools.cache
def table() -> dict[Any, Callable[..., Any]]:
    """The functions by overload."""
    return {
        aten.mm.default: _vector_product,
        aten.bmm.default: _vector_product,
        aten.addmm.default: _add_vector_product,
        aten.baddbmm.default: _add_vector_product,
        aten.addbmm.default: _addbmm,
        aten.copysign.Tensor: _copysign,
        aten.signbit.default: _signbit,
        aten.floor_divide.default: functools.partial(torch.div, rounding_mode="floor"),
        aten.div.Tensor_mode: _divide,
        aten._thnn_fused_lstm_cell.default: _lstm_cell,
        aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
        aten._thnn_fused_gru_cell.default: _gru_cell,
        aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
        aten._cdist_forward.default: _cdist,
        aten._cdist_backward.default: _cdist_backward,
        aten.replication_pad1d_backward.default: _replication_pad_backward,
        aten.replication_pad2d_backward.default: _replication_pad_backward,
        aten.replication_pad3d_backward.default: _replication_pad_backward,
        aten.avg_pool2d_backward.default: functools.partial(_average_pool_backward, 2),
        aten.avg_pool3d_backward.default: functools.partial(_average_pool_backward, 3),
        aten._weight_norm_interface_backward.default: _weight_norm_backward,
        aten._embedding_bag_per_sample_weights_backward.default: _per_sample_weights_backward,
        aten.hardshrink_backward.default: _shrink_backward,
        aten.softshrink_backward.default: _shrink_backward,
        aten._pdist_forward.default: _pdist,
        aten._pdist_backward.default: _pdist_backward,
        aten.digamma.default: _digamma,
        aten.polygamma.default: _polygamma,
        aten.special_zeta.default: _zeta,
        aten.special_ndtri.default: _normal_quantile,
        aten.var_mean.correction: _variance_and_mean_of_nothing,
        aten.multilabel_margin_loss_forward.default: multilabel_margin_loss_forward,
        aten.__lshift__.Scalar: functools.partial(_shift, torch.bitwise_left_shift),
        aten.__lshift__.Tensor: functools.partial(_shift, torch.bitwise_left_shift),
        aten.__rshift__.Scalar: functools.partial(_shift, torch.bitwise_right_shift),
        aten.__rshift__.Tensor: functools.partial(_shift, torch.bitwise_right_shift),
    }


def _shift(function: Callable[..., Tensor], self: Tensor, other: Tensor | int) -> Any:
    """Shifts of truth values by integers, or the other way round, in the integers' type; the others are Inductor's."""
    if torch.bool not in (self.dtype, getattr(other, "dtype", None)):
        return NotImplemented
    dtype = torch.result_type(self, other)
    return function(self.to(dtype), other.to(dtype) if isinstance(other, Tensor) else other)


def multilabel_margin_loss_forward(input: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """Labels end at the first -1. PyTorch's own decomposition counts those behind it as label 0."""
    scores, labels = torch.atleast_2d(input), torch.atleast_2d(target)
    count = scores.shape[1]
    place = torch.arange(count, device=target.device)
    end = torch.where(labels == -1, place, count).amin(-1, keepdim=True)
    is_label = place < end
    at_labels = scores.gather(1, torch.where(is_label, labels, 0))
    is_target = (place == torch.where(is_label, labels, -1).unsqueeze(-1)).any(1)
    margins = (1 - at_labels.unsqueeze(2) + scores.unsqueeze(1)).clamp_min(0) / count
    counts = is_label.unsqueeze(2) & ~is_target.unsqueeze(1)
    losses = torch.where(counts, margins, 0).sum((1, 2))
    loss = losses.mean() if reduction == 1 else losses.sum() if reduction == 2 else losses.reshape(target.shape[:-1])
    return loss, is_target.to(input.dtype).reshape(target.shape)


def _variance_and_mean_of_nothing(
    self: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Of no elements both are NaN; Inductor's way of a single pass gives a mean of 0."""
    if self.numel() != 0:
        return NotImplemented
    over = list(dim) if dim else list(range(self.dim()))
    return self.var(over, correction=correction, keepdim=keepdim), self.mean(over, keepdim)


def _vector_product(self: Tensor, other: Tensor) -> Tensor:
    """Multiply types that the matrix engine does not have; NotImplemented for those that it has."""
    if is_multiplied(self.dtype):
        return NotImplemented
    left, right = (t.float() if t.dtype in HALF_DTYPES else t for t in (self, other))
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2, dtype=left.dtype).to(self.dtype)


def _add_vector_product(self: Tensor, first: Tensor, second: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    if is_multiplied(first.dtype):
        return NotImplemented
    product = _vector_product(first, second) * alpha
    return product if beta == 0 else self * beta + product


def _addbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    product = torch.bmm(batch1, batch2).sum(0, dtype=batch1.dtype) * alpha
    return product.expand(batch1.shape[1], batch2.shape[2]) if beta == 0 else self * beta + product


def _divide(self: Tensor, other: Tensor, *, rounding_mode: str | None) -> Tensor:
    """NotImplemented for what Inductor does."""
    is_ours = rounding_mode == "floor" and torch.result_type(self, other).is_floating_point
    return _floor_divide(self, other) if is_ours else NotImplemented


def _floor_divide(self: Tensor, other: Tensor) -> Tensor:
    """Divide floats by way of the remainder, which is exact, as Python and torch do."""
    dtype = torch.result_type(self, other)
    a, b = torch.broadcast_tensors(self.to(dtype), other.to(self.device, dtype))
    quotient = a / b
    rest = a.fmod(b)
    whole = (a - rest) / b
    whole = torch.where((rest != 0) & ((b < 0) != (rest < 0)), whole - 1, whole)
    floor = whole.floor()
    floor = torch.where(whole - floor > 0.5, floor + 1, floor)
    floor = torch.where(whole == 0, _copysign(torch.zeros_like(quotient), quotient), floor)
    return torch.where(b == 0, quotient, floor)


def _copysign(self: Tensor, other: Tensor) -> Tensor:
    """Set the sign by bits: arithmetic leaves a NaN its sign. `other` may be a number, which comes as a CPU tensor."""
    dtype = torch.result_type(self, other)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    bits = _bits(self.to(dtype))
    sign = torch.iinfo(bits.dtype).min
    return torch.where(_signbit(other.to(self.device)), bits | sign, bits & ~sign).view(dtype)


def _signbit(self: Tensor) -> Tensor:
    """Return the sign bit, of zeros and NaNs too. A truth value has none."""
    if self.dtype == torch.bool:
        return torch.zeros_like(self)
    return (_bits(self) if self.is_floating_point() else self) < 0


def _bits(self: Tensor) -> Tensor:
    """The words of floats as integers."""
    return self.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[self.dtype.itemsize])


# ---------------------------------------------------------------------------------------------- recurrent cells


def _lstm_cell(
    input_gates: Tensor,
    hidden_gates: Tensor,
    cx: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The last result is kept for backward: the four gates after their functions, in PyTorch's order i, f, g, o."""
    gates = input_gates + hidden_gates
    if input_bias is not None and hidden_bias is not None:
        gates = gates + input_bias + hidden_bias
    into, forget, new, out = gates.chunk(4, 1)
    into, forget, new, out = into.sigmoid(), forget.sigmoid(), new.tanh(), out.sigmoid()
    cy = forget * cx + into * new
    return out * cy.tanh(), cy, torch.cat([into, forget, new, out], 1)


def _lstm_cell_backward(
    grad_hy: Tensor | None, grad_cy: Tensor | None, cx: Tensor, cy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    into, forget, new, out = workspace.chunk(4, 1)
    squashed = cy.tanh()
    grad_h = torch.zeros_like(cx) if grad_hy is None else grad_hy
    grad_c = grad_h * out * (1 - squashed * squashed)
    if grad_cy is not None:
        grad_c = grad_c + grad_cy
    gates = torch.cat(
        [
            grad_c * new * into * (1 - into),
            grad_c * cx * forget * (1 - forget),
            grad_c * into * (1 - new * new),
            grad_h * squashed * out * (1 - out),
        ],
        1,
    )
    return gates, grad_c * forget, gates.sum(0) if has_bias else None


def _gru_cell(
    input_gates: Tensor,
    hidden_gates: Tensor,
    hx: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The last result is kept for backward: reset, update, new, hx, and the hidden part of `new` before its reset."""
    if input_bias is not None and hidden_bias is not None:
        input_gates, hidden_gates = input_gates + input_bias, hidden_gates + hidden_bias
    input_reset, input_update, input_new = input_gates.chunk(3, 1)
    hidden_reset, hidden_update, hidden_new = hidden_gates.chunk(3, 1)
    reset, update = (input_reset + hidden_reset).sigmoid(), (input_update + hidden_update).sigmoid()
    new = (input_new + reset * hidden_new).tanh()
    return new + update * (hx - new), torch.cat([reset, update, new, hx, hidden_new], 1)


def _gru_cell_backward(grad_hy: Tensor, workspace: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    reset, update, new, hx, hidden_new = workspace.chunk(5, 1)
    grad_update = grad_hy * (hx - new) * update * (1 - update)
    grad_new = grad_hy * (1 - update) * (1 - new * new)
    grad_reset = grad_new * hidden_new * reset * (1 - reset)
    of_input = torch.cat([grad_reset, grad_update, grad_new], 1)
    of_hidden = torch.cat([grad_reset, grad_update, grad_new * reset], 1)
    biases = (of_input.sum(0), of_hidden.sum(0)) if has_bias else (None, None)
    return of_input, of_hidden, grad_hy * update, *biases


# ---------------------------------------------------------------------------------------------- distances


def _cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def _norm(difference: Tensor, p: float) -> Tensor:
    """Return the norms of vectors along the last dimension."""
    size = difference.abs()
    if p == 0:
        return (difference != 0).to(difference.dtype).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (difference * difference).sum(-1).sqrt()
    if math.isinf(p):
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)


def _norm_backward(grad: Tensor, difference: Tensor, norm: Tensor, p: float) -> Tensor:
    """Gradient of `_norm` to the vectors; 0 where the norm is, as PyTorch has it."""
    grad, norm = grad.unsqueeze(-1), norm.unsqueeze(-1)
    sign = difference.sign()
    if p == 0:
        return torch.zeros_like(difference)
    if p == 1:
        return grad * sign
    if math.isinf(p):
        return grad * sign * (difference.abs() == norm)
    slope = difference / norm if p == 2 else sign * difference.abs().pow(p - 1) / norm.pow(p - 1)
    return torch.where((norm == 0) | (difference == 0), 0, grad * slope)


def _cdist_backward(grad: Tensor, x1: Tensor, x2: Tensor, p: float, cdist: Tensor) -> Tensor:
    return _norm_backward(grad, x1.unsqueeze(-2) - x2.unsqueeze(-3), cdist, p).sum(-2)


def _pairs(self: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second of each two different vectors, by number."""
    first, second = torch.triu_indices(int(self.shape[0]), int(self.shape[0]), 1, device=self.device)
    return first, second


def _pdist(self: Tensor, p: float = 2) -> Tensor:
    first, second = _pairs(self)
    return _norm(self[first] - self[second], p)


def _pdist_backward(grad: Tensor, self: Tensor, p: float, pdist: Tensor) -> Tensor:
    first, second = _pairs(self)
    slope = _norm_backward(grad, self[first] - self[second], pdist, p)
    return torch.zeros_like(self).index_add(0, first, slope).index_add(0, second, -slope)


# ---------------------------------------------------------------------------------------------- backward of layers


def _shrink_backward(grad: Tensor, self: Tensor, lambd: float) -> Tensor:
    """Return the gradient of hardshrink and of softshrink."""
    return torch.where((self >= -lambd) & (self <= lambd), 0, grad)


def _replication_pad_backward(grad_output: Tensor, self: Tensor, padding: list[int]) -> Tensor:
    """`padding` is (before, after) for each dimension from the last one on."""
    for place in range(len(padding) // 2):
        dim = self.dim() - 1 - place
        source = torch.arange(grad_output.shape[dim], device=self.device) - padding[2 * place]
        shape = [*grad_output.shape]
        shape[dim] = self.shape[dim]
        zeros = grad_output.new_zeros(shape)
        grad_output = zeros.index_add(dim, source.clamp(0, self.shape[dim] - 1), grad_output)
    return grad_output


def _average_pool_backward(
    space: int,
    grad_output: Tensor,
    self: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Add what the windows give that an input is in, one of the `space` dimensions after the other.

    Inductor's own takes windows that `ceil_mode` lets stand over the edge for whole ones when it divides.
    """
    windows = []
    divisor = torch.ones((1,) * space, dtype=torch.int64, device=self.device)
    for place, size in enumerate(self.shape[-space:]):
        kernel, pad = kernel_size[min(place, len(kernel_size) - 1)], padding[min(place, len(padding) - 1)]
        step = stride[min(place, len(stride) - 1)] if stride else kernel
        start = torch.arange(grad_output.shape[place - space], device=self.device) * step - pad
        end = (start + kernel).clamp(max=size + pad)
        first, last = start.clamp(min=0), end.clamp(max=size)
        windows.append((kernel, step, pad, first, last))
        counted = end - start if count_include_pad else last - first
        divisor = divisor * counted.reshape(-1, *(1,) * (space - 1 - place))
    gradient = _wide(grad_output) / (divisor if divisor_override is None else divisor_override)
    for place, (kernel, step, pad, first, last) in enumerate(windows):
        inside = torch.arange(self.shape[place - space], device=self.device)
        count = -(-kernel // step)  # windows that an input is in
        if count > MOST_WINDOWS:
            member = (inside >= first.unsqueeze(1)) & (inside < last.unsqueeze(1))
            gradient = (gradient.movedim(place - space, -1) @ member.to(gradient.dtype)).movedim(-1, place - space)
            continue
        parts = []
        for earlier in range(count):
            window = (inside + pad) // step - earlier
            chosen = window.clamp(0, first.shape[0] - 1)
            is_in = (window == chosen) & (inside >= first[chosen]) & (inside < last[chosen])
            shape = (-1, *(1,) * (space - 1 - place))
            parts.append(torch.where(is_in.reshape(shape), gradient.index_select(place - space, chosen), 0))
        gradient = functools.reduce(torch.add, parts)
    return gradient.to(self.dtype)


MOST_WINDOWS = 8
"""Windows of an average pool that are added one by one; more are a product with a 0/1 matrix, in which NaN spreads."""


def _weight_norm_backward(
    grad_w: Tensor, saved_v: Tensor, saved_g: Tensor, saved_norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    others = [other for other in range(saved_v.dim()) if other != dim % saved_v.dim()]
    norms = saved_norms.to(saved_g.dtype)
    along = (grad_w * saved_v).sum(others, keepdim=True)
    return saved_g / norms * (grad_w - saved_v * along / (norms * norms)), along / norms


def _per_sample_weights_backward(
    grad: Tensor, weight: Tensor, indices: Tensor, offsets: Tensor, offset2bag: Tensor, mode: int, padding_idx: int = -1
) -> Tensor:
    found = (grad[offset2bag] * weight[indices]).sum(1)
    return found if padding_idx < 0 else torch.where(indices == padding_idx, 0, found)


# ---------------------------------------------------------------------------------------------- special functions

# B(2k)/(2k)! of the Bernoulli numbers B, for k = 1, 2, ...: the Euler-Maclaurin formula's coefficients.
EULER_MACLAURIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600)
ZETA_TERMS = 16
DIGAMMA_SHIFT = 10


def _wide(x: Tensor) -> Tensor:
    """Return what special functions are computed in: half types and integers in float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _steps(x: Tensor, count: int) -> Tensor:
    """x, x + 1, x + 2, ... along a new last dimension: one expression, not `count` of them to compile."""
    return x.unsqueeze(-1) + torch.arange(count, device=x.device, dtype=x.dtype)


def _digamma(self: Tensor) -> Tensor:
    """psi(x) = psi(x + n) - sum of 1/(x + k), and the asymptotic series at x + n; by reflection for negative x."""
    x = _wide(self)
    reflected = torch.where(x < 0, 1 - x, x)
    far = reflected + DIGAMMA_SHIFT
    inverse_square = 1 / (far * far)
    series = torch.zeros_like(x)
    for k in reversed(range(len(EULER_MACLAURIN))):
        # B(2k)/(2k) is the coefficient here
        series = (series + EULER_MACLAURIN[k] * math.factorial(2 * k + 1)) * inverse_square
    found = far.log() - 0.5 / far - series
    found = found - (1 / _steps(reflected, DIGAMMA_SHIFT)).sum(-1)
    part = x - x.round()
    found = torch.where(x < 0, found - math.pi / (math.pi * part).tan(), found)
    found = torch.where((x < 0) & (part == 0), math.nan, found)
    found = torch.where(x == 0, torch.where(x.signbit(), math.inf, -math.inf), found)
    return found.to(self.dtype if self.is_floating_point() else torch.float32)


def _zeta(self: Tensor, other: Tensor) -> Tensor:
    """Hurwitz' zeta(s, q), the sum of (q + k)^-s, by Euler and Maclaurin."""
    dtype = torch.promote_types(self.dtype, other.dtype)
    dtype = dtype if dtype.is_floating_point else torch.float32
    s, q = _wide(self.to(dtype)), _wide(other.to(dtype))
    s, q = s + torch.zeros_like(q), q + torch.zeros_like(s)  # of one shape, and a number on the chip like the other
    total = _steps(q, ZETA_TERMS).pow(-s.unsqueeze(-1)).sum(-1)
    far = q + ZETA_TERMS
    power = far.pow(-s)
    total = total + power * far / (s - 1) + 0.5 * power
    factor, term = s, power / far
    for k, coefficient in enumerate(EULER_MACLAURIN):
        total = total + coefficient * factor * term
        factor = factor * (s + 2 * k + 1) * (s + 2 * k + 2)
        term = term / (far * far)
    total = torch.where((q <= 0) & (q == q.floor()), math.inf, total)
    total = torch.where((q < 0) & (q != q.floor()) & (s != s.floor()), math.nan, total)
    total = torch.where(s < 1, math.nan, torch.where(s == 1, math.inf, total))
    return total.to(dtype)


def _polygamma(n: int, self: Tensor) -> Tensor:
    if n == 0:
        return _digamma(self)
    x = _wide(self)
    sign = 1.0 if n % 2 else -1.0
    if n == 1:  # by reflection for x < 1/2, which the sum below would reach only after many terms
        reflected = torch.where(x < 0.5, 1 - x, x)
        found = _zeta(torch.full_like(x, 2.0), reflected)
        sine = (math.pi * (x - x.floor())).sin()
        found = torch.where(x < 0.5, math.pi * math.pi / (sine * sine) - found, found)
    else:
        found = sign * math.factorial(n) * _zeta(torch.full_like(x, n + 1.0), x)
    return found.to(self.dtype if self.is_floating_point() else torch.float32)


def _normal_quantile(self: Tensor) -> Tensor:
    """The x with a normal distribution's probability p below it: from erfinv, then Newton's steps by erfc."""
    p = _wide(self)
    low = torch.where(p < 0.5, p, 1 - p)  # the tail that is kept exactly
    x = -math.sqrt(2) * (1 - 2 * low).erfinv()
    x = torch.where(low < 1e-6, -(-2 * low.log() - (-2 * low.log()).log()).sqrt(), x)
    for _ in range(4):
        error = 0.5 * (-x / math.sqrt(2)).erfc() - low
        x = x - error * math.sqrt(2 * math.pi) * (0.5 * x * x).exp()
    x = torch.where(p < 0.5, x, -x)
    x = torch.where(p == 0, -math.inf, torch.where(p == 1, math.inf, x))
    x = torch.where((p < 0) | (p > 1), math.nan, x)
    return x.to(self.dtype if self.is_floating_point() else torch.float32)
