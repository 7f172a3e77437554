"""Scaled dot-product attention: softmax(scale * query @ key.T + bias) @ value, tile by tile, nothing of it in HBM.

The keys of one head pass through the scratchpad once for each tile of queries; the softmax is kept normalised as the
tiles come (running largest score and sum), accumulated in float32. A head of keys serves several heads of queries where
there are fewer of them. A query that may see no key gives zeros, as torch's own softmax over masked scores does.
"""

import math

import torch
import triton
import triton.language as tl

from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, power_of_two_at_least

KEY_TILE = 64
QUERY_TILE = 64


@triton.jit
def _attention(
    query, key, value, bias, out, scale,
    heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    out_batch, out_head, out_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head for each program: queries, heads, batch. Rows are contiguous."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + (head // heads_per_key) * key_head
    value += batch * value_batch + (head // heads_per_key) * value_head
    bias += batch * bias_batch + head * bias_head
    q = tl.load(
        query + row[:, None] * query_row + d[None, :], mask=(row[:, None] < queries) & (d[None, :] < size), other=0.0
    )
    largest = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, VALUE_SIZE), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, (tl.program_id(0).to(tl.int64) + 1) * QUERIES)
    for start in range(0, end, KEYS):
        column = start + tl.arange(0, KEYS)
        k = tl.load(
            key + column[:, None] * key_row + d[None, :], mask=(column[:, None] < keys) & (d[None, :] < size), other=0.0
        )
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_BIAS:
            inside = (row[:, None] < queries) & (column[None, :] < keys)
            scores += tl.load(
                bias + row[:, None] * bias_row + column[None, :] * bias_column, mask=inside, other=-float("inf")
            ).to(tl.float32)
        else:
            scores = tl.where(column[None, :] < keys, scores, -float("inf"))
        if CAUSAL:
            scores = tl.where(row[:, None] >= column[None, :], scores, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        reference = tl.where(new_largest == -float("inf"), 0.0, new_largest)
        weights = tl.exp(scores - reference[:, None])
        shrink = tl.exp(largest - reference)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(
            value + column[:, None] * value_row + dv[None, :],
            mask=(column[:, None] < keys) & (dv[None, :] < value_size),
            other=0.0,
        )
        result = tl.dot(weights.to(v.dtype), v, result * shrink[:, None], input_precision="ieee")
        largest = new_largest
    result = result / tl.where(total == 0.0, 1.0, total)[:, None]
    place = batch * out_batch + head * out_head + row[:, None] * out_row + dv[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=(row[:, None] < queries) & (dv[None, :] < value_size))


def _float_bits(value: float) -> int:
    return int(torch.tensor(value, dtype=torch.float32).view(torch.int32))


def _empty_like_query(query: torch.Tensor, value_size: int) -> torch.Tensor:
    """The result, its dimensions in memory in the query's order, as torch's meta function promises."""
    shape = (*query.shape[:-1], value_size)
    if query.shape[-1] == value_size:
        return torch.empty_like(query)
    order = sorted(range(query.dim()), key=lambda d: query.stride(d), reverse=True)
    strides, step = [0] * len(order), 1
    for d in reversed(order):
        strides[d] = step
        step *= shape[d]
    return torch.empty_strided(shape, strides, dtype=query.dtype, device=query.device)


def fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[object, ...]:
    """`aten::_scaled_dot_product_fused_attention_overrideable` without dropout: query (B, H, Q, D), key and value
    (B, H or a divisor, K, D); bias broadcasts to (B, H, Q, K)."""
    out = _empty_like_query(query, value.shape[-1])
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    written = out if out.stride(-1) == 1 else torch.empty(out.shape, dtype=out.dtype, device=out.device)
    batches, heads, queries, size = query.shape
    keys, value_size = value.shape[-2:]
    bias = query if attn_bias is None else attn_bias.expand(batches, heads, queries, keys)
    query_tile = min(QUERY_TILE, power_of_two_at_least(queries))
    launch = kernel(
        _attention,
        (*(POINTER[t.dtype] for t in (query, key, value, bias, written)), "fp32", *INTEGERS[:21]),
        QUERIES=query_tile,
        KEYS=KEY_TILE,
        SIZE=power_of_two_at_least(size),
        VALUE_SIZE=power_of_two_at_least(value_size),
        CAUSAL=is_causal,
        HAS_BIAS=attn_bias is not None,
    )
    if written.numel():
        words = (
            *(t.data_ptr() for t in (query, key, value, bias, written)),
            _float_bits(1.0 / math.sqrt(size) if scale is None else scale),
            heads // key.shape[1], queries, keys, size, value_size,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *bias.stride()[:4], *written.stride()[:3],
        )  # fmt: skip
        launch((ceil_div(queries, query_tile), heads, batches), words)
    if written is not out:
        out.copy_(written)
    count("aten::_scaled_dot_product_fused_attention_overrideable")
    unused = torch.empty(0, dtype=torch.long, device=out.device)
    log_sum_exp = torch.empty((batches, heads, queries), dtype=torch.float32, device=out.device)
    return out, log_sum_exp, unused, unused, queries, keys, unused, unused, unused
