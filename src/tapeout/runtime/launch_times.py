"""How long a launch takes on the chip: asks the timing simulator, and remembers.

A launch is timed with its tensors at canonical addresses: as if each allocation its arguments point into had been made
in an empty HBM, one after another, in the order of the arguments. So a time does not depend on where the allocator
happened to put a tensor, and the layers of a model, which differ in nothing else, share one simulation.
"""

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.isa import Program
from tapeout.runtime import clock
from tapeout.sim import timing

REMEMBERED_LAUNCHES = 16_384

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """A program on a chip, compared by identity so that looking up its launches costs little."""

    program: Program
    chip: Chip
    pointer_flags: bytes


_timed_programs: dict[str, TimedProgram] = {}


def timed(program: Program, chip: Chip) -> TimedProgram:
    """The one `TimedProgram` of this program and chip, whoever loaded it and how often."""
    digest = hashlib.sha256(program.encode() + chip.fingerprint().encode()).hexdigest()
    known = _timed_programs.get(digest)
    if known is None:
        flags = bytes(parameter.type.startswith("*") for parameter in program.parameters)
        known = _timed_programs[digest] = TimedProgram(program, chip, flags)
    return known


def canonical(program: TimedProgram, arguments: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The arguments with addresses replaced by canonical ones, and the first canonical address that is free."""
    count = len(arguments)
    if clock.place is None:
        return tuple(arguments), 0
    words = (ctypes.c_int64 * count)(*arguments)
    free_address = clock.place(words, program.pointer_flags, count)
    return tuple(words), free_address


@functools.lru_cache(maxsize=REMEMBERED_LAUNCHES)
def time_of(program: TimedProgram, grid: Grid, words: tuple[int, ...], workspace: int) -> timing.Timing | None:
    """None: the time depends on data. `workspace`: where the cores' private memory is."""
    try:
        return timing.simulate(program.program, program.chip, grid, words, workspace=workspace)
    except timing.DataMissing:
        return None


def launch(program: TimedProgram, grid: Grid, arguments: Sequence[int]) -> None:
    """Add a launch to the stream that is current on this process's clock."""
    if min(grid) <= 0:
        return
    words, workspace = canonical(program, arguments)
    chip, launched = program.chip, time_of(program, grid, words, workspace)
    assert clock.active is not None
    if launched is None:
        clock.active.untimed_kernel(program.program.name)
        return
    clock.active.work(
        clock.Kind.KERNEL,
        program.program.name,
        clock.kernel_ps(launched.cycles, chip),
        stream=clock.current_stream(),
        submission_ps=launched.launch_ns * clock.PICOSECONDS_PER_NANOSECOND,
        operator=clock.current_operator(),
        launch=clock.Launch(program.program, chip, grid, words, workspace, launched),
    )
