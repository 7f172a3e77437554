"""Scaled dot-product attention: softmax(scale * query @ key.T + bias) @ value, and its gradients, tile by tile.

The keys of one head pass through the scratchpad once for each tile of queries; the softmax is kept normalised as the
tiles come (running largest score and sum), accumulated in float32. A head of keys serves several heads of queries where
there are fewer of them. A query that may see no key gives zeros, as torch's own softmax over masked scores does.

The gradients compute the weights again from the scores and the logarithm of their sum, which the forward pass keeps:
one kernel goes over the keys for each tile of queries, another over the queries for each tile of keys.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from tapeout.pytorch.ops.elementwise import scalar_word
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, power_of_two_at_least

KEY_TILE = 64
QUERY_TILE = 64


@triton.jit
def _attention(
    query, key, value, bias, out, log_sum, scale,
    heads, heads_per_key, queries, keys, size, value_size,
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
    log = tl.where(total == 0.0, 0.0, largest + tl.log(total))
    tl.store(log_sum + (batch * heads + head) * queries + row, log, mask=row < queries)


@triton.jit
def _scores(
    q, k, bias, row, column, queries, keys, bias_row, bias_column, scale,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """(queries, keys) of one tile; minus infinity where a query may not look or there is no key."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    inside = (row[:, None] < queries) & (column[None, :] < keys)
    if HAS_BIAS:
        scores += tl.load(
            bias + row[:, None] * bias_row + column[None, :] * bias_column, mask=inside, other=-float("inf")
        ).to(tl.float32)
    else:
        scores = tl.where(inside, scores, -float("inf"))
    if CAUSAL:
        scores = tl.where(row[:, None] >= column[None, :], scores, -float("inf"))
    return scores


