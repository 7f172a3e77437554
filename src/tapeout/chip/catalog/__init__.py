"""Other vendors' chips: published figures, each with its source and confidence.

Takes the table that ships (`chips.csv`) and tables of the same form that users add; gives `CataloguedChip`s, whose
every cell is a `Fact`. What nobody published is absent, never zero. Derives nothing but ratios of its own cells.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from tapeout.chip.description import shown_path
from tapeout.errors import TapeoutError
from tapeout.figures import Provenance

CONFIDENCES = {
    "design": Provenance.DEFINED,
    "datasheet": Provenance.PUBLISHED,
    "modelled": Provenance.MODELLED,
    "press": Provenance.ASSUMED,
    "recalled": Provenance.ASSUMED,
    "estimate": Provenance.ASSUMED,
}
"""The words a table may use for how far a figure can be trusted, most first, and what each is worth. `design`: a choice
of a chip description, not of silicon; `modelled`: computed by Tapeout; `press`: reported by others than the vendor;
`recalled`: filled in from general knowledge and not read again."""


class CatalogError(TapeoutError, ValueError):
    """A table of chips with a bad cell, or a chip that is not in it."""


@dataclass(frozen=True)
class Column:
    """One figure of the table: its unit, and what people call it."""

    label: str
    unit: str = ""
    numeric: bool = True


TEXT_COLUMNS = {
    "aliases": "other names",
    "vendor": "vendor",
    "status": "status",
    "process_node": "process node",
    "foundry": "foundry",
    "data_center": "for data centres",
    "matrix_tile": "matrix instruction, m x n x k",
    "async_copy": "copies to unit memory run by themselves",
    "memory_kind": "memory kind",
    "scaleup_name": "scale-up links",
    "peer_to_peer": "chips reach each other's memory",
    "price_note": "price is",
    "software": "software",
    "torch_device": "PyTorch device",
    "collectives": "collectives",
    "kubernetes_resource": "Kubernetes resource",
    "notes": "notes",
}
COLUMNS: dict[str, Column] = {
    "year": Column("year"),
    "die_area_mm2": Column("die area", "mm²"),
    "die_count": Column("dies"),
    "transistors_bn": Column("transistors", "G"),
    "compute_units": Column("compute units"),
    "base_clock_mhz": Column("base clock", "MHz"),
    "boost_clock_mhz": Column("boost clock", "MHz"),
    "float64_tflops": Column("float64", "TFLOP/s"),
    "float32_tflops": Column("float32", "TFLOP/s"),
    "tf32_tflops": Column("tf32", "TFLOP/s"),
    "half_tflops": Column("bfloat16 or float16", "TFLOP/s"),
    "float8_tflops": Column("float8", "TFLOP/s"),
    "int8_tops": Column("int8", "TOP/s"),
    "float4_tflops": Column("float4", "TFLOP/s"),
    "memory_gb": Column("memory", "GiB"),
    "memory_gb_per_s": Column("memory bandwidth", "GB/s"),
    "sram_mb": Column("SRAM beside cores", "MiB"),
    "last_level_mb": Column("last-level SRAM", "MiB"),
    "scaleup_gb_per_s": Column("scale-up, one direction", "GB/s"),
    "scaleup_chip_count": Column("chips in a scale-up domain"),
    "tdp_w": Column("TDP", "W"),
    "all_in_kw": Column("all-in power of a chip's share", "kW"),
    "price_usd": Column("price", "USD"),
    "hyperscaler_usd_per_h": Column("cost to a hyperscaler", "USD/h"),
    "neocloud_usd_per_h": Column("cost to a neocloud", "USD/h"),
    "rental_usd_per_h": Column("three-year rental", "USD/h"),
    "measured_half_tflops": Column("measured bfloat16 product", "TFLOP/s"),
    "measured_float8_tflops": Column("measured float8 product", "TFLOP/s"),
} | {name: Column(label, numeric=False) for name, label in TEXT_COLUMNS.items()}
"""Vendors count memory in powers of two and write GB and MB: `memory_gb`, `sram_mb` and `last_level_mb` are read so."""

_BESIDE_CELLS = ("name", "confidence", "source", "recalled_fields")
_NEVER_IN_DATASHEETS = (
    "all_in_kw",
    "price_usd",
    "hyperscaler_usd_per_h",
    "neocloud_usd_per_h",
    "rental_usd_per_h",
    "measured_half_tflops",
    "measured_float8_tflops",
)
PEAK_BITS = {
    "float64_tflops": 64,
    "float32_tflops": 32,
    "half_tflops": 16,
    "float8_tflops": 8,
    "int8_tops": 8,
    "float4_tflops": 4,
}
"""Peak rates that count towards total processing performance, with the bits of an operand."""


@dataclass(frozen=True)
class Fact:
    """One cell: what is known, how well, and from where."""

    value: float | str
    confidence: str
    source: str

    @property
    def provenance(self) -> Provenance:
        return CONFIDENCES[self.confidence]


@dataclass(frozen=True)
class CataloguedChip:
    """One row. `facts` holds only cells that are filled."""

    name: str
    facts: Mapping[str, Fact]

    def figure(self, column: str) -> float | None:
        fact = self.facts.get(column)
        return float(fact.value) if fact is not None else None

    def text(self, column: str) -> str:
        fact = self.facts.get(column)
        return str(fact.value) if fact is not None else ""


@cache
def shipped() -> tuple[CataloguedChip, ...]:
    """The chips that come with Tapeout."""
    return _read((resources.files("tapeout.chip.catalog") / "chips.csv").read_text("utf-8"), "chips.csv")


def load(own: Path | None = None) -> tuple[CataloguedChip, ...]:
    """The shipped chips, with those of the user's table added; one of the same name replaces. Raises CatalogError."""
    if own is None:
        return shipped()
    try:
        text = own.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{shown_path(str(own))}: cannot be read: {error}") from None
    added = _read(text, shown_path(str(own)))
    return (*(chip for chip in shipped() if chip.name not in {each.name for each in added}), *added)


