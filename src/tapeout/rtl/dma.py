"""The load and the store engine: between the core's memory port and the scratchpad.

The engines of a pipelined core (`overlaps`) take the next instruction while data or answers of those before are on
their way, send blocks without a pause, and move small elements that lie side by side as larger ones.

The memory port moves aligned blocks of `block_bytes`. An engine takes a vector of elements at a time, asks for the
block of the first element that is left and serves every element in the same block. Indexed accesses make one address
a cycle; elements that may lie on each other go one by one, in order.
"""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.isa import definitions as isa
from tapeout.isa.core_design import DEPTH
from tapeout.isa.fields import Instruction, Unit
from tapeout.numerics.dtypes import DType
from tapeout.rtl.arithmetic import sign_extended, wire
from tapeout.rtl.descriptor import View, value_count, word_count
from tapeout.rtl.scratchpad import Geometry, first_set, merged, read_signature, write_signature
from tapeout.rtl.sharing import instantiate
from tapeout.rtl.tiles import TileReader, TileWriter, Walker, lanes_below
from tapeout.rtl.vector import size_of

ADDRESS_BITS = 48
TILES_ON_THEIR_WAY = 5
"""Loads whose data may be on their way, of a pipelined core."""
BOUND_BITS = 17
"""Bits of a limit for an index, which is at most 65535."""


def load_signature(block_bytes: int) -> Signature:
    """Requests out in order, their data back in the same order, always taken."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "address": Out(ADDRESS_BITS),
            "data_valid": In(1),
            "data": In(8 * block_bytes),
        }
    )


def store_signature(block_bytes: int) -> Signature:
    """Writes (`mask`: bytes) or atomics of one element out; for each an answer, an atomic's with the old value."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "address": Out(ADDRESS_BITS),
            "data": Out(8 * block_bytes),
            "mask": Out(block_bytes),
            "is_atomic": Out(1),
            "function": Out(4),
            "dtype": Out(4),
            "operand": Out(64),
            "other": Out(64),
            "answer_valid": In(1),
            "answer": In(64),
        }
    )


