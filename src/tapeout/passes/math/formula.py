"""Operations on tiles written as formulas: `fma(x, x, 1.0) / y` appends `math.fma` and `arith.divf` to a kernel.

A `Term` is a value of the tile IR together with the list its successors are appended to. Python numbers become
constants of the other operand's type. Shapes follow the operands, which all have one shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tapeout.numerics.dtypes import DType, exact_bits
from tapeout.tile.ir import Block, Operation, Region, Type, Value, make

Number = int | float
NAN, INFINITY = math.nan, math.inf
UNROLLED_STEPS = 8
INTEGER_OF_FLOAT = {
    DType.F64: DType.I64,
    DType.F32: DType.I32,
    DType.BF16: DType.I16,
    DType.F16: DType.I16,
    DType.F8E4M3: DType.I8,
    DType.F8E5M2: DType.I8,
}


@dataclass(eq=False, frozen=True, slots=True)
class Term:
    """A value that formulas can be made of. Integers are signed where it matters."""

    value: Value
    operations: list[Operation]
    location: str = ""

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.type.shape

    def emit(self, name: str, operands: "list[Term]", dtype: DType, attributes: dict[str, Any] | None = None) -> "Term":
        """A new operation with one result of this term's shape."""
        return self.emit_shaped(name, operands, Type(dtype, self.shape), attributes)

    def emit_shaped(
        self, name: str, operands: "list[Term]", type: Type, attributes: dict[str, Any] | None = None
    ) -> "Term":
        operation = make(name, [operand.value for operand in operands], [type], attributes, self.location)
        self.operations.append(operation)
        return Term(operation.result, self.operations, self.location)

    def constant(self, number: Number, dtype: DType | None = None) -> "Term":
        """A tile of this shape and type (or of `dtype`) that is one number everywhere, rounded to the type."""
        dtype = dtype or self.dtype
        bits = exact_bits(float(number), dtype) if dtype.is_float else int(number)
        return self.emit("arith.constant", [], dtype, {"value": bits})

    def match(self, other: "Term | Number") -> "Term":
        return other if isinstance(other, Term) else self.constant(other)

    def _binary(self, suffix: str, other: "Term | Number", swapped: bool = False) -> "Term":
        operands = [self, self.match(other)]
        kind = (
            suffix
            if suffix[-2:] in ("si", "ui") or suffix in ("andi", "ori", "xori", "shli")
            else (suffix + ("f" if self.dtype.is_float else "i"))
        )
        return self.emit(f"arith.{kind}", operands[::-1] if swapped else operands, self.dtype)

    def _compare(self, predicate: str, other: "Term | Number") -> "Term":
        words = {"words": [(("une" if predicate == "ne" else "o" + predicate) if self.dtype.is_float else predicate)]}
        if not self.dtype.is_float and predicate not in ("eq", "ne"):
            words = {"words": ["s" + predicate]}
        name = "arith.cmpf" if self.dtype.is_float else "arith.cmpi"
        return self.emit(name, [self, self.match(other)], DType.I1, words)

    def __add__(self, other: "Term | Number") -> "Term":
        return self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: "Term | Number") -> "Term":
        return self._binary("sub", other)

    def __rsub__(self, other: "Term | Number") -> "Term":
        return self._binary("sub", other, swapped=True)

    def __mul__(self, other: "Term | Number") -> "Term":
        return self._binary("mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: "Term | Number") -> "Term":
        return self._binary("div", other)

    def __rtruediv__(self, other: "Term | Number") -> "Term":
        return self._binary("div", other, swapped=True)

    def __neg__(self) -> "Term":
        return self.emit("arith.negf", [self], self.dtype) if self.dtype.is_float else 0 - self

    def __and__(self, other: "Term | Number") -> "Term":
        return self._binary("andi", other)

    def __or__(self, other: "Term | Number") -> "Term":
        return self._binary("ori", other)

    def __xor__(self, other: "Term | Number") -> "Term":
        return self._binary("xori", other)

    def __invert__(self) -> "Term":
        return self ^ (1 if self.dtype is DType.I1 else -1)

    def __lshift__(self, other: "Term | Number") -> "Term":
        return self._binary("shli", other)

    def __rshift__(self, other: "Term | Number") -> "Term":
        """Keeps the sign; see `shift_right_unsigned`."""
        return self._binary("shrsi", other)

    def shift_right_unsigned(self, other: "Term | Number") -> "Term":
        return self._binary("shrui", other)

    def remainder_unsigned(self, other: "Term | Number") -> "Term":
        return self._binary("remui", other)

    def __lt__(self, other: "Term | Number") -> "Term":
        return self._compare("lt", other)

    def __le__(self, other: "Term | Number") -> "Term":
        return self._compare("le", other)

    def __gt__(self, other: "Term | Number") -> "Term":
        return self._compare("gt", other)

    def __ge__(self, other: "Term | Number") -> "Term":
        return self._compare("ge", other)

    def equals(self, other: "Term | Number") -> "Term":
        return self._compare("eq", other)

    def differs(self, other: "Term | Number") -> "Term":
        return self._compare("ne", other)

    def __abs__(self) -> "Term":
        return self.emit("math.absf" if self.dtype.is_float else "math.absi", [self], self.dtype)


Formula = Callable[..., Term]
"""Makes the terms of a result from those of the operands."""


def fma(a: Term, b: Term | Number, c: Term | Number) -> Term:
    """a * b + c, rounded once."""
    return a.emit("math.fma", [a, a.match(b), a.match(c)], a.dtype)


def select(condition: Term, a: Term | Number, b: Term | Number) -> Term:
    """a where the condition holds, else b; one of them is a term."""
    like = a if isinstance(a, Term) else b
    assert isinstance(like, Term)
    return like.emit("arith.select", [condition, like.match(a), like.match(b)], like.dtype)


def smaller(a: Term, b: Term | Number) -> Term:
    """min; of floats the other one if one is NaN."""
    return a.emit("arith.minnumf" if a.dtype.is_float else "arith.minsi", [a, a.match(b)], a.dtype)


def larger(a: Term, b: Term | Number) -> Term:
    return a.emit("arith.maxnumf" if a.dtype.is_float else "arith.maxsi", [a, a.match(b)], a.dtype)


def unary(name: str, a: Term) -> Term:
    """`sqrt`, `floor`, `exp2`, ...: an operation `math.<name>`."""
    return a.emit(f"math.{name}", [a], a.dtype)


def bits(a: Term) -> Term:
    """A float's bits as an integer of its width."""
    return a.emit("tt.bitcast", [a], INTEGER_OF_FLOAT[a.dtype])


def from_bits(a: Term, dtype: DType) -> Term:
    return a.emit("tt.bitcast", [a], dtype)


def widen(a: Term, dtype: DType) -> Term:
    """A float as a wider one, exactly; or the same."""
    return a if a.dtype is dtype else a.emit("arith.extf", [a], dtype)


def narrow(a: Term, dtype: DType) -> Term:
    return a if a.dtype is dtype else a.emit("arith.truncf", [a], dtype)


def to_integer(a: Term, dtype: DType, unsigned: bool = False) -> Term:
    """A float toward zero, saturating."""
    return a.emit("arith.fptoui" if unsigned else "arith.fptosi", [a], dtype)


def to_float(a: Term, dtype: DType, unsigned: bool = False) -> Term:
    return a.emit("arith.uitofp" if unsigned else "arith.sitofp", [a], dtype)


def resize(a: Term, dtype: DType, unsigned: bool = False) -> Term:
    """An integer in another width: low bits, or extended."""
    if a.dtype is dtype:
        return a
    if dtype.bits < a.dtype.bits:
        return a.emit("arith.trunci", [a], dtype)
    return a.emit("arith.extui" if unsigned or a.dtype is DType.I1 else "arith.extsi", [a], dtype)


def polynomial(x: Term, *coefficients: float) -> Term:
    """Horner's rule, highest power first, one fma a step."""
    value: Term | Number = coefficients[0]
    for coefficient in coefficients[1:]:
        value = fma(x, value, coefficient)
    assert isinstance(value, Term)
    return value


def is_nan(a: Term) -> Term:
    return a.differs(a)


def with_sign_of(magnitude: Term, sign: Term) -> Term:
    """|magnitude| with the sign bit of `sign`."""
    smallest = -(1 << (sign.dtype.bits - 1))
    return from_bits((bits(magnitude) & ~smallest) | (bits(sign) & smallest), magnitude.dtype)


def repeat(count: int, carried: tuple[Term, ...], step: Callable[..., tuple[Term, ...]]) -> tuple[Term, ...]:
    """The carried terms after `count` steps: a loop, unrolled where it is short."""
    if count <= UNROLLED_STEPS:
        for _ in range(count):
            carried = step(*carried)
        return carried
    like = carried[0]
    arguments = [Value(term.value.type) for term in carried]
    inside: list[Operation] = []
    after = step(*(Term(argument, inside, like.location) for argument in arguments))
    inside.append(Operation("scf.yield", [term.value for term in after], [], location=like.location))
    limits = [like.emit_shaped("arith.constant", [], Type(DType.I32), {"value": n}).value for n in (0, count, 1)]
    operands = [*limits, *(term.value for term in carried)]
    types = [term.value.type for term in carried]
    loop = make("scf.for", operands, types, {"unsigned": False}, like.location)
    loop.regions = [Region([Block([Value(Type(DType.I32)), *arguments], inside)])]
    like.operations.append(loop)
    return tuple(Term(result, like.operations, like.location) for result in loop.results)
