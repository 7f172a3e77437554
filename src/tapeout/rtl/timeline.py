"""Times of each instruction: on the RTL, from its testbench's events, beside those of the timing simulator.

Both count cycles from the first instruction's fetch. An instruction of a queue runs from the cycle in which its engine
takes it to the one in which the engine is done; one of the sequencer from its fetch to the next.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Program, Unit
from tapeout.isa.costs import release_cycles
from tapeout.isa.definitions import Sync
from tapeout.isa.fields import QUEUES, Queued
from tapeout.rtl.simulation import EVENT, LAUNCH_CYCLES
from tapeout.sim.timing import Interval


@dataclass(frozen=True)
class Run:
    """One execution of an instruction. `end`: of the sequencer's, the fetch of the next one."""

    core: int
    unit: Unit
    index: int
    start: int
    end: int


def of_rtl(program: Program, timeline: Path) -> list[Run]:
    """Runs in the order of their starts, from a file that `tapeout.rtl.simulation.run` left, but those of `sync`."""
    events = np.fromfile(timeline, EVENT)
    index_of = {}
    word = 0
    for index, item in enumerate(program.instructions):
        index_of[word] = index
        word += item.word_count
    runs = []
    for core in sorted(set(events["core"].tolist())):
        own = events[events["core"] == core]
        fetched = [
            (int(e["cycle"]) - LAUNCH_CYCLES, index_of[int(e["word"])]) for e in own[own["queue"] == len(QUEUES)]
        ]
        issued: dict[Unit, list[int]] = {unit: [] for unit in QUEUES}
        for (start, index), (end, _) in zip(fetched, [*fetched[1:], (fetched[-1][0], 0)], strict=True):
            item = program.instructions[index]
            runs.append(Run(core, Unit.SEQUENCER, index, start, end))
            if item.unit is not Unit.SEQUENCER and "sync" not in item.mnemonic:
                issued[item.unit].append(index)
        for queue, unit in enumerate(QUEUES):
            mine = own[own["queue"] == queue]
            starts = (mine["cycle"][mine["is_end"] == 0] - LAUNCH_CYCLES).tolist()
            ends = (mine["cycle"][mine["is_end"] == 1] - LAUNCH_CYCLES).tolist()
            runs += [Run(core, unit, *run) for run in zip(issued[unit], starts, ends, strict=True)]
    return sorted(runs, key=lambda run: (run.start, run.core, run.unit.value))


def of_timing(program: Program, chip: Chip, intervals: Iterable[Interval]) -> list[Run]:
    """The same, from what the timing simulator recorded."""
    runs = []
    for each in intervals:
        item = program.instructions[each.instruction_index]
        end = each.end
        if each.unit is not Unit.SEQUENCER and isinstance(item, Queued):
            if isinstance(item, Sync):
                continue
            end -= release_cycles(item, chip)
        runs.append(Run(each.core, each.unit, each.instruction_index, each.start, end))
    return sorted(runs, key=lambda run: (run.start, run.core, run.unit.value))
