"""Attention of a prompt (context) and of one new token a sequence (generation), plain, grouped, windowed and latent.

Context: tiles of queries, each against the keys its mask leaves, spread over units; a tile costs products, exponentials
and a start. Few queries of grouped heads share a tile. Generation: the cache is read once, as fast as as many units as
there are pieces of work can pull it; long caches are cut and their parts combined.
"""

from collections.abc import Mapping

import numpy as np

from tapeout.models.forms.base import MICRO, Form, Parts, smooth_max, waves
from tapeout.models.machine import Machine
from tapeout.models.tables import DTYPE_BYTES, Array, Table, numbers_of

CONTEXT_PARAMETERS = {
    "rate": (0.7, 0.1, 1.05),  # share of peak inside a tile
    "exponent": (4.0, 0.05, 20.0),  # exponentials a unit does per thousand operations of its peak
    "fill": (1.5, 0.02, 30.0),  # µs before a tile's first product
    "imbalance": (1.5, 0.01, 3.0),  # of causal tiles over units
    "softness": (0.5, 0.01, 1.0),
    "bandwidth": (0.33, 0.1, 1.0),
    "store": (0.4, 0.02, 100.0),  # the same for writing keys and values into the cache
    "launch": (9.5, 0.5, 200.0),  # µs
    "sequence": (8.0, 0.01, 2000.0),  # ns a sequence
    "step": (0.15, 0.005, 10.0),  # µs a unit spends on one block of keys whatever its size
    "narrow": (1.05, 0.3, 4.0),  # work on keys of an 8-bit cache, over that of others
}


