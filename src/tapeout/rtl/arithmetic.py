"""Float32 hardware: what an operand's bits say, the fused multiply-add in three stages, and conversions.

Takes and gives Amaranth values; each function adds logic to a module. Numbers are IEEE 754 with subnormals,
rounded to nearest even; a NaN result is the canonical NaN. Exponents are biased by 127 throughout, so the smallest
normal exponent is 1; they are signed and may leave 1..254 until a number is packed.

The sum of a fused multiply-add is held in a window of 76 bits. Bit 0 says whether anything was lost below;
the product's 48 bits are 1 to 48; the addend's 24 bits lie between the top (52 to 75) and nothing, by exponent. An
addend so large that it would lie higher turns the product into something that only rounds, so it stays at the top.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

NAN = 0x7FC0_0000
WINDOW = 76
PRODUCT_BITS = 48
TOP_OVER_PRODUCT = 28
"""Exponent of the window's top bit relative to the product's (that of a product in 1..2)."""


def wire(m: Module, value: Value, name: str) -> Signal:
    """A named signal that always has this value."""
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def sign_extended(value: Value, bits: int) -> Value:
    """The lowest bits as a signed number of 64 bits. Not with a signed shape: in Verilog that names the sign for each
    bit above it, and a simulator then computes each."""
    above = (1 << 64) - (1 << bits)
    return Mux(value[bits - 1], value | above, value[0:bits]) if above else value


def leading_zeros(m: Module, value: Value, name: str) -> tuple[Value, Value]:
    """Zeros above the highest one, and whether there is no one at all (then the count means nothing).

    By halves: the upper one is looked into if it has a one, else the lower; what has a one is found out for all parts
    at once. (A tree of counters, a node for each bit, takes a simulator many times as long: it computes whole words.)
    """
    levels = (len(value) - 1).bit_length()
    padded: Value = Cat(Const(0, (1 << levels) - len(value)), value)
    some, has_one = _parts_with_ones(m, padded, name)
    is_in_upper: list[Value] = []
    for k in reversed(range(levels)):
        half = 1 << k
        upper = wire(m, some[k][half], f"{name}_is_in_upper_{half}")
        is_in_upper.insert(0, upper)
        some = [wire(m, Mux(upper, one[half:], one[:half]), f"{name}_{half}_at_{n}") for n, one in enumerate(some[:k])]
    return wire(m, ~Cat(is_in_upper), f"{name}_count"), ~has_one


def _parts_with_ones(m: Module, value: Value, name: str) -> tuple[list[Value], Value]:
    """Return, for each k and multiple of 2**k, whether the next 2**k bits have a one; and whether any bit is one. In
    words of at most 64 bits, which a simulator computes at once."""
    width = len(value)
    if width > 64:
        low, in_low = _parts_with_ones(m, value[: width // 2], f"{name}_low")
        high, in_high = _parts_with_ones(m, value[width // 2 :], f"{name}_high")
        both = [Cat(one, other) for one, other in zip(low, high, strict=True)]
        return [*both, Cat(in_low, Const(0, width // 2 - 1), in_high)], in_low | in_high
    some = [wire(m, value, f"{name}_bits")]
    for k in range(width.bit_length() - 1):
        some.append(wire(m, some[k] | (some[k] >> (1 << k)), f"{name}_some_of_{2 << k}"))
    return some[:-1], some[-1][0]


def ones(m: Module, value: Value, name: str) -> Value:
    """Return how many ones a value of 64 bits has: sums of neighbours, two bits wide, then four, and so on."""
    for width in (1, 2, 4, 8, 16, 32):
        lower = sum(((1 << width) - 1) << place for place in range(0, 64, 2 * width))
        value = wire(m, ((value & lower) + ((value >> width) & lower))[0:64], f"{name}_of_{2 * width}")
    return value[0:7]


@dataclass(frozen=True)
class Operand:
    """A float32 taken apart: value = significand * 2**(exponent - 127 - 23), unless infinite or NaN."""

    sign: Value
    exponent: Value
    significand: Value
    is_zero: Value
    is_infinite: Value
    is_nan: Value


def unpack(m: Module, bits: Value, name: str) -> Operand:
    """Unpack a float without normalising it: a subnormal's significand has leading zeros."""
    fraction, exponent = bits[0:23], bits[23:31]
    is_normal, is_top = exponent.any(), exponent.all()
    return Operand(
        sign=bits[31],
        exponent=wire(m, Mux(is_normal, exponent, 1), f"{name}_exponent"),
        significand=Cat(fraction, is_normal),
        is_zero=wire(m, ~bits[0:31].any(), f"{name}_is_zero"),
        is_infinite=wire(m, is_top & ~fraction.any(), f"{name}_is_infinite"),
        is_nan=wire(m, is_top & fraction.any(), f"{name}_is_nan"),
    )


