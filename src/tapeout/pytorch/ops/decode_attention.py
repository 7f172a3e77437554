"""Attention of one query a sequence, as decoding asks for it: every key and value is read once, and little is computed.

The heads of queries that share a head of keys are the rows of one tile, so a key serves all of them. Where heads and
sequences are fewer than cores, the keys of one are divided among several programs; each leaves a result relative to its
own largest score, and a second kernel joins them.
"""

import torch
import triton
import triton.language as tl

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.attention_weights import LOG2_E, weights_of
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, kernel, power_of_two_at_least
from tapeout.pytorch.ops.tiles import DecodeTile, decode_tile


@triton.jit
def _scores_at(
    q, q_rest, key, start, end, size, key_row, KEYS: tl.constexpr, SIZE: tl.constexpr, REST: tl.constexpr
):  # fmt: skip
    """Products of the queries with the keys from `start` on, of their first SIZE elements and the rest."""
    column = start + tl.arange(0, KEYS)
    d = tl.arange(0, SIZE)
    k = tl.load(
        key + column[:, None] * key_row + d[None, :], mask=(column[:, None] < end) & (d[None, :] < size), other=0.0
    )
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")
    if REST:
        d_rest = SIZE + tl.arange(0, REST)
        inside = (column[:, None] < end) & (d_rest[None, :] < size)
        k = tl.load(key + column[:, None] * key_row + d_rest[None, :], mask=inside, other=0.0)
        scores = tl.dot(q_rest, tl.trans(k), scores, input_precision="ieee")
    return scores


