"""The catalog of other vendors' chips as tables. A blank cell is a figure nobody published."""

from collections.abc import Sequence

from tapeout.chip.catalog import COLUMNS, CataloguedChip, Fact
from tapeout.report.page import Heading, Page, Table
from tapeout.report.units import Shown, significant

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
    "memory_gb",
    "memory_gb_per_s",
    "half_tflops",
    "float8_tflops",
    "tdp_w",
    "price_usd",
    "process_node",
)


def overview(chips: Sequence[CataloguedChip]) -> list[Heading | Table]:
    """A row a chip, with the figures one looks at first."""
    headings = [
        f"{COLUMNS[name].label}, {COLUMNS[name].unit}" if COLUMNS[name].unit else COLUMNS[name].label
        for name in _OVERVIEW
    ]
    rows = [
        (chip.name, chip.text("vendor"), *(cell(chip.facts.get(name), name) for name in _OVERVIEW)) for chip in chips
    ]
    table = Table(("name", "vendor", *headings), rows, right=range(2, 1 + len(_OVERVIEW)), caption=LEGEND)
    return [Heading(f"Catalog: {len(chips)} chips of other vendors"), table]


def sheet(chip: CataloguedChip) -> Page:
    """Every known figure of one chip, with how sure it is."""
    sources = {fact.source for fact in chip.facts.values()}
    rows = []
    for name, fact in chip.facts.items():
        unit = COLUMNS[name].unit
        shown = cell(fact, name, marked=False)
        rows.append((COLUMNS[name].label, _with_unit(shown, unit) if unit else shown, fact.confidence))
    table = Table(("figure", "value", "confidence"), rows, caption="; ".join(sorted(sources)))
    return Page(chip.name, [table], kind="chip")


def _with_unit(shown: str, unit: str) -> str:
    text = f"{shown} {unit}"
    return Shown(text, **{**shown.data, "unit": unit}) if isinstance(shown, Shown) else text


def cell(fact: Fact | None, column: str, *, marked: bool = True) -> str:
    """One cell as text: three digits and a mark for its confidence; "" when nothing is known."""
    if fact is None:
        return ""
    if isinstance(fact.value, str):
        return fact.value
    figure = f"{fact.value:.0f}" if column == "year" else significant(fact.value)
    text = figure + (MARKS[fact.confidence] if marked else "")
    return Shown(text, value=fact.value, provenance=fact.confidence, source=fact.source)
