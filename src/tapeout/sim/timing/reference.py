"""The timing model, plainly: what `tapeout.sim.timing.fast` must agree with to the cycle, and the place to read it.

Each core has five agents, its four engines and its sequencer. An agent's next step has a time, or waits for another
agent's step. The earliest step of all is taken; at equal times the lower core goes first, then the engines in the
order load, store, matrix, vector, then the sequencer. A step of the sequencer is an instruction, of an engine the
start of an instruction, of a DMA engine in the middle of a descriptor one packet.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import AccessPattern, Program, RegisterValue, Unit, microcoded_cycles
from tapeout.isa import definitions as isa
from tapeout.isa.cost import Cost
from tapeout.isa.costs import (
    TAKEN_BRANCH_CYCLES,
    dispatch_cycles,
    front_cycles,
    handover_cycles,
    issue_cycles,
    release_cycles,
)
from tapeout.isa.fields import QUEUES, Instruction, Queued, read_registers, tiles, written_register
from tapeout.isa.pipelined_costs import single_group
from tapeout.sim.execution import STEP, Frame
from tapeout.sim.faults import AccessFault, SynchronisationFault, Trapped
from tapeout.sim.ordering import NUMBER_OF_AGENT
from tapeout.sim.state import NO_MEMORY, SequencerState
from tapeout.sim.timing.memory import Memory, MemoryParameters
from tapeout.sim.timing.network import TICKS, Network
from tapeout.sim.timing.result import NUMBER_OF_REASON, REASONS, UNITS, Interval, MemoryRegion, Timing, activity
from tapeout.sim.timing.trace import (
    ASSUMED_INDEX_RANGE,
    DataTrace,
    Tile,
    data_missing,
    own_extents,
    scalar_assumption,
    tile_assumption,
    trace_too_short,
)
from tapeout.sim.timing.transfers import AssumedIndices, transfer, vector_transfer

NEVER = 1 << 62
DMA = (Unit.LOAD, Unit.STORE)


def simulate(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    *,
    data: DataTrace | None = None,
    record: bool = False,
    memory_base: int = 0,
    workspace: int = 0,
    memory_latency_cycles: int | None = None,
    regions: Sequence[MemoryRegion] = (),
) -> Timing:
    """Simulate a launch in Python; see `tapeout.sim.timing.simulate`."""
    memory = Memory(MemoryParameters.of(chip, memory_latency_cycles), Network.of(chip))
    return _Launch(program, chip, grid, tuple(arguments), data, record, memory_base, workspace, memory, regions).run()


class _Launch:
    def __init__(
        self,
        program: Program,
        chip: Chip,
        grid: tuple[int, int, int],
        arguments: tuple[int, ...],
        data: DataTrace | None,
        record: bool,
        memory_base: int,
        workspace: int,
        memory: Memory,
        regions: Sequence[MemoryRegion],
    ) -> None:
        self.program = program
        self.chip = chip
        self.grid = grid
        self.arguments = arguments
        self.data = data
        self.memory_base = memory_base
        self.memory = memory
        self.handover_cycles = handover_cycles(chip)
        self.regions = [replace(r, first=r.first - memory_base, end=r.end - memory_base) for r in regions]
        for region in self.regions:
            if region.is_resident:
                self.memory.bring(region.first, region.end)
        self.assumptions: set[tuple[int, str]] = set()
        self.costs: list[Cost] = [item.cost(item, chip) for item in program.instructions]
        size = len(program.instructions)
        self.counts = np.zeros(size, np.int64)
        self.busy = np.zeros(size, np.int64)
        self.stalls = np.zeros((size, len(REASONS)), np.int64)
        self.intervals: list[Interval] | None = [] if record else None
        self.program_count = grid[0] * grid[1] * grid[2]
        self.cores = [
            _Core(self, number, workspace + number * program.workspace_bytes)
            for number in range(min(chip.core_count, self.program_count))
        ]

    def assumed_index_range(self, base: int, scale: int) -> int:
        """Below which indices that are not known are taken, for an access of `scale` bytes an index at `base`."""
        for region in self.regions:
            if scale > 0 and region.first <= base - self.memory_base < region.end:
                return max(1, (region.end - base + self.memory_base) // scale)
        return ASSUMED_INDEX_RANGE

    def run(self) -> Timing:
        while True:
            time, _, order, core = min((*core.earliest(), core) for core in self.cores)
            if time >= NEVER:
                break
            core.agents[order].step(time)
        return self._result()

    def _result(self) -> Timing:
        for core in self.cores:
            if not core.sequencer.halted:
                raise SynchronisationFault(
                    f"core {core.number}", f"{self.program.name} waits for ever at instruction {core.sequencer.pc}"
                )
        end = max(core.sequencer.free for core in self.cores)
        cycles = -(-self.memory.finish(end * TICKS) // TICKS)
        for core in self.cores:
            core.account_end(cycles)
        products, operations, moved = activity(self.program, self.costs, self.counts)
        intervals = sorted(
            self.intervals or [], key=lambda i: (i.core, NUMBER_OF_AGENT[i.unit], i.start, i.instruction_index)
        )
        return Timing(
            cycles=cycles,
            launch_ns=self.chip.host.launch_ns,
            clock_hz=self.chip.clock_hz,
            program_count=self.program_count,
            busy_cycles=np.array([core.busy for core in self.cores]),
            stall_cycles=np.array([core.stalls for core in self.cores]),
            instruction_counts=self.counts,
            instruction_busy_cycles=self.busy,
            instruction_stall_cycles=self.stalls,
            **asdict(self.memory.counts()),
            multiply_accumulates=products,
            vector_operations=operations,
            scratchpad_bytes=moved,
            assumed=tuple(sentence for _, sentence in sorted(self.assumptions)),
            intervals=tuple(intervals),
            resident=tuple(self.memory.holds(region.first, region.end) for region in self.regions),
        )


class _Core(SequencerState):
    def __init__(self, launch: _Launch, number: int, workspace: int) -> None:
        gx, gy, gz = launch.grid
        places = [(x, y, z) for z in range(gz) for y in range(gy) for x in range(gx)]
        mine = places[number :: launch.chip.core_count]
        super().__init__(launch.program, launch.grid, launch.arguments, mine, workspace)
        self.launch = launch
        self.number = number
        self.unknown: set[int] = set()
        self.tokens: dict[int, list[int]] = {}
        self.held: _Held | None = None
        self.assumed_indices = AssumedIndices(number + 1)
        self.data_position = {"scalars": 0, "load_tiles": 0, "store_tiles": 0}
        self.busy = np.zeros(len(UNITS), np.int64)
        self.stalls = np.zeros((len(UNITS), len(REASONS)), np.int64)
        self.engines = {unit: (_Dma if unit in DMA else _Engine)(self, unit) for unit in QUEUES}
        self.sequencer = _Sequencer(self)
        self.agents: list[Any] = [*self.engines.values(), self.sequencer]

    def __lt__(self, other: "_Core") -> bool:
        return self.number < other.number

    def earliest(self) -> tuple[int, int, int]:
        """Time of the next step, the core's number, and the agent that takes it."""
        time, order = min((agent.next_step(), order) for order, agent in enumerate(self.agents))
        return time, self.number, order

    def tokens_at(self, a: int, b: int) -> int:
        """Return the time at which one count of each of two semaphores (0: none) can be taken."""
        time = 0
        if a and a == b:
            given = self.tokens.get(a, [])
            return given[1] if len(given) > 1 else NEVER
        for semaphore in (a, b):
            if semaphore:
                given = self.tokens.get(semaphore, [])
                time = max(time, given[0] if given else NEVER)
        return time

    def take(self, *semaphores: int) -> None:
        for semaphore in semaphores:
            if semaphore:
                self.tokens[semaphore].pop(0)

    def give(self, time: int, semaphore: int) -> None:
        self.tokens.setdefault(semaphore, []).append(time)
        self.tokens[semaphore].sort()

    def account(self, unit: Unit, index: int, reason: str | None, cycles: int) -> None:
        """Add cycles to an engine and an instruction (-1: to none); no reason means busy."""
        number = NUMBER_OF_AGENT[unit]
        if reason is None:
            self.busy[number] += cycles
            if index >= 0:
                self.launch.busy[index] += cycles
        else:
            self.stalls[number, NUMBER_OF_REASON[reason]] += cycles
            if index >= 0:
                self.launch.stalls[index, NUMBER_OF_REASON[reason]] += cycles

    def account_waiting(self, unit: Unit, index: int, since: int, parts: list[tuple[str, int]]) -> tuple[int, str]:
        """Add the time from `since` on, in parts (reason, until). How long, and the reason of the longest part."""
        waited, longest, reason_of_longest = 0, 0, ""
        for reason, until in parts:
            cycles = max(0, until - since)
            since = max(since, until)
            self.account(unit, index, reason, cycles)
            waited += cycles
            if cycles > longest:
                longest, reason_of_longest = cycles, reason
        return waited, reason_of_longest

    def account_end(self, cycles: int) -> None:
        halted = self.sequencer.free
        for unit, engine in self.engines.items():
            in_flight = min(engine.done, halted) if unit in DMA else 0
            self.account_waiting(unit, -1, engine.free, [("memory", in_flight), ("empty", halted), ("idle", cycles)])
        self.account_waiting(Unit.SEQUENCER, -1, halted, [("idle", cycles)])

    def note(self, unit: Unit, index: int, start: int, end: int, waited: tuple[int, str]) -> None:
        self.launch.counts[index] += unit is self.program.instructions[index].unit
        if self.launch.intervals is not None:
            self.launch.intervals.append(Interval(self.number, unit, index, start, end, *waited))

    def write_scratchpad(self, first: int, end: int) -> None:
        """Somebody else than the matrix engine starts to write: sums that lie there are no longer in the array."""
        if self.held and first < self.held.end and self.held.first < end:
            self.held = None

    def next_datum(self, kind: str) -> Any:
        """The next entry of this program's data; None if there is no trace."""
        data = self.launch.data
        if data is None:
            return None
        gx, gy, _ = self.grid
        x, y, z = self.program_id
        entries = getattr(data.programs[x + gx * (y + gy * z)], kind)
        position = self.data_position[kind]
        if position >= len(entries):
            raise trace_too_short(self.program, (x, y, z))
        self.data_position[kind] += 1
        return entries[position]


