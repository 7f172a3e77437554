"""LLVM IR text, and the numerics vocabulary (`tapeout.numerics.builder.Builder`) spelled in it.

`Text` collects one function's lines and names its values. `LlvmBuilder` gives each primitive as instructions on
vectors of one width (scalars for width 1), written where the text currently stands.

Floating-point results carry NaNs of unspecified sign and payload until somebody can tell: `canonical` is only a note
on the value, and the select that makes it true is written at the first use that sees bits (`exact`).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tapeout.errors import InternalError
from tapeout.host.features import HostFeatures
from tapeout.numerics.builder import INTEGER_OF_BITS, Kind
from tapeout.numerics.dtypes import DType

TYPE_OF_KIND = {
    Kind.BOOL: "i1",
    Kind.I8: "i8",
    Kind.I16: "i16",
    Kind.I32: "i32",
    Kind.I64: "i64",
    Kind.F32: "float",
    Kind.F64: "double",
}

CANONICAL_NAN_BITS = {Kind.F32: 0x7FC0_0000, Kind.F64: 0x7FF8_0000_0000_0000}
INFINITY_BITS = {Kind.F32: 0x7F80_0000, Kind.F64: 0x7FF0_0000_0000_0000}


class Text:
    """Lines of one function for a host, in order; the label of the block being written; fresh names; declarations it
    needs."""

    def __init__(self, host: HostFeatures) -> None:
        self.host = host
        self.lines: list[str] = []
        self.block = "entry"
        self.declarations: set[str] = set()
        self._count = 0

    def name(self, stem: str = "v") -> str:
        self._count += 1
        return f"%{stem}{self._count}"

    def add(self, line: str) -> None:
        self.lines.append(line)

    def let(self, expression: str) -> str:
        """A new value."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"{name} = {expression}")
        return name

    def label(self, name: str) -> None:
        self.block = name
        self.lines.append(f"{name}:")

    def call(self, result: str, function: str, *operands: tuple[str, str]) -> str:
        """Call of an LLVM intrinsic; operands are (type, value)."""
        types = ", ".join(kind for kind, _ in operands)
        self.declarations.add(f"declare {result} @{function}({types})")
        return self.let(f"call {result} @{function}({', '.join(f'{k} {v}' for k, v in operands)})")

    def loop(self, extent: int, body: Callable[[str], None], step: int = 1) -> None:
        """Write `body(index)` for index = 0, step, ... < extent. One turn needs no loop."""
        if extent <= step:
            body("0")
            return
        self._count += 1
        label, index, after = f"loop{self._count}", f"%i{self._count}", f"after{self._count}"
        before = self.block
        self.add(f"br label %{label}")
        self.label(label)
        place = len(self.lines)
        self.add("")
        body(index)
        following = self.let(f"add nuw nsw i64 {index}, {step}")
        done = self.let(f"icmp uge i64 {following}, {extent}")
        self.lines[place] = f"{index} = phi i64 [0, %{before}], [{following}, %{self.block}]"
        self.add(f"br i1 {done}, label %{after}, label %{label}")
        self.label(after)


@dataclass(eq=False, slots=True)
class Value:
    """A value of a kind. `ref` is good for arithmetic; `tell`, if there is one, writes the form with canonical NaNs."""

    kind: Kind
    ref: str
    tell: Callable[[], str] | None = None


