"""The cycle-level timing simulator: how long a launch takes on a chip, and where the time goes.

Takes the very Program that runs, a chip, a grid and arguments; touches no data. `reference` is the model in plain
Python, `fast` the same in C++, which `simulate` runs. Where time depends on data (gathers, branches on loaded values) a
`DataTrace` brings them (`FlatTrace` is the same in a few arrays).
"""

from collections.abc import Sequence

from tapeout.chip import Chip
from tapeout.errors import TapeoutError
from tapeout.isa import Program
from tapeout.sim.timing import fast
from tapeout.sim.timing.result import REASONS, UNITS, Interval, MemoryRegion, Timing, differences
from tapeout.sim.timing.trace import DataMissing, DataTrace, FlatTrace, ProgramData, program_needs_data, record_trace

__all__ = [
    "REASONS",
    "UNITS",
    "DataMissing",
    "DataTrace",
    "FlatTrace",
    "Interval",
    "MemoryRegion",
    "ProgramData",
    "Timing",
    "differences",
    "program_needs_data",
    "record_trace",
    "simulate",
]


def simulate(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    *,
    data: DataTrace | FlatTrace | None = None,
    record: bool = False,
    memory_base: int = 0,
    workspace: int = 0,
    memory_latency_cycles: int | None = None,
    regions: Sequence[MemoryRegion] = (),
) -> Timing:
    """Time one launch.

    `arguments`: 64-bit values, as at launch. `memory_base`: the address where the chip's HBM begins: pointers count
    from there, so that the result does not depend on where the host happens to keep the chip's memory. `workspace`:
    address of the private areas, one of `program.workspace_bytes` a core. `data`: what memory held, for a program that
    `program_needs_data`; without it gathers take random addresses within the region they lead into (the result's
    `assumed` says so), and a branch on loaded data raises DataMissing. `record`: keep every interval of every engine.

    A launch starts with all HBM rows closed and nothing in the last-level SRAM but the `regions` that say so, least
    recently used first, and ends when the last byte written has reached HBM. The result says which of the regions are
    in the SRAM then. With `memory_latency_cycles` there is neither: memory answers every request after so long, as it
    does in the RTL's testbench.
    """
    if min(grid) < 1:
        raise TapeoutError(f"{program.name}: a grid of {grid} has no program to time")
    for region in regions:
        if not memory_base <= region.first <= region.end:
            raise TapeoutError(
                f"{program.name}: {region} does not lie in HBM, which begins at {memory_base}, or ends before it begins"
            )
    return fast.simulate(
        program,
        chip,
        grid,
        arguments,
        data=data,
        record=record,
        memory_base=memory_base,
        workspace=workspace,
        memory_latency_cycles=memory_latency_cycles,
        regions=regions,
    )
