"""Power and energy of a `Die`, block by block, from counts of what it does.

Takes an `Activity`: multiply-accumulates and elementwise operations by dtype, bytes by level, and the time they took,
counted by a simulator or derived from peak rates. Gives energy and power as `Estimate`s. What is published as a chip's
TDP is compared with the activity `at_tdp`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tapeout.chip.description import BITS_OF_DTYPE, Chip
from tapeout.estimate import Estimate, Provenance, computed, number, total
from tapeout.silicon.die import Die
from tapeout.silicon.technology import SiliconError, Technology

LEVELS = ("scratchpad", "last_level", "memory", "link", "host")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a die did in `duration_s`: counts, so simulators of any kind can fill it in.

    Multiply-accumulates are the matrix engines', operations the vector engines'; bytes are read plus written at a
    level, for links and host sent plus received. What is left out counts as none.
    """

    name: str
    duration_s: float
    multiply_accumulates: Mapping[str, float] = field(default_factory=dict)
    vector_operations: Mapping[str, float] = field(default_factory=dict)
    bytes_moved: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.duration_s > 0:
            raise SiliconError(f"activity {self.name!r}: duration_s={self.duration_s!r} is not positive")
        for counts, known, what in (
            (self.multiply_accumulates, BITS_OF_DTYPE, "dtype"),
            (self.vector_operations, BITS_OF_DTYPE, "dtype"),
            (self.bytes_moved, LEVELS, "level"),
        ):
            for key, value in counts.items():
                if key not in known:
                    raise SiliconError(f"activity {self.name!r}: unknown {what} {key!r}; known: {', '.join(known)}")
                if not value >= 0:
                    raise SiliconError(f"activity {self.name!r}: {key}={value!r} is negative")


def at_tdp(die: Die) -> Activity:
    """A second of what sets a thermal limit: matrix engines at their bf16 peak from the nearest memory, DRAM at its
    peak with every byte twice through the last level, links and host busy both ways, vector engines idle."""
    products = die.multiply_accumulates_per_s
    return Activity(
        name="TDP",
        duration_s=1.0,
        multiply_accumulates={"bfloat16": products},
        bytes_moved={
            "scratchpad": products * die.operand_bytes_per_multiply_accumulate,
            "last_level": 2 * die.memory_bytes_per_s,
            "memory": die.memory_bytes_per_s,
            "link": 2 * die.link_bytes_per_s,
            "host": 2 * die.host_bytes_per_s,
        },
    )


def workloads(chip: Chip, die: Die) -> list[Activity]:
    """Steady states of a second each, derived from peak rates: the roofs between which real programs lie."""
    memory = die.memory_bytes_per_s
    lanes = chip.core.vector.lane_count * chip.core_count * chip.clock_hz
    matmul = at_tdp(die)
    decode_batch = 8
    decode_products = min(memory / 2 * decode_batch, die.multiply_accumulates_per_s)
    streaming = {"scratchpad": 2 * memory, "last_level": 2 * memory, "memory": memory}
    return [
        Activity(
            name="dense bfloat16 matrix product",
            duration_s=1.0,
            multiply_accumulates=matmul.multiply_accumulates,
            bytes_moved={
                "scratchpad": matmul.bytes_moved["scratchpad"],
                # 1024 x 1024 tiles of operands pass the last level once for each tile of the result.
                "last_level": die.multiply_accumulates_per_s * 4 / 1024,
                "memory": die.multiply_accumulates_per_s * 4 / 4096,
            },
        ),
        Activity(
            name=f"language model decoding, batch {decode_batch}",
            duration_s=1.0,
            multiply_accumulates={"bfloat16": decode_products},
            bytes_moved=streaming,
        ),
        Activity(
            name="elementwise float32, streaming",
            duration_s=1.0,
            vector_operations={"float32": min(memory / 4, lanes)},
            bytes_moved=streaming,
        ),
        Activity(name="idle, clock running", duration_s=1.0),
    ]


def energy(activity: Activity, die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Energy of an activity, with a part a block."""
    scale = _scale(die, technology)
    overhead = technology["power.activity_overhead"]
    joules: dict[str, Estimate] = {}

    def add(block: str, amount: Estimate) -> None:
        joules[block] = joules[block] + amount.to("J") if block in joules else amount.to("J")

    for dtype, count in activity.multiply_accumulates.items():
        add("matrix engines", count * technology[f"energy.multiply_accumulate.{dtype}"] * scale * overhead)
    lane = technology["energy.vector_lane_factor"]
    for dtype, count in activity.vector_operations.items():
        known = dtype if dtype in ("float32", "float64", "float16", "bfloat16") else "float32"
        add("vector engines", count * technology[f"energy.multiply_accumulate.{known}"] * lane * scale * overhead)
    moved = activity.bytes_moved
    scratchpad = number(moved.get("scratchpad", 0), "B") * sram_energy(die.scratchpad_bank_bytes, technology)
    add("scratchpads", scratchpad * scale * overhead)
    last_level = number(moved.get("last_level", 0), "B") * technology["energy.last_level"]
    add("last-level SRAM and network", last_level * scale * overhead)
    dram = number(moved.get("memory", 0), "B").to("bit") * technology[f"energy.dram.{die.memory_kind}"]
    add("memory and its interfaces", dram)
    off_chip = number(moved.get("link", 0) + moved.get("host", 0), "B").to("bit")
    add("links and host", off_chip * technology["energy.serial_link"])
    duration = number(activity.duration_s, "s")
    clock = die.clock_hz / 1e9 * area * technology["power.clock_density"] * scale * duration
    add("clock and control", clock)
    add("leakage", area * technology["power.leakage_density"] * duration)
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


def _scale(die: Die, technology: Technology) -> Estimate:
    """Energy on the die relative to N7 at its nominal supply."""
    clock_ghz = die.clock_hz / 1e9
    supply = computed("", lambda slope: ((1 - slope) + slope * clock_ghz / 1.4) ** 2, technology["voltage_slope"])
    return technology[f"energy_scale.{die.process_node}"] * supply
