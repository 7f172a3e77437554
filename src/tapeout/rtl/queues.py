"""Semaphores, and the in-order queues in front of the engines.

A queue takes an instruction word by word from the sequencer, with the registers' contents behind. Its front reads
one entry ahead of the engine, takes the semaphores the instruction waits for, hands it to the engine and, once the
engine is done, gives the semaphores it signals.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.isa import definitions as isa
from tapeout.isa.fields import SEMAPHORE_COUNT, Unit, register_places
from tapeout.rtl.arithmetic import wire
from tapeout.rtl.descriptor import ENTRY_WORDS, VALUES, of_unit, value_count, word_count

NUMBER_BITS = (SEMAPHORE_COUNT - 1).bit_length()
COUNT_BITS = 16

TAKER = Signature({"valid": Out(1), "a": Out(NUMBER_BITS), "b": Out(NUMBER_BITS), "ready": In(1)})
"""Takes a count of both (0: none), or waits."""

GIVER = Signature({"valid": Out(1), "number": Out(NUMBER_BITS), "ready": In(1)})


class Semaphores(Component):
    """Counters; one of them changes a cycle (two when a taker takes two). Givers go first: they never wait for
    takers.

    Counts lie in a memory that nothing clears: after reset a count is zero until it was first given.
    """

    def __init__(self, semaphore_count: int, takers: int, givers: int) -> None:
        self.memory = Memory(shape=unsigned(COUNT_BITS), depth=semaphore_count, init=[])
        self.was_given = Signal(semaphore_count)
        self.total = Signal(COUNT_BITS + NUMBER_BITS)
        """Sum of all counts."""
        super().__init__(
            {
                "takers": In(TAKER).array(takers),
                "givers": In(GIVER).array(givers),
                "overflows": Out(1),
                "all_zero": Out(1),
            }
        )

    def count_of(self, m: Module, number: Value, name: str) -> Signal:
        """The count of a semaphore."""
        port = self.memory.read_port(domain="comb")
        m.d.comb += port.addr.eq(number)
        return wire(m, Mux(self.was_given.bit_select(number, 1), port.data, 0), name)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = self.memory
        given, giving = Signal(NUMBER_BITS), Signal()
        before: Value = Const(0, 1)
        for giver in self.givers:
            m.d.comb += giver.ready.eq(giver.valid & ~before)
            with m.If(giver.ready):
                m.d.comb += [given.eq(giver.number), giving.eq(giver.number.any())]
            before = before | giver.valid

        taken = [Signal(NUMBER_BITS, name=f"taken_{x}") for x in "ab"]
        for number, taker in enumerate(self.takers):
            wanted = (taker.a, taker.b)
            counts = [
                self.count_of(m, one, f"count_{x}_of_taker_{number}") for x, one in zip("ab", wanted, strict=True)
            ]
            has_both = Cat(~one.any() | count.any() for one, count in zip(wanted, counts, strict=True)).all()
            has_two = ~taker.a.any() | (taker.a != taker.b) | counts[0][1:].any()
            fits = wire(m, taker.valid & has_both & has_two, f"taker_{number}_fits")
            m.d.comb += taker.ready.eq(fits & ~before)
            with m.If(taker.ready):
                m.d.comb += [mine.eq(theirs) for mine, theirs in zip(taken, wanted, strict=True)]
            before = wire(m, before | fits, f"before_taker_{number + 1}")

        # Nobody takes while somebody gives.
        takes = [wire(m, one.any(), f"takes_{x}") for x, one in zip("ab", taken, strict=True)]
        takes_two = wire(m, takes[0] & (taken[0] == taken[1]), "takes_two")
        changed = wire(m, Mux(giving, given, taken[0]), "changed")
        count = self.count_of(m, changed, "count_of_changed")
        write, write_b = self.memory.write_port(), self.memory.write_port()
        m.d.comb += [
            write.en.eq(giving | takes[0]),
            write.addr.eq(changed),
            write.data.eq(Mux(giving, count + 1, count - 1 - takes_two)),
            write_b.en.eq(takes[1] & ~takes_two),
            write_b.addr.eq(taken[1]),
            write_b.data.eq(self.count_of(m, taken[1], "count_of_b") - 1),
            self.overflows.eq(giving & count.all()),
        ]
        with m.If(giving):
            m.d.sync += self.was_given.bit_select(given, 1).eq(1)
        m.d.sync += self.total.eq(self.total + giving - takes[0] - takes[1])
        m.d.comb += self.all_zero.eq(~self.total.any())
        return m


ISSUE = Signature(
    {"write": Out(1), "position": Out((ENTRY_WORDS - 1).bit_length()), "word": Out(64), "push": Out(1), "full": In(1)}
)
"""The sequencer's side of a queue: words of the entry being made, then `push`."""


