"""The element type of each tile operand of each instruction."""

from typing import Any

from tapeout.isa import fields
from tapeout.numerics.dtypes import DType


def operand_dtype(item: Any, name: str) -> DType:
    """Type of the elements of operand `name`."""
    return fields.operand_dtype(type(item), name, item)