def find(query: str, chips: Sequence[CataloguedChip]) -> CataloguedChip:
    """The chip of that name or other name; else the only one that has the query's words among its name's words, or
    whose words begin with them. Raises CatalogError that lists what was close."""
    for chip in chips:
        if query.casefold() in (chip.name.casefold(), chip.text("aliases").casefold()):
            return chip
    words = _words(query)
    whole = [chip for chip in chips if words and set(words) <= set(_words(chip.name))]
    begun = [chip for chip in chips if words and all(any(w.startswith(q) for w in _words(chip.name)) for q in words)]
    for found in (whole, begun):
        if len(found) == 1:
            return found[0]
        if found:
            raise CatalogError(f"{query!r} fits several chips: {', '.join(chip.name for chip in found)}")
    nearest = difflib.get_close_matches(query, [chip.name for chip in chips], n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(name) for name in nearest)}?" if nearest else "."
    raise CatalogError(f"no chip {query!r} in the catalog{hint} `tapeout chips` lists all of them")


def select(
    chips: Iterable[CataloguedChip], *, vendor: str | None = None, conditions: Iterable[str] = (), sort: str = ""
) -> list[CataloguedChip]:
    """Chips that meet every condition ("memory_gb>=96"), sorted by a column, largest first; unknown cells never meet
    a condition and sort last. Raises CatalogError for a column or condition nobody understands."""
    kept = [chip for chip in chips if vendor is None or vendor.casefold() in chip.text("vendor").casefold()]
    for condition in conditions:
        kept = [chip for chip in kept if _meets(chip, condition)]
    if not sort:
        return kept
    if not _column(sort).numeric:
        return sorted(kept, key=lambda chip: chip.text(sort).casefold())
    return sorted(kept, key=lambda chip: (chip.figure(sort) is None, -(chip.figure(sort) or 0)))


def _meets(chip: CataloguedChip, condition: str) -> bool:
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|=|<|>)\s*(.+?)\s*", condition)
    if not match:
        raise CatalogError(f"{condition!r} is not a condition; write one like memory_gb>=96 or vendor=AMD")
    name, operator, wanted = match.groups()
    if not _column(name).numeric:
        if operator != "=":
            raise CatalogError(f"{condition!r}: {name} is text; only = compares it")
        return wanted.casefold() in chip.text(name).casefold()
    try:
        threshold = float(wanted)
    except ValueError:
        raise CatalogError(f"{condition!r}: {wanted!r} is not a number") from None
    value = chip.figure(name)
    if value is None:
        return False
    return {
        "<=": value <= threshold,
        ">=": value >= threshold,
        "=": value == threshold,
        "<": value < threshold,
        ">": value > threshold,
    }[operator]


def _column(name: str) -> Column:
    if name not in COLUMNS:
        raise CatalogError(_unknown_column(name))
    return COLUMNS[name]


