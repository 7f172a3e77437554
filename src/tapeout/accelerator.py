"""One accelerator: what a described chip, a catalogued chip and a row of a user's table all offer.

Every figure is an `Estimate` with unit, range, provenance and source, or None where nobody knows it. Everything that
compares, prices or plans takes an `Accelerator` and nothing else of a chip. `of_catalogued` makes one from a row of the
catalog, `tapeout.silicon.described.of_chip` from a description.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from tapeout.chip.catalog import COLUMNS, PEAK_BITS, CataloguedChip
from tapeout.chip.description import Chip
from tapeout.errors import TapeoutError
from tapeout.figures import Estimate, Provenance, Stated, given, notebook, number

PEAK_DTYPES = {
    "float64_tflops": ("float64",),
    "float32_tflops": ("float32",),
    "tf32_tflops": ("tfloat32",),
    "half_tflops": ("bfloat16", "float16"),
    "float8_tflops": ("float8",),
    "int8_tops": ("int8",),
    "float4_tflops": ("float4",),
}
"""The element types that each peak column of the catalog speaks of."""
PRICE_SPREAD = 0.1
"""A reported price is one offer among many; a tenth either way is little enough to claim."""


class MissingFigure(TapeoutError, ValueError):
    """A figure of an accelerator that nobody has told us."""


@dataclass(frozen=True, kw_only=True)
class MemoryLevel:
    """One level of memory: all of it together. `footprint` is the area of its stacks beside the die."""

    size: Estimate | None = None
    bandwidth: Estimate | None = None
    kind: Stated[str] | None = None
    stack_count: Estimate | None = None
    footprint: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Links:
    """Links to other chips. `rate` is all links of one chip in one direction; `domain_size` the chips they join."""

    name: Stated[str] | None = None
    rate: Estimate | None = None
    latency: Estimate | None = None
    domain_size: Estimate | None = None
    peer_to_peer: Stated[bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Software:
    """Software that runs on it: the stack, PyTorch's name of the device, the library of collectives, the cluster's
    resource."""

    stack: Stated[str] | None = None
    torch_device: Stated[str] | None = None
    collectives: Stated[str] | None = None
    kubernetes_resource: Stated[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A chip as code that compares, prices or plans sees it.

    `peak` is operations a second by element type, a multiply-accumulate counting two. `design` is the description it
    was made from, None for a chip one can only buy. `transistors_attested` is the count export rules ask for.
    By the catalog's name of a figure, `evidence` says of assumed ones how the source came by them, in the table's word
    (press, recalled, estimate), and `missing` says why one is unknown where there is more to say than "not published".
    """

    name: str
    vendor: str = ""
    year: Estimate | None = None
    design: Chip | None = None
    process_node: Stated[str] | None = None
    data_center: Stated[bool] | None = None
    die_area: Estimate | None = None
    die_count: Estimate | None = None
    transistors: Estimate | None = None
    transistors_attested: Estimate | None = None
    compute_units: Estimate | None = None
    base_clock: Estimate | None = None
    boost_clock: Estimate | None = None
    matrix_tile: Stated[tuple[int, int, int]] | None = None
    async_copy: Stated[bool] | None = None
    peak: Mapping[str, Estimate] = field(default_factory=lambda: MappingProxyType({}))
    total_processing_performance: Estimate | None = None
    measured_peak: Mapping[str, Estimate] = field(default_factory=lambda: MappingProxyType({}))
    scratchpad: MemoryLevel = MemoryLevel()
    last_level: MemoryLevel = MemoryLevel()
    dram: MemoryLevel = MemoryLevel()
    links: Links = Links()
    host_rate: Estimate | None = None
    launch_time: Estimate | None = None
    tdp: Estimate | None = None
    all_in_power: Estimate | None = None
    price: Estimate | None = None
    price_without_development: Estimate | None = None
    development: Estimate | None = None
    price_note: str = ""
    hyperscaler_cost: Estimate | None = None
    neocloud_cost: Estimate | None = None
    rental: Estimate | None = None
    software: Software = Software()
    notes: str = ""
    evidence: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def _repr_html_(self) -> str:
        levels = (("scratchpad", self.scratchpad), ("last level", self.last_level), ("DRAM", self.dram))
        found = [(each.name.replace("_", " "), getattr(self, each.name)) for each in fields(self)]
        found += [
            (f"{name} {each.name}", getattr(level, each.name)) for name, level in levels for each in fields(level)
        ]
        found += [(f"peak {dtype}", figure) for dtype, figure in self.peak.items()]
        rows = [(name, each.in_words(), str(each.provenance)) for name, each in found if isinstance(each, Estimate)]
        return notebook.table(self.name, rows, ("figure", "value", "provenance"))

    def figure(self, column: str) -> Estimate | None:
        """A figure by the catalog's name of it, in the catalog's unit. Raises MissingFigure for a name that is not a
        figure of the catalog."""
        if column not in _FIGURES:
            raise MissingFigure(f"{column!r} is not a figure of the catalog; known: {', '.join(_FIGURES)}")
        unit, get = _FIGURES[column]
        found = get(self)
        return found.to(unit) if found is not None else None

    def require(self, column: str) -> Estimate:
        """The same; raises MissingFigure that says why it is not known and how to give it."""
        found = self.figure(column)
        if found is None:
            reason = self.missing.get(column)
            raise MissingFigure(
                f"{self.name}: {reason}"
                if reason
                else f"{self.name} has no {column} in the catalog; add it in a table of your own"
            )
        return found

    @property
    def known(self) -> dict[str, Estimate]:
        """Every figure that is known, by the catalog's name of it, in the catalog's unit."""
        figures = {column: self.figure(column) for column in _FIGURES}
        return {column: figure for column, figure in figures.items() if figure is not None}


