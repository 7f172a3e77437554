"""The state of the machine that instructions see and change: the chip's memory, and what a core's sequencer knows.

The evaluator and the timing simulator each add what is theirs to `SequencerState`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapeout.isa import Program
from tapeout.isa.fields import REGISTER_COUNT


@dataclass(frozen=True)
class Memory:
    """The chip's memory: bytes from a base address on. Instructions change `data` in place."""

    base: int
    data: np.ndarray[Any, np.dtype[np.uint8]]


NO_MEMORY = Memory(0, np.zeros(0, np.uint8))


class SequencerState:
    """State that the sequencer's own instructions read and write on one core. `programs`: those of the grid that the
    core has still to run."""

    def __init__(
        self,
        program: Program,
        grid: tuple[int, int, int],
        arguments: Sequence[int],
        programs: Sequence[tuple[int, int, int]],
        workspace: int,
    ) -> None:
        self.program = program
        self.grid = grid
        self.arguments = arguments
        self.programs = deque(programs)
        self.program_id = (0, 0, 0)
        self.workspace = workspace
        self.registers = [0] * REGISTER_COUNT

    def set_register(self, number: int, value: int) -> None:
        """Registers hold 64 bits, read signed. Register 0 stays zero."""
        if number:
            self.registers[number] = (value + (1 << 63)) % (1 << 64) - (1 << 63)
