"""How long a launch takes on the chip: asks the timing simulator, and remembers.

A launch is timed with its tensors at canonical addresses: as if each allocation its arguments point into had been made
in an empty HBM, one after another, in the order of the arguments. So a time does not depend on where the allocator
happened to put a tensor, and the layers of a model, which differ in nothing else, share one simulation.
"""

import ctypes
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tapeout.chip import Chip
from tapeout.isa import Program
from tapeout.runtime import clock
from tapeout.sim import timing

REMEMBERED_LAUNCHES = 16_384


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """A program on a chip, compared by identity so that looking up its launches costs little.

    Its launches come as packed words: the grid, then the arguments. `address_flags` says which are addresses.
    """

    program: Program
    chip: Chip
    address_flags: bytes
    buffer_type: Any
    unpack: Callable[[bytes], tuple[int, ...]]


_timed_programs: dict[str, TimedProgram] = {}


def timed(program: Program, chip: Chip) -> TimedProgram:
    """The one `TimedProgram` of this program and chip, whoever loaded it and how often."""
    digest = hashlib.sha256(program.encode() + chip.fingerprint().encode()).hexdigest()
    known = _timed_programs.get(digest)
    if known is None:
        flags = bytes(3) + bytes(parameter.type.startswith("*") for parameter in program.parameters)
        buffer_type, unpack = ctypes.c_char * (8 * len(flags)), struct.Struct(f"<{len(flags)}q").unpack
        known = _timed_programs[digest] = TimedProgram(program, chip, flags, buffer_type, unpack)
    return known


def canonical(program: TimedProgram, words: bytes) -> tuple[bytes, int]:
    """The words with addresses replaced by canonical ones, and the first canonical address that is free."""
    if clock.place is None:
        return words, 0
    buffer = program.buffer_type.from_buffer_copy(words)
    free_address = clock.place(buffer, program.address_flags, len(program.address_flags))
    return buffer.raw, free_address


_remembered: dict[tuple[TimedProgram, bytes, int, bytes], timing.Timing | None] = {}


def time_of(
    program: TimedProgram, words: bytes, workspace: int, data: timing.FlatTrace | None = None
) -> timing.Timing | None:
    """None: the time depends on data that are not given. `workspace`: where the cores' private memory is."""
    key = (program, words, workspace, data.digest if data else b"")
    if key not in _remembered:
        if len(_remembered) >= REMEMBERED_LAUNCHES:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = _simulated(program, words, workspace, data)
    return _remembered[key]


def _simulated(
    program: TimedProgram, words: bytes, workspace: int, data: timing.FlatTrace | None
) -> timing.Timing | None:
    x, y, z, *arguments = program.unpack(words)
    try:
        return timing.simulate(program.program, program.chip, (x, y, z), arguments, workspace=workspace, data=data)
    except timing.DataMissing:
        return None


def launch(program: TimedProgram, words: bytes, data: timing.FlatTrace | None = None) -> None:
    """Add a launch to the stream that is current on this process's clock. `data`: what it depends on, if known."""
    words, workspace = canonical(program, words)
    launched = time_of(program, words, workspace, data)
    now = clock.active
    assert now is not None
    if launched is None:
        now.untimed_kernel(program.program.name)
        return
    details = None
    if now.record:
        x, y, z, *arguments = program.unpack(words)
        details = clock.Launch(program.program, program.chip, (x, y, z), tuple(arguments), workspace, data, launched)
    now.work(
        clock.Kind.KERNEL,
        program.program.name,
        clock.kernel_ps(launched.cycles, program.chip),
        stream=clock.current_stream(),
        submission_ps=launched.launch_ns * clock.PICOSECONDS_PER_NANOSECOND,
        operator=clock.current_operator() if now.record else "",
        launch=details,
        assumed=launched.assumed,
    )
