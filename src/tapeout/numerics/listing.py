"""A function's definition written down: a builder whose values are names and whose operations are lines of text.

`listing(function, dtype)` gives what `tapeout.numerics.functions` does for one element, one primitive a line, for the
manual and for whoever builds the hardware.
"""

import math
from dataclasses import dataclass
from typing import Any

from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import MEANING
from tapeout.numerics.operations import Function

PREDICATES = ("is_nan", "eq", "ne", "lt", "le", "ult", "ule")
KIND_OF_RESULT = {"f32_from_f16_bits": Kind.F32, "f16_bits_from_f32": Kind.I16}


@dataclass(frozen=True)
class Name:
    """A value in a listing: a variable, or a constant spelled out."""

    text: str
    kind: Kind


class ListingBuilder:
    """`tapeout.numerics.builder.Builder` on names. Equal lines are written once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: dict[str, Name] = {}

    def kind(self, value: Name) -> Kind:
        return value.kind

    def const(self, kind: Kind, value: int | float | bool, like: Name) -> Name:
        if kind.is_float:
            return Name(_shown_float(float(value)), kind)
        return Name(hex(int(value)) if abs(value) > 255 else str(int(value)), kind)

    def __getattr__(self, operation: str) -> Any:
        def write(*operands: Any) -> Name:
            return self._write(operation.rstrip("_"), *operands)

        return write

    def _write(self, operation: str, *operands: Any) -> Name:
        kind = Kind.BOOL if operation in PREDICATES else KIND_OF_RESULT.get(operation)
        texts = []
        for operand in operands:
            if isinstance(operand, Kind):  # a conversion says where to
                kind = operand
                texts.append(operand.label)
            else:
                kind = kind or (operands[1] if operation == "select" else operand).kind
                texts.append(operand.text)
        expression = f"{operation}({', '.join(texts)})"
        if expression not in self._known:
            assert kind is not None
            name = Name(f"t{len(self.lines) + 1}", kind)
            self.lines.append(f"{name.text}: {kind.label} = {expression}")
            self._known[expression] = name
        return self._known[expression]


def _shown_float(value: float) -> str:
    """Hexadecimal without the zeros at the end, so that every bit can be read off."""
    if value == 0.0 or not math.isfinite(value):
        return str(value)
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}"


def listing(function: Function, dtype: DType) -> list[str]:
    """Lines `t3: f32 = fma(t1, t2, 0x1.8p+1)`; the operands are a, b, c and the last line gives the result."""
    builder: Any = ListingBuilder()
    kinds = (KIND_OF_DTYPE[operand] for operand in function.operand_dtypes(dtype))
    operands = [Name(letter, kind) for letter, kind in zip("abc", kinds, strict=False)]
    result = MEANING[function](builder, dtype, *operands)
    return [*builder.lines, f"result = {result.text}"]