def _shape(table: Table) -> tuple[Array, ...]:
    names = ("batch_size", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    return tuple(table[name] for name in names)


def _cache_bytes(table: Table) -> Array:
    return numbers_of(table.words["kv_cache_dtype"], DTYPE_BYTES.__getitem__)


def context(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    batch, heads, shared, size, window = _shape(table)
    length, narrow = table["isl"], _cache_bytes(table)
    queries = np.where(size > 128, 64.0, 128.0)
    group = heads / shared
    # Short prompts of grouped heads share a tile, as the kernels pack them.
    packed = np.ceil(length * group / queries) * shared
    tiles = batch * np.minimum(np.ceil(length / queries) * heads, packed)
    span = np.where(window > 0, np.minimum(window, length), length)
    pairs = span * (span + 1) / 2 + (length - span) * span
    # A tile sees whole blocks of keys, on average half a tile more than its mask leaves.
    keys = np.minimum(pairs / length + np.minimum(queries, length) / 2 + 32, np.ceil(length / 64) * 64)
    longest = np.minimum(span + queries, np.ceil(length / 64) * 64)
    peak = machine.peak_flop_per_s / machine.unit_count * p["rate"]
    exponentials = machine.unit_flop_per_s / 1000 * p["exponent"]
    extra = np.where(narrow < 2, p["narrow"], 1.0)

    def cost(seen: Array) -> Array:
        product = 4 * queries * seen * size / peak
        softmax = queries * seen / exponentials
        return smooth_max(product, softmax) * extra + p["fill"] * MICRO + p["step"] * MICRO * seen / 128

    even = waves(tiles, machine.unit_count, p["softness"]) * cost(keys)
    uneven = p["imbalance"] * np.minimum(tiles / machine.unit_count, 1) * (cost(longest) - cost(keys))
    compute = smooth_max(even + np.maximum(uneven, 0), cost(longest))
    moved = batch * length * size * (4 * heads + 2 * shared * narrow)
    memory = moved / (machine.memory_byte_per_s * p["bandwidth"])
    written = batch * length * size * shared * 2 * (2 + narrow)
    # An 8-bit cache has its queries narrowed too, by a pass of its own.
    written = written + np.where(narrow < 2, 3 * batch * length * size * heads, 0.0)
    memory = memory + written / (machine.memory_byte_per_s * p["store"])
    launch = p["launch"] * MICRO + p["sequence"] * 1e-9 * batch
    flops = 4 * batch * heads * size * pairs
    return Parts(
        seconds=launch + smooth_max(compute, memory),
        roofline=np.maximum(flops / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": compute, "memory": memory, "launch": launch},
        hints=_hints(machine, table, tiles, compute / memory, flops, moved),
    )


def _hints(
    machine: Machine, table: Table, tiles: Array, balance: Array, flops: Array, moved: Array
) -> dict[str, Array]:
    heads, shared = table["num_heads"], table["num_key_value_heads"]
    rounds = tiles / machine.unit_count
    jobs = table["batch_size"] * shared / machine.unit_count
    return {
        "group": np.log2(heads / shared),
        "rounds": np.log2(rounds),
        "filled": rounds / np.ceil(rounds),
        "jobs": np.log2(jobs),
        "jobs filled": jobs / np.ceil(jobs),
        "balance": np.log2(balance),
        "work": np.log2(flops),
        "bytes": np.log2(moved),
        "heads": np.log2(table["batch_size"] * heads),
    }


GENERATION_PARAMETERS = {
    "bandwidth": (0.85, 0.2, 1.0),
    "pull": (3.5, 0.3, 20.0),  # bandwidth one unit can draw, in shares of an even one
    "launch": (9.3, 0.5, 200.0),  # µs
    "combine": (2.0, 0.01, 40.0),  # µs to combine the parts of a cut cache
    "fill": (1.7, 0.01, 20.0),  # µs a round of pieces
    "row": (0.2, 0.001, 50.0),  # ns a head of a sequence
    "reuse": (0.3, 0.01, 2.0),  # share of the last level that still holds the cache
    "rate": (0.4, 0.01, 1.05),  # share of peak of products with few queries
    "softness": (0.35, 0.01, 1.0),
    "narrow": (2.0, 0.3, 4.0),  # the same for pulling an 8-bit cache
}


def generation(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    batch, heads, shared, size, window = _shape(table)
    narrow = _cache_bytes(table)
    seen = np.where(window > 0, np.minimum(window, table["step"] + 1), table["step"] + 1)
    cache = 2 * batch * shared * seen * size * narrow
    ends = 4 * batch * heads * size
    jobs = batch * shared
    pieces = np.maximum(jobs, np.minimum(jobs * np.ceil(seen / 256), machine.unit_count))
    rounds = waves(pieces, machine.unit_count, p["softness"])
    unit_rate = machine.memory_byte_per_s * p["bandwidth"] * p["pull"] / machine.unit_count
    narrowed = np.where(narrow < 2, p["narrow"], 1.0)
    pulled = rounds * cache / pieces / unit_rate
    cold = cache / (cache + p["reuse"] * machine.last_level_bytes)
    read = (cache * cold + ends) / (machine.memory_byte_per_s * p["bandwidth"])
    memory = smooth_max(pulled * narrowed, read)
    padded = np.ceil(heads / shared / 16) * 16
    compute = 4 * batch * shared * padded * seen * size * narrowed / (machine.peak_flop_per_s * p["rate"])
    combine = np.where(seen > 256, p["combine"] * MICRO * (1 - np.exp(-seen / 2048)), 0.0)
    launch = p["launch"] * MICRO + rounds * p["fill"] * MICRO + p["row"] * 1e-9 * batch * heads
    flops = 4 * batch * heads * seen * size
    moved = cache + ends
    return Parts(
        seconds=launch + combine + smooth_max(memory, compute),
        roofline=np.maximum(flops / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"memory": memory, "matrix": compute, "launch": launch + combine},
        hints=_hints(machine, table, pieces, compute / memory, flops, moved),
    )


LATENT, ROTARY, HEAD = 512, 64, 128
"""Sizes of multi-head latent attention in DeepSeek's models: the latent vector, its rotary part, a head."""


def _latent(table: Table, keys: str) -> Table:
    """The plain attention that latent attention is to the machine: one shared key head of the latent's size when
    generating, full heads of 192 for a prompt."""
    generating = keys == "step"
    ones = np.ones(len(table))
    columns = dict(table.columns) | {
        "num_key_value_heads": ones if generating else table["num_heads"],
        "head_dim": ones * (LATENT + ROTARY / 2 if generating else (HEAD + ROTARY + HEAD) / 2),
        "window_size": ones * 0,
    }
    return Table(table.kind, table.dtype, columns, table.words, table.seconds)


def context_latent(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    return context(machine, p, _latent(table, "isl"))


def generation_latent(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    # The latent vector serves as key and value: the cache is read once, not twice.
    plain = _latent(table, "step")
    halved = dict(plain.columns) | {"head_dim": plain["head_dim"]}
    return generation(machine, p, Table(plain.kind, plain.dtype, halved, plain.words))


_GROWING = ("batch_size", "isl", "num_heads")
_GROWING_CACHE = ("batch_size", "step", "num_heads")
CONTEXT = Form("context attention", context, CONTEXT_PARAMETERS, _GROWING, far="isl")
GENERATION = Form("generation attention", generation, GENERATION_PARAMETERS, _GROWING_CACHE, far="step")
CONTEXT_MLA = Form("context latent attention", context_latent, CONTEXT_PARAMETERS, _GROWING, far="isl")
GENERATION_MLA = Form(
    "generation latent attention",
    generation_latent,
    GENERATION_PARAMETERS,
    _GROWING_CACHE,
    far="step",
)
