"""Chip descriptions as tables."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from tapeout.chip import EXAMPLE_CHIPS, Chip, load
from tapeout.chip.description import BITS_OF_DTYPE, Part
from tapeout.report.page import Heading, Page, Table
from tapeout.report.units import Shown, binary_bytes, decimal


def overview(chips: Iterable[Chip]) -> list[Heading | Table]:
    """A column a chip, with the figures one looks at first."""
    columns = list(chips)
    rows = [(label, *(figure(chip) for chip in columns)) for label, figure in _FIGURES.items()]
    return [
        Heading("Designs, not silicon: every figure is a choice or follows from one"),
        Table(("", *(chip.name for chip in columns)), rows, right=range(1, len(columns) + 1)),
    ]


def examples() -> list[Heading | Table]:
    """A row an example chip."""
    shown = ("process node", "cores", "last-level SRAM", "memory", "memory bandwidth", "peak bfloat16")
    rows = [(name, *(_FIGURES[label](load(name)) for label in shown)) for name in EXAMPLE_CHIPS]
    return [
        Heading("Kinds that others build, described: name one where a chip's name goes"),
        Table(("", *shown), rows, right=range(2, len(shown) + 1)),
    ]


_FIGURES: dict[str, Callable[[Chip], str]] = {
    "process node": lambda chip: chip.process_node,
    "cores": lambda chip: str(chip.core_count),
    "clock": lambda chip: decimal(chip.clock_hz, "Hz"),
    "matrix engine": lambda chip: f"{chip.core.matrix.row_count} x {chip.core.matrix.column_count}",
    "vector lanes a core": lambda chip: str(chip.core.vector.lane_count),
    "scratchpad a core": lambda chip: binary_bytes(chip.core.scratchpad.size_bytes),
    "last-level SRAM": lambda chip: binary_bytes(chip.last_level_bytes) if chip.last_level_sram else "none",
    "memory": lambda chip: f"{binary_bytes(chip.hbm.size_bytes)} {chip.hbm.kind}" if chip.hbm else "none",
    "memory bandwidth": lambda chip: decimal(chip.global_memory.bandwidth_bytes_per_s, "B/s"),
    **{
        f"peak {dtype}": lambda chip, dtype=dtype: _rate(chip.peak_flops_per_s(dtype))  # type: ignore[misc]
        for dtype in BITS_OF_DTYPE
    },
    "links": lambda chip: (
        f"{chip.links.link_count} x {decimal(chip.links.bandwidth_bytes_per_s, 'B/s')}"
        if chip.links.link_count
        else "none"
    ),
    "TPP, matrix and vector": lambda chip: f"{chip.total_processing_performance:.0f}",
}


def sheet(chip: Chip) -> Page:
    """Every field of one chip with its meaning, then the figures that follow from them."""
    rows = [
        *_fields(chip, ""),
        *((label, get(chip), "derived") for label, get in _FIGURES.items() if label.startswith(("peak", "TPP"))),
    ]
    table = Table(("field", "value", "meaning"), rows, right=(1,))
    return Page(f"{chip.name} (fingerprint {chip.fingerprint()})", [table], kind="chip")


def _rate(operations_per_s: float) -> str:
    return decimal(operations_per_s, "OP/s") if operations_per_s else "none"


def _fields(part: Part, prefix: str) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        if isinstance(value, Part):
            yield from _fields(value, f"{prefix}{field.name}.")
        elif not field.metadata.get("later") or value != field.default:
            yield f"{prefix}{field.name}", _value(field.name, value), field.metadata["meaning"]


def _value(name: str, value: object) -> str:
    if isinstance(value, int) and name.endswith("size_bytes"):
        return binary_bytes(value)
    return Shown(f"{value:_}", value=value) if isinstance(value, int) else str(value)
