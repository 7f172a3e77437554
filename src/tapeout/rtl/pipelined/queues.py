"""Queues and semaphores of the pipelined core.

An entry is issued whole in a cycle. Its engine may take it while instructions before it are at work; they end in
order, and then their semaphores are given, two a queue and cycle.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit
from tapeout.rtl.arithmetic import wire
from tapeout.rtl.descriptor import of_unit, value_count, word_count
from tapeout.rtl.queues import COUNT_BITS, NUMBER_BITS, TAKER

AT_WORK = 8
"""Instructions an engine may have taken and not ended."""

GIVER = Signature({"valid": Out(1), "a": Out(NUMBER_BITS), "b": Out(NUMBER_BITS), "ready": In(1)})
"""Gives a count to both (0: none)."""


def issue_signature(unit: Unit) -> Signature:
    """The sequencer's side of a queue: a whole entry with `push`."""
    return Signature(
        {
            "words": Out(data.ArrayLayout(64, word_count(unit))),
            "values": Out(data.ArrayLayout(64, value_count(unit))),
            "push": Out(1),
            "full": In(1),
        }
    )


def _one_hot(number: Value, count: int) -> Value:
    """A one at a semaphore's place; none for number 0."""
    return Cat(Const(0, 1), (Const(1, count) << number)[1:count])


