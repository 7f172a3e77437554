"""Faults of a running program, as exceptions that name the instruction, its source line and the
program.

All of them mean that the program is wrong (or was given wrong arguments), not the simulator.
"""

from tapeout.errors import TapeoutError


class Fault(TapeoutError):
    """A program broke a rule of the chip while it ran. `place` says where."""

    def __init__(self, place: str, sentence: str):
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.place = place
        self.sentence = sentence


class AccessFault(Fault):
    """An access outside the memory there is."""


class OverlapFault(Fault):
    """Source and destination of one instruction overlap in a way that leaves the result open."""


class RaceFault(Fault):
    """Two queues of a core touch the same byte, one of them writing, and nothing orders them."""


class SynchronisationFault(Fault):
    """A deadlock, or semaphores that are not zero at the end."""


class IllegalInstruction(Fault):
    """An instruction whose fields do not go together."""


class Trapped(Fault):
    """The program executed `trap`: a device assertion failed. `code` is its number."""

    def __init__(self, place: str, sentence: str, code: int):
        super().__init__(place, sentence)
        self.code = code
