"""State of this process: one `session`, and every part asks it.

A process simulates one chip, or several of which each thread has a current one. The chips themselves are in
`tapeout.chip`, which parts below the runtime ask too. The shim's own state is in C++.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.runtime.clock import Host, VirtualClock

Grid = tuple[int, int, int]
Launcher = Callable[[Any, Grid, Sequence[int]], None]
"""Takes a kernel (of `runtime.kernel`), a grid and the arguments' words."""


def _no_stream() -> int:
    return 0


def _no_operator() -> str:
    return ""


class Session:
    """What the launches of a process share. Attributes are read anywhere and written by the methods here alone.

    `clock`: the virtual clock of the current chip, or None while nobody has asked for time; `clocks`: of all chips.
    `timing_only`: kernels are timed, not executed, and no data is touched. `launcher`: stands in for every launch
    (co-simulation, which executes it on other machines too; the capture of a graph, which only notes it), or None.
    `arenas`: address and size in bytes of each chip's HBM; none: it is anywhere in the host's memory. `find_block`:
    the C function that finds the live block of HBM at an address, once the sanitizer watches.

    `current_stream()`: the stream that launches of this thread go to. `current_operator()`: the aten operator that runs
    in this thread, or "". `place`: address of the C function `place(words, address_flags, count, placed)`, or 0. It
    copies a launch's words into `placed`, the addresses among them made canonical. There follow the first address that
    is free after their allocations and, for each of those, where it is, its bytes, and where it would be. Gives their
    number.
    """

    def __init__(self) -> None:
        self.clocks: tuple[VirtualClock, ...] = ()
        self.timing_only = False
        self.launcher: Launcher | None = None
        self.arenas: tuple[tuple[int, int], ...] = ()
        self.find_block: Any = None
        self.current_stream: Callable[[], int] = _no_stream
        self.current_operator: Callable[[], str] = _no_operator
        self.place = 0
        self._listeners: list[Callable[[bool, bool], None]] = []

    # ------------------------------------------------------------------ time

    @property
    def clock(self) -> VirtualClock | None:
        clocks = self.clocks
        if len(clocks) > 1:
            return clocks[chips.current_index()]
        return clocks[0] if clocks else None

    def turn_on(self, *, only: bool = False) -> VirtualClock:
        """Keep time from now on, and return the clock: the present one if there is one. `only`: do not execute kernels.

        Raises TapeoutError if `only` comes after something was timed.
        """
        if only and self.clock is not None and not self.timing_only:
            raise TapeoutError(
                "timing alone must be asked for before anything else is timed, at the start of the program"
            )
        if self.clock is None:
            host = Host()
            self.clocks = tuple(VirtualClock(host=host) for _ in chips.of_process())
            self.timing_only = only
            self._tell_listeners()
        assert self.clock is not None
        return self.clock

    def turn_off(self) -> None:
        """Keep no time from now on, and forget what was kept. Raises TapeoutError in timing alone: nothing was
        computed."""
        if self.timing_only:
            raise TapeoutError("timing alone lasts as long as the process: there are no values to go on with")
        self.clocks = ()
        self._tell_listeners()

    def when_turned(self, then: Callable[[bool, bool], None]) -> None:
        """Call `then(time is kept, timing alone)` whenever that changes, and now."""
        self._listeners.append(then)
        then(self.clock is not None, self.timing_only)

    def _tell_listeners(self) -> None:
        for then in self._listeners:
            then(self.clock is not None, self.timing_only)

    # ------------------------------------------------------------------ the device

    def attach_device(self, current_stream: Callable[[], int], place: int) -> None:
        """Take streams and canonical addresses from the device that owns HBM. Called once, when it is first used."""
        self.current_stream, self.place = current_stream, place

    def name_operators(self, current_operator: Callable[[], str]) -> None:
        """Record, from now on, activities with the aten operator that caused them."""
        self.current_operator = current_operator

    def set_arenas(self, arenas: Sequence[tuple[int, int]], current_chip: int = 0) -> None:
        """Say which addresses are each chip's HBM. From then on pointer arguments and accesses outside it are refused;
        without arenas none is. `current_chip`: of several chips, address of the C function that gives the current."""
        from tapeout.runtime import native  # brings LLVM, which importing torch does not need

        library = native.library()
        begin = arenas[0][0] if arenas else 0
        library.tapeout_set_arena(begin, sum(size for _, size in arenas))
        if len(arenas) > 1:
            bases, sizes = zip(*arenas, strict=True)
            words = ctypes.c_int64 * len(arenas)
            library.tapeout_set_chips(len(arenas), words(*bases), words(*sizes), current_chip)
        self.arenas = tuple(arenas)

    def chip_that_holds(self, address: int) -> int | None:
        """Return the index of the chip whose HBM holds an address."""
        holds = (base <= address < base + size for base, size in self.arenas)
        return next((index for index, found in enumerate(holds) if found), None)

    def watch_blocks(self, find_block: Any) -> None:
        """Let the sanitizer find the live block of HBM at an address by a C function."""
        self.find_block = find_block

    # ------------------------------------------------------------------ launches

    def take_launches(self, launcher: Launcher) -> None:
        """Have `launcher` called instead of every launch, until `give_launches_back`. Nobody else may have them."""
        assert self.launcher is None
        self.launcher = launcher

    def give_launches_back(self) -> None:
        """Have launches executed again."""
        self.launcher = None

    @contextmanager
    def launched_by(self, launcher: Launcher) -> Iterator[None]:
        """Have `launcher` called instead of every launch inside."""
        self.take_launches(launcher)
        try:
            yield
        finally:
            self.give_launches_back()


session = Session()
"""The session of this process."""