class Semaphores(Component):
    """Counters that any number of givers and takers change in a cycle, each of them by at most one giver and one
    taker (a taker of two counts of the same: by two). Of several the one named first goes; the others wait.

    Counts lie bit by bit: a word for each bit has a place for each semaphore.
    """

    def __init__(self, semaphore_count: int, takers: int, givers: int, count_bits: int = COUNT_BITS) -> None:
        self.semaphore_count = semaphore_count
        self.planes = [Signal(semaphore_count, name=f"counts_{bit}") for bit in range(count_bits)]
        super().__init__(
            {
                "takers": In(TAKER).array(takers),
                "givers": In(GIVER).array(givers),
                "overflows": Out(1),
                "all_zero": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self.semaphore_count
        planes = self.planes
        several: Value = Const(0, count)
        for plane in planes[1:]:
            several = several | plane
        several = wire(m, several, "several")
        some = wire(m, planes[0] | several, "some")

        def changes(ports: list[Any], allowed: list[Value], name: str) -> list[Signal]:
            """Places that go up or down by one, twice; a port that meets another's place waits."""
            taken: Value = Const(0, count)
            sums: list[Value] = [Const(0, count), Const(0, count)]
            for number, (port, fits) in enumerate(zip(ports, allowed, strict=True)):
                places = [
                    wire(m, _one_hot(x, count), f"{name}_{number}_{part}")
                    for part, x in zip("ab", (port.a, port.b), strict=True)
                ]
                free = ~((places[0] | places[1]) & taken).any()
                goes = wire(m, port.valid & fits & free, f"{name}_{number}_goes")
                m.d.comb += port.ready.eq(goes)
                sums = [total | Mux(goes, place, 0) for total, place in zip(sums, places, strict=True)]
                taken = wire(m, taken | Mux(goes, places[0] | places[1], 0), f"{name}_taken_{number}")
            return [wire(m, total, f"{name}_{part}") for part, total in zip("ab", sums, strict=True)]

        givers, takers = list(self.givers), list(self.takers)
        given = changes(givers, [Const(1, 1)] * len(givers), "given")
        fits = []
        for number, taker in enumerate(takers):
            has = [~x.any() | some.bit_select(x, 1) for x in (taker.a, taker.b)]
            has_two = ~taker.a.any() | (taker.a != taker.b) | several.bit_select(taker.a, 1)
            fits.append(wire(m, has[0] & has[1] & has_two, f"taker_{number}_fits"))
        taken = changes(takers, fits, "taken")
        now: list[Value] = list(planes)
        overflow: Value = Const(0, 1)
        for mask in given:
            carry: Value = mask
            after = []
            for plane in now:
                after.append(plane ^ carry)
                carry = plane & carry
            overflow = overflow | carry.any()
            now = [wire(m, plane, f"up_{mask.name}_{bit}") for bit, plane in enumerate(after)]
        for mask in taken:
            borrow: Value = mask
            after = []
            for plane in now:
                after.append(plane ^ borrow)
                borrow = ~plane & borrow
            now = [wire(m, plane, f"down_{mask.name}_{bit}") for bit, plane in enumerate(after)]
        m.d.sync += [plane.eq(next_plane) for plane, next_plane in zip(planes, now, strict=True)]
        m.d.comb += [self.overflows.eq(overflow), self.all_zero.eq(~some.any())]
        return m


class Queue(Component):
    """One queue. `valid`: an instruction may start, with `words` and `values`; the engine answers `accept`, and `done`
    once for each it accepted, in their order."""

    def __init__(self, unit: Unit, depth: int) -> None:
        self.unit = unit
        self.depth = depth
        self.word_count, self.value_count = word_count(unit), value_count(unit)
        super().__init__(
            {
                "issue": In(issue_signature(unit)),
                "take": Out(TAKER),
                "give": Out(GIVER),
                "valid": Out(1),
                "words": Out(data.ArrayLayout(64, self.word_count)),
                "values": Out(data.ArrayLayout(64, self.value_count)),
                "accept": In(1),
                "done": In(1),
                "is_empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = 1 << (self.depth - 1).bit_length()
        bits = 64 * (self.word_count + self.value_count)
        m.submodules.memory = memory = Memory(shape=bits, depth=slots, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        head, tail = Signal(range(slots)), Signal(range(slots))
        count = Signal(range(self.depth + 1))
        popped = Signal()
        m.d.comb += [
            write.en.eq(self.issue.push),
            write.addr.eq(tail),
            write.data.eq(Cat(self.issue.words, self.issue.values)),
            read.addr.eq(head),
            self.issue.full.eq(count == self.depth),
            *(self.words[n].eq(read.data[64 * n : 64 * (n + 1)]) for n in range(self.word_count)),
        ]
        for n in range(self.value_count):
            place = 64 * (self.word_count + n)
            m.d.comb += self.values[n].eq(read.data[place : place + 64])
        with m.If(self.issue.push):
            m.d.sync += tail.eq(tail + 1)
        with m.If(popped):
            m.d.sync += head.eq(head + 1)
        m.d.sync += count.eq(count + self.issue.push - popped)

        first = of_unit(self.unit)[0]
        offset_of = {f.name: o for f, o in zip(first.fields, first.offsets, strict=True)}

        def semaphore(name: str) -> Value:
            return self.words[0][offset_of[name] : offset_of[name] + NUMBER_BITS]

        # Instructions that were taken, in order: what they give, and whether they were only a `sync`.
        m.submodules.order = order = SyncFIFOBuffered(width=2 * NUMBER_BITS + 1, depth=AT_WORK)
        is_sync = wire(m, self.words[0][0:8] == isa.SYNC[self.unit].opcode, "is_sync")
        has_semaphores = Signal()
        may_start = wire(m, count.any() & (has_semaphores | self.take.ready) & order.w_rdy, "may_start")
        m.d.comb += [
            self.take.valid.eq(count.any() & ~has_semaphores),
            self.take.a.eq(semaphore("wait_a")),
            self.take.b.eq(semaphore("wait_b")),
            self.valid.eq(may_start & ~is_sync),
            popped.eq(may_start & (is_sync | self.accept)),
            order.w_en.eq(popped),
            order.w_data.eq(Cat(semaphore("signal_a"), semaphore("signal_b"), is_sync)),
        ]
        with m.If(popped):
            m.d.sync += has_semaphores.eq(0)
        with m.Elif(self.take.valid & self.take.ready):
            m.d.sync += has_semaphores.eq(1)

        ended = Signal(range(AT_WORK + 2))
        """Instructions that ended and have not given their semaphores."""
        only_sync = order.r_data[2 * NUMBER_BITS]
        may_give = wire(m, order.r_rdy & (only_sync | ended.any() | self.done), "may_give")
        gives = wire(m, may_give & self.give.ready, "gives")
        m.d.comb += [
            self.give.valid.eq(may_give),
            self.give.a.eq(order.r_data[0:NUMBER_BITS]),
            self.give.b.eq(order.r_data[NUMBER_BITS : 2 * NUMBER_BITS]),
            order.r_en.eq(gives),
        ]
        m.d.sync += ended.eq(ended + self.done - (gives & ~only_sync))
        unfinished = Signal(range(AT_WORK + 3))
        m.d.sync += unfinished.eq(unfinished + popped - gives)
        m.d.comb += self.is_empty.eq(~count.any() & ~unfinished.any())
        return m
