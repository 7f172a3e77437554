"""Contents of a die that decide its area and power: counts of blocks, not their arrangement.

Takes a chip description, or a row of the table of published dies; gives a `Die`. Both kinds pass through the same
area and power model, so that its error on published dies says what it is worth on a described one.
"""

import csv
from dataclasses import dataclass
from importlib import resources

from tapeout.chip.description import Chip, GiB
from tapeout.chip.layout import Layout, network_bytes_per_s
from tapeout.silicon.technology import SiliconError

# The description counts memory that compilers see. Instruction buffers, queues and accumulators are not in it.
HBM_KINDS = ("HBM2", "HBM2e", "HBM3", "HBM3e", "HBM4")
NO_MEMORY = "none"
"""The kind of memory of a die without DRAM."""


@dataclass(frozen=True)
class Network:
    """A described network: stations, bytes a cycle of a link, and hops a byte makes on the way on average."""

    kind: str
    station_count: int
    link_bytes_per_cycle: int
    mean_hops: float


@dataclass(frozen=True)
class Analogue:
    """An analogue matrix engine: conversions for each multiply-accumulate, their energy, and the area of a cell."""

    conversions: float
    conversion_pj: float
    cell_um2: float


@dataclass(frozen=True, kw_only=True)
class Die:
    """All dies of a package together. Rates are peak; a link's or the host's is one direction.

    `multiply_accumulate_count` counts bf16 products a cycle, `operand_bytes_per_multiply_accumulate` what they read
    and write in the nearest register file or scratchpad. Disabled cores and memories take area but no power, so
    `multiply_accumulates_per_s` is stated apart; `core_count` includes the spares. A separate I/O die in the
    package takes power but none of the area.
    """

    name: str
    process_node: str
    clock_hz: float
    core_count: int
    spare_core_count: int = 0
    vector_lane_count: int
    float64_lane_count: float
    multiply_accumulate_count: float
    multiply_accumulates_per_s: float
    operand_bytes_per_multiply_accumulate: float
    large_sram_bytes: float
    small_sram_bytes: float
    memory_kind: str
    memory_stack_count: int
    memory_bytes_per_s: float
    link_bytes_per_s: float
    host_bytes_per_s: float
    scratchpad_bank_bytes: float = 32 * 1024
    memory_bytes: float = 0
    io_die_mm2: float = 0
    io_die_node: str = ""
    memory_place: str = ""
    memory_pj_per_bit: float | None = None
    memory_usd_per_gb: float | None = None
    memory_side_bytes_per_s: float | None = None
    core_control_mm2: float | None = None
    network: Network | None = None
    analogue: Analogue | None = None
    die_count: int = 1
    is_wafer: bool = False
    border_bytes_per_s: float = 0

    def __post_init__(self) -> None:
        for name in ("clock_hz", "core_count", "multiply_accumulates_per_s"):
            if getattr(self, name) <= 0:
                raise SiliconError(f"die {self.name}: {name}={getattr(self, name)!r} is not positive")

    @property
    def has_hbm(self) -> bool:
        """DRAM stands beside the die on an interposer."""
        return self.memory_place == "on package" if self.memory_place else self.memory_kind in HBM_KINDS

    @property
    def has_dram(self) -> bool:
        return self.memory_kind != NO_MEMORY


def of_chip(chip: Chip) -> Die:
    """The die a chip description asks for."""
    core = chip.core
    matrix = core.matrix
    # A multiply-accumulate unit does one bf16, one float16 or two 8-bit products a cycle; higher rates need more.
    widest = max(1.0, matrix.float16_rate, matrix.float8_rate / 2, matrix.int8_rate / 2, matrix.float32_rate * 4)
    array = matrix.row_count * matrix.column_count
    made = chip.core_count + chip.spare_core_count
    operand_bytes = 2 * (matrix.row_count + matrix.column_count) / array
    memory, package = chip.hbm, chip.package
    return Die(
        name=chip.name,
        process_node=chip.process_node,
        clock_hz=chip.clock_hz,
        core_count=made,
        spare_core_count=chip.spare_core_count,
        vector_lane_count=core.vector.lane_count * made,
        float64_lane_count=core.vector.lane_count * core.vector.float64_rate * made,
        multiply_accumulate_count=array * made * (1 if matrix.is_analogue else widest),
        core_control_mm2=core.control_mm2,
        multiply_accumulates_per_s=float(array * chip.core_count * chip.clock_hz),
        operand_bytes_per_multiply_accumulate=operand_bytes,
        large_sram_bytes=chip.last_level_bytes,
        small_sram_bytes=made * core.scratchpad.size_bytes,
        memory_kind=memory.kind if memory else NO_MEMORY,
        memory_stack_count=memory.stack_count if memory else 0,
        memory_bytes_per_s=memory.bandwidth_bytes_per_s if memory else 0,
        link_bytes_per_s=chip.links.link_count * chip.links.bandwidth_bytes_per_s,
        host_bytes_per_s=chip.host.bandwidth_bytes_per_s,
        scratchpad_bank_bytes=core.scratchpad.size_bytes / core.scratchpad.bank_count,
        memory_bytes=memory.size_bytes if memory else 0,
        memory_place=memory.where if memory else "",
        memory_pj_per_bit=memory.energy_pj_per_bit if memory else None,
        memory_usd_per_gb=memory.price_usd_per_gb if memory else None,
        memory_side_bytes_per_s=None if memory else _reachable_bytes_per_s(chip),
        network=_network(chip),
        analogue=_analogue(chip),
        die_count=package.die_count if package else 1,
        is_wafer=package is not None and package.kind == "wafer",
        border_bytes_per_s=package.link_bytes_per_s * (package.die_count - 1)
        if package and package.kind == "dies"
        else 0,
    )


