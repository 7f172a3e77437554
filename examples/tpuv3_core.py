"""One core of a TPUv3 in Tapeout's terms, from public facts; what is assumed says so.

Public (Jouppi et al., "A domain-specific supercomputer for training deep neural networks", CACM 63(7), 2020): two
arrays of 128 x 128 at 940 MHz, 128 x 8 vector lanes, 16 MiB of vector memory, 16 GiB of HBM at 450 GB/s a core.

Where the description cannot say it: the two arrays are one of 256 x 128, and float32 operands, which they round to
bfloat16, are multiplied at full rate; the core has no SRAM in front of HBM, so there is as little of it as passes data
on; the process was 16 nm, which only area and power would ask for. Latencies, DMA widths and the rate of special
functions are assumed.
"""

from tapeout.chip import (
    Chip,
    Core,
    DmaEngine,
    GiB,
    Hbm,
    Host,
    KiB,
    LastLevelSram,
    Links,
    MatrixEngine,
    MiB,
    Scratchpad,
    VectorEngine,
)

chip = Chip(
    name="tpuv3-core",
    process_node="N7",
    clock_hz=940_000_000,
    core_count=1,
    core=Core(
        scratchpad=Scratchpad(size_bytes=16 * MiB, bank_count=64, port_width_bytes=128),
        vector=VectorEngine(lane_count=1024, float64_rate=0, special_rate=1 / 4),
        matrix=MatrixEngine(row_count=256, column_count=128, accumulator_interleave=1, float32_rate=1.0),
        load_dma=DmaEngine(bytes_per_cycle=1024, outstanding_bytes=256 * KiB, gather_addresses_per_cycle=8),
        store_dma=DmaEngine(bytes_per_cycle=1024, outstanding_bytes=256 * KiB, gather_addresses_per_cycle=8),
    ),
    last_level_sram=LastLevelSram(
        size_bytes=64 * KiB,
        slice_count=16,
        way_count=4,
        bytes_per_cycle_per_slice=64,
        latency_cycles=60,
    ),
    hbm=Hbm(
        kind="HBM2e",
        stack_count=2,
        size_bytes=16 * GiB,
        bandwidth_bytes_per_s=450_000_000_000,
        channel_count=16,
    ),
    links=Links(link_count=0, bandwidth_bytes_per_s=0, latency_ns=0),
    host=Host(bandwidth_bytes_per_s=16_000_000_000),
)
