"""Facts that the sanitizer needs to check an instruction: constants, and the registers it reads."""

from dataclasses import dataclass

from tapeout.isa import AccessPattern, Instruction, Operand, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit, operands
from tapeout.numerics.dtypes import DType
from tapeout.sim.functional import abi

MEMORY = {isa.Load: 1, isa.LoadIndexed: 1, isa.Store: 2, isa.StoreIndexed: 2, isa.Atomic: 3}
NONE = -1
SCALAR = (1, 1, 1, 1)


@dataclass(frozen=True)
class Checks:
    """Checks made while a kernel runs. `values`: also where NaNs and infinities first appear."""

    values: bool = False


@dataclass(frozen=True)
class _Operand:
    name: str
    dtype: DType
    written: bool
    operand: Operand


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
    uses = [use for use in operands(item) if not (use.name == "mask" and use.operand == RegisterValue(0))]  # no mask
    found = [_Operand(use.name, use.dtype, use.writes, use.operand) for use in uses]
    return found + [_Operand("accumulated", use.dtype, False, use.operand) for use in uses if use.reads and use.writes]


def _words(operand: _Operand, shape: tuple[int, ...]) -> list[int]:
    size = operand.dtype.size_bytes
    head = [size, operand.dtype.code, int(operand.written)]
    if isinstance(operand.operand, RegisterValue):
        return [*head, 1, 0, *SCALAR, 0, 0, 0, 0]
    strides = operand.operand.strides
    extents = [extent if stride else 1 for extent, stride in zip(shape, strides, strict=True)]
    return [*head, 0, operand.operand.base, *extents, *(stride * size for stride in strides)]


def check_values(item: Instruction) -> list[tuple[int, int]]:
    """For each word of CheckValues the register that holds it, or 0 and a constant."""
    shape = getattr(item, "shape", SCALAR)
    strides: tuple[int, ...] = (0,) * 4
    low, high = strides, strides
    if isinstance(item, isa.Bounded):
        strides, low, high = item.strides, item.low, item.high
    words = [(register, 0) for register in (getattr(item, "base", 0), *strides, *low)]
    words += [(register, extent) for register, extent in zip(high, shape, strict=True)]
    offsets = [operand.operand.register for operand in _operands(item)]
    return words + [(register, 0) for register in offsets] + [(0, 0)] * (abi.CHECKED_OPERANDS - len(offsets))
