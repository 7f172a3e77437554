"""The pipelined matrix engine: operands stream in, products run and sums go out at the same time.

Five parts work on their own, each on its own block or instruction:

- the front takes an instruction and holds it back while its operands meet sums that are not written yet;
- two `OperandStream`s fetch blocks of `lane_count` steps of k, a block ahead;
- the steps: one a cycle (four for float32) and tile; `accumulator_interleave` output tiles, neighbours along n, take
  turns; k ascends, so each output is the sum its definition names;
- sums to start from are read into the cells while the group before computes;
- sums go from the cells' second registers to the scratchpad.

A group that follows starts without a pause. An instruction that accumulates onto the single group of the one before
goes on with the sums in the array, unless another engine wrote where they lie.
"""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, Signature

from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit
from tapeout.numerics.dtypes import DType
from tapeout.rtl.arithmetic import register, wire
from tapeout.rtl.descriptor import View, value_count, word_count
from tapeout.rtl.matrix import FACTOR, taken_apart
from tapeout.rtl.pipelined.cell import ADD_STAGE, PipelinedCell, StreamLine, write_stage
from tapeout.rtl.pipelined.regions import InFlight, Region, region_of
from tapeout.rtl.scratchpad import Geometry, RowReader, RowWriter, read_signature, write_signature
from tapeout.rtl.sharing import instantiate
from tapeout.rtl.tiles import lanes_below
from tapeout.rtl.vector import size_of

EXTENT_NAMES = ("batch", "m", "n", "k")
EXTENTS = data.StructLayout(dict.fromkeys(EXTENT_NAMES, 16))
HANDED_OVER = 3
"""Instructions that may wait in front of each part."""


def tile_layout(address_bits: int) -> data.StructLayout:
    """A tile of a product: its strides, in bytes, are those along the batch, its lines (m or n) and its elements (of
    operands: k; of sums: n)."""
    return data.StructLayout(
        {
            "extents": EXTENTS,
            "base": address_bits,
            "batch_stride": address_bits,
            "line_stride": address_bits,
            "element_stride": address_bits,
        }
    )


class Places:
    """Counters over an instruction's blocks: batches, rows of tiles, groups of tiles along n, and blocks of k (if
    there is a depth)."""

    def __init__(self, m: Module, name: str, rows: int, width: int, depth: int | None) -> None:
        self.m = m
        self.rows, self.width, self.depth = rows, width, depth
        self.extent = {x: Signal(16, name=f"{name}_extent_{x}") for x in EXTENT_NAMES}
        self.at = {x: Signal(16, name=f"{name}_at_{x}") for x in EXTENT_NAMES}
        left = {x: wire(m, (self.extent[x] - self.at[x])[0:16], f"{name}_left_{x}") for x in EXTENT_NAMES}
        self.rows_here = wire(m, Mux(left["m"] > rows, rows, left["m"])[0:8], f"{name}_rows_here")
        self.columns_here = wire(m, Mux(left["n"] > width, width, left["n"])[0:12], f"{name}_columns_here")
        self.k_ends: Value = Const(1, 1)
        self.steps_here: Value = Const(1, 1)
        if depth is not None:
            self.k_ends = wire(m, left["k"] <= depth, f"{name}_k_ends")
            self.steps_here = wire(m, Mux(self.k_ends, left["k"], depth)[0:8], f"{name}_steps_here")
        self.n_ends = wire(m, self.k_ends & (left["n"] <= width), f"{name}_n_ends")
        self.m_ends = wire(m, self.n_ends & (left["m"] <= rows), f"{name}_m_ends")
        self.is_last = wire(m, self.m_ends & (left["batch"] <= 1), f"{name}_is_last")

    def begin(self, extents: Any) -> None:
        """Go to an instruction's first block, now."""
        self.m.d.sync += [self.extent[x].eq(extents[x]) for x in EXTENT_NAMES]
        self.m.d.sync += [self.at[x].eq(0) for x in EXTENT_NAMES]

    def go_on(self) -> None:
        """Go to the next block, now."""
        m, at = self.m, self.at
        if self.depth is not None:
            m.d.sync += at["k"].eq(Mux(self.k_ends, 0, at["k"] + self.depth))
        with m.If(self.k_ends):
            m.d.sync += at["n"].eq(Mux(self.n_ends, 0, at["n"] + self.width))
        with m.If(self.n_ends):
            m.d.sync += at["m"].eq(Mux(self.m_ends, 0, at["m"] + self.rows))
        with m.If(self.m_ends):
            m.d.sync += at["batch"].eq(at["batch"] + 1)