class _Transfer:
    """Common part of loads and stores: the fields of the instruction, held while it runs, and the walk in memory."""

    def __init__(self, m: Module, geometry: Geometry, tiles: tuple[str, ...]) -> None:
        self.m = m
        self.geometry = geometry
        self.shape = [Signal(16, name=f"extent_{d}") for d in range(4)]
        self.size = Signal(2, name="element_size")
        self.base = Signal(ADDRESS_BITS, name="memory_base")
        self.strides = [Signal(ADDRESS_BITS, name=f"memory_stride_{d}") for d in range(4)]
        self.low = [Signal(BOUND_BITS, name=f"low_{d}") for d in range(4)]
        self.high = [Signal(BOUND_BITS, name=f"high_{d}") for d in range(4)]
        self.scale = Signal(16)
        self.is_indexed, self.is_masked = Signal(), Signal()
        self.all_outside = Signal()
        """A dimension of one element that was moved away lies outside its bounds."""
        self.tiles = tiles
        bits = geometry.address_bits
        self.tile_base = {name: Signal(bits, name=f"{name}_base") for name in tiles}
        self.tile_strides = {name: [Signal(bits, name=f"{name}_stride_{d}") for d in range(4)] for name in tiles}
        self.tile_size = {name: Signal(2, name=f"{name}_size") for name in tiles}
        self.is_tile = {name: Signal(name=f"{name}_is_tile") for name in tiles}
        self.scalar = {name: Signal(64, name=f"{name}_scalar") for name in tiles}
        m.submodules.memory_walker = self.walker = Walker(geometry.lane_count, ADDRESS_BITS)

    def latch(self, view: View, bounded: bool) -> None:
        """Take over an instruction, now."""
        m, kind = self.m, view.kind
        size = size_of(m, view.field("dtype"), f"{kind.mnemonic}_size")
        m.d.sync += [
            *(mine.eq(theirs) for mine, theirs in zip(self.shape, view.extents(), strict=True)),
            self.size.eq(size),
            self.all_outside.eq(0),
            self.base.eq(view.register("base")),
            self.scale.eq(view.field("scale") if view.has("scale") else 0),
            self.is_indexed.eq(view.has("index")),
            self.is_masked.eq((~view.is_register("mask") | view.names_register("mask")) if view.has("mask") else 0),
        ]
        for d in range(4):
            if not bounded:
                m.d.sync += [self.strides[d].eq(0), self.low[d].eq(0), self.high[d].eq(view.extents()[d])]
                continue
            low, high = view.register("low", d), view.register("high", d)
            m.d.sync += [
                self.strides[d].eq(view.register("strides", d)),
                self.low[d].eq(_limited(low)),
                self.high[d].eq(Mux(view.names_register("high", d), _limited(high), view.extents()[d])),
            ]
        for name in self.tiles:
            if not view.has(name):
                m.d.sync += self.is_tile[name].eq(0)
                continue
            of_tile, of = size, view.element_type(name)
            if isinstance(of, DType):
                of_tile = Const(of.size_bytes.bit_length() - 1, 2)
            elif of != "dtype":
                of_tile = size_of(m, view.field(of), f"{kind.mnemonic}_{name}_size")
            content = view.register(name)
            m.d.sync += [
                self.tile_base[name].eq(view.base(name)),
                self.tile_size[name].eq(of_tile),
                self.is_tile[name].eq(~view.is_register(name)),
                *(
                    stride.eq(elements << of_tile)
                    for stride, elements in zip(self.tile_strides[name], view.strides(name), strict=True)
                ),
            ]
            if name == "index":  # signed
                with m.If(view.element_code(name) == DType.I32.code):
                    m.d.sync += self.scalar[name].eq(sign_extended(content, 32))
                with m.Else():
                    m.d.sync += self.scalar[name].eq(content)
            elif of is DType.I1:
                m.d.sync += self.scalar[name].eq(content[0])
            else:  # repeated, for elements that move in pairs
                m.d.sync += self.scalar[name].eq(repeated(m, of_tile, content, f"{kind.mnemonic}_{name}_repeated"))

    def squeeze(self) -> Value:
        """Return whether the innermost dimension has one element and an outer one has more; then move them in, now."""
        m = self.m
        wants = wire(m, (self.shape[3] == 1) & (Cat(self.shape[0:3]) != (1 | 1 << 16 | 1 << 32)), "moves_in")
        with m.If(wants):
            with m.If(self.low[3].any() | ~self.high[3].any()):
                m.d.sync += self.all_outside.eq(1)
            m.d.sync += [self.shape[d].eq(self.shape[d - 1] if d else 1) for d in range(4)]
            m.d.sync += [self.strides[d].eq(self.strides[d - 1] if d else 0) for d in range(4)]
            m.d.sync += [self.low[d].eq(self.low[d - 1] if d else 0) for d in range(4)]
            m.d.sync += [self.high[d].eq(self.high[d - 1] if d else 1) for d in range(4)]
            for name in self.tiles:
                strides = self.tile_strides[name]
                m.d.sync += [strides[d].eq(strides[d - 1] if d else 0) for d in range(4)]
        return wants

    def widen(self, tile: str) -> Value:
        """Return whether pairs of elements along the innermost dimension can move as one; then make them one, now.
        That is so if they lie side by side on both sides, at multiples of the pair's size, and the bounds part none."""
        m = self.m
        two, one = (
            wire(m, (Const(2, 5) << self.size)[0:5], "pair_bytes"),
            wire(m, (Const(1, 4) << self.size)[0:4], "one"),
        )
        below = wire(m, (two - 1)[0:4], "pair_mask")
        high, low, extent = self.high[3], self.low[3], self.shape[3]
        is_open = wire(m, high >= extent, "high_is_open")
        side_by_side = [self.strides[3] == one, ~self.is_tile[tile] | (self.tile_strides[tile][3] == one)]
        apart = [self.base, *self.strides[0:3]]
        on_tile = [self.tile_base[tile], *self.tile_strides[tile][0:3]]
        odd = [(value[0:4] & below).any() for value in apart]
        odd += [self.is_tile[tile] & (value[0:4] & below).any() for value in on_tile]
        wants = wire(
            m,
            ~self.is_indexed
            & (self.size != 3)
            & ~extent[0]
            & ~low[0]
            & (is_open | ~high[0])
            & Cat(side_by_side).all()
            & ~Cat(odd).any(),
            "pairs_up",
        )
        with m.If(wants):
            m.d.sync += [
                self.size.eq(self.size + 1),
                extent.eq(extent >> 1),
                low.eq(low >> 1),
                high.eq(Mux(is_open, extent, high) >> 1),
                self.strides[3].eq(two),
                self.tile_strides[tile][3].eq(two),
                self.tile_size[tile].eq(self.size + 1),
            ]
        return wants

    def connect_walker(self, start: Value) -> None:
        self.m.d.comb += [
            self.walker.start.eq(start),
            self.walker.base.eq(self.base),
            *(self.walker.shape[d].eq(self.shape[d]) for d in range(4)),
            *(self.walker.strides[d].eq(self.strides[d]) for d in range(4)),
        ]

    def connect_tile(self, unit: TileReader | TileWriter, name: str, start: Value) -> None:
        self.m.d.comb += [
            unit.start.eq(start & self.is_tile[name]),
            unit.size.eq(self.tile_size[name]),
            unit.base.eq(self.tile_base[name]),
            *(unit.shape[d].eq(self.shape[d]) for d in range(4)),
            *(unit.strides[d].eq(self.tile_strides[name][d]) for d in range(4)),
        ]

    def valid_lanes(self) -> Signal:
        """Elements of the walker's vector that are inside the bounds."""
        walker, lane_count = self.walker, self.geometry.lane_count
        outer = [(walker.index[d] >= self.low[d]) & (walker.index[d] < self.high[d]) for d in range(3)]
        lanes = lanes_below(self.m, walker.count, lane_count, "lanes_of_vector")
        inside = [
            lanes[n] & (walker.index[3] + n >= self.low[3]) & (walker.index[3] + n < self.high[3])
            for n in range(lane_count)
        ]
        return wire(self.m, Mux(Cat(outer).all() & ~self.all_outside, Cat(inside), 0), "valid_lanes")


