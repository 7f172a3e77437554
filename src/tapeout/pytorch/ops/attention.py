"""Scaled dot-product attention: softmax(scale * query @ key.T + bias) @ value, and its gradients, tile by tile.

The keys of one head pass through the scratchpad once for each tile of queries; the softmax is kept normalised as the
tiles come (running largest score and sum), accumulated in float32. A head of keys serves several heads of queries where
there are fewer of them. A query that may see no key gives zeros, as torch's own softmax over masked scores does.

The gradients (`attention_gradients.py`) compute the weights again from the scores and the logarithm of their sum, which
the forward pass keeps.
"""

import functools
import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import attention_gradients as kernels
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.attention_weights import LOG2_E, weights_of
from tapeout.pytorch.ops.decode_attention import decode
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, power_of_two_at_least
from tapeout.pytorch.ops.matmul import MATRIX_DTYPES, has_products, is_multiplied
from tapeout.pytorch.ops.tiles import attention_gradient_tile, attention_tile

LEAST_STEPS_AHEAD = 8
"""Tiles of keys from which on the scores of the next are computed ahead: the scores of one tile are then not used."""


@triton.jit
def _scores_at(q, key, start, d, keys, size, key_row, KEYS: tl.constexpr):
    """Products of the queries with the keys from `start` on, not scaled."""
    column = start + tl.arange(0, KEYS)
    inside = (column[:, None] < keys) & (d[None, :] < size)
    k = tl.load(key + column[:, None] * key_row + d[None, :], mask=inside, other=0.0)
    return tl.dot(q, tl.trans(k), input_precision="ieee")


@triton.jit
def _take(weights, shrink, total, result, value, start, dv, keys, value_size, value_row, KEYS: tl.constexpr):
    """Adds the values of the keys from `start` on, weighted."""
    column = start + tl.arange(0, KEYS)
    total = total * shrink + tl.sum(weights, 1)
    inside = (column[:, None] < keys) & (dv[None, :] < value_size)
    v = tl.load(value + column[:, None] * value_row + dv[None, :], mask=inside, other=0.0)
    return total, tl.dot(weights.to(v.dtype), v, result * shrink[:, None], input_precision="ieee")


