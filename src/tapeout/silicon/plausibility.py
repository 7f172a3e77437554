"""Balances of a chip that no field forbids and no architect would choose, each as a sentence with its figures.

Bounds are wide: a factor of several beyond what any built accelerator of the catalog has.
"""

from collections.abc import Iterator

from tapeout.chip.description import Chip
from tapeout.numerics.operations import FUNCTION_BY_LABEL
from tapeout.silicon.technology import Technology

USUAL_FLOP_PER_BYTE = (4, 2000)
"""Peak bfloat16 operations a byte of main memory. Built accelerators: about 30 (TPU v4i: 150, H20: 37) to 650 (MI355X,
B300); CPUs reach down to 10."""
LEAST_STACK_SHARE = 1 / 8
"""Of the rate that a stack of that kind is made for."""


def implausible(chip: Chip, technology: Technology) -> list[str]:
    """What looks wrong, in sentences. Empty for a chip that is in balance."""
    return list(_memory(chip, technology)) + list(_feeding(chip)) + list(_left_out(chip))


def _left_out(chip: Chip) -> Iterator[str]:
    for name in chip.core.vector.left_out:
        if name not in FUNCTION_BY_LABEL:
            yield f"core.vector.left_out names {name!r}, which is no function of the vector engine"


def _memory(chip: Chip, technology: Technology) -> Iterator[str]:
    memory = chip.hbm
    if memory is None:
        return
    each = memory.bandwidth_bytes_per_s / 1e9 / memory.stack_count
    known = technology.figures.get(f"stack_bandwidth.{memory.kind}")
    if known is not None:
        made_for = known.to("GB/s").value
        if each > made_for * 1.05:
            yield f"{each:,.0f} GB/s from each stack of {memory.kind}, which is made for {made_for:,.0f}"
        if each < made_for * LEAST_STACK_SHARE:
            yield f"{each:,.3g} GB/s from each stack of {memory.kind}, which gives {made_for:,.0f}"
    balance = chip.peak_flops_per_s("bfloat16") / memory.bandwidth_bytes_per_s
    least, most = USUAL_FLOP_PER_BYTE
    if balance > most:
        yield f"{balance:,.0f} bfloat16 operations for each byte of {memory.kind}; above {most:,} engines stay idle"
    if balance < least:
        yield f"{balance:.2g} bfloat16 operations for each byte of {memory.kind}; below {least} memory stays idle"
    in_flight = chip.core_count * chip.core.load_dma.outstanding_bytes
    needed = memory.bandwidth_bytes_per_s * (memory.latency_ns + memory.row_miss_ns) * 1e-9
    if in_flight < needed:
        yield (
            f"{in_flight:,} bytes in flight of all cores; {needed:,.0f} are needed to keep {memory.kind} busy through "
            "its latency"
        )
    if chip.last_level_bytes > memory.size_bytes:
        yield "more last-level SRAM than main memory"


def _feeding(chip: Chip) -> Iterator[str]:
    core, memory = chip.core, chip.global_memory
    loads = chip.core_count * core.load_dma.bytes_per_cycle * chip.clock_hz
    if loads < memory.bandwidth_bytes_per_s:
        yield (
            f"cores load {loads / 1e9:,.0f} GB/s together, {memory.kind} gives "
            f"{memory.bandwidth_bytes_per_s / 1e9:,.0f}: the rest is never used"
        )
    sram = chip.memory_side
    served = sram.slice_count * sram.bytes_per_cycle_per_slice * chip.clock_hz
    if served < memory.bandwidth_bytes_per_s:
        yield (
            f"last-level SRAM serves {served / 1e9:,.0f} GB/s, less than the {memory.bandwidth_bytes_per_s / 1e9:,.0f} "
            "of the memory behind it"
        )
    matrix = core.matrix
    operands = 2 * (matrix.row_count + matrix.column_count)  # bfloat16, of one step along k
    if operands > core.scratchpad.bandwidth_bytes_per_cycle:
        yield (
            f"a step of the {matrix.row_count} x {matrix.column_count} array reads {operands:,} bytes a cycle, the "
            f"scratchpad gives {core.scratchpad.bandwidth_bytes_per_cycle:,}"
        )
    links = chip.links.link_count * chip.links.bandwidth_bytes_per_s
    if links > memory.bandwidth_bytes_per_s:
        yield (
            f"links carry {links / 1e9:,.0f} GB/s each way, more than the {memory.bandwidth_bytes_per_s / 1e9:,.0f} of "
            "main memory"
        )
