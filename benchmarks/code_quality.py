"""Simulated cycles of compiled Triton kernels, against a physical limit.

The limit of a product is the matrix engine's peak, of the others HBM bandwidth over bytes that must move. Figures are
modelled: the timing simulator's cycles on chips that do not exist. A second table for each chip has torch's own calls,
a third torch's operators family by family, against the true limit: HBM, matrix peak or the lanes that a function needs.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton
import triton.language as tl
from rich.console import Console
from rich.table import Table
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource

from benchmarks.operator_families import Result
from tapeout import chip as chips
from tapeout.chip import Chip
from tapeout.codegen.pipeline import compile_kernel
from tapeout.isa import Program, Unit
from tapeout.sim import timing
from tapeout.triton_backend.compiler import ChipBackend


@triton.jit
def matmul(a, b, c, k, sa, sb, sc, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    accumulator = tl.zeros((BM, BN), tl.float32)
    for start in range(0, k, BK):
        left = tl.load(a + rm[:, None] * sa + (start + rk)[None, :])
        right = tl.load(b + (start + rk)[:, None] * sb + rn[None, :])
        accumulator = tl.dot(left, right, accumulator)
    tl.store(c + rm[:, None] * sc + rn[None, :], accumulator.to(c.dtype.element_ty))


@triton.jit
def attention(q, k, v, out, length, scale, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr):
    """Flash attention, not causal; one tile of queries of one head. The scores of the next keys are computed before the
    softmax of these, so that matrix and vector engine work at the same time. `scale` has log2(e) in it."""
    head = tl.program_id(1).to(tl.int64) * length * D
    row = tl.program_id(0) * BQ + tl.arange(0, BQ)
    d = tl.arange(0, D)
    queries = tl.load(q + head + row[:, None] * D + d[None, :])
    largest = tl.full((BQ,), -float("inf"), tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    result = tl.zeros((BQ, D), tl.float32)
    column = tl.arange(0, BK)
    scores = tl.dot(queries, tl.trans(tl.load(k + head + column[:, None] * D + d[None, :])))
    for start in range(0, length, BK):
        ahead = tl.minimum(start + BK, length - BK) + column
        next_scores = tl.dot(queries, tl.trans(tl.load(k + head + ahead[:, None] * D + d[None, :])))
        new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
        weights = tl.exp2(tl.fma(scores, scale, -new_largest[:, None]))
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(v + head + (start + column)[:, None] * D + d[None, :])
        result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None])
        largest = new_largest
        scores = next_scores
    result = result / total[:, None]
    tl.store(out + head + row[:, None] * D + d[None, :], result.to(out.dtype.element_ty))


@triton.jit
def softmax(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    place = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(x + place)
    weights = tl.exp(value - tl.max(value, 1)[:, None])
    tl.store(y + place, weights * (1.0 / tl.sum(weights, 1))[:, None])


@triton.jit
def layer_norm(x, weight, bias, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    c = tl.arange(0, COLUMNS)
    place = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None] * COLUMNS + c[None, :]
    value = tl.load(x + place)
    mean = tl.sum(value, 1) * (1.0 / COLUMNS)
    variance = tl.sum(value * value, 1) * (1.0 / COLUMNS) - mean * mean
    rstd = tl.rsqrt(variance + 1e-5)
    value = tl.fma(value, rstd[:, None], (-mean * rstd)[:, None])
    value = tl.fma(value, tl.load(weight + c)[None, :], tl.load(bias + c)[None, :])
    tl.store(y + place, value)


@triton.jit
def matrix_vector(weights, x, y, k, BN: tl.constexpr, BK: tl.constexpr):
    """y = weights @ x on the matrix engine: the vector is one row of 16, the weights are read once."""
    rn = tl.program_id(0) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    one = tl.arange(0, 16)[:, None] == 0
    accumulator = tl.zeros((16, BN), tl.float32)
    for start in range(0, k, BK):
        left = tl.load(x + (start + rk)[None, :] + tl.arange(0, 16)[:, None] * 0, mask=one, other=0.0)
        tile = tl.load(weights + rn[:, None] * k + (start + rk)[None, :])
        accumulator = tl.dot(left, tl.trans(tile), accumulator)
    tl.store(y + rn[None, :] + tl.arange(0, 16)[:, None] * 0, accumulator.to(tl.bfloat16), mask=one)


@triton.jit
def matrix_vector_by_lanes(weights, x, y, k, BN: tl.constexpr, BK: tl.constexpr):
    """The same on the vector engine."""
    rn = tl.program_id(0) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    total = tl.zeros((BN,), tl.float32)
    for start in range(0, k, BK):
        vector = tl.load(x + start + rk).to(tl.float32)
        tile = tl.load(weights + rn[:, None] * k + (start + rk)[None, :]).to(tl.float32)
        total += tl.sum(tile * vector[None, :], 1)
    tl.store(y + rn, total.to(tl.bfloat16))


@triton.jit
def embedding_bag(table, index, out, D: tl.constexpr, BAGS: tl.constexpr, LENGTH: tl.constexpr):
    """Sums of LENGTH rows of a table. `index` is (LENGTH, bags)."""
    bag = tl.program_id(0) * BAGS + tl.arange(0, BAGS)
    bags = tl.num_programs(0) * BAGS
    d = tl.arange(0, D)
    total = tl.zeros((BAGS, D), tl.float32)
    for n in range(0, LENGTH, 4):  # four rows at once: their places are known before the first has come
        first = tl.load(index + n * bags + bag) * D
        second = tl.load(index + (n + 1) * bags + bag) * D
        third = tl.load(index + (n + 2) * bags + bag) * D
        fourth = tl.load(index + (n + 3) * bags + bag) * D
        total += tl.load(table + first[:, None] + d[None, :])
        total += tl.load(table + second[:, None] + d[None, :])
        total += tl.load(table + third[:, None] + d[None, :])
        total += tl.load(table + fourth[:, None] + d[None, :])
    tl.store(out + bag[:, None] * D + d[None, :], total)


@dataclass(frozen=True)
class Case:
    """A kernel with the sizes of one chip. `operations` or `bytes_moved` is what cannot be avoided; `least` the bar."""

    name: str
    kernel: Any
    signature: str
    constants: dict[str, int]
    grid: tuple[int, int, int]
    arguments: tuple[int, ...]
    least: float
    operations: int = 0
    bytes_moved: int = 0
    data: "Callable[[Case], timing.DataTrace] | None" = None


def program_of(kernel: Any, signature: str, chip: Chip, **constants: int) -> Program:
    """The Program of a Triton kernel, without a device. `signature`: types of its arguments, "*bf16 i32"."""
    names = [name for name in kernel.arg_names if name not in constants]
    types = dict(zip(names, signature.split(), strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, types, constants)
    target = GPUTarget("chip", chip.name, 1)
    backend = ChipBackend(target)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    implementation = backend.get_codegen_implementation(options)
    module = source.make_ir(target, options, implementation, backend.get_module_map(), context)
    return compile_kernel(str(backend.make_ttir(module, {}, options)), chip)


def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


SEQUENCE, HEAD_SIZE, HEADS = 4096, 128, 32
ROWS, COLUMNS = 16384, 4096
WEIGHTS = 8192
TABLE_ROWS, ROW_ELEMENTS, BAG_LENGTH, BAG_COUNT = 1 << 26, 32, 32, 1 << 16


def _random_rows(case: "Case") -> timing.DataTrace:
    """Rows spread over a table far larger than the last-level SRAM."""
    random = np.random.default_rng(0)
    bags = case.constants["BAGS"]
    programs = [
        timing.ProgramData(load_tiles=[random.integers(0, TABLE_ROWS, bags) for _ in range(BAG_LENGTH)])
        for _ in range(case.grid[0])
    ]
    return timing.DataTrace(programs)


def cases(chip: Chip) -> list[Case]:
    """Tile sizes are each chip's own, as an autotuner would choose them."""
    large = chip.name == "training"
    n = 4096
    bm, bn, bk = (256, 256, 128) if large else (128, 128, 64)
    bq, bkeys = (256, 128) if large else (128, 128)
    rows = 8 if large else 16
    bags = 512 if large else 1024
    return [
        Case(
            "GEMM 4096³ bf16",
            matmul,
            "*bf16 *bf16 *bf16 i32 i32 i32 i32",
            {"BM": bm, "BN": bn, "BK": bk},
            (n // bm, n // bn, 1),
            (0, 2 * n * n, 4 * n * n, n, n, n, n),
            0.85,
            operations=2 * n**3,
        ),
        Case(
            "flash attention forward bf16, 4096 x 128, 32 heads",
            attention,
            "*bf16 *bf16 *bf16 *bf16 i32 fp32",
            {"D": HEAD_SIZE, "BQ": bq, "BK": bkeys},
            (SEQUENCE // bq, HEADS, 1),
            (*(i * 2 * SEQUENCE * HEAD_SIZE * HEADS for i in range(4)), SEQUENCE, _float_bits(0.1275)),
            0.60,
            operations=4 * SEQUENCE**2 * HEAD_SIZE * HEADS,
        ),
        Case(
            "softmax 16384 x 4096 f32",
            softmax,
            "*fp32 *fp32",
            {"ROWS": rows, "COLUMNS": COLUMNS},
            (ROWS // rows, 1, 1),
            (0, 4 * ROWS * COLUMNS),
            0.85,
            bytes_moved=8 * ROWS * COLUMNS,
        ),
        Case(
            "layer norm 16384 x 4096 f32",
            layer_norm,
            "*fp32 *fp32 *fp32 *fp32",
            {"ROWS": rows, "COLUMNS": COLUMNS},
            (ROWS // rows, 1, 1),
            (0, 1 << 33, (1 << 33) + 4 * COLUMNS, 4 * ROWS * COLUMNS),
            0.85,
            bytes_moved=8 * ROWS * COLUMNS,
        ),
        Case(
            "decode GEMV 8192 x 8192 bf16",
            matrix_vector_by_lanes if large else matrix_vector,
            "*bf16 *bf16 *bf16 i32",
            {"BN": 64, "BK": 1024} if large else {"BN": 256, "BK": 512},
            (WEIGHTS // (64 if large else 256), 1, 1),
            (0, 1 << 33, (1 << 33) + 2 * WEIGHTS, WEIGHTS),
            0.85,
            bytes_moved=2 * WEIGHTS**2,
        ),
        Case(
            "embedding bag, rows of 128 bytes",
            embedding_bag,
            "*fp32 *i32 *fp32",
            {"D": ROW_ELEMENTS, "BAGS": bags, "LENGTH": BAG_LENGTH},
            (BAG_COUNT // bags, 1, 1),
            (0, 1 << 33, (1 << 33) + 4 * BAG_COUNT * BAG_LENGTH),
            0.60,
            bytes_moved=BAG_COUNT * BAG_LENGTH * (4 * ROW_ELEMENTS + 4) + BAG_COUNT * 4 * ROW_ELEMENTS,
            data=_random_rows,
        ),
    ]


def run(case: Case, chip: Chip) -> timing.Timing:
    program = program_of(case.kernel, case.signature, chip, **case.constants)
    data = case.data(case) if case.data else None
    return timing.simulate(program, chip, case.grid, case.arguments, data=data)


def share_of_limit(case: Case, chip: Chip, result: timing.Timing) -> float:
    """1.0 is the physical limit: peak of the matrix engines, or HBM bandwidth."""
    limit_s = case.operations / chip.peak_flops_per_s("bfloat16") + case.bytes_moved / chip.hbm.bandwidth_bytes_per_s
    return limit_s / result.seconds


def what_holds_it_up(result: timing.Timing) -> str:
    """The busiest engine, and where the most loaded engines stall."""
    total = result.cycles * result.core_count
    parts = []
    for unit in (Unit.MATRIX, Unit.VECTOR, Unit.LOAD):
        stalls = sorted(result.stalls(unit).items(), key=lambda item: -item[1])[:2]
        waits = ", ".join(f"{reason} {cycles / total:.0%}" for reason, cycles in stalls)
        parts.append(f"{unit.value} {result.busy_by_unit[unit] / total:.0%} ({waits})")
    return "; ".join(parts)


def torch_calls(chip: Chip) -> Table:
    """Timed in processes of their own: the chip of a process, and whether it computes, is chosen once."""
    printed = ""
    for kind in ("timed", "computed"):
        command = [sys.executable, "-m", "benchmarks.torch_calls", chip.name, kind]
        printed += subprocess.run(command, check=True, capture_output=True, text=True).stdout
    table = Table("call", "time", "of the limit", "bar", title=f"{chip.name}: torch")
    for call in map(json.loads, printed.splitlines()):
        least = call["least"]
        bar = f"{least:.0%} {'met' if call['share'] >= least else 'missed'}" if least else ""
        table.add_row(call["name"], f"{call['us']:,.1f} us", f"{call['share']:.1%}", bar)
    return table


def operator_families(chip: Chip) -> Iterator[Table]:
    """Shares of the true limit, and what holds them up, of all families; then each family's geometric mean."""
    command = [sys.executable, "-m", "benchmarks.operator_families", chip.name]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    results = [Result(**json.loads(line)) for line in printed.splitlines()]
    table = Table(
        "call", "time", "limit", "set by", "reached", "bar", "launches", "why", title=f"{chip.name}: families"
    )
    family = ""
    for result in results:
        if result.family != family:
            family = result.family
            table.add_section()
            table.add_row(f"[bold]{family}")
        table.add_row(
            result.name,
            f"{result.us:,.1f} us",
            f"{result.limit_us:,.1f} us",
            result.limit,
            f"{result.share:.0%}",
            f"{result.bar:.0%} {'met' if result.share >= result.bar else 'missed'}",
            str(result.launches),
            result.reason,
        )
    yield table
    means = Table("family", "geometric mean", "bars met", title=f"{chip.name}: families in the mean")
    for name in dict.fromkeys(result.family for result in results):
        group = [result for result in results if result.family == name]
        met = sum(result.share >= result.bar for result in group)
        means.add_row(name, f"{_mean_share(group):.0%}", f"{met} of {len(group)}")
    means.add_row("all", f"{_mean_share(results):.0%}", f"{sum(r.share >= r.bar for r in results)} of {len(results)}")
    yield means


def _mean_share(results: Sequence[Result]) -> float:
    """Geometric; top-k and sort count by their bars, which are in passes."""
    return statistics.geometric_mean(
        min(1.0, r.share / r.bar * 0.75) if r.family in ("top-k", "sort") else r.share for r in results
    )


def main() -> None:
    console = Console(width=200)
    for name in ("training", "inference"):
        chip = chips.load(name)
        table = Table("kernel", "cycles", "time", "of the limit", "bar", "engines busy (largest stalls)", title=name)
        for case in cases(chip):
            result = run(case, chip)
            share = share_of_limit(case, chip, result)
            table.add_row(
                case.name,
                f"{result.cycles:,}",
                f"{result.seconds * 1e6:,.1f} us",
                f"{share:.1%}",
                f"{case.least:.0%} {'met' if share >= case.least else 'missed'}",
                what_holds_it_up(result),
            )
        console.print(table)
        console.print(torch_calls(chip))
        for part in operator_families(chip):
            console.print(part)