class Queue(Component):
    """One queue. `valid`: an instruction may start; the engine answers `accept` and, later or at once, `done`."""

    def __init__(self, unit: Unit, depth: int) -> None:
        self.unit = unit
        self.depth = depth
        self.word_count, self.value_count = word_count(unit), value_count(unit)
        super().__init__(
            {
                "issue": In(ISSUE),
                "take": Out(TAKER),
                "give": Out(GIVER),
                "valid": Out(1),
                "words": Out(data.ArrayLayout(64, self.word_count)),
                "values": Out(data.ArrayLayout(64, self.value_count)),
                "accept": In(1),
                "done": In(1),
                "is_empty": Out(1),
                "active": Out(1),
                "serial": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = 1 << (self.depth - 1).bit_length()
        slot_bits = max((slots - 1).bit_length(), 1)
        m.submodules.memory = memory = Memory(shape=unsigned(64), depth=slots * ENTRY_WORDS, init=[])
        write, read = memory.write_port(), memory.read_port()
        head, tail, count = Signal(slot_bits), Signal(slot_bits), Signal(range(self.depth + 1))
        m.d.comb += [
            write.en.eq(self.issue.write),
            write.addr.eq(Cat(self.issue.position, tail)),
            write.data.eq(self.issue.word),
            read.en.eq(1),
            self.issue.full.eq(count == self.depth),
        ]

        # The front reads the oldest entry.
        words = [Signal(64, name=f"word_{n}") for n in range(self.word_count)]
        values = [Signal(64, name=f"value_{n}") for n in range(self.value_count)]
        m.d.comb += [mine.eq(theirs) for mine, theirs in zip(self.words, words, strict=True)]
        m.d.comb += [mine.eq(theirs) for mine, theirs in zip(self.values, values, strict=True)]
        position, next_position, arriving, arrives = Signal(6), Signal(6), Signal(6), Signal()
        opcode, length = words[0][0:8], words[0][8:12]
        registers = Signal(range(self.value_count + 1))
        with m.Switch(opcode):
            for kind in of_unit(self.unit):
                with m.Case(kind.opcode):
                    m.d.comb += registers.eq(len(register_places(kind)))
        is_sync = opcode == isa.SYNC[self.unit].opcode
        first = of_unit(self.unit)[0]
        offset_of = {f.name: o for f, o in zip(first.fields, first.offsets, strict=True)}

        def semaphore(name: str) -> Value:
            return words[0][offset_of[name] : offset_of[name] + NUMBER_BITS]

        m.d.comb += read.addr.eq(Cat(position, head))
        m.d.sync += [arriving.eq(position), arrives.eq(0)]
        with m.If(arrives):
            for n, word in enumerate(words):
                with m.If(arriving == n):
                    m.d.sync += word.eq(read.data)
            for n, value in enumerate(values):
                with m.If(arriving == VALUES + n):
                    m.d.sync += value.eq(read.data)

        active, give_a, give_b = Signal(), Signal(NUMBER_BITS), Signal(NUMBER_BITS)
        running, popped = Signal(), Signal()
        serial, running_serial = Signal(32), Signal(32)
        m.d.comb += [self.active.eq(running), self.serial.eq(running_serial)]
        with m.FSM(name="front") as front:
            with m.State("EMPTY"):
                m.d.comb += position.eq(0)
                with m.If(count.any()):
                    m.d.sync += arrives.eq(1)
                    m.next = "FIRST"
            with m.State("FIRST"):  # the first word arrives; it says how long the entry is
                m.next = "REST"
                m.d.sync += next_position.eq(Mux(read.data[8:12] == 1, VALUES, 1))
            with m.State("REST"):
                in_words = wire(m, next_position < length, "in_words")
                in_values = wire(m, next_position < VALUES + registers, "in_values")
                m.d.comb += position.eq(next_position)
                with m.If(in_words | in_values):
                    m.d.sync += arrives.eq(1)
                    m.d.sync += next_position.eq(
                        Mux(in_words & (next_position + 1 >= length), VALUES, next_position + 1)
                    )
                with m.Else():
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += [
                    self.take.valid.eq(1),
                    self.take.a.eq(semaphore("wait_a")),
                    self.take.b.eq(semaphore("wait_b")),
                ]
                with m.If(self.take.ready):
                    m.next = "READY"
            with m.State("READY"):
                m.d.comb += self.valid.eq(~is_sync & ~active)
                with m.If(~active & (is_sync | self.accept)):
                    m.d.comb += popped.eq(1)
                    m.d.sync += [
                        active.eq(1),
                        running.eq(~is_sync),
                        give_a.eq(semaphore("signal_a")),
                        give_b.eq(semaphore("signal_b")),
                        serial.eq(serial + 1),
                        running_serial.eq(serial),
                    ]
                    m.next = "EMPTY"
        with m.If(self.done):
            m.d.sync += running.eq(0)
        # Once the engine is done: give one semaphore after the other.
        finished = wire(m, active & ~running, "finished")
        m.d.comb += [
            self.give.valid.eq(finished & (give_a.any() | give_b.any())),
            self.give.number.eq(Mux(give_a.any(), give_a, give_b)),
        ]
        with m.If(self.give.valid & self.give.ready):
            with m.If(give_a.any()):
                m.d.sync += give_a.eq(0)
            with m.Else():
                m.d.sync += give_b.eq(0)
        with m.If(finished & ~self.give.valid):
            m.d.sync += active.eq(0)
        m.d.sync += count.eq(count + self.issue.push - popped)
        with m.If(self.issue.push):
            m.d.sync += tail.eq(tail + 1)
        with m.If(popped):
            m.d.sync += head.eq(head + 1)
        m.d.comb += self.is_empty.eq(~count.any() & ~active & front.ongoing("EMPTY"))
        return m
