"""Chips side by side as a page."""

from collections.abc import Sequence

from tapeout.chip.catalog import CataloguedChip
from tapeout.report.catalog import LEGEND, cell
from tapeout.report.page import Block, Heading, Page, Paragraph, Table
from tapeout.silicon.comparison import Line


def page(chips: Sequence[CataloguedChip], lines: Sequence[Line]) -> Page:
    names = [chip.name for chip in chips]
    blocks: list[Block] = []
    for group in dict.fromkeys(line.group for line in lines):
        rows = [
            (
                f"{line.label}, {line.unit}" if line.unit else line.label,
                *(cell(fact, line.label) for fact in line.facts),
            )
            for line in lines
            if line.group == group
        ]
        blocks += [Heading(group), Table(("", *names), rows, right=range(1, len(names) + 1))]
    blocks.append(Paragraph(LEGEND.replace("unmarked: datasheet", "unmarked: datasheet, or a choice of design")))
    blocks.append(Heading("Sources"))
    sources = []
    for chip in chips:
        told = sorted({fact.source for fact in chip.facts.values()})
        note = chip.text("notes")
        price = chip.text("price_note")
        sources.append((chip.name, "; ".join(told), "; ".join(filter(None, [note, price and f"price: {price}"]))))
    blocks.append(Table(("chip", "source", "note"), sources))
    return Page("Comparison: " + ", ".join(names), blocks)
