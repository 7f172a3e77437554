"""The chip, written down once: frozen parts that refuse to describe an impossible chip.

Takes figures, gives a `Chip`; what follows from the figures (peak rates, fingerprint) is a property or
method of it. Reading files and choosing the active chip are in `tapeout.chip.loading`, the chips that ship
with Tapeout in `tapeout.chip.reference`. Imports nothing but the standard library: every stage can afford it.

Each field states its meaning and its bounds once, in its definition; checks, listings and error messages read
them there.
"""

import dataclasses
import hashlib
import json
import linecache
import os
import re
import sys
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import Any, ClassVar, NoReturn, get_args

from tapeout.errors import ChipError
from tapeout.figures import notebook

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

CORE_DESIGNS = ("pipelined", "microcoded")

MICROCODED_LANES = 32
"""The most lanes a microcoded core has."""

MICROCODED_MATRIX_RATES = {"float32": 0.25, "float16": 1, "float8": 1, "int8": 1}
"""Rates of a cell of a microcoded core's array, relative to bfloat16."""

PROCESS_NODES = ("N28", "N16", "N14", "N12", "N7", "N6", "N5", "N4", "N3", "N2")

# Limits of the instruction encoding: a tile address has 27 bits, a semaphore number 6, a register number 8. They are
# here because isa/fields.py imports this and not the other way round.
SCRATCHPAD_ADDRESS_LIMIT_BYTES = 128 * MiB
SEMAPHORE_NUMBER_LIMIT = 64
REGISTER_NUMBER_LIMIT = 256

MEMORY_TIMES = ("refresh_interval_ns", "bank_refresh_ns", "read_to_write_ns", "write_to_read_ns")
MEMORY_TIMES_OF_KIND = {
    "HBM2e": (3900, 160, 6, 21),
    "HBM3": (3900, 200, 2, 21),
    "HBM3e": (3900, 200, 2, 21),
    "HBM4": (3900, 200, 2, 21),
    "LPDDR5": (3906, 140, 3, 31),
    "GDDR6": (1900, 60, 3, 19),
    "GDDR7": (1900, 60, 3, 19),
    "3D-DRAM": (3900, 140, 2, 10),
}
"""In that order, for what a chip's description leaves out. Sources: docs/decisions/memory-controller.md; GDDR7's are
taken as GDDR6's, and those of DRAM bonded onto the die (3D-DRAM) as a DDR4 bank's, with a shorter turn of its bus."""

MEMORY_PLACES = ("on package", "beside", "stacked")
PLACE_OF_KIND = {"LPDDR5": "beside", "GDDR6": "beside", "GDDR7": "beside", "3D-DRAM": "stacked"}
"""Place of each kind of memory that does not stand on an interposer with the die."""

MATRIX_KINDS = ("outer-product", "systolic", "analogue")
ANALOGUE_FIGURES = (
    "operand_bits",
    "accumulate_bits",
    "sum_depth",
    "sum_range",
    "noise_steps",
    "noise_seed",
    "conversion_pj",
    "cell_um2",
)
NETWORK_KINDS = ("crossbar", "mesh", "ring")

BITS_OF_DTYPE = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16, "float8": 8, "int8": 8}