def _unknown_column(name: str) -> str:
    nearest = difflib.get_close_matches(name, [*COLUMNS, *_BESIDE_CELLS], n=1)
    return f"unknown column {name!r}{f'; did you mean {nearest[0]!r}?' if nearest else ''} Known: {', '.join(COLUMNS)}"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9.]+", text.casefold())


def _read(text: str, where: str) -> tuple[CataloguedChip, ...]:
    reader = csv.reader(text.splitlines())
    header = next(reader, [])
    for name in header:
        if name not in COLUMNS and name not in _BESIDE_CELLS:
            raise CatalogError(f"{where}:1: {_unknown_column(name)}")
    for name in ("name", "confidence", "source"):
        if name not in header:
            raise CatalogError(f"{where}:1: column {name!r} is missing")
    chips: dict[str, CataloguedChip] = {}
    for row in reader:
        place = f"{where}:{reader.line_num}"
        if not row:
            continue
        if len(row) != len(header):
            raise CatalogError(f"{place}: {len(row)} cells where the header has {len(header)}")
        chip = _chip(dict(zip(header, (cell.strip() for cell in row), strict=True)), place)
        if chip.name in chips:
            raise CatalogError(f"{place}: {chip.name} is in the table twice")
        chips[chip.name] = chip
    return tuple(chips.values())


def _chip(row: dict[str, str], place: str) -> CataloguedChip:
    name = row["name"]
    if not name:
        raise CatalogError(f"{place}: a chip without a name")
    # "datasheet (TDP estimate)": the row is a datasheet's, the named column an estimate.
    confidence, _, exception = row["confidence"].partition(" (")
    if confidence not in CONFIDENCES:
        raise CatalogError(
            f"{place}: {name}.confidence={row['confidence']!r} is not known; choose from {', '.join(CONFIDENCES)}"
        )
    if not row["source"]:
        raise CatalogError(f"{place}: {name} has no source; a figure nobody can look up is not a fact")
    recalled = row.get("recalled_fields", "").split()
    for column in recalled:
        if column not in COLUMNS:
            raise CatalogError(f"{place}: {name}.recalled_fields: {_unknown_column(column)}")
    facts: dict[str, Fact] = {}
    for column, cell in row.items():
        if column in _BESIDE_CELLS or not cell:
            continue
        value: float | str = cell
        if COLUMNS[column].numeric:
            try:
                value = float(cell)
            except ValueError:
                raise CatalogError(f"{place}: {name}.{column}={cell!r} is not a number") from None
            if not value >= 0 or value == float("inf"):
                raise CatalogError(f"{place}: {name}.{column}={cell} is not a quantity; it cannot be below zero")
        sure = "recalled" if column in recalled else confidence
        if exception == "TDP estimate)" and column == "tdp_w":
            sure = "estimate"
        if column in _NEVER_IN_DATASHEETS and sure == "datasheet":
            sure = "press"
        facts[column] = Fact(value, sure, row["source"])
    chip = CataloguedChip(name, facts)
    _refuse_contradictions(chip, place)
    return chip


YES_OR_NO = ("data_center", "async_copy", "peer_to_peer")
_AT_MOST = (
    ("base_clock_mhz", "boost_clock_mhz", 1.0),
    ("measured_half_tflops", "half_tflops", 1.0),
    ("measured_float8_tflops", "float8_tflops", 1.0),
    ("tdp_w", "all_in_kw", 1000.0),
)
"""Pairs of columns where the first cannot exceed the second times a factor."""


def _refuse_contradictions(chip: CataloguedChip, place: str) -> None:
    for smaller, larger, factor in _AT_MOST:
        low, high = chip.figure(smaller), chip.figure(larger)
        if low is not None and high is not None and low > high * factor:
            raise CatalogError(f"{place}: {chip.name}: {smaller}={low:g} contradicts {larger}={high:g}")
    for column in YES_OR_NO:
        if chip.text(column) not in ("", "yes", "no"):
            raise CatalogError(f"{place}: {chip.name}.{column}={chip.text(column)!r}; write yes or no")
    tile = chip.text("matrix_tile")
    if tile and not re.fullmatch(r"[1-9]\d* x [1-9]\d* x [1-9]\d*", tile):
        raise CatalogError(f"{place}: {chip.name}.matrix_tile={tile!r}; write it like 64 x 256 x 16")
