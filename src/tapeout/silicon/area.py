"""Die area and transistor count of a `Die`, block by block.

Blocks of logic scale with the density of the node's cells, memories with its SRAM cell, interfaces not at all. Logic
and memory are then multiplied by one fitted overhead. The formula is the module; docs/calibration.md says how far it
is from published dies.
"""

from tapeout.figures import Estimate, Provenance, number, total
from tapeout.silicon.die import Die
from tapeout.silicon.technology import Technology

CORE_BLOCKS = (
    "matrix engines",
    "vector lanes",
    "float64 lanes",
    "cores: control, DMA, network",
    "scratchpads",
    "network",
)
INTERFACE_OF_KIND = {
    "LPDDR5": "block_area.lpddr",
    "GDDR6": "block_area.gddr",
    "GDDR7": "block_area.gddr",
    "3D-DRAM": "block_area.bonded_dram",
}
MEMORY_BLOCKS = ("last-level SRAM", "scratchpads")


def logic_and_memory(die: Die, technology: Technology) -> list[Estimate]:
    """Area of each block that the overhead applies to, before it does."""
    shrink = technology["logic_density.N7"] / technology[f"logic_density.{die.process_node}"]
    cell = technology[f"sram_cell.{die.process_node}"]

    def logic(name: str, count: float, figure: str, given_mm2: float | None = None) -> Estimate:
        each = technology[figure] if given_mm2 is None else number(given_mm2, "mm²")
        return (count * each * shrink).to("mm²").called(name, provenance=Provenance.MODELLED)

    def memory(name: str, size_bytes: float, efficiency: str) -> Estimate:
        area = number(size_bytes, "B").to("bit") * cell / technology[efficiency]
        return area.to("mm²").called(name, provenance=Provenance.MODELLED)

    return [
        _matrix_engines(die, technology)
        or logic("matrix engines", die.multiply_accumulate_count, "block_area.multiply_accumulate"),
        logic("vector lanes", die.vector_lane_count, "block_area.vector_lane"),
        logic("float64 lanes", die.float64_lane_count, "block_area.float64_lane"),
        logic("cores: control, DMA, network", die.core_count, "block_area.core_control", die.core_control_mm2),
        memory("last-level SRAM", die.large_sram_bytes, "sram_efficiency.large"),
        memory("scratchpads", die.small_sram_bytes, "sram_efficiency.small"),
        *(
            [logic("network", die.network.station_count * die.network.link_bytes_per_cycle, "block_area.router")]
            if die.network
            else []
        ),
    ]


def _matrix_engines(die: Die, technology: Technology) -> Estimate | None:
    """Area of analogue cells, without the overhead that is applied to logic. None for other engines."""
    if die.analogue is None:
        return None
    cells = number(die.multiply_accumulate_count * die.analogue.cell_um2, "µm²") / technology["block_area.overhead"]
    return cells.to("mm²").called("matrix engines", provenance=Provenance.MODELLED)


def interfaces(die: Die, technology: Technology) -> list[Estimate]:
    """Area of what leads off the die."""
    rate = number(die.memory_bytes_per_s / 1e9, "GB/s")
    if die.has_hbm:
        memory = die.memory_stack_count * technology["block_area.hbm_stack"]
    else:
        memory = rate * technology[INTERFACE_OF_KIND.get(die.memory_kind, "block_area.gddr")]
    links = number(die.link_bytes_per_s / 1e9, "GB/s") * technology["block_area.link"]
    host = number(die.host_bytes_per_s / 1e9, "GB/s") * technology["block_area.host"]
    named = {"memory interfaces": memory, "links": links, "host interface": host}
    if die.border_bytes_per_s:  # both sides of each border, both directions
        named["links between dies"] = (
            number(4 * die.border_bytes_per_s / 1e9, "GB/s") * technology["block_area.die_link"]
        )
    return [area.to("mm²").called(name, provenance=Provenance.MODELLED) for name, area in named.items()]


def die_area(die: Die, technology: Technology) -> Estimate:
    """Area of all dies together, with a part a block."""
    overhead = technology["block_area.overhead"]
    blocks = [(area * overhead).to("mm²").called(area.name) for area in logic_and_memory(die, technology)]
    parts = [part for part in [*blocks, *interfaces(die, technology)] if part.value > 0]
    return total("die area", parts, provenance=Provenance.MODELLED)


def vulnerable_areas(die: Die, area: Estimate, technology: Technology) -> tuple[Estimate, Estimate]:
    """Return the areas, in the cores and outside them, where a defect is fatal: all but the share of memories that
    spare rows and columns repair. On a wafer that is not cut the last level is spread over the cores."""
    inside = (*CORE_BLOCKS, "last-level SRAM") if die.is_wafer else CORE_BLOCKS
    kept = {
        part.name: part * (1 - technology["repairable_memory_share"]) if part.name in MEMORY_BLOCKS else part
        for part in area.parts
    }
    cores = [part for name, part in kept.items() if name in inside]
    rest = [part for name, part in kept.items() if name not in inside]
    return total("cores", cores), total("outside the cores", rest)


def transistor_count(die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Return what a designer would count: the node's cell density at the fill that published dies show."""
    density = technology[f"logic_density.{die.process_node}"] * technology["transistor_fill"]
    return (area * density).to("Gtransistor").called("transistors", provenance=Provenance.MODELLED)


def approximated_transistor_count(die: Die, area: Estimate, technology: Technology) -> Estimate:
    """Return what a foundry would attest under 15 CFR 772.1: density of the node times area of the die.

    The definition's wording was not at hand; this reading is recalled, hence assumed, and gives the larger figure.
    """
    count = area * technology[f"logic_density.{die.process_node}"]
    return count.to("Gtransistor").called(
        "aggregated approximated transistor count",
        provenance=Provenance.ASSUMED,
        source="density of the node's cells times die area; wording of the definition in 15 CFR 772.1 not read",
    )
