"""Forms of the operators of a described chip, whose kernels are ours: their tiles and their sharing of cores are known.

Attention of a prompt goes through all keys in one program for each tile of queries of one head; heads that share keys
read them again from the last-level SRAM. Attention of a new token divides the keys among programs. Norms and softmax
give each program whole rows, padded to a power of two. Products have the form of all chips with our compiler's tiles
(`gemm.py`).
"""

import itertools
from collections.abc import Mapping

import numpy as np

from tapeout.models.forms.base import MICRO, Form, Parts, smooth_max, waves, weight_bytes
from tapeout.models.machine import Machine
from tapeout.models.tables import DTYPE_BYTES, Array, Table, numbers_of

_QUERY_TILES = (16.0, 32.0, 64.0, 128.0, 256.0)
_KEY_TILES = (64.0, 128.0, 256.0, 512.0)
_DECODED_KEYS = 256.0
"""Keys of a step of decode attention, and the least that are worth a program."""
_TILE_ELEMENTS = 4096.0
"""Elements that a program of an elementwise operator takes at least."""

ATTENTION_PARAMETERS = {
    "rate": (0.8, 0.05, 1.05),  # share of the matrix engine's peak
    "exponent": (1.5, 0.02, 50.0),  # scores a core weighs per thousand operations of its peak
    "load": (0.02, 0.001, 1.0),  # bytes a core loads per operation of its half-precision peak
    "fill": (1.0, 0.01, 30.0),  # µs of a program besides its keys
    "step": (0.3, 0.001, 10.0),  # µs a core spends on a tile of keys whatever its size
    "serial": (0.5, 0.01, 1.0),  # share of the weighing that products do not hide
    "imbalance": (0.3, 0.01, 3.0),
    "softness": (0.5, 0.01, 1.0),
    "bandwidth": (0.8, 0.5, 1.0),
    "shared": (2.0, 0.3, 20.0),  # rate of the last-level SRAM, over that of memory
    "launch": (4.0, 0.5, 50.0),  # µs
}


