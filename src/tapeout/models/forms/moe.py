"""Mixture of experts: tokens are sent to experts by a power law, two grouped products, a gated activation between.

Experts are taken in eight classes of load. Each class's tokens fill tiles of its experts; only experts that got a token
have their weights read. The kernel is assumed to take the fastest tile. Pieces: as in a matrix product.
"""

from collections.abc import Mapping

import numpy as np

from tapeout.models.forms.base import MICRO, WEIGHT_ONLY, Form, Parts, activation_bytes, smooth_max, waves, weight_bytes
from tapeout.models.machine import Machine
from tapeout.models.tables import Array, Table, numbers_of

PARAMETERS = {
    "rate": (0.6, 0.1, 1.05),
    "older": (2.0, 0.3, 10.0),  # operations a cycle a unit, in thousands, of kernels that widen weights in registers
    "edge": (20.0, 0.1, 60.0),
    "load": (0.015, 0.002, 0.2),
    "fill": (1.0, 0.02, 30.0),
    "bandwidth": (0.88, 0.2, 1.0),
    "launch": (24.0, 1.0, 500.0),  # µs: routing, sorting and the kernels
    "softness": (0.12, 0.01, 1.0),
    "skew": (0.75, 0.05, 1.5),  # exponent of the load over ranks of experts, over the power law's
    "local": (0.7, 0.001, 4.0),  # how much more than its share the busiest group of experts gets
    "token": (0.3, 0.001, 20.0),  # ns of routing a token to one expert
    "spread": (0.8, 0.05, 1.5),  # bandwidth of activation and sum, over the products'
    "expert": (2.0, 0.01, 500.0),  # ns of bookkeeping an expert
}
UNGATED = ((2688, 1856), (1024, 2688), (2048, 5120))
"""Hidden and intermediate sizes of published models (Nemotron 3) whose experts have two matrices, not gated three."""
_CLASSES = (np.arange(8) + 0.5) / 8
_TILES = ((16.0, 128.0), (32.0, 128.0), (64.0, 128.0), (128.0, 128.0), (128.0, 256.0))


def _exponents(table: Table) -> Array:
    exponents = {"balanced": 0.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2}
    return numbers_of(table.words["distribution"], exponents.__getitem__)


def time(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    tokens, hidden, inter = table["num_tokens"], table["hidden_size"], table["inter_size"]
    chosen, experts = table["topk"], table["num_experts"]
    groups = table["moe_ep_size"]
    exponent = _exponents(table)
    mine = np.maximum(experts / groups, 1)
    width = inter / table["moe_tp_size"]
    busiest = np.where(exponent > 0, 1 + p["local"] * (1 - 1 / groups), 1.0)
    pairs = np.minimum(tokens * chosen * busiest / groups, tokens * np.minimum(chosen, mine))
    share = _CLASSES[None, :] ** (-p["skew"] * exponent[:, None])
    share = share / share.mean(axis=1, keepdims=True)
    load = (pairs / mine)[:, None] * share
    touched = np.where(exponent[:, None] > 0, 1 - np.exp(-load), np.minimum(load, 1.0))
    active = mine * touched.mean(axis=1)
    each = np.maximum(load / np.maximum(touched, 1e-12), 1)
    weight, act = weight_bytes(table.dtype), activation_bytes(table.dtype)
    unit_rate = machine.unit_flop_per_s
    peak = machine.peak_flop_per_s / machine.unit_count * p["rate"]
    if table.dtype in WEIGHT_ONLY:  # such kernels do not use what newer units gained
        peak = min(peak, p["older"] * 1e3 * machine.clock_hz)
    rate = machine.memory_byte_per_s * p["bandwidth"]

    def grouped(rows: float, columns: float, out: Array, depth: Array) -> tuple[Array, Array]:
        tiles = (mine[:, None] / 8 * touched * np.ceil(each / rows)).sum(axis=1) * np.ceil(out / columns)
        product = 2 * rows * columns / peak * (1 + p["edge"] * (1 / rows + 1 / columns))
        loads = (rows * act + columns * weight) / (p["load"] * unit_rate)
        tile_time = max(product, loads) * depth + p["fill"] * MICRO
        compute = waves(np.maximum(tiles, 1), machine.unit_count, p["softness"]) * tile_time
        return compute, (active * out * depth * weight + pairs * (depth * act + out * 2)) / rate

    gates = np.full(len(table), 2.0)
    for shape in UNGATED:
        gates[(hidden == shape[0]) & (inter == shape[1])] = 1.0
    best = np.full(len(table), np.inf)
    compute, memory = np.zeros(len(table)), np.zeros(len(table))
    for rows, columns in _TILES:
        first, second = grouped(rows, columns, gates * width, hidden), grouped(rows, columns, hidden, width)
        total = smooth_max(*first) + smooth_max(*second)
        better = total < best
        best = np.where(better, total, best)
        compute = np.where(better, first[0] + second[0], compute)
        memory = np.where(better, first[1] + second[1], memory)
    # Activation and sum pass over every token's choices, wherever their experts are.
    routed = tokens * chosen
    spread = (tokens * hidden * 2 + routed * hidden * 2 + routed * width * 2 * (gates + 1)) / (rate * p["spread"])
    launch = p["launch"] * MICRO + (p["token"] * routed + p["expert"] * mine) * 1e-9
    # What is sure whatever the routing: an even share of the pairs, and the weights of one expert each token's choice.
    even = tokens * chosen / groups
    flops = 2 * (gates + 1) * even * hidden * width
    certain = np.minimum(np.maximum(chosen / groups, 1 / groups), mine)
    moved = (gates + 1) * certain * hidden * width * weight + 2 * tokens * hidden * 2 / groups
    return Parts(
        seconds=launch + best + spread,
        roofline=np.maximum(flops / machine.peak_flop_per_s, moved / machine.memory_byte_per_s),
        bounds={"matrix": compute, "memory": memory + spread, "launch": launch},
        hints={
            "load": np.log2(pairs / mine),
            "experts": np.log2(mine),
            "width": np.log2(width),
            "pairs": np.log2(pairs),
            "active": np.log2(active * hidden * width),
            "work": np.log2(flops),
            "balance": np.log2(compute / memory),
            "local": np.log2(chosen / groups),
        },
    )


FORM = Form(
    "mixture of experts",
    time,
    PARAMETERS,
    ("num_tokens", "hidden_size", "inter_size"),
    novel=("hidden_size", "inter_size", "topk", "num_experts"),
)