class OperandStream(Component):
    """Blocks of one operand, fetched a block ahead.

    Takes instructions (`valid`, `ready`); `is_full`: the block to be read is there; `release` gives it back. `values`
    are the lines' elements at `step` of it. Its lines are rows of lhs, or the columns of `tile_count` tiles of rhs.
    A vector goes along k, or, if `is_across`, along the lines of a tile.
    """

    def __init__(self, geometry: Geometry, rows: int, width: int, *, side: str, tile_count: int) -> None:
        self.geometry = geometry
        self.rows, self.width, self.side, self.tile_count = rows, width, side, tile_count
        self.line_count = rows if side == "lhs" else width
        super().__init__(
            {
                "valid": In(1),
                "ready": Out(1),
                "tile": In(tile_layout(geometry.address_bits)),
                "size": In(2),
                "is_across": In(1),
                "is_full": Out(1),
                "release": In(1),
                "step": In(range(geometry.lane_count)),
                "values": Out(data.ArrayLayout(32, self.line_count)),
                "misplaced": Out(1),
                "port": Out(read_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g, depth = self.geometry, self.geometry.lane_count
        lines_of_tile = self.line_count // self.tile_count
        tile_bits, step_bits = (self.tile_count - 1).bit_length(), (depth - 1).bit_length()
        index_bits = max((self.line_count - 1).bit_length(), tile_bits + step_bits, 1)
        places = Places(m, self.side, self.rows, self.width, depth)
        bits = g.address_bits
        size, is_across = Signal(2), Signal()
        stride = {x: Signal(bits, name=f"{x}_stride") for x in ("batch", "line", "element")}
        start = {x: Signal(bits, name=f"{x}_start") for x in ("batch", "line", "k")}
        cursor, outer_cursor = Signal(bits), Signal(bits)
        works, half, used, full = Signal(), Signal(), Signal(2), Signal(2)
        outer, inner = Signal(8), Signal(8)
        """Line; or (across) step of k and tile."""

        lines_here = places.rows_here if self.side == "lhs" else places.columns_here
        tiles_here = wire(m, ((lines_here + lines_of_tile - 1) >> (lines_of_tile - 1).bit_length())[0:8], "tiles_here")
        left_in_tile = wire(m, (lines_here - inner * lines_of_tile)[0:12], "left_in_tile")
        across_count = Mux(left_in_tile > lines_of_tile, lines_of_tile, left_in_tile)
        count = wire(m, Mux(is_across, across_count, places.steps_here)[0 : len(Const(g.lane_count))], "count")
        inner_ends = wire(m, ~is_across | (inner + 1 >= tiles_here), "inner_ends")
        outer_ends = Mux(is_across, outer + 1 >= places.steps_here, outer + 1 >= lines_here)
        block_ends = wire(m, inner_ends & outer_ends, "block_ends")
        m.submodules.fetch = fetch = RowReader(g, index_bits + 3)
        step = wire(m, Mux(is_across, stride["line"], stride["element"]), "step_between")
        index = Mux(is_across, Cat(inner[0:tile_bits], outer[0:step_bits], Const(0, index_bits))[0:index_bits],
                    Cat(outer, Const(0, index_bits))[0:index_bits])  # fmt: skip
        m.d.comb += [
            self.ready.eq(~works),
            fetch.valid.eq(works & ~used.bit_select(half, 1)),
            fetch.size.eq(size),
            fetch.tag_in.eq(Cat(half, block_ends, is_across, index)),
            fetch.wanted.eq(lanes_below(m, count, g.lane_count, "lanes_wanted")),
            *(fetch.addresses[n].eq(cursor + step * n) for n in range(g.lane_count)),
            self.port.valid.eq(fetch.port.valid),
            self.port.row.eq(fetch.port.row),
            fetch.port.ready.eq(self.port.ready),
            fetch.port.data.eq(self.port.data),
            self.misplaced.eq(fetch.misplaced),
        ]
        asks = wire(m, fetch.valid & fetch.ready, "asks")

        # Where the next block begins.
        block = depth.bit_length() - 1
        jump = self.line_count.bit_length() - 1
        onward = {x: Signal(bits, name=f"onward_{x}") for x in start}
        m.d.comb += [onward[x].eq(start[x]) for x in start]
        with m.If(~places.k_ends):
            m.d.comb += onward["k"].eq(start["k"] + (stride["element"] << block))
        with m.Else():
            with m.If(places.m_ends):
                m.d.comb += [onward["batch"].eq(start["batch"] + stride["batch"]), onward["line"].eq(onward["batch"])]
            with m.Elif(places.n_ends):
                m.d.comb += onward["line"].eq(
                    start["line"] + (stride["line"] << jump) if self.side == "lhs" else start["batch"]
                )
            with m.Elif(Const(self.side == "rhs", 1)):
                m.d.comb += onward["line"].eq(start["line"] + (stride["line"] << jump))
            m.d.comb += onward["k"].eq(onward["line"])
        with m.If(asks):
            with m.If(block_ends):
                m.d.sync += [start[x].eq(onward[x]) for x in start]
                m.d.sync += [cursor.eq(onward["k"]), outer_cursor.eq(onward["k"]), outer.eq(0), inner.eq(0)]
                m.d.sync += [half.eq(~half), works.eq(~places.is_last)]
                places.go_on()
            with m.Elif(inner_ends):
                onward_line = wire(
                    m, (outer_cursor + Mux(is_across, stride["element"], stride["line"]))[0:bits], "next"
                )
                m.d.sync += [outer.eq(outer + 1), inner.eq(0), cursor.eq(onward_line), outer_cursor.eq(onward_line)]
            with m.Else():
                tile_jump = (lines_of_tile - 1).bit_length()
                m.d.sync += [inner.eq(inner + 1), cursor.eq(cursor + (stride["line"] << tile_jump))]
        with m.If(self.valid & self.ready):
            places.begin(self.tile.extents)
            m.d.sync += [
                works.eq(1),
                size.eq(self.size),
                is_across.eq(self.is_across),
                *(stride[x].eq(self.tile[f"{x}_stride"]) for x in stride),
                *(start[x].eq(self.tile.base) for x in start),
                cursor.eq(self.tile.base),
                outer_cursor.eq(self.tile.base),
                outer.eq(0),
                inner.eq(0),
            ]

        # Halves: used from the last vector asked for on, full once it is there, until they are given back.
        there_half, there_ends, there_across = (fetch.tag[n] for n in range(3))
        there_index = fetch.tag[3:]
        read_half = Signal()
        gives_back = Mux(self.release, Cat(~read_half, read_half), 0)
        taken = Mux(asks & block_ends, Cat(~half, half), 0)
        filled = Mux(fetch.done & there_ends, Cat(~there_half, there_half), 0)
        m.d.sync += [used.eq((used | taken) & ~gives_back), full.eq((full | filled) & ~gives_back)]
        m.d.sync += read_half.eq(read_half ^ self.release)
        m.d.comb += self.is_full.eq(full.bit_select(read_half, 1))
        one_step = wire(m, (Const(1, depth) << there_index[tile_bits : tile_bits + step_bits])[0:depth], "step_there")
        vector = wire(m, Cat(fetch.data[k][0:32] for k in range(depth)), "vector")
        for number in range(self.line_count):
            tile, place = divmod(number, lines_of_tile)
            is_tile = there_index[0:tile_bits] == tile if tile_bits else Const(1, 1)
            line = StreamLine(depth)
            instantiate(m, f"line_{number}", line)
            across = Mux(is_tile & fetch.lanes[place], one_step, 0)
            along = Mux(there_index == number, fetch.lanes, 0)
            m.d.comb += [
                line.fills.eq(there_half),
                line.mask.eq(Mux(there_across, across, along)),
                line.by_vector.eq(~there_across),
                line.vector.eq(vector),
                line.element.eq(fetch.data[place][0:32]),
                line.reads.eq(read_half),
                line.step.eq(self.step),
                self.values[number].eq(line.value),
            ]
        return m


class SumPlaces(Component):
    """The vectors of an instruction's sums, group by group: a row of one tile each.

    Takes instructions (`valid`, `ready`). While `works`, `group` is a group's turn; `next` goes on to the next vector,
    and with the last one (`group_ends`) to the next group."""

    module_name = "sum_places"

    def __init__(self, geometry: Geometry, rows: int, columns: int, interleave: int) -> None:
        self.geometry = geometry
        self.rows, self.columns, self.interleave = rows, columns, interleave
        super().__init__(
            {
                "valid": In(1),
                "ready": Out(1),
                "tile": In(tile_layout(geometry.address_bits)),
                "works": Out(1),
                "next": In(1),
                "address": Out(geometry.address_bits),
                "step": Out(geometry.address_bits),
                "count": Out(range(geometry.lane_count + 1)),
                "row": Out(range(max(rows, 2))),
                "tile_number": Out(range(max(interleave, 2))),
                "group_ends": Out(1),
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, width = self.geometry.address_bits, self.columns * self.interleave
        places = Places(m, "sums", self.rows, width, None)
        stride = {x: Signal(bits, name=f"{x}_stride") for x in ("batch", "line", "element")}
        start = {x: Signal(bits, name=f"{x}_start") for x in ("batch", "line", "group")}
        cursor, row_cursor = Signal(bits), Signal(bits)
        works, row, tile = Signal(), Signal(8), Signal(8)
        left = wire(m, (places.columns_here - tile * self.columns)[0:12], "left_in_group")
        tile_ends = wire(m, left <= self.columns, "is_last_tile")
        m.d.comb += [
            self.ready.eq(~works),
            self.works.eq(works),
            self.address.eq(cursor),
            self.step.eq(stride["element"]),
            self.count.eq(Mux(tile_ends, left, self.columns)),
            self.row.eq(row),
            self.tile_number.eq(tile),
            self.group_ends.eq(tile_ends & (row + 1 >= places.rows_here)),
            self.is_last.eq(places.is_last),
        ]
        onward = {x: Signal(bits, name=f"onward_{x}") for x in start}
        m.d.comb += [onward[x].eq(start[x]) for x in start]
        with m.If(places.m_ends):
            m.d.comb += [onward["batch"].eq(start["batch"] + stride["batch"]), onward["line"].eq(onward["batch"])]
            m.d.comb += onward["group"].eq(onward["batch"])
        with m.Elif(places.n_ends):
            m.d.comb += onward["line"].eq(start["line"] + (stride["line"] << (self.rows.bit_length() - 1)))
            m.d.comb += onward["group"].eq(onward["line"])
        with m.Else():
            m.d.comb += onward["group"].eq(start["group"] + (stride["element"] << (width.bit_length() - 1)))
        with m.If(self.next):
            with m.If(self.group_ends):
                m.d.sync += [start[x].eq(onward[x]) for x in start]
                m.d.sync += [cursor.eq(onward["group"]), row_cursor.eq(onward["group"]), row.eq(0), tile.eq(0)]
                m.d.sync += works.eq(~places.is_last)
                places.go_on()
            with m.Elif(tile_ends):
                next_row = wire(m, (row_cursor + stride["line"])[0:bits], "next_row")
                m.d.sync += [row.eq(row + 1), tile.eq(0), cursor.eq(next_row), row_cursor.eq(next_row)]
            with m.Else():
                jump = self.columns.bit_length() - 1
                m.d.sync += [tile.eq(tile + 1), cursor.eq(cursor + (stride["element"] << jump))]
        with m.If(self.valid & self.ready):
            places.begin(self.tile.extents)
            m.d.sync += [
                works.eq(1),
                *(stride[x].eq(self.tile[f"{x}_stride"]) for x in stride),
                *(start[x].eq(self.tile.base) for x in start),
                cursor.eq(self.tile.base),
                row_cursor.eq(self.tile.base),
                row.eq(0),
                tile.eq(0),
            ]
        return m


STEP_LAYOUT = data.StructLayout({"extents": EXTENTS, "left_type": 4, "right_type": 4, "loads": 1, "keeps": 1})
"""What the steps of an instruction need to know: `loads`: sums to start from are read; `keeps`: they are in the
array."""


class MatrixEngine(Component):
    """See the module. `others`: rows that other engines write now; `wakes`: one of them needs the engine's clock."""

    def __init__(self, geometry: Geometry, rows: int, columns: int, interleave: int, others: int) -> None:
        self.geometry = geometry
        self.rows, self.columns, self.interleave = rows, columns, interleave
        other = Signature({"valid": Out(1), "row": Out(geometry.row_bits)})
        super().__init__(
            {
                "valid": In(1),
                "words": In(data.ArrayLayout(64, word_count(Unit.MATRIX))),
                "values": In(data.ArrayLayout(64, value_count(Unit.MATRIX))),
                "accept": Out(1),
                "done": Out(1),
                "is_misplaced": Out(1),
                "wakes": Out(1),
                "others": In(other).array(others),
                "readers": Out(read_signature(geometry)).array(3),
                "writer": Out(write_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g, width = self.geometry, self.columns * self.interleave
        m.submodules.lhs = lhs = OperandStream(g, self.rows, width, side="lhs", tile_count=1)
        m.submodules.rhs = rhs = OperandStream(g, self.rows, width, side="rhs", tile_count=self.interleave)
        m.submodules.read_places = read_places = SumPlaces(g, self.rows, self.columns, self.interleave)
        m.submodules.write_places = write_places = SumPlaces(g, self.rows, self.columns, self.interleave)
        m.submodules.sums_in = sums_in = RowReader(g, 12)
        m.submodules.sums_out = sums_out = RowWriter(g)
        units: tuple[Any, ...] = (lhs, rhs, sums_in)
        for port, unit in zip(self.readers, units, strict=True):
            m.d.comb += [
                port.valid.eq(unit.port.valid),
                port.row.eq(unit.port.row),
                unit.port.ready.eq(port.ready),
                unit.port.data.eq(port.data),
            ]
        m.d.comb += [
            self.writer.valid.eq(sums_out.port.valid),
            self.writer.row.eq(sums_out.port.row),
            self.writer.data.eq(sums_out.port.data),
            self.writer.mask.eq(sums_out.port.mask),
            sums_out.port.ready.eq(self.writer.ready),
            self.is_misplaced.eq(lhs.misplaced | rhs.misplaced | sums_in.misplaced | sums_out.misplaced),
        ]
        steps = self._front(m, lhs, rhs, read_places, write_places)
        starts_full, complete_busy = Signal(), Signal()
        """Sums to start from are in the cells; complete sums are, or will be, in the second registers."""
        stage = self._steps(m, steps, lhs, rhs, starts_full, complete_busy)
        cells = self._cells(m, lhs, rhs, steps, stage)
        self._sums_in(m, read_places, sums_in, cells, starts_full)
        self._sums_out(m, write_places, sums_out, cells, stage, complete_busy)
        return m

    # ------------------------------------------------------------------------------------------------- the front

    def _front(self, m: Module, lhs: Any, rhs: Any, read_places: Any, write_places: Any) -> Any:
        """Takes an instruction, finds its regions, and hands it to the parts once nothing stands against it. Gives the
        FIFO of the steps."""
        view = View(isa.MatrixMultiply, list(self.words), list(self.values))
        bits = self.geometry.address_bits
        pending, age = Signal(), Signal(2)
        extents = Signal(EXTENTS, name="pending_extents")
        size, accumulates = Signal(2, name="pending_size"), Signal(name="pending_accumulates")
        types = {side: Signal(4, name=f"pending_{side}_type") for side in ("lhs", "rhs")}
        base = {x: Signal(bits, name=f"pending_{x}_base") for x in ("accumulator", "lhs", "rhs")}
        strides = {x: [Signal(bits, name=f"pending_{x}_stride_{d}") for d in range(4)] for x in base}
        across = {"lhs": Signal(name="lhs_is_across"), "rhs": Signal(name="rhs_is_across")}
        m.d.comb += self.accept.eq(self.valid & ~pending)
        with m.If(self.accept):
            operand_size = size_of(m, view.field("lhs_dtype"), "operand_size")
            m.d.sync += [
                pending.eq(1),
                age.eq(0),
                *(extents[x].eq(extent) for x, extent in zip(EXTENT_NAMES, view.extents(), strict=True)),
                size.eq(operand_size),
                accumulates.eq(view.field("accumulate")),
                *(types[side].eq(view.field(f"{side}_dtype")) for side in types),
                # Along k where that is contiguous; lhs also where neither is.
                across["lhs"].eq((view.strides("lhs")[1] == 1) & (view.strides("lhs")[3] != 1)),
                across["rhs"].eq((view.strides("rhs")[3] != 1) | (view.strides("rhs")[2] == 1)),
            ]
            for x in base:
                shift = Const(2, 2) if x == "accumulator" else operand_size
                m.d.sync += base[x].eq(view.base(x))
                m.d.sync += [mine.eq(theirs << shift) for mine, theirs in zip(strides[x], view.strides(x), strict=True)]
        with m.Elif(pending & (age < 2)):
            m.d.sync += age.eq(age + 1)
        regions = {
            x: region_of(
                m,
                base[x],
                [strides[x][d] for d in over],
                [extents[EXTENT_NAMES[d]] for d in over],
                Const(2, 2) if x == "accumulator" else size,
                f"{x}_region",
            )
            for x, over in (("accumulator", (0, 1, 2)), ("lhs", (0, 1, 3)), ("rhs", (0, 2, 3)))
        }

        in_flight = InFlight(m, "in_flight", bits, regions["accumulator"])
        keeps = self._keeps(m, accumulates, extents, base, strides, regions["accumulator"])
        loads = wire(m, accumulates & ~keeps, "loads")
        meets = in_flight.meets(regions["lhs"]) | in_flight.meets(regions["rhs"])
        meets = wire(m, (meets | Mux(loads, in_flight.meets(regions["accumulator"]), 0)).any(), "meets_sums")
        m.submodules.step_queue = step_queue = SyncFIFOBuffered(width=STEP_LAYOUT.size, depth=HANDED_OVER)
        room = step_queue.w_rdy & in_flight.has_room
        outlets = {}
        for x, unit in (("lhs", lhs), ("rhs", rhs), ("reads", read_places), ("writes", write_places)):
            layout = tile_layout(bits)
            shape = layout.size + (3 if x in ("lhs", "rhs") else 0)
            m.submodules[f"{x}_queue"] = fifo = SyncFIFOBuffered(width=shape, depth=HANDED_OVER)
            outlets[x] = fifo
            room = room & fifo.w_rdy
            name = x if x in base else "accumulator"
            lines = {"lhs": 1, "rhs": 2}.get(x, 1)
            elements = 3 if x in base else 2
            tile = Cat(extents, base[name], strides[name][0], strides[name][lines], strides[name][elements])
            more = Cat(size, across[x]) if x in across else Cat()
            m.d.comb += [
                fifo.w_data.eq(Cat(tile, more)),
                unit.valid.eq(fifo.r_rdy),
                unit.tile.eq(fifo.r_data[0 : layout.size]),
                fifo.r_en.eq(unit.ready),
            ]
            if x in across:
                m.d.comb += [unit.size.eq(fifo.r_data[layout.size :][0:2]), unit.is_across.eq(fifo.r_data[-1])]
        hands_over = wire(m, pending & (age == 2) & room & ~meets, "hands_over")
        m.d.comb += [
            self._handed_over.eq(hands_over),
            step_queue.w_en.eq(hands_over),
            step_queue.w_data.eq(Cat(extents, types["lhs"], types["rhs"], loads, keeps)),
            *(outlets[x].w_en.eq(hands_over) for x in ("lhs", "rhs", "writes")),
            outlets["reads"].w_en.eq(hands_over & loads),
        ]
        m.d.comb += [in_flight.adds.eq(hands_over), in_flight.removes.eq(self.done)]
        with m.If(hands_over):
            m.d.sync += pending.eq(0)
        return step_queue

    def _keeps(
        self,
        m: Module,
        accumulates: Value,
        extents: Any,
        base: dict[str, Signal],
        strides: dict[str, list[Signal]],
        region: Region,
    ) -> Signal:
        """Return whether the instruction at hand goes on with the sums the one before left in the array."""
        self._handed_over = Signal(name="handed_over")
        held, last = Signal(name="holds_sums"), Signal(len(Cat(extents, base["lhs"], *strides["lhs"])), name="held_key")
        key = Cat(
            extents.batch, extents.m, extents.n, Const(0, 16), base["accumulator"], *strides["accumulator"][0:3],
            Const(0, self.geometry.address_bits),
        )  # fmt: skip
        first = Signal(self.geometry.address_bits, name="held_first")
        end = Signal(self.geometry.address_bits, name="held_last")
        low = self.geometry.offset_bits
        overwritten = Cat(
            other.valid & (other.row >= first[low:]) & (other.row <= end[low:]) for other in self.others
        ).any()
        m.d.comb += self.wakes.eq(held & overwritten)
        is_single = (extents.batch == 1) & (extents.m <= self.rows) & (extents.n <= self.columns * self.interleave)
        with m.If(self._handed_over):
            m.d.sync += [held.eq(is_single), last.eq(key), first.eq(region.first), end.eq(region.last)]
        with m.Elif(overwritten):
            m.d.sync += held.eq(0)
        return wire(m, accumulates & held & (last == key), "keeps")

    # ------------------------------------------------------------------------------------------------- the steps

    def _steps(
        self, m: Module, queue: Any, lhs: Any, rhs: Any, starts_full: Signal, complete_busy: Signal
    ) -> dict[str, Any]:
        """Issues a step a cycle while blocks are there. Gives what stages of the cells are told."""
        tiles, depth = self.interleave, self.geometry.lane_count
        tile_bits = (tiles - 1).bit_length()
        offered = data.View(STEP_LAYOUT, queue.r_data)
        places = Places(m, "steps", self.rows, self.columns * tiles, depth)
        works, loads, keeps = Signal(name="steps_work"), Signal(name="steps_load"), Signal(name="steps_keep")
        left_type, right_type = Signal(4), Signal(4)
        step, tile, part = Signal(range(depth)), Signal(tile_bits), Signal(2)
        is_wide, is_integer = left_type == DType.F32.code, left_type == DType.I8.code
        begins_block = wire(m, ~step.any() & ~tile.any() & (~is_wide | ~part.any()), "begins_block")
        begins_group = wire(m, ~places.at["k"].any(), "begins_group")
        waits = wire(
            m, begins_block & ((begins_group & loads & ~starts_full) | (places.k_ends & complete_busy)), "step_waits"
        )
        issues = wire(m, works & lhs.is_full & rhs.is_full & ~waits, "issues")
        last_part = wire(m, Mux(is_wide, part == 3, 1), "last_part")
        last_tile = wire(m, last_part & (tile == tiles - 1), "last_tile")
        last_step = wire(m, step + 1 == places.steps_here, "last_step")
        block_ends = wire(m, issues & last_tile & last_step, "block_ends")
        m.d.comb += [lhs.step.eq(step), rhs.step.eq(step), lhs.release.eq(block_ends), rhs.release.eq(block_ends)]
        with m.If(issues):
            m.d.sync += part.eq(Mux(is_wide, part + 1, 0))
            with m.If(last_part):
                m.d.sync += tile.eq(Mux(last_tile, 0, tile + 1))
            with m.If(last_tile):
                m.d.sync += step.eq(Mux(last_step, 0, step + 1))
            with m.If(places.k_ends & begins_block):
                m.d.sync += complete_busy.eq(1)
            with m.If(begins_group & loads & last_tile & ~step.any()):
                m.d.sync += starts_full.eq(0)
        instruction_ends = wire(m, block_ends & places.is_last, "instruction_ends")
        with m.If(block_ends):
            places.go_on()
        takes = wire(m, queue.r_rdy & (~works | instruction_ends), "takes_instruction")
        m.d.comb += queue.r_en.eq(takes)
        with m.If(takes):
            places.begin(offered.extents)
            m.d.sync += [
                works.eq(1),
                loads.eq(offered.loads),
                keeps.eq(offered.keeps),
                left_type.eq(offered.left_type),
                right_type.eq(offered.right_type),
                part.eq(0),
            ]
        with m.Elif(instruction_ends):
            m.d.sync += works.eq(0)

        stages: list[dict[str, Value]] = [
            {
                "multiplies": issues,
                "part": Mux(is_wide, part, 3),
                "is_first_part": Mux(is_wide, ~part.any(), 1),
                "adds": issues & last_part,
                "tile": tile,
                "is_first": begins_group & ~step.any() & ~keeps,
                "takes_start": loads,
                "is_final": places.k_ends & last_step,
                "is_integer": is_integer,
            }
        ]
        one = Const(1, 1)
        for number in range(1, write_stage(tiles) + 1):
            before = stages[-1]
            after = {name: register(m, value, one, f"{name}_{number}") for name, value in before.items()}
            for name in ("multiplies", "adds"):
                valid = Signal(name=f"{name}_valid_{number}")
                m.d.sync += valid.eq(before[name])
                after[name] = valid
            stages.append(after)
        return {"stages": stages, "tile": tile, "left_type": left_type, "right_type": right_type}

    def _cells(self, m: Module, lhs: Any, rhs: Any, steps: Any, control: dict[str, Any]) -> dict[str, Any]:
        """The array. Gives the ports that all cells share, and each cell."""
        stages = control["stages"]
        left = [taken_apart(m, control["left_type"], lhs.values[i], f"lhs_edge_{i}") for i in range(self.rows)]
        right = []
        for c in range(self.columns):
            of_tile = Array(rhs.values[t * self.columns + c] for t in range(self.interleave))
            now = wire(m, of_tile[control["tile"]], f"rhs_now_{c}")
            right.append(taken_apart(m, control["right_type"], now, f"rhs_edge_{c}"))
        add, write = stages[ADD_STAGE], stages[write_stage(self.interleave)]
        told = {
            "multiplies": stages[1]["multiplies"],
            "part": stages[1]["part"],
            "is_first_part": stages[1]["is_first_part"],
            "adds": add["adds"],
            "add_tile": add["tile"],
            "is_first": add["is_first"],
            "takes_start": add["takes_start"],
            "writes": write["adds"],
            "write_tile": write["tile"],
            "is_final": write["is_final"],
            "is_integer": write["is_integer"],
        }
        tile_bits = (self.interleave - 1).bit_length()
        load_row, load_tile = Signal(8, name="load_row"), Signal(tile_bits, name="load_tile")
        load_lanes, select = Signal(self.geometry.lane_count, name="load_lanes"), Signal(tile_bits, name="select_tile")
        load_values = Signal(32 * self.columns, name="load_values")
        rows: list[list[Value]] = []
        for i in range(self.rows):
            values = []
            for c in range(self.columns):
                cell = PipelinedCell(self.interleave)
                instantiate(m, f"cell_{i}_{c}", cell)
                for part in FACTOR:
                    m.d.comb += [
                        getattr(cell, f"lhs_{part}").eq(left[i][part]),
                        getattr(cell, f"rhs_{part}").eq(right[c][part]),
                    ]
                m.d.comb += [getattr(cell, name).eq(value) for name, value in told.items()]
                m.d.comb += [
                    cell.load.eq(load_lanes[c] & (load_row == i)),
                    cell.load_tile.eq(load_tile),
                    cell.load_value.eq(load_values[32 * c : 32 * (c + 1)]),
                    cell.select.eq(select),
                ]
                values.append(cell.value)
            rows.append(values)
        return {
            "rows": rows,
            "row": load_row,
            "tile": load_tile,
            "lanes": load_lanes,
            "values": load_values,
            "select": select,
        }

    # -------------------------------------------------------------------------------------------------- the sums

    def _sums_in(self, m: Module, places: Any, reader: Any, cells: dict[str, Any], starts_full: Signal) -> None:
        """Reads a group's sums once those of the group before have been taken."""
        lanes = self.geometry.lane_count
        loading = Signal(name="is_loading_sums")
        asks = wire(m, places.works & ~starts_full & ~loading, "asks_for_sums")
        m.d.comb += [
            reader.valid.eq(asks),
            reader.size.eq(2),
            reader.tag_in.eq(Cat(places.group_ends, places.tile_number, Const(0, 4))[0:4] | places.row << 4),
            reader.wanted.eq(lanes_below(m, places.count, lanes, "sums_wanted")),
            *(reader.addresses[n].eq(places.address + places.step * n) for n in range(lanes)),
            places.next.eq(asks & reader.ready),
            cells["lanes"].eq(reader.lanes),
            cells["tile"].eq(reader.tag[1:4]),
            cells["row"].eq(reader.tag[4:]),
            cells["values"].eq(Cat(reader.data[c][0:32] for c in range(self.columns))),
        ]
        with m.If(places.next & places.group_ends):
            m.d.sync += loading.eq(1)
        with m.If(reader.done & reader.tag[0]):
            m.d.sync += [loading.eq(0), starts_full.eq(1)]

    def _sums_out(
        self,
        m: Module,
        places: Any,
        writer: Any,
        cells: dict[str, Any],
        control: dict[str, Any],
        complete_busy: Signal,
    ) -> None:
        """Writes a group's sums once the last of them is complete; ends instructions."""
        lanes = self.geometry.lane_count
        last = control["stages"][write_stage(self.interleave)]
        landed, ending = Signal(name="sums_are_complete"), Signal(name="instruction_is_ending")
        lands = last["adds"] & last["is_final"] & (last["tile"] == self.interleave - 1)
        puts = wire(m, places.works & landed & ~ending, "puts_sums")
        m.d.comb += [
            writer.valid.eq(puts),
            writer.size.eq(2),
            writer.wanted.eq(lanes_below(m, places.count, lanes, "sums_written")),
            *(writer.addresses[n].eq(places.address + places.step * n) for n in range(lanes)),
            cells["select"].eq(places.tile_number),
            *(writer.data[c].eq(Array(row[c] for row in cells["rows"])[places.row]) for c in range(self.columns)),
            places.next.eq(puts & writer.ready),
            self.done.eq(ending & writer.is_idle),
        ]
        with m.If(lands):
            m.d.sync += landed.eq(1)
        with m.If(places.next & places.group_ends):
            m.d.sync += [landed.eq(0), complete_busy.eq(0), ending.eq(places.is_last)]
        with m.Elif(self.done):
            m.d.sync += ending.eq(0)
