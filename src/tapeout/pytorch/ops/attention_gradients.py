"""Kernels of attention's gradients, which compute the weights again from the scores and the logarithm of their sum.

One goes over the keys for each tile of queries, another over the queries for each tile of keys. Both compute the scores
and the products with values of the next tile as soon as those of this one are used, so that matrix and vector engine
work at the same time.
"""

import triton
import triton.language as tl

from tapeout.pytorch.ops.attention_weights import LOG2_E


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
def statistics(
    query, key, bias, out_largest, out_log_total, scale,
    heads, heads_per_key, queries, keys, size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    bias_batch, bias_head, bias_row, bias_column,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Store for each row of scores with a bias: the largest, and the logarithm of the sum relative to it. One number
    would not do: beside a score near float32's lowest number, the logarithm is lost in rounding."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, SIZE)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + (head // heads_per_key) * key_head
    bias += batch * bias_batch + head * bias_head
    in_row = (row[:, None] < queries) & (d[None, :] < size)
    q = tl.load(query + row[:, None] * query_row + d[None, :], mask=in_row, other=0.0)
    largest = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    for start in range(0, keys, KEYS):
        column = start + tl.arange(0, KEYS)
        in_key = (column[:, None] < keys) & (d[None, :] < size)
        k = tl.load(key + column[:, None] * key_row + d[None, :], mask=in_key, other=0.0)
        scores = _scores(q, k, bias, row, column, queries, keys, bias_row, bias_column, scale, CAUSAL, True)
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        reference = tl.where(new_largest == -float("inf"), 0.0, new_largest)
        total = total * tl.exp(largest - reference) + tl.sum(tl.exp(scores - reference[:, None]), 1)
        largest = new_largest
    place = (batch * heads + head) * queries + row
    tl.store(out_largest + place, tl.where(total == 0.0, 0.0, largest), mask=row < queries)
    tl.store(out_log_total + place, tl.where(total == 0.0, 0.0, tl.log(total)), mask=row < queries)


@triton.jit
def _rows_of(tensor, row, d, rows, size, step):
    """Rows of a matrix that are contiguous; zero outside."""
    inside = (row[:, None] < rows) & (d[None, :] < size)
    return tl.load(tensor + row[:, None] * step + d[None, :], mask=inside, other=0.0)


@triton.jit
def _weights_again(
    products, largest, log_total, bias, row, column, queries, keys, bias_row, bias_column, scale,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """The weights of the forward pass, from products of queries and keys. Without a bias, `largest` is the logarithm of
    the whole sum. Rows beyond the queries are of no account, if they are finite: what they meet is zero."""
    first = tl.load(largest + row, mask=row < queries, other=0.0)
    if HAS_BIAS:
        inside = (row[:, None] < queries) & (column[None, :] < keys)
        if CAUSAL:
            inside &= row[:, None] >= column[None, :]
        place = bias + row[:, None] * bias_row + column[None, :] * bias_column
        scores = products * scale + tl.load(place, mask=inside, other=-float("inf")).to(tl.float32)
        second = tl.load(log_total + row, mask=row < queries, other=0.0)
        return tl.exp(scores - first[:, None] - second[:, None])
    weights = tl.exp2(tl.fma(products, scale * LOG2_E, (first * -LOG2_E)[:, None]))
    if MASKED:
        visible = tl.minimum(row + 1, keys) if CAUSAL else row * 0 + keys
        weights = tl.where(column[None, :] < visible[:, None], weights, 0.0)
    return weights


@triton.jit
def gradient_of_query(
    query, key, value, bias, gradient, out, largest, log_total, correction, of_query, scale,
    heads, heads_per_turn, heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    gradient_batch, gradient_head, gradient_row,
    out_batch, out_head, out_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head for each program; `of_query` is contiguous. Stores the correction as well: for
    each query the sum of the result times its gradient."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    tile = tl.program_id(0).to(tl.int64)
    if CAUSAL:  # as in the forward pass, each core gets tiles that see few keys and tiles that see many
        turn = (batch * heads + head) // heads_per_turn
        tile = tl.where(turn % 2 == 0, tile, tl.num_programs(0) - 1 - tile)
    row = tile * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    key += batch * key_batch + (head // heads_per_key) * key_head
    value += batch * value_batch + (head // heads_per_key) * value_head
    bias += batch * bias_batch + head * bias_head
    line = (batch * heads + head) * queries
    q = _rows_of(query + batch * query_batch + head * query_head, row, d, queries, size, query_row)
    place = gradient + batch * gradient_batch + head * gradient_head
    g = _rows_of(place, row, dv, queries, value_size, gradient_row)
    o = _rows_of(out + batch * out_batch + head * out_head, row, dv, queries, value_size, out_row)
    less = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(correction + line + row, less, mask=row < queries)
    result = tl.zeros((QUERIES, SIZE), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, (tile + 1) * QUERIES)
    last = tl.cdiv(end, KEYS) * KEYS - KEYS
    first_column = tl.arange(0, KEYS)
    first_k = _rows_of(key, first_column, d, keys, size, key_row)
    first_v = _rows_of(value, first_column, dv, keys, value_size, value_row)
    products = tl.dot(q, tl.trans(first_k), input_precision="ieee")
    through = tl.dot(g, tl.trans(first_v), input_precision="ieee")
    for start in range(0, last, KEYS):
        column = start + tl.arange(0, KEYS)
        weights = _weights_again(
            products, largest + line, log_total + line, bias, row, column, queries, keys, bias_row, bias_column, scale,
            MASKED, CAUSAL, HAS_BIAS,
        )  # fmt: skip
        next_k = _rows_of(key, column + KEYS, d, keys, size, key_row)
        products = tl.dot(q, tl.trans(next_k), input_precision="ieee")
        of_scores = weights * (through - less[:, None])
        next_v = _rows_of(value, column + KEYS, dv, keys, value_size, value_row)
        through = tl.dot(g, tl.trans(next_v), input_precision="ieee")
        k = _rows_of(key, column, d, keys, size, key_row)
        result = tl.dot(of_scores.to(k.dtype), k, result, input_precision="ieee")
    last_column = last + tl.arange(0, KEYS)
    last_weights = _weights_again(
        products, largest + line, log_total + line, bias, row, last_column, queries, keys, bias_row, bias_column, scale,
        MASKED, CAUSAL, HAS_BIAS,
    )  # fmt: skip
    of_last_scores = last_weights * (through - less[:, None])
    last_k = _rows_of(key, last_column, d, keys, size, key_row)
    result = tl.dot(of_last_scores.to(last_k.dtype), last_k, result, input_precision="ieee") * scale
    place = (line + row[:, None]) * size + d[None, :]
    tl.store(
        of_query + place, result.to(of_query.dtype.element_ty), mask=(row[:, None] < queries) & (d[None, :] < size)
    )


@triton.jit
def gradients_of_key_and_value(
    query, key, value, bias, gradient, largest, log_total, correction, of_key, of_value, scale,
    heads, heads_per_turn, heads_per_key, queries, keys, size, value_size,
    query_batch, query_head, query_row,
    key_batch, key_head, key_row,
    value_batch, value_head, value_row,
    bias_batch, bias_head, bias_row, bias_column,
    gradient_batch, gradient_head, gradient_row,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one head for each program, over all heads of queries it serves; results are contiguous."""
    key_head_index = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    tile = tl.program_id(0).to(tl.int64)
    if CAUSAL:
        turn = (batch * tl.num_programs(1) + key_head_index) // heads_per_turn
        tile = tl.where(turn % 2 == 0, tile, tl.num_programs(0) - 1 - tile)
    column = tile * KEYS + tl.arange(0, KEYS)
    d = tl.arange(0, SIZE)
    dv = tl.arange(0, VALUE_SIZE)
    k = _rows_of(key + batch * key_batch + key_head_index * key_head, column, d, keys, size, key_row)
    v = _rows_of(value + batch * value_batch + key_head_index * value_head, column, dv, keys, value_size, value_row)
    key_result = tl.zeros((KEYS, SIZE), tl.float32)
    value_result = tl.zeros((KEYS, VALUE_SIZE), tl.float32)
    first = tile * 0
    if CAUSAL:
        first = tl.minimum(tile * KEYS, queries - 1) // QUERIES * QUERIES
    steps = tl.cdiv(queries - first, QUERIES)
    query += batch * query_batch + key_head_index * heads_per_key * query_head
    gradient += batch * gradient_batch + key_head_index * heads_per_key * gradient_head
    bias += batch * bias_batch + key_head_index * heads_per_key * bias_head
    line = (batch * heads + key_head_index * heads_per_key) * queries
    first_row = first + tl.arange(0, QUERIES)
    first_q = _rows_of(query, first_row, d, queries, size, query_row)
    first_g = _rows_of(gradient, first_row, dv, queries, value_size, gradient_row)
    products = tl.dot(first_q, tl.trans(k), input_precision="ieee")
    through = tl.dot(first_g, tl.trans(v), input_precision="ieee")
    for step in range(0, steps * heads_per_key):
        served = step // steps
        row = first + (step - served * steps) * QUERIES + tl.arange(0, QUERIES)
        own = line + served * queries
        weights = _weights_again(
            products, largest + own, log_total + own, bias + served * bias_head, row, column, queries, keys, bias_row,
            bias_column, scale, MASKED, CAUSAL, HAS_BIAS,
        )  # fmt: skip
        next_step = tl.minimum(step + 1, steps * heads_per_key - 1)
        next_served = next_step // steps
        next_row = first + (next_step - next_served * steps) * QUERIES + tl.arange(0, QUERIES)
        next_q = _rows_of(query + next_served * query_head, next_row, d, queries, size, query_row)
        products = tl.dot(next_q, tl.trans(k), input_precision="ieee")
        g = _rows_of(gradient + served * gradient_head, row, dv, queries, value_size, gradient_row)
        value_result = tl.dot(tl.trans(weights.to(g.dtype)), g, value_result, input_precision="ieee")
        less = tl.load(correction + own + row, mask=row < queries, other=0.0)
        of_scores = weights * (through - less[:, None])
        next_g = _rows_of(gradient + next_served * gradient_head, next_row, dv, queries, value_size, gradient_row)
        through = tl.dot(next_g, tl.trans(v), input_precision="ieee")
        q = _rows_of(query + served * query_head, row, d, queries, size, query_row)
        key_result = tl.dot(tl.trans(of_scores.to(q.dtype)), q, key_result, input_precision="ieee")
    line = (batch * tl.num_programs(1) + key_head_index) * keys
    in_key = (column[:, None] < keys) & (d[None, :] < size)
    place = (line + column[:, None]) * size + d[None, :]
    tl.store(of_key + place, (key_result * scale).to(of_key.dtype.element_ty), mask=in_key)
    place = (line + column[:, None]) * value_size + dv[None, :]
    in_value = (column[:, None] < keys) & (dv[None, :] < value_size)
    tl.store(of_value + place, value_result.to(of_value.dtype.element_ty), mask=in_value)
