"""The sequencer's arithmetic: functions of two 64-bit registers on an element type.

Sums, comparisons, shifts and counts are there in the cycle they are asked for, products two cycles later, quotients
after a bit a cycle. Operands are cut to the type; results are extended with its sign (a flag's with zeros).
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa.microcode import OPERATION_BITS, WIDTHS, Operation
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function
from tapeout.rtl.arithmetic import leading_zeros, ones, wire
from tapeout.rtl.lane import Divider, extended

PRODUCTS = (Function.MUL, Function.MUL_HIGH_SIGNED, Function.MUL_HIGH_UNSIGNED)
DIVISIONS = {
    Function.DIV_SIGNED: Operation.DIVIDE_SIGNED,
    Function.DIV_UNSIGNED: Operation.DIVIDE,
    Function.REM_SIGNED: Operation.REMAINDER_SIGNED,
    Function.REM_UNSIGNED: Operation.REMAINDER,
}
HALF = 32
PRODUCT_CYCLES = 2
"""Cycles from a product's operands to the cycle its result is there in."""


def is_one_of(function: Value, *choices: Function) -> Value:
    return function.matches(*(choice.code for choice in choices))


class ScalarUnit(Component):
    """`start` for a cycle, operands kept until `done`; `result` is there with `done`."""

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "function": In(8),
                "dtype": In(4),
                "a": In(64),
                "b": In(64),
                "done": Out(1),
                "result": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Signal(3)
        is_flag = wire(m, self.dtype == DType.I1.code, "is_flag")
        with m.Switch(self.dtype):
            for dtype in DType:
                with m.Case(dtype.code):
                    m.d.comb += width.eq(0 if dtype is DType.I1 else WIDTHS.index(dtype.bits))
        cut = [Signal(64, name=f"cut_{x}") for x in "ab"]
        with m.Switch(width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += [mine.eq(theirs[0:bits]) for mine, theirs in zip(cut, (self.a, self.b), strict=True)]
        a, b = cut
        signed_a, signed_b = (
            wire(m, Mux(is_flag, value, extended(m, value, width, f"extended_{x}")), f"signed_{x}")
            for x, value in zip("ab", cut, strict=True)
        )
        value, is_flag_result = self._at_once(m, a, b, signed_a, signed_b, width)
        product = self._product(m, a, b, signed_a, signed_b, width)
        quotient, quotient_done = self._quotient(m, width)

        is_product = wire(m, is_one_of(self.function, *PRODUCTS), "is_product")
        is_division = wire(m, is_one_of(self.function, *DIVISIONS), "is_division")
        stages = [self.start & is_product]
        for number in range(PRODUCT_CYCLES):
            later = Signal(name=f"product_{number}")
            m.d.sync += later.eq(stages[-1])
            stages.append(later)
        m.d.comb += self.done.eq(Mux(is_product, stages[-1], Mux(is_division, quotient_done, self.start)))
        chosen = wire(m, Mux(is_product, product, Mux(is_division, quotient, value)), "chosen")
        m.d.comb += self.result.eq(
            Mux(is_flag_result | is_flag, chosen[0], extended(m, chosen, width, "extended_result"))
        )
        return m

    def _at_once(
        self, m: Module, a: Value, b: Value, signed_a: Value, signed_b: Value, width: Value
    ) -> tuple[Signal, Signal]:
        """Everything but products and quotients, and whether that is a flag."""
        value, is_flag = Signal(64, name="at_once"), Signal(name="is_flag_result")
        less = wire(m, signed_a.as_signed() < signed_b.as_signed(), "is_less")
        below = wire(m, a < b, "is_below")
        equal = wire(m, a == b, "is_equal")
        bits = Signal(7)
        with m.Switch(width):
            for code, count in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += bits.eq(count)
        within = wire(m, b < bits, "is_within")
        amount = b[0:6]
        zeros, empty = leading_zeros(m, a, "leading")
        fill = wire(m, signed_a[63].replicate(64), "fill")
        values = {
            Function.COPY: a,
            Function.ADD: a + b,
            Function.SUB: a - b,
            Function.AND: a & b,
            Function.OR: a | b,
            Function.XOR: a ^ b,
            Function.SHIFT_LEFT: Mux(within, (a << amount)[0:64], 0),
            Function.SHIFT_RIGHT_UNSIGNED: Mux(within, a >> amount, 0),
            Function.SHIFT_RIGHT_SIGNED: Mux(within, (signed_a.as_signed() >> amount)[0:64], fill),
            Function.MIN_SIGNED: Mux(less, a, b),
            Function.MAX_SIGNED: Mux(less, b, a),
            Function.MIN_UNSIGNED: Mux(below, a, b),
            Function.MAX_UNSIGNED: Mux(below, b, a),
            Function.COUNT_LEADING_ZEROS: Mux(empty, 64, zeros) - (64 - bits),
            Function.POPULATION_COUNT: ones(m, a, "ones"),
        }
        flags = {
            Function.EQUAL: equal,
            Function.NOT_EQUAL: ~equal,
            Function.LESS: less,
            Function.LESS_EQUAL: less | equal,
            Function.LESS_UNSIGNED: below,
            Function.LESS_EQUAL_UNSIGNED: below | equal,
        }
        with m.Switch(self.function):
            for function, result in (values | flags).items():
                with m.Case(function.code):
                    m.d.comb += [value.eq(result), is_flag.eq(function in flags)]
        return value, is_flag

    def _product(self, m: Module, a: Value, b: Value, signed_a: Value, signed_b: Value, width: Value) -> Signal:
        """The part of the product that the function asks for: four products of halves, a cycle later their sum."""
        is_signed = wire(m, is_one_of(self.function, Function.MUL_HIGH_SIGNED), "product_is_signed")
        operands = []
        for x, plain, with_sign in (("a", a, signed_a), ("b", b, signed_b)):
            chosen = wire(m, Mux(is_signed, with_sign, plain), f"factor_{x}")
            high = wire(m, Cat(chosen[HALF:], is_signed & chosen[63]).as_signed(), f"factor_{x}_high")
            operands.append((Cat(chosen[0:HALF], Const(0, 1)).as_signed(), high))
        total: Value = Const(0, 1)
        for i in range(2):
            for j in range(2):
                part = Signal.like(operands[0][i] * operands[1][j], name=f"product_{i}_{j}", reset_less=True)
                m.d.sync += part.eq(operands[0][i] * operands[1][j])
                total = total + (part << (HALF * (i + j)))
        summed = Signal(128, name="product", reset_less=True)
        m.d.sync += summed.eq(total)
        shifted = Signal(64, name="product_part")
        with m.Switch(width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += shifted.eq(Mux(is_one_of(self.function, Function.MUL), summed[0:64], summed >> bits))
        return shifted

    def _quotient(self, m: Module, width: Value) -> tuple[Value, Value]:
        """Quotient or remainder, and whether it is there. Of zero: all ones, and the dividend."""
        m.submodules.divider = divider = Divider(floats=False)
        operation = Signal(OPERATION_BITS)
        with m.Switch(self.function):
            for function, of in DIVISIONS.items():
                with m.Case(function.code):
                    m.d.comb += operation.eq(of.value)
        left, busy = Signal(7), Signal()
        a, b = Signal(64, name="dividend"), Signal(64, name="divisor")
        with m.Switch(width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += [a.eq(self.a[0:bits]), b.eq(self.b[0:bits])]
        m.d.comb += [
            divider.start.eq(self.start),
            divider.operation.eq(operation),
            divider.width.eq(width),
            divider.a.eq(a),
            divider.b.eq(b),
        ]
        with m.If(self.start):
            m.d.sync += busy.eq(is_one_of(self.function, *DIVISIONS))
            with m.Switch(width):
                for code, bits in enumerate(WIDTHS):
                    with m.Case(code):
                        m.d.sync += left.eq(bits)
        with m.Elif(busy):
            m.d.sync += left.eq(left - 1)
            with m.If(left == 0):
                m.d.sync += busy.eq(0)
        is_quotient = is_one_of(self.function, Function.DIV_SIGNED, Function.DIV_UNSIGNED)
        of_zero = wire(m, ~b.any(), "divides_by_zero")
        result = Mux(of_zero, Mux(is_quotient, Const((1 << 64) - 1, 64), a), divider.result)
        return result, busy & (left == 0)
