"""Kernels for the tests of the compiler's passes, and how their Triton IR is had without a device."""

from typing import Any

import triton
import triton.language as tl
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource

from tapeout.triton_backend.compiler import ChipBackend


@triton.jit
def vector_add(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(z + i, tl.load(x + i, mask=inside) + tl.load(y + i, mask=inside), mask=inside)


@triton.jit
def row_softmax(x, y, n, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, COLUMNS)
    inside = (c < n)[None, :]
    v = tl.load(x + r[:, None] * stride + c[None, :], mask=inside, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 1)[:, None])
    tl.store(y + r[:, None] * stride + c[None, :], e / tl.sum(e, 1)[:, None], mask=inside)


@triton.jit
def matmul(a, b, c, m, n, k, sa, sb, sc, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    accumulator = tl.zeros((BM, BN), tl.float32)
    pa = a + rm[:, None] * sa + rk[None, :]
    pb = b + rk[:, None] * sb + rn[None, :]
    for start in range(0, k, BK):
        left = tl.load(pa, mask=rk[None, :] < k - start, other=0.0)
        right = tl.load(pb, mask=rk[:, None] < k - start, other=0.0)
        accumulator = tl.dot(left, right, accumulator)
        pa += BK
        pb += BK * sb
    tl.store(c + rm[:, None] * sc + rn[None, :], accumulator, mask=(rm[:, None] < m) & (rn[None, :] < n))


@triton.jit
def attention(q, k, v, out, length, scale, D: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0) * B + tl.arange(0, B)
    d = tl.arange(0, D)
    queries = tl.load(q + row[:, None] * D + d[None, :])
    largest = tl.full((B,), -float("inf"), tl.float32)
    total = tl.zeros((B,), tl.float32)
    accumulator = tl.zeros((B, D), tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * B, B):
        column = start + tl.arange(0, B)
        keys = tl.load(k + column[None, :] * D + d[:, None])
        scores = tl.where(row[:, None] >= column[None, :], tl.dot(queries, keys) * scale, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - new_largest[:, None])
        shrink = tl.exp(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        accumulator = tl.dot(weights, tl.load(v + column[:, None] * D + d[None, :]), accumulator * shrink[:, None])
        largest = new_largest
    tl.store(out + row[:, None] * D + d[None, :], accumulator / total[:, None], mask=row[:, None] < length)


@triton.jit
def rearrange(x, y, N: tl.constexpr):
    r = tl.arange(0, N)
    t = tl.load(x + r[:, None] * N + r[None, :])
    u = tl.trans(t) + t
    s = tl.sum(u, 0)
    tl.store(y + r[:, None] * N + r[None, :], u * s[None, :] + tl.argmax(u, 1)[:, None].to(tl.float32))


@triton.jit
def gather_rows(table, index, out, D: tl.constexpr, B: tl.constexpr):
    rows = tl.load(index + tl.program_id(0) * B + tl.arange(0, B))
    d = tl.arange(0, D)
    tile = tl.load(table + rows[:, None] * D + d[None, :])
    tl.store(out + (tl.program_id(0) * B + tl.arange(0, B))[:, None] * D + d[None, :], tile)


@triton.jit
def early_return(x, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    if pid * BLOCK >= n:
        return
    i = pid * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i) * 2.0)


@triton.jit
def many_scalars(x, y, step, N: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, 16)
    total = tl.zeros((16,), tl.float32)
    for k in tl.static_range(N):
        a = (pid * step + k * 5) % 7
        b = (a * 3 + k) % 5
        total += tl.load(x + a * 16 + i) * tl.load(x + b * 16 + i)
        step = step + b
    tl.store(y + pid * 16 + i, total)


@triton.jit
def collatz(x, y, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n = tl.load(x + i)
    steps = tl.zeros((BLOCK,), tl.int32)
    while tl.max(n, 0) > 1:
        n = tl.where(n > 1, tl.where(n % 2 == 0, n // 2, 3 * n + 1), n)
        steps += (n > 1).to(tl.int32)
    tl.store(y + i, steps)


@triton.jit
def taps(x, w, y, C: tl.constexpr, TAPS: tl.constexpr, FAR: tl.constexpr, B: tl.constexpr, BC: tl.constexpr):
    """A convolution along one dimension, its taps FAR places apart."""
    row = tl.program_id(0) * B + tl.arange(0, B)
    n = tl.arange(0, C)
    total = tl.zeros((B, C), tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        for tap in tl.static_range(TAPS):
            left = tl.load(x + (row + tap * FAR)[:, None] * C + c[None, :])
            total = tl.dot(left, tl.load(w + (tap * C + c)[:, None] * C + n[None, :]), total)
    tl.store(y + row[:, None] * C + n[None, :], total)


@triton.jit
def neighbours_in_place(x, B: tl.constexpr):
    """What is stored changes what is loaded next."""
    i = tl.arange(0, B)
    first = tl.load(x + 1 + i)
    tl.store(x + i, first)
    tl.store(x + i, tl.load(x + i) + tl.load(x + 1 + i))


@triton.jit
def row_norm(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows about their means over their root mean squares; and columns' sums of products."""
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(x + place)
    offset = value - (tl.sum(value, 1) / COLUMNS)[:, None]
    rstd = tl.rsqrt(tl.sum(offset * offset, 1) / COLUMNS)
    along = tl.sum(value * offset, 0)
    tl.store(y + place, offset * rstd[:, None] + along[None, :])


@triton.jit
def _larger(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def _smaller(a, b):
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def _larger_integer(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def extrema(x, n, y, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Written out as Inductor's helpers do."""
    row = tl.arange(0, ROWS)
    place = row[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(x + place)
    tl.store(y + row, _smaller(tl.reduce(value, 1, _larger), -tl.reduce(value, 1, _smaller)))
    tl.store(m + row, tl.reduce(tl.load(n + place), 1, _larger_integer))


@triton.jit
def step_if_finite(x, gradient, found, n, B: tl.constexpr):
    """The mask is a range and a condition on a number that lies in the scratchpad."""
    place = tl.program_id(0) * B + tl.arange(0, B)
    inside = (place < n) & (tl.load(found) == 0.0)
    step = tl.load(gradient + place, mask=inside, other=0.0)
    tl.store(x + place, tl.load(x + place, mask=inside) - step, mask=inside)


def ttir(kernel: Any, signature: str, **constants: int) -> str:
    """Text of the kernel's Triton IR. `signature` lists the types of its arguments: "*fp32 *fp32 i32"."""
    names = [name for name in kernel.arg_names if name not in constants]
    types = dict(zip(names, signature.split(), strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, types, constants)
    target = GPUTarget("chip", "test", 1)
    backend = ChipBackend(target)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    implementation = backend.get_codegen_implementation(options)
    module = source.make_ir(target, options, implementation, backend.get_module_map(), context)
    return str(backend.make_ttir(module, {}, options))
