"""A described chip as an `Accelerator`: rates are its description's, area, power and price come from the models."""

from types import MappingProxyType

from tapeout.accelerator import Accelerator, Links, MemoryLevel, Software
from tapeout.chip.description import BITS_OF_DTYPE, Chip
from tapeout.figures import Estimate, Provenance, Stated, number
from tapeout.silicon.activity import at_tdp
from tapeout.silicon.area import approximated_transistor_count, die_area, transistor_count
from tapeout.silicon.die import of_chip as die_of_chip
from tapeout.silicon.manufacturing import manufacture
from tapeout.silicon.power import power
from tapeout.silicon.technology import SiliconError, Technology

DEFAULT_VOLUME = 100_000


def of_chip(chip: Chip, technology: Technology, *, volume: int = DEFAULT_VOLUME) -> Accelerator:
    """The accelerator a description asks for, made in that volume. What cannot be priced has no price, and
    `missing` says why."""
    source = f"chip description {chip.name}"

    def chosen(name: str, value: float, unit: str) -> Estimate | None:
        return number(value, unit).called(name, source=source) if value else None

    def modelled(figure: Estimate) -> Estimate:
        return figure.called(figure.name, source="docs/calibration.md")

    die = die_of_chip(chip)
    area = die_area(die, technology)
    price = without_development = None
    missing: dict[str, str] = {}
    try:
        made = manufacture(die, area, technology, volume=volume)
    except SiliconError as unknown:
        missing["price_usd"] = str(unknown)
        note = f"not known: {unknown}"
    else:
        price = made.price.called("price", source=f"cost model at {volume:,} chips")
        without_development = made.price - made.development_per_chip
        note = f"modelled at {volume:,} chips with a partner's margin"
    core_count = chosen("compute units", chip.core_count, "")
    clock = chosen("clock", float(chip.clock_hz), "1/s")
    core = chip.core
    dram_footprint = die.memory_stack_count * technology["hbm_footprint"] if die.has_hbm else None
    # A core's scratchpad serves one access a cycle from every bank; the last level one from every slice.
    scratchpad_rate = core.scratchpad.bandwidth_bytes_per_cycle * chip.core_count * chip.clock_hz
    last_level, memory = chip.memory_side, chip.hbm
    last_level_rate = last_level.slice_count * last_level.bytes_per_cycle_per_slice * chip.clock_hz
    return Accelerator(
        name=chip.name,
        design=chip,
        process_node=Stated(chip.process_node, Provenance.DEFINED, source),
        data_center=Stated(True, Provenance.DEFINED, source),
        die_area=modelled(area),
        transistors=modelled(transistor_count(die, area, technology)),
        transistors_attested=approximated_transistor_count(die, area, technology),
        compute_units=core_count,
        base_clock=clock,
        boost_clock=clock,
        matrix_tile=Stated((core.matrix.row_count, core.matrix.column_count, 1), Provenance.DEFINED, source),
        async_copy=Stated(True, Provenance.DEFINED, source),
        peak=MappingProxyType(
            {
                dtype: peak
                for dtype in BITS_OF_DTYPE
                if (peak := chosen(f"peak {dtype}", chip.peak_flops_per_s(dtype), "op/s")) is not None
            }
        ),
        total_processing_performance=number(chip.total_processing_performance).called("TPP", source="chip description"),
        scratchpad=MemoryLevel(
            size=chosen("scratchpads", chip.core_count * core.scratchpad.size_bytes, "B"),
            bandwidth=chosen("scratchpad bandwidth", float(scratchpad_rate), "B/s"),
        ),
        last_level=MemoryLevel(
            size=chosen("last-level SRAM", chip.last_level_bytes, "B"),
            bandwidth=chosen("last-level bandwidth", float(last_level_rate), "B/s"),
        ),
        dram=MemoryLevel(
            size=chosen("memory", chip.global_memory.size_bytes, "B"),
            bandwidth=chosen("memory bandwidth", float(chip.global_memory.bandwidth_bytes_per_s), "B/s"),
            kind=Stated(chip.global_memory.kind, Provenance.DEFINED, source),
            stack_count=chosen("memory stacks", memory.stack_count, "") if memory else None,
            footprint=dram_footprint,
        ),
        links=Links(
            rate=chosen("links, one direction", die.link_bytes_per_s, "B/s"),
            latency=chosen("link latency", chip.links.latency_ns, "ns"),
            peer_to_peer=Stated(chip.links.link_count > 0, Provenance.DEFINED, source),
        ),
        host_rate=chosen("host, one direction", chip.host.bandwidth_bytes_per_s, "B/s"),
        launch_time=chosen("kernel launch", chip.host.launch_ns, "ns"),
        tdp=modelled(power(at_tdp(die), die, area, technology).called("TDP")),
        price=price,
        price_without_development=without_development,
        development=technology.figures.get(f"development_cost.{chip.process_node}"),
        price_note=note,
        software=Software(
            stack=Stated("PyTorch and Triton by Tapeout", Provenance.DEFINED, source),
            torch_device=Stated("chip", Provenance.DEFINED, source),
        ),
        missing=MappingProxyType(missing),
    )
