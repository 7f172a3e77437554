"""Random programs on the cut-down core: RTL and reference evaluator, RTL and timing simulator."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapeout.isa.fields import QUEUES
from tapeout.rtl import simulation
from tapeout.rtl.difference import executed, first_difference
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tapeout.testing.random_programs import random_case
from tapeout.testing.random_writing import SHORT, Sizes
from tests.rtl.cut_down import SMALL

BASE = 0x40_0000


@dataclass(frozen=True)
class Agreement:
    """What a program did. `difference`: the first instruction that wrote other bytes, None if none did.
    `executed`: how often the RTL executed instructions of a kind, by what `kind_of` says."""

    seed: int
    rtl_cycles: int
    timing_cycles: int
    difference: str | None
    executed: Counter

    @property
    def cycle_error(self):
        """What the timing simulator is off by, of the RTL's cycles."""
        return self.timing_cycles / self.rtl_cycles - 1


def kind_of(item):
    """Mnemonic, function and types."""
    names = ("function", "dtype", "result_dtype", "lhs_dtype", "rhs_dtype")
    return (item.mnemonic, *(getattr(item, name).label for name in names if hasattr(item, name)))


def agreement(seed, folder, *, chip=SMALL, instruction_count=8, sizes: Sizes = SHORT, optimised=False) -> Agreement:
    """Run a random program on both. `folder` is for files of its own."""
    case = random_case(seed, chip, instruction_count, sizes)
    before = np.concatenate([case.image, np.zeros(chip.core_count * case.program.workspace_bytes, np.uint8)])
    expected, found = before.copy(), before.copy()
    launch = (case.program, chip, case.grid, (BASE,))
    place = {"workspace": BASE + len(case.image)}
    data = timing.record_trace(*launch, Memory(BASE, expected), **place)
    latency = {"memory_base": BASE, "memory_latency_cycles": chip.last_level_sram.latency_cycles}
    timed = timing.simulate(*launch, data=data, **latency, **place)
    timeline = Path(folder) / "timeline"
    on_rtl = simulation.run(*launch, Memory(BASE, found), timeline=timeline, optimised=optimised, **place)
    difference = None
    if not np.array_equal(expected, found):
        trace = Path(folder) / "trace"
        simulation.run(*launch, Memory(BASE, before.copy()), trace=trace, optimised=optimised, **place)
        steps = executed(*launch, Memory(BASE, before), **place)
        difference = str(first_difference(steps, case.program, trace))
    return Agreement(seed, on_rtl.cycles, timed.cycles, difference, _executed(case.program, timeline))


def _executed(program, timeline) -> Counter:
    """From what the RTL's sequencers fetched."""
    events = np.fromfile(timeline, simulation.EVENT)
    words, times = np.unique(events["word"][events["queue"] == len(QUEUES)], return_counts=True)
    starts = np.cumsum([0, *(item.word_count for item in program.instructions)])
    counts: Counter = Counter()
    for index, count in zip(np.searchsorted(starts, words), times, strict=True):
        counts[kind_of(program.instructions[index])] += int(count)
    return counts
