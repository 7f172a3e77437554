"""Matrix products: the library takes the fastest of some tile sizes and splits of the reduction.

    tile time = max(flops of a tile / (unit rate x share), operand bytes of a tile / unit's load rate) + fill + store
    compute   = rounds of tiles over units x tile time
    memory    = (operands once, or again where neither fits the last level) / (bandwidth x share)
    time      = launch + (compute^4 + memory^4)^(1/4) x throttle + cost of a split + quantising the input

Where the host starts each kernel, the time is the host's or the device's, whichever is longer.

Rounds, loads and shares never fall as a size grows, so neither does the least over the choices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tapeout.models.forms.base import (
    MICRO,
    Form,
    Parts,
    activation_bytes,
    result_bytes,
    smooth_max,
    waves,
    weight_bytes,
)
from tapeout.models.machine import Machine
from tapeout.models.native import library
from tapeout.models.tables import Array, Table

_TILES = (
    *((16, 64), (16, 128), (32, 64), (32, 128), (64, 32), (64, 64), (64, 128), (128, 32), (128, 64), (128, 128)),
    *((64, 256), (128, 256), (256, 128), (256, 256)),
)
_SPLITS = (1, 2, 3, 4, 6, 8, 16, 32)
_CHOICES = np.array([(rows, columns, split) for rows, columns in _TILES for split in _SPLITS], float).T.copy()
_OWN_CHOICES = np.array(
    [(2.0**rows, 2.0**columns, 1.0) for rows in range(9) for columns in range(4, 9)], float
).T.copy()
"""Tiles of the compiler of described chips, which splits no reduction."""
BLOCK_SCALED = ("fp8_block", "nvfp4", "w4a4_mxfp4", "float4")
"""Types whose scales belong to blocks of a row: narrowing needs no pass over the row first, but lays out the scales."""
CALLED = ("fp8_block",)
"""Types whose products the measured software starts from the host, also where it captures graphs of others."""
CALLED_KERNELS = 2
"""Kernels of such a product: one narrows the input, one multiplies."""


PARAMETERS = {
    "rate": (0.97, 0.2, 1.05),  # share of peak inside a tile
    "edge": (5.0, 0.01, 120.0),  # loss of small tiles, in rows and columns
    "load": (0.0165, 0.003, 0.2),  # bytes a unit loads per operation of its half-precision peak
    "fill": (0.3, 0.02, 10.0),  # µs before a tile's first product
    "store": (0.0055, 0.001, 0.5),  # bytes a unit stores per operation of its peak
    "bandwidth": (0.82, 0.3, 1.0),  # share of DRAM bandwidth
    "launch": (2.3, 0.3, 200.0),  # µs
    "call": (20.0, 0.3, 200.0),  # the same where the host starts the kernel
    "split": (2.5, 0.05, 30.0),  # µs of the second pass over a split reduction
    "softness": (0.05, 0.01, 1.0),  # 0: a round waits for its slowest tile
    "flow": (0.95, 0.01, 1.0),  # the same on chips whose units copy and compute at once
    "pull": (3.0, 0.1, 20.0),  # bandwidth one unit can draw, in shares of an even one
    "throttle": (0.1, 0.001, 0.8),  # clock lost by long products
    "settle": (300.0, 20.0, 20000.0),  # µs until it is lost
    "reuse": (0.05, 0.01, 2.0),  # share of the last level that still holds the operands
    "keep": (0.3, 0.01, 2.0),  # the same on chips without stacked memory
    "watts": (0.75, 0.3, 1.5),  # watts per 10^12 operations a second below which the clock falls under load
    "strain": (0.35, 0.01, 1.0),  # how steeply
    "quantise": (1.0, 0.05, 40.0),  # µs of the kernel that narrows the input, where there is one
    "token": (750.0, 0.1, 5000.0),  # ns a unit spends on narrowing a row
    "element": (280.0, 1.0, 3000.0),  # ps on an element of it
}


def time(machine: Machine, p: Mapping[str, float], table: Table, *, choose: "Choose | None" = None) -> Parts:
    """`choose` finds the fastest choice of each row; by default `quickly`, which agrees with `plainly`."""
    body, compute, memory = (choose or quickly)(machine, p, table)
    left, right, out = input_bytes(machine, table.dtype), weight_bytes(table.dtype), result_bytes(table.dtype)
    m, n, k = table["m"], table["n"], table["k"]
    body = body * (1 + p["throttle"] * compute / (compute + p["settle"] * MICRO))
    narrow = np.zeros(len(table))
    if left < 2:
        passed = m * k * (2 + left) / drawn(machine, p)
        worked = m * (p["token"] + p["element"] * 1e-3 * k) * 1e-9 / machine.unit_count
        if table.dtype in BLOCK_SCALED:
            narrow = 2 * p["quantise"] * MICRO + passed
        else:
            narrow = p["quantise"] * MICRO + smooth_max(passed, worked)
    start = p["launch"] * machine.slowness if machine.captures_graphs else p["call"]
    launch = np.full(len(table), start * MICRO)
    moved = m * k * left + n * k * right + m * n * out
    device = launch + body + narrow
    seconds = device
    if table.dtype in CALLED and not machine.is_described:
        seconds = smooth_max(device, np.full(len(table), CALLED_KERNELS * p["call"] * MICRO))
    return Parts(
        seconds=seconds,
        roofline=np.maximum(2 * m * n * k / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": compute, "memory": memory, "launch": launch + narrow + (seconds - device)},
        hints=_hints(machine, table, compute / memory),
    )


Choose = Callable[[Machine, Mapping[str, float], Table], tuple[Array, Array, Array]]


@dataclass(frozen=True)
class _Costs:
    """What each choice costs whatever the product: seconds of a tile for each k, seconds of its ends, bytes of operands
    for each k, seconds of a second pass and for each of its elements."""

    rows: Array
    columns: Array
    split: Array
    step: Array
    ends: Array
    operands: Array
    second: Array
    sums: Array


def _costs(machine: Machine, p: Mapping[str, float], dtype: str) -> _Costs:
    rows, columns, split = _OWN_CHOICES if machine.is_described else _CHOICES
    left, right, out = input_bytes(machine, dtype), weight_bytes(dtype), result_bytes(dtype)
    used = np.maximum(rows, machine.array_rows) * np.maximum(columns, machine.array_columns)
    # Our compiler's kernels lose a time for each step of a tile; those of libraries lose at its edges.
    array = machine.array_rows * machine.array_columns
    loss = p["edge"] * (array / used if machine.is_described else 1 / rows + 1 / columns)
    clock = min(1.0, (machine.watts_per_tflops / p["watts"]) ** p["strain"])
    product = 2 * used / (machine.peak_flop_per_s / machine.unit_count * p["rate"] * clock) * (1 + loss)
    operands = rows * left + columns * right
    return _Costs(
        rows,
        columns,
        split,
        np.maximum(product, operands / (p["load"] * machine.unit_flop_per_s)),
        p["fill"] * machine.slowness * MICRO + rows * columns * out / (p["store"] * machine.unit_flop_per_s),
        operands,
        np.where(split > 1, p["split"] * MICRO, 0.0),
        np.where(split > 1, 2 * split * 4 / (2.5 * machine.memory_byte_per_s), 0.0),
    )


def input_bytes(machine: Machine, dtype: str) -> float:
    """Bytes of an element of the left operand: chips without a rate for narrow types widen the weights instead."""
    return 2.0 if machine.widens else activation_bytes(dtype)


def drawn(machine: Machine, p: Mapping[str, float]) -> float:
    """Bytes a second that all units together draw from memory."""
    return machine.memory_byte_per_s * p["bandwidth"]


def softness(machine: Machine, p: Mapping[str, float]) -> float:
    return p["flow"] if machine.copies_meanwhile else p["softness"]


def held(machine: Machine, p: Mapping[str, float]) -> float:
    """Bytes of operands that the last level still holds from the product before."""
    return (p["reuse"] if machine.has_stacks else p["keep"]) * machine.last_level_bytes


def plainly(machine: Machine, p: Mapping[str, float], table: Table) -> tuple[Array, Array, Array]:
    """Seconds of the fastest choice, and of its products and its memory traffic. Defines what `quickly` computes."""
    m, n, k = (table[name][:, None] for name in ("m", "n", "k"))
    left, right, out = input_bytes(machine, table.dtype), weight_bytes(table.dtype), result_bytes(table.dtype)
    cost = _costs(machine, p, table.dtype)
    tiles = np.ceil(m / cost.rows) * np.ceil(n / cost.columns) * cost.split
    depth = np.ceil(k / cost.split / 64) * 64
    compute = waves(tiles, machine.unit_count, softness(machine, p)) * (cost.step * depth + cost.ends)
    # The first round draws its operands from memory, and a unit draws only so much.
    first = cost.operands / (p["pull"] * machine.memory_byte_per_s / machine.unit_count)
    compute = compute + np.maximum(first - cost.step, 0.0) * depth
    a, b, c = m * k * left, n * k * right, m * n * out
    again = tiles * cost.operands * depth / np.sqrt(np.minimum(tiles, machine.unit_count))
    spills = np.minimum(a, b) / (np.minimum(a, b) + 0.5 * machine.last_level_bytes)
    kept = a + b + spills**2 * np.maximum(again - a - b, 0) + c
    cold = kept / (kept + held(machine, p))
    memory = kept * cold / drawn(machine, p)
    total = smooth_max(compute, memory) + cost.second + cost.sums * m * n
    best = np.argmin(total, axis=1)
    rows = np.arange(len(best))
    return total[rows, best], compute[rows, best], memory[rows, best]


def quickly(machine: Machine, p: Mapping[str, float], table: Table) -> tuple[Array, Array, Array]:
    """The same by machine code."""
    sizes = [np.ascontiguousarray(table[name]) for name in ("m", "n", "k")]
    results = [np.empty(len(table)) for _ in range(3)]
    cost = _costs(machine, p, table.dtype)
    choices = np.stack(
        [cost.rows, cost.columns, cost.split, cost.step, cost.ends, cost.operands, cost.second, cost.sums]
    )
    library().tapeout_gemm(
        *(array.ctypes.data for array in sizes),
        len(table),
        choices.ctypes.data,
        choices.shape[1],
        input_bytes(machine, table.dtype),
        weight_bytes(table.dtype),
        result_bytes(table.dtype),
        machine.unit_count,
        drawn(machine, p),
        p["pull"] * machine.memory_byte_per_s / machine.unit_count,
        softness(machine, p),
        held(machine, p),
        machine.last_level_bytes,
        *(array.ctypes.data for array in results),
    )
    body, compute, memory = results
    return body, compute, memory


def _hints(machine: Machine, table: Table, balance: Array) -> dict[str, Array]:
    """Return what else decides which kernel a library takes and how full its last round is."""
    m, n, k = table["m"], table["n"], table["k"]
    hints = {"balance": np.log2(balance), "result": np.log2(m * n), "weights": np.log2(n * k), "shape": np.log2(m / n)}
    hints |= {"depth": np.log2(k / n), "odd": m % 8, "work": np.log2(m * n) + np.log2(k)}
    for rows, columns in ((64, 64), (128, 128), (128, 256), (256, 128), (64, 256)):
        rounds = np.ceil(m / rows) * np.ceil(n / columns) / machine.unit_count
        hints[f"rounds {rows} x {columns}"] = np.log2(rounds)
        hints[f"filled {rows} x {columns}"] = rounds / np.ceil(rounds)
    for rows in (64, 128):
        hints[f"rows of {rows}"] = m / rows / np.ceil(m / rows)
    return hints


FORM = Form("gemm", time, PARAMETERS, ("m", "n", "k"), reach=0.4, far="m")
