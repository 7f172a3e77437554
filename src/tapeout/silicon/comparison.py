"""Accelerators beside each other: raw, per watt, per dollar and per square millimetre.

Takes accelerators, gives rows of figures in the catalog's units. A ratio has the provenance of the weaker of its two
figures, and is absent when either is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tapeout.accelerator import Accelerator
from tapeout.chip.catalog import COLUMNS
from tapeout.figures import Estimate, Stated
from tapeout.silicon.technology import SiliconError

_PER = {
    "per watt": ("tdp_w", "W"),
    "per dollar": ("price_usd", "USD"),
    "per mm²": ("die_area_mm2", "mm²"),
}
_RATIOS = {
    "half_tflops": ("Gop/s", "GFLOP/s"),
    "float8_tflops": ("Gop/s", "GFLOP/s"),
    "memory_gb_per_s": ("MB/s", "MB/s"),
    "memory_gb": ("MiB", "MiB"),
}
"""Compared figures, with their unit and the unit on the page. It is finer than that of the raw figures, so that
ratios are not all below one."""


@dataclass(frozen=True)
class Line:
    """One figure of every chip; `figures` in the order of the chips, None where nothing is known."""

    group: str
    label: str
    unit: str
    figures: tuple[Estimate | Stated[str] | None, ...]


def compare(chips: Sequence[Accelerator]) -> list[Line]:
    """Every figure any of the chips has, then the ratios. Raises SiliconError without chips."""
    if not chips:
        raise SiliconError("name at least one chip to compare")
    lines = [
        Line("raw", column.label, column.unit, tuple(chip.figure(name) for chip in chips))
        for name, column in COLUMNS.items()
        if column.numeric
    ]
    lines.append(Line("raw", COLUMNS["process_node"].label, "", tuple(chip.process_node for chip in chips)))
    lines.append(Line("raw", COLUMNS["memory_kind"].label, "", tuple(chip.dram.kind for chip in chips)))
    for group, (below, below_unit) in _PER.items():
        for name, (unit, written) in _RATIOS.items():
            ratios = tuple(_ratio(chip.figure(name), chip.figure(below), f"{unit}/{below_unit}") for chip in chips)
            lines.append(Line(group, COLUMNS[name].label, f"{written}/{below_unit}", ratios))
    return [line for line in lines if any(line.figures)]


def _ratio(above: Estimate | None, below: Estimate | None, unit: str) -> Estimate | None:
    if above is None or below is None or not below.value:
        return None
    return (above / below).to(unit)
