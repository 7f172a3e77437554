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
    blocks_type: Any
    unpack: Callable[[bytes], tuple[int, ...]]
    unpack_blocks: Callable[[Any], tuple[int, ...]]


_timed_programs: dict[str, TimedProgram] = {}


def timed(program: Program, chip: Chip) -> TimedProgram:
    """The one `TimedProgram` of this program and chip, whoever loaded it and how often."""
    digest = hashlib.sha256(program.encode() + chip.fingerprint().encode()).hexdigest()
    known = _timed_programs.get(digest)
    if known is None:
        flags = bytes(3) + bytes(parameter.type.startswith("*") for parameter in program.parameters)
        count = len(flags)
        buffer_type, blocks_type = ctypes.c_char * (8 * count), ctypes.c_int64 * (3 * count)
        unpack, unpack_blocks = struct.Struct(f"<{count}q").unpack, struct.Struct(f"<{3 * count}q").unpack
        known = TimedProgram(program, chip, flags, buffer_type, blocks_type, unpack, unpack_blocks)
        _timed_programs[digest] = known
    return known


@dataclass(frozen=True)
class Placed:
    """A launch's words with canonical addresses, the first address that is free, and its allocations: where each is
    in truth, where it would be, and its bytes."""

    words: bytes
    workspace: int
    allocations: tuple[tuple[int, int, int], ...]


def canonical(program: TimedProgram, words: bytes) -> Placed:
    if clock.place is None:
        return Placed(words, 0, ())
    buffer, blocks = program.buffer_type.from_buffer_copy(words), program.blocks_type()
    free_address = clock.place(buffer, program.address_flags, len(program.address_flags), blocks)
    numbers = program.unpack_blocks(blocks)
    allocations = [block for block in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True) if block[1]]
    return Placed(buffer.raw, free_address, tuple(allocations))


Warm = tuple[bool, ...]
"""Of a launch's allocations, which are in the last-level SRAM when it starts."""

_remembered: dict[tuple[TimedProgram, bytes, int, Warm, bytes], timing.Timing | None] = {}


def time_of(
    program: TimedProgram, placed: Placed, warm: Warm, data: timing.FlatTrace | None = None
) -> timing.Timing | None:
    """None: the time depends on data that are not given."""
    key = (program, placed.words, placed.workspace, warm, data.digest if data else b"")
    if key not in _remembered:
        if len(_remembered) >= REMEMBERED_LAUNCHES:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = _simulated(program, placed, warm, data)
    return _remembered[key]


def _regions(placed: Placed, warm: Warm) -> tuple[timing.MemoryRegion, ...]:
    return tuple(
        timing.MemoryRegion(first, first + size, is_resident)
        for (_, first, size), is_resident in zip(placed.allocations, warm, strict=True)
    )


def _simulated(
    program: TimedProgram, placed: Placed, warm: Warm, data: timing.FlatTrace | None
) -> timing.Timing | None:
    x, y, z, *arguments = program.unpack(placed.words)
    try:
        return timing.simulate(
            program.program,
            program.chip,
            (x, y, z),
            arguments,
            workspace=placed.workspace,
            data=data,
            regions=_regions(placed, warm),
        )
    except timing.DataMissing:
        return None


def launch(program: TimedProgram, words: bytes, data: timing.FlatTrace | None = None) -> None:
    """Add a launch to the stream that is current on this process's clock. `data`: what it depends on, if known."""
    now, sram = clock.active, program.chip.last_level_sram
    assert now is not None
    placed = canonical(program, words)
    residence = now.residence
    residence.capacity_bytes = sram.size_bytes
    warm = tuple([residence.holds(address, size) for address, _, size in placed.allocations])
    launched = time_of(program, placed, warm, data)
    if launched is None:
        residence.clear()
        now.untimed_kernel(program.program.name)
        return
    residence.update(
        [(a, size, there) for (a, _, size), there in zip(placed.allocations, launched.resident, strict=True)],
        launched.sram_misses * sram.line_bytes,
    )
    details = None
    if now.record:
        x, y, z, *arguments = program.unpack(placed.words)
        details = clock.Launch(
            program.program,
            program.chip,
            (x, y, z),
            tuple(arguments),
            placed.workspace,
            data,
            _regions(placed, warm),
            launched,
        )
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
