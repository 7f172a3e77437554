"""The first instruction whose writes differ between the RTL and the reference evaluator.

Takes what both write, instruction by instruction: the evaluator's by watching it, the RTL's from the trace its
testbench leaves. A program free of races lets every instruction see the same data on both, so the first one that
writes something else, in the evaluator's order, is the one that computes something else.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Instruction, Program, Unit
from tapeout.isa.fields import QUEUES
from tapeout.isa.program import show
from tapeout.rtl.simulation import WRITE_RECORD
from tapeout.sim import evaluator
from tapeout.sim.execution import Frame
from tapeout.sim.state import Memory

Bytes = dict[int, int]
"""Content by address."""

SHOWN = 4


@dataclass(frozen=True)
class Step:
    """A queued instruction the evaluator executed, and the bytes it read and wrote. `unchanged`: those of the
    scratchpad that had this content before, which hardware may leave alone."""

    core: int
    unit: Unit
    serial: int
    program_id: tuple[int, int, int]
    index: int
    item: Instruction
    read: Bytes
    scratchpad: Bytes
    unchanged: frozenset[int]
    memory: Bytes


@dataclass(frozen=True)
class Difference:
    """The first instruction that wrote other bytes: what both wrote where they differ (None: nothing), what the
    instruction read on both sides, and the cycle of the RTL's first write."""

    step: Step
    location: str
    cycle: int | None
    where: str
    expected: dict[int, int | None]
    found: dict[int, int | None]
    read_on_rtl: Bytes

    def __str__(self) -> str:
        step = self.step
        lines = [
            f"{self.location}: the {step.unit.value} queue's instruction number {step.serial} on core {step.core}, of "
            f"program {step.program_id}, writes other bytes" + ("" if self.cycle is None else f" (cycle {self.cycle})"),
            f"  {show(step.item)}",
            f"  {len(self.expected)} bytes of {self.where} differ:",
        ]
        for address in list(self.expected)[: 4 * SHOWN]:
            lines.append(f"    {address:#x}: evaluator {_hex(self.expected[address])}, RTL {_hex(self.found[address])}")
        apart = [a for a, value in step.read.items() if self.read_on_rtl.get(a, value) != value]
        if apart:
            lines.append(f"  {len(apart)} bytes of its operands differ already:")
            for address in apart[: 4 * SHOWN]:
                lines.append(
                    f"    {address:#x}: evaluator {step.read[address]:#04x}, RTL {self.read_on_rtl[address]:#04x}"
                )
        else:
            lines.append("  its operands in the scratchpad are the same on both")
        return "\n".join(lines)


def _hex(value: int | None) -> str:
    return "wrote nothing" if value is None else f"{value:#04x}"


def executed(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    memory: Memory,
    *,
    workspace: int = 0,
) -> list[Step]:
    """Every queued instruction but `sync`, in the evaluator's order. Changes the memory."""
    core_count = min(chip.core_count, grid[0] * grid[1] * grid[2])
    index_of = {id(item): index for index, item in enumerate(program.instructions)}
    serial: Counter[tuple[int, Unit]] = Counter()
    steps: list[Step] = []
    pending: list[tuple[tuple[int, int, int], Instruction, Frame, Any]] = []

    def finish() -> None:
        if not pending:
            return
        place, item, frame, before = pending.pop()
        core = (place[0] + grid[0] * (place[1] + grid[1] * place[2])) % core_count
        pad, hbm = frame.scratchpad, frame.memory
        key = (core, item.unit)
        written = _bytes(pad, frame.written_addresses, 0)
        steps.append(
            Step(
                core,
                item.unit,
                serial[key],
                place,
                index_of[id(item)],
                item,
                _bytes(pad, frame.read_addresses, 0),
                written,
                frozenset(a for a, value in written.items() if before[a] == value),
                _bytes(hbm.data, frame.memory_written_addresses, hbm.base),
            )
        )
        serial[key] += 1

    def watch(program_id: tuple[int, int, int], item: Instruction, frame: Frame) -> None:
        finish()
        if item.unit in QUEUES and "sync" not in item.mnemonic:
            pending.append((program_id, item, frame, frame.scratchpad.copy()))

    evaluator.run(program, chip, grid, arguments, memory, workspace=workspace, watch=watch)
    finish()
    return steps


def _bytes(content: Any, addresses: list[Any], base: int) -> Bytes:
    found: Bytes = {}
    for part in addresses:
        found.update(zip(part.tolist(), content[part - base].tolist(), strict=True))
    return found


def first_difference(steps: Sequence[Step], program: Program, trace: Path) -> Difference | None:
    """The first step whose bytes the RTL did not write so. `trace`: what `tapeout.rtl.simulation.run` left."""
    records = np.fromfile(trace, WRITE_RECORD)
    written: dict[tuple[int, int, int, int], Bytes] = defaultdict(dict)
    cycle_of: dict[tuple[int, int, int], int] = {}
    pads: list[tuple[int, int, Bytes]] = []
    for record in records:
        mask = int(record["mask"])
        address = int(record["address"])
        content = {address + n: int(record["data"][n]) for n in range(int(record["bytes"])) if mask >> n & 1}
        key = (int(record["core"]), int(record["queue"]), int(record["serial"]))
        written[(*key, int(record["is_memory"]))].update(content)
        cycle_of.setdefault(key, int(record["cycle"]))
        if not record["is_memory"]:
            pads.append((int(record["core"]), int(record["cycle"]), content))
    for step in steps:
        key = (step.core, QUEUES.index(step.unit), step.serial)
        for where, wanted, is_memory in (("the scratchpad", step.scratchpad, 0), ("memory", step.memory, 1)):
            found = written.get((*key, is_memory), {})
            if found == wanted:
                continue
            left_alone = frozenset() if is_memory else step.unchanged
            apart = sorted(
                a
                for a in wanted.keys() | found.keys()
                if wanted.get(a) != found.get(a) and not (a in left_alone and a not in found)
            )
            if not apart:
                continue
            cycle = cycle_of.get(key)
            pad: Bytes = {}
            for core, moment, content in pads:
                if core == step.core and (cycle is None or moment < cycle):
                    pad.update(content)
            return Difference(
                step,
                program.location(step.index),
                cycle,
                where,
                {a: wanted.get(a) for a in apart},
                {a: found.get(a) for a in apart},
                {a: pad[a] for a in step.read if a in pad},
            )
    return None