@dataclass(frozen=True)
class _Held:
    """Sums that are still in the matrix engine's array, and the bytes they were written to."""

    key: tuple[Any, ...]
    first: int
    end: int


@dataclass(frozen=True)
class _Region:
    """A tile with its register's value: bytes from `first` to `end`; equal keys are the same elements in the same
    order."""

    key: tuple[Any, ...]
    first: int
    end: int


def _region(pattern: AccessPattern, extents: tuple[int, ...], size: int, registers: Sequence[int]) -> _Region:
    base = pattern.base + registers[pattern.register]
    reach = [s * (e - 1) * size for s, e in zip(pattern.strides, extents, strict=True)]
    first, end = base + sum(min(0, r) for r in reach), base + sum(max(0, r) for r in reach) + size
    return _Region((base, pattern.strides, extents, size), first, end)


@dataclass(frozen=True)
class _Queued:
    """An instruction in a queue with what it took along."""

    index: int
    item: Queued
    cost: Cost
    enqueued: int
    front_cycles: int
    reads: tuple[_Region, ...]
    written: _Region | None
    registers: tuple[int, ...]
    index_tile: Tile | None
    mask_tile: Tile | None


@dataclass(frozen=True)
class _InFlight:
    """A result of an engine that is not all written."""

    written: _Region
    first_result: int
    done: int