@triton.jit
def _attention(
    query, key, value, bias, out, log_sum, natural_scale,
    heads, heads_per_turn, heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    out_batch, out_head, out_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head for each program: queries, heads, batch. Rows are contiguous.

    Keys that every query of the tile may see come first, without a mask. AHEAD: the scores of the next keys are
    computed, in the place of these, as soon as these have become weights, so that matrix and vector engine work at the
    same time."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    tile = tl.program_id(0).to(tl.int64)
    if CAUSAL:  # later tiles see more keys: from turn to turn of the cores the order changes, so that each gets both
        turn = (batch * heads + head) // heads_per_turn
        tile = tl.where(turn % 2 == 0, tile, tl.num_programs(0) - 1 - tile)
    first_row = tile * QUERIES
    row = first_row + tl.arange(0, QUERIES)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + (head // heads_per_key) * key_head
    value += batch * value_batch + (head // heads_per_key) * value_head
    bias += batch * bias_batch + head * bias_head
    q = tl.load(
        query + row[:, None] * query_row + d[None, :], mask=(row[:, None] < queries) & (d[None, :] < size), other=0.0
    )
    UNIT: tl.constexpr = 0.5 * LOG2_E if HAS_BIAS else LOG2_E
    scale = natural_scale * UNIT
    largest = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, VALUE_SIZE), tl.float32)
    end = keys
    seen_by_all = keys // KEYS * KEYS
    if CAUSAL:
        end = tl.minimum(keys, first_row + QUERIES)
        seen_by_all = tl.minimum(seen_by_all, (first_row + 1) // KEYS * KEYS)
    if HAS_BIAS:
        seen_by_all = keys * 0
    scores = tl.zeros((QUERIES, KEYS), tl.float32)
    if AHEAD:
        scores = _scores_at(q, key, 0, d, keys, size, key_row, KEYS)
    if not HAS_BIAS:
        for start in range(0, seen_by_all, KEYS):
            if not AHEAD:
                scores = _scores_at(q, key, start, d, keys, size, key_row, KEYS)
            weights, shrink, largest = weights_of(
                scores, largest, bias, start, row, queries, keys, bias_row, bias_column, scale,
                KEYS, False, CAUSAL, False,
            )  # fmt: skip
            if AHEAD:
                scores = _scores_at(q, key, start + KEYS, d, keys, size, key_row, KEYS)
            total, result = _take(weights, shrink, total, result, value, start, dv, keys, value_size, value_row, KEYS)
    for start in range(seen_by_all, end, KEYS):
        if not AHEAD:
            scores = _scores_at(q, key, start, d, keys, size, key_row, KEYS)
        weights, shrink, largest = weights_of(
            scores, largest, bias, start, row, queries, keys, bias_row, bias_column, scale,
            KEYS, True, CAUSAL, HAS_BIAS,
        )  # fmt: skip
        if AHEAD:
            scores = _scores_at(q, key, start + KEYS, d, keys, size, key_row, KEYS)
        total, result = _take(weights, shrink, total, result, value, start, dv, keys, value_size, value_row, KEYS)
    result = result / tl.where(total == 0.0, 1.0, total)[:, None]
    place = batch * out_batch + head * out_head + row[:, None] * out_row + dv[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=(row[:, None] < queries) & (dv[None, :] < value_size))
    log = tl.where(total == 0.0, 0.0, largest * (1.0 / UNIT) + tl.log(total))
    tl.store(log_sum + (batch * heads + head) * queries + row, log, mask=row < queries)


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


def _check(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float) -> None:
    """Raises RuntimeError for operands that these kernels are not made for; a bias is checked where it is expanded.
    NotImplementedError for a type that the matrix engine does not multiply."""
    shapes = [tuple(tensor.shape) for tensor in (query, key, value)]
    fits = all(len(shape) == 4 for shape in shapes) and (
        (query.shape[0], query.shape[3]) == (key.shape[0], key.shape[3])
        and key.shape[:3] == value.shape[:3]
        and key.shape[1] > 0
        and query.shape[1] % key.shape[1] == 0
    )
    if not fits or dropout or any(t.dtype != query.dtype or t.dtype not in MATRIX_DTYPES for t in (query, key, value)):
        raise RuntimeError(
            "the chip's fused attention takes query (B, H, Q, D), key and value (B, H or a divisor of it, K, D), of "
            f"one of {', '.join(map(str, MATRIX_DTYPES))}, without dropout; not shapes {shapes} of "
            f"{query.dtype}, {key.dtype} and {value.dtype} with dropout {dropout}"
        )
    if not is_multiplied(query.dtype):
        raise NotImplementedError(
            f"the matrix engine of chip {chips.active().name!r} multiplies neither {query.dtype} nor torch.float32 "
            "(core.matrix.float32_rate is 0), which the fused attention needs: use torch.bfloat16, or choose "
            "torch.nn.attention.SDPBackend.MATH with sdpa_kernel"
        )


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
    (B, H or a divisor, K, D); bias broadcasts to (B, H, Q, K). shim.cpp chooses it for such operands only."""
    _check(query, key, value, dropout_p)
    if not has_products(query.dtype):
        out, *others = fused_attention(
            query.float(), key.float(), value.float(), attn_bias, dropout_p, is_causal, scale=scale
        )
        assert isinstance(out, torch.Tensor)
        return out.to(query.dtype), *others
    out = _empty_like_query(query, value.shape[-1])
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    written = out if out.stride(-1) == 1 else torch.empty(out.shape, dtype=out.dtype, device=out.device)
    batches, heads, queries, size = query.shape
    keys, value_size = value.shape[-2:]
    bias = query if attn_bias is None else attn_bias.expand(batches, heads, queries, keys)
    log_sum_exp = torch.empty((batches, heads, queries), dtype=torch.float32, device=out.device)
    scale = 1.0 / math.sqrt(size) if scale is None else scale
    if scale < 0.0:  # the kernel takes the largest score before it scales
        query, scale = -query, -scale
    if queries == 1 and not is_causal and written.numel() and keys:
        shared = None if attn_bias is None else bias
        decode(query, key, value, shared, written, log_sum_exp, scale, MATRIX_DTYPES.get(query.dtype, "float32"))
        return _results(out, written, log_sum_exp, queries, keys)
    chip = chips.active()
    query_tile, key_tile = attention_tile(
        chip, MATRIX_DTYPES.get(query.dtype, "float32"), query.element_size(),
        batches * heads, queries, keys, size, value_size,
    )  # fmt: skip
    tiles = ceil_div(queries, query_tile)
    launch = kernel(
        _attention,
        (*(POINTER[t.dtype] for t in (query, key, value, bias, written, log_sum_exp)), "fp32", *INTEGERS[:23]),
        QUERIES=query_tile,
        KEYS=key_tile,
        SIZE=power_of_two_at_least(size),
        VALUE_SIZE=power_of_two_at_least(value_size),
        CAUSAL=is_causal,
        HAS_BIAS=attn_bias is not None,
        AHEAD=query_tile > 1 and keys >= LEAST_STEPS_AHEAD * key_tile,
    )
    if written.numel():
        words = (
            *(t.data_ptr() for t in (query, key, value, bias, written, log_sum_exp)),
            scalars.word(scale, torch.float32),
            heads, max(1, chip.core_count // tiles), heads // key.shape[1], queries, keys, size, value_size,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *bias.stride()[:4], *written.stride()[:3],
        )  # fmt: skip
        launch((tiles, heads, batches), words)
    return _results(out, written, log_sum_exp, queries, keys)


def _results(
    out: torch.Tensor, written: torch.Tensor, log_sum_exp: torch.Tensor, queries: int, keys: int
) -> tuple[object, ...]:
    """All that the operator returns; what it has no use for is empty."""
    if written is not out:
        out.copy_(written)
    count("aten::_scaled_dot_product_fused_attention_overrideable")
    unused, no_seed = (torch.empty(shape, dtype=torch.long, device=out.device) for shape in ((0,), ()))
    return out, log_sum_exp, unused, unused, queries, keys, no_seed, no_seed, unused


def fused_attention_backward(
    grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attn_bias: torch.Tensor | None, grad_input_mask: Sequence[bool], out: torch.Tensor, logsumexp: torch.Tensor,
    cum_seq_q: torch.Tensor, cum_seq_k: torch.Tensor, max_q: int, max_k: int, dropout_p: float, is_causal: bool,
    philox_seed: torch.Tensor, philox_offset: torch.Tensor, *, scale: float | None = None,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """Gradients of query, key and value, laid out as they are. A bias has none here: shim.cpp chooses this attention
    only without it."""
    if not has_products(query.dtype):
        of_wide = fused_attention_backward(
            grad_out.float(), query.float(), key.float(), value.float(), attn_bias, grad_input_mask, out.float(),
            logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, philox_seed, philox_offset,
            scale=scale,
        )  # fmt: skip
        return tuple(None if t is None else t.to(query.dtype) for t in of_wide)
    gradients = [torch.empty_like(t) for t in (query, key, value)]
    of_query, of_key, of_value = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (query, key, value))
    gradient, query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (grad_out, query, key, value))
    batches, heads, queries, size = query.shape
    keys, value_size = value.shape[-2:]
    out = out if out.stride(-1) == 1 else out.contiguous()
    has_bias = attn_bias is not None and attn_bias.numel() > 0
    bias = attn_bias.expand(batches, heads, queries, keys) if attn_bias is not None and has_bias else query
    chip, heads_per_key = chips.active(), heads // key.shape[1]
    scale_word = scalars.word(1.0 / math.sqrt(size) if scale is None else scale, torch.float32)
    largest, log_total, correction = logsumexp, logsumexp, torch.empty_like(logsumexp)
    sides = {"SIZE": power_of_two_at_least(size), "VALUE_SIZE": power_of_two_at_least(value_size)}
    sizes = (heads_per_key, queries, keys, size, value_size)
    tile_of = functools.partial(
        attention_gradient_tile, chip, query.element_size(), queries, keys, max(*sides.values())
    )
    if has_bias:
        largest, log_total = (torch.empty_like(logsumexp) for _ in range(2))
        tensors: tuple[torch.Tensor, ...] = (query, key, bias, largest, log_total)
        query_tile, key_tile = tile_of(is_of_keys=False)
        launch = kernel(
            kernels.statistics,
            (*(POINTER[t.dtype] for t in tensors), "fp32", *INTEGERS[:15]),
            QUERIES=query_tile,
            KEYS=key_tile,
            SIZE=sides["SIZE"],
            CAUSAL=is_causal,
        )
        if largest.numel():
            strides = (*query.stride()[:3], *key.stride()[:3], *bias.stride()[:4])
            words = (*(t.data_ptr() for t in tensors), scale_word, heads, *sizes[:4], *strides)
            launch((ceil_div(queries, query_tile), heads, batches), words)
    strides = tuple(step for t in (query, key, value) for step in t.stride()[:3])
    strides += (*bias.stride()[:4], *gradient.stride()[:3])
    of_queries: tuple[torch.Tensor, ...] = (
        query, key, value, bias, gradient, out, largest, log_total, correction, of_query
    )  # fmt: skip
    of_keys = (query, key, value, bias, gradient, largest, log_total, correction, of_key, of_value)
    for function, tensors, extra, side, count_of_heads in (
        (kernels.gradient_of_query, of_queries, out.stride()[:3], 0, heads),
        (kernels.gradients_of_key_and_value, of_keys, (), 1, key.shape[1]),
    ):
        tile = tile_of(is_of_keys=side == 1)
        tiles = ceil_div((queries, keys)[side], tile[side])
        launch = kernel(
            function,
            (*(POINTER[t.dtype] for t in tensors), "fp32", *INTEGERS[: 23 + len(extra)]),
            QUERIES=tile[0],
            KEYS=tile[1],
            **sides,
            MASKED=is_causal or keys % tile[1] != 0,
            CAUSAL=is_causal,
            HAS_BIAS=has_bias,
        )
        if batches * heads * queries * keys:
            heads_per_turn = max(1, chip.core_count // tiles)
            addresses = (t.data_ptr() for t in tensors)
            launch((tiles, count_of_heads, batches), (
                *addresses, scale_word, heads, heads_per_turn, *sizes, *strides, *extra,
            ))  # fmt: skip
        else:
            for t in tensors[-1 - side :]:
                t.zero_()
    count("aten::_scaled_dot_product_fused_attention_overrideable_backward")
    found = (of_query, of_key, of_value)
    return *(
        t if t.stride() == like.stride() else like.copy_(t) for t, like in zip(found, gradients, strict=True)
    ), None


def may_be_nested(tensor: torch.Tensor, mask: torch.Tensor) -> bool:
    """Return whether nn.TransformerEncoder may drop padding by a nested tensor: the chip has no operators for these, so
    it computes padded sequences as in training."""
    return False
