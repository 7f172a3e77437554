"""Predicted against measured cycles of one TPUv3 core: examples/tpuv3_core.py, examples/tpuv3_measured_cycles.csv.

`python -m benchmarks tpuv3` does so for every measured row; with workloads after it, it predicts those.

Nothing is fitted: the chip file holds public facts, and the programs are worked out from a workload's name.

- A product or a convolution is one kernel; the taps of a convolution read one tile of its padded input, and what is
  added to its result is added there.
- What XLA makes of the rest: elementwise work joins the pass over memory that comes next, and is done again rather than
  stored (docs: openxla.org/xla, "operation fusion"); a reduction ends a pass, since the next one needs all of it. So
  softmax is three passes (largest, sum of exponentials, quotient), layer norm three (mean, variance, the rest), and
  attention four (scores, largest, sum, and weights times values).
- One dimension of an array is padded to a multiple of 128 (docs: cloud.google.com/tpu/docs/performance-guide): channels
  and outputs of a convolution; in attention the size of a head, unless the length is one already.
- Each pass takes the tile sizes that are fastest of a few, as an autotuner finds them.
- A network is its passes, one after another.
"""

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from rich.console import Console
from rich.table import Table

from benchmarks.code_quality import _float_bits, matmul, program_of
from tapeout import chip as chips
from tapeout.chip import Chip
from tapeout.codegen.allocate import ScratchpadOverflow
from tapeout.isa import Unit
from tapeout.sim import timing

EXAMPLES = Path(__file__).parents[1] / "examples"
CHIP_FILE = EXAMPLES / "tpuv3_core.py"


