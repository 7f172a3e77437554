"""The pipelined core: sequencer, semaphores, queues, engines and scratchpad wired together, sized by the chip."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib.wiring import Component

from tapeout.chip import Chip
from tapeout.isa.fields import QUEUES, Unit
from tapeout.rtl.core import (
    CoreSizes,
    core_ports,
    gate_clock,
    has_work,
    held,
    join_faults,
    join_memory,
    join_scratchpad,
    join_sequencer,
    watch,
)
from tapeout.rtl.dma import LoadEngine, StoreEngine
from tapeout.rtl.pipelined.matrix import MatrixEngine
from tapeout.rtl.pipelined.queues import Queue, Semaphores
from tapeout.rtl.pipelined.sequencer import Sequencer
from tapeout.rtl.pipelined.vector import VectorEngine


@dataclass(frozen=True)
class PipelinedSizes:
    """Parameters of a chip that shape its pipelined core."""

    core: CoreSizes
    fetch_words: int

    @staticmethod
    def of(chip: Chip) -> "PipelinedSizes":
        return PipelinedSizes(CoreSizes.of(chip), chip.core.fetch_words_per_cycle)


class PipelinedCore(Component):
    """One core. Its ports are those of `tapeout.rtl.core.Core`, but for the words of instructions, of which several
    come in a cycle: those from the address on."""

    def __init__(self, sizes: PipelinedSizes) -> None:
        self.sizes = sizes
        super().__init__(core_ports(sizes.core, sizes.fetch_words))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, g = self.sizes.core, self.sizes.core.geometry
        m.domains.sync = ClockDomain()
        m.domains.input = ClockDomain(local=True, reset_less=True)
        m.domains.falling = ClockDomain("falling", clk_edge="neg", local=True, reset_less=True)
        m.d.comb += [
            ClockSignal().eq(self.clk),
            ClockSignal("input").eq(self.clk),
            ResetSignal().eq(held(m, self.rst)),
            ClockSignal("falling").eq(ClockSignal()),
        ]
        m.submodules.sequencer = sequencer = Sequencer(g, self.sizes.fetch_words)
        m.submodules.semaphores = semaphores = Semaphores(s.semaphore_count, len(QUEUES) + 1, len(QUEUES))
        engines: dict[Unit, Any] = {
            Unit.LOAD: LoadEngine(g, s.load_block_bytes, s.load_outstanding, overlaps=True),
            Unit.STORE: StoreEngine(g, s.store_block_bytes, s.store_outstanding, overlaps=True),
            Unit.MATRIX: MatrixEngine(g, s.rows, s.columns, s.interleave, others=len(QUEUES)),
            Unit.VECTOR: VectorEngine(g),
        }
        queues = []
        for number, unit in enumerate(QUEUES):
            queue, engine = Queue(unit, s.queue_depth), engines[unit]
            queues.append(queue)
            m.submodules[f"{unit.value}_queue"] = queue
            m.submodules[f"{unit.value}_engine"] = DomainRenamer(f"{unit.value}_clock")(engine)
            wakes = engine.wakes if unit is Unit.MATRIX else 0
            gate_clock(m, f"{unit.value}_clock", runs=has_work(m, queue) | wakes)
            taker, giver = semaphores.takers[number], semaphores.givers[number]
            issue = getattr(sequencer, f"issue_{unit.value}")
            m.d.comb += [
                engine.valid.eq(queue.valid),
                engine.words.eq(queue.words),
                engine.values.eq(queue.values),
                queue.accept.eq(engine.accept),
                queue.done.eq(engine.done),
                taker.valid.eq(queue.take.valid),
                taker.a.eq(queue.take.a),
                taker.b.eq(queue.take.b),
                queue.take.ready.eq(taker.ready),
                giver.valid.eq(queue.give.valid),
                giver.a.eq(queue.give.a),
                giver.b.eq(queue.give.b),
                queue.give.ready.eq(giver.ready),
                queue.issue.words.eq(issue.words),
                queue.issue.values.eq(issue.values),
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
            sequencer.queues_are_idle.eq(Cat(queue.is_empty for queue in queues).all()),
            self.semaphores_are_zero.eq(semaphores.all_zero),
        ]
        load, store, matrix, vector = (engines[unit] for unit in QUEUES)
        writers = [sequencer.write, store.writer, load.writer, vector.writer, matrix.writer]
        readers = [sequencer.read, *load.readers, *store.readers, *matrix.readers, *vector.readers]
        join_scratchpad(m, g, writers, readers)
        for other, writer in zip(matrix.others, writers[: len(QUEUES)], strict=True):  # all but itself
            m.d.comb += [other.valid.eq(writer.valid), other.row.eq(writer.row)]
        watch(m, self, (load.writer, store.writer, matrix.writer, vector.writer, sequencer.write))
        join_memory(m, self, load, store)
        join_sequencer(m, self, sequencer)
        join_faults(m, self, list(engines.values()), semaphores.overflows)
        return m
