"""Tiles as streams of vectors: the loops over a tile's elements, reading it, writing it.

An engine works on vectors: up to `lane_count` neighbours along the innermost dimension, row after row. `Walker`
makes the loops; `TileReader` and `TileWriter` go with it to the scratchpad.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.rtl.arithmetic import wire
from tapeout.rtl.scratchpad import Geometry, RowReader, RowWriter, read_signature, write_signature

EXTENTS = data.ArrayLayout(16, 4)


class Walker(Component):
    """Four nested loops, the innermost in steps of `lane_count`; an address that goes with them.

    `start` takes the operands; from then on `valid` until `next` was given for the `last` vector. `address` is that of
    the vector's first element, `count` how many it has, `index` where it is.
    """

    def __init__(self, lane_count: int, address_bits: int) -> None:
        self.lane_count = lane_count
        super().__init__(
            {
                "start": In(1),
                "shape": In(EXTENTS),
                "base": In(address_bits),
                "strides": In(data.ArrayLayout(address_bits, 4)),
                "next": In(1),
                "valid": Out(1),
                "address": Out(address_bits),
                "step": Out(address_bits),
                "count": Out(range(lane_count + 1)),
                "index": Out(EXTENTS),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.base)
        extent = [Signal(16, name=f"extent_{d}", reset_less=True) for d in range(4)]
        stride = [Signal(width, name=f"stride_{d}", reset_less=True) for d in range(4)]
        index = [Signal(16, name=f"index_{d}", reset_less=True) for d in range(4)]
        begin = [Signal(width, name=f"begin_{d}", reset_less=True) for d in range(4)]
        left = wire(m, (extent[3] - index[3])[0:16], "left_in_row")
        row_ends = wire(m, left <= self.lane_count, "row_ends")
        ends = [wire(m, index[d] + 1 == extent[d], f"ends_{d}") for d in range(3)]
        valid = Signal()
        m.d.comb += [
            self.valid.eq(valid),
            self.address.eq(begin[3]),
            self.step.eq(stride[3]),
            self.count.eq(Mux(row_ends, left, self.lane_count)),
            self.last.eq(row_ends & ends[0] & ends[1] & ends[2]),
            *(self.index[d].eq(index[d]) for d in range(4)),
        ]
        with m.If(self.next):
            with m.If(~row_ends):
                m.d.sync += [
                    index[3].eq(index[3] + self.lane_count),
                    begin[3].eq(begin[3] + stride[3] * self.lane_count),
                ]
            with m.Else():
                m.d.sync += index[3].eq(0)
                for d in (2, 1, 0):
                    inner_end = Cat(ends[inner] for inner in range(d + 1, 3)).all()
                    with m.If(inner_end & ~ends[d]):
                        onward = wire(m, (begin[d] + stride[d])[0:width], f"onward_{d}")
                        m.d.sync += index[d].eq(index[d] + 1)
                        m.d.sync += [begin[inner].eq(onward) for inner in range(d, 4)]
                        m.d.sync += [index[inner].eq(0) for inner in range(d + 1, 3)]
            with m.If(self.last):
                m.d.sync += valid.eq(0)
        with m.If(self.start):
            m.d.sync += valid.eq(1)
            for d in range(4):
                m.d.sync += [
                    extent[d].eq(self.shape[d]),
                    stride[d].eq(self.strides[d]),
                    index[d].eq(0),
                    begin[d].eq(self.base),
                ]
        return m


def lanes_below(m: Module, count: Value, lane_count: int, name: str) -> Signal:
    """Ones for the lanes a vector of `count` elements uses."""
    return wire(m, Cat(count > n for n in range(lane_count)), name)


def tile_ports(geometry: Geometry) -> dict[str, In]:
    """Return what a reader or writer is told about a tile when it starts."""
    return {
        "start": In(1),
        "size": In(2),
        "shape": In(EXTENTS),
        "base": In(geometry.address_bits),
        "strides": In(data.ArrayLayout(geometry.address_bits, 4)),
    }


class TileReader(Component):
    """A tile's vectors, up to `depth` of them read ahead.

    `available` vectors are there; `slot` chooses one, counted from the oldest, and `data` has it a cycle later;
    `release` gives that many of the oldest back. `may_start`: the last vector has been asked for, or is now. `asks`: a
    vector is asked for now; none is while `holds_back`. While `is_displaced`, each element's address is displaced by
    what comes with `displaced_valid`.
    """

    def __init__(self, geometry: Geometry, depth: int, *, displaced: bool = False) -> None:
        self.geometry = geometry
        self.depth = depth
        self.displaced = displaced
        self.module_name = "displaced_tile_reader" if displaced else "tile_reader"
        ports = tile_ports(geometry) | {
            "is_flag": In(1),
            "slot": In(range(depth)),
            "data": Out(data.ArrayLayout(64, geometry.lane_count)),
            "available": Out(range(depth + 1)),
            "release": In(range(depth + 1)),
            "is_busy": Out(1),
            "holds_back": In(1),
            "asks": Out(1),
            "may_start": Out(1),
            "misplaced": Out(1),
            "port": Out(read_signature(geometry)),
        }
        if displaced:
            ports |= {
                "is_displaced": In(1),
                "displaced_valid": In(1),
                "displaced_ready": Out(1),
                "displacements": In(data.ArrayLayout(geometry.address_bits, geometry.lane_count)),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        slot_bits = (self.depth - 1).bit_length()
        m.submodules.walker = walker = Walker(g.lane_count, g.address_bits)
        m.submodules.rows = rows = RowReader(g, slot_bits)
        size, is_flag = Signal(2), Signal()
        with m.If(self.start):
            m.d.sync += [size.eq(self.size), is_flag.eq(self.is_flag)]
        head, tail = Signal(slot_bits), Signal(slot_bits)
        asked, available = Signal(range(self.depth + 1)), Signal(range(self.depth + 1))
        room = wire(m, asked < self.depth, "room")
        displaced = self.is_displaced if self.displaced else 0
        may_ask = wire(
            m,
            walker.valid & room & ~self.holds_back & (~displaced | self.displaced_valid if self.displaced else 1),
            "may_ask",
        )
        asks = wire(m, may_ask & rows.ready, "asks")
        m.d.comb += [
            walker.start.eq(self.start),
            walker.shape.eq(self.shape),
            walker.base.eq(self.base),
            walker.strides.eq(self.strides),
            walker.next.eq(asks),
            rows.size.eq(size),
            rows.is_flag.eq(is_flag),
            rows.valid.eq(may_ask),
            rows.tag_in.eq(tail),
            rows.wanted.eq(lanes_below(m, walker.count, g.lane_count, "lanes_of_vector")),
            self.available.eq(available),
            self.is_busy.eq(walker.valid | rows.is_busy),
            self.asks.eq(asks),
            self.may_start.eq(~walker.valid | (asks & walker.last)),
            self.misplaced.eq(rows.misplaced),
            rows.port.ready.eq(self.port.ready),
            rows.port.data.eq(self.port.data),
            self.port.valid.eq(rows.port.valid),
            self.port.row.eq(rows.port.row),
        ]
        for n in range(g.lane_count):
            address = walker.address + walker.step * n
            if self.displaced:
                address = address + Mux(displaced, self.displacements[n], 0)
            m.d.comb += rows.addresses[n].eq(address)
        if self.displaced:
            m.d.comb += self.displaced_ready.eq(walker.valid & room & rows.ready)
        with m.If(asks):
            m.d.sync += tail.eq(tail + 1)
        # A vector can be read a cycle after it was written.
        done = Signal()
        m.d.sync += [
            done.eq(rows.done),
            asked.eq(asked + asks - self.release),
            available.eq(available + done - self.release),
            head.eq(head + self.release),
        ]
        for n in range(g.lane_count):
            m.submodules[f"vectors_{n}"] = memory = Memory(shape=unsigned(64), depth=self.depth, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(rows.lanes[n]),
                write.addr.eq(rows.tag),
                write.data.eq(rows.data[n]),
                read.en.eq(1),
                read.addr.eq((head + self.slot)[0:slot_bits]),
                self.data[n].eq(read.data),
            ]
        return m


class TileWriter(Component):
    """Vectors into a tile, in order. `may_start`: its last vector has come, or comes now; `completes`: a vector
    is written now, `is_written`: the last one; `is_idle`: nothing is left to write."""

    module_name = "tile_writer"

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__(
            tile_ports(geometry)
            | {
                "valid": In(1),
                "ready": Out(1),
                "data": In(data.ArrayLayout(64, geometry.lane_count)),
                "wanted": In(geometry.lane_count),
                "count": Out(range(geometry.lane_count + 1)),
                "may_start": Out(1),
                "completes": Out(1),
                "is_written": Out(1),
                "is_idle": Out(1),
                "misplaced": Out(1),
                "port": Out(write_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        m.submodules.walker = walker = Walker(g.lane_count, g.address_bits)
        m.submodules.rows = rows = RowWriter(g)
        size = Signal(2)
        with m.If(self.start):
            m.d.sync += size.eq(self.size)
        is_last = Signal()
        with m.If(walker.next):
            m.d.sync += is_last.eq(walker.last)
        lanes = lanes_below(m, walker.count, g.lane_count, "lanes_of_vector")
        m.d.comb += [
            walker.start.eq(self.start),
            walker.shape.eq(self.shape),
            walker.base.eq(self.base),
            walker.strides.eq(self.strides),
            walker.next.eq(self.valid & self.ready),
            rows.size.eq(size),
            rows.valid.eq(self.valid & walker.valid),
            rows.data.eq(self.data),
            rows.wanted.eq(lanes & self.wanted),
            self.count.eq(walker.count),
            self.ready.eq(rows.ready & walker.valid),
            self.may_start.eq(~walker.valid | (walker.next & walker.last)),
            self.completes.eq(rows.completes),
            self.is_written.eq(rows.completes & is_last),
            self.is_idle.eq(~walker.valid & rows.is_idle),
            self.misplaced.eq(rows.misplaced),
            *(rows.addresses[n].eq(walker.address + walker.step * n) for n in range(g.lane_count)),
            rows.port.ready.eq(self.port.ready),
            self.port.valid.eq(rows.port.valid),
            self.port.row.eq(rows.port.row),
            self.port.data.eq(rows.port.data),
            self.port.mask.eq(rows.port.mask),
        ]
        return m