def unpack_normal(m: Module, bits: Value, name: str) -> Operand:
    """Unpack a float and shift its significand up until the top bit is set (not for zero)."""
    raw = unpack(m, bits, name)
    count, _ = leading_zeros(m, raw.significand, f"{name}_zeros")
    exponent = Signal(signed(10), name=f"{name}_normal_exponent")
    significand = Signal(24, name=f"{name}_significand")
    m.d.comb += [exponent.eq(raw.exponent - count), significand.eq(raw.significand << count)]
    return Operand(raw.sign, exponent, significand, raw.is_zero, raw.is_infinite, raw.is_nan)


@dataclass(frozen=True)
class Unrounded:
    """A number before rounding: window * 2**(top - 127 - 75), its lowest bit standing for all that lies below; or
    what overrides it. `top`, at least 1, is the exponent if the window's top bit is set."""

    window: Value
    top: Value
    sign: Value
    is_nan: Value
    is_infinite: Value

    def registered(self, m: Module, enable: Value, name: str) -> "Unrounded":
        """The same one cycle later."""
        return Unrounded(
            **{field: register(m, value, enable, f"{name}_{field}") for field, value in vars(self).items()}
        )


def register(m: Module, value: Value, enable: Value, name: str) -> Signal:
    """The value one cycle later, kept while not enabled. Not reset: something valid travels beside it."""
    signal = Signal(value.shape(), name=name, reset_less=True)
    with m.If(enable):
        m.d.sync += signal.eq(value)
    return signal


@dataclass(frozen=True)
class Product:
    """An exact product: bits * 2**(exponent - 127 - 46), bits in 2**46..2**48 unless it is zero."""

    bits: Value
    exponent: Value
    sign: Value
    is_zero: Value
    is_infinite: Value
    is_nan: Value


def product_of(m: Module, a: Operand, b: Operand, bits: Value, name: str) -> Product:
    """All of a product but its bits, which the caller multiplies. a and b are normal."""
    exponent = Signal(signed(11), name=f"{name}_exponent")
    m.d.comb += exponent.eq(a.exponent + b.exponent - 127)
    return Product(
        bits=bits,
        exponent=exponent,
        sign=wire(m, a.sign ^ b.sign, f"{name}_sign"),
        is_zero=wire(m, a.is_zero | b.is_zero, f"{name}_is_zero"),
        is_infinite=wire(m, a.is_infinite | b.is_infinite, f"{name}_is_infinite"),
        is_nan=wire(
            m, a.is_nan | b.is_nan | (a.is_infinite & b.is_zero) | (a.is_zero & b.is_infinite), f"{name}_is_nan"
        ),
    )


@dataclass(frozen=True)
class Aligned:
    """Both summands of product + addend at their places in the window; or what overrides the sum."""

    of_product: Value
    of_addend: Value
    base: Value
    subtract: Value
    product_sign: Value
    special_sign: Value
    is_nan: Value
    is_infinite: Value

    def registered(self, m: Module, enable: Value, name: str) -> "Aligned":
        """The same one cycle later."""
        return Aligned(**{field: register(m, value, enable, f"{name}_{field}") for field, value in vars(self).items()})