class LlvmBuilder:
    """The primitives on vectors of `width` elements."""

    def __init__(self, text: Text, width: int) -> None:
        self.text = text
        self.width = width
        self._known: dict[tuple[str, ...], str] = {}
        self._roots: set[str] = set()

    # ------------------------------------------------------------------ types, names

    def type(self, kind: Kind) -> str:
        return TYPE_OF_KIND[kind] if self.width == 1 else f"<{self.width} x {TYPE_OF_KIND[kind]}>"

    def suffix(self, kind: Kind) -> str:
        """Return how an intrinsic's name says the type."""
        name = {"float": "f32", "double": "f64"}.get(TYPE_OF_KIND[kind], TYPE_OF_KIND[kind])
        return name if self.width == 1 else f"v{self.width}{name}"

    def splat(self, kind: Kind, scalar: str) -> str:
        """A constant or a scalar value, repeated."""
        if self.width == 1:
            return scalar
        if not scalar.startswith("%"):
            return f"splat ({TYPE_OF_KIND[kind]} {scalar})"
        kind_type, scalar_type = self.type(kind), TYPE_OF_KIND[kind]
        first = self._let(f"insertelement {kind_type} poison, {scalar_type} {scalar}, i64 0")
        return self._let(f"shufflevector {kind_type} {first}, {kind_type} poison, <{self.width} x i32> zeroinitializer")

    def splat_memory(self, dtype: DType, scalar: str) -> str:
        """A scalar as it lies in memory, repeated."""
        if self.width == 1:
            return scalar
        scalar_type = MEMORY_TYPE[dtype]
        vector_type = f"<{self.width} x {scalar_type}>"
        first = self._let(f"insertelement {vector_type} poison, {scalar_type} {scalar}, i64 0")
        return self._let(
            f"shufflevector {vector_type} {first}, {vector_type} poison, <{self.width} x i32> zeroinitializer"
        )

    def _let(self, expression: str) -> str:
        known = self._known.get((expression,))
        if known is None:
            known = self._known[(expression,)] = self.text.let(expression)
        return known

    def _call(self, result: str, function: str, *operands: tuple[str, str]) -> str:
        key = (function, *(v for _, v in operands))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self.text.call(result, function, *operands)
        return known

    def exact(self, value: Value) -> str:
        """The value with canonical NaNs: what may be stored or looked at bit by bit."""
        if value.tell is not None:
            tell, value.tell = value.tell, None
            value.ref = tell()
        return value.ref

    def kind(self, value: Value) -> Kind:
        return value.kind

    def const(self, kind: Kind, value: int | float | bool, like: Value) -> Value:
        return self.constant(kind, value)

    def constant(self, kind: Kind, value: int | float | bool) -> Value:
        if kind.is_float:
            text = f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
        elif kind is Kind.BOOL:
            text = "true" if value else "false"
        else:
            bits = int(value) & ((1 << kind.bits) - 1)
            text = str(bits - (1 << kind.bits) if bits >> (kind.bits - 1) else bits)
        return Value(kind, self.splat(kind, text))

    # ------------------------------------------------------------------ arithmetic

    def _binary(self, a: Value, b: Value, on_float: str, on_integer: str) -> Value:
        operation = on_float if a.kind.is_float else on_integer
        if not operation or a.kind is not b.kind:
            raise InternalError(f"{on_float or on_integer} of {a.kind} and {b.kind}")
        return Value(a.kind, self._let(f"{operation} {self.type(a.kind)} {a.ref}, {b.ref}"))

    def add(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "fadd", "add")

    def sub(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "fsub", "sub")

    def mul(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "fmul", "mul")

    def div(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "fdiv", "")

    def _intrinsic(self, name: str, *operands: Value) -> Value:
        kind = operands[0].kind
        kind_type = self.type(kind)
        function = f"llvm.{name}.{self.suffix(kind)}"
        return Value(kind, self._call(kind_type, function, *((kind_type, v.ref) for v in operands)))

    def sqrt(self, a: Value) -> Value:
        root = self._intrinsic("sqrt", a)
        self._roots.add(root.ref)
        return root

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self._intrinsic("fma", a, b, c)

    def floor(self, a: Value) -> Value:
        return self._intrinsic("floor", a)

    def ceil(self, a: Value) -> Value:
        return self._intrinsic("ceil", a)

    def trunc(self, a: Value) -> Value:
        return self._intrinsic("trunc", a)

    def round_even(self, a: Value) -> Value:
        return self._intrinsic("roundeven", a)

    def is_nan(self, a: Value) -> Value:
        return Value(Kind.BOOL, self._let(f"fcmp uno {self.type(a.kind)} {a.ref}, {a.ref}"))

    def canonical(self, a: Value) -> Value:
        kind, ref, of_root = a.kind, a.ref, a.ref in self._roots

        def tell() -> str:
            # Chosen as integers: LLVM holds all NaNs to be alike and would drop a choice between floats.
            integer = INTEGER_OF_BITS[kind.bits]
            bits = self._let(f"bitcast {self.type(kind)} {ref} to {self.type(integer)}")
            if of_root:
                # LLVM would ask whether the operand is negative, then find that the root says so itself.
                magnitude = self._let(f"shl {self.type(integer)} {bits}, {self.splat(integer, '1')}")
                infinity = self.splat(integer, str(INFINITY_BITS[kind] * 2 - (1 << kind.bits)))
                nan = self._let(f"icmp ugt {self.type(integer)} {magnitude}, {infinity}")
            else:
                nan = self._let(f"fcmp uno {self.type(kind)} {ref}, {ref}")
            constant = self.splat(integer, str(CANONICAL_NAN_BITS[kind]))
            chosen = self._let(
                f"select {self.type(Kind.BOOL)} {nan}, {self.type(integer)} {constant}, {self.type(integer)} {bits}"
            )
            return self._let(f"bitcast {self.type(integer)} {chosen} to {self.type(kind)}")

        return Value(kind, ref, tell)

    # ------------------------------------------------------------------ comparisons

    def _compare(self, a: Value, b: Value, on_float: str, on_integer: str) -> Value:
        operation = f"fcmp {on_float}" if a.kind.is_float else f"icmp {on_integer}"
        return Value(Kind.BOOL, self._let(f"{operation} {self.type(a.kind)} {a.ref}, {b.ref}"))

    def eq(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "oeq", "eq")

    def ne(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "une", "ne")

    def lt(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "olt", "slt")

    def le(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "ole", "sle")

    def ult(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "", "ult")

    def ule(self, a: Value, b: Value) -> Value:
        return self._compare(a, b, "", "ule")

    # ------------------------------------------------------------------ bits

    def and_(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "and")

    def or_(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "or")

    def xor(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "xor")

    def not_(self, a: Value) -> Value:
        ones = "true" if a.kind is Kind.BOOL else "-1"
        return Value(a.kind, self._let(f"xor {self.type(a.kind)} {a.ref}, {self.splat(a.kind, ones)}"))

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        kind_type, bool_type = self.type(a.kind), self.type(Kind.BOOL)

        def choose(x: str, y: str) -> str:
            return self._let(f"select {bool_type} {condition.ref}, {kind_type} {x}, {kind_type} {y}")

        chosen = choose(a.ref, b.ref)
        if a.tell is None and b.tell is None:
            return Value(a.kind, chosen)
        return Value(a.kind, chosen, lambda: choose(self.exact(a), self.exact(b)))

    # ------------------------------------------------------------------ integers

    def shl(self, a: Value, amount: Value) -> Value:
        return self._binary(a, amount, "", "shl")

    def shr_s(self, a: Value, amount: Value) -> Value:
        return self._binary(a, amount, "", "ashr")

    def shr_u(self, a: Value, amount: Value) -> Value:
        return self._binary(a, amount, "", "lshr")

    def div_s(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "sdiv")

    def div_u(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "udiv")

    def rem_s(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "srem")

    def rem_u(self, a: Value, b: Value) -> Value:
        return self._binary(a, b, "", "urem")

    def leading_zeros(self, a: Value) -> Value:
        kind_type = self.type(a.kind)
        function = f"llvm.ctlz.{self.suffix(a.kind)}"
        return Value(a.kind, self._call(kind_type, function, (kind_type, a.ref), ("i1", "false")))

    def population_count(self, a: Value) -> Value:
        return self._intrinsic("ctpop", a)

    # ------------------------------------------------------------------ from kind to kind

    def _cast(self, operation: str, a: Value, kind: Kind, ref: str | None = None) -> Value:
        if a.kind is kind:
            return a
        return Value(kind, self._let(f"{operation} {self.type(a.kind)} {ref or a.ref} to {self.type(kind)}"))

    def bitcast(self, a: Value, kind: Kind) -> Value:
        return self._cast("bitcast", a, kind, self.exact(a))

    def sign_extend(self, a: Value, kind: Kind) -> Value:
        return self._cast("sext", a, kind)

    def zero_extend(self, a: Value, kind: Kind) -> Value:
        return self._cast("zext", a, kind)

    def truncate(self, a: Value, kind: Kind) -> Value:
        return self._cast("trunc", a, kind)

    def float_convert(self, a: Value, kind: Kind) -> Value:
        return self._cast("fpext" if kind is Kind.F64 else "fptrunc", a, kind)

    def _half(self) -> str:
        return "half" if self.width == 1 else f"<{self.width} x half>"

    def f32_from_f16_bits(self, a: Value) -> Value:
        if not self.text.host.has_half_conversions:
            return self._f32_from_f16_bits_by_integers(a)
        half = self._let(f"bitcast {self.type(Kind.I16)} {a.ref} to {self._half()}")
        return Value(Kind.F32, self._let(f"fpext {self._half()} {half} to {self.type(Kind.F32)}"))

    def f16_bits_from_f32(self, a: Value) -> Value:
        if not self.text.host.has_half_conversions:
            return self._f16_bits_from_f32_by_integers(a)
        half = self._let(f"fptrunc {self.type(Kind.F32)} {self.exact(a)} to {self._half()}")
        return Value(Kind.I16, self._let(f"bitcast {self._half()} {half} to {self.type(Kind.I16)}"))

    def _f32_from_f16_bits_by_integers(self, a: Value) -> Value:
        """Exponent and mantissa where a float has them are the value times 2**(15 - 127), subnormals included."""
        number, wide = self.constant, self.zero_extend(a, Kind.I32)
        magnitude = self.shl(self.and_(wide, number(Kind.I32, 0x7FFF)), number(Kind.I32, 13))
        scaled = self.mul(self.bitcast(magnitude, Kind.F32), number(Kind.F32, 2.0**112))
        beyond = self.or_(magnitude, number(Kind.I32, 0x7F80_0000))
        quiet = self.or_(beyond, number(Kind.I32, 0x0040_0000))
        beyond = self.select(self.ult(number(Kind.I32, 0x7F80_0000), beyond), quiet, beyond)
        is_number = self.ult(magnitude, number(Kind.I32, 0x0F80_0000))
        bits = self.select(is_number, self.bitcast(scaled, Kind.I32), beyond)
        sign = self.shl(self.and_(wide, number(Kind.I32, 0x8000)), number(Kind.I32, 16))
        return self.bitcast(self.or_(bits, sign), Kind.F32)

    def _f16_bits_from_f32_by_integers(self, a: Value) -> Value:
        number, wide = self.constant, self.bitcast(a, Kind.I32)
        magnitude = self.and_(wide, number(Kind.I32, 0x7FFF_FFFF))
        shifted = self.shr_u(magnitude, number(Kind.I32, 13))
        tie = self.add(self.and_(shifted, number(Kind.I32, 1)), number(Kind.I32, 0xFFF - 0x3800_0000))
        normal = self.shr_u(self.add(magnitude, tie), number(Kind.I32, 13))
        # Adding 0.5 leaves the rounded multiple of 2**-24 in the low bits.
        half = number(Kind.F32, 0.5)
        small = self.bitcast(self.add(self.bitcast(magnitude, Kind.F32), half), Kind.I32)
        small = self.sub(small, self.bitcast(half, Kind.I32))
        nan = self.or_(self.and_(shifted, number(Kind.I32, 0x3FF)), number(Kind.I32, 0x7E00))
        beyond = self.select(self.ult(number(Kind.I32, 0x7F80_0000), magnitude), nan, number(Kind.I32, 0x7C00))
        bits = self.select(self.ult(magnitude, number(Kind.I32, 0x3880_0000)), small, normal)
        bits = self.select(self.ult(magnitude, number(Kind.I32, 0x477F_F000)), bits, beyond)
        sign = self.and_(self.shr_u(wide, number(Kind.I32, 16)), number(Kind.I32, 0x8000))
        return self.truncate(self.or_(bits, sign), Kind.I16)

    def float_from_signed(self, a: Value, kind: Kind) -> Value:
        return self._cast("sitofp", a, kind)

    def float_from_unsigned(self, a: Value, kind: Kind) -> Value:
        return self._cast("uitofp", a, kind)

    def signed_from_float(self, a: Value, kind: Kind) -> Value:
        return Value(kind, self._frozen(f"fptosi {self.type(a.kind)} {a.ref} to {self.type(kind)}", kind))

    def unsigned_from_float(self, a: Value, kind: Kind) -> Value:
        return Value(kind, self._frozen(f"fptoui {self.type(a.kind)} {a.ref} to {self.type(kind)}", kind))

    def _frozen(self, expression: str, kind: Kind) -> str:
        """An operation LLVM leaves undefined for some operands: some value, not a licence to delete code."""
        return self._let(f"freeze {self.type(kind)} {self._let(expression)}")


MEMORY_TYPE = {dtype: {DType.F32: "float", DType.F64: "double"}.get(dtype, f"i{dtype.bits}") for dtype in DType}
"""LLVM's type of an element in memory."""