@triton.jit
def _gradient_of_query(
    query, key, value, bias, gradient, log_sum, correction, of_query, scale,
    heads, heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    gradient_batch, gradient_head, gradient_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head for each program; `of_query` is contiguous."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + (head // heads_per_key) * key_head
    value += batch * value_batch + (head // heads_per_key) * value_head
    bias += batch * bias_batch + head * bias_head
    gradient += batch * gradient_batch + head * gradient_head
    line = (batch * heads + head) * queries
    in_row = (row[:, None] < queries) & (d[None, :] < size)
    q = tl.load(query + row[:, None] * query_row + d[None, :], mask=in_row, other=0.0)
    in_gradient = (row[:, None] < queries) & (dv[None, :] < value_size)
    g = tl.load(gradient + row[:, None] * gradient_row + dv[None, :], mask=in_gradient, other=0.0)
    log = tl.load(log_sum + line + row, mask=row < queries, other=0.0)
    less = tl.load(correction + line + row, mask=row < queries, other=0.0)
    result = tl.zeros((QUERIES, SIZE), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, (tl.program_id(0).to(tl.int64) + 1) * QUERIES)
    for start in range(0, end, KEYS):
        column = start + tl.arange(0, KEYS)
        k = tl.load(
            key + column[:, None] * key_row + d[None, :], mask=(column[:, None] < keys) & (d[None, :] < size), other=0.0
        )
        v = tl.load(
            value + column[:, None] * value_row + dv[None, :],
            mask=(column[:, None] < keys) & (dv[None, :] < value_size),
            other=0.0,
        )
        scores = _scores(q, k, bias, row, column, queries, keys, bias_row, bias_column, scale, CAUSAL, HAS_BIAS)
        weights = tl.exp(scores - log[:, None])
        of_scores = weights * (tl.dot(g, tl.trans(v), input_precision="ieee") - less[:, None]) * scale
        result = tl.dot(of_scores.to(k.dtype), k, result, input_precision="ieee")
    place = (line + row[:, None]) * size + d[None, :]
    tl.store(of_query + place, result.to(of_query.dtype.element_ty), mask=in_row)


@triton.jit
def _gradients_of_key_and_value(
    query, key, value, bias, gradient, log_sum, correction, of_key, of_value, scale,
    heads, heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    gradient_batch, gradient_head, gradient_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one head for each program, over all heads of queries it serves; results are contiguous."""
    key_head_index = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0).to(tl.int64) * KEYS + tl.arange(0, KEYS)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    in_key = (column[:, None] < keys) & (d[None, :] < size)
    in_value = (column[:, None] < keys) & (dv[None, :] < value_size)
    key += batch * key_batch + key_head_index * key_head
    value += batch * value_batch + key_head_index * value_head
    k = tl.load(key + column[:, None] * key_row + d[None, :], mask=in_key, other=0.0)
    v = tl.load(value + column[:, None] * value_row + dv[None, :], mask=in_value, other=0.0)
    key_result = tl.zeros((KEYS, SIZE), tl.float32)
    value_result = tl.zeros((KEYS, VALUE_SIZE), tl.float32)
    first = 0
    if CAUSAL:
        first = tl.program_id(0) * KEYS // QUERIES * QUERIES
    for served in range(0, heads_per_key):
        head = key_head_index * heads_per_key + served
        line = (batch * heads + head) * queries
        for start in range(first, queries, QUERIES):
            row = start + tl.arange(0, QUERIES)
            q = tl.load(
                query + batch * query_batch + head * query_head + row[:, None] * query_row + d[None, :],
                mask=(row[:, None] < queries) & (d[None, :] < size),
                other=0.0,
            )
            g = tl.load(
                gradient + batch * gradient_batch + head * gradient_head + row[:, None] * gradient_row + dv[None, :],
                mask=(row[:, None] < queries) & (dv[None, :] < value_size),
                other=0.0,
            )
            log = tl.load(log_sum + line + row, mask=row < queries, other=0.0)
            less = tl.load(correction + line + row, mask=row < queries, other=0.0)
            shift = bias + batch * bias_batch + head * bias_head
            scores = _scores(q, k, shift, row, column, queries, keys, bias_row, bias_column, scale, CAUSAL, HAS_BIAS)
            weights = tl.exp(scores - log[:, None])
            value_result = tl.dot(tl.trans(weights.to(g.dtype)), g, value_result, input_precision="ieee")
            of_scores = weights * (tl.dot(g, tl.trans(v), input_precision="ieee") - less[:, None]) * scale
            key_result = tl.dot(tl.trans(of_scores.to(q.dtype)), q, key_result, input_precision="ieee")
    line = (batch * (heads // heads_per_key) + key_head_index) * keys
    tl.store(of_key + (line + column[:, None]) * size + d[None, :], key_result.to(of_key.dtype.element_ty), mask=in_key)
    tl.store(
        of_value + (line + column[:, None]) * value_size + dv[None, :],
        value_result.to(of_value.dtype.element_ty),
        mask=in_value,
    )


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
    log_sum_exp = torch.empty((batches, heads, queries), dtype=torch.float32, device=out.device)
    query_tile = min(QUERY_TILE, power_of_two_at_least(queries))
    launch = kernel(
        _attention,
        (*(POINTER[t.dtype] for t in (query, key, value, bias, written, log_sum_exp)), "fp32", *INTEGERS[:22]),
        QUERIES=query_tile,
        KEYS=KEY_TILE,
        SIZE=power_of_two_at_least(size),
        VALUE_SIZE=power_of_two_at_least(value_size),
        CAUSAL=is_causal,
        HAS_BIAS=attn_bias is not None,
    )
    if written.numel():
        words = (
            *(t.data_ptr() for t in (query, key, value, bias, written, log_sum_exp)),
            scalar_word(1.0 / math.sqrt(size) if scale is None else scale, torch.float32),
            heads, heads // key.shape[1], queries, keys, size, value_size,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *bias.stride()[:4], *written.stride()[:3],
        )  # fmt: skip
        launch((ceil_div(queries, query_tile), heads, batches), words)
    if written is not out:
        out.copy_(written)
    count("aten::_scaled_dot_product_fused_attention_overrideable")
    unused = torch.empty(0, dtype=torch.long, device=out.device)
    return out, log_sum_exp, unused, unused, queries, keys, unused, unused, unused


def fused_attention_backward(
    grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attn_bias: torch.Tensor | None, grad_input_mask: Sequence[bool], out: torch.Tensor, logsumexp: torch.Tensor,
    cum_seq_q: torch.Tensor, cum_seq_k: torch.Tensor, max_q: int, max_k: int, dropout_p: float, is_causal: bool,
    philox_seed: torch.Tensor, philox_offset: torch.Tensor, *, scale: float | None = None,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """Gradients of query, key and value. A bias has none here: shim.cpp chooses this attention only without it."""
    of_query, of_key, of_value = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (query, key, value))
    gradient, query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (grad_out, query, key, value))
    batches, heads, queries, size = query.shape
    keys, value_size = value.shape[-2:]
    correction = (gradient.float() * out.float()).sum(-1)
    has_bias = attn_bias is not None and attn_bias.numel() > 0
    bias = attn_bias.expand(batches, heads, queries, keys) if attn_bias is not None and has_bias else query
    tiles = (min(QUERY_TILE, power_of_two_at_least(queries)), min(KEY_TILE, power_of_two_at_least(keys)))
    constants = {
        "QUERIES": tiles[0],
        "KEYS": tiles[1],
        "SIZE": power_of_two_at_least(size),
        "VALUE_SIZE": power_of_two_at_least(value_size),
        "CAUSAL": is_causal,
        "HAS_BIAS": has_bias,
    }
    read = (query, key, value, bias, gradient, logsumexp, correction)
    words = (
        scalar_word(1.0 / math.sqrt(size) if scale is None else scale, torch.float32),
        heads, heads // key.shape[1], queries, keys, size, value_size,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *bias.stride()[:4], *gradient.stride()[:3],
    )  # fmt: skip
    for function, written, grid in (
        (_gradient_of_query, (of_query,), (ceil_div(queries, tiles[0]), heads, batches)),
        (_gradients_of_key_and_value, (of_key, of_value), (ceil_div(keys, tiles[1]), key.shape[1], batches)),
    ):
        tensors = (*read, *written)
        launch = kernel(function, (*(POINTER[t.dtype] for t in tensors), "fp32", *INTEGERS[:22]), **constants)
        if written[0].numel():
            launch(grid, (*(t.data_ptr() for t in tensors), *words))
    count("aten::_scaled_dot_product_fused_attention_overrideable_backward")
    return of_query, of_key, of_value, None
