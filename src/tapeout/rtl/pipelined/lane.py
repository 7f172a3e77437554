"""A lane of the pipelined vector engine: operands in, a result a cycle later by `LANE_CYCLES`, an element a cycle.

Stages: operands widened; operation (three stages of the arithmetic unit); result narrowed. Each is told what to do by
the recipe of the instruction whose element is in it, which the engine delays once for all lanes.
"""

import struct

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa.microcode import OPERATION_BITS, WIDTH_BITS, WIDTHS
from tapeout.numerics.dtypes import CANONICAL_NAN, DType
from tapeout.numerics.functions import NARROW_FORMATS, NarrowFormat
from tapeout.numerics.operations import Rounding
from tapeout.rtl.arithmetic import NAN, half_from_float, integer_from_float, register, wire
from tapeout.rtl.lane import ONE, ArithmeticUnit, extended
from tapeout.rtl.matrix import widened
from tapeout.rtl.pipelined.recipes import FIELD_BITS, Extra, First, Second

WIDEN_STAGE, OPERATE_STAGE, CHOOSE_STAGE, NARROW_STAGE = 1, 2, 4, 5
LANE_CYCLES = 6
"""Cycles from operands to their result: a register before each stage and one after the last."""
INFINITY = 0x7F80_0000


class PipelinedLane(Component):
    """See the module. Operands belong to stage 0; `stage_n` parts of a recipe to stage n."""

    module_name = "pipelined_lane"

    def __init__(self) -> None:
        super().__init__(
            {
                "a": In(64),
                "b": In(64),
                "c": In(64),
                "widened": In(FIELD_BITS["widened"]),
                "operation": In(OPERATION_BITS),
                "width": In(WIDTH_BITS),
                "first": In(FIELD_BITS["first"]),
                "second": In(FIELD_BITS["second"]),
                "extra": In(FIELD_BITS["extra"]),
                "chosen_extra": In(FIELD_BITS["extra"]),
                "narrowed": In(FIELD_BITS["narrowed"]),
                "rounding": In(FIELD_BITS["rounding"]),
                "result": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one = Const(1, 1)
        operands = []
        for name in "abc":
            raw = register(m, getattr(self, name), one, f"raw_{name}")
            is_float = self.widened.matches(*(dtype.code for dtype in DType if dtype.is_float))
            wide = Mux(is_float, widened(m, self.widened, raw, f"wide_{name}"), raw)
            operands.append(register(m, wide, one, f"operand_{name}"))
        a, b, c = operands
        m.submodules.unit = unit = ArithmeticUnit(floats=True)
        sign_bit, second = Signal(64), Signal(64)
        with m.Switch(self.width):
            for code, bits in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += sign_bit.eq(1 << (bits - 1))
        with m.Switch(self.second):
            for choice, value in (
                (Second.B, b),
                (Second.A, a),
                (Second.SIGN_BIT, sign_bit),
                (Second.ALL_BUT_SIGN, sign_bit - 1),
                (Second.UNIT, 1),
            ):
                with m.Case(choice.value):
                    m.d.comb += second.eq(value)
        m.d.comb += [
            unit.operation.eq(self.operation),
            unit.width.eq(self.width),
            unit.a.eq(Mux(self.first == First.ONE.value, ONE, a)),
            unit.b.eq(second),
            unit.c.eq(c),
            unit.divider_rounds.eq(0),
        ]
        extra = register(m, extra_result(m, self.extra, self.width, a, b), one, "extra_3")
        extra = register(m, extra, one, "extra_4")
        value = register(m, Mux(self.chosen_extra.any(), extra, unit.result), one, "value")
        m.d.comb += self.result.eq(register(m, narrowed(m, self.narrowed, self.rounding, value), one, "narrow"))
        return m


def extra_result(m: Module, extra: Value, width: Value, a: Value, b: Value) -> Signal:
    """What is not an operation of microprograms, from operands of a width, or from floats."""
    signed_a, signed_b = extended(m, a, width, "extra_signed_a"), extended(m, b, width, "extra_signed_b")
    less = wire(m, signed_a.as_signed() < signed_b.as_signed(), "extra_is_less")
    below = wire(m, a < b, "extra_is_below")
    bits = Signal(7, name="extra_bits")
    with m.Switch(width):
        for code, count in enumerate(WIDTHS):
            with m.Case(code):
                m.d.comb += bits.eq(count)
    within = wire(m, b < bits, "extra_within")
    amount = b[0:6]
    mask = wire(m, ((Const(1, 65) << bits) - 1)[0:64], "extra_mask")
    nan_a, nan_b = (wire(m, x[0:31] > INFINITY, f"extra_nan_{n}") for n, x in zip("ab", (a, b), strict=True))
    # As whole numbers of sign and magnitude, -0 below +0.
    smaller = wire(m, Mux(a[31] != b[31], a[31], Mux(a[31], b[0:31] < a[0:31], a[0:31] < b[0:31])), "extra_is_smaller")

    def picked(is_first: Value, if_nan_a: Value, if_nan_b: Value) -> Value:
        return Mux(nan_a, if_nan_a, Mux(nan_b, if_nan_b, Mux(is_first, a[0:32], b[0:32])))

    nan = Const(NAN, 32)
    other_a, other_b = Mux(nan_b, nan, b[0:32]), a[0:32]
    values = {
        Extra.MIN_SIGNED: Mux(less, a, b),
        Extra.MAX_SIGNED: Mux(less, b, a),
        Extra.MIN_UNSIGNED: Mux(below, a, b),
        Extra.MAX_UNSIGNED: Mux(below, b, a),
        Extra.MINIMUM: picked(smaller, nan, nan),
        Extra.MAXIMUM: picked(~smaller, nan, nan),
        Extra.MIN_NUMBER: picked(smaller, other_a, other_b),
        Extra.MAX_NUMBER: picked(~smaller, other_a, other_b),
        Extra.SHIFT_LEFT: Mux(within, (a << amount)[0:64] & mask, 0),
        Extra.SHIFT_RIGHT: Mux(within, a >> amount, 0),
        Extra.SHIFT_RIGHT_SIGNED: Mux(within, (signed_a.as_signed() >> amount)[0:64], signed_a[63].replicate(64))
        & mask,
        Extra.TO_SIGNED: _saturated(m, a[0:32], bits, mask, is_signed=True) & mask,
        Extra.TO_UNSIGNED: _saturated(m, a[0:32], bits, mask, is_signed=False) & mask,
    }
    result = Signal(64, name="extra_result")
    with m.Switch(extra):
        for which, value in values.items():
            with m.Case(which.value):
                m.d.comb += result.eq(value)
    return result


def _saturated(m: Module, number: Value, bits: Value, mask: Value, *, is_signed: bool) -> Value:
    """A float32 toward zero as an integer of so many bits; what does not fit as the nearest, NaN as 0."""
    name = "signed" if is_signed else "unsigned"
    exponent, negative = number[23:31], number[31]
    is_nan = number[0:31] > INFINITY
    limit = wire(m, (bits + (126 if is_signed else 127))[0:9], f"{name}_limit")
    beyond = wire(m, exponent >= limit, f"{name}_is_beyond")
    whole = integer_from_float(m, number, f"to_{name}")
    if is_signed:
        most = mask >> 1
        value = Mux(beyond, Mux(negative, ~most, most), whole)
    else:
        value = Mux(negative, 0, Mux(beyond, mask, whole))
    return wire(m, Mux(is_nan, 0, value), f"to_{name}")


def narrowed(m: Module, dtype: Value, rounding: Value, value: Value) -> Signal:
    """A float32, no NaN but the canonical one, rounded to a type; anything for another type as it is."""
    bits = value[0:32]
    saturates = rounding == Rounding.NEAREST_EVEN_SATURATE.code
    toward_zero = rounding == Rounding.TOWARD_ZERO.code
    largest = Signal(31, name="largest")
    with m.Switch(dtype):
        for narrow, form in NARROW_FORMATS.items():
            with m.Case(narrow.code):
                m.d.comb += largest.eq(_bits_of(form.largest))
    clamps = wire(m, saturates & (bits[0:31] > largest) & (bits[0:31] <= INFINITY), "clamps")
    number = wire(m, Cat(Mux(clamps, largest, bits[0:31]), bits[31]), "number")
    increment = Mux(toward_zero, 0, 0x7FFF + number[16])
    brain = wire(m, (number + increment)[16:32], "as_bf16")
    half = half_from_float(m, number, "as_f16")
    result = Signal(64, name="narrowed_result")
    with m.Switch(dtype):
        with m.Case(DType.BF16.code):
            m.d.comb += result.eq(brain)
        with m.Case(DType.F16.code):
            cut = by_fields(m, number, Const(1, 1), DType.F16)
            m.d.comb += result.eq(Mux(toward_zero, cut, half))
        for narrow in (DType.F8E4M3, DType.F8E5M2):
            with m.Case(narrow.code):
                m.d.comb += result.eq(by_fields(m, number, toward_zero, narrow))
        with m.Default():
            m.d.comb += result.eq(value)
    return result


def by_fields(m: Module, number: Value, toward_zero: Value, dtype: DType) -> Signal:
    """A float32 rounded to a narrow type, as `tapeout.numerics.functions` defines it: normal numbers in their fields,
    subnormal ones as a number of the type's smallest steps."""
    form: NarrowFormat = NARROW_FORMATS[dtype]
    name, dropped = f"as_{dtype.label}", 23 - form.mantissa_bits
    magnitude, sign, exponent = number[0:31], number[31], number[23:31]
    increment = Mux(toward_zero, 0, ((1 << (dropped - 1)) - 1) + magnitude[dropped])
    rounded = wire(m, (magnitude + increment)[0:32], f"{name}_rounded")
    normal = wire(m, ((rounded >> dropped) - ((127 - form.bias) << form.mantissa_bits))[0:32], f"{name}_normal")
    # Steps of 2**-(bias - 1 + mantissa_bits) each: so many places are shifted out.
    places = wire(m, (151 - form.bias - form.mantissa_bits - Mux(exponent.any(), exponent, 1))[0:9], f"{name}_places")
    shift = wire(m, Mux(places > 26, 26, places[0:5]), f"{name}_shift")
    significand = Cat(number[0:23], exponent.any())
    wide = wire(m, Cat(Const(0, 26), significand) >> shift, f"{name}_wide")
    up = ~toward_zero & wide[25] & (wide[0:25].any() | wide[26])
    subnormal = wire(m, wide[26:50] + up, f"{name}_subnormal")
    is_small = magnitude < ((128 - form.bias) << 23)
    code = wire(m, Mux(is_small, subnormal, normal), f"{name}_code")
    beyond = Mux(toward_zero & (magnitude != INFINITY), form.largest_code, form.overflow_code)
    limited = wire(m, Mux(code > form.largest_code, beyond, code)[0 : dtype.bits], f"{name}_limited")
    nan_code = CANONICAL_NAN[dtype]
    is_nan = magnitude > INFINITY
    if form.overflow_code == nan_code:  # no infinity: overflow gives the NaN, without sign
        is_nan = is_nan | (limited == nan_code)
    with_sign = limited | Mux(sign, 1 << (dtype.bits - 1), 0)
    return wire(m, Mux(is_nan, nan_code, with_sign)[0 : dtype.bits], f"{name}_result")


def _bits_of(value: float) -> int:
    """A positive float32 as bits."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])
