"""The reference evaluator: runs a Program on NumPy arrays, slowly, and defines what it means bit for bit.

Takes a Program, a chip, a grid, arguments and the chip's memory; changes the memory. The machine is the one
of `tapeout.isa.definitions`: for each core a sequencer, four in-order queues, counting semaphores and a
scratchpad. An instruction happens at one moment; which queue goes next is up to the schedule. What is wrong
with a program whatever the schedule (races, deadlocks, accesses outside memory) is found and named; what
each instruction does is in `tapeout.sim.execution`.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Instruction, Program, Unit
from tapeout.isa import definitions as isa
from tapeout.isa.fields import QUEUES, Queued
from tapeout.isa.verify import about_fields
from tapeout.sim import analogue
from tapeout.sim.execution import EXECUTE, STEP, Frame
from tapeout.sim.faults import AccessFault, Fault, IllegalInstruction, RaceFault, SynchronisationFault
from tapeout.sim.ordering import (
    AGENTS,
    BEGINNING,
    NUMBER_OF_AGENT,
    AccessHistory,
    Clock,
    Conflict,
    joined,
)
from tapeout.sim.schedules import ProgramOrder, Schedule
from tapeout.sim.state import Memory, SequencerState

POISON = (0xA5, 0xA5, 0xFF, 0xFF)
"""Repeated over a fresh scratchpad: a NaN in every float type at every second element, and easy to
recognise."""


@dataclass(frozen=True)
class Outcome:
    """Result of a run: instructions executed by each unit."""

    instruction_counts: Mapping[Unit, int]


Watch = Callable[[tuple[int, int, int], Instruction, Frame], None]
"""Is shown every executed instruction: the program of the grid, the instruction, and what it sees."""


def _look_away(program_id: tuple[int, int, int], item: Instruction, frame: Frame) -> None:
    """Default watch: does nothing."""


def run(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    memory: Memory,
    *,
    workspace: int = 0,
    schedule: Schedule | None = None,
    step_limit: int = 10_000_000,
    watch: Watch | None = None,
) -> Outcome:
    """Run a program over a grid.

    `arguments`: 64-bit values, signed or unsigned. `workspace`: address of the private areas, one of
    `program.workspace_bytes` a core. Programs of the grid are dealt to the cores in turn, x fastest. `watch` is shown
    queued instructions just before, and the sequencer's just after, what they do.
    Raises a `tapeout.sim.faults.Fault` if the program breaks a rule of the chip.
    """
    machine = _Machine(program, chip, grid, tuple(arguments), memory, workspace, watch or _look_away)
    return machine.run(schedule or ProgramOrder(), step_limit)


@dataclass(frozen=True)
class _Issued:
    """An instruction in a queue, with everything it took along when it was issued."""

    index: int
    instruction: Queued
    registers: tuple[int, ...]
    program_id: tuple[int, int, int]
    clock: Clock


class _Machine:
    def __init__(
        self,
        program: Program,
        chip: Chip,
        grid: tuple[int, int, int],
        arguments: tuple[int, ...],
        memory: Memory,
        workspace: int,
        watch: Watch,
    ) -> None:
        if program.scratchpad_bytes > chip.core.scratchpad.size_bytes:
            raise Fault(
                program.name,
                f"needs {program.scratchpad_bytes} bytes of scratchpad; {chip.name} has "
                f"{chip.core.scratchpad.size_bytes}",
            )
        for index, item in enumerate(program.instructions):
            for sentence in about_fields(item):
                place = f"{program.location(index)}: instruction {index} ({item.mnemonic})"
                raise IllegalInstruction(place, sentence)
        self.program = program
        self.chip = chip
        self.grid = grid
        self.arguments = arguments
        self.memory = memory
        self.watch = watch
        coordinates = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
        count = min(chip.core_count, len(coordinates))
        self.cores = [
            Core(self, number, coordinates[number::count], workspace + number * program.workspace_bytes)
            for number in range(count)
        ]

    def run(self, schedule: Schedule, step_limit: int) -> Outcome:
        turn = 0
        for _ in range(step_limit):
            chosen = schedule.choose(self._ready(turn))
            if chosen is None:
                break
            turn = chosen.core_number + 1
            chosen.step()  # type: ignore[attr-defined]
        else:
            raise Fault(self.program.name, f"has not ended after {step_limit} steps")
        for core in self.cores:
            core.check_end()
        counts: Counter[Unit] = sum((core.counts for core in self.cores), Counter())
        return Outcome(MappingProxyType({unit: counts[unit] for unit in AGENTS}))

    def _ready(self, turn: int) -> Iterator["Sequencer | Queue"]:
        for core in self.cores[turn % len(self.cores) :] + self.cores[: turn % len(self.cores)]:
            yield from (agent for agent in core.agents if agent.is_ready())


class Core(SequencerState):
    """The state of one core, and the accesses instructions make to it."""

    def __init__(self, machine: _Machine, number: int, programs: list[tuple[int, int, int]], workspace: int) -> None:
        super().__init__(machine.program, machine.grid, machine.arguments, programs, workspace)
        self.memory = machine.memory
        self.watch = machine.watch
        self.number = number
        self.analogue = analogue.of_chip(machine.chip)
        size = self.program.scratchpad_bytes
        self.scratchpad = np.resize(np.array(POISON, np.uint8), size)
        self.history = {"scratchpad": AccessHistory(), "HBM": AccessHistory()}
        self.tokens: dict[int, deque[Clock]] = {}
        self.clocks: dict[Unit, Clock] = {unit: BEGINNING for unit in AGENTS}
        self.journal: dict[Unit, list[int]] = {unit: [-1] for unit in AGENTS}
        self.counts: Counter[Unit] = Counter()
        self.queues = {unit: Queue(self, unit, machine.chip.core.queue_depth) for unit in QUEUES}
        self.sequencer = Sequencer(self)
        self.agents: tuple[Sequencer | Queue, ...] = (*self.queues.values(), self.sequencer)

    def all_queues_empty(self) -> bool:
        return not any(queue.waiting for queue in self.queues.values())

    def place(self, index: int, program_id: tuple[int, int, int]) -> str:
        mnemonic = self.program.instructions[index].mnemonic
        return (
            f"{self.program.location(index)}: instruction {index} ({mnemonic}) "
            f"of program {program_id} on core {self.number}"
        )

    # Synchronisation.

    def has_tokens(self, *semaphores: int) -> bool:
        wanted = Counter(s for s in semaphores if s)
        return all(len(self.tokens.get(s, ())) >= count for s, count in wanted.items())

    def take(self, *semaphores: int) -> Clock:
        return joined(BEGINNING, *(self.tokens[s].popleft() for s in semaphores if s))

    def give(self, clock: Clock, *semaphores: int) -> None:
        for semaphore in semaphores:
            if semaphore:
                self.tokens.setdefault(semaphore, deque()).append(clock)

    def begin(self, unit: Unit, index: int, *known: Clock) -> Clock:
        """Number an instruction that starts now, knowing what these clocks know. Gives its own clock."""
        clock = list(joined(self.clocks[unit], *known))
        clock[NUMBER_OF_AGENT[unit]] = len(self.journal[unit])
        self.clocks[unit] = tuple(clock)
        self.journal[unit].append(index)
        self.counts[unit] += 1
        return self.clocks[unit]

    def check_order(self, frame: Frame, unit: Unit, clock: Clock) -> None:
        """Record what an instruction accessed, and refuse what nothing orders."""
        accesses = {
            "scratchpad": (frame.read_addresses, frame.written_addresses),
            "HBM": (frame.memory_read_addresses, frame.memory_written_addresses),
        }
        for memory, (read, written) in accesses.items():
            history = self.history[memory]
            for addresses in read:
                self._refuse(frame, unit, memory, history.read(unit, clock, addresses))
            for addresses in written:
                self._refuse(frame, unit, memory, history.write(unit, clock, addresses))

    def _refuse(self, frame: Frame, unit: Unit, memory: str, conflict: Conflict | None) -> None:
        if conflict is None:
            return
        index = self.journal[conflict.agent][conflict.time]
        raise RaceFault(
            frame.place,
            f"{'writes' if conflict.later_writes else 'reads'} {memory} byte {conflict.byte:#x} on the "
            f"{unit.value} queue, and no semaphore orders it with instruction {index} "
            f"({self.program.instructions[index].mnemonic}, {self.program.location(index)}) of the "
            f"{conflict.agent.value} queue, which {'writes' if conflict.earlier_writes else 'reads'} it",
        )

    def check_end(self) -> None:
        if not self.sequencer.halted:
            states = "; ".join(filter(None, (agent.blocked_on() for agent in self.agents)))
            raise SynchronisationFault(f"core {self.number}", f"deadlock: {states}")
        left = {s: len(tokens) for s, tokens in sorted(self.tokens.items()) if tokens}
        if left:
            counts = ", ".join(f"s{semaphore}: {count}" for semaphore, count in left.items())
            raise SynchronisationFault(
                f"core {self.number}", f"semaphores are not zero at the end of {self.program.name} ({counts})"
            )


class Queue:
    """An in-order queue and its engine."""

    def __init__(self, core: Core, unit: Unit, depth: int) -> None:
        self.core = core
        self.core_number = core.number
        self.unit = unit
        self.depth = depth
        self.waiting: deque[_Issued] = deque()

    def is_ready(self) -> bool:
        if not self.waiting:
            return False
        item = self.waiting[0].instruction
        return self.core.has_tokens(item.wait_a, item.wait_b)

    def is_full(self) -> bool:
        return len(self.waiting) >= self.depth

    def step(self) -> None:
        core, issued = self.core, self.waiting.popleft()
        item = issued.instruction
        clock = core.begin(self.unit, issued.index, issued.clock, core.take(item.wait_a, item.wait_b))
        place = core.place(issued.index, issued.program_id)
        frame = Frame(core.memory, core.scratchpad, issued.registers, place, core.analogue)
        core.watch(issued.program_id, item, frame)
        EXECUTE[type(item)](frame, item)
        core.check_order(frame, self.unit, clock)
        core.give(clock, item.signal_a, item.signal_b)

    def blocked_on(self) -> str:
        if not self.waiting:
            return ""
        issued = self.waiting[0]
        item = issued.instruction
        missing = [f"s{s}" for s in (item.wait_a, item.wait_b) if s and not self.core.has_tokens(s)]
        waits = " and ".join(dict.fromkeys(missing)) or f"a second s{item.wait_a}"
        return f"{self.core.place(issued.index, issued.program_id)} waits for {waits}"


class Sequencer:
    """The scalar unit: executes its own instructions, issues the others."""

    unit = Unit.SEQUENCER

    def __init__(self, core: Core) -> None:
        self.core = core
        self.core_number = core.number
        self.pc = 0
        self.halted = False

    @property
    def _next(self) -> Instruction:
        instructions = self.core.program.instructions
        if self.pc >= len(instructions):
            raise AccessFault(self.core.program.name, f"runs past its last instruction ({self.pc})")
        return instructions[self.pc]

    def is_ready(self) -> bool:
        if self.halted:
            return False
        item = self._next
        if item.unit is not Unit.SEQUENCER:
            return not self.core.queues[item.unit].is_full()
        if isinstance(item, isa.Wait):
            return self.core.has_tokens(item.semaphore)
        if isinstance(item, (isa.Halt, isa.Drain)):
            return self.core.all_queues_empty()
        return True

    def step(self) -> None:
        core, item, index = self.core, self._next, self.pc
        self.pc += 1
        if isinstance(item, Queued):
            clock = core.clocks[self.unit]
            queued = _Issued(index, item, tuple(core.registers), core.program_id, clock)
            core.queues[item.unit].waiting.append(queued)
            return
        known: tuple[Clock, ...] = ()
        if isinstance(item, isa.Wait):
            known = (core.take(item.semaphore),)
        if isinstance(item, (isa.Halt, isa.Drain)):
            known = tuple(core.clocks.values())
        clock = core.begin(self.unit, index, *known)
        if isinstance(item, isa.Halt):
            self.halted = True
        elif isinstance(item, isa.Jump | isa.Branch):
            self._branch(item)
        elif type(item) in STEP:
            frame = Frame(core.memory, core.scratchpad, core.registers, core.place(index, core.program_id))
            STEP[type(item)](core, frame, item)
            core.watch(core.program_id, item, frame)
            core.check_order(frame, self.unit, clock)

    def _branch(self, item: isa.Jump | isa.Branch) -> None:
        if not isinstance(item, isa.Jump):
            is_zero = self.core.registers[item.condition] == 0
            if is_zero is not isinstance(item, isa.BranchZero):
                return
        self.pc = item.target

    def blocked_on(self) -> str:
        if self.halted:
            return ""
        place = self.core.place(self.pc, self.core.program_id)
        item = self._next
        if item.unit is not Unit.SEQUENCER:
            return f"{place} cannot be issued, the {item.unit.value} queue being full"
        if isinstance(item, isa.Wait):
            return f"{place} waits for s{item.semaphore}"
        return f"{place} waits for the queues to empty"
