"""Graphs: launches captured once and replayed, as `torch.cuda.CUDAGraph` does on a GPU.

While a graph is captured nothing runs: launches are noted, and what would read or write the chip's memory from the host
is refused. A replay launches them again, on the same addresses. The memory allocated in a capture is the graph's as
long as it lives; random numbers are drawn anew by every replay. In the chip's time a replay is one launch to the host,
and a short gap on the chip before each further kernel (`clock.graph_gap_ps`).
"""

import contextlib
import itertools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.pytorch.device import device
from tapeout.pytorch.device_runtime import BLOCK_TAKER, shim
from tapeout.pytorch.streams import stream as made_current
from tapeout.pytorch.streams import synchronize
from tapeout.runtime import clock, session

Pool = tuple[int, int]

_FIRST_MARK = 0x5EED_0000_0000_0000
"""Words from here on stand, in what is captured, for numbers that only a replay will draw."""


@dataclass
class _Launch:
    kernel: Any
    grid: tuple[int, int, int]
    words: tuple[int, ...]
    drawn: list[tuple[int, int]]
    """Places of words that each replay draws, and which number drawn it is."""
    chip: int


@dataclass
class _Capture:
    launches: list[_Launch] = field(default_factory=list)
    draws: list[tuple[torch.Generator | None, int, int]] = field(default_factory=list)
    """Generator, how many numbers and on which chip; each gives two words, a seed and the first number's place."""

    def __call__(self, kernel: Any, grid: tuple[int, int, int], words: Sequence[int]) -> None:
        marks = range(_FIRST_MARK, _FIRST_MARK + 2 * len(self.draws))
        drawn = [(place, word - _FIRST_MARK) for place, word in enumerate(words) if word in marks]
        self.launches.append(_Launch(kernel, grid, tuple(words), drawn, chips.current_index()))


def is_capturing() -> bool:
    return isinstance(session.launcher, _Capture)


def draw(generator: torch.Generator | None, count: int) -> tuple[int, int]:
    """Takes `count` random numbers from the generator (None: the chip's own): its seed and the first one's place."""
    if isinstance(capture := session.launcher, _Capture):
        capture.draws.append((generator, count, chips.current_index()))
        mark = _FIRST_MARK + 2 * (len(capture.draws) - 1)
        return mark, mark + 1
    seed, first = torch.ops.tapeout.draw(generator, count)
    return seed, first


class Graph:
    """A graph of launches, with the interface of `torch.cuda.CUDAGraph` and `torch.accelerator.Graph`. As a context
    manager it captures what runs inside. Memory pools and error modes are taken and make no difference."""

    def __init__(self, keep_graph: bool = False, *, pool: Pool | None = None, capture_error_mode: str = "default"):
        self._pool = pool
        self._capture: _Capture | None = None
        self._give_back: Any = None

    def capture_begin(self, pool: Pool | None = None, capture_error_mode: str = "global", **_: Any) -> None:
        """Note launches from now on. Raises TapeoutError if that cannot begin now."""
        if session.launcher is not None:
            raise TapeoutError("a graph cannot be captured within another capture or in co-simulation")
        if self._capture is not None:
            raise TapeoutError("this graph is captured already: reset() it first, or make another")
        self._pool = pool or self._pool
        synchronize()
        shim().tapeout_begin_capture()
        session.take_launches(_Capture())

    def capture_end(self) -> None:
        """End the capture. Raises TapeoutError if there is none, or if it cannot be replayed; it is gone then."""
        capture = self._stop()
        taken = {number for launch in capture.launches for _, number in launch.drawn}
        if taken != set(range(2 * len(capture.draws))):
            self.reset()
            raise TapeoutError(
                "a captured operator draws random numbers in a way that a replay cannot repeat: draw them before the "
                "capture and give them as a tensor"
            )
        self._capture = capture

    def _stop(self) -> _Capture:
        capture = session.launcher
        if not isinstance(capture, _Capture):
            raise TapeoutError("no capture of a graph is under way: capture_begin() starts one")
        session.give_launches_back()
        blocks: list[int] = []
        shim().tapeout_end_capture(BLOCK_TAKER(blocks.append))
        self._give_back = weakref.finalize(self, _let_go, blocks)
        self._give_back.atexit = False
        return capture

    def instantiate(self) -> None:
        """Nothing is left to prepare. Raises TapeoutError if nothing was captured."""
        self._captured()

    def replay(self) -> None:
        """Launch what was captured. Raises what the launches raise."""
        capture = self._captured()
        numbers: list[int] = []
        for generator, count, chip in capture.draws:
            with device(chip):
                numbers += draw(generator, count)
        with contextlib.ExitStack() as stack:
            for chip in {launch.chip for launch in capture.launches} if session.clocks else ():
                stack.enter_context(session.clocks[chip].replaying(clock.graph_gap_ps(chips.of_process()[chip])))
            for chip, launches in itertools.groupby(capture.launches, lambda launch: launch.chip):
                with device(chip):
                    for launch in launches:
                        words: Sequence[int] = launch.words
                        if launch.drawn:
                            words = [*words]
                            for place, number in launch.drawn:
                                words[place] = numbers[number]
                        launch.kernel.launch(launch.grid, words)

    def reset(self) -> None:
        """Forget what was captured and give its memory back."""
        self._capture = None
        if self._give_back is not None:
            self._give_back()
            self._give_back = None

    def pool(self) -> Pool:
        """The pool that was asked for, or this graph's own: of no consequence."""
        return self._pool or (0, id(self))

    def enable_debug_mode(self) -> None:
        """`debug_dump` works in any case."""

    def debug_dump(self, debug_path: str) -> None:
        """Write one line for each launch: kernel, grid and raw words."""
        lines = (f"{each.kernel.program.name} {each.grid} {each.words}\n" for each in self._captured().launches)
        Path(debug_path).write_text("".join(lines))

    def __enter__(self) -> "Graph":
        self.capture_begin(self._pool)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is None:
            self.capture_end()
        else:
            self._stop()
            self.reset()

    def _captured(self) -> _Capture:
        if self._capture is None:
            raise TapeoutError("this graph holds nothing: capture something first")
        return self._capture


def _let_go(blocks: list[int]) -> None:
    for address in blocks:
        shim().tapeout_let_go(address)


@contextlib.contextmanager
def graph(
    cuda_graph: Graph,
    pool: Pool | None = None,
    stream: torch.Stream | None = None,
    capture_error_mode: str = "global",
    **_: Any,
) -> Iterator[None]:
    """Capture what runs inside into a graph; as `torch.cuda.graph`."""
    cuda_graph._pool = pool or cuda_graph._pool
    with made_current(stream), cuda_graph:
        yield


def graph_pool_handle() -> Pool:
    """A pool's name: of no consequence."""
    return (0, 1)
