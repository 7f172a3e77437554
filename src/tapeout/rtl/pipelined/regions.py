"""The bytes a tile lies in, from the first to the last: what instructions that overlap may not both touch."""

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed

from tapeout.rtl.arithmetic import register, wire


@dataclass(frozen=True)
class Region:
    """Addresses of the first byte and of one in the last element."""

    first: Value
    last: Value

    def meets(self, other: "Region") -> Value:
        """Return whether the two have a byte in common (or nearly: up to an element apart)."""
        return (self.first <= other.last) & (other.first <= self.last)


def region_of(m: Module, base: Value, strides: list[Value], extents: list[Value], size: Value, name: str) -> Region:
    """The region of a tile a cycle later. `strides` in bytes, `size`: the logarithm of an element's bytes.

    A product for each dimension; those of a core that would be too large for its clock could take turns."""
    bits = len(base)
    low: Value = base
    high: Value = base
    for dimension, (stride, extent) in enumerate(zip(strides, extents, strict=True)):
        steps = wire(m, (extent - 1)[0:16], f"{name}_steps_{dimension}")
        reach = Signal(signed(bits + 1), name=f"{name}_reach_{dimension}")
        m.d.comb += reach.eq((stride.as_signed() * steps)[0 : bits + 1].as_signed())
        low = low + Mux(reach < 0, reach, 0)
        high = high + Mux(reach < 0, 0, reach)
    last = high + ((Const(1, 4) << size) - 1)
    one = Const(1, 1)
    return Region(
        register(m, wire(m, low[0:bits], f"{name}_low"), one, f"{name}_first"),
        register(m, wire(m, last[0:bits], f"{name}_high"), one, f"{name}_last"),
    )


@dataclass(frozen=True)
class _Entry:
    region: Region
    written: Signal


class InFlight:
    """Regions that instructions of an engine have yet to write, oldest first; of each, how many vectors are written.

    `adds` puts `added` behind them, `removes` takes the oldest away."""

    SLOTS = 8
    MOST = 4

    def __init__(self, m: Module, name: str, address_bits: int, added: Region) -> None:
        self.m, self.name = m, name
        self.adds, self.removes = Signal(name=f"{name}_adds"), Signal(name=f"{name}_removes")
        self.writes = Signal(name=f"{name}_writes")
        """The oldest has one more vector written."""
        self.valid = Signal(self.SLOTS, name=f"{name}_valid")
        self.head, self.tail = (
            Signal(range(self.SLOTS), name=f"{name}_head"),
            Signal(range(self.SLOTS), name=f"{name}_tail"),
        )
        self.count = Signal(range(self.MOST + 1), name=f"{name}_count")
        self.entries = [
            _Entry(
                Region(
                    Signal(address_bits, name=f"{name}_{n}_first", reset_less=True),
                    Signal(address_bits, name=f"{name}_{n}_last", reset_less=True),
                ),
                Signal(16, name=f"{name}_{n}_written", reset_less=True),
            )
            for n in range(self.SLOTS)
        ]
        m.d.sync += self.count.eq(self.count + self.adds - self.removes)
        for n, entry in enumerate(self.entries):
            with m.If(self.adds & (self.tail == n)):
                m.d.sync += [
                    self.valid[n].eq(1),
                    entry.region.first.eq(added.first),
                    entry.region.last.eq(added.last),
                    entry.written.eq(0),
                ]
            with m.Elif(self.removes & (self.head == n)):
                m.d.sync += self.valid[n].eq(0)
            with m.If(self.writes & (self.head == n)):
                m.d.sync += entry.written.eq(entry.written + 1)
        m.d.sync += [self.tail.eq(self.tail + self.adds), self.head.eq(self.head + self.removes)]

    @property
    def has_room(self) -> Value:
        """Return whether another one may be added."""
        return self.count != self.MOST

    @property
    def newest(self) -> Value:
        """The number of the entry that was added last."""
        return (self.tail - 1)[0 : len(self.tail)]

    def meets(self, region: Region) -> Value:
        """Ones for the entries that a region has a byte in common with."""
        return Cat(self.valid[n] & entry.region.meets(region) for n, entry in enumerate(self.entries))

    def has_written(self, number: Value, vectors: Value) -> Value:
        """Return whether an entry has more than so many vectors written, or is no longer there."""
        written = Array(entry.written for entry in self.entries)[number]
        return ~self.valid.bit_select(number, 1) | (written > vectors)