def aligned_summands(m: Module, product: Product, addend: Operand, name: str) -> Aligned:
    """The addend shifted to where the product lies; what falls below the window is one bit."""
    base = Signal(signed(11), name=f"{name}_base")
    lowest = Signal(signed(11), name=f"{name}_lowest_base")
    m.d.comb += lowest.eq(addend.exponent.as_unsigned() - TOP_OVER_PRODUCT)
    below = wire(m, product.is_zero | (product.exponent < lowest), f"{name}_product_is_below")
    m.d.comb += base.eq(Mux(below, lowest, product.exponent))

    distance = Signal(signed(12), name=f"{name}_distance")
    m.d.comb += distance.eq(base - lowest)
    shift = wire(m, Mux(distance > WINDOW - 1, WINDOW - 1, distance[0:7]), f"{name}_shift")
    aligned = wire(m, (Cat(Const(0, 51), addend.significand) >> shift)[0:75], f"{name}_aligned")
    # Bits are lost once more than 51 places are shifted.
    over = wire(m, Mux(shift > 51, (shift - 51)[0:5], 0), f"{name}_places_lost")
    ones = Const((1 << 24) - 1, 24)
    lost = wire(m, (addend.significand & ~(ones << over)[0:24]).any(), f"{name}_lost")

    subtract = wire(m, product.sign ^ addend.sign, f"{name}_subtract")
    of_product = wire(m, Cat(Const(0, 1), Mux(product.is_zero, 0, product.bits), Const(0, 28)), f"{name}_product")
    of_addend = wire(m, Cat(lost, aligned, Const(0, 1)), f"{name}_addend")
    return Aligned(
        of_product=of_product,
        of_addend=of_addend,
        base=base,
        subtract=subtract,
        product_sign=product.sign,
        special_sign=wire(m, Mux(product.is_infinite, product.sign, addend.sign), f"{name}_special_sign"),
        is_nan=wire(
            m,
            product.is_nan | addend.is_nan | (product.is_infinite & addend.is_infinite & subtract),
            f"{name}_is_nan",
        ),
        is_infinite=wire(m, product.is_infinite | addend.is_infinite, f"{name}_is_infinite"),
    )


def summed(m: Module, parts: Aligned, name: str) -> Unrounded:
    """The sum of aligned summands."""
    subtract = parts.subtract
    total = wire(
        m, (parts.of_product + Mux(subtract, ~parts.of_addend, parts.of_addend) + subtract)[0:77], f"{name}_total"
    )
    negative = wire(m, subtract & total[76], f"{name}_is_negative")
    window = wire(m, Mux(negative, (~total + 1)[0:76], total[0:76]), f"{name}_window")
    top = Signal(signed(11), name=f"{name}_top")
    m.d.comb += top.eq(parts.base + TOP_OVER_PRODUCT)
    is_empty = ~total.any()
    return Unrounded(
        window=window,
        top=top,
        sign=wire(
            m,
            Mux(
                parts.is_infinite,
                parts.special_sign,
                Mux(is_empty, parts.product_sign & ~subtract, parts.product_sign ^ negative),
            ),
            f"{name}_sign",
        ),
        is_nan=parts.is_nan,
        is_infinite=parts.is_infinite,
    )


def add(m: Module, product: Product, addend: Operand, name: str) -> Unrounded:
    """product + addend, exactly, but for what falls below the window."""
    return summed(m, aligned_summands(m, product, addend, name), name)


@dataclass(frozen=True)
class Normalised:
    """A number shifted so that its highest one, unless it is subnormal, is the top bit of the window."""

    shifted: Value
    exponent: Value
    sign: Value
    is_nan: Value
    is_infinite: Value

    def registered(self, m: Module, enable: Value, name: str) -> "Normalised":
        """The same one cycle later."""
        return Normalised(
            **{field: register(m, value, enable, f"{name}_{field}") for field, value in vars(self).items()}
        )


