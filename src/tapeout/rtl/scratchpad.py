"""The scratchpad: banks of one port, shared by every engine; and what moves rows between banks and elements.

A row is as wide as a bank's port. Neighbouring rows lie in neighbouring banks. In a cycle each bank serves
one request; of several, the one whose port was named first. A read's data comes a fixed number of cycles after it was
granted.

`RowReader` and `RowWriter` work for a vector of elements with any addresses: each cycle they take the row of
the first element that is left and serve every element that lies in the same row. So a contiguous vector costs one
or two rows, a broadcast one costs one, and one that is strided beyond a row costs a row an element.
"""

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.rtl.arithmetic import wire

WORD_BYTES = 8
"""The widest element, and what lanes hold."""


@dataclass(frozen=True)
class Geometry:
    """Sizes every unit knows, powers of two all."""

    lane_count: int
    row_bytes: int
    bank_count: int
    row_count: int
    latency_cycles: int

    @property
    def address_bits(self) -> int:
        return (self.row_count * self.row_bytes - 1).bit_length()

    @property
    def offset_bits(self) -> int:
        """Bits of a byte's offset in a row."""
        return (self.row_bytes - 1).bit_length()

    @property
    def row_bits(self) -> int:
        return self.address_bits - self.offset_bits


def read_signature(geometry: Geometry) -> Signature:
    """One reader's connection, seen from the reader."""
    return Signature(
        {
            "valid": Out(1),
            "row": Out(geometry.row_bits),
            "ready": In(1),
            "data": In(8 * geometry.row_bytes),
        }
    )


def write_signature(geometry: Geometry) -> Signature:
    """One writer's connection, seen from the writer."""
    return Signature(
        {
            "valid": Out(1),
            "row": Out(geometry.row_bits),
            "data": Out(8 * geometry.row_bytes),
            "mask": Out(geometry.row_bytes),
            "ready": In(1),
        }
    )


