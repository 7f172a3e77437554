"""Every function of `liger_kernel.transformers.functional`: arguments for it, and what it computes in plain PyTorch.

`REFERENCES[name]` is a function that makes the arguments and one that takes them, in the order in which Liger's
function takes them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Arguments = tuple[Any, ...]

TOKENS, WIDTH, WORDS = 12, 64, 100
HEADS, LENGTH, HEAD_WIDTH = 4, 16, 32
STREAMS = 4
EPS = 1e-6


def _real(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def _labels() -> Tensor:
    return torch.randint(WORDS, (TOKENS,))


def _log_distribution(differentiable: bool = True) -> Tensor:
    return torch.randn(TOKENS, WORDS).log_softmax(-1).requires_grad_(differentiable)


def _distribution(differentiable: bool = True) -> Tensor:
    return torch.randn(TOKENS, WORDS).softmax(-1).requires_grad_(differentiable)


def _angles(*shape: int) -> tuple[Tensor, Tensor]:
    angle = torch.rand(*shape, HEAD_WIDTH // 2).repeat(*[1] * len(shape), 2)
    return angle.cos(), angle.sin()


def _queries_and_keys() -> tuple[Tensor, Tensor]:
    return _real(2, HEADS, LENGTH, HEAD_WIDTH), _real(2, HEADS // 2, LENGTH, HEAD_WIDTH)


def _rms(x: Tensor, eps: float = EPS) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def _rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return _rotated(q, cos[:, None], sin[:, None]), _rotated(k, cos[:, None], sin[:, None])


def _multimodal_rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, sections: list[int]) -> tuple[Tensor, Tensor]:
    def mixed(angles: Tensor) -> Tensor:
        parts = angles.split(sections * 2, dim=-1)
        return torch.cat([part[i % 3] for i, part in enumerate(parts)], dim=-1)

    return _rope(q, k, mixed(cos), mixed(sin))


def _jensen_shannon(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """Return the divergence of logarithms of distributions, per row, as the mean over rows."""
    mean = torch.log(beta * teacher.exp() + (1 - beta) * student.exp())
    terms = beta * teacher.exp() * (teacher - mean) + (1 - beta) * student.exp() * (student - mean)
    return terms.sum() / len(student)


def _fused_linear_jensen_shannon(x: Tensor, weight: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
    return _jensen_shannon((x @ weight.T).log_softmax(-1), (y @ teacher.T).log_softmax(-1))


def _sparsemax(x: Tensor) -> Tensor:
    """The nearest point of the simplex (Martins and Astudillo, 2016)."""
    ordered = x.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(-1) - 1
    ranks = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    support = (ordered * ranks > sums).sum(-1, keepdim=True)
    return (x - sums.gather(-1, support - 1) / support).clamp(min=0)


def _multi_token_attention(scores: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    probabilities = scores.masked_fill(future, -math.inf).softmax(-1)
    return F.conv2d(probabilities, weight, bias, stride, padding).masked_fill(future, 0.0)


def _neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, size: int, dilation: int) -> Tensor:
    place = torch.arange(q.shape[2], device=q.device)
    apart = place[:, None] - place
    near = (apart.abs() <= size // 2 * dilation) & (apart % dilation == 0)
    scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~near, -math.inf)
    return scores.softmax(-1) @ v


def _poly_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return weight[0] * _rms(x**3) + weight[1] * _rms(x**2) + weight[2] * _rms(x) + bias


def _residual_attention(blocks: Tensor, query: Tensor, norm: Tensor) -> Tensor:
    weights = torch.einsum("d,nbtd->nbt", query, _rms(blocks) * norm).softmax(0)
    return torch.einsum("nbt,nbtd->btd", weights, blocks)


def _coefficients(x: Tensor, phi: Tensor, b: Tensor, pre: Tensor, post: Tensor, res: Tensor) -> tuple[Tensor, ...]:
    """Return the coefficients of manifold-constrained hyper-connections: two sigmoids and 20 rounds of Sinkhorn's
    algorithm."""
    streams = x.shape[-2]
    flat = x.flatten(-2)
    mix = (flat @ phi) * torch.rsqrt(flat.pow(2).mean(-1, keepdim=True) + EPS)
    matrix = (mix[..., 2 * streams :] * res + b[2 * streams :]).unflatten(-1, (streams, streams)).softmax(-1) + EPS
    matrix = matrix / (matrix.sum(-2, keepdim=True) + EPS)
    for _ in range(19):
        matrix = matrix / (matrix.sum(-1, keepdim=True) + EPS)
        matrix = matrix / (matrix.sum(-2, keepdim=True) + EPS)
    return (
        torch.sigmoid(mix[..., :streams] * pre + b[:streams]),
        2 * torch.sigmoid(mix[..., streams : 2 * streams] * post + b[streams : 2 * streams]),
        matrix,
    )


def _gathered(x: Tensor, pre: Tensor) -> Tensor:
    return (pre[..., None] * x).sum(-2)


def _spread(x: Tensor, f: Tensor, post: Tensor, res: Tensor) -> Tensor:
    return res @ x + post[..., None] * f[..., None, :]


def _hyper_connected(x: Tensor, layer: Callable[[Tensor], Tensor], *parameters: Tensor) -> Tensor:
    pre, post, res = _coefficients(x, *parameters)
    return _spread(x, layer(_gathered(x, pre)), post, res)


def _hyper_parameters() -> tuple[Tensor, ...]:
    scales = [torch.ones((), requires_grad=True) for _ in range(3)]
    count = STREAMS * STREAMS + 2 * STREAMS
    return (torch.randn(STREAMS * WIDTH, count).mul(0.02).requires_grad_(), _real(count), *scales)


def _streams() -> Tensor:
    return _real(2, 8, STREAMS, WIDTH)


REFERENCES: dict[str, tuple[Callable[[], Arguments], Callable[..., Any]]] = {
    "liger_attn_res": (lambda: (_real(3, 2, 8, WIDTH), _real(WIDTH), _real(WIDTH)), _residual_attention),
    "liger_cross_entropy": (lambda: (_real(TOKENS, WORDS), _labels()), F.cross_entropy),
    "liger_dyt": (
        lambda: (_real(TOKENS, WIDTH), _real(1), _real(WIDTH), _real(WIDTH)),
        lambda x, alpha, gamma, beta: gamma * torch.tanh(alpha * x) + beta,
    ),
    "liger_fused_add_rms_norm": (
        lambda: (_real(TOKENS, WIDTH), _real(TOKENS, WIDTH), _real(WIDTH), EPS),
        lambda x, residual, weight, eps: (_rms(x + residual, eps) * weight, x + residual),
    ),
    "liger_fused_linear_cross_entropy": (
        lambda: (_real(TOKENS, WIDTH), _real(WORDS, WIDTH), _labels(), _real(WORDS)),
        lambda x, weight, labels, bias: F.cross_entropy(F.linear(x, weight, bias), labels),
    ),
    "liger_fused_linear_jsd": (
        lambda: (_real(TOKENS, WIDTH), _real(WORDS, WIDTH), torch.randn(TOKENS, 48), torch.randn(WORDS, 48)),
        _fused_linear_jensen_shannon,
    ),
    "liger_fused_linear_kl_div": (
        lambda: (_real(TOKENS, WIDTH), _real(WORDS, WIDTH), _distribution(False)),
        lambda x, weight, target: F.kl_div((x @ weight.T).log_softmax(-1), target, reduction="batchmean"),
    ),
    "liger_fused_neighborhood_attention": (
        lambda: (*(_real(2, 2, LENGTH, HEAD_WIDTH) for _ in range(3)), 5, 2),
        _neighborhood_attention,
    ),
    "liger_geglu": (
        lambda: (_real(TOKENS, WIDTH), _real(TOKENS, WIDTH)),
        lambda a, b: F.gelu(a, approximate="tanh") * b,
    ),
    "liger_group_norm": (
        lambda: (_real(3, 8, WIDTH), _real(8), _real(8), 8, 4, EPS),
        lambda x, weight, bias, channels, groups, eps: F.group_norm(x, groups, weight, bias, eps),
    ),
    "liger_jsd": (lambda: (_log_distribution(), _log_distribution(False)), _jensen_shannon),
    "liger_kl_div": (lambda: (_log_distribution(), _distribution(False)), F.kl_div),
    "liger_layer_norm": (
        lambda: (_real(TOKENS, WIDTH), _real(WIDTH), _real(WIDTH), EPS),
        lambda x, weight, bias, eps: F.layer_norm(x, (WIDTH,), weight, bias, eps),
    ),
    "liger_mhc_apply": (
        lambda: (
            *(_streams(), _real(2, 8, WIDTH), _real(2, 8, STREAMS), _real(2, 8, STREAMS)),
            _real(2, 8, STREAMS, STREAMS),
        ),
        lambda x, f, pre, post, res: _spread(x, f, post, res),
    ),
    "liger_mhc_coeffs": (lambda: (_streams(), *_hyper_parameters()), _coefficients),
    "liger_mhc_forward": (lambda: (_streams(), torch.tanh, *_hyper_parameters()), _hyper_connected),
    "liger_mhc_post_res": (
        lambda: (_streams(), _real(2, 8, WIDTH), _real(2, 8, STREAMS), _real(2, 8, STREAMS, STREAMS)),
        _spread,
    ),
    "liger_mhc_pre": (lambda: (_streams(), _real(2, 8, STREAMS)), _gathered),
    "liger_modulated_rms_norm": (
        lambda: (_real(TOKENS, WIDTH), _real(WIDTH), _real(TOKENS, WIDTH), _real(TOKENS, WIDTH)),
        lambda x, weight, scale, shift: _rms(x) * weight * (1 + scale) + shift,
    ),
    "liger_multi_token_attention": (
        lambda: (_real(2, 3, LENGTH, LENGTH), _real(3, 3, 3, 3), _real(3), 1, 1),
        _multi_token_attention,
    ),
    "liger_poly_norm": (lambda: (_real(TOKENS, WIDTH), _real(3), _real()), _poly_norm),
    "liger_qwen2vl_mrope": (
        lambda: (*_queries_and_keys(), *_angles(3, 2, LENGTH), [4, 6, 6]),
        _multimodal_rope,
    ),
    "liger_relu_squared": (lambda: (_real(TOKENS, WIDTH),), lambda x: F.relu(x) ** 2),
    "liger_rms_norm": (
        lambda: (_real(TOKENS, WIDTH), _real(WIDTH), EPS),
        lambda x, weight, eps: _rms(x, eps) * weight,
    ),
    "liger_rope": (lambda: (*_queries_and_keys(), *_angles(1, LENGTH)), _rope),
    "liger_softmax": (lambda: (_real(TOKENS, WORDS),), lambda x: x.softmax(-1)),
    "liger_sparsemax": (lambda: (_real(TOKENS, WORDS),), _sparsemax),
    "liger_swiglu": (lambda: (_real(TOKENS, WIDTH), _real(TOKENS, WIDTH)), lambda a, b: F.silu(a) * b),
    "liger_tvd": (
        lambda: (_distribution(), _distribution(False)),
        lambda p, q: 0.5 * (p - q).abs().mean(),
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "liger_mhc_coeffs": {"allow_fp32": True},
    "liger_mhc_forward": {"allow_fp32": True},
}
"""Options of Liger's functions besides the arguments."""

NOT_APPLICABLE = {
    "liger_fused_linear_scaled_cross_entropy_tp": "needs a process group of several devices",
}
