"""Cost of each source line of the kernels: its instructions, their cycles, and their stalls.

Takes the launches a recording clock kept and the lines programs carry for their instructions; gives frozen
`Annotation`s, one a program, that the terminal listing reads. Cycles are summed over cores and launches: an engine's
while it worked on the instruction, and those it waited before it for the reason given.
"""

import linecache
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tapeout.chip.description import shown_path
from tapeout.isa.program import show
from tapeout.runtime.clock import Activity, Launch
from tapeout.sim.timing import REASONS

PACKAGE = Path(__file__).parents[1]


def shown_file(file: str) -> str:
    """A source file as one may tell others of it: from `tapeout/`, or from the working directory. A kernel of ours that
    came from the cache may have been compiled in another checkout."""
    _, found, below = file.rpartition(f"/{PACKAGE.name}/")
    if found and (PACKAGE / re.sub(r":\d+$", "", below)).is_file():
        return f"{PACKAGE.name}/{below}"
    return shown_path(file)


@dataclass(frozen=True)
class InstructionCost:
    """One instruction of the program. `waiting`: cycles by reason, only what occurred."""

    index: int
    engine: str
    text: str
    count: int
    busy_cycles: int
    waiting: Mapping[str, int]


@dataclass(frozen=True)
class Line:
    """A source line and its instructions, in program order. `text` is "" if the source cannot be read."""

    file: str
    number: int
    text: str
    instructions: tuple[InstructionCost, ...] = ()

    @property
    def busy_cycles(self) -> int:
        return sum(item.busy_cycles for item in self.instructions)

    @property
    def waiting(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for item in self.instructions:
            total.update(item.waiting)
        return total


@dataclass(frozen=True)
class Annotation:
    """A program's source: the file of the kernel from its first line to its last, then lines of other files it
    inlined. `core_cycles`: the launches' time times the cores that took part. `longest`: the launch that took most."""

    kernel: str
    launches: int
    core_cycles: int
    lines: tuple[Line, ...]
    unplaced: tuple[InstructionCost, ...]
    longest: Launch


@dataclass
class _Launches:
    longest: Launch
    count: int = 0
    core_cycles: int = 0
    executions: "np.ndarray[tuple[int], np.dtype[np.int64]]" = field(init=False)

    def __post_init__(self) -> None:
        instruction_count = len(self.longest.program.instructions)
        self.executions = np.zeros(instruction_count, np.int64)
        self.busy = np.zeros(instruction_count, np.int64)
        self.waiting = np.zeros((instruction_count, len(REASONS)), np.int64)


def annotate(activities: Sequence[Activity]) -> list[Annotation]:
    """One annotation for each program that was launched: the user's own kernels first, of each kind the costliest."""
    programs: dict[int, _Launches] = {}
    for activity in activities:
        if (launch := activity.launch) is None:
            continue
        group = programs.setdefault(id(launch.program), _Launches(launch))
        timing = launch.timing
        if timing.cycles > group.longest.timing.cycles:
            group.longest = launch
        group.count += 1
        group.core_cycles += timing.cycles * timing.core_count
        group.executions += timing.instruction_counts
        group.busy += timing.instruction_busy_cycles
        group.waiting += timing.instruction_stall_cycles
    annotations = [_annotation(group) for group in programs.values()]

    def order(annotation: Annotation) -> tuple[bool, int, str]:
        is_ours = bool(annotation.lines) and Path(annotation.lines[0].file).is_relative_to(PACKAGE)
        return is_ours, -annotation.core_cycles, annotation.kernel

    return sorted(annotations, key=order)


def _annotation(group: _Launches) -> Annotation:
    program = group.longest.program
    by_place: dict[tuple[str, int], list[InstructionCost]] = defaultdict(list)
    unplaced = []
    for index, item in enumerate(program.instructions):
        waiting = {reason: int(n) for reason, n in zip(REASONS, group.waiting[index], strict=True) if n}
        cost = InstructionCost(
            index, item.unit.value, show(item), int(group.executions[index]), int(group.busy[index]), waiting
        )
        file, _, number = program.location(index).rpartition(":")
        if file and number.isdigit() and int(number) > 0:
            by_place[file, int(number)].append(cost)
        else:
            unplaced.append(cost)
    own_file = _kernel_file(by_place)
    lines = []
    for file in sorted({file for file, _ in by_place}, key=lambda name: (name != own_file, name)):
        numbers = [line for name, line in by_place if name == file]
        shown = range(min(numbers), max(numbers) + 1) if file == own_file else sorted(numbers)
        for line in shown:
            text = linecache.getline(file, line).rstrip()
            lines.append(Line(file, line, text, tuple(by_place.get((file, line), ()))))
    return Annotation(program.name, group.count, group.core_cycles, tuple(lines), tuple(unplaced), group.longest)


def _kernel_file(by_place: Mapping[tuple[str, int], Sequence[InstructionCost]]) -> str:
    """The file most lines are of: helpers of other files are inlined into the kernel."""
    files = Counter(file for file, _ in by_place)
    return max(files, key=lambda file: (files[file], file), default="")