def _limited(value: Value) -> Value:
    """A signed 64-bit bound, cut to what an index can be compared with."""
    return Mux(value[63], 0, Mux(value[16:63].any(), 1 << 16, value[0:17]))


def _signed_index(m: Module, size: Value, element: Value, name: str) -> Signal:
    index = Signal(ADDRESS_BITS, name=name)
    m.d.comb += index.eq(Mux(size == 2, sign_extended(element, 32), element))
    return index


def repeated(m: Module, size: Value, value: Value, name: str) -> Signal:
    """An element's bits repeated over 64; `size` is the logarithm of its bytes."""
    result = Signal(64, name=name)
    with m.Switch(size):
        for code in range(4):
            with m.Case(code):
                m.d.comb += result.eq(value[0 : 8 << code].replicate(8 >> code))
    return result


class LoadEngine(Component):
    """Memory to scratchpad. `outstanding` blocks may be on their way."""

    def __init__(self, geometry: Geometry, block_bytes: int, outstanding: int, *, overlaps: bool = False) -> None:
        self.geometry = geometry
        self.block_bytes = block_bytes
        self.outstanding = outstanding
        self.overlaps = overlaps
        super().__init__(
            {
                "valid": In(1),
                "words": In(data.ArrayLayout(64, word_count(Unit.LOAD))),
                "values": In(data.ArrayLayout(64, value_count(Unit.LOAD))),
                "accept": Out(1),
                "done": Out(1),
                "is_misplaced": Out(1),
                "readers": Out(read_signature(geometry)).array(2),
                "writer": Out(write_signature(geometry)),
                "memory": Out(load_signature(block_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        lane_count = g.lane_count
        words, values = list(self.words), list(self.values)
        views = {kind: View(kind, words, values) for kind in (isa.Load, isa.LoadIndexed)}
        transfer = _Transfer(m, g, ("tile", "index", "mask"))
        walker = transfer.walker
        latch, start = Signal(), Signal()
        fill = Signal(64)
        with m.If(latch), m.Switch(self.words[0][0:8]):
            for kind, view in views.items():
                with m.Case(kind.opcode):
                    transfer.latch(view, bounded=True)
                    size = size_of(m, view.field("dtype"), f"{kind.mnemonic}_fill_size")
                    m.d.sync += fill.eq(repeated(m, size, view.register("fill"), f"{kind.mnemonic}_fill"))
        transfer.connect_walker(start)
        readers = {}
        for number, name in enumerate(("index", "mask")):
            reader = TileReader(g, DEPTH)
            instantiate(m, f"reader_{name}", reader)
            readers[name] = reader
            transfer.connect_tile(reader, name, start)
            connect_reader(m, reader, self.readers[number])
            m.d.comb += reader.is_flag.eq(name == "mask")
        writer = TileWriter(g)
        instantiate(m, "writer", writer)
        receiver = Receiver(m, transfer, writer, start, fill) if self.overlaps else None
        if receiver is None:
            transfer.connect_tile(writer, "tile", start)
        connect_writer(m, writer, self.writer)
        m.d.comb += writer.wanted.eq((1 << lane_count) - 1)

        # ------------------------------------------------------------------------------------- asking

        offset_bits = (self.block_bytes - 1).bit_length()
        addresses = [Signal(ADDRESS_BITS, name=f"address_{n}", reset_less=True) for n in range(lane_count)]
        left, holds = Signal(lane_count), Signal()
        entry_bits = lane_count * (1 + offset_bits) + 2
        m.submodules.asked = asked = SyncFIFOBuffered(width=entry_bits, depth=self.outstanding)
        m.submodules.arrived = arrived = SyncFIFOBuffered(width=8 * self.block_bytes, depth=self.outstanding)
        credits = Signal(range(self.outstanding + 1), init=self.outstanding)
        first = first_set(m, left, "first")
        block = wire(m, Array(address[offset_bits:] for address in addresses)[first], "block")
        same = wire(m, Cat(left[n] & (a[offset_bits:] == block) for n, a in enumerate(addresses)), "in_this_block")
        rest = wire(m, left & ~same, "left_after_this_block")
        is_empty = ~left.any()
        asks = wire(m, holds & asked.w_rdy & (is_empty | (credits.any() & self.memory.ready)), "asks")
        finishes = wire(m, asks & ~rest.any(), "finishes")
        m.d.comb += [
            self.memory.valid.eq(holds & asked.w_rdy & ~is_empty & credits.any()),
            self.memory.address.eq(Cat(Const(0, offset_bits), block)),
            asked.w_en.eq(asks),
            asked.w_data.eq(Cat(same, ~rest.any(), ~is_empty, *(address[0:offset_bits] for address in addresses))),
            arrived.w_en.eq(self.memory.data_valid),
            arrived.w_data.eq(self.memory.data),
        ]
        m.d.sync += credits.eq(credits - (asks & ~is_empty) + (arrived.r_en & arrived.r_rdy))
        with m.If(asks):
            m.d.sync += [left.eq(rest), holds.eq(rest.any())]

        # The next vector's addresses: at once, or, indexed, one a cycle.
        lanes = transfer.valid_lanes()
        serial = Signal(range(lane_count + 1))
        index_there = ~transfer.is_tile["index"] | readers["index"].available.any()
        mask_there = ~(transfer.is_masked & transfer.is_tile["mask"]) | readers["mask"].available.any()
        masked = wire(
            m,
            Mux(
                transfer.is_masked,
                Cat(
                    Mux(transfer.is_tile["mask"], readers["mask"].data[n][0], transfer.scalar["mask"][0])
                    for n in range(lane_count)
                ),
                (1 << lane_count) - 1,
            ),
            "unmasked_lanes",
        )
        takes = Signal()
        with m.If(takes):
            m.d.comb += walker.next.eq(1)
            m.d.sync += [holds.eq(1), left.eq(lanes & Mux(transfer.is_indexed, masked, (1 << lane_count) - 1))]
            for reader in readers.values():
                m.d.comb += reader.release.eq(reader.available.any())
        for n, address in enumerate(addresses):
            with m.If(takes & ~transfer.is_indexed):
                m.d.sync += address.eq(walker.address + walker.step * n)
        chosen_index = Array(readers["index"].data[n] for n in range(lane_count))[serial]
        displacement = wire(
            m,
            (
                Mux(
                    transfer.is_tile["index"],
                    _signed_index(m, transfer.tile_size["index"], chosen_index, "index_of_lane"),
                    transfer.scalar["index"],
                ).as_signed()
                * transfer.scale
            )[0:ADDRESS_BITS],
            "displacement",
        )
        running_address = Signal(ADDRESS_BITS)
        with m.FSM(name="addresses"):
            with m.State("WAIT"):
                m.d.sync += [serial.eq(0), running_address.eq(walker.address)]
                with m.If(walker.valid & ~start):
                    with m.If(~transfer.is_indexed):
                        m.d.comb += takes.eq(~holds | finishes)
                    with m.Elif((~holds | finishes) & index_there & mask_there):
                        m.next = "SERIAL"
            with m.State("SERIAL"):
                with m.If(serial == lane_count):
                    m.d.comb += takes.eq(1)
                    m.next = "WAIT"
                with m.Else():
                    m.d.sync += [serial.eq(serial + 1), running_address.eq(running_address + walker.step)]
                    with m.Switch(serial):
                        for n, address in enumerate(addresses):
                            with m.Case(n):
                                m.d.sync += address.eq(running_address + displacement)

        # -------------------------------------------------------------------------------------- receiving

        entry = asked.r_data
        here, is_last, has_data = entry[0:lane_count], entry[lane_count], entry[lane_count + 1]
        stage = [Signal(64, name=f"stage_{n}", reset_less=True) for n in range(lane_count)]
        whole = []
        block_words = [arrived.r_data[64 * n : 64 * (n + 1)] for n in range(self.block_bytes // 8)]
        for n in range(lane_count):
            begin = lane_count + 2 + n * offset_bits
            offset = entry[begin : begin + offset_bits]
            word = wire(
                m, Array(block_words)[offset[3:]] if len(block_words) > 1 else block_words[0], f"block_word_{n}"
            )
            element = wire(m, word >> Cat(Const(0, 3), offset[0:3]), f"arrived_{n}")
            whole.append(wire(m, Mux(here[n], element, stage[n]), f"whole_{n}"))
            m.d.comb += writer.data[n].eq(whole[n])
        is_awaited = receiver.works if receiver else Const(1, 1)
        there = wire(m, is_awaited & asked.r_rdy & (~has_data | arrived.r_rdy), "part_is_there")
        m.d.comb += writer.valid.eq(there & is_last)
        moves = wire(m, there & (~is_last | writer.ready), "part_moves")
        m.d.comb += [asked.r_en.eq(moves), arrived.r_en.eq(moves & has_data)]
        begins, fill_there = (receiver.begins, receiver.fill) if receiver else (start, fill)
        for n in range(lane_count):
            with m.If(begins | (moves & is_last)):
                m.d.sync += stage[n].eq(fill_there)
            with m.Elif(moves):
                m.d.sync += stage[n].eq(whole[n])

        size_mask = wire(m, ((1 << transfer.size) - 1)[0:3], "size_mask")
        m.d.comb += self.is_misplaced.eq(
            (asks & Cat(left[n] & (a[0:3] & size_mask).any() for n, a in enumerate(addresses)).any())
            | writer.misplaced
            | readers["index"].misplaced
            | readers["mask"].misplaced
        )
        if receiver is not None:
            m.d.comb += self.done.eq(writer.is_written)
        with m.FSM(name="engine"):
            with m.State("IDLE"), m.If(self.valid):
                m.d.comb += [self.accept.eq(1), latch.eq(1)]
                m.next = "PREPARE"
            with m.State("PREPARE"), m.If(~transfer.squeeze()):
                if receiver is None:
                    m.d.comb += start.eq(1)
                    m.next = "RUN"
                else:
                    with m.If(~transfer.widen("tile") & receiver.may_take(transfer.is_indexed)):
                        m.d.comb += start.eq(1)
                        m.next = "RUN"
            with m.State("RUN"):
                if receiver is None:
                    with m.If(writer.is_idle):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
                else:  # all is asked for
                    with m.If(~walker.valid & ~holds):
                        m.next = "IDLE"
        return m


class Receiver:
    """What is on its way into the scratchpad: tiles of several instructions, in order.

    `works`: the writer has a tile to fill; `begins`: it begins one, with `fill` outside its bounds."""

    def __init__(self, m: Module, transfer: _Transfer, writer: TileWriter, start: Value, fill: Value) -> None:
        bits = transfer.geometry.address_bits
        layout = data.StructLayout(
            {
                "extents": data.ArrayLayout(16, 4),
                "base": bits,
                "strides": data.ArrayLayout(bits, 4),
                "size": 2,
                "fill": 64,
            }
        )
        m.submodules.tiles = self.queue = queue = SyncFIFOBuffered(width=layout.size, depth=TILES_ON_THEIR_WAY)
        tile = data.View(layout, queue.r_data)
        self.works, self.begins, self.fill = Signal(name="receives"), Signal(name="begins_tile"), Signal(64)
        self.unfinished = Signal(range(TILES_ON_THEIR_WAY + 3), name="tiles_unfinished")
        ends = wire(m, writer.valid & writer.ready & writer.may_start, "tile_ends")
        kept = Signal(64, name="fill_of_tile", reset_less=True)
        m.d.comb += [
            queue.w_en.eq(start),
            queue.w_data.eq(
                Cat(*transfer.shape, transfer.tile_base["tile"], *transfer.tile_strides["tile"],
                    transfer.tile_size["tile"], fill)
            ),
            self.begins.eq(queue.r_rdy & (~self.works | ends)),
            queue.r_en.eq(self.begins),
            self.fill.eq(Mux(self.begins, tile.fill, kept)),
            writer.start.eq(self.begins),
            writer.size.eq(tile["size"]),
            writer.base.eq(tile.base),
            *(writer.shape[d].eq(tile.extents[d]) for d in range(4)),
            *(writer.strides[d].eq(tile.strides[d]) for d in range(4)),
        ]  # fmt: skip
        with m.If(self.begins):
            m.d.sync += [self.works.eq(1), kept.eq(tile.fill)]
        with m.Elif(ends):
            m.d.sync += self.works.eq(0)
        m.d.sync += self.unfinished.eq(self.unfinished + start - writer.is_written)

    def may_take(self, is_indexed: Value) -> Value:
        """Return whether an instruction may start: there is room, and what it may read of earlier tiles is there."""
        return self.queue.w_rdy & (~is_indexed | ~self.unfinished.any())


def connect_reader(m: Module, reader: TileReader, port: Any) -> None:
    """A reader's own port is one of the engine's."""
    m.d.comb += [
        port.valid.eq(reader.port.valid),
        port.row.eq(reader.port.row),
        reader.port.ready.eq(port.ready),
        reader.port.data.eq(port.data),
    ]


def connect_writer(m: Module, writer: TileWriter, port: Any) -> None:
    """A writer's own port is the engine's."""
    m.d.comb += [
        port.valid.eq(writer.port.valid),
        port.row.eq(writer.port.row),
        port.data.eq(writer.port.data),
        port.mask.eq(writer.port.mask),
        writer.port.ready.eq(port.ready),
    ]


class StoreEngine(Component):
    """Scratchpad to memory, and atomics. `outstanding` requests may wait for their answers."""

    def __init__(self, geometry: Geometry, block_bytes: int, outstanding: int, *, overlaps: bool = False) -> None:
        self.geometry = geometry
        self.block_bytes = block_bytes
        self.outstanding = outstanding
        self.overlaps = overlaps
        super().__init__(
            {
                "valid": In(1),
                "words": In(data.ArrayLayout(64, word_count(Unit.STORE))),
                "values": In(data.ArrayLayout(64, value_count(Unit.STORE))),
                "accept": Out(1),
                "done": Out(1),
                "is_misplaced": Out(1),
                "readers": Out(read_signature(geometry)).array(4),
                "writer": Out(write_signature(geometry)),
                "memory": Out(store_signature(block_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        lane_count = g.lane_count
        every = (1 << lane_count) - 1
        words, values = list(self.words), list(self.values)
        kinds: tuple[type[Instruction], ...] = (isa.Store, isa.StoreIndexed, isa.Atomic)
        views = {kind: View(kind, words, values) for kind in kinds}
        streams = ("tile", "index", "mask", "other")
        transfer = _Transfer(m, g, (*streams, "previous"))
        walker = transfer.walker
        latch, start = Signal(), Signal()
        is_atomic, function, dtype = Signal(), Signal(4), Signal(4)
        with m.If(latch), m.Switch(self.words[0][0:8]):
            for kind, view in views.items():
                with m.Case(kind.opcode):
                    transfer.latch(view, bounded=kind is not isa.Atomic)
                    m.d.sync += [is_atomic.eq(kind is isa.Atomic), dtype.eq(view.field("dtype"))]
                    if kind is isa.Atomic:
                        m.d.sync += function.eq(view.field("function"))
        transfer.connect_walker(start)
        readers = {}
        for number, name in enumerate(streams):
            reader = TileReader(g, DEPTH)
            instantiate(m, f"reader_{name}", reader)
            readers[name] = reader
            transfer.connect_tile(reader, name, start)
            connect_reader(m, reader, self.readers[number])
            m.d.comb += reader.is_flag.eq(name == "mask")
        writer = TileWriter(g)
        instantiate(m, "writer", writer)
        transfer.connect_tile(writer, "previous", start)
        connect_writer(m, writer, self.writer)

        offset_bits = (self.block_bytes - 1).bit_length()
        addresses = [Signal(ADDRESS_BITS, name=f"address_{n}", reset_less=True) for n in range(lane_count)]
        elements = [Signal(64, name=f"element_{n}", reset_less=True) for n in range(lane_count)]
        others = [Signal(64, name=f"other_{n}", reset_less=True) for n in range(lane_count)]
        old = [Signal(64, name=f"old_{n}", reset_less=True) for n in range(lane_count)]
        left, wanted, awaited = Signal(lane_count), Signal(lane_count), Signal(lane_count)
        lanes = transfer.valid_lanes()
        there = wire(
            m, Cat(~transfer.is_tile[name] | readers[name].available.any() for name in streams).all(), "vector_is_there"
        )
        unmasked = wire(
            m,
            Mux(
                transfer.is_masked,
                Cat(
                    Mux(transfer.is_tile["mask"], readers["mask"].data[n][0], transfer.scalar["mask"][0])
                    for n in range(lane_count)
                ),
                every,
            ),
            "unmasked_lanes",
        )

        first = first_set(m, left, "first")
        address = wire(m, Array(addresses)[first], "address_of_first")
        step = transfer.strides[3]
        distance = wire(m, Mux(step[-1], -step, step)[0:ADDRESS_BITS], "distance")
        together = wire(m, ~transfer.is_indexed & (distance >= (1 << transfer.size)), "blocks_together")
        same = wire(
            m,
            Cat(
                left[n] & Mux(together, a[offset_bits:] == address[offset_bits:], first == n)
                for n, a in enumerate(addresses)
            ),
            "in_this_block",
        )
        rest = wire(m, left & ~same, "left_after_this_block")
        block, mask = merged(m, self.block_bytes, [a[0:offset_bits] for a in addresses], elements, same, transfer.size)
        owed = Signal(range(self.outstanding + 1))
        sends = wire(m, self.memory.valid & self.memory.ready, "sends")
        m.d.sync += owed.eq(owed + sends - self.memory.answer_valid)
        m.d.comb += [
            self.memory.address.eq(Mux(is_atomic, address, Cat(Const(0, offset_bits), address[offset_bits:]))),
            self.memory.data.eq(block),
            self.memory.mask.eq(mask),
            self.memory.is_atomic.eq(is_atomic),
            self.memory.function.eq(function),
            self.memory.dtype.eq(dtype),
            self.memory.operand.eq(Array(elements)[first]),
            self.memory.other.eq(Array(others)[first]),
        ]
        first_awaited = first_set(m, awaited, "first_awaited")
        with m.If(self.memory.answer_valid & is_atomic):
            m.d.sync += awaited.eq(awaited & (awaited - 1))
            for n in range(lane_count):
                with m.If(first_awaited == n):
                    m.d.sync += old[n].eq(self.memory.answer)
        m.d.comb += [*(writer.data[n].eq(old[n]) for n in range(lane_count)), writer.wanted.eq(wanted)]

        serial = Signal(range(lane_count + 1))
        running_address = Signal(ADDRESS_BITS)
        indices = [Signal(ADDRESS_BITS, name=f"index_{n}", reset_less=True) for n in range(lane_count)]
        displacement = wire(m, (Array(indices)[serial].as_signed() * transfer.scale)[0:ADDRESS_BITS], "displacement")
        take, last = Signal(), Signal()
        with m.If(take):
            m.d.comb += walker.next.eq(1)
            chosen = wire(m, lanes & unmasked, "chosen_lanes")
            m.d.sync += [
                left.eq(chosen),
                wanted.eq(chosen),
                awaited.eq(Mux(is_atomic, chosen, 0)),
                last.eq(walker.last),
            ]
            m.d.sync += [serial.eq(0), running_address.eq(walker.address)]
            for name, reader in readers.items():
                m.d.comb += reader.release.eq(transfer.is_tile[name])
                m.d.comb += reader.slot.eq(reader.release)
            for n in range(lane_count):
                index = _signed_index(m, transfer.tile_size["index"], readers["index"].data[n], f"index_read_{n}")
                m.d.sync += [
                    addresses[n].eq(walker.address + walker.step * n),
                    elements[n].eq(Mux(transfer.is_tile["tile"], readers["tile"].data[n], transfer.scalar["tile"])),
                    others[n].eq(Mux(transfer.is_tile["other"], readers["other"].data[n], transfer.scalar["other"])),
                    indices[n].eq(Mux(transfer.is_tile["index"], index, transfer.scalar["index"])),
                ]
        size_mask = wire(m, ((1 << transfer.size) - 1)[0:3], "size_mask")
        m.d.comb += self.is_misplaced.eq(
            (sends & (address[0:3] & size_mask).any())
            | writer.misplaced
            | Cat(reader.misplaced for reader in readers.values()).any()
        )
        # A pipelined core's store ends with the answer to its last request; where that is no request of its last
        # vector, and for atomics, once no answer is owed.
        ends_by_itself = Signal()
        m.d.comb += self.done.eq(ends_by_itself)
        if self.overlaps:
            m.submodules.endings = endings = SyncFIFOBuffered(width=1, depth=self.outstanding + 2)
            ends_with_answer = wire(m, last & ~rest.any() & ~is_atomic, "ends_with_answer")
            m.d.comb += [
                endings.w_en.eq(sends),
                endings.w_data.eq(ends_with_answer),
                endings.r_en.eq(self.memory.answer_valid),
                self.done.eq(ends_by_itself | (self.memory.answer_valid & endings.r_data)),
            ]
        with m.FSM(name="engine"):
            with m.State("IDLE"), m.If(self.valid):
                m.d.comb += [self.accept.eq(1), latch.eq(1)]
                m.next = "PREPARE"
            with m.State("PREPARE"), m.If(~transfer.squeeze()):
                waits = transfer.widen("tile") | (is_atomic & owed.any()) if self.overlaps else Const(0, 1)
                with m.If(~waits):
                    m.d.comb += start.eq(1)
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(there):
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += take.eq(1)
                m.next = "SEND"
                with m.If(transfer.is_indexed):
                    m.next = "ADDRESSES"
            with m.State("ADDRESSES"):
                m.d.sync += [serial.eq(serial + 1), running_address.eq(running_address + transfer.strides[3])]
                with m.Switch(serial):
                    for n, of_lane in enumerate(addresses):
                        with m.Case(n):
                            m.d.sync += of_lane.eq(running_address + displacement)
                with m.If(serial == lane_count - 1):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.memory.valid.eq(left.any() & (owed < self.outstanding))
                with m.If(sends & ~take):
                    m.d.sync += left.eq(rest)
                with m.If(~left.any() | (sends & ~rest.any())):
                    m.next = "NEXT"
                    with m.If(is_atomic):
                        m.next = "ANSWERS"
                    if self.overlaps:
                        with m.Elif(~transfer.is_indexed & ~last & there):
                            m.d.comb += take.eq(1)
                            m.next = "SEND"
                        with m.Elif(last & sends):  # its answer ends the instruction
                            m.next = "IDLE"
            with m.State("ANSWERS"), m.If(~awaited.any()):
                m.next = "OLD"
            with m.State("OLD"):
                m.d.comb += writer.valid.eq(1)
                with m.If(writer.ready):
                    m.next = "NEXT"
            with m.State("NEXT"):
                with m.If(~last):
                    m.next = "TAKE"
                    with m.If(~there):
                        m.next = "WAIT"
                with m.Elif(~owed.any() & writer.is_idle):
                    m.d.comb += ends_by_itself.eq(1)
                    m.next = "IDLE"
        return m