@triton.jit
def _decode(
    query, key, value, bias, out, parts, largest_parts, total_parts, log_sum, natural_scale,
    rows, keys, share, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    out_batch, out_head, out_row,
    ROWS: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, REST: tl.constexpr, VALUE_SIZE: tl.constexpr,
    CHAINS: tl.constexpr, HAS_BIAS: tl.constexpr, DIVIDED: tl.constexpr,
):  # fmt: skip
    """`share` keys of one head of one sequence for each program, for all `rows` queries that they serve. CHAINS: sums
    of weighted values that run side by side, each of its own keys, so that the matrix array is full."""
    part, head, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head * key_head
    value += batch * value_batch + head * value_head
    bias += batch * bias_batch + head * bias_head
    first = part * share
    end = tl.minimum(first + share, keys)
    q = tl.load(
        query + row[:, None] * query_row + d[None, :], mask=(row[:, None] < rows) & (d[None, :] < size), other=0.0
    )
    q_rest = q
    if REST:
        d_rest = SIZE + tl.arange(0, REST)
        in_rest = (row[:, None] < rows) & (d_rest[None, :] < size)
        q_rest = tl.load(query + row[:, None] * query_row + d_rest[None, :], mask=in_rest, other=0.0)
    UNIT: tl.constexpr = 0.5 * LOG2_E if HAS_BIAS else LOG2_E
    scale = natural_scale * UNIT
    largest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((CHAINS, ROWS, VALUE_SIZE), tl.float32)
    scores = _scores_at(q, q_rest, key, first, end, size, key_row, KEYS, SIZE, REST)
    for start in range(first, end, KEYS):
        weights, shrink, largest = weights_of(
            scores, largest, bias, start, row, rows, end, bias_row, bias_column, scale, KEYS, True, False, HAS_BIAS
        )
        scores = _scores_at(q, q_rest, key, start + KEYS, end, size, key_row, KEYS, SIZE, REST)
        total = total * shrink + tl.sum(weights, 1)
        column = start + tl.arange(0, KEYS)
        inside = (column[:, None] < end) & (dv[None, :] < value_size)
        v = tl.load(value + column[:, None] * value_row + dv[None, :], mask=inside, other=0.0)
        divided = tl.trans(tl.reshape(weights.to(v.dtype), (ROWS, CHAINS, KEYS // CHAINS)), (1, 0, 2))
        values = tl.reshape(v, (CHAINS, KEYS // CHAINS, VALUE_SIZE))
        result = tl.dot(divided, values, result * shrink[None, :, None], input_precision="ieee")
    joined = tl.sum(result, 0)
    in_row = (row[:, None] < rows) & (dv[None, :] < value_size)
    line = (batch * tl.num_programs(1) + head) * rows
    if DIVIDED:
        place = (line + row) * tl.num_programs(0) + part
        tl.store(parts + place[:, None] * value_size + dv[None, :], joined, mask=in_row)
        tl.store(largest_parts + place, largest, mask=row < rows)
        tl.store(total_parts + place, total, mask=row < rows)
    else:
        joined = joined / tl.where(total == 0.0, 1.0, total)[:, None]
        place = batch * out_batch + head * out_head + row[:, None] * out_row + dv[None, :]
        tl.store(out + place, joined.to(out.dtype.element_ty), mask=in_row)
        log = tl.where(total == 0.0, 0.0, largest * (1.0 / UNIT) + tl.log(total))
        tl.store(log_sum + line + row, log, mask=row < rows)


@triton.jit
def _join(
    parts, largest_parts, total_parts, out, log_sum, count, rows, value_size,
    out_batch, out_head, out_row,
    PARTS: tl.constexpr, VALUE_SIZE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """The result of one query from those of its parts."""
    row, head, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    line = (batch * tl.num_programs(1) + head) * rows + row
    part = tl.arange(0, PARTS)
    dv = tl.arange(0, VALUE_SIZE)
    largest = tl.load(largest_parts + line * count + part, mask=part < count, other=-float("inf"))
    total = tl.load(total_parts + line * count + part, mask=part < count, other=0.0)
    inside = (part[:, None] < count) & (dv[None, :] < value_size)
    result = tl.load(parts + (line * count + part[:, None]) * value_size + dv[None, :], mask=inside, other=0.0)
    of_all = tl.max(largest, 0)
    reference = tl.where(of_all == -float("inf"), 0.0, of_all)
    FACTOR: tl.constexpr = 2.0 if HAS_BIAS else 1.0
    shrink = tl.exp2(FACTOR * (largest - reference))
    whole = tl.sum(total * shrink, 0)
    joined = tl.sum(result * shrink[:, None], 0) / tl.where(whole == 0.0, 1.0, whole)
    place = batch * out_batch + head * out_head + row * out_row + dv
    tl.store(out + place, joined.to(out.dtype.element_ty), mask=dv < value_size)
    UNIT: tl.constexpr = 0.5 * LOG2_E if HAS_BIAS else LOG2_E
    tl.store(log_sum + line, tl.where(whole == 0.0, 0.0, of_all * (1.0 / UNIT) + tl.log(whole)))


def decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor,
    log_sum: torch.Tensor, scale: float, dtype: str,
) -> None:  # fmt: skip
    """out (B, H, 1, V) and log_sum (B, H, 1) of query (B, H, 1, D), key (B, G, K, D), value (B, G, K, V) and a bias
    expanded to (B, H, 1, K). Rows are contiguous; `scale` is not negative. `dtype` is the chip's name of the type."""
    groups = key.shape[1]
    query, out = (t.squeeze(2).unflatten(1, (groups, -1)) for t in (query, out))
    has_bias = bias is not None
    bias = query if bias is None else bias.squeeze(2).unflatten(1, (groups, -1))
    batches, _, rows, size = query.shape
    keys, value_size = value.shape[-2:]
    tile: DecodeTile = decode_tile(
        chips.active(), dtype, query.element_size(), batches * groups, rows, keys, size, value_size
    )
    count = ceil_div(keys, tile.share)
    shape = (batches, groups, rows, count if count > 1 else 0)
    parts = torch.empty((*shape, value_size), dtype=torch.float32, device=out.device)
    largest, total = (torch.empty(shape, dtype=torch.float32, device=out.device) for _ in range(2))
    tensors = (query, key, value, bias, out, parts, largest, total, log_sum)
    launch = kernel(
        _decode,
        (*(POINTER[t.dtype] for t in tensors), "fp32", *INTEGERS[:21]),
        ROWS=power_of_two_at_least(rows),
        KEYS=tile.keys,
        SIZE=tile.size,
        REST=tile.rest,
        VALUE_SIZE=power_of_two_at_least(value_size),
        CHAINS=tile.chains,
        HAS_BIAS=has_bias,
        DIVIDED=count > 1,
    )
    words = (
        *(t.data_ptr() for t in tensors), scalars.word(scale, torch.float32),
        rows, keys, tile.share, size, value_size,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *bias.stride()[:4], *out.stride()[:3],
    )  # fmt: skip
    launch((count, groups, batches), words)
    if count > 1:
        made = (parts, largest, total, out, log_sum)
        join = kernel(
            _join,
            (*(POINTER[t.dtype] for t in made), *INTEGERS[:6]),
            PARTS=power_of_two_at_least(count),
            VALUE_SIZE=power_of_two_at_least(value_size),
            HAS_BIAS=has_bias,
        )
        join((rows, groups, batches), (*(t.data_ptr() for t in made), count, rows, value_size, *out.stride()[:3]))
