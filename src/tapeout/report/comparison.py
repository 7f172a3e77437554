"""Chips side by side as a page."""

from collections.abc import Sequence

from tapeout.accelerator import Accelerator
from tapeout.chip.catalog import COLUMNS
from tapeout.figures import Estimate, Provenance, Stated
from tapeout.report.page import Block, Heading, Page, Paragraph, Table
from tapeout.report.units import figure_cell, significant
from tapeout.silicon.comparison import Line

MARKS = {Provenance.MODELLED: "~", Provenance.ASSUMED: "ᵃ"}
LEGEND = (
    "ᵃ rests on an assumption: press, memory, an estimate (see Sources) or an assumed input of a model  ~ modelled  "
    "unmarked: datasheet, or a choice of design; blank: not published. Memory is counted in powers of two."
)


def page(chips: Sequence[Accelerator], lines: Sequence[Line]) -> Page:
    names = [chip.name for chip in chips]
    blocks: list[Block] = []
    for group in dict.fromkeys(line.group for line in lines):
        rows = [
            (
                f"{line.label}, {line.unit}" if line.unit else line.label,
                *(_cell(figure, line.label) for figure in line.figures),
            )
            for line in lines
            if line.group == group
        ]
        blocks += [Heading(group), Table(("", *names), rows, right=range(1, len(names) + 1))]
    blocks += [Paragraph(LEGEND), Heading("Sources")]
    blocks.append(Table(("chip", "source", "assumed", "note"), [_sources(chip) for chip in chips]))
    return Page("Comparison: " + ", ".join(names), blocks, kind="comparison")


def _cell(figure: Estimate | Stated[str] | None, label: str) -> str:
    if figure is None:
        return ""
    if isinstance(figure, Stated):
        return figure.value
    number = f"{figure.value:.0f}" if label == "year" else significant(figure.value)
    return figure_cell(figure, number + MARKS.get(figure.provenance, ""))


def _sources(chip: Accelerator) -> tuple[str, str, str, str]:
    told = sorted({figure.source for figure in chip.known.values() if figure.source})
    assumed = [
        f"{word}: {', '.join(COLUMNS[column].label for column, each in chip.evidence.items() if each == word)}"
        for word in dict.fromkeys(chip.evidence.values())
    ]
    note = "; ".join(filter(None, [chip.notes, chip.price_note and f"price: {chip.price_note}"]))
    return chip.name, "; ".join(told), "; ".join(assumed), note