class _Engine:
    """Matrix and vector engine; what they have in common with a DMA engine."""

    def __init__(self, core: _Core, unit: Unit) -> None:
        self.core = core
        self.unit = unit
        self.depth = core.launch.chip.core.queue_depth
        self.queue: deque[_Queued] = deque()
        self.free = 0
        self.done = 0
        self.last_start = 0
        self.in_flight: list[_InFlight] = []
        self.handover = core.launch.handover_cycles

    def is_full(self) -> bool:
        return len(self.queue) >= self.depth

    def is_working(self) -> bool:
        return bool(self.queue)

    def next_step(self) -> int:
        return self._start_time(self.queue[0])[-1][1] if self.queue else NEVER

    def _keeps_sums(self, queued: _Queued) -> bool:
        """Return whether the sums this instruction starts from are still in the array."""
        held, written = self.core.held, queued.written
        return held is not None and written is not None and held.key == written.key

    def _start_time(self, queued: _Queued) -> list[tuple[str, int]]:
        """Return what holds the instruction up, as (reason, until), the last one being its start."""
        item = queued.item
        # The front reads an entry once it is there and the one before has gone, then takes the semaphores.
        read = max(queued.enqueued, self.last_start + self.handover) + queued.front_cycles
        ready = max(read, self.core.tokens_at(item.wait_a, item.wait_b) + self.handover)
        given = max(self.free, ready)
        dependency = 0
        for flight in self.in_flight:
            for region in queued.reads:
                if region is queued.written and self._keeps_sums(queued):
                    continue
                if region.first < flight.written.end and flight.written.first < region.end:
                    dependency = max(dependency, self._may_follow(queued, region, flight))
        start = max(given, dependency)
        if queued.cost.fill_cycles and not self._keeps_sums(queued):
            # Sums are read back while the instruction before computes: from when all but the engine is ready.
            start = max(start, max(ready, dependency) + queued.cost.fill_cycles)
        in_flight = [("memory", min(self.done, start))] if self.unit in DMA else []
        return [*in_flight, ("empty", read), ("semaphore", given), ("dependency", start)]

    def _may_follow(self, queued: _Queued, region: _Region, flight: _InFlight) -> int:
        if region.key == flight.written.key:
            return max(flight.first_result, flight.done - queued.cost.last_read_cycles)
        return flight.done

    def _begin(self, time: int) -> tuple[_Queued, tuple[int, str]]:
        core, queued = self.core, self.queue[0]
        waited = core.account_waiting(self.unit, queued.index, self.free, self._start_time(queued))
        self.queue.popleft()
        self.last_start = time
        core.take(queued.item.wait_a, queued.item.wait_b)
        self.in_flight = [flight for flight in self.in_flight if flight.done > time]
        return queued, waited

    def step(self, time: int) -> None:
        core = self.core
        queued, waited = self._begin(time)
        item, cost, written = queued.item, queued.cost, queued.written
        ends = time + cost.occupancy_cycles
        self.free = ends + release_cycles(item, core.launch.chip)
        self.done = max(self.done, ends + cost.latency_cycles)
        if not isinstance(item, isa.Sync):
            assert written is not None
            self.in_flight.append(_InFlight(written, time + cost.first_result_cycles, self.done))
            if isinstance(item, isa.MatrixMultiply):
                is_single = single_group(item, core.launch.chip)
                core.held = _Held(written.key, written.first, written.end) if is_single else None
            else:
                core.write_scratchpad(written.first, written.end)
        core.account(self.unit, queued.index, None, self.free - time - cost.conflict_cycles)
        core.account(self.unit, queued.index, "bank conflict", cost.conflict_cycles)
        core.note(self.unit, queued.index, time, self.free, waited)
        self._signal(item)

    def _signal(self, item: Queued) -> None:
        """Give the instruction's semaphores; engines that hand over in stages give one after the other."""
        time = self.done + self.handover
        for semaphore in (item.signal_a, item.signal_b):
            if semaphore:
                time += self.handover
                self.core.give(time, semaphore)


