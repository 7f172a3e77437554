"""Operators that torch.distributed asks of a device: synchronised batch norm."""

import functools
from typing import Any

import torch


@functools.cache
def register() -> torch.library.Library:
    """Give the chip the operators; they last as long as the library. Idempotent."""
    library = torch.library.Library("aten", "IMPL")
    for name, kernel in (
        ("batch_norm_stats", _batch_norm_stats),
        ("batch_norm_gather_stats_with_counts", _batch_norm_gather_stats_with_counts),
        ("batch_norm_elemt", _batch_norm_elemt),
        ("batch_norm_backward_reduce", _batch_norm_backward_reduce),
        ("batch_norm_backward_elemt", _batch_norm_backward_elemt),
    ):
        library.impl(name, kernel, "PrivateUse1")
    return library


def _channels(tensor: torch.Tensor) -> list[int]:
    return [dimension for dimension in range(tensor.dim()) if dimension != 1]


def _of_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _batch_norm_stats(input: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(input.float(), _channels(input), correction=0)
    return mean, torch.rsqrt(variance + eps)


def _batch_norm_gather_stats_with_counts(
    input: torch.Tensor,
    mean: torch.Tensor,
    invstd: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    momentum: float,
    eps: float,
    counts: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1/standard deviation of all ranks from those of each ([rank, channel])."""
    weight = counts.float().view(-1, 1)
    total = weight.sum()
    joint_mean = (mean * weight).sum(0) / total
    variances = 1 / (invstd * invstd) - eps
    variance = ((variances + (mean - joint_mean) ** 2) * weight).sum(0) / total
    if running_mean is not None:
        running_mean.mul_(1 - momentum).add_(momentum * joint_mean)
    if running_var is not None:
        running_var.mul_(1 - momentum).add_(momentum * variance * total / (total - 1))
    return joint_mean, torch.rsqrt(variance + eps)


def _batch_norm_elemt(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    invstd: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    scale = invstd if weight is None else invstd * weight
    result = (input - _of_channel(mean, input)) * _of_channel(scale, input)
    if bias is not None:
        result = result + _of_channel(bias, input)
    return result.to(input.dtype)


def _batch_norm_backward_reduce(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    mean: torch.Tensor,
    invstd: torch.Tensor,
    weight: torch.Tensor | None,
    input_g: bool,
    weight_g: bool,
    bias_g: bool,
) -> tuple[Any, ...]:
    gradient = grad_out.float()
    over = _channels(input)
    sum_dy = gradient.sum(over)
    sum_dy_xmu = (gradient * (input - _of_channel(mean, input))).sum(over)
    dtype = input.dtype if weight is None else weight.dtype
    return (
        sum_dy if input_g else None,
        sum_dy_xmu if input_g else None,
        (sum_dy_xmu * invstd).to(dtype) if weight_g else None,
        sum_dy.to(dtype) if bias_g else None,
    )


def _batch_norm_backward_elemt(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    mean: torch.Tensor,
    invstd: torch.Tensor,
    weight: torch.Tensor | None,
    sum_dy: torch.Tensor,
    sum_dy_xmu: torch.Tensor,
    count: torch.Tensor,
) -> torch.Tensor:
    total = count.sum()
    scale = invstd if weight is None else invstd * weight
    centred = input - _of_channel(mean, input)
    part = _of_channel(sum_dy_xmu / total * invstd * invstd, input) * centred
    result = (grad_out - _of_channel(sum_dy / total, input) - part) * _of_channel(scale, input)
    return result.to(input.dtype)