@triton.jit
def convolution(
    x, w, other, y, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, KERNEL: tl.constexpr, STEP: tl.constexpr,
    ROW: tl.constexpr, PHASE: tl.constexpr, ADDS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """KERNEL x KERNEL taps over a padded input (places, CHANNELS), of which the next row is ROW places on: a tap is the
    same tile some places on. With a step, places come in STEP x STEP phases, PHASE places apart. Then what follows a
    convolution: what it is added to, and the larger of it and zero."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, CHANNELS, BK):
        c = start + tl.arange(0, BK)
        for tap in tl.static_range(KERNEL * KERNEL):
            phase = tap // KERNEL % STEP * STEP + tap % KERNEL % STEP
            place = row + (phase * PHASE + tap // KERNEL // STEP * ROW + tap % KERNEL // STEP)
            left = tl.load(x + place[:, None] * CHANNELS + c[None, :])
            right = tl.load(w + (tap * CHANNELS + c)[:, None] * OUTPUTS + n[None, :])
            total = tl.dot(left, right, total)
    if ADDS:
        total += tl.load(other + row[:, None] * OUTPUTS + n[None, :])
    tl.store(y + row[:, None] * OUTPUTS + n[None, :], tl.maximum(total, 0.0))


@triton.jit
def largest_of_windows(
    x, y, CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STEP: tl.constexpr, ROW: tl.constexpr, PHASE: tl.constexpr,
    BM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.arange(0, CHANNELS)
    most = tl.full((BM, CHANNELS), -float("inf"), tl.float32)
    for tap in tl.static_range(KERNEL * KERNEL):
        phase = tap // KERNEL % STEP * STEP + tap % KERNEL % STEP
        place = row + (phase * PHASE + tap // KERNEL // STEP * ROW + tap % KERNEL // STEP)
        most = tl.maximum(most, tl.load(x + place[:, None] * CHANNELS + c[None, :]))
    tl.store(y + row[:, None] * CHANNELS + c[None, :], most)


@triton.jit
def largest_of_rows(x, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    value = tl.load(x + row[:, None] * COLUMNS + c[None, :], mask=(c < COLUMNS)[None, :], other=-float("inf"))
    tl.store(y + row, tl.max(value, 1))


@triton.jit
def sums_of_exponentials(x, largest, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    value = tl.load(x + row[:, None] * COLUMNS + c[None, :], mask=(c < COLUMNS)[None, :], other=-float("inf"))
    tl.store(y + row, tl.sum(tl.exp(value - tl.load(largest + row)[:, None]), 1))


@triton.jit
def quotients(x, largest, sums, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    place, inside = row[:, None] * COLUMNS + c[None, :], (c < COLUMNS)[None, :]
    value = tl.exp(tl.load(x + place, mask=inside, other=0.0) - tl.load(largest + row)[:, None])
    tl.store(y + place, value / tl.load(sums + row)[:, None], mask=inside)


@triton.jit
def means(x, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    value = tl.load(x + row[:, None] * COLUMNS + c[None, :], mask=(c < COLUMNS)[None, :], other=0.0)
    tl.store(y + row, tl.sum(value, 1) * (1.0 / COLUMNS))


@triton.jit
def variances(x, mean, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    inside = (c < COLUMNS)[None, :]
    value = tl.load(x + row[:, None] * COLUMNS + c[None, :], mask=inside, other=0.0) - tl.load(mean + row)[:, None]
    tl.store(y + row, tl.sum(tl.where(inside, value * value, 0.0), 1) * (1.0 / COLUMNS))


@triton.jit
def normalised(
    x, mean, variance, weight, bias, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    place, inside = row[:, None] * COLUMNS + c[None, :], (c < COLUMNS)[None, :]
    value = tl.load(x + place, mask=inside, other=0.0) - tl.load(mean + row)[:, None]
    value *= tl.rsqrt(tl.load(variance + row) + 1e-5)[:, None]
    value = value * tl.load(weight + c, mask=c < COLUMNS, other=0.0) + tl.load(bias + c, mask=c < COLUMNS, other=0.0)
    tl.store(y + place, value, mask=inside)


@triton.jit
def scores(q, k, y, scale, LENGTH: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head = tl.program_id(2)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    d = tl.arange(0, D)
    queries = tl.load(q + head * (LENGTH * D) + row[:, None] * D + d[None, :])
    keys = tl.load(k + head * (LENGTH * D) + column[:, None] * D + d[None, :])
    product = tl.dot(queries, tl.trans(keys)) * scale
    tl.store(y + head * (LENGTH * LENGTH) + row[:, None] * LENGTH + column[None, :], product)


@triton.jit
def weighted_values(
    x, largest, sums, v, y, LENGTH: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    most = tl.load(largest + head * LENGTH + row)[:, None]
    total = tl.load(sums + head * LENGTH + row)[:, None]
    out = tl.zeros((BM, D), tl.float32)
    for start in range(0, LENGTH, BK):
        k = start + tl.arange(0, BK)
        value = tl.load(x + head * (LENGTH * LENGTH) + row[:, None] * LENGTH + k[None, :])
        values = tl.load(v + head * (LENGTH * D) + k[:, None] * D + d[None, :])
        out = tl.dot(tl.exp(value - most) / total, values, out)
    tl.store(y + head * (LENGTH * D) + row[:, None] * D + d[None, :], out)


Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Pass:
    """A kernel, the sizes it may take, and the grid for each. `sizes_bytes` are its arrays', in order; other arguments
    come after them. `instead`: another pass that does the same; the faster of them is taken."""

    kernel: Any
    constants: dict[str, int]
    choices: list[dict[str, int]]
    grid: Callable[[dict[str, int]], Grid]
    sizes_bytes: tuple[int, ...]
    more: tuple[tuple[str, int], ...] = ()
    instead: "Pass | None" = None


def _tiles(**extents: tuple[int, tuple[int, ...]]) -> list[dict[str, int]]:
    """Every combination of sizes, none longer than its extent needs."""
    sides = [[s for s in sizes if s <= max(sizes[0], extent)] for extent, sizes in extents.values()]
    return [dict(zip(extents, combination, strict=True)) for combination in itertools.product(*sides)]


def product(m: int, n: int, k: int) -> list[Pass]:
    return [
        Pass(
            matmul,
            {},
            _tiles(BM=(m, (128, 256, 512, 1024)), BN=(n, (128, 256, 512, 1024)), BK=(k, (128, 256))),
            lambda tile: (math.ceil(m / tile["BM"]), math.ceil(n / tile["BN"]), 1),
            (4 * m * k, 4 * k * n, 4 * m * n),
            (("i32", k), ("i32", k), ("i32", n), ("i32", n)),
        )
    ]


def padded(extent: int) -> int:
    """Return the padded extent that XLA gives the dimension along the lanes."""
    return 128 * math.ceil(extent / 128)


def convolved(
    batch: int, height: int, width: int, channels: int, outputs: int, kernel: int, step: int, padding: int,
    adds: bool = False,
) -> list[Pass]:  # fmt: skip
    """Images share their borders. They lie one after another or row by row, whichever is faster."""
    if kernel > min(height, width) + 2 * padding:
        raise ValueError(f"a kernel of {kernel} x {kernel} does not fit into {height} x {width}, padded by {padding}")
    channels, outputs = padded(channels), padded(outputs)
    pitch, row = (math.ceil((extent + padding) / step) for extent in (height, width))
    rows = math.ceil((height + 2 * padding - kernel + 1) / step)
    return [
        replace(
            _convolved(batch * pitch * row, row, channels, outputs, kernel, step, adds),
            instead=_convolved(rows * batch * row, batch * row, channels, outputs, kernel, step, adds),
        )
    ]


def _convolved(places: int, row: int, channels: int, outputs: int, kernel: int, step: int, adds: bool) -> Pass:
    phase, sums = places + math.ceil(kernel / step) * (row + 1), places * outputs
    return Pass(
        convolution,
        {"CHANNELS": channels, "OUTPUTS": outputs, "KERNEL": kernel, "STEP": step, "ROW": row, "PHASE": phase}
        | {"ADDS": int(adds)},
        _tiles(BM=(places, (256, 512, 1024)), BN=(outputs, (128, 256)), BK=(channels, (128,))),
        lambda tile: (math.ceil(places / tile["BM"]), math.ceil(outputs / tile["BN"]), 1),
        tuple(4 * count for count in (step**2 * phase * channels, kernel**2 * channels * outputs, sums, sums)),
    )


def pooled(batch: int, size: int, channels: int, kernel: int, step: int) -> list[Pass]:
    channels, row = padded(channels), size // step + 1
    places = batch * row * row
    phase = places + math.ceil(kernel / step) * (row + 1)
    return [
        Pass(
            largest_of_windows,
            {"CHANNELS": channels, "KERNEL": kernel, "STEP": step, "ROW": row, "PHASE": phase},
            _tiles(BM=(places, (128, 256, 512))),
            lambda tile: (math.ceil(places / tile["BM"]), 1, 1),
            (4 * step**2 * phase * channels, 4 * places * channels),
        )
    ]


def _power_of_two(extent: int) -> int:
    """Return the side of a tile for an extent: a power of two."""
    return 1 << (extent - 1).bit_length()


def _over_rows(kernel: Any, rows: int, columns: int, *sizes_bytes: int) -> Pass:
    width = _power_of_two(columns)
    return Pass(
        kernel,
        {"COLUMNS": columns, "WIDTH": width},
        [{"ROWS": count} for count in (16, 32, 64, 128, 256) if count * width <= 1 << 19] or [{"ROWS": 1}],
        lambda tile: (math.ceil(rows / tile["ROWS"]), 1, 1),
        sizes_bytes,
    )


def softmax(rows: int, columns: int) -> list[Pass]:
    whole, each = 4 * rows * columns, 4 * rows
    return [
        _over_rows(largest_of_rows, rows, columns, whole, each),
        _over_rows(sums_of_exponentials, rows, columns, whole, each, each),
        _over_rows(quotients, rows, columns, whole, each, each, whole),
    ]


def layer_norm(rows: int, columns: int) -> list[Pass]:
    whole, each = 4 * rows * columns, 4 * rows
    return [
        _over_rows(means, rows, columns, whole, each),
        _over_rows(variances, rows, columns, whole, each, each),
        _over_rows(normalised, rows, columns, whole, each, each, 4 * columns, 4 * columns, whole),
    ]


def attention(heads: int, length: int, size: int) -> list[Pass]:
    scale, size = size**-0.5, _power_of_two(size if length % 128 == 0 else padded(size))
    rows, small = heads * length, 4 * heads * length * size
    whole, each = 4 * rows * length, 4 * rows
    constants = {"LENGTH": length, "D": size}
    return [
        Pass(
            scores,
            constants,
            _tiles(BM=(length, (128, 256, 512)), BN=(length, (128, 256, 512))),
            lambda tile: (math.ceil(length / tile["BM"]), math.ceil(length / tile["BN"]), heads),
            (small, small, whole),
            (("fp32", _float_bits(scale)),),
        ),
        *softmax(rows, length)[:2],
        Pass(
            weighted_values,
            constants,
            _tiles(BM=(length, (128, 256, 512)), BK=(length, (128, 256, 512))),
            lambda tile: (math.ceil(length / tile["BM"]), heads, 1),
            (whole, each, each, small, small),
        ),
    ]


def resnet18() -> list[Pass]:
    """One image of 224 x 224. Of the fully connected layer one row is computed."""
    passes = [*convolved(1, 224, 224, 3, 64, 7, 2, 3), *pooled(1, 112, 64, 3, 2)]
    inner = 64
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        for step in (2 if channels != inner else 1, 1):
            passes += convolved(1, size * step, size * step, inner, channels, 3, step, 1)
            if step != 1:
                passes += convolved(1, size * step, size * step, inner, channels, 1, step, 0)
            passes += convolved(1, size, size, channels, channels, 3, 1, 1, adds=True)
            inner = channels
    return [*passes, *product(1, 1024, 512)]


def resnet50() -> list[Pass]:
    """One image of 224 x 224: blocks of three convolutions, of which the second may step and the last adds."""
    passes = [*convolved(1, 224, 224, 3, 64, 7, 2, 3), *pooled(1, 112, 64, 3, 2)]
    inner = 64
    for size, channels, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(blocks):
            step = 2 if block == 0 and channels != 64 else 1
            passes += convolved(1, size * step, size * step, inner, channels, 1, 1, 0)
            passes += convolved(1, size * step, size * step, channels, channels, 3, step, 1)
            if block == 0:
                passes += convolved(1, size * step, size * step, inner, 4 * channels, 1, step, 0)
            passes += convolved(1, size, size, channels, 4 * channels, 1, 1, 0, adds=True)
            inner = 4 * channels
    return [*passes, *product(1, 1024, 2048)]


def bert(layers: int, hidden: int, heads: int, length: int = 512) -> list[Pass]:
    """An encoder; what comes between products but is not a pass of its own joins them."""
    layer = [
        *(3 * product(length, hidden, hidden)),
        *attention(heads, length, hidden // heads),
        *product(length, hidden, hidden),
        *layer_norm(length, hidden),
        *product(length, 4 * hidden, hidden),
        *product(length, hidden, 4 * hidden),
        *layer_norm(length, hidden),
    ]
    return layers * layer


@dataclass(frozen=True)
class Family:
    """Workloads that differ in their extents, which stand in their name in the order of `extents`."""

    passes: Callable[..., list[Pass]]
    extents: str


FAMILIES = {
    "gemm": Family(lambda m, k, n: product(m, n, k), "m k n"),
    "conv": Family(convolved, "batch height width channels outputs kernel step padding"),
    "layernorm": Family(layer_norm, "rows columns"),
    "softmax": Family(softmax, "rows columns"),
    "attention": Family(attention, "heads length size"),
}
NETWORKS: dict[str, Callable[[], list[Pass]]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "bert_base": lambda: bert(12, 768, 12),
    "bert_large": lambda: bert(24, 1024, 16),
}


def passes_of(workload: str) -> list[Pass]:
    """Return the passes of a workload such as gemm_512x512x512 or resnet18. Raises ValueError for an unknown name."""
    if workload in NETWORKS:
        return NETWORKS[workload]()
    name, _, sizes = workload.partition("_")
    if name not in FAMILIES:
        forms = [f"{known}_<{'>x<'.join(family.extents.split())}>" for known, family in FAMILIES.items()]
        raise ValueError(f"no program of {workload!r}; there are {', '.join([*NETWORKS, *forms])}")
    family = FAMILIES[name]
    extents = [int(size) if size.isdecimal() else -1 for size in sizes.split("x")]
    names = family.extents.split()
    least = [0 if extent == "padding" else 1 for extent in names]
    if len(extents) != len(names) or any(size < low for size, low in zip(extents, least, strict=True)):
        raise ValueError(f"{workload!r} does not name {name}'s {len(names)} sizes: {', '.join(names)}, joined by x")
    return family.passes(*extents)


def predicted_pass(item: Pass, chip: Chip) -> timing.Timing:
    """With the sizes that are fastest."""
    if sum(item.sizes_bytes) > chip.hbm.size_bytes:
        raise ValueError(f"arrays of {sum(item.sizes_bytes):,} bytes; the memory has {chip.hbm.size_bytes:,}")
    places = itertools.accumulate((-(-size // 4096) * 4096 for size in item.sizes_bytes[:-1]), initial=0)
    signature = " ".join(["*fp32"] * len(item.sizes_bytes) + [kind for kind, _ in item.more])
    arguments = (*places, *(value for _, value in item.more))

    def results() -> Iterator[timing.Timing]:
        for tile in item.choices:
            try:
                program = program_of(item.kernel, signature, chip, **item.constants, **tile)
            except ScratchpadOverflow:
                continue
            yield timing.simulate(program, chip, item.grid(tile), arguments)
        if item.instead:
            yield predicted_pass(item.instead, chip)

    return min(results(), key=lambda result: result.cycles)


def predict(workload: str, chip: Chip) -> tuple[int, str]:
    """Cycles, and what the passes are busy with."""
    passes = passes_of(workload)
    known: dict[Any, timing.Timing] = {}
    results = []
    for item in passes:
        key = (item.kernel, tuple(item.constants.items()), item.sizes_bytes, item.more)
        if key not in known:
            known[key] = predicted_pass(item, chip)
        results.append(known[key])
    cycles = sum(result.cycles for result in results)
    matrix = sum(result.busy_by_unit[Unit.MATRIX] for result in results) / cycles
    moved = sum(result.hbm_read_bytes + result.hbm_written_bytes for result in results)
    peak = chip.hbm.bandwidth_bytes_per_s / chip.clock_hz
    return cycles, f"matrix {matrix:.0%}, HBM {moved / peak / cycles:.0%} of peak, {len(passes)} passes"


def main(workloads: Sequence[str] = ()) -> None:
    """Run the named workloads, or all that were measured."""
    lines = (EXAMPLES / "tpuv3_measured_cycles.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    measured = {row["workload"]: int(row["cycles"]) for row in rows}
    chip = chips.load(str(CHIP_FILE))
    table = Table("workload", "measured", "predicted", "error", "busy")
    errors = []
    for workload in workloads or measured:
        try:
            cycles, busy = predict(workload, chip)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        known, difference = "-", "-"
        if workload in measured:
            errors.append(cycles / measured[workload] - 1)
            known, difference = f"{measured[workload]:,}", f"{errors[-1]:+.1%}"
        table.add_row(workload, known, f"{cycles:,}", difference, busy)
    console = Console(width=140)
    console.print(table)
    if errors:
        console.print(f"mean absolute error of {len(errors)} rows: {sum(map(abs, errors)) / len(errors):.1%}")
