"""The core: sequencer, semaphores, queues, engines and scratchpad wired together, sized by the chip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.chip import Chip
from tapeout.isa.fields import QUEUES, Unit
from tapeout.rtl.dma import LoadEngine, StoreEngine, load_signature, store_signature
from tapeout.rtl.matrix import MatrixEngine
from tapeout.rtl.queues import Queue, Semaphores
from tapeout.rtl.scratchpad import Geometry, Scratchpad
from tapeout.rtl.sequencer import TARGET_WIDTH, Sequencer
from tapeout.rtl.vector import VectorEngine

DRAIN_CYCLES = 7
"""Cycles for which an engine's clock continues after its last instruction, so that its pipelines run empty."""


@dataclass(frozen=True)
class CoreSizes:
    """Parameters of a chip that shape its core's hardware."""

    geometry: Geometry
    rows: int
    columns: int
    interleave: int
    queue_depth: int
    semaphore_count: int
    load_block_bytes: int
    load_outstanding: int
    store_block_bytes: int
    store_outstanding: int

    @staticmethod
    def of(chip: Chip) -> "CoreSizes":
        core, pad = chip.core, chip.core.scratchpad
        return CoreSizes(
            geometry=Geometry(
                lane_count=core.vector.lane_count,
                row_bytes=pad.port_width_bytes,
                bank_count=pad.bank_count,
                row_count=pad.size_bytes // pad.port_width_bytes,
                latency_cycles=pad.latency_cycles,
            ),
            rows=core.matrix.row_count,
            columns=core.matrix.column_count,
            interleave=core.matrix.accumulator_interleave,
            queue_depth=core.queue_depth,
            semaphore_count=core.semaphore_count,
            load_block_bytes=core.load_dma.bytes_per_cycle,
            load_outstanding=max(core.load_dma.outstanding_bytes // core.load_dma.bytes_per_cycle, 2),
            store_block_bytes=core.store_dma.bytes_per_cycle,
            store_outstanding=max(core.store_dma.outstanding_bytes // core.store_dma.bytes_per_cycle, 2),
        )


def write_record(geometry: Geometry) -> Signature:
    """A row that is written into the scratchpad now, for whoever watches."""
    return Signature(
        {
            "valid": Out(1),
            "row": Out(geometry.row_bits),
            "data": Out(8 * geometry.row_bytes),
            "mask": Out(geometry.row_bytes),
        }
    )


def gate_clock(m: Module, name: str, runs: Value) -> None:
    """A clock domain that ticks at the end of cycles in which `runs` (or reset) holds, as a clock-gating cell makes it:
    a flip-flop at the falling edge keeps `runs` still while the clock is high."""
    keeps = Signal(name=f"{name}_runs", init=1)
    setattr(m.domains, name, ClockDomain(name))
    m.d.falling += keeps.eq(runs | ResetSignal())
    m.d.comb += [ClockSignal(name).eq(ClockSignal() & keeps), ResetSignal(name).eq(ResetSignal())]


def has_work(m: Module, queue: Queue) -> Value:
    """Return whether a queue's engine has an instruction, or had one a few cycles ago."""
    name = queue.unit.value
    unfinished = Signal(8, name=f"{name}_unfinished")
    draining = Signal(range(DRAIN_CYCLES + 1), name=f"{name}_draining")
    busy = Signal(name=f"{name}_busy")
    m.d.comb += busy.eq(queue.valid | (unfinished != 0))
    m.d.sync += unfinished.eq(unfinished + queue.accept - queue.done)
    with m.If(busy):
        m.d.sync += draining.eq(DRAIN_CYCLES)
    with m.Elif(draining != 0):
        m.d.sync += draining.eq(draining - 1)
    return busy | (draining != 0)


def held(m: Module, port: Value) -> Signal:
    """Return what an input was at the last edge of the clock."""
    value = Signal.like(port, name=f"{port.name}_held", reset_less=True)
    m.d.input += value.eq(port)
    return value


def core_ports(sizes: CoreSizes, fetch_words: int) -> dict[str, Any]:
    """Return the ports of a core that is given so many words of instructions a cycle."""
    return {
        "clk": In(1),
        "rst": In(1),
        "launch": In(1),
        "is_halted": Out(1),
        "is_trapped": Out(1),
        "trap_code": Out(32),
        "is_illegal": Out(1),
        "is_misplaced": Out(1),
        "semaphore_overflows": Out(1),
        "semaphores_are_zero": Out(1),
        "instruction_address": Out(TARGET_WIDTH),
        "instruction_word": In(64 * fetch_words),
        "argument_index": Out(16),
        "argument_value": In(64),
        "workspace": In(64),
        "grid": In(96),
        "program_request": Out(1),
        "program_ready": In(1),
        "program_exists": In(1),
        "program_place": In(96),
        "load": Out(load_signature(sizes.load_block_bytes)),
        "store": Out(store_signature(sizes.store_block_bytes)),
        "word_number": Out(TARGET_WIDTH),
        "done": Out(len(QUEUES)),
        "started": Out(len(QUEUES)),
        "written": Out(write_record(sizes.geometry)).array(len(QUEUES) + 1),
    }


def join_scratchpad(m: Module, geometry: Geometry, writers: Sequence[Any], readers: Sequence[Any]) -> None:
    """Make the scratchpad, with ports in order of priority."""
    m.submodules.scratchpad = scratchpad = Scratchpad(geometry, len(writers), len(readers))
    for theirs, mine in zip(writers, scratchpad.writers, strict=True):
        m.d.comb += [
            mine.valid.eq(theirs.valid),
            mine.row.eq(theirs.row),
            mine.data.eq(theirs.data),
            mine.mask.eq(theirs.mask),
            theirs.ready.eq(mine.ready),
        ]
    for theirs, mine in zip(readers, scratchpad.readers, strict=True):
        m.d.comb += [
            mine.valid.eq(theirs.valid),
            mine.row.eq(theirs.row),
            theirs.ready.eq(mine.ready),
            theirs.data.eq(mine.data),
        ]


def watch(m: Module, core: Any, writers: Sequence[Any]) -> None:
    """Show what is written into the scratchpad: by each queue's engine, then by the sequencer."""
    for record, theirs in zip(core.written, writers, strict=True):
        m.d.comb += [
            record.valid.eq(theirs.valid & theirs.ready),
            record.row.eq(theirs.row),
            record.data.eq(theirs.data),
            record.mask.eq(theirs.mask),
        ]


def join_memory(m: Module, core: Any, load: Any, store: Any) -> None:
    """Give the engines of loads and stores the core's ports to memory."""
    for name in ("valid", "address"):
        m.d.comb += getattr(core.load, name).eq(getattr(load.memory, name))
    for name in ("ready", "data_valid", "data"):
        m.d.comb += getattr(load.memory, name).eq(held(m, getattr(core.load, name)))
    for name in ("valid", "address", "data", "mask", "is_atomic", "function", "dtype", "operand", "other"):
        m.d.comb += getattr(core.store, name).eq(getattr(store.memory, name))
    for name in ("ready", "answer_valid", "answer"):
        m.d.comb += getattr(store.memory, name).eq(held(m, getattr(core.store, name)))


def join_sequencer(m: Module, core: Any, sequencer: Any) -> None:
    """Give the sequencer the core's ports to programs and their launch."""
    for name in ("is_halted", "is_trapped", "trap_code", "is_illegal", "instruction_address", "argument_index",
                 "program_request", "word_number"):  # fmt: skip
        m.d.comb += getattr(core, name).eq(getattr(sequencer, name))
    for name in ("launch", "instruction_word", "argument_value", "workspace", "grid", "program_ready",
                 "program_exists", "program_place"):  # fmt: skip
        m.d.comb += getattr(sequencer, name).eq(held(m, getattr(core, name)))


def join_faults(m: Module, core: Any, engines: Sequence[Any], overflows: Value) -> None:
    """Keep faults until reset."""
    with m.If(Cat(engine.is_misplaced for engine in engines).any()):
        m.d.sync += core.is_misplaced.eq(1)
    with m.If(overflows):
        m.d.sync += core.semaphore_overflows.eq(1)


class Core(Component):
    """One core. `done`, `started` and `written` (a queue each, then the sequencer) tell a testbench what happens.

    Instruction words, launch arguments and programs of the grid come from outside, as does memory. Every input, reset
    too, is kept by a flip-flop: what is there at an edge of the clock counts in the cycle after it, so no path leads
    from an input to an output or through the core (and a simulator need not follow one)."""

    def __init__(self, sizes: CoreSizes) -> None:
        self.sizes = sizes
        super().__init__(core_ports(sizes, 1))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, g = self.sizes, self.sizes.geometry
        m.domains.sync = ClockDomain()
        m.domains.input = ClockDomain(local=True, reset_less=True)
        m.d.comb += [
            ClockSignal().eq(self.clk),
            ClockSignal("input").eq(self.clk),
            ResetSignal().eq(held(m, self.rst)),
        ]
        m.submodules.sequencer = sequencer = Sequencer(g)
        m.submodules.semaphores = semaphores = Semaphores(s.semaphore_count, len(QUEUES) + 1, len(QUEUES))
        engines: dict[Unit, Any] = {
            Unit.LOAD: LoadEngine(g, s.load_block_bytes, s.load_outstanding),
            Unit.STORE: StoreEngine(g, s.store_block_bytes, s.store_outstanding),
            Unit.MATRIX: MatrixEngine(g, s.rows, s.columns, s.interleave),
            Unit.VECTOR: VectorEngine(g),
        }
        m.domains.falling = ClockDomain("falling", clk_edge="neg", local=True, reset_less=True)
        m.d.comb += ClockSignal("falling").eq(ClockSignal())
        queues = {}
        for number, unit in enumerate(QUEUES):
            queues[unit] = queue = Queue(unit, s.queue_depth)
            engine = engines[unit]
            m.submodules[f"{unit.value}_queue"] = queue
            m.submodules[f"{unit.value}_engine"] = DomainRenamer(f"{unit.value}_clock")(engine)
            gate_clock(m, f"{unit.value}_clock", runs=has_work(m, queue))
            taker, giver = semaphores.takers[number], semaphores.givers[number]
            issue = sequencer.issue[number]
            m.d.comb += [
                engine.valid.eq(queue.valid),
                *(mine.eq(theirs) for mine, theirs in zip(engine.words, queue.words, strict=True)),
                *(mine.eq(theirs) for mine, theirs in zip(engine.values, queue.values, strict=True)),
                queue.accept.eq(engine.accept),
                queue.done.eq(engine.done),
                taker.valid.eq(queue.take.valid),
                taker.a.eq(queue.take.a),
                taker.b.eq(queue.take.b),
                queue.take.ready.eq(taker.ready),
                giver.valid.eq(queue.give.valid),
                giver.number.eq(queue.give.number),
                queue.give.ready.eq(giver.ready),
                queue.issue.write.eq(issue.write),
                queue.issue.position.eq(issue.position),
                queue.issue.word.eq(issue.word),
                queue.issue.push.eq(issue.push),
                issue.full.eq(queue.issue.full),
                self.done[number].eq(queue.done),
                self.started[number].eq(queue.accept),
            ]
        taker = semaphores.takers[len(QUEUES)]
        m.d.comb += [
            taker.valid.eq(sequencer.take.valid),
            taker.a.eq(sequencer.take.a),
            sequencer.take.ready.eq(taker.ready),
            sequencer.queues_are_idle.eq(Cat(queue.is_empty for queue in queues.values()).all()),
            self.semaphores_are_zero.eq(semaphores.all_zero),
        ]

        load, store, matrix, vector = (engines[unit] for unit in QUEUES)
        writers = [sequencer.write, store.writer, load.writer, vector.writer, matrix.writer]
        readers = [sequencer.read, *load.readers, *store.readers, matrix.reader, *vector.readers]
        join_scratchpad(m, g, writers, readers)
        watch(m, self, (load.writer, store.writer, matrix.writer, vector.writer, sequencer.write))
        join_memory(m, self, load, store)
        join_sequencer(m, self, sequencer)
        join_faults(m, self, list(engines.values()), semaphores.overflows)
        return m
