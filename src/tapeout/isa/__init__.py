"""The instruction set: definitions, and the encoding, assembly and manual derived from them."""

from tapeout.isa.definitions import *  # noqa: F403
from tapeout.isa.fields import (
    AccessPattern,
    EncodingError,
    Instruction,
    Operand,
    RegisterValue,
    Unit,
)
from tapeout.isa.program import Parameter, Program, assemble, decode, encode, show
from tapeout.numerics.operations import AtomicFunction, Function, Rounding

__all__ = [
    "AccessPattern",
    "AtomicFunction",
    "EncodingError",
    "Function",
    "Instruction",
    "Operand",
    "Parameter",
    "Program",
    "RegisterValue",
    "Rounding",
    "Unit",
    "assemble",
    "decode",
    "encode",
    "show",
]
