"""FlexAttention and attention of jagged tensors on the chip.

torch decides in Python which devices have them: the chip joins the devices of FlexAttention, and attends to the
sequences of jagged tensors one by one.
"""

from typing import Any

import torch
import torch.nn.functional as F


def join_flex_attention() -> None:
    from torch.nn.attention import flex_attention

    refuse_unknown_devices = flex_attention._validate_device

    def validate(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        if query.device.type != "chip":
            refuse_unknown_devices(query, key, value)

    flex_attention._validate_device = validate


def join_jagged_attention() -> None:
    from torch.nested._internal import ops

    of_other_devices = ops.jagged_scaled_dot_product_attention

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        is_ours = query.device.type == "chip" and not _has_even_lengths(query)
        result: torch.Tensor = (_one_by_one if is_ours else of_other_devices)(query, key, value, *args, **kwargs)
        return result

    ops.jagged_scaled_dot_product_attention = attend


def _has_even_lengths(query: Any) -> bool:
    """Return whether another dimension than the length of the sequences is the jagged one: torch takes its dense
    memory."""
    return query.dim() > 3 and query._ragged_idx == 1


def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """(B, heads, length, size) or (B, length, size), the lengths jagged, as torch's own function takes them."""
    from torch.nested._internal import sdpa

    query, key, value, attn_mask = sdpa._autocast(query, key, value, attn_mask)
    sdpa._validate_sdpa_input(query, key, value, attn_mask, dropout_p, is_causal, scale)
    if attn_mask is not None:
        raise NotImplementedError("attention of jagged tensors with a mask on the chip: pad them, or use is_causal")
    has_heads = query.dim() == 4

    def turned(tensor: torch.Tensor, first: int) -> torch.Tensor:
        return tensor.transpose(first, first + 1) if has_heads else tensor

    results = []
    for parts in zip(*(turned(tensor, 1).unbind() for tensor in (query, key, value)), strict=True):
        q, k, v = (turned(part, 0) for part in parts)
        result = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
        )
        results.append(turned(result, 0))
    whole: Any = turned(query, 1)
    if whole.lengths() is None:
        return turned(torch.nested.nested_tensor_from_jagged(torch.cat(results), whole.offsets()), 1)
    return turned(torch.nested.as_nested_tensor(results, layout=torch.jagged), 1)
