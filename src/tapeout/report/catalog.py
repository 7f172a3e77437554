"""The catalog of other vendors' chips as tables. A blank cell is a figure nobody published."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from tapeout.chip.catalog import COLUMNS, CataloguedChip, Fact
from tapeout.report.units import significant

MARKS = {
    "design": "",
    "datasheet": "",
    "modelled": "~",
    "press": "ᵖ",
    "recalled": "ʳ",
    "estimate": "ᵉ",
}
LEGEND = "ᵖ press  ʳ recalled  ᵉ estimate  ~ modelled  unmarked: datasheet; blank: not published"
_OVERVIEW = (
    "year",
    "process_node",
    "half_tflops",
    "float8_tflops",
    "memory_gb",
    "memory_gb_per_s",
    "tdp_w",
    "price_usd",
)


def overview(chips: Sequence[CataloguedChip]) -> Table:
    """A row a chip, with the figures one looks at first."""
    table = Table(title=f"Catalog: {len(chips)} chips of other vendors", caption=LEGEND, box=SIMPLE)
    table.add_column("name", no_wrap=True)
    table.add_column("vendor")
    for name in _OVERVIEW:
        column = COLUMNS[name]
        heading = f"{column.label}, {column.unit}" if column.unit else column.label
        table.add_column(heading, justify="right" if column.numeric else "left")
    for chip in chips:
        cells = (cell(chip.facts.get(name), name) for name in _OVERVIEW)
        table.add_row(escape(chip.name), escape(chip.text("vendor")), *map(escape, cells))
    return table


def sheet(chip: CataloguedChip) -> Table:
    """Every known figure of one chip, with how sure it is."""
    sources = {fact.source for fact in chip.facts.values()}
    table = Table(title=escape(chip.name), caption=escape("; ".join(sorted(sources))), box=SIMPLE)
    table.add_column("figure", no_wrap=True)
    table.add_column("value")
    table.add_column("confidence", style="dim")
    for name, fact in chip.facts.items():
        column = COLUMNS[name]
        shown = f"{cell(fact, name, marked=False)} {column.unit}".strip()
        table.add_row(escape(column.label), escape(shown), fact.confidence)
    return table


def cell(fact: Fact | None, column: str, *, marked: bool = True) -> str:
    """One cell as text: three digits and a mark for its confidence; "" when nothing is known."""
    if fact is None:
        return ""
    if isinstance(fact.value, str):
        return fact.value
    figure = f"{fact.value:.0f}" if column == "year" else significant(fact.value)
    return figure + (MARKS[fact.confidence] if marked else "")
