"""A launch on four machines: reference evaluator, functional simulator, timing simulator and RTL.

Takes a launch and the memory its pointers lie in; changes the memory as the launch does. Gives the bytes that the
others left different from the evaluator's, the cycles of the RTL and of the timing simulator and, if the RTL differs,
the first instruction that does.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.errors import UnsupportedError
from tapeout.isa import Program
from tapeout.rtl import simulation
from tapeout.rtl.difference import Difference, executed, first_difference
from tapeout.rtl.pipelined.coverage import all_without_pipeline
from tapeout.runtime.kernel import Kernel
from tapeout.sim import timing
from tapeout.sim.state import Memory

MEMORY_LIMIT_BYTES = 256 << 20

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Comparison:
    """Results of one launch on four machines. `changed_bytes`: bytes of memory that the evaluator changed;
    `functional_bytes` and `rtl_bytes`: bytes that the functional simulator and the RTL left different from it.
    `microcoded`: what of the kernel a pipelined core has no pipeline for, so that its cycles are not the timing
    simulator's."""

    name: str
    grid: Grid
    changed_bytes: int
    functional_bytes: int
    rtl_bytes: int
    rtl_cycles: int
    timing_cycles: int
    rtl_hertz: float
    difference: Difference | None
    waveform: Path | None
    microcoded: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.functional_bytes and not self.rtl_bytes

    @property
    def cycle_error(self) -> float:
        """Error of the timing simulator's cycles, as a share of the RTL's."""
        return self.timing_cycles / self.rtl_cycles - 1


@dataclass(frozen=True)
class _Launch:
    program: Program
    chip: Chip
    grid: Grid
    arguments: tuple[int, ...]
    base: int
    before: np.ndarray[Any, np.dtype[np.uint8]]
    optimised: bool

    @property
    def workspace(self) -> int:
        return self.base + len(self.before)

    def memory(self) -> Memory:
        """The memory before the launch, with room for private areas behind it."""
        area = np.zeros(self.chip.core_count * self.program.workspace_bytes, np.uint8)
        return Memory(self.base, np.concatenate([self.before, area]))

    def on_rtl(self, **options: Any) -> tuple[Memory, simulation.RtlOutcome]:
        memory = self.memory()
        outcome = simulation.run(
            self.program,
            self.chip,
            self.grid,
            self.arguments,
            memory,
            workspace=self.workspace,
            optimised=self.optimised,
            **options,
        )
        return memory, outcome

    def difference(self) -> Difference | None:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace"
            self.on_rtl(trace=trace)
            steps = executed(
                self.program, self.chip, self.grid, self.arguments, self.memory(), workspace=self.workspace
            )
            return first_difference(steps, self.program, trace)


def compare(
    kernel: Kernel,
    grid: Grid,
    arguments: Sequence[int],
    live: np.ndarray[Any, np.dtype[np.uint8]],
    *,
    memory_base: int | None = None,
    waveform: Path | None = None,
    optimised: bool = True,
) -> Comparison:
    """Launch a kernel on the live memory, and on copies of it. `memory_base`: where the chip's memory begins, if not
    with `live`. `waveform`: a file for the signals (FST) if the RTL differs.
    `optimised`: as for `tapeout.rtl.simulation.library`.

    Raises UnsupportedError for what the RTL does not have.
    """
    base = live.ctypes.data
    if len(live) > MEMORY_LIMIT_BYTES:
        raise UnsupportedError(
            f"co-simulation of {kernel.program.name} with tensors that span {len(live)} bytes",
            hint=f"{MEMORY_LIMIT_BYTES} are possible",
        )
    launch = _Launch(kernel.program, kernel.chip, grid, tuple(arguments), base, live.copy(), optimised)
    expected = launch.memory()
    data = timing.record_trace(kernel.program, kernel.chip, grid, arguments, expected, workspace=launch.workspace)
    timed = timing.simulate(
        kernel.program,
        kernel.chip,
        grid,
        arguments,
        data=data,
        memory_base=base if memory_base is None else memory_base,
        workspace=launch.workspace,
        memory_latency_cycles=kernel.chip.memory_side.latency_cycles,
    )
    found, outcome = launch.on_rtl()
    kernel.execute(grid, arguments)
    size = len(live)
    wanted = expected.data[:size]
    rtl_bytes = int(np.count_nonzero(found.data[:size] != wanted))
    written = None
    if rtl_bytes and waveform is not None:
        launch.on_rtl(waveform=waveform)
        written = waveform
    return Comparison(
        name=kernel.program.name,
        grid=grid,
        changed_bytes=int(np.count_nonzero(launch.before != wanted)),
        functional_bytes=int(np.count_nonzero(live != wanted)),
        rtl_bytes=rtl_bytes,
        rtl_cycles=outcome.cycles,
        timing_cycles=timed.cycles,
        rtl_hertz=outcome.cycles / outcome.host_seconds,
        difference=launch.difference() if rtl_bytes else None,
        waveform=written,
        microcoded=() if kernel.chip.core.is_microcoded else tuple(all_without_pipeline(kernel.program)),
    )
