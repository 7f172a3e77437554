"""Activity of a die: counts of operations by dtype and of bytes by level, in a number of seconds.

`Activity`s, for `tapeout.silicon.power` to price in joules: here of peak rates (`at_tdp`, `workloads`), in
`tapeout.workbench.measured_activity` of what a simulator counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tapeout.chip.description import BITS_OF_DTYPE, Chip
from tapeout.silicon.die import Die
from tapeout.silicon.technology import SiliconError

LEVELS = ("scratchpad", "last_level", "memory", "link", "host")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Activity of a die in `duration_s`, as counts, so that simulators of any kind can fill it in.

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
    peak with every byte twice through the last level (a chip without DRAM: the last level at its peak), links and host
    busy both ways, vector engines idle."""
    products = die.multiply_accumulates_per_s
    passing = 2 * die.memory_bytes_per_s if die.memory_side_bytes_per_s is None else die.memory_side_bytes_per_s
    return Activity(
        name="TDP",
        duration_s=1.0,
        multiply_accumulates={"bfloat16": products},
        bytes_moved={
            "scratchpad": products * die.operand_bytes_per_multiply_accumulate,
            "last_level": passing,
            "memory": die.memory_bytes_per_s,
            "link": 2 * die.link_bytes_per_s,
            "host": 2 * die.host_bytes_per_s,
        },
    )


def workloads(chip: Chip, die: Die) -> list[Activity]:
    """Steady states of a second each, derived from peak rates: the roofs between which real programs lie."""
    memory = die.memory_bytes_per_s if die.memory_side_bytes_per_s is None else die.memory_side_bytes_per_s
    lanes = chip.core.vector.lane_count * chip.core_count * chip.clock_hz
    matmul = at_tdp(die)
    decode_batch = 8
    decode_products = min(memory / 2 * decode_batch, die.multiply_accumulates_per_s)
    streaming = {"scratchpad": 2 * memory, "last_level": 2 * memory, "memory": memory}
    if not die.has_dram:
        streaming = {"scratchpad": 2 * memory, "last_level": memory}
    return [
        Activity(
            name="dense bfloat16 matrix product",
            duration_s=1.0,
            multiply_accumulates=matmul.multiply_accumulates,
            bytes_moved={
                "scratchpad": matmul.bytes_moved["scratchpad"],
                # 1024 x 1024 tiles of operands pass the last level once for each tile of the result.
                "last_level": die.multiply_accumulates_per_s * 4 / 1024,
                "memory": die.multiply_accumulates_per_s * 4 / 4096 if die.has_dram else 0.0,
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
