"""Python numbers beside tensors: what a number is in a tensor's type, as torch has it, and as a word of a launch.

torch turns a number into an element in two ways. Beside a tensor it is an operand: a tensor of one element that is cast
as tensors are, so that integers wrap, fractions fall off and half types round. Where it is stored as it stands (fills)
the type must be able to hold it, and torch raises where it cannot. Both are taken from torch itself.
"""

import struct
from typing import Any

import torch

Number = bool | int | float

REALS = (torch.float32, torch.float64)  # their words are made of the Python number at once
INTEGERS = {dtype: torch.iinfo(dtype) for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)}


def operand(value: Number, dtype: torch.dtype) -> Number:
    """The number as an operand of that type."""
    if dtype in REALS:
        return float(value)
    if dtype == torch.bool:
        return bool(value)
    if dtype in INTEGERS and not isinstance(value, float) and INTEGERS[dtype].min <= value <= INTEGERS[dtype].max:
        return int(value)
    own = torch.float64 if isinstance(value, float) else torch.int64
    return torch.scalar_tensor(value, dtype=own, device="cpu").to(dtype).item()


def element(value: Number, dtype: torch.dtype) -> Number:
    """The number as an element of that type. Raises RuntimeError if the type cannot hold it."""
    return torch.full((2,), value, dtype=dtype, device="cpu")[0].item()  # torch does not look where there is only one


def word(value: Any, dtype: torch.dtype) -> int:
    """A number as the 64-bit word a kernel of that compute type takes."""
    if dtype == torch.float32:
        bits: int = struct.unpack("<I", struct.pack("<f", _saturated(float(value))))[0]
        return bits
    if dtype == torch.float64:
        bits = struct.unpack("<Q", struct.pack("<d", float(value)))[0]
        return bits
    return int(value)


def _saturated(value: float) -> float:
    """A double beyond float32's range is infinite there; struct would refuse it."""
    return value if value != value or abs(value) <= 3.4028235677973366e38 else float("inf") * (1 if value > 0 else -1)
