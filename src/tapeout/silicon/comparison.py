"""Chips beside each other: described and catalogued ones, raw, per watt, per dollar and per square millimetre.

Takes chips of either kind, gives rows of `Fact`s. A described chip's rates are its design, its area, power and price
come from the models. A ratio is as sure as the less sure of its two figures, and absent when either is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tapeout.chip.catalog import COLUMNS, CONFIDENCES, CataloguedChip, Fact
from tapeout.chip.description import Chip
from tapeout.silicon.activity import at_tdp
from tapeout.silicon.area import die_area, transistor_count
from tapeout.silicon.die import of_chip
from tapeout.silicon.manufacturing import manufacture
from tapeout.silicon.power import power
from tapeout.silicon.technology import SiliconError, Technology

DEFAULT_VOLUME = 100_000

_PER = {
    "per watt": ("tdp_w", "W"),
    "per dollar": ("price_usd", "USD"),
    "per mm²": ("die_area_mm2", "mm²"),
}
_RATIOS = ("half_tflops", "float8_tflops", "memory_gb_per_s", "memory_gb")


@dataclass(frozen=True)
class Line:
    """One figure of every chip; `facts` in the order of the chips, None where nothing is known."""

    group: str
    label: str
    unit: str
    facts: tuple[Fact | None, ...]


def catalogued(chip: Chip | CataloguedChip, technology: Technology, *, volume: int = DEFAULT_VOLUME) -> CataloguedChip:
    """Any chip as a row of the catalog. A described chip that cannot be priced has no price there."""
    if isinstance(chip, CataloguedChip):
        return chip
    die = of_chip(chip)
    area = die_area(die, technology)
    watts = power(at_tdp(die), die, area, technology)
    facts: dict[str, Fact] = {}

    def chosen(column: str, value: float | str) -> None:
        if value:
            facts[column] = Fact(value, "design", f"chip description {chip.name}")

    def computed(column: str, value: float, source: str) -> None:
        facts[column] = Fact(value, "modelled", source)

    chosen("process_node", chip.process_node)
    computed("die_area_mm2", area.value, "docs/calibration.md")
    computed("transistors_bn", transistor_count(die, area, technology).value, "docs/calibration.md")
    chosen("data_center", "yes")
    peaks = {
        "float64_tflops": "float64",
        "float32_tflops": "float32",
        "half_tflops": "bfloat16",
        "float8_tflops": "float8",
        "int8_tops": "int8",
    }
    for column, dtype in peaks.items():
        chosen(column, chip.peak_flops_per_s(dtype) / 1e12)
    chosen("memory_kind", chip.hbm.kind)
    chosen("memory_gb", chip.hbm.size_bytes / 1e9)
    chosen("memory_gb_per_s", chip.hbm.bandwidth_bytes_per_s / 1e9)
    chosen("sram_mb", chip.core_count * chip.core.scratchpad.size_bytes / 1e6)
    chosen("last_level_mb", chip.last_level_sram.size_bytes / 1e6)
    chosen("scaleup_gb_per_s", die.link_bytes_per_s / 1e9)
    computed("tdp_w", watts.value, "docs/calibration.md")
    try:
        price = manufacture(die, area, technology, volume=volume).price
    except SiliconError as unknown:
        chosen("price_note", f"not known: {unknown}")
    else:
        computed("price_usd", price.value, f"cost model at {volume:,} chips")
        chosen("price_note", f"modelled at {volume:,} chips with a partner's margin")
    return CataloguedChip(chip.name, facts)


def compare(chips: Sequence[CataloguedChip]) -> list[Line]:
    """Every figure any of the chips has, then the ratios. Raises SiliconError without chips."""
    if not chips:
        raise SiliconError("name at least one chip to compare")
    lines = [
        Line("raw", column.label, column.unit, tuple(chip.facts.get(name) for chip in chips))
        for name, column in COLUMNS.items()
        if column.numeric or name in ("process_node", "memory_kind")
    ]
    for group, (below, below_unit) in _PER.items():
        for name in _RATIOS:
            column = COLUMNS[name]
            facts = tuple(_ratio(chip.facts.get(name), chip.facts.get(below), column.unit) for chip in chips)
            unit = f"{_SMALLER.get(column.unit, column.unit)}/{below_unit}"
            lines.append(Line(group, column.label, unit, facts))
    return [line for line in lines if any(line.facts)]


_SMALLER = {"TFLOP/s": "GFLOP/s", "GB/s": "MB/s", "GB": "MB"}
"""Ratios are shown a thousand times finer, so that they are not all zero point something."""


def _ratio(above: Fact | None, below: Fact | None, unit: str) -> Fact | None:
    if above is None or below is None or not below.value:
        return None
    weaker = max(above.confidence, below.confidence, key=CONFIDENCES.index)
    finer = 1000.0 if unit in _SMALLER else 1.0
    return Fact(float(above.value) / float(below.value) * finer, weaker, f"{above.source}; {below.source}")