def _reachable_bytes_per_s(chip: Chip) -> float:
    """Peak rate of a last level that holds all tensors: the least of its slices, the cores' loads and the network one
    way."""
    loads = float(chip.core_count * chip.core.load_dma.bytes_per_cycle * chip.clock_hz)
    through = network_bytes_per_s(chip) / 2 if chip.network else loads
    return min(float(chip.global_memory.bandwidth_bytes_per_s), loads, through)


def _network(chip: Chip) -> Network | None:
    network = chip.network
    if network is None:
        return None
    layout = Layout.of(chip)
    return Network(network.kind, layout.station_count, network.link_bytes_per_cycle, layout.mean_hops)


def _analogue(chip: Chip) -> Analogue | None:
    matrix = chip.core.matrix
    if not matrix.is_analogue:
        return None
    conversions = 1 / matrix.row_count + 1 / matrix.column_count + 1 / matrix.sum_depth
    return Analogue(conversions, matrix.conversion_pj, matrix.cell_um2)


@dataclass(frozen=True, kw_only=True)
class PublishedDie:
    """A die somebody made, with what is published about its size and power. None where nothing is.

    `area_is_bound`: the published area is an upper bound ("below 400 mm²"). `calibrates`: the model's fitted figures
    come from this chip, so its error says nothing.
    """

    die: Die
    area_mm2: float | None
    area_is_bound: bool
    tdp_w: float | None
    calibrates: bool
    source: str
    remark: str


def published_dies() -> list[PublishedDie]:
    """The table `data/published_dies.csv`."""
    file = resources.files("tapeout.silicon") / "data" / "published_dies.csv"
    rows = csv.DictReader(file.read_text("utf-8").splitlines())
    return [_published(row) for row in rows]


def _published(row: dict[str, str]) -> PublishedDie:
    def figure(name: str) -> float:
        return float(row[name] or 0)

    die = Die(
        name=row["name"],
        process_node=row["process_node"],
        clock_hz=figure("clock_ghz") * 1e9,
        core_count=int(row["core_count"]),
        spare_core_count=int(row["spare_core_count"]),
        vector_lane_count=int(row["vector_lane_count"]),
        float64_lane_count=figure("float64_lane_count"),
        multiply_accumulate_count=figure("multiply_accumulate_count"),
        multiply_accumulates_per_s=figure("half_precision_tflops") * 1e12 / 2,
        operand_bytes_per_multiply_accumulate=figure("operand_bytes_per_multiply_accumulate"),
        large_sram_bytes=figure("large_sram_mib") * (1 << 20),
        small_sram_bytes=figure("small_sram_mib") * (1 << 20),
        memory_kind=row["memory_kind"],
        memory_stack_count=int(row["memory_stack_count"]),
        memory_bytes_per_s=figure("memory_gb_per_s") * 1e9,
        link_bytes_per_s=figure("link_gb_per_s") * 1e9,
        host_bytes_per_s=figure("host_gb_per_s") * 1e9,
        memory_bytes=figure("memory_gb") * GiB,
        io_die_mm2=figure("io_die_mm2"),
        io_die_node=row["io_die_node"],
    )
    return PublishedDie(
        die=die,
        area_mm2=float(row["area_mm2"]) if row["area_mm2"] else None,
        area_is_bound=row["area_is_bound"] == "yes",
        tdp_w=float(row["tdp_w"]) if row["tdp_w"] else None,
        calibrates=row["calibrates"] == "yes",
        source=row["source"],
        remark=row["remark"],
    )
