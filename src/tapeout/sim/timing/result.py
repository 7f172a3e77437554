"""Result of a timing simulation: cycles, their causes, and the work done, for one launch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from tapeout.isa import Program, Unit
from tapeout.isa import definitions as isa
from tapeout.isa.cost import Cost
from tapeout.sim.ordering import AGENTS, NUMBER_OF_AGENT

Counts = np.ndarray[Any, np.dtype[np.int64]]

UNITS = AGENTS
"""The engines of a core in the order of the columns of `Timing.busy_cycles`."""

REASONS = (
    "empty",
    "semaphore",
    "queue full",
    "dependency",
    "memory",
    "bank conflict",
    "drain",
    "dispatch",
    "idle",
)
"""Reasons why an engine was idle, in the order of the last axis of the stall arrays.

empty: nothing was issued to it. semaphore: it waited to be given one. queue full: the sequencer could not issue.
dependency: a result of its own pipeline was not there yet. memory: a DMA engine had as many bytes in flight as it may,
or nothing to do until its data came. bank conflict: scratchpad banks were asked twice. drain: the sequencer waited for
the queues. dispatch: the sequencer waited for its next program. idle: the core had halted."""

NUMBER_OF_REASON = {reason: number for number, reason in enumerate(REASONS)}


@dataclass(frozen=True, slots=True)
class Interval:
    """An engine of a core working on one execution of an instruction, from `start` to `end` in cycles of the launch.

    `waited_cycles` it had waited before for `waited_for` (a reason; "" if it had not waited).
    """

    core: int
    unit: Unit
    instruction_index: int
    start: int
    end: int
    waited_cycles: int
    waited_for: str


@dataclass(frozen=True)
class MemoryRegion:
    """Bytes of HBM from `first` to `end`, and whether all of them are in the last-level SRAM too."""

    first: int
    end: int
    is_resident: bool = False


@dataclass(frozen=True, eq=False)
class Timing:
    """One launch on one chip.

    `cycles` of the core clock, from the first instruction to the last byte written, without the host's launch
    overhead, which is `launch_ns`. Arrays have a row for each core that took part:
    `busy_cycles[core, unit]`, `stall_cycles[core, unit, reason]`; busy and stalls of an engine add up to `cycles`.
    For each instruction of the program, summed over cores: `instruction_counts`, `instruction_busy_cycles`,
    `instruction_stall_cycles[instruction, reason]` (waiting is the waiter's; the sequencer's cycles to issue a queued
    instruction are counted with it).
    `sram_*_bytes` are what cores asked of the last-level SRAM; hits and misses count requests.
    `resident`: of the regions asked about, which were in the last-level SRAM at the end.
    `multiply_accumulates` by operand type. `assumed`: what had to be assumed for want of data; empty if nothing.
    """

    cycles: int
    launch_ns: int
    clock_hz: int
    program_count: int
    busy_cycles: Counts
    stall_cycles: Counts
    instruction_counts: Counts
    instruction_busy_cycles: Counts
    instruction_stall_cycles: Counts
    hbm_read_bytes: int
    hbm_written_bytes: int
    sram_read_bytes: int
    sram_written_bytes: int
    sram_hits: int
    sram_misses: int
    row_hits: int
    row_misses: int
    multiply_accumulates: Mapping[str, int]
    vector_operations: int
    scratchpad_bytes: int
    assumed: tuple[str, ...] = ()
    intervals: tuple[Interval, ...] = ()
    resident: tuple[bool, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timing) and not differences(self, other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def core_count(self) -> int:
        """Cores that took part."""
        return len(self.busy_cycles)

    @property
    def seconds(self) -> float:
        """Time on the chip, without the host's launch overhead."""
        return self.cycles / self.clock_hz

    @cached_property
    def busy_by_unit(self) -> dict[Unit, int]:
        """Busy cycles of an engine, summed over cores."""
        return {unit: int(n) for unit, n in zip(UNITS, self.busy_cycles.sum(axis=0), strict=True)}

    def stalls(self, unit: Unit) -> dict[str, int]:
        """Stall cycles of an engine by reason, summed over cores; reasons that did not occur are left out."""
        totals = self.stall_cycles[:, NUMBER_OF_AGENT[unit], :].sum(axis=0)
        return {reason: int(n) for reason, n in zip(REASONS, totals, strict=True) if n}


def differences(one: Timing, other: Timing) -> list[str]:
    """Names of the fields in which two results differ."""
    return [
        field.name
        for field in fields(Timing)
        if not np.array_equal(getattr(one, field.name), getattr(other, field.name))
        and getattr(one, field.name) is not getattr(other, field.name)
    ]


@dataclass(frozen=True)
class MemoryCounts:
    """Counts of the memory system."""

    hbm_read_bytes: int
    hbm_written_bytes: int
    sram_read_bytes: int
    sram_written_bytes: int
    sram_hits: int
    sram_misses: int
    row_hits: int
    row_misses: int


def activity(program: Program, costs: list[Cost], counts: Counts) -> tuple[dict[str, int], int, int]:
    """Multiply-accumulates by type, vector operations and scratchpad bytes of so many executions."""
    products: dict[str, int] = {}
    operations = moved = 0
    for item, cost, count in zip(program.instructions, costs, counts.tolist(), strict=True):
        moved += count * cost.scratchpad_bytes
        if item.unit is Unit.VECTOR:
            operations += count * cost.operations
        elif isinstance(item, isa.MatrixMultiply):
            label = item.lhs_dtype.label
            products[label] = products.get(label, 0) + count * cost.operations
    return products, operations, moved
