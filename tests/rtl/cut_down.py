"""Chips whose cores are cut down so that their models build quickly: a microcoded one, a pipelined one."""

from dataclasses import replace

from tapeout import chip as chips
from tapeout.rtl.cut_down import cut_down

TINY = chips.load("tiny")
CORE = TINY.core
SMALL = replace(
    TINY,
    name="small",
    core=replace(
        CORE,
        vector=replace(CORE.vector, lane_count=8),
        matrix=replace(CORE.matrix, row_count=2, column_count=2, accumulator_interleave=2),
        scratchpad=replace(CORE.scratchpad, size_bytes=32768, bank_count=2, port_width_bytes=32, latency_cycles=2),
        load_dma=replace(CORE.load_dma, bytes_per_cycle=16, outstanding_bytes=512),
        store_dma=replace(CORE.store_dma, bytes_per_cycle=16, outstanding_bytes=512),
        semaphore_count=64,
    ),
)
PIPELINED = cut_down(chips.load("inference"))
