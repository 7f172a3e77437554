"""Predicted against measured cycles of one TPUv3 core: examples/tpuv3_core.py, examples/tpuv3_measured_cycles.csv.

Nothing is fitted: the chip file holds public facts, the kernels are ordinary ones in float32, a single pass each. A row
without a kernel here stays unpredicted.
"""

import csv
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from rich.console import Console
from rich.table import Table

from benchmarks.code_quality import _float_bits, attention, matmul, program_of, softmax
from tapeout import chip as chips
from tapeout.sim import timing

EXAMPLES = Path(__file__).parents[1] / "examples"


@triton.jit
def layer_norm_768(x, weight, bias, y, ROWS: tl.constexpr):
    c = tl.arange(0, 1024)
    inside = (c < 768)[None, :]
    place = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None] * 768 + c[None, :]
    value = tl.load(x + place, mask=inside, other=0.0)
    mean = tl.sum(value, 1) * (1.0 / 768)
    variance = tl.sum(value * value, 1) * (1.0 / 768) - mean * mean
    rstd = tl.rsqrt(variance + 1e-5)
    value = (value - mean[:, None]) * rstd[:, None]
    value = value * tl.load(weight + c, mask=c < 768, other=0.0) + tl.load(bias + c, mask=c < 768, other=0.0)
    tl.store(y + place, value, mask=inside)


@triton.jit
def convolution(x, w, y, BM: tl.constexpr):
    """3 x 3 over 28 x 28 with a border of one, 128 channels to 128: nine products of shifted rows. The border's places
    are computed too (15 % more than asked for)."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.arange(0, 128)
    total = tl.zeros((BM, 128), tl.float32)
    for tap in range(9):
        left = tl.load(x + (row + tap // 3 * 30 + tap % 3)[:, None] * 128 + c[None, :])
        total = tl.dot(left, tl.load(w + (tap * 128 + c)[:, None] * 128 + c[None, :]), total)
    tl.store(y + row[:, None] * 128 + c[None, :], total)


def _product(m: int, n: int, k: int, tile: tuple[int, int, int]) -> tuple[Any, ...]:
    bm, bn, bk = tile
    places = (0, 4 * m * k, 4 * (m * k + k * n), k, k, n, n)
    return matmul, "*fp32 *fp32 *fp32 i32 i32 i32 i32", {"BM": bm, "BN": bn, "BK": bk}, (m // bm, n // bn, 1), places


WORKLOADS: dict[str, tuple[Any, ...]] = {
    "gemm_512x512x512": _product(512, 512, 512, (256, 256, 256)),
    "gemm_2048x2048x2048": _product(2048, 2048, 2048, (512, 512, 128)),
    "conv_64x28x28x128x128x3x1x1": (
        convolution,
        "*fp32 *fp32 *fp32",
        {"BM": 1024},
        (57, 1, 1),
        (0, 1 << 26, 1 << 27),
    ),
    "layernorm_2048x768": (
        layer_norm_768,
        "*fp32 *fp32 *fp32 *fp32",
        {"ROWS": 64},
        (32, 1, 1),
        (0, 1 << 24, (1 << 24) + 4096, 1 << 25),
    ),
    "softmax_2048x2048": (softmax, "*fp32 *fp32", {"ROWS": 32, "COLUMNS": 2048}, (64, 1, 1), (0, 1 << 25)),
    "attention_16x512x64": (
        attention,
        "*fp32 *fp32 *fp32 *fp32 i32 fp32",
        {"D": 64, "BQ": 256, "BK": 256},
        (2, 16, 1),
        (0, 1 << 22, 1 << 23, 3 << 22, 512, _float_bits(0.18)),
    ),
}


def main() -> None:
    chip = chips.load(str(EXAMPLES / "tpuv3_core.py"))
    lines = (EXAMPLES / "tpuv3_measured_cycles.csv").read_text().splitlines()
    table = Table("workload", "measured", "predicted", "error")
    errors = []
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        measured, workload = int(row["cycles"]), row["workload"]
        if workload not in WORKLOADS:
            table.add_row(workload, f"{measured:,}", "no kernel here", "")
            continue
        kernel, signature, constants, grid, arguments = WORKLOADS[workload]
        result = timing.simulate(program_of(kernel, signature, chip, **constants), chip, grid, arguments)
        errors.append(result.cycles / measured - 1)
        table.add_row(workload, f"{measured:,}", f"{result.cycles:,}", f"{errors[-1]:+.1%}")
    console = Console(width=120)
    console.print(table)
    console.print(f"mean absolute error of {len(errors)} rows: {sum(map(abs, errors)) / len(errors):.1%}")
