"""The element type of each tile operand of each instruction."""

from typing import Any

from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import accumulator_dtype


def operand_dtype(item: Any, name: str) -> DType:
    """Type of the elements of operand `name`."""
    if name == "mask":
        return DType.I1
    if name == "index":
        return item.index_dtype
    match item:
        case isa.Map1() | isa.Map2() | isa.Map3():
            if name == "result":
                return item.function.result_dtype(item.dtype)
            return item.function.operand_dtypes(item.dtype)["abc".index(name)]
        case isa.Convert():
            return item.result_dtype if name == "result" else item.dtype
        case isa.MatrixMultiply():
            if name == "accumulator":
                return accumulator_dtype(item.lhs_dtype)
            return item.lhs_dtype if name == "lhs" else item.rhs_dtype
        case _:
            return item.dtype