def normalised(m: Module, number: Unrounded, name: str) -> Normalised:
    """The number's window shifted up, and the exponent that goes with it."""
    count, _ = leading_zeros(m, number.window, f"{name}_zeros")
    limit = wire(m, (number.top - 1)[0:10], f"{name}_limit")
    shift = wire(m, Mux(limit < count, limit[0:7], count), f"{name}_shift")
    shifted = wire(m, (number.window << shift)[0:WINDOW], f"{name}_shifted")
    exponent = wire(m, Mux(shifted[75], (number.top - shift)[0:10], 0), f"{name}_exponent")
    return Normalised(shifted, exponent, number.sign, number.is_nan, number.is_infinite)


def packed_float(m: Module, number: Normalised, name: str) -> Signal:
    """The nearest float32, as bits."""
    shifted = number.shifted
    half, rest = shifted[51], shifted[0:51].any()
    up = wire(m, half & (rest | shifted[52]), f"{name}_up")
    packed = wire(m, (Cat(shifted[52:75], number.exponent) + up)[0:33], f"{name}_packed")
    overflows = number.is_infinite | (packed[23:33] >= 255)
    result = Signal(32, name=f"{name}_result")
    with m.If(number.is_nan):
        m.d.comb += result.eq(NAN)
    with m.Elif(overflows):
        m.d.comb += result.eq(Cat(Const(0, 23), Const(255, 8), number.sign))
    with m.Else():
        m.d.comb += result.eq(Cat(packed[0:31], number.sign))
    return result


def rounded(m: Module, number: Unrounded, name: str) -> Signal:
    """The nearest float32, as bits."""
    return packed_float(m, normalised(m, number, name), name)


def rounded_to_integer(m: Module, bits: Value, mode: Value, name: str) -> Signal:
    """floor, ceil, trunc or round_even (mode 0 to 3), sign of zero kept, NaN canonical."""
    magnitude, exponent, sign = bits[0:31], bits[23:31], bits[31]
    is_nan = wire(m, exponent.all() & bits[0:23].any(), f"{name}_is_nan")
    is_small = wire(m, exponent < 127, f"{name}_is_below_one")
    is_whole = wire(m, exponent >= 150, f"{name}_is_whole")
    places = wire(m, Mux(is_whole, 0, Mux(is_small, 23, (150 - exponent)[0:5])), f"{name}_places")
    one = wire(m, (Const(1, 24) << places)[0:24], f"{name}_one")
    mask = wire(m, (one - 1)[0:23], f"{name}_mask")
    kept = wire(m, Cat(bits[0:23] & ~mask, exponent), f"{name}_kept")
    lost = wire(m, (bits[0:23] & mask).any(), f"{name}_lost")
    half = wire(m, one >> 1, f"{name}_half")
    is_half_or_more = (bits[0:23] & half).any()
    is_above_half = is_half_or_more & (bits[0:23] & mask & ~half).any()
    is_odd = Mux(exponent == 127, 1, (bits[0:23] & one[0:23]).any())
    up = Signal(name=f"{name}_up")
    up_small = Signal(name=f"{name}_up_to_one")
    with m.Switch(mode):
        with m.Case(0):
            m.d.comb += [up.eq(sign & lost), up_small.eq(sign & magnitude.any())]
        with m.Case(1):
            m.d.comb += [up.eq(~sign & lost), up_small.eq(~sign & magnitude.any())]
        with m.Case(3):
            m.d.comb += [
                up.eq(is_above_half | (is_half_or_more & is_odd)),
                up_small.eq((exponent == 126) & bits[0:23].any()),
            ]
    result = Signal(32, name=f"{name}_result")
    with m.If(is_nan):
        m.d.comb += result.eq(NAN)
    with m.Elif(is_whole):
        m.d.comb += result.eq(bits)
    with m.Elif(is_small):
        m.d.comb += result.eq(Cat(Mux(up_small, Const(0x3F80_0000, 31), 0), sign))
    with m.Else():
        m.d.comb += result.eq(Cat((kept + Mux(up, one, 0))[0:31], sign))
    return result


