"""A chip's core cut down to a size that a simulator of RTL can take: fewer lanes and columns, the same pipelines."""

from dataclasses import replace

from tapeout.chip import Chip

LANES = 8
ROWS, COLUMNS = 4, 8
BANKS, PORT_BYTES, SCRATCHPAD_BYTES = 8, 32, 64 << 10
DMA_BYTES, OUTSTANDING_BYTES = 32, 4 << 10


def cut_down(chip: Chip) -> Chip:
    """One core with a few lanes and a small array, scratchpad and DMA engines in proportion; rates that no RTL has
    become those it has. Latencies, queues, semaphores and the memory system stay."""
    core = chip.core
    return replace(
        chip,
        name=f"{chip.name}_cut_down",
        core_count=1,
        spare_core_count=0,
        core=replace(
            core,
            scratchpad=replace(
                core.scratchpad, size_bytes=SCRATCHPAD_BYTES, bank_count=BANKS, port_width_bytes=PORT_BYTES
            ),
            vector=replace(core.vector, lane_count=LANES, float64_rate=0),
            matrix=replace(
                core.matrix,
                row_count=ROWS,
                column_count=COLUMNS,
                float32_rate=0.25,
                float16_rate=1.0,
                float8_rate=1.0,
                int8_rate=1.0,
            ),
            load_dma=replace(
                core.load_dma,
                bytes_per_cycle=DMA_BYTES,
                outstanding_bytes=OUTSTANDING_BYTES,
                gather_addresses_per_cycle=1,
            ),
            store_dma=replace(
                core.store_dma,
                bytes_per_cycle=DMA_BYTES,
                outstanding_bytes=OUTSTANDING_BYTES,
                gather_addresses_per_cycle=1,
            ),
        ),
    )
