"""Power and energy of a `Die`, block by block, from counts of what it does.

Takes an `Activity`, gives energy and power as `Estimate`s. What is published as a chip's TDP is compared with the
activity `at_tdp`.
"""

import math

import numpy as np

from tapeout.figures import Estimate, Provenance, computed, number, total
from tapeout.silicon.activity import Activity
from tapeout.silicon.die import Die
from tapeout.silicon.technology import Technology


def energy(activity: Activity, die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Energy of an activity, with a part a block."""
    scale = _scale(die, technology)
    overhead = technology["power.activity_overhead"]
    joules: dict[str, Estimate] = {}

    def add(block: str, amount: Estimate) -> None:
        joules[block] = joules[block] + amount.to("J") if block in joules else amount.to("J")

    for dtype, count in activity.multiply_accumulates.items():
        if die.analogue is not None:
            add("matrix engines", number(count * die.analogue.conversions * die.analogue.conversion_pj, "pJ"))
            continue
        add("matrix engines", count * technology[f"energy.multiply_accumulate.{dtype}"] * scale * overhead)
    lane = technology["energy.vector_lane_factor"]
    for dtype, count in activity.vector_operations.items():
        known = dtype if dtype in ("float32", "float64", "float16", "bfloat16") else "float32"
        add("vector engines", count * technology[f"energy.multiply_accumulate.{known}"] * lane * scale * overhead)
    moved = activity.bytes_moved
    scratchpad = number(moved.get("scratchpad", 0), "B") * sram_energy(die.scratchpad_bank_bytes, technology)
    add("scratchpads", scratchpad * scale * overhead)
    passing = number(moved.get("last_level", 0), "B")
    if die.network is None:
        add("last-level SRAM and network", passing * technology["energy.last_level"] * scale * overhead)
    else:
        if die.large_sram_bytes:
            add("last-level SRAM and network", passing * technology["energy.sram.1MiB"] * scale * overhead)
        add("last-level SRAM and network", passing.to("bit") * _hops(die, area, technology) * scale * overhead)
    if die.has_dram:
        a_bit = (
            technology[f"energy.dram.{die.memory_kind}"]
            if die.memory_pj_per_bit is None
            else number(die.memory_pj_per_bit, "pJ/bit")
        )
        add("memory and its interfaces", number(moved.get("memory", 0), "B").to("bit") * a_bit)
    if die.border_bytes_per_s:
        crossing = passing.to("bit") * ((die.die_count - 1) / die.die_count)
        add("links between dies", crossing * technology["energy.die_link"])
    off_chip = number(moved.get("link", 0) + moved.get("host", 0), "B").to("bit")
    add("links and host", off_chip * technology["energy.serial_link"])
    duration = number(activity.duration_s, "s")
    clock = die.clock_hz / 1e9 * area * technology["power.clock_density"] * scale * duration
    add("clock and control", clock)
    add("leakage", area * technology["power.leakage_density"] * duration)
    if die.io_die_mm2:
        io_area = number(die.io_die_mm2, "mm²")
        io_clock = die.clock_hz / 1e9 * technology["power.clock_density"] * _scale(die, technology, die.io_die_node)
        add("I/O die", io_area * (io_clock + technology["power.leakage_density"]) * duration)
    parts = [amount.called(block, provenance=Provenance.MODELLED) for block, amount in joules.items()]
    return total(f"energy, {activity.name}", [part for part in parts if part.value > 0])


def power(activity: Activity, die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Mean power over an activity, with a part a block."""
    spent = energy(activity, die, area, technology)
    parts = [(part / number(activity.duration_s, "s")).to("W").called(part.name) for part in spent.parts]
    return total(activity.name, parts)


def sram_energy(bank_bytes: float, technology: Technology) -> Estimate:
    """Energy a byte of a memory bank, between the sizes that are tabulated, along the logarithm of the size."""
    sizes = {"8KiB": 8 << 10, "32KiB": 32 << 10, "1MiB": 1 << 20}
    names = list(sizes)
    bank = min(max(bank_bytes, sizes["8KiB"]), sizes["1MiB"])
    below = max((name for name in names[:-1] if sizes[name] <= bank), key=lambda name: sizes[name])
    above = names[names.index(below) + 1]
    weight = math.log(bank / sizes[below]) / math.log(sizes[above] / sizes[below])
    return technology[f"energy.sram.{below}"] * (1 - weight) + technology[f"energy.sram.{above}"] * weight


def _hops(die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Energy of a bit on its mean way through a described network: each hop is a router and a wire as long as the pitch
    of the stations, which are spread over the area."""
    assert die.network is not None
    pitch = computed("mm", np.sqrt, (area / die.network.station_count).to("mm²"))
    return die.network.mean_hops * (technology["energy.router"] + pitch * technology["energy.wire"])


def _scale(die: Die, technology: Technology, process_node: str | None = None) -> Estimate:
    """Energy relative to N7 at its nominal supply, in the die's node or another at the same clock."""
    clock_ghz = die.clock_hz / 1e9
    supply = computed("", lambda slope: ((1 - slope) + slope * clock_ghz / 1.4) ** 2, technology["voltage_slope"])
    return technology[f"energy_scale.{process_node or die.process_node}"] * supply
