"""Chips: the catalog and the described ones in a table that sorts, against the export thresholds, and one to change.

Thresholds are lines through performance and performance density, taken from the rules themselves.
"""

import datetime
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tapeout.accelerator import Accelerator, of_catalogued
from tapeout.chip import REFERENCE_CHIPS, Chip, catalog
from tapeout.chip.changing import changed, value_of
from tapeout.errors import ChipError, TapeoutError
from tapeout.figures import Estimate
from tapeout.report.page import Block, Dot, Heading, Page, Paragraph, Scatter, Table, Widget
from tapeout.report.units import Shown, figure_cell, significant
from tapeout.silicon import export_control, technology
from tapeout.silicon.described import of_chip

COLUMNS = (
    ("year", "year"),
    ("die area", "die_area_mm2"),
    ("memory", "memory_gb"),
    ("memory bandwidth", "memory_gb_per_s"),
    ("half precision", "half_tflops"),
    ("float8", "float8_tflops"),
    ("TDP", "tdp_w"),
    ("price", "price_usd"),
)
MiB = 1 << 20
SLIDERS: tuple[tuple[str, str, Sequence[Any]], ...] = (
    ("core_count", "cores", (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256)),
    ("clock_hz", "clock, Hz", tuple(range(400_000_000, 3_000_000_001, 50_000_000))),
    ("core.matrix.row_count", "matrix rows", (4, 8, 16, 32, 64, 128, 256)),
    ("core.matrix.column_count", "matrix columns", (4, 8, 16, 32, 64, 128, 256)),
    ("core.vector.lane_count", "vector lanes", (8, 16, 32, 64, 128, 256, 512)),
    ("core.scratchpad.size_bytes", "scratchpad, bytes", tuple((1 << n) for n in range(17, 24))),
    ("last_level_sram.size_bytes", "last-level SRAM, bytes", tuple((1 << n) for n in range(22, 30))),
    ("hbm.stack_count", "memory stacks", tuple(range(1, 13))),
    ("links.link_count", "links", tuple(range(0, 33))),
)


@cache
def _figures() -> technology.Technology:
    return technology.load()


@cache
def _accelerator(chip: Chip) -> Accelerator:
    return of_chip(chip, _figures())


@cache
def catalogued() -> tuple[Accelerator, ...]:
    return tuple(of_catalogued(each) for each in catalog.shipped())


def page(own: Mapping[str, Chip], base: str) -> Page:
    """All chips, with the sliders set to the chip of that name. Raises TapeoutError for a name nobody knows."""
    chips = {**REFERENCE_CHIPS, **own}
    if base not in chips:
        raise TapeoutError(f"there is no described chip {base!r}; there are {', '.join(chips)}")
    accelerators = [*(_accelerator(chip) for chip in chips.values()), *catalogued()]
    today = datetime.date.today()
    blocks: list[Block] = [
        Heading("Your own chip"),
        Paragraph(f"Based on {base}. Area, power and price are modelled, for 100,000 chips."),
        Widget("sliders", "The sliders need the studio's script.", sliders(base, chips[base], list(chips))),
        Heading(f"Against the export rules of {today}"),
        scatter(accelerators, today),
        Heading(f"All {len(accelerators)}"),
        Table(
            ("chip", "vendor", *(label for label, _ in COLUMNS)),
            [
                (each.name, each.vendor or "described", *(_cell(each.figure(name)) for _, name in COLUMNS))
                for each in accelerators
            ],
            right=range(2, 2 + len(COLUMNS)),
            caption="Click a heading to sort. A blank is a figure nobody published.",
        ),
    ]
    return Page("Chips", blocks, kind="chips")


def sliders(base: str, chip: Chip, bases: Sequence[str]) -> dict[str, Any]:
    """What the sliders show: each field's choices, with the chip's own value among them."""
    fields = []
    for place, label, choices in SLIDERS:
        if getattr(chip, place.partition(".")[0]) is None:
            continue  # the chip has no DRAM, or no last level
        value = value_of(chip, place)
        kept = sorted({*choices, value})
        fields.append({"field": place, "label": label, "choices": kept, "at": kept.index(value)})
    return {"base": base, "bases": list(bases), "fields": fields}


def _cell(figure: Estimate | None) -> str:
    if figure is None:
        return ""
    shown = f"{figure.value:.0f}" if not str(figure.unit) else f"{significant(figure.value)} {figure.unit}"
    return Shown(shown, value=figure.value, unit=str(figure.unit), provenance=str(figure.provenance))


def scatter(chips: Sequence[Accelerator], date: datetime.date) -> Scatter:
    """Performance against performance density, where both are known, with the control clauses of the date."""
    dots = []
    for chip in chips:
        known = export_control.quantities(chip)
        performance, density = known.get("total_processing_performance"), known.get("performance_density")
        if performance and density and performance.value > 0 and density.value > 0:
            weight = 0.1 if chip.design else 0.03
            label = f"{chip.name}: {significant(performance.value)}, {significant(density.value)}"
            dots.append(Dot(label, performance.value, density.value, weight))
    most_x = max((dot.x for dot in dots), default=1e4)
    most_y = max((dot.y for dot in dots), default=10.0)
    least_y = min((dot.y for dot in dots), default=0.1)
    return Scatter(
        "total processing performance and its density",
        "total processing performance (TPP)",
        "TPP a mm²",
        dots,
        thresholds(date, most_x, least_y, most_y),
    )


def thresholds(
    date: datetime.date, most_x: float, least_y: float, most_y: float
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Where each control clause of performance and density begins, as lines: above and to the right it applies."""
    lines = []
    for rule in export_control.rules():
        if rule.kind != "control" or not rule.in_force(date):
            continue
        limits = {each.quantity: each.threshold for each in rule.when if each.relation == "at_least"}
        performance = limits.get("total_processing_performance")
        if performance is None:
            continue
        density = limits.get("performance_density", least_y)
        points = [(performance, most_y), (performance, density), (max(most_x, performance), density)]
        lines.append((f"{rule.id}", points if density > least_y else points[:2]))
    return lines


def judged(chip: Chip, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Area, power, price and export status of the chip with those changes, or the sentence that refuses it."""
    try:
        made = changed(chip, changes)
    except ChipError as error:
        return {"fault": error.sentence}
    found = of_chip(made, _figures())
    ruling = export_control.check(found, datetime.date.today())
    rows = [
        _row("die area", found.die_area),
        _row("TDP", found.tdp),
        _row("price", found.price, found.missing.get("price_usd", "not known")),
        _row("half precision", found.figure("half_tflops")),
        _row("memory bandwidth", found.figure("memory_gb_per_s")),
        ("TPP", significant(made.total_processing_performance), ""),
    ]
    return {"rows": rows, "export": ruling.sentence, "controlled": bool(ruling.eccn), "name": made.name}


def _row(label: str, figure: Estimate | None, otherwise: str = "") -> tuple[str, str, str]:
    if figure is None:
        return label, otherwise, ""
    low, high = figure.interval()
    spread = f"{significant(low)} to {significant(high)}" if low < high else ""
    return label, str(figure_cell(figure)), spread


def choose(to: str, choices: Mapping[str, Sequence[str]], at: Sequence[str]) -> Widget:
    """A form that chooses one of several names for each parameter of a view."""
    fields = [
        {"name": name, "choices": list(names), "at": chosen}
        for (name, names), chosen in zip(choices.items(), at, strict=True)
    ]
    return Widget(
        "choose", f"Address: {to}?{'&'.join(f'{name}=...' for name in choices)}", {"to": to, "fields": fields}
    )
