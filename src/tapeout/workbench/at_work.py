"""The share of a chip at work in a run: of its area and of its transistors, block by block.

    share at work = sum over blocks of (block's share of the die x time it was busy) / time of the run

An engine is busy while it executes an instruction, whether or not every unit in it has an operand: beside this,
`matrix_utilisation` says how many of the multiply-accumulate units had one. Interfaces and the last-level SRAM count by
the bytes they moved against their peak rate. Float64 lanes count as idle: which operations used them is not recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.chip.layout import network_bytes_per_s
from tapeout.silicon import technology
from tapeout.silicon.area import MEMORY_BLOCKS, die_area
from tapeout.silicon.die import of_chip


@dataclass(frozen=True)
class Block:
    """A block of the die: its shares of area and transistors, and of the run's time that it was busy."""

    name: str
    area_share: float
    transistor_share: float
    busy: float


@dataclass(frozen=True)
class AtWork:
    """Shares of the die's area and transistors at work on average, modelled; `blocks` largest first."""

    area_share: float
    transistor_share: float
    blocks: tuple[Block, ...]


def at_work(
    chip: Chip,
    *,
    total_ps: int,
    kernels_ps: int,
    copies_ps: int,
    links_ps: int,
    engine_busy: Mapping[str, float],
    hbm_bytes: int,
    sram_bytes: int,
) -> AtWork:
    """`engine_busy` is each engine's share of the kernels' time over all cores; bytes are those of all kernels."""
    figures = technology.load()
    die = of_chip(chip)
    area = die_area(die, figures)
    seconds = total_ps / 1e12
    inside = kernels_ps / total_ps
    sram = chip.memory_side
    most = max(engine_busy.values(), default=0.0)
    busy = {
        "matrix engines": inside * engine_busy.get("matrix", 0.0),
        "vector lanes": inside * engine_busy.get("vector", 0.0),
        "float64 lanes": 0.0,
        "cores: control, DMA, network": inside * most,
        "scratchpads": inside * most,
        "last-level SRAM": sram_bytes / (sram.slice_count * sram.bytes_per_cycle_per_slice * chip.clock_hz * seconds),
        "network": sram_bytes / (network_bytes_per_s(chip) * seconds) if chip.network else 0.0,
        "links between dies": sram_bytes
        / (sram.slice_count * sram.bytes_per_cycle_per_slice * chip.clock_hz * seconds),
        "memory interfaces": hbm_bytes / (chip.global_memory.bandwidth_bytes_per_s * seconds),
        "links": links_ps / total_ps,
        "host interface": copies_ps / total_ps,
    }
    bits = {"last-level SRAM": 8 * die.large_sram_bytes, "scratchpads": 8 * die.small_sram_bytes}
    logic = (figures[f"logic_density.{die.process_node}"] * figures["transistor_fill"]).to("transistor/mm²").value
    transistors = {
        part.name: bits[part.name] * figures["transistors_per_sram_bit"].value
        if part.name in MEMORY_BLOCKS
        else part.value * logic
        for part in area.parts
    }
    whole = sum(transistors.values())
    blocks = sorted(
        (
            Block(part.name, part.value / area.value, transistors[part.name] / whole, min(busy[part.name], 1.0))
            for part in area.parts
        ),
        key=lambda block: -block.area_share,
    )
    return AtWork(
        area_share=sum(block.area_share * block.busy for block in blocks),
        transistor_share=sum(block.transistor_share * block.busy for block in blocks),
        blocks=tuple(blocks),
    )