def _attention(
    machine: Machine, p: Mapping[str, float], table: Table, queries: Array, keys: Array, is_causal: bool
) -> Parts:
    batch, heads, shared, size = (
        table[name] for name in ("batch_size", "num_heads", "num_key_value_heads", "head_dim")
    )
    width = numbers_of(table.words["kv_cache_dtype"], DTYPE_BYTES.__getitem__)
    unit_rate = machine.unit_flop_per_s
    peak = machine.peak_flop_per_s / machine.unit_count * p["rate"]
    best = np.full(len(table), np.inf)
    filled = np.zeros(len(table))
    for tile, block in itertools.product(_QUERY_TILES, _KEY_TILES):
        rows = np.minimum(tile, 2 ** np.ceil(np.log2(queries)))
        programs = batch * heads * np.ceil(queries / rows)
        product = 4 * np.maximum(rows, machine.array_rows) * size / peak
        weighing = rows / (unit_rate / 1000 * p["exponent"])
        loading = 2 * size * width / (unit_rate * p["load"])
        hidden = smooth_max(product, weighing, loading)
        key = hidden + p["serial"] * (product + weighing + loading - hidden)
        step = p["step"] * MICRO + block * key
        most = np.ceil(keys / block)
        mean = np.minimum((keys + rows) / 2 / block + 0.5, most) if is_causal else most
        whole = p["fill"] * MICRO + most * step
        even = waves(programs, machine.unit_count, p["softness"]) * (p["fill"] * MICRO + mean * step)
        late = p["imbalance"] * np.minimum(programs / machine.unit_count, 1) * (most - mean) * step
        again = programs * mean * block * 2 * size * width
        passing = again / (machine.memory_byte_per_s * p["shared"])
        taken = smooth_max(np.maximum(even + late, whole), passing)
        better = taken < best
        best = np.where(better, taken, best)
        filled = np.where(better, programs / machine.unit_count, filled)
    moved = batch * size * (2 * queries * heads * 2 + 2 * shared * keys * width)
    memory = moved / (machine.memory_byte_per_s * p["bandwidth"])
    launch = np.full(len(table), p["launch"] * MICRO)
    pairs = queries * (queries + 1) / 2 if is_causal else queries * keys
    flops = 4 * batch * heads * size * pairs
    return Parts(
        seconds=launch + smooth_max(best, memory),
        roofline=np.maximum(flops / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": best, "memory": memory, "launch": launch},
        hints={
            "rounds": np.log2(filled),
            "filled": filled / np.ceil(filled),
            "heads": np.log2(batch * heads),
            "heads filled": batch * heads / machine.unit_count / np.ceil(batch * heads / machine.unit_count),
            "group": np.log2(heads / shared),
            "balance": np.log2(best / memory),
            "work": np.log2(flops),
        },
    )


def context(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    return _attention(machine, p, table, table["isl"], table["isl"], True)


GENERATION_PARAMETERS = {
    "exponent": (1.5, 0.02, 50.0),  # scores a core weighs per thousand operations of its peak
    "load": (0.02, 0.001, 1.0),  # bytes a core loads per operation of its half-precision peak
    "fill": (1.0, 0.01, 30.0),  # µs of a program besides its keys
    "step": (0.3, 0.001, 10.0),  # µs a core spends on a tile of keys whatever its size
    "join": (2.0, 0.1, 20.0),  # µs of the kernel that joins parts
    "softness": (0.5, 0.01, 1.0),
    "bandwidth": (0.8, 0.5, 1.0),
    "launch": (4.0, 0.5, 50.0),  # µs
}


def generation(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    """A program for all queries of the heads that share keys, over a part of the keys; parts fill the cores."""
    batch, heads, shared, size = (
        table[name] for name in ("batch_size", "num_heads", "num_key_value_heads", "head_dim")
    )
    width = numbers_of(table.words["kv_cache_dtype"], DTYPE_BYTES.__getitem__)
    keys = table["step"] + 1
    rows = _padded(heads / shared)
    pairs = batch * shared
    wanted = np.minimum(np.floor(2 * machine.unit_count / pairs), np.floor(keys / _DECODED_KEYS))
    each = np.ceil(keys / np.maximum(wanted, 1) / _DECODED_KEYS) * _DECODED_KEYS
    parts = np.ceil(keys / each)
    each = np.minimum(each, keys)
    weighing = rows / (machine.unit_flop_per_s / 1000 * p["exponent"])
    loading = 2 * size * width / (machine.unit_flop_per_s * p["load"])
    steps = np.ceil(each / _DECODED_KEYS)
    program = p["fill"] * MICRO + each * smooth_max(weighing, loading) + steps * p["step"] * MICRO
    cores = waves(pairs * parts, machine.unit_count, p["softness"]) * program
    moved = batch * size * (2 * heads * 2 + 2 * shared * keys * width)
    memory = moved / (machine.memory_byte_per_s * p["bandwidth"])
    joined = batch * heads / machine.unit_count * size * parts * 4 / (machine.unit_flop_per_s * p["load"])
    launch = p["launch"] * MICRO + np.where(parts > 1, p["join"] * MICRO + joined, 0.0)
    flops = 4 * batch * heads * size * keys
    filled = pairs * parts / machine.unit_count
    return Parts(
        seconds=launch + smooth_max(cores, memory),
        roofline=np.maximum(flops / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": cores, "memory": memory, "launch": launch},
        hints={
            "rounds": np.log2(filled),
            "filled": filled / np.ceil(filled),
            "parts": np.log2(parts),
            "rows": np.log2(rows),
            "heads": np.log2(pairs),
            "balance": np.log2(cores / memory),
            "work": np.log2(flops),
        },
    )


STREAMING_PARAMETERS = {
    "bandwidth": (0.8, 0.1, 1.0),
    "launch": (4.0, 0.5, 50.0),  # µs
    "lane": (0.03, 0.0005, 2.0),  # vector operations per operation of the half-precision peak
    "row": (0.05, 0.0001, 10.0),  # µs a core spends on a row whatever its length
    "bag": (3.0, 0.01, 30.0),  # µs of a bag's further kernels
    "reuse": (0.5, 0.001, 4.0),  # share of the last level that still holds the operands
    "gather": (0.5, 0.02, 1.0),  # share of bandwidth of gathered rows
    "softness": (0.5, 0.01, 1.0),
}


def streaming(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    size, name = weight_bytes(table.dtype), table.kind.name
    share, turns = 1.0, np.ones(len(table))
    launch = np.full(len(table), p["launch"] * MICRO)
    if name == "elementwise":
        elements = table["elements"]
        rows, columns = np.ceil(elements / _TILE_ELEMENTS), np.minimum(elements, _TILE_ELEMENTS)
        moved = elements * (table["inputs"] + 1) * size
        work = columns * (table["inputs"] + 1)
    elif name == "embedding":
        rows, columns = table["rows"], table["columns"]
        moved = rows * (columns * (table["bag"] + 1) * size + table["bag"] * 8)
        work = _padded(columns) * table["bag"]
        share, turns = p["gather"], table["bag"]
        launch = launch + np.where(turns > 1, p["bag"] * MICRO, 0.0)
    else:
        rows, columns = table["rows"], table["columns"]
        moved = 2 * rows * columns * size
        work = _padded(columns)
    cold = moved / (moved + p["reuse"] * machine.last_level_bytes)
    memory = moved * cold / (machine.memory_byte_per_s * p["bandwidth"] * share)
    row = work / (machine.unit_flop_per_s * p["lane"]) + p["row"] * MICRO * turns
    arithmetic = waves(rows, machine.unit_count, p["softness"]) * row
    rounds = rows / machine.unit_count
    return Parts(
        seconds=launch + smooth_max(memory, arithmetic),
        roofline=moved / machine.memory_byte_per_s,
        bounds={"memory": memory, "vector": arithmetic, "launch": launch},
        hints={
            "rounds": np.log2(rounds),
            "filled": rounds / np.ceil(rounds),
            "padding": columns / _padded(columns),
            "moved": np.log2(moved),
            "balance": np.log2(memory / arithmetic),
        },
    )


def _padded(columns: Array) -> Array:
    return 2 ** np.ceil(np.log2(columns))


CONTEXT = Form(
    "context attention of a described chip", context, ATTENTION_PARAMETERS, ("batch_size", "isl", "num_heads")
)
GENERATION = Form(
    "generation attention of a described chip", generation, GENERATION_PARAMETERS, ("batch_size", "step", "num_heads")
)
STREAMING = Form(
    "streaming on a described chip", streaming, STREAMING_PARAMETERS, ("rows", "columns", "elements", "bag")
)
