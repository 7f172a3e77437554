"""A cell of the pipelined array: a product a cycle, added to one of the sums that take turns.

The loop from a sum to the next addition to it has as many stages as tiles take turns, up to four: the addend is put in
place, added, normalised, rounded. What a stage is told comes from outside, delayed once for all cells. A sum that is
complete goes to a second register too, from where it is written while the next group of tiles computes; sums to start
from wait in a third.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tapeout.rtl.arithmetic import (
    Product,
    aligned_summands,
    normalised,
    packed_float,
    product_of,
    register,
    summed,
    unpack,
    wire,
)
from tapeout.rtl.matrix import FACTOR, Factor

ADD_STAGE = 2
"""The stage in which a sum is read, counting that of the product as the first."""


def write_stage(interleave: int) -> int:
    """The stage at whose end a sum is written: the last that lets the same tile's next step read it."""
    return ADD_STAGE + min(interleave, 4) - 1


class PipelinedCell(Component):
    """See the module. `multiplies`, `part` and `is_first_part` are of the first stage, `adds` to `takes_start` of the
    second, `writes` to `is_integer` of the last."""

    module_name = "pipelined_cell"

    def __init__(self, interleave: int) -> None:
        self.interleave = interleave
        tile_bits = (interleave - 1).bit_length()
        ports = {f"{side}_{name}": In(shape) for side in ("lhs", "rhs") for name, shape in FACTOR.items()}
        super().__init__(
            ports
            | {
                "multiplies": In(1),
                "part": In(2),
                "is_first_part": In(1),
                "adds": In(1),
                "add_tile": In(tile_bits),
                "is_first": In(1),
                "takes_start": In(1),
                "writes": In(1),
                "write_tile": In(tile_bits),
                "is_final": In(1),
                "is_integer": In(1),
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
        with m.If(self.multiplies):
            m.d.sync += bits.eq(Mux(self.is_first_part, 0, bits) + placed)
        exact = product_of(m, lhs, rhs, bits, "product")  # type: ignore[arg-type]
        exact_2 = Product(
            **{
                name: bits if name == "bits" else register(m, value, self.multiplies, f"{name}_2")
                for name, value in vars(exact).items()
            }
        )
        count = self.interleave
        sums = Array(Signal(32, name=f"sum_{n}", reset_less=True) for n in range(count))
        starts = Array(Signal(32, name=f"start_{n}", reset_less=True) for n in range(count))
        complete = Array(Signal(32, name=f"complete_{n}", reset_less=True) for n in range(count))
        start = Mux(self.takes_start, starts[self.add_tile], 0)
        current = wire(m, Mux(self.is_first, start, sums[self.add_tile]), "current")

        stages = min(count, 4)
        number = aligned_summands(m, exact_2, unpack(m, current, "addend"), "total")
        if stages >= 4:
            number = number.registered(m, self.adds, "aligned")
        total = summed(m, number, "total").registered(m, one, "total")
        normal = normalised(m, total, "rounded")
        if stages >= 3:
            normal = normal.registered(m, one, "normal")
        rounded = packed_float(m, normal, "rounded")
        magnitude = bits[24:40]
        integer = wire(m, Mux(exact_2.sign, current - magnitude, current + magnitude)[0:32], "integer")
        for stage in range(1, stages):
            integer = register(m, integer, self.adds if stage == 1 else one, f"integer_{stage}")
        result = wire(m, Mux(self.is_integer, integer, rounded), "result")
        for n in range(count):
            with m.If(self.writes & (self.write_tile == n)):
                m.d.sync += sums[n].eq(result)
                with m.If(self.is_final):
                    m.d.sync += complete[n].eq(result)
            with m.If(self.load & (self.load_tile == n)):
                m.d.sync += starts[n].eq(self.load_value)
        m.d.comb += self.value.eq(complete[self.select])
        return m


class StreamLine(Component):
    """Steps of k for one row of lhs or one column of rhs, in two halves: one is read while the other is filled.

    Steps in `mask` of the half `fills` are written: from `vector` if `by_vector`, else all with `element`."""

    module_name = "stream_line"

    def __init__(self, depth: int) -> None:
        self.depth = depth
        super().__init__(
            {
                "fills": In(1),
                "mask": In(depth),
                "by_vector": In(1),
                "vector": In(32 * depth),
                "element": In(32),
                "reads": In(1),
                "step": In(range(depth)),
                "value": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        halves = [
            [Signal(32, name=f"step_{half}_{k}", reset_less=True) for k in range(self.depth)] for half in range(2)
        ]
        for half, steps in enumerate(halves):
            for k, step in enumerate(steps):
                with m.If(self.mask[k] & (self.fills == half)):
                    m.d.sync += step.eq(Mux(self.by_vector, self.vector[32 * k : 32 * (k + 1)], self.element))
        m.d.comb += self.value.eq(Array([*halves[0], *halves[1]])[Cat(self.step, self.reads)])
        return m
