"""Kernels of several parts, as libraries write them: products by programs that stay, of descriptors, of scaled blocks
and of a table of addresses; attention forward and backward behind an autograd function."""

import math

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.tools.tensor_descriptor import TensorDescriptor

CHIP = "chip"


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ------------------------------------------------------------------------------------------- products that stay


@triton.jit
def place_of_tile(tile, rows, columns, GROUP: tl.constexpr):
    """Tiles in columns of GROUP rows each, so that neighbours in time share operands."""
    in_a_column = GROUP * columns
    first = tile // in_a_column * GROUP
    height = tl.minimum(rows - first, GROUP)
    within = tile % in_a_column
    return first + within % height, within // height


@triton.jit
def staying_product(
    a, b, c, m, n, k, PROGRAMS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr
):
    rows, columns = tl.cdiv(m, M), tl.cdiv(n, N)
    for tile in tl.range(tl.program_id(0), rows * columns, PROGRAMS):
        row, column = place_of_tile(tile, rows, columns, GROUP)
        i, j, d = row * M + tl.arange(0, M), column * N + tl.arange(0, N), tl.arange(0, K)
        total = tl.zeros((M, N), tl.float32)
        for start in range(0, k, K):
            deep = start + d
            left = tl.load(a + i[:, None] * k + deep[None, :], (i[:, None] < m) & (deep[None, :] < k), 0.0)
            right = tl.load(b + deep[:, None] * n + j[None, :], (deep[:, None] < k) & (j[None, :] < n), 0.0)
            total = tl.dot(left, right, total)
        place = c + i[:, None] * n + j[None, :]
        tl.store(place, total.to(c.dtype.element_ty), (i[:, None] < m) & (j[None, :] < n))


@triton.jit
def product_of_descriptors(
    a, b, c, m, n, k, PROGRAMS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ON_HOST: tl.constexpr
):
    """b is n x k. Descriptors come from the host or are made here."""
    if ON_HOST:
        left_tiles, right_tiles, results = a, b, c
    else:
        left_tiles = tl.make_tensor_descriptor(a, [m, k], [k, 1], [M, K])
        right_tiles = tl.make_tensor_descriptor(b, [n, k], [k, 1], [N, K])
        results = tl.make_tensor_descriptor(c, [m, n], [n, 1], [M, N])
    columns = tl.cdiv(n, N)
    for tile in tl.range(tl.program_id(0), tl.cdiv(m, M) * columns, PROGRAMS, flatten=True):
        row, column = tile // columns * M, tile % columns * N
        total = tl.zeros((M, N), tl.float32)
        for start in range(0, k, K):
            total = tl.dot(left_tiles.load([row, start]), right_tiles.load([column, start]).T, total)
        results.store([row, column], total.to(tl.float16))


