"""Arithmetic of half types written in float32: the same bits without conversions, and rows that are reduced and scanned
in parts."""

import kernels
import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tapeout import chip
from tapeout.codegen.pipeline import compile_kernel
from tapeout.isa import definitions as isa
from tapeout.numerics.operations import Function

SPECIAL = [0.0, -0.0, 1.0, -1.5, float("inf"), -float("inf"), float("nan"), 3e38, -3e38, 1e-40, 65504.0, 2.0**-24]


@triton.jit
def halves_kernel(x, y, sums, ratios, larger, chosen, halves, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    a = tl.load(x + i).to(tl.float32)
    b = tl.load(y + i).to(tl.float32)
    tl.store(sums + i, (a + b).to(sums.dtype.element_ty))
    tl.store(ratios + i, (a / b).to(sums.dtype.element_ty))
    tl.store(larger + i, tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL).to(sums.dtype.element_ty))
    tl.store(chosen + i, tl.where(a < b, a, b).to(sums.dtype.element_ty))
    tl.store(halves + i, (a * 0.5).to(sums.dtype.element_ty))


@triton.jit
def rounded_twice_kernel(x, y, out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    total = tl.load(x + i).to(tl.float32) + tl.load(y + i).to(tl.float32)
    tl.store(out + i, (total * total).to(out.dtype.element_ty))


@triton.jit
def row_kernel(x, largest, sums, scans, COLUMNS: tl.constexpr):
    value = tl.load(x + tl.arange(0, COLUMNS))
    tl.store(largest, tl.max(value.to(tl.float32), 0))
    tl.store(sums, tl.sum(value.to(tl.float32), 0))
    tl.store(scans + tl.arange(0, COLUMNS), tl.cumsum(value.to(tl.float32), 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_give_the_bits_of_float32_rounded(dtype):
    values = torch.cat([torch.tensor(SPECIAL), torch.randn(52, generator=torch.Generator().manual_seed(0)) * 100]).to(
        dtype
    )
    x, y = (t.flatten() for t in torch.meshgrid(values, values, indexing="ij"))
    given = [x.to("chip"), y.to("chip")]
    results = [torch.empty_like(given[0]) for _ in range(5)]
    halves_kernel[(1,)](*given, *results, SIZE=4096)
    a, b = x.float(), y.float()
    wanted = [a + b, a / b, torch.maximum(a, b), torch.where(a < b, a, b), a * 0.5]
    for result, exact in zip(results, wanted, strict=True):
        torch.testing.assert_close(result.cpu(), exact.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_no_conversion_is_left_where_none_is_needed():
    def conversions(kernel, signature):
        program = compile_kernel(kernels.ttir(kernel, signature, SIZE=256), chip.load("inference"))
        return sum(isinstance(item, isa.Convert) for item in program.instructions)

    assert conversions(halves_kernel, "*bf16 *bf16 *bf16 *bf16 *bf16 *bf16 *bf16") == 0
    assert conversions(rounded_twice_kernel, "*bf16 *bf16 *bf16") == 3  # the sum is not to be rounded


def test_long_rows_are_reduced_and_scanned_in_parts():
    text = kernels.ttir(row_kernel, "*bf16 *fp32 *fp32 *fp32", COLUMNS=8192)
    items = compile_kernel(text, chip.load("inference")).instructions
    reductions = [item.shape for item in items if isinstance(item, isa.Reduce)]
    assert sorted(shape[3] for shape in reductions) == [32, 32, 256, 256]
    added = sum(np.prod(i.shape) for i in items if isinstance(i, isa.Map2) and i.function is Function.ADD)
    assert added < 5 * 8192

    x = torch.randn(8192, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    largest, sums, scans = (torch.empty(size, device="chip") for size in (1, 1, 8192))
    row_kernel[(1,)](x.to("chip"), largest, sums, scans, COLUMNS=8192)
    assert largest.item() == x.max().item()
    torch.testing.assert_close(sums.cpu()[0], x.double().sum().float(), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scans.cpu(), x.double().cumsum(0).float(), rtol=1e-5, atol=1e-3)