# Unit and place of each numeric column of the catalog.
_FIGURES: dict[str, tuple[str, Callable[[Accelerator], Estimate | None]]] = {
    "year": ("", lambda a: a.year),
    "die_area_mm2": ("mm²", lambda a: a.die_area),
    "die_count": ("", lambda a: a.die_count),
    "transistors_bn": ("Gtransistor", lambda a: a.transistors),
    "compute_units": ("", lambda a: a.compute_units),
    "base_clock_mhz": ("MHz", lambda a: a.base_clock),
    "boost_clock_mhz": ("MHz", lambda a: a.boost_clock),
    **{
        column: ("Top/s", lambda a, dtype=dtypes[0]: a.peak.get(dtype))  # type: ignore[misc]
        for column, dtypes in PEAK_DTYPES.items()
    },
    "memory_gb": ("GiB", lambda a: a.dram.size),
    "memory_gb_per_s": ("GB/s", lambda a: a.dram.bandwidth),
    "sram_mb": ("MiB", lambda a: a.scratchpad.size),
    "last_level_mb": ("MiB", lambda a: a.last_level.size),
    "scaleup_gb_per_s": ("GB/s", lambda a: a.links.rate),
    "scaleup_chip_count": ("", lambda a: a.links.domain_size),
    "tdp_w": ("W", lambda a: a.tdp),
    "all_in_kw": ("kW", lambda a: a.all_in_power),
    "price_usd": ("USD", lambda a: a.price),
    "hyperscaler_usd_per_h": ("USD/h", lambda a: a.hyperscaler_cost),
    "neocloud_usd_per_h": ("USD/h", lambda a: a.neocloud_cost),
    "rental_usd_per_h": ("USD/h", lambda a: a.rental),
    "measured_half_tflops": ("Top/s", lambda a: a.measured_peak.get("bfloat16")),
    "measured_float8_tflops": ("Top/s", lambda a: a.measured_peak.get("float8")),
}
assert list(_FIGURES) == [name for name, column in COLUMNS.items() if column.numeric]


def of_catalogued(chip: CataloguedChip) -> Accelerator:
    """A row of the catalog, or of a user's table, with what is in it and nothing else."""

    def figure(column: str) -> Estimate | None:
        fact = chip.facts.get(column)
        if fact is None:
            return None
        value = float(fact.value)
        spread = PRICE_SPREAD if column == "price_usd" else 0.0
        return given(
            f"{column} of {chip.name}",
            value,
            _FIGURES[column][0],
            fact.provenance,
            fact.source,
            low=value * (1 - spread),
            high=value * (1 + spread),
        )

    def word(column: str) -> Stated[str] | None:
        fact = chip.facts.get(column)
        return Stated(str(fact.value), fact.provenance, fact.source) if fact is not None else None

    def yes(column: str) -> Stated[bool] | None:
        said = word(column)
        return Stated(said.value == "yes", said.provenance, said.source) if said is not None else None

    peaks = {
        dtype: peak
        for column, dtypes in PEAK_DTYPES.items()
        if (peak := figure(column)) is not None
        for dtype in dtypes
    }
    counted = [
        (peak * bits).to("Top/s") / number(1, "Top/s")
        for column, bits in PEAK_BITS.items()
        if (peak := figure(column)) is not None
    ]
    tile = word("matrix_tile")
    return Accelerator(
        name=chip.name,
        vendor=chip.text("vendor"),
        year=figure("year"),
        process_node=word("process_node"),
        data_center=yes("data_center"),
        die_area=figure("die_area_mm2"),
        die_count=figure("die_count"),
        transistors=figure("transistors_bn"),
        transistors_attested=figure("transistors_bn"),
        compute_units=figure("compute_units"),
        base_clock=figure("base_clock_mhz"),
        boost_clock=figure("boost_clock_mhz"),
        matrix_tile=Stated(_sizes(tile.value), tile.provenance, tile.source) if tile is not None else None,
        async_copy=yes("async_copy"),
        peak=MappingProxyType(peaks),
        total_processing_performance=max(counted, key=lambda each: each.value).called("TPP") if counted else None,
        measured_peak=MappingProxyType(
            {
                dtype: peak
                for dtype, column in (("bfloat16", "measured_half_tflops"), ("float8", "measured_float8_tflops"))
                if (peak := figure(column)) is not None
            }
        ),
        scratchpad=MemoryLevel(size=figure("sram_mb")),
        last_level=MemoryLevel(size=figure("last_level_mb")),
        dram=MemoryLevel(size=figure("memory_gb"), bandwidth=figure("memory_gb_per_s"), kind=word("memory_kind")),
        links=Links(
            name=word("scaleup_name"),
            rate=figure("scaleup_gb_per_s"),
            domain_size=figure("scaleup_chip_count"),
            peer_to_peer=yes("peer_to_peer"),
        ),
        tdp=figure("tdp_w"),
        all_in_power=figure("all_in_kw"),
        price=figure("price_usd"),
        price_note=chip.text("price_note"),
        hyperscaler_cost=figure("hyperscaler_usd_per_h"),
        neocloud_cost=figure("neocloud_usd_per_h"),
        rental=figure("rental_usd_per_h"),
        software=Software(
            stack=word("software"),
            torch_device=word("torch_device"),
            collectives=word("collectives"),
            kubernetes_resource=word("kubernetes_resource"),
        ),
        notes=chip.text("notes"),
        evidence=MappingProxyType(
            {column: fact.confidence for column, fact in chip.facts.items() if fact.provenance is Provenance.ASSUMED}
        ),
    )


def _sizes(tile: str) -> tuple[int, int, int]:
    rows, columns, depth = (int(size) for size in re.findall(r"\d+", tile))
    return rows, columns, depth
