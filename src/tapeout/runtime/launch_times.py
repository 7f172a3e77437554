"""Times of launches on the chip: asks the timing simulator, and caches its answers.

A launch is timed with its tensors at canonical addresses: as if each allocation its arguments point into had been made
in an empty HBM, one after another, in the order of the arguments. So a time does not depend on where the allocator
happened to put a tensor, and the layers of a model, which differ in nothing else, share one simulation.
"""

import ctypes
import functools
import hashlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Program
from tapeout.runtime import clock, native
from tapeout.runtime.process import session
from tapeout.sim import timing

REMEMBERED_LAUNCHES = 16_384
BLOCK_WORDS = 4
"""For each of a launch's allocations: where it is, its bytes, where it would be, and whether it is in the SRAM."""


@functools.cache
def library() -> ctypes.PyDLL:
    word, pointer, text = ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
    # Calls are short and change what other calls read: they keep Python's lock.
    loaded = ctypes.PyDLL(native.library()._name)
    for name, result, arguments in (
        ("tapeout_timed_program", pointer, (text, word, word)),
        ("tapeout_clock", pointer, ()),
        ("tapeout_free_clock", None, (pointer,)),
        ("tapeout_empty_sram", None, (pointer,)),
        ("tapeout_submit", word, (pointer, pointer, text, text, word, pointer, word)),
        ("tapeout_identify", None, (pointer, pointer, text, text, pointer, pointer)),
        ("tapeout_know", None, (text, word, word, word, text, word, word)),
        ("tapeout_forget_times", None, ()),
        ("tapeout_backlog_size", word, (pointer,)),
        ("tapeout_take_backlog", None, (pointer, pointer)),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """A program on a chip. Its launches come as packed words: the grid, then the arguments. `handle` is the same in
    C++."""

    program: Program
    chip: Chip
    word_count: int
    handle: int


_timed_programs: dict[str, TimedProgram] = {}


def timed(program: Program, chip: Chip) -> TimedProgram:
    """The one `TimedProgram` of this program and chip, whoever loaded it and how often."""
    digest = hashlib.sha256(program.encode() + chip.fingerprint().encode()).hexdigest()
    known = _timed_programs.get(digest)
    if known is None:
        flags = bytes(3) + bytes(parameter.type.startswith("*") for parameter in program.parameters)
        handle = library().tapeout_timed_program(flags, len(flags), chip.memory_side.size_bytes)
        known = _timed_programs[digest] = TimedProgram(program, chip, len(flags), handle)
    return known


class Backlog:
    """C++ state of a clock: launches it has not taken up, and which allocations lie in the last-level SRAM."""

    def __init__(self) -> None:
        self.handle = library().tapeout_clock()
        weakref.finalize(
            self, library().tapeout_free_clock, self.handle
        ).atexit = False  # threads may use it until the end

    def take(self) -> list[tuple[int, int, int]]:
        count = library().tapeout_backlog_size(self.handle)
        if not count:
            return []
        words = np.empty((count, 3), np.int64)
        library().tapeout_take_backlog(self.handle, words.ctypes.data)
        launches: list[tuple[int, int, int]] = words.tolist()
        return launches

    def empty_sram(self) -> None:
        library().tapeout_empty_sram(self.handle)


@dataclass(frozen=True)
class Placed:
    """A launch with canonical addresses: what names it, the words of its grid and arguments, the first address that is
    free, and its allocations."""

    digest: bytes
    words: tuple[int, ...]
    workspace: int
    regions: tuple[timing.MemoryRegion, ...]


def _placed(handle: int, program: TimedProgram, words: bytes, data_digest: bytes | None) -> Placed:
    ends = np.cumsum([2, 1, program.word_count, 1, BLOCK_WORDS * program.word_count])
    out = np.empty(ends[-1], np.int64)
    library().tapeout_identify(handle, program.handle, words, data_digest, session.place, out.ctypes.data)
    digest, (block_count,), canonical, (free_address,), blocks = np.split(out, ends[:-1])
    return Placed(
        digest=digest.tobytes(),
        words=tuple(canonical.tolist()),
        workspace=int(free_address),
        regions=tuple(
            timing.MemoryRegion(first, first + size, bool(is_resident))
            for _, size, first, is_resident in blocks.reshape(-1, BLOCK_WORDS)[:block_count].tolist()
        ),
    )


_remembered: dict[bytes, timing.Timing | None] = {}
"""Launch times by the digest of a launch; None: its time depends on data that are not given."""


def _simulated(program: TimedProgram, placed: Placed, data: timing.FlatTrace | None) -> timing.Timing | None:
    """The time of a launch, which is then known."""
    if len(_remembered) >= REMEMBERED_LAUNCHES:
        _remembered.clear()
        library().tapeout_forget_times()
    x, y, z, *arguments = placed.words
    try:
        found = timing.simulate(
            program.program,
            program.chip,
            (x, y, z),
            arguments,
            workspace=placed.workspace,
            data=data,
            regions=placed.regions,
        )
    except timing.DataMissing:
        _remembered[placed.digest] = None
        return None
    _remembered[placed.digest] = found
    library().tapeout_know(
        placed.digest,
        clock.kernel_ps(found.cycles, program.chip),
        found.launch_ns * clock.PICOSECONDS_PER_NANOSECOND,
        found.sram_misses * program.chip.memory_side.line_bytes,
        bytes(found.resident),
        len(found.resident),
        bool(found.assumed),
    )
    return found


def launch(
    program: TimedProgram,
    words: bytes,
    data_digest: bytes | None = None,
    data: Callable[[], timing.FlatTrace] | None = None,
) -> None:
    """Add a launch to the stream that is current on this process's clock. `data`: what it depends on, if known, and
    `data_digest` what is equal for equal data."""
    now = session.clock
    assert now is not None
    if now.backlog is None:
        now.backlog = Backlog()
    submission = (now.backlog.handle, program.handle, words, data_digest, session.current_stream(), session.place)
    if now.is_watched or not library().tapeout_submit(*submission, False):
        placed = _placed(now.backlog.handle, program, words, data_digest)
        trace = data() if data else None
        known = placed.digest in _remembered
        launched = _remembered[placed.digest] if known else _simulated(program, placed, trace)
        if launched is None:
            now.empty_sram()
            now.untimed_kernel(program.program.name)
            return
        library().tapeout_submit(*submission, True)
        _tell(now, program, placed, trace, launched)


def _tell(
    now: clock.VirtualClock,
    program: TimedProgram,
    placed: Placed,
    data: timing.FlatTrace | None,
    launched: timing.Timing,
) -> None:
    """Give the clock a launch in full."""
    x, y, z, *arguments = placed.words
    now.work(
        clock.Kind.KERNEL,
        program.program.name,
        clock.kernel_ps(launched.cycles, program.chip),
        stream=session.current_stream(),
        submission_ps=launched.launch_ns * clock.PICOSECONDS_PER_NANOSECOND,
        operator=session.current_operator() if now.record else "",
        launch=clock.Launch(
            program.program,
            program.chip,
            (x, y, z),
            tuple(arguments),
            placed.workspace,
            data,
            placed.regions,
            launched,
        ),
        assumed=launched.assumed,
    )
