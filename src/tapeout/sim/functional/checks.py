"""What the sanitizer must know of an instruction to check it: constant facts, and which registers it needs."""

from dataclasses import dataclass
from typing import Any

from tapeout.isa import AccessPattern, Instruction, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit
from tapeout.numerics.dtypes import DType
from tapeout.sim.functional import abi
from tapeout.sim.functional.analysis import operands
from tapeout.sim.functional.operands import operand_dtype

MEMORY = {isa.Load: 1, isa.LoadIndexed: 1, isa.Store: 2, isa.StoreIndexed: 2, isa.Atomic: 3}
NONE = -1
SCALAR = (1, 1, 1, 1)


@dataclass(frozen=True)
class Checks:
    """What is checked while a kernel runs. `values`: also where NaNs and infinities are born."""

    values: bool = False


@dataclass(frozen=True)
class _Operand:
    name: str
    dtype: DType
    written: bool
    operand: AccessPattern | RegisterValue


def check_facts(index: int, item: Instruction, checks: Checks) -> list[int]:
    """The words of CheckFacts."""
    found = _operands(item)
    position = {operand.name: number for number, operand in enumerate(found)}
    dtype: DType = item.dtype if hasattr(item, "dtype") else DType.I8  # matrix products touch no memory
    shape = getattr(item, "shape", SCALAR)
    scale = item.stride * dtype.size_bytes if isinstance(item, isa.Gather) else getattr(item, "scale", 0)
    is_arithmetic = item.unit in (Unit.VECTOR, Unit.MATRIX) and not isinstance(item, isa.Gather | isa.Iota)
    words = [index, MEMORY.get(type(item), 0), dtype.size_bytes, *shape]
    words += [position.get("index", NONE), position.get("mask", NONE), scale]
    words += [position["source"] if isinstance(item, isa.Gather) else NONE]
    words += [int(checks.values and is_arithmetic), len(found)]
    for operand in found:
        words += _words(operand, shape)
    return words + [0] * (abi.size_of("CheckFacts") // 8 - len(words))


def _operands(item: Instruction) -> list[_Operand]:
    match item:
        case isa.ScalarLoad() | isa.ScalarStore():
            pattern = AccessPattern(item.address, (0, 0, 0, 0), item.offset)
            return [_Operand("scalar", item.dtype, isinstance(item, isa.ScalarStore), pattern)]
    found = [_Operand(name, operand_dtype(item, name), written, operand) for name, operand, written in operands(item)]
    found = [o for o in found if not (o.name == "mask" and o.operand == RegisterValue(0))]  # no mask
    if isinstance(item, isa.MatrixMultiply) and item.accumulate:
        found.append(_Operand("accumulated", operand_dtype(item, "accumulator"), False, item.accumulator))
    return found


def _words(operand: _Operand, shape: tuple[int, ...]) -> list[int]:
    size = operand.dtype.size_bytes
    head = [size, operand.dtype.code, int(operand.written)]
    if isinstance(operand.operand, RegisterValue):
        return [*head, 1, 0, *SCALAR, 0, 0, 0, 0]
    strides = operand.operand.strides
    extents = [extent if stride else 1 for extent, stride in zip(shape, strides, strict=True)]
    return [*head, 0, operand.operand.base, *extents, *(stride * size for stride in strides)]


def check_values(item: Any) -> list[tuple[int, int]]:
    """For each word of CheckValues the register that holds it, or 0 and a constant."""
    shape = getattr(item, "shape", SCALAR)
    bounds = isinstance(item, isa.Load | isa.LoadIndexed | isa.Store | isa.StoreIndexed)
    strides, low = (item.strides, item.low) if bounds else ((0,) * 4, (0,) * 4)
    high = item.high if bounds else (0,) * 4
    words = [(register, 0) for register in (getattr(item, "base", 0), *strides, *low)]
    words += [(register, extent) for register, extent in zip(high, shape, strict=True)]
    offsets = [operand.operand.register for operand in _operands(item)]
    return words + [(register, 0) for register in offsets] + [(0, 0)] * (abi.CHECKED_OPERANDS - len(offsets))
