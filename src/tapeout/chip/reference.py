"""The chips that ship with Tapeout. Why each figure was chosen: docs/decisions/.

None of them exists. Every figure is a design choice or an assumption, none is a measurement.
"""

from tapeout.chip.description import (
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

training = Chip(
    name="training",
    process_node="N4",
    clock_hz=1_600_000_000,
    core_count=64,
    spare_core_count=2,
    core=Core(
        scratchpad=Scratchpad(size_bytes=2 * MiB, bank_count=32, port_width_bytes=128),
        vector=VectorEngine(lane_count=256, float64_rate=1 / 16, special_rate=1 / 2),
        matrix=MatrixEngine(row_count=128, column_count=64),
        load_dma=DmaEngine(bytes_per_cycle=256, outstanding_bytes=128 * KiB, gather_addresses_per_cycle=2),
        store_dma=DmaEngine(bytes_per_cycle=128, outstanding_bytes=64 * KiB, gather_addresses_per_cycle=2),
    ),
    last_level_sram=LastLevelSram(size_bytes=128 * MiB, slice_count=128, bytes_per_cycle_per_slice=128),
    hbm=Hbm(
        kind="HBM3e",
        stack_count=6,
        size_bytes=144 * GiB,
        bandwidth_bytes_per_s=7_200_000_000_000,
        channel_count=192,
    ),
    links=Links(link_count=18, bandwidth_bytes_per_s=50_000_000_000, latency_ns=700),
    host=Host(bandwidth_bytes_per_s=64_000_000_000),
)

inference = Chip(
    name="inference",
    process_node="N5",
    clock_hz=1_350_000_000,
    core_count=32,
    core=Core(
        scratchpad=Scratchpad(size_bytes=2 * MiB, bank_count=32, port_width_bytes=64),
        vector=VectorEngine(lane_count=64, float64_rate=1 / 8, special_rate=1),
        matrix=MatrixEngine(row_count=16, column_count=64),
        load_dma=DmaEngine(bytes_per_cycle=128, outstanding_bytes=128 * KiB, gather_addresses_per_cycle=4),
        store_dma=DmaEngine(bytes_per_cycle=128, outstanding_bytes=64 * KiB, gather_addresses_per_cycle=4),
    ),
    last_level_sram=LastLevelSram(size_bytes=256 * MiB, slice_count=64),
    hbm=Hbm(
        kind="HBM3e",
        stack_count=4,
        size_bytes=96 * GiB,
        bandwidth_bytes_per_s=4_800_000_000_000,
        channel_count=128,
    ),
    links=Links(link_count=4, bandwidth_bytes_per_s=50_000_000_000, latency_ns=700),
    host=Host(bandwidth_bytes_per_s=64_000_000_000),
)

tiny = Chip(
    name="tiny",
    process_node="N7",
    clock_hz=1_000_000_000,
    core_count=2,
    core=Core(
        scratchpad=Scratchpad(size_bytes=128 * KiB, bank_count=8, port_width_bytes=64),
        vector=VectorEngine(lane_count=16, float64_rate=0, special_rate=1 / 4),
        matrix=MatrixEngine(row_count=8, column_count=8, float8_rate=1.0, int8_rate=1.0),
        load_dma=DmaEngine(bytes_per_cycle=32, outstanding_bytes=8 * KiB),
        store_dma=DmaEngine(bytes_per_cycle=32, outstanding_bytes=4 * KiB),
        queue_depth=4,
        fetch_words_per_cycle=1,
        design="microcoded",
    ),
    last_level_sram=LastLevelSram(
        size_bytes=512 * KiB,
        slice_count=2,
        line_bytes=64,
        way_count=8,
        bytes_per_cycle_per_slice=32,
        latency_cycles=40,
    ),
    hbm=Hbm(
        kind="LPDDR5",
        stack_count=1,
        size_bytes=8 * GiB,
        bandwidth_bytes_per_s=51_200_000_000,
        channel_count=4,
        row_bytes=2 * KiB,
        bank_count_per_channel=16,
        latency_ns=80,
        row_miss_ns=40,
    ),
    links=Links(link_count=0, bandwidth_bytes_per_s=0, latency_ns=0),
    host=Host(bandwidth_bytes_per_s=4_000_000_000),
)

REFERENCE_CHIPS = {chip.name: chip for chip in (training, inference, tiny)}