class _Dma(_Engine):
    """A DMA engine: a descriptor's packets go out one by one."""

    def __init__(self, core: _Core, unit: Unit) -> None:
        super().__init__(core, unit)
        chip = core.launch.chip
        self.engine = chip.core.load_dma if unit is Unit.LOAD else chip.core.store_dma
        self.packets: deque[list[tuple[int, int]]] = deque()
        self.conflict = 1
        self.current: _Queued | None = None
        self.begun = 0
        self.waited = (0, "")
        self.outstanding: deque[tuple[int, int]] = deque()
        self.port_ticks = 0
        self.is_microcoded = chip.core.is_microcoded

    def is_working(self) -> bool:
        return bool(self.queue) or self.current is not None

    def next_step(self) -> int:
        if self.current is None:
            return super().next_step()
        size = sum(size for _, size in self.packets[0])
        in_flight = sum(size for _, size in self.outstanding)
        time = self.free
        for done, bytes_back in self.outstanding:
            if done > time and in_flight + size <= self.engine.outstanding_bytes:
                break
            time = max(time, done)
            in_flight -= bytes_back
        return time

    def step(self, time: int) -> None:
        if self.current is None:
            self._take_up(time)
        else:
            self._send(time)

    def _take_up(self, time: int) -> None:
        core = self.core
        queued, self.waited = self._begin(time)
        self.free = time + queued.cost.occupancy_cycles
        core.account(self.unit, queued.index, None, self.free - time)
        self.current, self.begun = queued, time
        if queued.written:
            core.write_scratchpad(queued.written.first, queued.written.end)
        if isinstance(queued.item, isa.Transfer):
            launch = core.launch
            made = (vector_transfer if self.is_microcoded else transfer)(
                queued.item,
                queued.registers,
                queued.index_tile,
                queued.mask_tile,
                launch.chip,
                launch.memory_base,
            )
            self.packets, self.conflict = deque(made.packets), made.conflict
        if not self.packets:
            self._finish()

    def _send(self, time: int) -> None:
        core, queued, packet = self.core, self.current, self.packets.popleft()
        assert queued is not None
        core.account(self.unit, queued.index, "memory", time - self.free)
        while self.outstanding and self.outstanding[0][0] <= time:
            self.outstanding.popleft()
        size = sum(size for _, size in packet)
        if self.is_microcoded:
            self._send_vector(time, packet, size)
        else:
            self._send_packet(time, packet, size)
        if not self.packets:
            self._finish()

    def _access(self, time: int, address: int, size: int) -> int:
        is_atomic = self.current is not None and isinstance(self.current.item, isa.Atomic)
        reads, writes = self.unit is Unit.LOAD or is_atomic, self.unit is Unit.STORE
        memory, core = self.core.launch.memory, self.core.number
        return memory.access(time * TICKS, address, size, reads=reads, writes=writes, core=core)

    def _send_vector(self, time: int, packet: list[tuple[int, int]], size: int) -> None:
        """A vector of a microcoded core's engine: a request a cycle. A load's rows go to the scratchpad one a cycle."""
        core, queued = self.core, self.current
        assert queued is not None and isinstance(queued.item, isa.Transfer)
        item, chip = queued.item, core.launch.chip
        rows, count = microcoded_cycles.transfer_rows(item, chip)
        first = time + microcoded_cycles.transfer_request_cycles(item, chip)
        taken = microcoded_cycles.transfer_vector_cycles(item, chip) + max(1, len(packet))
        back = (first - 1) * TICKS
        for number, (address, request_bytes) in enumerate(packet):
            back = max(back, self._access(first + number, address, request_bytes))
        if self.unit is Unit.LOAD:
            arrived = max(self.port_ticks, back + microcoded_cycles.ARRIVAL_CYCLES * TICKS)
            self.port_ticks = arrived + -(-rows * TICKS // count)
        else:
            taken = max(taken, -(-rows // count))
            self.port_ticks = max(self.port_ticks, back)
        self.free = time + taken
        core.account(self.unit, queued.index, None, taken)
        if isinstance(item, isa.Atomic):
            answered = -(-back // TICKS) + microcoded_cycles.ATOMIC_CYCLES
            core.account(self.unit, queued.index, "memory", max(0, answered - self.free))
            self.free = max(self.free, answered)
        self.outstanding.append((-(-self.port_ticks // TICKS), size))

    def _send_packet(self, time: int, packet: list[tuple[int, int]], size: int) -> None:
        core, queued = self.core, self.current
        assert queued is not None
        by_bytes = -(-size // self.engine.bytes_per_cycle)
        by_requests = -(-len(packet) // self.engine.gather_addresses_per_cycle)
        ideal = max(by_bytes, by_requests)
        issue = max(by_bytes * self.conflict, by_requests)
        self.free = time + issue
        core.account(self.unit, queued.index, None, ideal)
        core.account(self.unit, queued.index, "bank conflict", issue - ideal)
        for address, request_bytes in packet:
            self.port_ticks = max(self.port_ticks, self._access(time, address, request_bytes))
        self.port_ticks += -(-size * TICKS // self.engine.bytes_per_cycle)
        self.outstanding.append((-(-self.port_ticks // TICKS), size))

    def _finish(self) -> None:
        core, queued = self.core, self.current
        assert queued is not None
        last = self.outstanding[-1][0] if self.outstanding else 0
        if self.is_microcoded:
            item = queued.item
            self.done = self.free
            if isinstance(item, isa.Transfer):
                self.done = microcoded_cycles.transfer_end(item, self.free, last)
            released = self.done + release_cycles(item, core.launch.chip)
            core.account(self.unit, queued.index, "memory", self.done - self.free)
            core.account(self.unit, queued.index, None, released - self.done)
            self.free = released
        else:
            self.done = max(self.done, max(self.free, last) + queued.cost.latency_cycles)
        if queued.written:
            self.in_flight.append(_InFlight(queued.written, self.done, self.done))
        core.note(self.unit, queued.index, self.begun, self.free, self.waited)
        self._signal(queued.item)
        self.current = None

    def _may_follow(self, queued: _Queued, region: _Region, flight: _InFlight) -> int:
        return flight.done


class _Sequencer:
    def __init__(self, core: _Core) -> None:
        self.core = core
        self.pc = 0
        self.free = 0
        self.halted = False

    def _next(self) -> Instruction:
        instructions = self.core.program.instructions
        if self.pc >= len(instructions):
            raise AccessFault(self.core.program.name, f"runs past its last instruction ({self.pc})")
        return instructions[self.pc]

    def next_step(self) -> int:
        return NEVER if self.halted else self._obstacle()[1]

    def _obstacle(self) -> tuple[str, int]:
        """Return what the next instruction waits for, and until when."""
        core, item = self.core, self._next()
        if item.unit is not Unit.SEQUENCER:
            engine = core.engines[item.unit]
            return "queue full", NEVER if engine.is_full() else max(self.free, engine.last_start)
        if isinstance(item, isa.Wait):
            return "semaphore", max(self.free, core.tokens_at(item.semaphore, 0))
        if isinstance(item, (isa.Halt, isa.Drain)):
            if any(engine.is_working() for engine in core.engines.values()):
                return "drain", NEVER
            return "drain", max(self.free, *(max(engine.free, engine.done) for engine in core.engines.values()))
        return "", self.free

    def step(self, time: int) -> None:
        core, item, index = self.core, self._next(), self.pc
        reason, _ = self._obstacle()
        fetched = self.free
        waited = core.account_waiting(Unit.SEQUENCER, index, self.free, [(reason, time)] if reason else [])
        cost = core.launch.costs[index]
        cycles, dispatch = cost.occupancy_cycles, 0
        self.pc += 1
        if isinstance(item, Queued):
            cycles = issue_cycles(item, core.launch.chip)
            core.engines[item.unit].queue.append(self._issue(index, item, cost, time + cycles))
        elif isinstance(item, isa.Halt):
            self.halted = True
        elif isinstance(item, isa.Wait):
            core.take(item.semaphore)
        elif isinstance(item, isa.Jump | isa.Branch):
            if self._is_taken(item):
                self.pc = item.target
                cycles = max(cycles, TAKEN_BRANCH_CYCLES)
        elif isinstance(item, isa.NextProgram):
            if core.programs:
                dispatch = dispatch_cycles(item, core.launch.chip)
                core.data_position = dict.fromkeys(core.data_position, 0)
            self._compute(item, index)
        else:
            self._compute(item, index)
        self.free = time + cycles + dispatch
        if reason in ("semaphore", "drain"):  # it was fetched and decoded while it waited
            self.free = max(time + 1, fetched + cycles)
        core.account(Unit.SEQUENCER, index, None, self.free - time - dispatch)
        core.account(Unit.SEQUENCER, index, "dispatch", dispatch)
        core.note(Unit.SEQUENCER, index, time, self.free, waited)

    def _is_taken(self, item: isa.Jump | isa.Branch) -> bool:
        core = self.core
        if isinstance(item, isa.Jump):
            return True
        if item.condition in core.unknown:
            instructions = core.program.instructions
            for next_index, is_taken in ((item.target, False), (self.pc, True)):
                if next_index < len(instructions) and isinstance(instructions[next_index], isa.Trap):
                    return is_taken  # an assertion of unknown data holds: a launch that traps has no time
            raise data_missing(core.program, self.pc - 1)
        return (core.registers[item.condition] == 0) is isinstance(item, isa.BranchZero)

    def _compute(self, item: Instruction, index: int) -> None:
        core = self.core
        if isinstance(item, isa.ScalarStore):
            first = item.address + core.registers[item.offset]
            core.write_scratchpad(first, first + item.dtype.size_bytes)
            return
        destination = written_register(item)
        is_unknown = any(getattr(item, name) in core.unknown for name in read_registers(type(item)))
        if isinstance(item, isa.ScalarLoad):
            value = core.next_datum("scalars")
            core.set_register(item.destination, value or 0)
            is_unknown = value is None
            if is_unknown:
                core.launch.assumptions.add((index, scalar_assumption(core.program, index)))
        elif isinstance(item, isa.Trap):
            messages = core.program.messages
            sentence = messages[item.code] if item.code < len(messages) else f"trap {item.code}"
            raise Trapped(f"{core.program.location(index)}: program {core.program_id}", sentence, item.code)
        elif type(item) in STEP and not isinstance(item, isa.Drain):
            nothing = np.zeros(0, np.uint8)
            place = f"{core.program.location(index)}: instruction {index}"
            STEP[type(item)](core, Frame(NO_MEMORY, nothing, core.registers, place), item)
        if destination:
            (core.unknown.add if is_unknown else core.unknown.discard)(destination)

    def _issue(self, index: int, item: Queued, cost: Cost, enqueued: int) -> _Queued:
        core = self.core
        written: _Region | None = None
        reads: list[_Region] = []
        for use, pattern in tiles(item):
            if use.picked:  # it may be anything written before
                region = _Region((), 0, core.launch.chip.core.scratchpad.size_bytes)
            else:
                region = _region(pattern, use.extents, use.dtype.size_bytes, core.registers)
            if use.writes:
                written = region
            if use.reads:
                reads.append(region)
        index_tile, mask_tile = self._tiles(index, item)
        front = front_cycles(item, core.launch.chip)
        return _Queued(
            index, item, cost, enqueued, front, tuple(reads), written, tuple(core.registers), index_tile, mask_tile
        )

    def _tiles(self, index: int, item: Queued) -> tuple[Tile | None, Tile | None]:
        """Index and mask of an indexed transfer, as far as they are tiles: from the trace, or assumed."""
        core = self.core
        if not isinstance(item, isa.Indexed):
            return None, None
        kind = "load_tiles" if item.unit is Unit.LOAD else "store_tiles"
        tiles: list[Tile | None] = [None, None]
        for number, operand in enumerate((item.index, item.mask)):
            if isinstance(operand, RegisterValue):
                continue
            tile = core.next_datum(kind)
            if tile is None and number == 0:
                size = int(np.prod(own_extents(operand, item.shape)))
                limit = core.launch.assumed_index_range(core.registers[item.base], item.scale)
                tile = np.array([core.assumed_indices.next(limit) for _ in range(size)], np.int64)
                core.launch.assumptions.add((index, tile_assumption(core.program, index)))
            tiles[number] = tile
        return tiles[0], tiles[1]
