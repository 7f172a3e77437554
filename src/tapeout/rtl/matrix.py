"""The matrix engine: an output-stationary array of multiply-add cells, fed from two operand buffers.

`accumulator_interleave` output tiles, neighbours along n, take turns: in a cycle every cell makes one step of k for
one of them, so a cell's sum is rounded before its next step. A cell multiplies 12 bits by 12: one pass for bf16, f16,
float8 and i8, four for f32. The engine fetches `lane_count` steps of k of both operands, runs them, and goes on;
k ascends, so each output is the sum its definition names.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa import definitions as isa
from tapeout.isa.core_design import FLUSH_CYCLES
from tapeout.isa.fields import Unit
from tapeout.numerics.dtypes import DType
from tapeout.rtl.arithmetic import (
    NAN,
    Product,
    add,
    float_from_half,
    product_of,
    register,
    rounded,
    unpack,
    unpack_normal,
    wire,
)
from tapeout.rtl.descriptor import View, value_count, word_count
from tapeout.rtl.scratchpad import Geometry, RowReader, RowWriter, read_signature, write_signature
from tapeout.rtl.sharing import instantiate
from tapeout.rtl.tiles import lanes_below
from tapeout.rtl.vector import size_of

FACTOR = {
    "sign": 1,
    "exponent": signed(10),
    "significand": 24,
    "is_zero": 1,
    "is_infinite": 1,
    "is_nan": 1,
}
"""A float taken apart (`tapeout.rtl.arithmetic.Operand`); an i8 as its sign and, in the significand's upper half, its
magnitude."""


class Factor:
    """The ports of a cell that carry one factor, as an Operand."""

    def __init__(self, cell: Component, side: str) -> None:
        for name in FACTOR:
            setattr(self, name, getattr(cell, f"{side}_{name}"))


class Cell(Component):
    """One multiply-add with an accumulator for each interleaved tile."""

    module_name = "cell"

    def __init__(self, interleave: int) -> None:
        self.interleave = interleave
        tile_bits = (interleave - 1).bit_length()
        ports = {f"{side}_{name}": In(shape) for side in ("lhs", "rhs") for name, shape in FACTOR.items()}
        super().__init__(
            ports
            | {
                "valid": In(1),
                "part": In(2),
                "is_first": In(1),
                "is_last": In(1),
                "is_integer": In(1),
                "tile": In(tile_bits),
                "clear": In(1),
                "load": In(1),
                "load_tile": In(tile_bits),
                "load_value": In(32),
                "select": In(tile_bits),
                "value": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one = Const(1, 1)
        lhs, rhs = Factor(self, "lhs"), Factor(self, "rhs")
        left = wire(m, Mux(self.part[1], self.lhs_significand[12:], self.lhs_significand[:12]), "left")
        right = wire(m, Mux(self.part[0], self.rhs_significand[12:], self.rhs_significand[:12]), "right")
        product = wire(m, left * right, "partial_product")
        placed = Signal(48)
        with m.Switch(self.part):
            for part, places in enumerate((0, 12, 12, 24)):
                with m.Case(part):
                    m.d.comb += placed.eq(product << places)
        bits = Signal(48, name="product_bits", reset_less=True)
        with m.If(self.valid):
            m.d.sync += bits.eq(Mux(self.is_first, 0, bits) + placed)
        exact = product_of(m, lhs, rhs, bits, "product")  # type: ignore[arg-type]
        exact_2 = Product(
            **{
                name: bits if name == "bits" else register(m, value, self.valid, f"{name}_2")
                for name, value in vars(exact).items()
            }
        )
        valid_2, valid_3 = Signal(), Signal()
        m.d.sync += [valid_2.eq(self.valid & self.is_last), valid_3.eq(valid_2)]
        tile_2 = register(m, self.tile, one, "tile_2")
        tile_3 = register(m, tile_2, one, "tile_3")
        is_integer_2 = register(m, self.is_integer, one, "is_integer_2")
        is_integer_3 = register(m, is_integer_2, one, "is_integer_3")

        sums = Array(Signal(32, name=f"sum_{n}", reset_less=True) for n in range(self.interleave))
        current = wire(m, sums[tile_2], "current")
        total = add(m, exact_2, unpack(m, current, "addend"), "total").registered(m, valid_2, "total_3")
        magnitude = bits[24:40]
        integer = register(m, Mux(exact_2.sign, current - magnitude, current + magnitude)[0:32], valid_2, "integer_3")
        result = wire(m, Mux(is_integer_3, integer, rounded(m, total, "rounded")), "result")
        for n in range(self.interleave):
            with m.If(self.clear):
                m.d.sync += sums[n].eq(0)
            with m.Elif(self.load & (self.load_tile == n)):
                m.d.sync += sums[n].eq(self.load_value)
            with m.Elif(valid_3 & (tile_3 == n)):
                m.d.sync += sums[n].eq(result)
        m.d.comb += self.value.eq(sums[self.select])
        return m


class OperandLine(Component):
    """The steps of k that are at hand for one row of lhs or one column of rhs.

    Steps in `mask` are written: from `vector` if `by_vector`, else all with `element`.
    """

    module_name = "operand_line"

    def __init__(self, depth: int) -> None:
        self.depth = depth
        super().__init__(
            {
                "mask": In(depth),
                "by_vector": In(1),
                "vector": In(data.ArrayLayout(32, depth)),
                "element": In(32),
                "step": In(range(depth + 1)),
                "value": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        steps = [Signal(32, name=f"step_{k}", reset_less=True) for k in range(self.depth)]
        for k, step in enumerate(steps):
            with m.If(self.mask[k]):
                m.d.sync += step.eq(Mux(self.by_vector, self.vector[k], self.element))
        m.d.comb += self.value.eq(Array(steps)[self.step])
        return m


def widened(m: Module, dtype: Value, bits: Value, name: str) -> Signal:
    """An element of a type the engine multiplies, as float32."""
    result = Signal(32, name=name)
    half = float_from_half(
        m, Mux(dtype == DType.F8E5M2.code, Cat(Const(0, 8), bits[0:8]), bits[0:16]), f"{name}_of_half"
    )
    fraction, exponent = bits[0:3], bits[3:7]
    subnormal = Signal(31, name=f"{name}_subnormal")
    with m.Switch(fraction):
        for code in range(1, 8):
            top = code.bit_length() - 1
            with m.Case(code):
                m.d.comb += subnormal.eq((127 - 9 + top) << 23 | (code - (1 << top)) << (23 - top))
    with m.Switch(dtype):
        with m.Case(DType.F32.code):
            m.d.comb += result.eq(bits)
        with m.Case(DType.BF16.code):
            m.d.comb += result.eq(Cat(Const(0, 16), bits[0:16]))
        with m.Case(DType.F16.code, DType.F8E5M2.code):
            m.d.comb += result.eq(half)
        with m.Case(DType.F8E4M3.code):
            normal = Cat(Const(0, 20), fraction, (exponent + 120)[0:8])
            m.d.comb += result.eq(Cat(Mux(exponent.any(), normal, subnormal), bits[7]))
            with m.If(bits[0:7].all()):
                m.d.comb += result.eq(NAN)
    return result


def taken_apart(m: Module, dtype: Value, bits: Value, name: str) -> dict[str, Signal]:
    """An element on its way into the array, as a cell's ports want it, a cycle later."""
    operand = unpack_normal(m, widened(m, dtype, bits, f"{name}_wide"), name)
    is_integer = wire(m, dtype == DType.I8.code, f"{name}_is_integer")
    negative = bits[7]
    magnitude = wire(m, Mux(negative, -bits[0:8], bits[0:8])[0:8], f"{name}_magnitude")
    parts = {
        "sign": Mux(is_integer, negative, operand.sign),
        "exponent": operand.exponent,
        "significand": Mux(is_integer, Cat(Const(0, 12), magnitude, Const(0, 4)), operand.significand),
        "is_zero": operand.is_zero,
        "is_infinite": operand.is_infinite,
        "is_nan": operand.is_nan,
    }
    held = {}
    for part, value in parts.items():
        held[part] = Signal(FACTOR[part], name=f"{name}_{part}_held", reset_less=True)
        m.d.sync += held[part].eq(value)
    return held


