"""Launches on four machines as a page."""

from collections.abc import Sequence

from tapeout.report.page import Block, Page, Paragraph, Table
from tapeout.rtl.cosimulation import Comparison


def page(chip: str, comparisons: Sequence[Comparison]) -> Page:
    rows = [
        (
            each.name,
            " x ".join(map(str, each.grid)),
            f"{each.changed_bytes:,}",
            _verdict(each.functional_bytes),
            _verdict(each.rtl_bytes),
            f"{each.rtl_cycles:,}",
            f"{each.timing_cycles:,}",
            f"{each.cycle_error:+.1%}",
        )
        for each in comparisons
    ]
    columns = ("kernel", "grid", "bytes changed", "functional", "RTL", "RTL cycles", "timing's", "off by")
    blocks: list[Block] = [
        Paragraph(
            "Functional simulator and RTL are held against the reference evaluator, byte by byte. Cycles are those of "
            "the cores: for RTL and timing simulator alike memory answers every request after a fixed time, the "
            "latency of the last-level SRAM."
        ),
        Table(columns, rows, right=(2, 5, 6, 7)),
    ]
    for each in comparisons:
        if each.difference is not None:
            blocks.append(Paragraph(f"{each.name}: first difference of the RTL:\n{each.difference}"))
        if each.microcoded:
            names = ", ".join(each.microcoded)
            blocks.append(Paragraph(f"{each.name}: the RTL has no pipeline for {names}; they run one at a time."))
        if each.waveform is not None:
            blocks.append(Paragraph(f"{each.name}: signals are in {each.waveform}"))
    return Page(f"Co-simulation on {chip}", blocks, kind="cosimulation")


def _verdict(different_bytes: int) -> str:
    return f"{different_bytes:,} bytes differ" if different_bytes else "same"
