"""Cost of an instruction, and what a design of core says of it. The two designs are in modules of their own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.isa.fields import Instruction, Queued

if TYPE_CHECKING:  # the definitions name functions of `costs`, which imports this
    from tapeout.chip import Chip
    from tapeout.isa import definitions as isa


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one execution to its engine.

    `occupancy_cycles`: until the engine can start the next instruction. `conflict_cycles`: those of them that are due
    to scratchpad banks. `latency_cycles`: from the last element going in to the last result written.
    `first_result_cycles`: from the start to the first result written, `last_read_cycles`: to the last operand read;
    an instruction that reads, element for element, what the one before wrote may follow it that closely.
    `operations`: elements computed, or multiply-accumulates. `scratchpad_bytes`: read and written.
    `fill_cycles`: for reading sums back (matrix_multiply with accumulate), which can be done while the instruction
    before computes.
    """

    occupancy_cycles: int
    conflict_cycles: int = 0
    latency_cycles: int = 0
    operations: int = 0
    scratchpad_bytes: int = 0
    fill_cycles: int = 0
    first_result_cycles: int = 0
    last_read_cycles: int = 0


@dataclass(frozen=True, slots=True)
class CoreCosts(ABC):
    """Costs on a chip whose cores are of one design. `tapeout.isa.costs` says what each method counts."""

    chip: "Chip"

    @property
    @abstractmethod
    def handover_cycles(self) -> int: ...

    @abstractmethod
    def sequencer_cycles(self, item: Instruction) -> int: ...

    @abstractmethod
    def issue_cycles(self, item: Queued) -> int: ...

    @abstractmethod
    def front_cycles(self, item: Queued) -> int: ...

    @abstractmethod
    def dispatch_cycles(self, item: Instruction) -> int: ...

    @abstractmethod
    def scalar(self, item: "isa.Scalar") -> Cost: ...

    @abstractmethod
    def scalar_load(self, item: "isa.ScalarLoad") -> Cost: ...

    @abstractmethod
    def synchronise(self, item: Queued) -> Cost: ...

    @abstractmethod
    def block_transfer(self, item: "isa.Transfer") -> Cost: ...

    @abstractmethod
    def elementwise(self, item: "isa.Map | isa.Convert | isa.Iota") -> Cost: ...

    @abstractmethod
    def reduction(self, item: "isa.Reduce") -> Cost: ...

    @abstractmethod
    def pick(self, item: "isa.Gather") -> Cost: ...

    @abstractmethod
    def matrix_product(self, item: "isa.MatrixMultiply") -> Cost: ...