def count(meaning: str, *, minimum: int = 1, maximum: int | None = None, default: Any = dataclasses.MISSING) -> Any:
    """A whole number of something, within bounds."""
    metadata = {"meaning": meaning, "kind": "count", "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


def rate(meaning: str, *, default: Any = MISSING) -> Any:
    """A rate relative to the engine's base rate: a power of two from 1/64 to 4, or 0 for none."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "kind": "rate"})


def number(meaning: str, *, minimum: float, maximum: float, default: Any = MISSING) -> Any:
    """A real number within bounds."""
    metadata = {"meaning": meaning, "kind": "number", "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


def checked_later(meaning: str, *, default: Any = MISSING) -> Any:
    """A value that only the part's own `check` can judge."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "kind": "checked later"})


def text(meaning: str, *, choices: tuple[str, ...] = (), default: Any = MISSING) -> Any:
    """A word, one of `choices` when they are given."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "kind": "text", "choices": choices})


def words(meaning: str, *, default: tuple[str, ...] = ()) -> Any:
    """A list of words; the part's users know which are possible."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "kind": "words"})


def part(meaning: str) -> Any:
    """A nested part of the chip."""
    return dataclasses.field(metadata={"meaning": meaning, "kind": "part"})


def optional_part(meaning: str, *, default: Any = MISSING) -> Any:
    """A nested part that a chip may lack (None). Without a default, that it lacks it must be said."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "kind": "part", "optional": True})


def later(field: Any) -> Any:
    """A field that younger descriptions have: `to_dict`, and so the fingerprint, leaves it out at its default."""
    return dataclasses.field(default=field.default, metadata={**field.metadata, "later": True})


def class_of_part(field: "dataclasses.Field[Any]") -> type["Part"] | None:
    """The class of a field that holds a part, or None for a figure."""
    if field.metadata["kind"] != "part":
        return None
    found = next((kind for kind in get_args(field.type) if kind is not type(None)), field.type)
    assert isinstance(found, type)
    return found


class Part:
    """Base of every piece of the description: checks each field by its definition, then `check`s them all."""

    label: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            fault = fault_of_field(field, getattr(self, field.name))
            if fault:
                self.refuse(field.name, fault)
            if field.metadata["kind"] == "words":
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))  # parts are compared and hashed
        self.check()

    def check(self) -> None:
        """Refuse what no single field can see. Parts with nothing to add leave it empty."""

    def refuse(self, field_name: str, fault: str) -> NoReturn:
        """Raise a ChipError about one field, with the line of the user's file that constructs this part."""
        name = f"{self.label}.{field_name}" if self.label else field_name
        sentence = f"{name}={_shown(getattr(self, field_name))} {fault}"
        raise ChipError(sentence, where=_construction_site(field_name), field=field_name)


@dataclass(frozen=True, kw_only=True)
class Scratchpad(Part):
    """A core's software-managed memory, where tiles live."""

    label: ClassVar[str] = "scratchpad"

    size_bytes: int = count("capacity", minimum=4 * KiB, maximum=SCRATCHPAD_ADDRESS_LIMIT_BYTES)
    bank_count: int = count("banks that can be accessed in the same cycle", maximum=256)
    port_width_bytes: int = count("bytes one bank reads or writes in a cycle", minimum=4, maximum=512)
    latency_cycles: int = count("cycles from a read's address to its data", default=4)

    def check(self) -> None:
        row_bytes = self.bank_count * self.port_width_bytes
        nearest = max(self.size_bytes // row_bytes, 1) * row_bytes
        if self.size_bytes % self.bank_count:
            self.refuse("size_bytes", f"does not divide into {self.bank_count} banks; {nearest} does")
        if self.size_bytes % row_bytes:
            rows = f"rows of {self.bank_count} banks x {self.port_width_bytes} bytes"
            self.refuse("size_bytes", f"is not a whole number of {rows}; {nearest} is")
        if not _is_power_of_two(self.port_width_bytes):
            self.refuse("port_width_bytes", f"is not a power of two; {_power_of_two_below(self.port_width_bytes)} is")
        if not _is_power_of_two(self.bank_count):
            self.refuse("bank_count", f"is not a power of two; {_power_of_two_below(self.bank_count)} is")

    @property
    def bandwidth_bytes_per_cycle(self) -> int:
        """All banks at once, with no conflict."""
        return self.bank_count * self.port_width_bytes


@dataclass(frozen=True, kw_only=True)
class VectorEngine(Part):
    """Elementwise arithmetic, reductions and special functions, `lane_count` float32 elements a cycle."""

    label: ClassVar[str] = "vector"

    lane_count: int = count("float32 multiply-adds a cycle", maximum=4096)
    float64_rate: float = rate("float64 operations per float32 operation; 0 for an engine without float64")
    special_rate: float = rate("reciprocal, rsqrt, exp2, log2, sin, cos per float32 operation")
    latency_cycles: int = count("cycles from operands to result", default=12)

    left_out: tuple[str, ...] = later(
        words("functions of the engine that are not built, by their names in the manual of instructions", default=())
    )

    def check(self) -> None:
        if not _is_power_of_two(self.lane_count):
            self.refuse("lane_count", f"is not a power of two; {_power_of_two_below(self.lane_count)} is")
        if self.special_rate == 0:
            self.refuse("special_rate", "leaves the chip without exp2 and reciprocal; the slowest choice is 0.015625")

    @property
    def float64(self) -> bool:
        return self.float64_rate > 0


@dataclass(frozen=True, kw_only=True)
class MatrixEngine(Part):
    """An output-stationary array of multiply-accumulate units.

    Each cycle is one k step of a row_count x column_count output tile. Sums are float32 (int32 for int8), k
    ascending. A float32 sum takes `accumulator_interleave` cycles, so that many output tiles take turns.
    """

    label: ClassVar[str] = "matrix"

    row_count: int = count("rows of the array, and of an output tile", maximum=1024)
    column_count: int = count("columns of the array, and of an output tile", maximum=1024)
    accumulator_interleave: int = count("output tiles that take turns in the accumulators", maximum=16, default=4)
    float32_rate: float = rate("float32 products per bfloat16 product", default=0.25)
    float16_rate: float = rate("float16 products per bfloat16 product", default=1.0)
    float8_rate: float = rate("float8 products (both formats) per bfloat16 product", default=2.0)
    int8_rate: float = rate("int8 products per bfloat16 product", default=2.0)
    kind: str = later(
        text(
            "outer-product: operands reach all units of a row or column in one cycle; systolic: they pass from unit "
            "to unit, so the last sum is row_count + column_count cycles later; analogue: operands and sums are "
            "converted, see the figures below",
            choices=MATRIX_KINDS,
            default="outer-product",
        )
    )
    operand_bits: int = later(
        count(
            "analogue: bits of an operand with its sign, of the largest of its row", minimum=2, maximum=12, default=None
        )
    )
    accumulate_bits: int = later(
        count("analogue: bits of a converted sum with its sign", minimum=2, maximum=16, default=None)
    )
    sum_depth: int = later(
        count("analogue: products that are added before the sum is converted", maximum=1024, default=None)
    )
    sum_range: float = later(
        number(
            "analogue: the largest sum that is converted, as a share of the largest possible; larger ones are cut off",
            minimum=1 / 1024,
            maximum=1,
            default=None,
        )
    )
    noise_steps: float = later(
        number(
            "analogue: standard deviation of a sum's noise, in steps of its conversion",
            minimum=0,
            maximum=64,
            default=None,
        )
    )
    noise_seed: int = later(count("analogue: seed of the noise", minimum=0, maximum=(1 << 31) - 1, default=None))
    conversion_pj: float = later(
        number("analogue: energy of one conversion of an operand or a sum", minimum=0, maximum=1000, default=None)
    )
    cell_um2: float = later(
        number("analogue: area of a cell, which does not shrink with the process", minimum=0, maximum=1e6, default=None)
    )

    def check(self) -> None:
        for name in ("row_count", "column_count"):
            value = getattr(self, name)
            if not _is_power_of_two(value):
                self.refuse(name, f"is not a power of two; {_power_of_two_below(value)} is")
        for name in ANALOGUE_FIGURES:
            if (getattr(self, name) is not None) != self.is_analogue:
                wanted = (
                    "is missing: an analogue engine needs it" if self.is_analogue else "is for kind='analogue' only"
                )
                self.refuse(name, wanted)

    @property
    def is_analogue(self) -> bool:
        return self.kind == "analogue"

    def multiply_accumulates_per_cycle(self, dtype: str) -> float:
        """Multiply-accumulates a cycle at peak; 0 when the engine does not multiply `dtype`."""
        relative: dict[str, float] = {"bfloat16": 1.0, "float64": 0.0} | {
            name: getattr(self, f"{name}_rate") for name in ("float32", "float16", "float8", "int8")
        }
        return self.row_count * self.column_count * relative[dtype]


@dataclass(frozen=True, kw_only=True)
class DmaEngine(Part):
    """One direction between a core's scratchpad and the memory system."""

    label: ClassVar[str] = "dma"

    bytes_per_cycle: int = count("peak rate of one core", minimum=4, maximum=4096)
    outstanding_bytes: int = count("bytes that may be in flight, which hides memory latency", minimum=64)
    gather_addresses_per_cycle: int = count("addresses issued a cycle for a gather or scatter", maximum=64, default=1)


@dataclass(frozen=True, kw_only=True)
class Core(Part):
    """One sequencer with its queues, engines and scratchpad. A chip is a grid of equal cores."""

    label: ClassVar[str] = "core"

    scratchpad: Scratchpad = part("where tiles live")
    vector: VectorEngine = part("elementwise engine")
    matrix: MatrixEngine = part("matrix engine")
    load_dma: DmaEngine = part("memory system to scratchpad")
    store_dma: DmaEngine = part("scratchpad to memory system")
    queue_depth: int = count("instructions that may wait in front of each engine", maximum=256, default=16)
    semaphore_count: int = count("counting semaphores", maximum=SEMAPHORE_NUMBER_LIMIT, default=64)
    register_count: int = count("scalar registers", minimum=64, maximum=REGISTER_NUMBER_LIMIT, default=256)
    fetch_words_per_cycle: int = count("64-bit instruction words the sequencer fetches a cycle", maximum=64, default=4)
    design: str = text(
        "microcoded: lanes run microprograms and an engine does one instruction at a time, as in Tapeout's RTL; "
        "pipelined: an element a lane and cycle, instructions overlap",
        choices=CORE_DESIGNS,
        default="pipelined",
    )
    control_mm2: float = later(
        number(
            "area of sequencer, queues, DMA and network port in N7; not given: the technology file's",
            minimum=0,
            maximum=100,
            default=None,
        )
    )

    def check(self) -> None:
        if not self.is_microcoded:
            return
        rates: dict[str, tuple[float, float]] = {
            "vector.float64_rate": (self.vector.float64_rate, 0),
            "fetch_words_per_cycle": (self.fetch_words_per_cycle, 1),
        }
        for dtype, needed in MICROCODED_MATRIX_RATES.items():
            rates[f"matrix.{dtype}_rate"] = (getattr(self.matrix, f"{dtype}_rate"), needed)
        for name, (value, needed) in rates.items():
            if value not in (0, needed):
                self.refuse("design", f"needs {name}={needed:g}, not {value:g}; 'pipelined' does not")
        if self.matrix.kind != "outer-product":
            self.refuse("design", f"needs matrix.kind='outer-product', not {self.matrix.kind!r}; 'pipelined' does not")

    @property
    def is_microcoded(self) -> bool:
        return self.design == "microcoded"


@dataclass(frozen=True, kw_only=True)
class LastLevelSram(Part):
    """The memory-side SRAM all cores share, in front of main memory, or in its place."""

    label: ClassVar[str] = "last_level_sram"

    size_bytes: int = count("capacity", minimum=4 * KiB)
    slice_count: int = count("slices that serve requests in parallel", maximum=1024)
    line_bytes: int = count("bytes fetched from HBM on a miss", minimum=32, maximum=4 * KiB, default=128)
    way_count: int = count("lines an address may be kept in", maximum=64, default=16)
    bytes_per_cycle_per_slice: int = count("peak rate of one slice", minimum=4, maximum=1024, default=64)
    latency_cycles: int = count("core cycles from a request to its data on a hit", default=120)

    def check(self) -> None:
        if not _is_power_of_two(self.line_bytes):
            self.refuse("line_bytes", f"is not a power of two; {_power_of_two_below(self.line_bytes)} is")
        set_bytes = self.slice_count * self.line_bytes * self.way_count
        if self.size_bytes % set_bytes:
            nearest = max(self.size_bytes // set_bytes, 1) * set_bytes
            self.refuse(
                "size_bytes",
                f"is not a whole number of sets ({self.slice_count} slices x {self.way_count} ways x "
                f"{self.line_bytes} bytes); {nearest} is",
            )


@dataclass(frozen=True, kw_only=True)
class Hbm(Part):
    """The chip's own DRAM of any kind: all stacks (or packages) together."""

    label: ClassVar[str] = "hbm"

    kind: str = text("what the stacks are", choices=tuple(MEMORY_TIMES_OF_KIND))
    stack_count: int = count("stacks or packages", maximum=64)
    size_bytes: int = count("capacity of all stacks", minimum=64 * MiB)
    bandwidth_bytes_per_s: int = count("peak rate of all stacks")
    channel_count: int = count("independent channels of all stacks", maximum=4096)
    burst_bytes: int = count("bytes of one access", minimum=16, maximum=KiB, default=64)
    row_bytes: int = count("bytes of an open row of one channel", minimum=256, maximum=64 * KiB, default=KiB)
    bank_count_per_channel: int = count("banks with a row of their own", maximum=1024, default=64)
    latency_ns: int = count("from a request at the controller to its first data, row open", default=60)
    row_miss_ns: int = count("added when another row was open: precharge and activate", default=30)
    refresh_interval_ns: int = count("from a bank's refresh to its next; not given: the kind's", default=None)
    bank_refresh_ns: int = count("a bank does nothing else in a refresh; not given: the kind's", default=None)
    read_to_write_ns: int = count(
        "a channel's bus rests from reads to writes; not given: the kind's", minimum=0, default=None
    )
    write_to_read_ns: int = count("and from writes to reads; not given: the kind's", minimum=0, default=None)
    write_batch_bytes: int = count(
        "writes a channel gathers before it turns its bus round for them", maximum=MiB, default=4 * KiB
    )
    place: str = later(text("where it stands; not given: the kind's usual place", choices=MEMORY_PLACES, default=None))
    energy_pj_per_bit: float = later(
        number(
            "energy of a bit read or written; not given: the technology file's", minimum=0, maximum=100, default=None
        )
    )
    price_usd_per_gb: float = later(
        number("price of 1e9 bytes; not given: the technology file's", minimum=0, maximum=10_000, default=None)
    )

    @property
    def where(self) -> str:
        """Its place: the one given, or the kind's usual one."""
        return self.place or PLACE_OF_KIND.get(self.kind, "on package")

    def __post_init__(self) -> None:
        for name, usual in zip(MEMORY_TIMES, MEMORY_TIMES_OF_KIND.get(str(self.kind), ()), strict=False):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        super().__post_init__()

    def check(self) -> None:
        if self.bank_refresh_ns + self.row_miss_ns >= self.refresh_interval_ns:
            self.refuse("refresh_interval_ns", f"leaves a bank no time between refreshes of {self.bank_refresh_ns} ns")
        for name in ("size_bytes", "channel_count"):
            value = getattr(self, name)
            if value % self.stack_count:
                nearest = max(value // self.stack_count, 1) * self.stack_count
                self.refuse(name, f"does not divide into {self.stack_count} stacks; {nearest} does")
        for name in ("burst_bytes", "row_bytes"):
            value = getattr(self, name)
            if not _is_power_of_two(value):
                self.refuse(name, f"is not a power of two; {_power_of_two_below(value)} is")


CONTROLLER_LINES = 16
CONTROLLER_LINE_BYTES = 64
CONTROLLER_LATENCY_CYCLES = 20
"""A memory controller's buffers on a chip without last-level SRAM: lines, bytes of a line, latency."""


@dataclass(frozen=True)
class GlobalMemory:
    """The one memory that programs see: DRAM, or the last-level SRAM of a chip without DRAM. `latency_ns` is beyond the
    last level's own."""

    kind: str
    size_bytes: int
    bandwidth_bytes_per_s: int
    latency_ns: int

    @property
    def name(self) -> str:
        """Name in messages."""
        return "HBM" if self.kind.startswith("HBM") else "last-level SRAM" if self.kind == "SRAM" else self.kind


@dataclass(frozen=True, kw_only=True)
class Network(Part):
    """Network between the cores and the slices of the last-level SRAM or the memory controllers.

    Requests and data of stores go one way, data of loads the other, on wires of their own. On a mesh core n stands in
    row n // column_count; paths go along the row first. The hop itself and the time on the wires are the network's; the
    last level's latency is counted beside them.
    """

    label: ClassVar[str] = "network"

    kind: str = text("how stations are joined", choices=NETWORK_KINDS)
    column_count: int = count("columns of a mesh; 1 for others", maximum=1024, default=1)
    hop_cycles: int = count("cycles from a station to the next", maximum=64)
    link_bytes_per_cycle: int = count("peak rate of a link between neighbours, one direction", minimum=4, maximum=4096)
    memory_place: str = text(
        "where slices or controllers stand: spread over all stations, or in the first and last column of a mesh",
        choices=("spread", "edges"),
        default="spread",
    )

    def check(self) -> None:
        if self.kind != "mesh" and self.column_count != 1:
            self.refuse("column_count", f"is for a mesh; a {self.kind} has 1")
        if self.kind != "mesh" and self.memory_place != "spread":
            self.refuse("memory_place", f"is for a mesh; in a {self.kind} it is 'spread'")


@dataclass(frozen=True, kw_only=True)
class Package(Part):
    """Several equal dies in one package, which share the cores, the last level and the network evenly."""

    label: ClassVar[str] = "package"

    die_count: int = count("dies", minimum=2, maximum=128)
    kind: str = text(
        "dies: cut, tested and put side by side; wafer: fields of one wafer that is never cut",
        choices=("dies", "wafer"),
        default="dies",
    )
    link_bytes_per_s: int = count("across one border between neighbouring dies, one direction")
    hop_cycles: int = count("cycles a hop across a border takes longer", minimum=0, maximum=1024)


@dataclass(frozen=True, kw_only=True)
class Links(Part):
    """Links to other chips of the same kind."""

    label: ClassVar[str] = "links"

    link_count: int = count("links; 0 for a chip that stands alone", minimum=0, maximum=1024)
    bandwidth_bytes_per_s: int = count("one link, one direction", minimum=0)
    latency_ns: int = count("from the sender's memory to the receiver's", minimum=0)

    def check(self) -> None:
        if self.link_count and not self.bandwidth_bytes_per_s:
            self.refuse(
                "bandwidth_bytes_per_s",
                f"leaves {self.link_count} links idle; give a bandwidth, or no link",
            )


@dataclass(frozen=True, kw_only=True)
class Host(Part):
    """The host's way to the chip: copies and kernel launches."""

    label: ClassVar[str] = "host"

    bandwidth_bytes_per_s: int = count("copies between host and HBM, one direction")
    latency_ns: int = count("of one copy", default=2_000)
    launch_ns: int = count("from a launch on the host to the first instruction on a core", default=3_000)
    dispatch_cycles: int = count("cycles a core needs to start the next program instance of a grid", default=32)


@dataclass(frozen=True, kw_only=True)
class Chip(Part):
    """A whole accelerator. Chips with equal fields are equal; `fingerprint()` names one in a cache."""

    name: str = text("what people call it")
    process_node: str = text("logic process", choices=PROCESS_NODES)
    clock_hz: int = count("clock of cores and last-level SRAM", minimum=1_000_000, maximum=10_000_000_000)
    core_count: int = count("cores a program can use", maximum=4096)
    spare_core_count: int = count("cores made beyond those, to stand in for defective ones", minimum=0, default=0)
    core: Core = part("each core")
    last_level_sram: LastLevelSram | None = optional_part("shared SRAM")
    hbm: Hbm | None = optional_part("main memory")
    links: Links = part("links to other chips")
    host: Host = part("link to the host")
    network: Network | None = later(
        optional_part(
            "network between cores and memory; not given: a crossbar whose time is in the last level's latency",
            default=None,
        )
    )
    package: Package | None = later(optional_part("several dies; not given: one", default=None))

    def check(self) -> None:
        self._check_network()
        if self.hbm is None and self.last_level_sram is None:
            self.refuse("hbm", "leaves no memory for tensors, as there is no last_level_sram; describe one of the two")
        if self.hbm is None and self.core.is_microcoded:
            self.refuse("hbm", "is needed by a microcoded core; core.design='pipelined' runs without DRAM")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            self.refuse("name", "may hold letters, digits, '-', '_' and '.'; 'my-chip' does")

    def peak_flops_per_s(self, dtype: str) -> float:
        """Operations a second at peak, a multiply-accumulate counting two, on the fastest engine for `dtype`.

        `dtype` is one of float64, float32, bfloat16, float16, float8, int8. 0 when no engine has it.
        """
        if dtype not in BITS_OF_DTYPE:
            raise ChipError(f"no peak rate for dtype {dtype!r}; known: {', '.join(BITS_OF_DTYPE)}")
        vector_rate = self.core.vector.float64_rate if dtype == "float64" else 1.0
        per_cycle = max(
            self.core.matrix.multiply_accumulates_per_cycle(dtype), self.core.vector.lane_count * vector_rate
        )
        return 2 * per_cycle * self.core_count * self.clock_hz

    @property
    def total_processing_performance(self) -> float:
        """TPP of US export rule 3A090: 2 x multiply-accumulates/s x bits / 1e12 at the dtype that gives most,
        summed over all processing units (88 FR 73458). Counts the vector engines; datasheets mostly do not.
        """
        matrix = max(self.core.matrix.multiply_accumulates_per_cycle(d) * bits for d, bits in BITS_OF_DTYPE.items())
        vector = self.core.vector.lane_count * max(32, 64 * self.core.vector.float64_rate)
        return 2 * (matrix + vector) * self.core_count * self.clock_hz / 1e12

    def _check_network(self) -> None:
        network, package = self.network, self.package
        if network is not None and self.core.is_microcoded:
            self.refuse("network", "is not in a microcoded core's RTL; core.design='pipelined' may have one")
        if network is not None and network.kind == "mesh" and self.core_count % network.column_count:
            self.refuse("core_count", f"does not fill a mesh of {network.column_count} columns")
        if package is None:
            return
        for name in ("core_count", "spare_core_count"):
            if getattr(self, name) % package.die_count:
                self.refuse(name, f"does not divide into {package.die_count} dies")
        if package.kind == "wafer":
            return
        if network is None or network.kind == "crossbar":
            self.refuse("package", "needs a network whose links can cross from die to die; a mesh or a ring does")
        if network.kind == "mesh" and network.column_count % package.die_count:
            self.refuse("package", f"cuts a mesh of {network.column_count} columns into {package.die_count} dies")

    def _repr_html_(self) -> str:
        matrix, memory = self.core.matrix, self.global_memory
        rows = [
            ("process node", self.process_node),
            ("cores", str(self.core_count)),
            ("clock", f"{self.clock_hz / 1e9:g} GHz"),
            ("matrix engine", f"{matrix.row_count} x {matrix.column_count}"),
            ("vector lanes a core", str(self.core.vector.lane_count)),
            ("scratchpad a core", f"{self.core.scratchpad.size_bytes / 2**20:g} MiB"),
            (
                "memory",
                f"{memory.size_bytes / 2**30:.4g} GiB {memory.kind}, {memory.bandwidth_bytes_per_s / 1e12:.4g} TB/s",
            ),
        ]
        rows += [
            (f"peak {dtype}", f"{rate / 1e12:.4g} TFLOP/s")
            for dtype in BITS_OF_DTYPE
            if (rate := self.peak_flops_per_s(dtype))
        ]
        return notebook.table(self.name, rows)

    @property
    def memories(self) -> tuple[Hbm, ...]:
        """The DRAM of the chip; empty for a chip whose tensors live in its SRAM."""
        return () if self.hbm is None else (self.hbm,)

    @cached_property
    def global_memory(self) -> GlobalMemory:
        """The memory programs and tensors live in, whatever it is made of."""
        if self.hbm is not None:
            return GlobalMemory(self.hbm.kind, self.hbm.size_bytes, self.hbm.bandwidth_bytes_per_s, self.hbm.latency_ns)
        sram = self.last_level_sram
        assert sram is not None
        return GlobalMemory(
            "SRAM", sram.size_bytes, sram.slice_count * sram.bytes_per_cycle_per_slice * self.clock_hz, 0
        )

    @cached_property
    def memory_side(self) -> LastLevelSram:
        """The SRAM that requests of the cores meet. A chip without a last level has the buffers of its memory
        controllers: one a channel, of 16 lines, through which the channel's data pass at twice its rate."""
        if self.last_level_sram is not None:
            return self.last_level_sram
        assert self.hbm is not None
        channels = self.hbm.channel_count
        line_bytes = max(CONTROLLER_LINE_BYTES, self.hbm.burst_bytes)
        per_cycle = -(-2 * self.hbm.bandwidth_bytes_per_s // (channels * self.clock_hz))
        ways = max(CONTROLLER_LINES, 4 * KiB // (channels * line_bytes))
        return LastLevelSram(
            size_bytes=channels * ways * line_bytes,
            slice_count=channels,
            line_bytes=line_bytes,
            way_count=ways,
            bytes_per_cycle_per_slice=min(1024, max(4, per_cycle)),
            latency_cycles=CONTROLLER_LATENCY_CYCLES,
        )

    @property
    def last_level_bytes(self) -> int:
        """Capacity of the last level; 0 for a chip without one."""
        return 0 if self.last_level_sram is None else self.last_level_sram.size_bytes

    @property
    def on_chip_sram_bytes(self) -> int:
        return self.core_count * self.core.scratchpad.size_bytes + self.last_level_bytes

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as a TOML or JSON chip file holds them. Younger fields at their default are left out."""
        return _plain(self)

    def fingerprint(self) -> str:
        """16 hex digits that change when any field does, and only then."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _plain(part: Part) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        if field.metadata.get("later") and value == field.default:
            continue
        values[field.name] = _plain(value) if isinstance(value, Part) else value
    return values


def fault_of_field(field: "dataclasses.Field[Any]", value: Any) -> str | None:
    """Return what is wrong with one value of a part by itself, as the end of a sentence, or None."""
    rules = field.metadata
    kind = rules["kind"]
    if value is None and (rules.get("optional") or (rules.get("later") and field.default is None)):
        return None
    if kind == "count":
        if isinstance(value, bool) or not isinstance(value, int):
            whole = isinstance(value, float) and value.is_integer()
            return f"is not a whole number; write {int(value)}" if whole else "is not a whole number"
        if value < rules["minimum"]:
            return f"is too small; the least is {rules['minimum']}"
        if rules["maximum"] is not None and value > rules["maximum"]:
            return f"is too large; the most is {rules['maximum']}"
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if not rules["minimum"] <= value <= rules["maximum"]:
            return f"is not between {rules['minimum']:g} and {rules['maximum']:g}"
    elif kind == "checked later":
        return None
    elif kind == "rate":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if value not in {0, *(2.0**exponent for exponent in range(-6, 3))}:
            return "is not a rate; allowed are 0 and the powers of two from 1/64 to 4"
    elif kind == "text":
        if not isinstance(value, str) or not value:
            return "is not a word in quotes"
        if rules["choices"] and value not in rules["choices"]:
            return f"is not known; choose from {', '.join(rules['choices'])}"
    elif kind == "words":
        if not isinstance(value, tuple | list) or not all(isinstance(word, str) for word in value):
            return "is not a list of words in quotes"
    elif (expected := class_of_part(field)) is not None and not isinstance(value, expected):
        return f"is not a {expected.__name__}(...)"
    return None


def _shown(value: Any) -> str:
    return type(value).__name__ + "(...)" if isinstance(value, Part) else repr(value)


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _power_of_two_below(value: int) -> int:
    return 1 << (value.bit_length() - 1)


def _construction_site(field_name: str) -> str | None:
    """`file:line` of the call outside this module that constructs the part, on the field's line if shown.

    None when the call is not in a file (an interactive session).
    """
    machinery = {
        __file__,
        dataclasses.__file__,
        "<string>",
    }  # "<string>" is the __init__ that dataclasses writes
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename in machinery:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or frame.f_code.co_filename.startswith("<"):
        return None
    filename = frame.f_code.co_filename
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    first, last = positions[0] or frame.f_lineno, positions[1] or frame.f_lineno
    naming = re.compile(rf"\b{field_name}\s*=")
    line = next((n for n in range(first, last + 1) if naming.search(linecache.getline(filename, n))), first)
    return f"{shown_path(filename)}:{line}"


def shown_path(path: str) -> str:
    """Return the path as the user would type it: relative when it is below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
