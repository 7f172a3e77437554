"""Results of the synthesis of a core, as a page and as figures for a technology file."""

from tapeout.report.page import Block, Page, Paragraph, Table
from tapeout.report.units import significant
from tapeout.rtl.synthesis import TRANSISTORS_PER_NAND2, Synthesis
from tapeout.silicon.technology import Technology


def square_micrometres(nand2_equivalents: float, node: str, technology: Technology) -> float:
    """Area of gates at the density of a node's cells, wires and everything else left out."""
    density = technology[f"logic_density.{node}"].value
    return nand2_equivalents * TRANSISTORS_PER_NAND2 / density


def multiply_accumulate_area(synthesis: Synthesis, technology: Technology, node: str) -> float:
    """The matrix engine over its cells, in µm²."""
    engine = synthesis.chip.core.matrix
    count = engine.row_count * engine.column_count
    return square_micrometres(synthesis.nand2_equivalents("core.matrix_engine"), node, technology) / count


def vector_lane_area(synthesis: Synthesis, technology: Technology, node: str) -> float:
    """The vector engine over its lanes, in µm²."""
    count = synthesis.chip.core.vector.lane_count
    return square_micrometres(synthesis.nand2_equivalents("core.vector_engine"), node, technology) / count


def page(synthesis: Synthesis, technology: Technology) -> Page:
    chip, node = synthesis.chip, synthesis.chip.process_node
    mapped = any(block.area is not None for block in synthesis.blocks)
    delay = technology["gate_delay.N7"]
    rows = []
    for block in synthesis.blocks:
        picoseconds = block.logic_levels * delay.value
        rows.append(
            (
                block.name,
                str(block.count),
                f"{block.nand2_equivalents:,.0f}",
                f"{block.flip_flops:,}",
                f"{block.memory_bits:,}",
                f"{square_micrometres(block.nand2_equivalents, node, technology):,.0f}",
                "" if block.area is None else f"{block.area:,.1f}",
                str(block.logic_levels),
                significant(1000 / picoseconds, 2) + " GHz" if picoseconds else "",
            )
        )
    found = multiply_accumulate_area(synthesis, technology, "N7")
    published = technology["block_area.multiply_accumulate"]
    total = synthesis.nand2_equivalents("core")
    blocks: list[Block] = [
        Paragraph(
            "Each row is one instance without the blocks inside it. Gates are NAND2 equivalents of four transistors, "
            f"flip-flops included, at the density of {node}'s cells; memories are bits. "
            f"The clock takes {delay.value:g} ps a gate ({delay.provenance}: {delay.source})."
            + (" Cells' area is the liberty file's." if mapped else "")
        ),
        Table(
            ("block", "count", "NAND2", "flip-flops", "memory bits", "µm²", "cells' area", "levels", "clock"),
            rows,
            right=(1, 2, 3, 4, 5, 6, 7, 8),
        ),
        Paragraph(
            f"The core has {total:,.0f} NAND2 equivalents, "
            f"{square_micrometres(total, node, technology) / 1e6:.3f} mm² at {node}'s density."
        ),
        Paragraph(
            f"A multiply-accumulate with its share of the matrix engine is {found:.0f} µm² at N7's density. What "
            f"published dies leave for one is {published.value:g} µm² ({published.provenance}: {published.source}). "
            f"The ratio is {found / published.value:.2f}."
        ),
    ]
    return Page(f"Synthesis: the core of {chip.name}", blocks, kind="synthesis")


def technology_figures(synthesis: Synthesis, technology: Technology) -> str:
    """The areas as a file for `tapeout datasheet --technology`. They hold for N7, as those they replace."""
    areas = {
        "multiply_accumulate": multiply_accumulate_area(synthesis, technology, "N7"),
        "vector_lane": vector_lane_area(synthesis, technology, "N7"),
    }
    return "\n".join(
        f'[block_area.{name}]\nvalue = {value:.1f}\nunit = "µm²"\nprovenance = "modelled"\n'
        f'source = "Yosys: NAND2 equivalents of the core of {synthesis.chip.name} at the density of N7\'s cells"\n'
        for name, value in areas.items()
    )