class Scratchpad(Component):
    """Banks and the network in front of them. Ports come first to last in order of priority, writers before
    readers."""

    def __init__(self, geometry: Geometry, writers: int, readers: int) -> None:
        self.geometry = geometry
        super().__init__(
            {
                "writers": In(write_signature(geometry)).array(writers),
                "readers": In(read_signature(geometry)).array(readers),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        bank_bits = (g.bank_count - 1).bit_length()
        ports = [*self.writers, *self.readers]
        granted: list[list[Value]] = [[] for _ in ports]
        of_bank = []
        for bank in range(g.bank_count):
            m.submodules[f"bank_{bank}"] = memory = Memory(
                shape=unsigned(8 * g.row_bytes), depth=g.row_count // g.bank_count, init=[]
            )
            write, read = memory.write_port(granularity=8), memory.read_port()
            taken: Value = Const(0, 1)
            line = Signal(g.row_bits - bank_bits, name=f"line_{bank}")
            for number, port in enumerate(ports):
                wants = port.valid & (port.row[0:bank_bits] == bank)
                grant = wire(m, wants & ~taken, f"grant_{bank}_{number}")
                granted[number].append(grant)
                with m.If(grant):
                    m.d.comb += line.eq(port.row[bank_bits:])
                    if number < len(self.writers):
                        m.d.comb += [write.en.eq(port.mask), write.data.eq(port.data)]
                taken = wire(m, taken | wants, f"taken_{bank}_{number}")
            m.d.comb += [write.addr.eq(line), read.addr.eq(line), read.en.eq(1)]
            row: Value = read.data
            for stage in range(g.latency_cycles - 1):
                later = Signal(8 * g.row_bytes, name=f"data_{bank}_{stage}", reset_less=True)
                m.d.sync += later.eq(row)
                row = later
            of_bank.append(row)
        for number, port in enumerate(ports):
            m.d.comb += port.ready.eq(Cat(granted[number]).any())
            if number >= len(self.writers):
                bank_read: Value = port.row[0:bank_bits]
                for stage in range(g.latency_cycles):
                    before, bank_read = bank_read, Signal(bank_bits, name=f"bank_of_{number}_{stage}", reset_less=True)
                    m.d.sync += bank_read.eq(before)
                m.d.comb += port.data.eq(Array(of_bank)[bank_read])
        return m


def first_set(m: Module, bits: Value, name: str) -> Value:
    """Number of the lowest one."""
    index = Signal((len(bits) - 1).bit_length() or 1, name=name)
    for position in reversed(range(len(bits))):
        with m.If(bits[position]):
            m.d.comb += index.eq(position)
    return index


class RowSelection:
    """The elements of a vector that lie in the row of the first one left."""

    def __init__(self, m: Module, geometry: Geometry, addresses: list[Signal], left: Signal) -> None:
        first = first_set(m, left, "first")
        low = geometry.offset_bits
        self.row = wire(m, Array(address[low:] for address in addresses)[first], "row_of_first")
        self.same = wire(
            m, Cat(left[n] & (address[low:] == self.row) for n, address in enumerate(addresses)), "in_this_row"
        )
        self.rest = wire(m, left & ~self.same, "left_after_this_row")


def misplaced(m: Module, addresses: list[Value], lanes: Value, size: Value) -> Value:
    """Return whether an element does not lie at a multiple of its size (its logarithm)."""
    mask = wire(m, ((1 << size) - 1)[0:3], "address_bits_that_must_be_zero")
    return Cat(lanes[n] & (address[0:3] & mask).any() for n, address in enumerate(addresses)).any()


class RowReader(Component):
    """Vectors of addresses in, vectors of elements out, in order. Nothing holds the elements up once asked for.

    Elements come in parts: `lanes` says which are there now, `data` has them extended with zeros to 64 bits (a
    flag, `is_flag`, as 0 or 1), `tag` says of which vector, `done` that these were its last. `size` and `is_flag` go
    with the addresses.
    """

    def __init__(self, geometry: Geometry, tag_bits: int) -> None:
        self.geometry = geometry
        self.tag_bits = tag_bits
        lanes = geometry.lane_count
        super().__init__(
            {
                "size": In(2),
                "is_flag": In(1),
                "valid": In(1),
                "ready": Out(1),
                "addresses": In(data.ArrayLayout(geometry.address_bits, lanes)),
                "wanted": In(lanes),
                "tag_in": In(tag_bits),
                "lanes": Out(lanes),
                "data": Out(data.ArrayLayout(64, lanes)),
                "tag": Out(tag_bits),
                "done": Out(1),
                "is_busy": Out(1),
                "misplaced": Out(1),
                "port": Out(read_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        addresses = [Signal(g.address_bits, name=f"address_{n}", reset_less=True) for n in range(g.lane_count)]
        left = Signal(g.lane_count)
        # What travels with a vector: its tag, its elements' size, whether they are flags.
        tag = Signal(self.tag_bits + 3, reset_less=True)
        holds = Signal()
        selection = RowSelection(m, g, addresses, left)
        finishes = wire(m, ~selection.rest.any(), "finishes")
        m.d.comb += [
            self.port.valid.eq(holds),
            self.port.row.eq(selection.row),
            self.ready.eq(~holds | (self.port.ready & finishes)),
            self.misplaced.eq(self.valid & self.ready & misplaced(m, list(self.addresses), self.wanted, self.size)),
        ]
        with m.If(holds & self.port.ready):
            m.d.sync += [left.eq(selection.rest), holds.eq(~finishes)]
        with m.If(self.valid & self.ready):
            m.d.sync += [holds.eq(1), left.eq(self.wanted), tag.eq(Cat(self.tag_in, self.size, self.is_flag))]
            m.d.sync += [mine.eq(theirs) for mine, theirs in zip(addresses, self.addresses, strict=True)]

        arriving = wire(m, Mux(holds & self.port.ready, selection.same, 0), "asked_lanes")
        last = wire(m, holds & self.port.ready & finishes, "asked_last")
        offsets: list[Value] = [address[0 : g.offset_bits] for address in addresses]
        tag_later: Value = tag
        busy: Value = holds
        for stage in range(g.latency_cycles):
            later = Signal.like(arriving, name=f"lanes_{stage}")
            last_later = Signal(name=f"last_{stage}")
            tag_stage = Signal(self.tag_bits + 3, name=f"tag_{stage}", reset_less=True)
            offsets_stage = [
                Signal(g.offset_bits, name=f"offset_{stage}_{n}", reset_less=True) for n in range(g.lane_count)
            ]
            m.d.sync += [later.eq(arriving), last_later.eq(last), tag_stage.eq(tag_later)]
            m.d.sync += [after.eq(before) for after, before in zip(offsets_stage, offsets, strict=True)]
            arriving, last, tag_later, offsets = later, last_later, tag_stage, list(offsets_stage)
            busy = busy | later.any() | last_later
        m.d.comb += [self.lanes.eq(arriving), self.done.eq(last), self.is_busy.eq(busy)]
        m.d.comb += self.tag.eq(tag_later[0 : self.tag_bits])
        size_there, is_flag_there = tag_later[self.tag_bits : self.tag_bits + 2], tag_later[self.tag_bits + 2]
        words = [self.port.data[64 * n : 64 * (n + 1)] for n in range(g.row_bytes // WORD_BYTES)]
        for n in range(g.lane_count):
            word = wire(m, Array(words)[offsets[n][3:]] if len(words) > 1 else words[0], f"word_{n}")
            part = wire(m, word >> Cat(Const(0, 3), offsets[n][0:3]), f"part_{n}")
            element = Signal(64, name=f"element_{n}")
            with m.Switch(size_there):
                for size in range(4):
                    with m.Case(size):
                        m.d.comb += element.eq(part[0 : 8 << size])
            m.d.comb += self.data[n].eq(Mux(is_flag_there, element.any(), element))
        return m


class RowWriter(Component):
    """Vectors of addresses and elements in, rows out, in order. `completes`: the last row of a vector goes out now;
    `is_idle`: everything is written. `size` goes with the addresses."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        lanes = geometry.lane_count
        super().__init__(
            {
                "size": In(2),
                "valid": In(1),
                "ready": Out(1),
                "addresses": In(data.ArrayLayout(geometry.address_bits, lanes)),
                "data": In(data.ArrayLayout(64, lanes)),
                "wanted": In(lanes),
                "completes": Out(1),
                "is_idle": Out(1),
                "misplaced": Out(1),
                "port": Out(write_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        addresses = [Signal(g.address_bits, name=f"address_{n}", reset_less=True) for n in range(g.lane_count)]
        elements = [Signal(64, name=f"element_{n}", reset_less=True) for n in range(g.lane_count)]
        left, size = Signal(g.lane_count), Signal(2, name="size_of_elements", reset_less=True)
        holds = wire(m, left.any(), "holds")
        selection = RowSelection(m, g, addresses, left)
        finishes = wire(m, ~selection.rest.any(), "finishes")
        m.d.comb += [
            self.port.valid.eq(holds),
            self.port.row.eq(selection.row),
            self.ready.eq(~holds | (self.port.ready & finishes)),
            self.completes.eq(holds & self.port.ready & finishes),
            self.is_idle.eq(~holds),
            self.misplaced.eq(self.valid & self.ready & misplaced(m, list(self.addresses), self.wanted, self.size)),
        ]
        with m.If(holds & self.port.ready):
            m.d.sync += left.eq(selection.rest)
        with m.If(self.valid & self.ready):
            m.d.sync += [left.eq(self.wanted), size.eq(self.size)]
            m.d.sync += [mine.eq(theirs) for mine, theirs in zip(addresses, self.addresses, strict=True)]
            m.d.sync += [mine.eq(theirs) for mine, theirs in zip(elements, self.data, strict=True)]
        row, mask = merged(m, g.row_bytes, [address[0 : g.offset_bits] for address in addresses], elements,
                           selection.same, size)  # fmt: skip
        m.d.comb += [self.port.data.eq(row), self.port.mask.eq(mask)]
        return m


def merged(
    m: Module, row_bytes: int, offsets: list[Value], elements: list[Signal], lanes: Value, size: Value
) -> tuple[Value, Value]:
    """Elements put at their byte offsets in a row, and which bytes they cover. They do not overlap."""
    placed, covers, words = [], [], []
    for n, (offset, element) in enumerate(zip(offsets, elements, strict=True)):
        cut, ones = Signal(64, name=f"cut_{n}"), Signal(8, name=f"bytes_of_element_{n}")
        with m.Switch(size):
            for code in range(4):
                with m.Case(code):
                    m.d.comb += [cut.eq(element[0 : 8 << code]), ones.eq((1 << (1 << code)) - 1)]
        placed.append(wire(m, (cut << Cat(Const(0, 3), offset[0:3]))[0:64], f"placed_{n}"))
        covers.append(wire(m, (ones << offset[0:3])[0:8], f"covers_{n}"))
        words.append(offset[3:])
    rows, masks = [], []
    for word in range(row_bytes // WORD_BYTES):
        bits: Value = Const(0, 64)
        mask: Value = Const(0, 8)
        for n in range(len(elements)):
            here = wire(m, lanes[n] & (words[n] == word) if len(words[n]) else lanes[n], f"in_word_{word}_{n}")
            bits = bits | Mux(here, placed[n], 0)
            mask = mask | Mux(here, covers[n], 0)
        rows.append(wire(m, bits, f"word_{word}"))
        masks.append(wire(m, mask, f"mask_{word}"))
    return Cat(rows), Cat(masks)
