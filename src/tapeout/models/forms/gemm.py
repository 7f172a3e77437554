"""Matrix products: the library takes the fastest of some tile sizes and splits of the reduction.

    tile time = max(flops of a tile / (unit rate x share), operand bytes of a tile / unit's load rate) + fill + store
    compute   = rounds of tiles over units x tile time
    memory    = (operands once, or again where neither fits the last level) / (bandwidth x share)
    time      = launch + (compute^4 + memory^4)^(1/4) x throttle + cost of a split + quantising the input

Rounds, loads and shares never fall as a size grows, so neither does the least over the choices.
"""

from collections.abc import Callable, Mapping

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

_TILES = ((16, 64), (32, 64), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
_SPLITS = (1, 2, 4, 8, 16)
_CHOICES = np.array([(rows, columns, split) for rows, columns in _TILES for split in _SPLITS], float).T.copy()

PARAMETERS = {
    "rate": (0.85, 0.2, 1.05),  # share of peak inside a tile
    "edge": (5.0, 0.1, 120.0),  # loss of small tiles, in rows and columns
    "load": (0.017, 0.003, 0.2),  # bytes a unit loads per operation of its half-precision peak
    "fill": (0.5, 0.02, 10.0),  # µs before a tile's first product
    "store": (0.005, 0.001, 0.5),  # bytes a unit stores per operation of its peak
    "bandwidth": (0.85, 0.3, 1.0),  # share of DRAM bandwidth
    "launch": (2.4, 0.3, 200.0),  # µs
    "split": (1.5, 0.05, 30.0),  # µs of the second pass over a split reduction
    "softness": (0.5, 0.01, 1.0),  # 0: a round waits for its slowest tile
    "throttle": (0.1, 0.001, 0.8),  # clock lost by long products
    "settle": (500.0, 20.0, 20000.0),  # µs until it is lost
    "reuse": (0.1, 0.01, 2.0),  # share of the last level that still holds the operands
    "quantise": (1.0, 0.05, 40.0),  # µs of the kernel that narrows the input, where there is one
}


def time(machine: Machine, p: Mapping[str, float], table: Table, *, choose: "Choose | None" = None) -> Parts:
    """`choose` finds the fastest choice of each row; by default `quickly`, which agrees with `plainly`."""
    body, compute, memory = (choose or quickly)(machine, p, table)
    left, right, out = activation_bytes(table.dtype), weight_bytes(table.dtype), result_bytes(table.dtype)
    m, n, k = table["m"], table["n"], table["k"]
    body = body * (1 + p["throttle"] * compute / (compute + p["settle"] * MICRO))
    narrow = np.zeros(len(table))
    if left < 2:
        narrow = p["quantise"] * MICRO + 3 * m * k * left / (machine.memory_byte_per_s * p["bandwidth"])
    launch = np.full(len(table), p["launch"] * MICRO)
    moved = m * k * left + n * k * right + m * n * out
    return Parts(
        seconds=launch + body + narrow,
        roofline=np.maximum(2 * m * n * k / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": compute, "memory": memory, "launch": launch + narrow},
        hints=_hints(machine, table, compute / memory),
    )


Choose = Callable[[Machine, Mapping[str, float], Table], tuple[Array, Array, Array]]


def plainly(machine: Machine, p: Mapping[str, float], table: Table) -> tuple[Array, Array, Array]:
    """Seconds of the fastest choice, and of its products and its memory traffic. Defines what `quickly` computes."""
    m, n, k = (table[name][:, None] for name in ("m", "n", "k"))
    tile_rows, tile_columns, split = (choice[None, :] for choice in _CHOICES)
    left, right, out = activation_bytes(table.dtype), weight_bytes(table.dtype), result_bytes(table.dtype)
    unit_rate = machine.unit_flop_per_s
    load_rate, store_rate = p["load"] * unit_rate, p["store"] * unit_rate
    tiles = np.ceil(m / tile_rows) * np.ceil(n / tile_columns) * split
    depth = np.ceil(k / split / 64) * 64
    peak = machine.peak_flop_per_s / machine.unit_count * p["rate"]
    product = 2 * tile_rows * tile_columns / peak * (1 + p["edge"] * (1 / tile_rows + 1 / tile_columns))
    load = (tile_rows * left + tile_columns * right) / load_rate
    tile_time = np.maximum(product, load) * depth + p["fill"] * MICRO + tile_rows * tile_columns * out / store_rate
    compute = waves(tiles, machine.unit_count, p["softness"]) * tile_time
    a, b, c = m * k * left, n * k * right, m * n * out
    again = tiles * (tile_rows * left + tile_columns * right) * depth / np.sqrt(np.minimum(tiles, machine.unit_count))
    spills = np.minimum(a, b) / (np.minimum(a, b) + 0.5 * machine.last_level_bytes)
    kept = a + b + spills**2 * np.maximum(again - a - b, 0) + c
    cold = kept / (kept + p["reuse"] * machine.last_level_bytes)
    memory = kept * cold / (machine.memory_byte_per_s * p["bandwidth"])
    second_pass = p["split"] * MICRO + 2 * split * m * n * 4 / (2.5 * machine.memory_byte_per_s)
    total = smooth_max(compute, memory) + np.where(split > 1, second_pass, 0.0)
    best = np.argmin(total, axis=1)
    rows = np.arange(len(best))
    return total[rows, best], compute[rows, best], memory[rows, best]


def quickly(machine: Machine, p: Mapping[str, float], table: Table) -> tuple[Array, Array, Array]:
    """The same by machine code."""
    sizes = [np.ascontiguousarray(table[name]) for name in ("m", "n", "k")]
    results = [np.empty(len(table)) for _ in range(3)]
    unit_rate = machine.unit_flop_per_s
    library().tapeout_gemm(
        *(array.ctypes.data for array in sizes),
        len(table),
        _CHOICES.ctypes.data,
        _CHOICES.shape[1],
        activation_bytes(table.dtype),
        weight_bytes(table.dtype),
        result_bytes(table.dtype),
        machine.unit_count,
        p["load"] * unit_rate,
        p["store"] * unit_rate,
        machine.peak_flop_per_s / machine.unit_count * p["rate"],
        p["edge"],
        p["fill"] * MICRO,
        machine.memory_byte_per_s * p["bandwidth"],
        p["split"] * MICRO,
        p["softness"],
        p["reuse"] * machine.last_level_bytes,
        machine.last_level_bytes,
        machine.memory_byte_per_s,
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


FORM = Form("gemm", time, PARAMETERS, ("m", "n", "k"), reach=0.4)