def float_from_integer(m: Module, magnitude: Value, sign: Value, name: str) -> Signal:
    """A 64-bit magnitude and a sign, rounded once."""
    count, empty = leading_zeros(m, magnitude, f"{name}_zeros")
    normal = wire(m, (magnitude << count)[0:64], f"{name}_normal")
    exponent = wire(m, (127 + 63 - count)[0:8], f"{name}_exponent")
    up = normal[39] & (normal[0:39].any() | normal[40])
    packed = wire(m, (Cat(normal[40:63], exponent) + up)[0:31], f"{name}_packed")
    return wire(m, Mux(empty, 0, Cat(packed, sign)), f"{name}_result")


def integer_from_float(m: Module, bits: Value, name: str) -> Signal:
    """Toward zero, 64 bits of two's complement; anything for what does not fit."""
    exponent = bits[23:31]
    significand = Cat(bits[0:23], exponent.any())
    left = wire(m, Mux(exponent > 190, 63, (exponent - 127)[0:6]), f"{name}_places")
    # The significand's top bit counts 2**(exponent - 127).
    shifted = wire(m, (Cat(significand, Const(0, 63)) << left)[23:87], f"{name}_shifted")
    magnitude = wire(m, Mux(exponent < 127, 0, shifted), f"{name}_magnitude")
    return wire(m, Mux(bits[31], -magnitude, magnitude)[0:64], f"{name}_result")


def float_from_half(m: Module, half: Value, name: str) -> Signal:
    """IEEE half to float32, exact; NaN canonical."""
    fraction, exponent, sign = half[0:10], half[10:15], half[15]
    count, empty = leading_zeros(m, fraction, f"{name}_zeros")
    normal = wire(m, (fraction << (count + 1)[0:4])[0:10], f"{name}_normal")
    result = Signal(32, name=f"{name}_result")
    with m.If(exponent.all() & fraction.any()):
        m.d.comb += result.eq(NAN)
    with m.Elif(exponent.all()):
        m.d.comb += result.eq(Cat(Const(0, 23), Const(255, 8), sign))
    with m.Elif(exponent.any()):
        m.d.comb += result.eq(Cat(Const(0, 13), fraction, (exponent + 112)[0:8], sign))
    with m.Else():
        m.d.comb += result.eq(Cat(Const(0, 13), Mux(empty, 0, normal), Mux(empty, 0, (112 - count)[0:8]), sign))
    return result


def half_from_float(m: Module, bits: Value, name: str) -> Signal:
    """float32 to the nearest IEEE half; NaN canonical."""
    fraction, exponent, sign = bits[0:23], bits[23:31], bits[31]
    is_normal = wire(m, exponent >= 113, f"{name}_is_normal")
    places = wire(m, Mux(is_normal, 0, Mux(exponent < 101, 12, (113 - exponent)[0:4])), f"{name}_places")
    # 11 bits stay, 13 are rounded; a subnormal half loses up to 12 more.
    wide = wire(m, Cat(Const(0, 13), fraction, exponent.any()) >> places, f"{name}_wide")
    kept, half = wide[26:37], wide[25]
    up = wire(m, half & (wide[0:25].any() | kept[0]), f"{name}_up")
    field = wire(m, Mux(is_normal, (exponent - 112)[0:8], 0), f"{name}_exponent")
    packed = wire(m, (Cat(kept[0:10], field) + up)[0:18], f"{name}_packed")
    result = Signal(16, name=f"{name}_result")
    with m.If(exponent.all() & fraction.any()):
        m.d.comb += result.eq(0x7E00)
    with m.Elif(packed[10:18] >= 31):
        m.d.comb += result.eq(Cat(Const(0, 10), Const(31, 5), sign))
    with m.Else():
        m.d.comb += result.eq(Cat(packed[0:15], sign))
    return result