class MatrixEngine(Component):
    """See the module."""

    def __init__(self, geometry: Geometry, rows: int, columns: int, interleave: int) -> None:
        self.geometry = geometry
        self.rows, self.columns, self.interleave = rows, columns, interleave
        super().__init__(
            {
                "valid": In(1),
                "words": In(data.ArrayLayout(64, word_count(Unit.MATRIX))),
                "values": In(data.ArrayLayout(64, value_count(Unit.MATRIX))),
                "accept": Out(1),
                "done": Out(1),
                "is_misplaced": Out(1),
                "reader": Out(read_signature(geometry)),
                "writer": Out(write_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        depth = g.lane_count
        tile_bits = (self.interleave - 1).bit_length()
        view = View(isa.MatrixMultiply, list(self.words), list(self.values))
        bits = g.address_bits

        extent = {name: Signal(16, name=f"extent_{name}") for name in ("batch", "m", "n", "k")}
        base = {name: Signal(bits, name=f"{name}_base") for name in ("accumulator", "lhs", "rhs")}
        strides = {name: [Signal(bits, name=f"{name}_stride_{d}") for d in range(4)] for name in base}
        left_type, right_type = Signal(4), Signal(4)
        size, accumulates, rhs_along_k = Signal(2), Signal(), Signal()
        latch = Signal()
        with m.If(latch):
            m.d.sync += [mine.eq(theirs) for mine, theirs in zip(extent.values(), view.extents(), strict=True)]
            operand_size = size_of(m, view.field("lhs_dtype"), "operand_size")
            m.d.sync += [
                left_type.eq(view.field("lhs_dtype")),
                right_type.eq(view.field("rhs_dtype")),
                size.eq(operand_size),
                accumulates.eq(view.field("accumulate")),
                rhs_along_k.eq((view.strides("rhs")[3] == 1) & (view.strides("rhs")[2] != 1)),
            ]
            for name in base:
                m.d.sync += base[name].eq(view.base(name))
                shift = Const(2, 2) if name == "accumulator" else operand_size
                m.d.sync += [
                    mine.eq(theirs << shift) for mine, theirs in zip(strides[name], view.strides(name), strict=True)
                ]

        # -------------------------------------------------------------------------- operand buffers and the array

        width = self.columns * self.interleave
        lhs_lines = [OperandLine(depth) for _ in range(self.rows)]
        rhs_lines = [OperandLine(depth) for _ in range(width)]
        m.submodules.fetch = fetch = RowReader(g, 8)
        m.submodules.put = put = RowWriter(g)
        m.d.comb += [
            self.reader.valid.eq(fetch.port.valid),
            self.reader.row.eq(fetch.port.row),
            fetch.port.ready.eq(self.reader.ready),
            fetch.port.data.eq(self.reader.data),
            self.writer.valid.eq(put.port.valid),
            self.writer.row.eq(put.port.row),
            self.writer.data.eq(put.port.data),
            self.writer.mask.eq(put.port.mask),
            put.port.ready.eq(self.writer.ready),
            self.is_misplaced.eq(fetch.misplaced | put.misplaced),
        ]
        phase = Signal(2)
        """Operand that arrives: 0 accumulators, 1 lhs, 2 rhs."""
        # A tag is a row (lhs), a step of k and a tile (rhs along n), a column (rhs along k), a row and tile (sums).
        tag_tile, tag_rest = fetch.tag[0:tile_bits], fetch.tag[tile_bits:]
        arrived = Signal(data.ArrayLayout(32, depth))
        m.d.comb += [arrived[k].eq(fetch.data[k][0:32]) for k in range(depth)]
        one_step = wire(m, (1 << tag_rest)[0:depth], "step_of_tag")
        for i, line in enumerate(lhs_lines):
            instantiate(m, f"lhs_line_{i}", line)
            m.d.comb += [
                line.mask.eq(Mux((phase == 1) & (fetch.tag == i), fetch.lanes, 0)),
                line.by_vector.eq(1),
                line.vector.eq(arrived),
                line.element.eq(0),
            ]
        for j, line in enumerate(rhs_lines):
            instantiate(m, f"rhs_line_{j}", line)
            along_n = Mux((tag_tile == j // self.columns) & fetch.lanes[j % self.columns], one_step, 0)
            along_k = Mux(fetch.tag == j, fetch.lanes, 0)
            m.d.comb += [
                line.mask.eq(Mux(phase == 2, Mux(rhs_along_k, along_k, along_n), 0)),
                line.by_vector.eq(rhs_along_k),
                line.vector.eq(arrived),
                line.element.eq(arrived[j % self.columns]),
            ]

        step_k, step_tile, step_part = Signal(range(depth + 1)), Signal(tile_bits), Signal(2)
        issues, clears = Signal(), Signal()
        is_integer = wire(m, left_type == DType.I8.code, "is_integer")
        is_wide = wire(m, left_type == DType.F32.code, "is_wide")
        out_row, out_tile = Signal(range(self.rows)), Signal(tile_bits)

        m.d.comb += [line.step.eq(step_k) for line in (*lhs_lines, *rhs_lines)]
        lhs_edge = [taken_apart(m, left_type, line.value, f"lhs_edge_{i}") for i, line in enumerate(lhs_lines)]
        rhs_edge = []
        for c in range(self.columns):
            of_tile = Array(rhs_lines[t * self.columns + c].value for t in range(self.interleave))
            rhs_edge.append(taken_apart(m, right_type, wire(m, of_tile[step_tile], f"rhs_now_{c}"), f"rhs_edge_{c}"))
        one = Const(1, 1)
        last_part = 3
        issued = {
            "valid": register(m, issues, one, "issue_valid"),
            "tile": register(m, step_tile, one, "issue_tile"),
            "part": register(m, step_part, one, "issue_part"),
            "is_first": register(m, Mux(is_wide, step_part == 0, 1), one, "issue_is_first"),
            "is_last": register(m, step_part == last_part, one, "issue_is_last"),
            "is_integer": is_integer,
            "clear": clears,
        }
        rows_out: list[list[Value]] = []
        for i in range(self.rows):
            values = []
            for c in range(self.columns):
                cell = Cell(self.interleave)
                instantiate(m, f"cell_{i}_{c}", cell)
                for part in FACTOR:
                    m.d.comb += [
                        getattr(cell, f"lhs_{part}").eq(lhs_edge[i][part]),
                        getattr(cell, f"rhs_{part}").eq(rhs_edge[c][part]),
                    ]
                m.d.comb += [getattr(cell, name).eq(value) for name, value in issued.items()]
                m.d.comb += [
                    cell.load.eq((phase == 0) & fetch.lanes[c] & (tag_rest == i)),
                    cell.load_tile.eq(tag_tile),
                    cell.load_value.eq(fetch.data[c]),
                    cell.select.eq(out_tile),
                ]
                values.append(cell.value)
            rows_out.append(values)

        # ----------------------------------------------------------------------------------------- the loops

        at = {name: Signal(16, name=f"at_{name}") for name in ("batch", "m", "n", "k")}
        i, j = Signal(8), Signal(8)
        row_index = wire(m, at["m"] + i, "row_index")
        asks = Signal()
        address, step, count = Signal(bits), Signal(bits), Signal(range(g.lane_count + 1))
        tag = Signal(8)
        left_k = wire(m, extent["k"] - at["k"], "left_k")
        steps_here = wire(m, Mux(left_k > depth, depth, left_k)[0 : len(step_k)], "steps_here")
        column_of_tile = wire(m, at["n"] + j * self.columns, "column_of_tile")
        left_n = Signal(signed(18))
        m.d.comb += left_n.eq(extent["n"] - column_of_tile)
        columns_here = wire(m, Mux(left_n > self.columns, self.columns, left_n)[0:8], "columns_here")
        row_is_valid = row_index < extent["m"]
        tile_is_valid = left_n > 0

        # One address: base + batch * stride + two more products.
        terms = {name: Signal(18, name=f"term_{name}") for name in ("first", "second")}
        factor = {name: Signal(bits, name=f"factor_{name}") for name in ("batch", "first", "second")}
        base_here = Signal(bits)
        m.d.comb += address.eq(
            base_here
            + at["batch"] * factor["batch"]
            + terms["first"] * factor["first"]
            + terms["second"] * factor["second"]
        )

        def at_address(name: str, first: tuple[Value, int], second: tuple[Value, int], along: int) -> None:
            m.d.comb += [
                base_here.eq(base[name]),
                factor["batch"].eq(strides[name][0]),
                terms["first"].eq(first[0]),
                factor["first"].eq(strides[name][first[1]]),
                terms["second"].eq(second[0]),
                factor["second"].eq(strides[name][second[1]]),
                step.eq(strides[name][along]),
            ]

        m.d.comb += [
            fetch.valid.eq(asks),
            fetch.size.eq(Mux(phase == 0, 2, size)),
            fetch.tag_in.eq(tag),
            fetch.wanted.eq(lanes_below(m, count, g.lane_count, "lanes_wanted")),
            *(fetch.addresses[n].eq(address + step * n) for n in range(g.lane_count)),
            *(put.addresses[n].eq(address + step * n) for n in range(g.lane_count)),
            put.size.eq(2),
            put.wanted.eq(fetch.wanted),
            *(put.data[c].eq(Array(rows_out[r][c] for r in range(self.rows))[out_row]) for c in range(self.columns)),
            out_row.eq(i),
            out_tile.eq(j),
        ]
        flush = Signal(range(FLUSH_CYCLES + 1))
        tiles = self.interleave

        def nested(inner_end: Value, outer_end: Value, then: str, outer: Signal, inner: Signal) -> None:
            """Go on to the next inner, else outer place; after the last, to another state."""
            with m.If(inner_end):
                m.d.sync += [inner.eq(0), outer.eq(outer + 1)]
                with m.If(outer_end):
                    m.d.sync += outer.eq(0)
                    m.next = then
            with m.Else():
                m.d.sync += inner.eq(inner + 1)

        with m.FSM(name="engine"):
            with m.State("IDLE"):
                m.d.sync += [*(counter.eq(0) for counter in at.values()), i.eq(0), j.eq(0)]
                with m.If(self.valid):
                    m.d.comb += [self.accept.eq(1), latch.eq(1)]
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [phase.eq(0), i.eq(0), j.eq(0), at["k"].eq(0)]
                m.d.comb += clears.eq(1)
                m.next = "LHS_WAIT"
                with m.If(accumulates):
                    m.next = "SUMS"
            with m.State("SUMS"):
                at_address("accumulator", (row_index, 1), (column_of_tile, 2), 2)
                m.d.comb += [
                    tag.eq(Cat(j[0:tile_bits], i)),
                    count.eq(columns_here),
                    asks.eq(row_is_valid & tile_is_valid),
                ]
                with m.If(~asks | fetch.ready):
                    nested(j == tiles - 1, i == self.rows - 1, "LHS_WAIT", i, j)
            with m.State("LHS_WAIT"), m.If(~fetch.is_busy):
                m.d.sync += phase.eq(1)
                m.next = "LHS"
            with m.State("LHS"):
                at_address("lhs", (row_index, 1), (at["k"], 3), 3)
                m.d.comb += [tag.eq(i), count.eq(steps_here), asks.eq(row_is_valid)]
                with m.If(~asks | fetch.ready):
                    nested(Const(1, 1), i == self.rows - 1, "RHS_WAIT", i, j)
            with m.State("RHS_WAIT"), m.If(~fetch.is_busy):
                m.d.sync += phase.eq(2)
                m.next = "RHS"
            with m.State("RHS"):
                with m.If(rhs_along_k):  # i: column; j stays 0
                    column = wire(m, at["n"] + i, "column")
                    at_address("rhs", (column, 2), (at["k"], 3), 3)
                    m.d.comb += [tag.eq(i), count.eq(steps_here), asks.eq(column < extent["n"])]
                    with m.If(~asks | fetch.ready):
                        nested(Const(1, 1), i == width - 1, "STEPS_WAIT", i, j)
                with m.Else():  # i: step of k; j: tile
                    at_address("rhs", (wire(m, at["k"] + i, "step_of_k"), 3), (column_of_tile, 2), 2)
                    m.d.comb += [tag.eq(Cat(j[0:tile_bits], i)), count.eq(columns_here), asks.eq(tile_is_valid)]
                    with m.If(~asks | fetch.ready):
                        nested(j == tiles - 1, i + 1 == steps_here, "STEPS_WAIT", i, j)
            with m.State("STEPS_WAIT"):
                m.d.sync += [step_k.eq(0), step_tile.eq(0), step_part.eq(Mux(is_wide, 0, last_part))]
                with m.If(~fetch.is_busy):
                    m.next = "STEPS"
            with m.State("STEPS"):
                m.d.comb += issues.eq(1)
                m.d.sync += step_part.eq(Mux(is_wide, step_part + 1, last_part))
                with m.If(step_part == last_part):
                    m.d.sync += step_tile.eq(step_tile + 1)
                    with m.If(step_tile == tiles - 1):
                        m.d.sync += [step_tile.eq(0), step_k.eq(step_k + 1)]
                        with m.If(step_k + 1 == steps_here):
                            m.d.sync += [at["k"].eq(at["k"] + depth), flush.eq(FLUSH_CYCLES)]
                            m.next = "LHS_WAIT"
                            with m.If(left_k <= depth):
                                m.next = "FLUSH"
            with m.State("FLUSH"):
                m.d.sync += flush.eq(flush - 1)
                with m.If(flush == 0):
                    m.next = "OUT"
            with m.State("OUT"):
                at_address("accumulator", (row_index, 1), (column_of_tile, 2), 2)
                m.d.comb += [count.eq(columns_here), put.valid.eq(row_is_valid & tile_is_valid)]
                with m.If(~put.valid | put.ready):
                    nested(j == tiles - 1, i == self.rows - 1, "NEXT", i, j)
            with m.State("NEXT"):
                m.next = "BEGIN"
                m.d.sync += at["n"].eq(at["n"] + width)
                with m.If(at["n"] + width >= extent["n"]):
                    m.d.sync += [at["n"].eq(0), at["m"].eq(at["m"] + self.rows)]
                    with m.If(at["m"] + self.rows >= extent["m"]):
                        m.d.sync += [at["m"].eq(0), at["batch"].eq(at["batch"] + 1)]
                        with m.If(at["batch"] + 1 >= extent["batch"]):
                            m.next = "END"
            with m.State("END"), m.If(put.is_idle):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
