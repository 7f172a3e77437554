"""Optimizer steps and gradient scaling: one launch updates one parameter with all its state, read and written once."""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.launch import POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least

LEAST_TILE, LARGEST_TILE = 1024, 8192
"""Elements of a tile: each program works out the step's constants once more, so there are to be few for each core."""

STATE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

aten = torch.ops.aten


@triton.jit
def _adam(
    parameter, gradient, average, square, largest, step, rate, scale, found, size,
    beta2, rest1, rest2, logarithm1, logarithm2, decay, epsilon,
    DECOUPLED: tl.constexpr, AMSGRAD: tl.constexpr, MAXIMIZE: tl.constexpr,
    SCALED: tl.constexpr, CHECKED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < size
    if CHECKED:
        inside = inside & (tl.load(found) == 0.0)
    learning = tl.load(rate).to(tl.float32)
    number = tl.load(step).to(tl.float32)
    g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        g = g / tl.load(scale)
        tl.store(gradient + place, g.to(gradient.dtype.element_ty), mask=inside)
    if MAXIMIZE:
        g = -g
    p = tl.load(parameter + place, mask=inside, other=0.0).to(tl.float32)
    if DECOUPLED:
        p = p - learning * decay * p
    else:
        g = g + decay * p
    m = tl.load(average + place, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(square + place, mask=inside, other=0.0).to(tl.float32)
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    tl.store(average + place, m.to(average.dtype.element_ty), mask=inside)
    tl.store(square + place, v.to(square.dtype.element_ty), mask=inside)
    if AMSGRAD:
        v = tl.maximum(v, tl.load(largest + place, mask=inside, other=0.0).to(tl.float32))
        tl.store(largest + place, v.to(largest.dtype.element_ty), mask=inside)
    # one less beta ** step
    correction1 = -libdevice.expm1(number * logarithm1)
    correction2 = -libdevice.expm1(number * logarithm2)
    p = p - learning / correction1 * m / (tl.sqrt(v) / tl.sqrt(correction2) + epsilon)
    tl.store(parameter + place, p.to(parameter.dtype.element_ty), mask=inside)


@triton.jit
def _sgd(
    parameter, gradient, buffer, rate, scale, found, size,
    momentum, decay, dampening,
    MOMENTUM: tl.constexpr, NESTEROV: tl.constexpr, FIRST: tl.constexpr, MAXIMIZE: tl.constexpr,
    SCALED: tl.constexpr, CHECKED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < size
    if CHECKED:
        inside = inside & (tl.load(found) == 0.0)
    learning = tl.load(rate).to(tl.float32)
    g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        g = g / tl.load(scale)
        tl.store(gradient + place, g.to(gradient.dtype.element_ty), mask=inside)
    if MAXIMIZE:
        g = -g
    p = tl.load(parameter + place, mask=inside, other=0.0).to(tl.float32)
    g = g + decay * p
    if MOMENTUM:
        if FIRST:
            b = g
        else:
            b = momentum * tl.load(buffer + place, mask=inside, other=0.0).to(tl.float32) + (1.0 - dampening) * g
        tl.store(buffer + place, b.to(buffer.dtype.element_ty), mask=inside)
        g = g + momentum * b if NESTEROV else b
    p = p - learning * g
    tl.store(parameter + place, p.to(parameter.dtype.element_ty), mask=inside)


def _is_ours(*lists: Sequence[torch.Tensor]) -> bool:
    """Return whether the kernels have the types of all tensors, and those of one parameter have its shape."""
    return all(
        all(tensor.dtype in STATE_DTYPES and tensor.shape == first.shape for tensor in (first, *others))
        for first, *others in zip(*(each for each in lists if each), strict=True)
    )


def _lies_like(tensor: torch.Tensor, first: torch.Tensor) -> bool:
    """Return whether equal elements of both have the same place in memory; a dimension of one element has no say in
    it."""
    steps = zip(tensor.shape, tensor.stride(), first.stride(), strict=True)
    return all(size == 1 or own == other for size, own, other in steps)


def _has_gaps(tensor: torch.Tensor) -> bool:
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return span != tensor.numel()


def _on_chip(value: float | torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.to("chip")
    return torch.full((), value, dtype=torch.float32, device="chip")


def _numbers(*values: float) -> list[int]:
    return [scalars.word(value, torch.float32) for value in values]


def _adam_step(operator_name: str, decoupled: bool) -> object:
    def run(
        self: list[torch.Tensor], grads: list[torch.Tensor], exp_avgs: list[torch.Tensor],
        exp_avg_sqs: list[torch.Tensor], max_exp_avg_sqs: list[torch.Tensor], state_steps: list[torch.Tensor], *,
        lr: float | torch.Tensor, beta1: float, beta2: float, weight_decay: float, eps: float, amsgrad: bool,
        maximize: bool, grad_scale: torch.Tensor | None = None, found_inf: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        largest = max_exp_avg_sqs if amsgrad else []
        if not _is_ours(self, grads, exp_avgs, exp_avg_sqs, largest):
            overload = "tensor_lr" if isinstance(lr, torch.Tensor) else "default"
            otherwise(
                getattr(getattr(aten, operator_name), overload), self, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs,
                state_steps, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=amsgrad,
                maximize=maximize, grad_scale=grad_scale, found_inf=found_inf,
            )  # fmt: skip
            return
        rate = _on_chip(lr)
        rests = (1.0 - beta1, 1.0 - beta2)  # both near 1: in float32 little would be left of these and the logarithms
        logarithms = (math.log(beta) if beta > 0.0 else -math.inf for beta in (beta1, beta2))
        numbers = _numbers(beta2, *rests, *logarithms, weight_decay, eps)
        for i, parameter in enumerate(self):
            state = (parameter, grads[i], exp_avgs[i], exp_avg_sqs[i], largest[i] if amsgrad else parameter)
            step = state_steps[i]
            _update(
                _adam, state, (step, rate, step if grad_scale is None else grad_scale), found_inf, numbers,
                DECOUPLED=decoupled, AMSGRAD=amsgrad, MAXIMIZE=maximize, SCALED=grad_scale is not None,
            )  # fmt: skip
        count(f"aten::{operator_name}")

    return run


def _update(
    function: "triton.JITFunction[object]", state: Sequence[torch.Tensor], told: Sequence[torch.Tensor],
    found_inf: torch.Tensor | None, numbers: list[int], **constants: bool,
) -> None:  # fmt: skip
    """One parameter, the first of `state`. `found_inf`, if given, says whether the step is taken at all. What lies
    otherwise in memory than the parameter is copied and written back."""
    first = state[0].contiguous() if _has_gaps(state[0]) else state[0]
    size = first.numel()
    if size == 0:
        return
    placed = {id(tensor): tensor for tensor in state}
    for key, tensor in placed.items():
        if not _lies_like(tensor, first):
            placed[key] = torch.empty_strided(
                first.shape, first.stride(), dtype=tensor.dtype, device=tensor.device
            ).copy_(tensor)
    tensors = [*(placed[id(tensor)] for tensor in state), *told, first if found_inf is None else found_inf]
    share = power_of_two_at_least(ceil_div(size, 2 * chips.active().core_count))
    tile = max(LEAST_TILE, min(LARGEST_TILE, share))
    launch = kernel(
        function,
        (*(POINTER[t.dtype] for t in tensors), "i64", *("fp32",) * len(numbers)),
        **constants,
        CHECKED=found_inf is not None,
        TILE=tile,
    )
    launch((ceil_div(size, tile), 1, 1), (*(t.data_ptr() for t in tensors), size, *numbers))
    for tensor in state:
        if placed[id(tensor)] is not tensor:
            tensor.copy_(placed[id(tensor)])


fused_adam = _adam_step("_fused_adam_", decoupled=False)
fused_adamw = _adam_step("_fused_adamw_", decoupled=True)


def fused_sgd(
    self: list[torch.Tensor], grads: list[torch.Tensor], momentum_buffer_list: list[torch.Tensor], *,
    weight_decay: float, momentum: float, lr: float | torch.Tensor, dampening: float, nesterov: bool, maximize: bool,
    is_first_step: bool, grad_scale: torch.Tensor | None = None, found_inf: torch.Tensor | None = None,
) -> None:  # fmt: skip
    if not _is_ours(self, grads, momentum_buffer_list):
        operator = aten._fused_sgd_.tensor_lr if isinstance(lr, torch.Tensor) else aten._fused_sgd_.default
        otherwise(
            operator, self, grads, momentum_buffer_list, weight_decay=weight_decay, momentum=momentum, lr=lr,
            dampening=dampening, nesterov=nesterov, maximize=maximize, is_first_step=is_first_step,
            grad_scale=grad_scale, found_inf=found_inf,
        )  # fmt: skip
        return
    rate = _on_chip(lr)
    for i, parameter in enumerate(self):
        buffer = momentum_buffer_list[i] if momentum_buffer_list else parameter
        _update(
            _sgd, (parameter, grads[i], buffer), (rate, rate if grad_scale is None else grad_scale), found_inf,
            _numbers(momentum, weight_decay, dampening),
            MOMENTUM=bool(momentum_buffer_list), NESTEROV=nesterov, FIRST=is_first_step, MAXIMIZE=maximize,
            SCALED=grad_scale is not None,
        )  # fmt: skip
    count("aten::_fused_sgd_")


def unscale(self: list[torch.Tensor], found_inf: torch.Tensor, inv_scale: torch.Tensor) -> None:
    """Multiplies gradients by inv_scale; found_inf becomes 1 if one of them was not finite."""
    for gradient in self:
        finite = gradient.abs() < float("inf")
        torch.maximum(found_inf, finite.all().logical_not().to(found_inf.dtype).expand_as(found_inf), out=found_inf)
        gradient.mul_(inv_scale.to(gradient.dtype))
    count("aten::_amp_foreach_non_finite_check_and_unscale_")


def update_scale(
    self: torch.Tensor, growth_tracker: torch.Tensor, found_inf: torch.Tensor, scale_growth_factor: float,
    scale_backoff_factor: float, growth_interval: int,
) -> torch.Tensor:  # fmt: skip
    """Shrinks the scale after a step that was not finite, grows it after growth_interval finite ones."""
    failed = found_inf > 0
    successes = growth_tracker + 1
    grown = self * scale_growth_factor
    grows = (successes == growth_interval) & (grown.abs() < float("inf"))
    self.copy_(torch.where(failed, self * scale_backoff_factor, torch.where(grows, grown, self)))
    restarts = failed | (successes == growth_interval)
    growth_tracker.copy_(torch.where(restarts, 0, successes))
    count("aten::_amp_update_scale_")
    return self
