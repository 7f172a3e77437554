"""Units of one lane: the arithmetic unit (three stages, a step a cycle) and the divider (a bit a cycle).

The sequencer has an arithmetic unit and a divider of its own, without floats. Which operation means what is in
`tapeout.isa.microcode.Operation`; what an operation gives, bit for bit, in `tapeout.numerics.builder`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa.microcode import (
    FLOAT_QUOTIENT_BITS,
    OPERATION_BITS,
    WIDTH_BITS,
    WIDTHS,
    Operation,
    Place,
)
from tapeout.rtl.arithmetic import (
    WINDOW,
    Unrounded,
    add,
    float_from_half,
    float_from_integer,
    half_from_float,
    integer_from_float,
    leading_zeros,
    ones,
    product_of,
    register,
    rounded,
    rounded_to_integer,
    sign_extended,
    unpack,
    unpack_normal,
    wire,
)

ARITHMETIC_STAGES = 3
"""Cycles from operands to result."""

ONE = 0x3F80_0000
MINUS_ZERO = 0x8000_0000


def is_one_of(operation: Value, *choices: Operation) -> Value:
    return operation.matches(*(choice.value for choice in choices))


def width_mask(m: Module, width: Value, name: str) -> Signal:
    """Ones where a value of this width has bits."""
    mask = Signal(64, name=name)
    with m.Switch(width):
        for code, bits in enumerate(WIDTHS):
            with m.Case(code):
                m.d.comb += mask.eq((1 << bits) - 1)
    return mask


def extended(m: Module, value: Value, width: Value, name: str) -> Signal:
    """A value of a width, to 64 bits with its sign."""
    wide = Signal(64, name=name)
    with m.Switch(width):
        for code, bits in enumerate(WIDTHS):
            with m.Case(code):
                m.d.comb += wide.eq(sign_extended(value, bits))
    return wide


class ArithmeticUnit(Component):
    """A step a cycle. `result` belongs to the operands of two cycles before. While `divider_rounds`, it is
    instead the divider's float, rounded."""

    def __init__(self, *, floats: bool) -> None:
        self.floats = floats
        ports = {
            "operation": In(OPERATION_BITS),
            "width": In(WIDTH_BITS),
            "a": In(64),
            "b": In(64),
            "c": In(64),
            "result": Out(64),
        }
        if floats:
            ports |= {
                "divider_rounds": In(1),
                "quotient_window": In(WINDOW),
                "quotient_top": In(signed(11)),
                "quotient_sign": In(1),
                "quotient_is_nan": In(1),
                "quotient_is_infinite": In(1),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        simple = self._simple_result(m)
        mask = width_mask(m, self.width, "mask")
        one = Const(1, 1)

        left, right = self.a[0:32], self.b[0:32]
        if self.floats:
            is_sum = is_one_of(self.operation, Operation.FLOAT_ADD, Operation.FLOAT_SUBTRACT)
            is_float = is_one_of(
                self.operation,
                Operation.FLOAT_ADD,
                Operation.FLOAT_SUBTRACT,
                Operation.FLOAT_MULTIPLY,
                Operation.FLOAT_MULTIPLY_ADD,
            )
            is_float = wire(m, is_float, "is_float")
            factor = wire(m, Mux(is_sum, ONE, self.b[0:32]), "factor")
            addend = Signal(32)
            with m.Switch(self.operation):
                with m.Case(Operation.FLOAT_ADD.value):
                    m.d.comb += addend.eq(self.b)
                with m.Case(Operation.FLOAT_SUBTRACT.value):
                    m.d.comb += addend.eq(self.b ^ MINUS_ZERO)
                with m.Case(Operation.FLOAT_MULTIPLY.value):
                    m.d.comb += addend.eq(MINUS_ZERO)
                with m.Default():
                    m.d.comb += addend.eq(self.c)
            a, b = unpack_normal(m, self.a[0:32], "a"), unpack_normal(m, factor, "b")
            left = wire(m, Mux(is_float, a.significand, left), "left")
            right = wire(m, Mux(is_float, b.significand, right), "right")
        multiplies = wire(m, is_one_of(self.operation, Operation.MULTIPLY), "multiplies")

        product_bits = register(m, left * right, one, "product_bits")
        simple_2 = register(m, simple, one, "simple_2")
        multiplies_2 = register(m, multiplies, one, "multiplies_2")
        mask_2 = register(m, mask, one, "mask_2")
        integral_2 = wire(m, Mux(multiplies_2, product_bits & mask_2, simple_2), "integral_2")
        integral_3 = register(m, integral_2, one, "integral_3")
        if not self.floats:
            m.d.comb += self.result.eq(integral_3)
            return m

        exact = product_of(m, a, b, product_bits[0:48], "product")
        exact_2 = type(exact)(
            bits=product_bits[0:48],
            **{
                name: register(m, value, one, f"product_{name}_2")
                for name, value in vars(exact).items()
                if name != "bits"
            },
        )
        addend_2 = register(m, addend, one, "addend_2")
        total = add(m, exact_2, unpack(m, addend_2, "addend"), "sum").registered(m, one, "sum_3")
        is_float_3 = register(m, register(m, is_float, one, "is_float_2"), one, "is_float_3")
        quotient = Unrounded(
            self.quotient_window,
            self.quotient_top,
            self.quotient_sign,
            self.quotient_is_nan,
            self.quotient_is_infinite,
        )
        chosen = Unrounded(
            **{
                name: wire(m, Mux(self.divider_rounds, getattr(quotient, name), value), f"unrounded_{name}")
                for name, value in vars(total).items()
                if name != "top"
            },
            top=_chosen_top(m, self.divider_rounds, quotient.top, total.top),
        )
        number = rounded(m, chosen, "rounded")
        m.d.comb += self.result.eq(Mux(is_float_3 | self.divider_rounds, number, integral_3))
        return m

    def _simple_result(self, m: Module) -> Signal:
        """Everything but multiplication and float sums, within the first stage."""
        a, b, c, width = self.a, self.b, self.c, self.width
        mask = width_mask(m, width, "result_mask")
        signed_a = extended(m, a, width, "signed_a")
        signed_b = extended(m, b, width, "signed_b")
        raw = Signal(64)
        result = Signal(64)
        m.d.comb += result.eq(raw & mask)
        is_less = wire(m, a < b, "is_less")
        is_equal = wire(m, a == b, "is_equal")
        is_less_signed = wire(m, signed_a.as_signed() < signed_b.as_signed(), "is_less_signed")
        amount = b[0:6]
        magnitude = wire(
            m,
            Mux(is_one_of(self.operation, Operation.FLOAT_FROM_SIGNED) & signed_a[63], -signed_a, a)[0:64],
            "magnitude",
        )
        count, empty = leading_zeros(m, a, "leading")
        zeros = wire(m, Mux(empty, 64, count), "zeros")
        above = Signal(7)
        with m.Switch(width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += above.eq(64 - bits)

        bits_of = {
            Operation.COPY: a,
            Operation.ADD: a + b,
            Operation.SUBTRACT: a - b,
            Operation.AND: a & b,
            Operation.OR: a | b,
            Operation.XOR: a ^ b,
            Operation.NOT: ~a,
            Operation.SHIFT_LEFT: (a << amount)[0:64],
            Operation.SHIFT_RIGHT: a >> amount,
            Operation.SHIFT_RIGHT_SIGNED: signed_a.as_signed() >> amount,
            Operation.LEADING_ZEROS: zeros - above,
            Operation.POPULATION_COUNT: ones(m, a, "ones"),
            Operation.EXTEND_SIGN_8: sign_extended(a, 8),
            Operation.EXTEND_SIGN_16: sign_extended(a, 16),
            Operation.EXTEND_SIGN_32: sign_extended(a, 32),
            Operation.SELECT: Mux(a[0], b, c),
        }
        flags = {
            Operation.EQUAL: is_equal,
            Operation.NOT_EQUAL: ~is_equal,
            Operation.LESS: is_less_signed,
            Operation.LESS_EQUAL: is_less_signed | is_equal,
            Operation.LESS_UNSIGNED: is_less,
            Operation.LESS_EQUAL_UNSIGNED: is_less | is_equal,
        }
        if self.floats:
            half = float_from_half(m, a[0:16], "float_from_half")
            mode = (self.operation - Operation.FLOOR.value)[0:2]
            bits_of |= {
                Operation.FLOAT_FROM_HALF: half,
                Operation.HALF_FROM_FLOAT: half_from_float(m, a[0:32], "half_from_float"),
                Operation.INTEGER_FROM_FLOAT: integer_from_float(m, a[0:32], "integer_from_float"),
            }
            whole = rounded_to_integer(m, a[0:32], mode, "whole")
            bits_of |= dict.fromkeys((Operation.FLOOR, Operation.CEIL, Operation.TRUNC, Operation.ROUND_EVEN), whole)
            is_nan = [wire(m, value[23:31].all() & value[0:23].any(), f"is_nan_{i}") for i, value in enumerate((a, b))]
            bits_of[Operation.CANONICAL] = Mux(is_nan[0], 0x7FC0_0000, a)
            ordered = ~(is_nan[0] | is_nan[1])
            both_zero = ~(a[0:31].any() | b[0:31].any())
            same = wire(m, (a[0:32] == b[0:32]) | both_zero, "is_same_float")
            # Sign and magnitude: compare magnitudes, turned round if both are negative.
            below = wire(
                m,
                Mux(a[31] != b[31], a[31], Mux(a[31], b[0:31] < a[0:31], a[0:31] < b[0:31])) & ~same,
                "is_float_below",
            )
            flags |= {
                Operation.FLOAT_EQUAL: ordered & same,
                Operation.FLOAT_NOT_EQUAL: ~(ordered & same),
                Operation.FLOAT_LESS: ordered & below,
                Operation.FLOAT_LESS_EQUAL: ordered & (below | same),
                Operation.IS_NAN: is_nan[0],
            }
            converted = float_from_integer(
                m,
                magnitude,
                is_one_of(self.operation, Operation.FLOAT_FROM_SIGNED) & signed_a[63],
                "float_from_integer",
            )
        with m.Switch(self.operation):
            for operation, bits in bits_of.items():
                with m.Case(operation.value):
                    m.d.comb += raw.eq(bits)
            for operation, flag in flags.items():
                with m.Case(operation.value):
                    m.d.comb += result.eq(flag)
            if self.floats:
                with m.Case(Operation.FLOAT_FROM_SIGNED.value, Operation.FLOAT_FROM_UNSIGNED.value):
                    m.d.comb += result.eq(converted)
        return result


def _chosen_top(m: Module, condition: Value, a: Value, b: Value) -> Signal:
    top = Signal(signed(11), name="unrounded_top")
    m.d.comb += top.eq(Mux(condition, a, b))
    return top


class Divider(Component):
    """Division and square root, one bit of the result a cycle, by trial subtraction.

    `start` takes the operands. `width` integer bits, or FLOAT_QUOTIENT_BITS for floats, cycles later the result is
    there: integers in `result`; floats as a window for `ArithmeticUnit` to round.
    """

    def __init__(self, *, floats: bool) -> None:
        self.floats = floats
        ports = {
            "start": In(1),
            "operation": In(OPERATION_BITS),
            "width": In(WIDTH_BITS),
            "a": In(64),
            "b": In(64),
            "result": Out(64),
        }
        if floats:
            ports |= {
                "window": Out(WINDOW),
                "top": Out(signed(11)),
                "sign": Out(1),
                "is_nan": Out(1),
                "is_infinite": Out(1),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        remainder, dividend, divisor, quotient = (
            Signal(64, name=name, reset_less=True) for name in ("remainder", "dividend", "divisor", "quotient")
        )
        is_root = Signal(reset_less=True)
        shifted = wire(
            m,
            Mux(is_root, Cat(dividend[62:64], remainder), Cat(dividend[63], remainder, Const(0, 1))),
            "shifted",
        )
        trial = wire(m, Mux(is_root, Cat(Const(1, 2), quotient), Cat(divisor, Const(0, 2))), "trial")
        difference = wire(m, (shifted - trial)[0:67], "difference")
        fits = wire(m, ~difference[66], "fits")
        m.d.sync += [
            remainder.eq(Mux(fits, difference, shifted)),
            quotient.eq(Cat(fits, quotient)),
            dividend.eq(Mux(is_root, dividend << 2, dividend << 1)),
        ]
        is_signed = wire(m, is_one_of(self.operation, Operation.DIVIDE_SIGNED, Operation.REMAINDER_SIGNED), "is_signed")
        signed_a = extended(m, self.a, self.width, "signed_a")
        signed_b = extended(m, self.b, self.width, "signed_b")
        negative_a = wire(m, is_signed & signed_a[63], "negative_a")
        negative_b = wire(m, is_signed & signed_b[63], "negative_b")
        magnitude_a = wire(m, Mux(negative_a, -signed_a, self.a)[0:64], "magnitude_a")
        magnitude_b = wire(m, Mux(negative_b, -signed_b, self.b)[0:64], "magnitude_b")
        aligned = Signal(64)
        with m.Switch(self.width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += aligned.eq(magnitude_a << (64 - bits))
        gives_remainder, negate, mask = Signal(reset_less=True), Signal(reset_less=True), Signal(64, reset_less=True)
        remains = is_one_of(self.operation, Operation.REMAINDER, Operation.REMAINDER_SIGNED)
        with m.If(self.start):
            m.d.sync += [
                remainder.eq(0),
                quotient.eq(0),
                dividend.eq(aligned),
                divisor.eq(magnitude_b),
                is_root.eq(0),
                gives_remainder.eq(remains),
                negate.eq(Mux(remains, negative_a, negative_a ^ negative_b)),
                mask.eq(width_mask(m, self.width, "mask_of_width")),
            ]
        magnitude = wire(m, Mux(gives_remainder, remainder, quotient), "magnitude")
        m.d.comb += self.result.eq(Mux(negate, -magnitude, magnitude) & mask)
        if self.floats:
            self._floats(m, remainder, dividend, divisor, quotient, is_root)
        return m

    def _floats(
        self, m: Module, remainder: Signal, dividend: Signal, divisor: Signal, quotient: Signal, is_root: Signal
    ) -> None:
        a, b = unpack_normal(m, self.a[0:32], "a"), unpack_normal(m, self.b[0:32], "b")
        exponent = Signal(signed(11), reset_less=True)
        quotient_exponent, root_exponent = Signal(signed(11)), Signal(signed(11))
        is_odd = wire(m, ~a.exponent[0], "is_odd")
        m.d.comb += [
            quotient_exponent.eq(a.exponent - b.exponent + 127),
            root_exponent.eq((a.exponent + 127 - is_odd) >> 1),
        ]
        sign, is_zero, is_nan, is_infinite = (
            Signal(name=f"float_{name}", reset_less=True) for name in ("sign", "is_zero", "is_nan", "is_infinite")
        )
        with m.If(self.start & is_one_of(self.operation, Operation.FLOAT_DIVIDE)):
            m.d.sync += [
                remainder.eq(a.significand >> 1),
                dividend.eq(Cat(Const(0, 63), a.significand[0])),
                divisor.eq(b.significand),
                # Far below the smallest subnormal all numbers round alike.
                exponent.eq(Mux(quotient_exponent < -47, -47, quotient_exponent)),
                sign.eq(a.sign ^ b.sign),
                is_zero.eq(a.is_zero | b.is_infinite),
                is_nan.eq(a.is_nan | b.is_nan | (a.is_zero & b.is_zero) | (a.is_infinite & b.is_infinite)),
                is_infinite.eq(a.is_infinite | b.is_zero),
            ]
        with m.If(self.start & is_one_of(self.operation, Operation.FLOAT_SQUARE_ROOT)):
            radicand = Mux(is_odd, Cat(Const(0, 40), a.significand), Cat(Const(0, 39), a.significand))
            m.d.sync += [
                is_root.eq(1),
                dividend.eq(radicand),
                exponent.eq(root_exponent),
                sign.eq(a.sign & a.is_zero),
                is_zero.eq(a.is_zero),
                is_nan.eq(a.is_nan | (a.sign & ~a.is_zero)),
                is_infinite.eq(a.is_infinite),
            ]
        padding = WINDOW - 1 - FLOAT_QUOTIENT_BITS
        window = Cat(remainder.any(), quotient[0:FLOAT_QUOTIENT_BITS], Const(0, padding))
        m.d.comb += [
            self.window.eq(Mux(is_zero, 0, window)),
            self.top.eq(exponent + padding),
            self.sign.eq(sign),
            self.is_nan.eq(is_nan),
            self.is_infinite.eq(is_infinite),
        ]


class Lane(Component):
    """Temporaries, arithmetic unit and divider of one lane; `group_count` groups take turns.

    Reads: `read_*` are the addresses (group and temporary) of the three sources; a cycle later come `operation`,
    `width`, `place_*` and the values of the other places. Two cycles after that `result` is there, and is
    written to `write_address` if `write`.
    """

    module_name = "lane"

    def __init__(self, *, group_count: int, temporary_count: int) -> None:
        self.group_bits = (group_count - 1).bit_length()
        self.temporary_bits = (temporary_count - 1).bit_length()
        address = self.group_bits + self.temporary_bits
        ports = {"operation": In(OPERATION_BITS), "width": In(WIDTH_BITS)}
        for name in "abc":
            ports |= {
                f"read_{name}": In(address),
                f"place_{name}": In(2),
                f"operand_{name}": In(64),
                f"constant_{name}": In(64),
                f"special_{name}": In(64),
            }
        ports |= {
            "write": In(1),
            "write_address": In(address),
            "divider_start": In(1),
            "divider_rounds": In(1),
            "divider_writes": In(1),
            "result": Out(64),
        }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = 1 << (self.group_bits + self.temporary_bits)
        m.submodules.temporaries = memory = Memory(shape=unsigned(64), depth=depth, init=[])
        m.submodules.arithmetic = unit = ArithmeticUnit(floats=True)
        m.submodules.divider = divider = Divider(floats=True)
        for name in "abc":
            port = memory.read_port()
            m.d.comb += [port.addr.eq(getattr(self, f"read_{name}")), port.en.eq(1)]
            value = getattr(unit, name)
            with m.Switch(getattr(self, f"place_{name}")):
                for place, source in (
                    (Place.TEMPORARY, port.data),
                    (Place.OPERAND, getattr(self, f"operand_{name}")),
                    (Place.CONSTANT, getattr(self, f"constant_{name}")),
                    (Place.SPECIAL, getattr(self, f"special_{name}")),
                ):
                    with m.Case(place.value):
                        m.d.comb += value.eq(source)
        m.d.comb += [
            unit.operation.eq(self.operation),
            unit.width.eq(self.width),
            divider.start.eq(self.divider_start),
            divider.operation.eq(self.operation),
            divider.width.eq(self.width),
            divider.a.eq(unit.a),
            divider.b.eq(unit.b),
            unit.divider_rounds.eq(self.divider_rounds),
            unit.quotient_window.eq(divider.window),
            unit.quotient_top.eq(divider.top),
            unit.quotient_sign.eq(divider.sign),
            unit.quotient_is_nan.eq(divider.is_nan),
            unit.quotient_is_infinite.eq(divider.is_infinite),
            self.result.eq(Mux(self.divider_writes & ~self.divider_rounds, divider.result, unit.result)),
        ]
        write = memory.write_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.write_address), write.data.eq(self.result)]
        return m