@pytest.mark.parametrize(("m", "n", "k"), [(96, 64, 64), (70, 45, 50), (33, 100, 17)])
def test_product_by_programs_that_stay(m, n, k):
    a, b = random(m, k, seed=1, dtype=torch.float16), random(k, n, seed=2, dtype=torch.float16)
    c = torch.zeros(m, n, dtype=torch.float16, device=CHIP)
    constants = {"PROGRAMS": 3, "M": 32, "N": 16, "K": 32, "GROUP": 2}
    staying_product[(3,)](a.to(CHIP), b.to(CHIP), c, m, n, k, **constants)
    torch.testing.assert_close(c.cpu().float(), a.float() @ b.float(), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("on_host", [True, False])
def test_product_of_descriptors(on_host):
    m, n, k = 72, 40, 48
    a, b = random(m, k, seed=3, dtype=torch.float16), random(n, k, seed=4, dtype=torch.float16)
    c = torch.zeros(m, n, dtype=torch.float16, device=CHIP)
    sizes = {"M": 32, "N": 16, "K": 16}
    tensors = [a.to(CHIP), b.to(CHIP), c]
    if on_host:
        blocks = ([32, 16], [16, 16], [32, 16])
        tensors = [TensorDescriptor.from_tensor(t, block) for t, block in zip(tensors, blocks, strict=True)]
    product_of_descriptors[(4,)](*tensors, m, n, k, PROGRAMS=4, ON_HOST=on_host, **sizes)
    torch.testing.assert_close(c.cpu().float(), a.float() @ b.float().T, rtol=2e-3, atol=2e-2)


# --------------------------------------------------------------------------------------- products of scaled blocks

GROUP_OF_SCALE = 32
FLOAT4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


@triton.jit
def scaled_product(
    a, scale_a, b, scale_b, c, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, FORMAT_A: tl.constexpr,
    FORMAT_B: tl.constexpr,
):  # fmt: skip
    """a is m x k and b is n x k, with a scale for 32 of k; two numbers of 4 bits are a byte."""
    packed_a: tl.constexpr = 2 if FORMAT_A == "e2m1" else 1
    packed_b: tl.constexpr = 2 if FORMAT_B == "e2m1" else 1
    i, j = tl.program_id(0) * M + tl.arange(0, M)[:, None], tl.program_id(1) * N + tl.arange(0, N)[:, None]
    group = tl.arange(0, K // 32)[None, :]
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, k, K):
        left = tl.load(a + i * (k // packed_a) + start // packed_a + tl.arange(0, K // packed_a)[None, :])
        right = tl.load(b + j * (k // packed_b) + start // packed_b + tl.arange(0, K // packed_b)[None, :])
        left_scale = tl.load(scale_a + i * (k // 32) + start // 32 + group)
        right_scale = tl.load(scale_b + j * (k // 32) + start // 32 + group)
        total = tl.dot_scaled(left, left_scale, FORMAT_A, right.T, right_scale, FORMAT_B, total)
    tl.store(c + i * n + tl.program_id(1) * N + tl.arange(0, N)[None, :], total)


def quantized(values, format):
    """Elements, their scales (powers of 2, biased by 127), and the numbers both stand for."""
    groups = values.view(values.shape[0], -1, GROUP_OF_SCALE)
    largest = 6.0 if format == "e2m1" else 448.0
    exponent = torch.ceil(torch.log2(groups.abs().amax(2, keepdim=True) / largest))
    shrunk = groups * torch.exp2(-exponent)
    if format == "e4m3":
        elements = shrunk.to(torch.float8_e4m3fn)
        exact = elements.float()
        elements = elements.view(values.shape)
    else:
        codes = (shrunk.abs()[..., None] - FLOAT4).abs().argmin(-1)
        exact = FLOAT4[codes] * shrunk.sign()
        codes = (codes + 8 * (shrunk < 0)).view(values.shape).to(torch.uint8)
        elements = codes[:, ::2] | (codes[:, 1::2] << 4)
    scales = (exponent[..., 0] + 127).to(torch.uint8)
    return elements, scales, (exact * torch.exp2(exponent)).view(values.shape)


@pytest.mark.parametrize("formats", [("e4m3", "e4m3"), ("e2m1", "e2m1"), ("e4m3", "e2m1")], ids=str)
def test_product_of_scaled_blocks(formats):
    m, n, k = 64, 32, 128
    a, scale_a, exact_a = quantized(random(m, k, seed=5) * 10, formats[0])
    b, scale_b, exact_b = quantized(random(n, k, seed=6), formats[1])
    c = torch.zeros(m, n, device=CHIP)
    operands = [t.to(CHIP) for t in (a, scale_a, b, scale_b)]
    constants = {"M": 32, "N": 16, "K": 64, "FORMAT_A": formats[0], "FORMAT_B": formats[1]}
    scaled_product[(2, 2)](*operands, c, n, k, **constants)
    exact = exact_a.double() @ exact_b.double().T
    torch.testing.assert_close(c.cpu().double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


# -------------------------------------------------------------------------------------- products of many addresses


@triton.jit
def products_of_a_table(addresses, sizes, count, PROGRAMS: tl.constexpr, SIDE: tl.constexpr, DEPTH: tl.constexpr):
    """Row g of `addresses` holds where A, B and C of product g are, row g of `sizes` m, n and k."""
    tile, before = tl.program_id(0), 0
    for g in range(count):
        m, n, k = tl.load(sizes + 3 * g), tl.load(sizes + 3 * g + 1), tl.load(sizes + 3 * g + 2)
        columns = tl.cdiv(n, SIDE)
        tiles = tl.cdiv(m, SIDE) * columns
        while tile < before + tiles:
            a = tl.load(addresses + 3 * g).to(tl.pointer_type(tl.float16))
            b = tl.load(addresses + 3 * g + 1).to(tl.pointer_type(tl.float16))
            c = tl.load(addresses + 3 * g + 2).to(tl.pointer_type(tl.float32))
            i = (tile - before) // columns * SIDE + tl.arange(0, SIDE)[:, None]
            j = (tile - before) % columns * SIDE + tl.arange(0, SIDE)[None, :]
            total = tl.zeros((SIDE, SIDE), tl.float32)
            for start in range(0, k, DEPTH):
                d = start + tl.arange(0, DEPTH)
                left = tl.load(a + i * k + d[None, :], (i < m) & (d[None, :] < k), 0.0)
                right = tl.load(b + d[:, None] * n + j, (d[:, None] < k) & (j < n), 0.0)
                total = tl.dot(left, right, total)
            tl.store(c + i * n + j, total, (i < m) & (j < n))
            tile += PROGRAMS
        before += tiles


def test_products_of_a_table_of_addresses():
    shapes = [(40, 30, 20), (16, 70, 33), (5, 5, 100)]
    operands = [
        (random(m, k, seed=k, dtype=torch.float16), random(k, n, seed=n, dtype=torch.float16)) for m, n, k in shapes
    ]
    on_chip = [
        (a.to(CHIP), b.to(CHIP), torch.zeros(m, n, device=CHIP))
        for (a, b), (m, n, _) in zip(operands, shapes, strict=True)
    ]
    addresses = torch.tensor([[t.data_ptr() for t in row] for row in on_chip]).to(CHIP)
    sizes = torch.tensor(shapes, dtype=torch.int32).to(CHIP)
    products_of_a_table[(4,)](addresses, sizes, len(shapes), PROGRAMS=4, SIDE=16, DEPTH=16)
    for (a, b), (_, _, c) in zip(operands, on_chip, strict=True):
        torch.testing.assert_close(c.cpu(), a.float() @ b.float(), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------------ attention


@triton.jit
def block(pointer, start, length, D: tl.constexpr, B: tl.constexpr):
    """Rows start to start + B of a length x D matrix; 0 beyond it."""
    rows = start + tl.arange(0, B)[:, None]
    return tl.load(pointer + rows * D + tl.arange(0, D)[None, :], rows < length, 0.0)


@triton.jit
def put_block(pointer, value, start, length, D: tl.constexpr, B: tl.constexpr):
    rows = start + tl.arange(0, B)[:, None]
    tl.store(pointer + rows * D + tl.arange(0, D)[None, :], value.to(pointer.dtype.element_ty), rows < length)


@triton.jit
def allowed(first_row, first_column, length, CAUSAL: tl.constexpr, B: tl.constexpr):
    rows, columns = first_row + tl.arange(0, B)[:, None], first_column + tl.arange(0, B)[None, :]
    inside = (rows < length) & (columns < length)
    return inside & (columns <= rows) if CAUSAL else inside


@triton.jit
def attention_forward(q, k, v, out, logarithms, length, scale, D: tl.constexpr, B: tl.constexpr, CAUSAL: tl.constexpr):
    """Also the logarithm of each row's sum of e**score."""
    first, head = tl.program_id(0) * B, tl.program_id(1) * length * D
    queries = block(q + head, first, length, D, B)
    highest = tl.full((B,), -1e30, tl.float32)
    total, result = tl.zeros((B,), tl.float32), tl.zeros((B, D), tl.float32)
    for start in range(0, tl.minimum(first + B, length) if CAUSAL else length, B):
        scores = tl.dot(queries, block(k + head, start, length, D, B).T) * scale
        scores = tl.where(allowed(first, start, length, CAUSAL, B), scores, -1e30)
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, shrink = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        values = block(v + head, start, length, D, B)
        result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None])
        total, highest = total * shrink + tl.sum(weights, 1), higher
    rows = first + tl.arange(0, B)
    tl.store(logarithms + tl.program_id(1) * length + rows, highest + tl.log(total), rows < length)
    put_block(out + head, result / total[:, None], first, length, D, B)


@triton.jit
def weights_and_their_gradient(
    queries, keys, values, gradient, logarithm, along, scale, mask
):  # softmax's own derivative: weight * (gradient - its mean under the weights)
    weights = tl.where(mask, tl.exp(tl.dot(queries, keys.T) * scale - logarithm[:, None]), 0.0)
    return weights, weights * (tl.dot(gradient, values.T) - along[:, None]) * scale


@triton.jit
def attention_backward(
    q, k, v, out, gradient, logarithms, of_q, of_k, of_v, length, scale, D: tl.constexpr, B: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    """Of one block of queries, and of the block of keys and values in the same place."""
    first, head, row_head = tl.program_id(0) * B, tl.program_id(1) * length * D, tl.program_id(1) * length
    i = tl.arange(0, B)
    queries, own_gradient = block(q + head, first, length, D, B), block(gradient + head, first, length, D, B)
    along = tl.sum(block(out + head, first, length, D, B).to(tl.float32) * own_gradient, 1)
    logarithm = tl.load(logarithms + row_head + first + i, first + i < length, 0.0)
    total = tl.zeros((B, D), tl.float32)
    for start in range(0, tl.minimum(first + B, length) if CAUSAL else length, B):
        keys, values = block(k + head, start, length, D, B), block(v + head, start, length, D, B)
        mask = allowed(first, start, length, CAUSAL, B)
        _, of_scores = weights_and_their_gradient(queries, keys, values, own_gradient, logarithm, along, scale, mask)
        total = tl.dot(of_scores.to(keys.dtype), keys, total)
    put_block(of_q + head, total, first, length, D, B)

    keys, values = block(k + head, first, length, D, B), block(v + head, first, length, D, B)
    of_keys, of_values = tl.zeros((B, D), tl.float32), tl.zeros((B, D), tl.float32)
    for start in range(first if CAUSAL else 0, length, B):
        queries, its_gradient = block(q + head, start, length, D, B), block(gradient + head, start, length, D, B)
        along = tl.sum(block(out + head, start, length, D, B).to(tl.float32) * its_gradient, 1)
        logarithm = tl.load(logarithms + row_head + start + i, start + i < length, 0.0)
        mask = allowed(start, first, length, CAUSAL, B)
        weights, of_scores = weights_and_their_gradient(
            queries, keys, values, its_gradient, logarithm, along, scale, mask
        )
        of_values = tl.dot(weights.to(values.dtype).T, its_gradient, of_values)
        of_keys = tl.dot(of_scores.to(queries.dtype).T, queries, of_keys)
    put_block(of_k + head, of_keys, first, length, D, B)
    put_block(of_v + head, of_values, first, length, D, B)


class Attention(torch.autograd.Function):
    """Of (batch, heads, length, depth)."""

    @staticmethod
    def forward(ctx, q, k, v, causal):
        batch, heads, length, depth = q.shape
        out, logarithms = torch.empty_like(q), q.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.grid = (triton.cdiv(length, 16), batch * heads)
        ctx.constants = {"D": depth, "B": 16, "CAUSAL": causal}
        attention_forward[ctx.grid](q, k, v, out, logarithms, length, 1 / math.sqrt(depth), **ctx.constants)
        ctx.save_for_backward(q, k, v, out, logarithms)
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, out, logarithms = ctx.saved_tensors
        results = [torch.empty_like(q) for _ in range(3)]
        arguments = (q, k, v, out, gradient.contiguous(), logarithms, *results, q.shape[2], 1 / math.sqrt(q.shape[3]))
        attention_backward[ctx.grid](*arguments, **ctx.constants)
        return *results, None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_forward_and_backward(dtype, causal):
    shape = (2, 2, 43, 32)
    q, k, v, gradient = (random(*shape, seed=seed, dtype=dtype) for seed in range(4))
    exact = [t.float().clone().requires_grad_() for t in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, is_causal=causal)
    gradients = torch.autograd.grad(expected, exact, gradient.float())
    on_chip = [t.to(CHIP).requires_grad_() for t in (q, k, v)]
    out = Attention.apply(*on_chip, causal)
    out.backward(gradient.to(CHIP))
    tolerance = 2e-5 if dtype is torch.float32 else 3e-2
    torch.testing.assert_close(out.detach().cpu().float(), expected.detach(), rtol=tolerance, atol=tolerance)
    for tensor, its_gradient in zip(on_chip, gradients, strict=True):
        torch.testing.assert_close(tensor.grad.cpu().float(), its_gradient, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------- extern functions


@triton.jit
def arcsine(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, libdevice.asin(tl.load(x + i, i < n)), i < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_function_of_libdevice_by_its_common_name(dtype):
    x = random(300, seed=7).tanh().to(dtype)
    out = torch.zeros(300, dtype=dtype, device=CHIP)
    arcsine[(5,)](x.to(CHIP), out, 300, BLOCK=64)
    torch.testing.assert_close(out.cpu(), x.asin())
