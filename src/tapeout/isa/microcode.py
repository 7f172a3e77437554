"""Functions as steps a lane executes, one primitive a step, derived from their one definition.

Takes what `tapeout.numerics.functions` says (run here over a builder that notes what it is asked) and gives
programs of `Step`s: operation, width, where the operands come from, where the result goes. Reinterpreting bits
and extending with zeros cost nothing, because a lane holds every value extended with zeros to 64 bits; whatever is
not used is left out; temporaries share places once their value is dead.

The engines run these programs; `rom` lays all of them out in one memory. The number of steps of a program is what
the vector engine's time depends on.
"""

import enum
import functools
import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tapeout.errors import InternalError
from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import CANONICAL_NAN, DType
from tapeout.numerics.functions import MEANING, convert
from tapeout.numerics.operations import INTEGERS, LOGICAL, REDUCTIONS, Function, Rounding


class Operation(enum.Enum):
    """Operation of a lane in one step; the value is its code. Integer results are cut to the step's width."""

    COPY = 0
    ADD = 1
    SUBTRACT = 2
    AND = 3
    OR = 4
    XOR = 5
    NOT = 6
    SHIFT_LEFT = 7
    SHIFT_RIGHT = 8
    SHIFT_RIGHT_SIGNED = 9
    LEADING_ZEROS = 10
    POPULATION_COUNT = 11
    EXTEND_SIGN_8 = 12
    EXTEND_SIGN_16 = 13
    EXTEND_SIGN_32 = 14
    SELECT = 15
    EQUAL = 16
    NOT_EQUAL = 17
    LESS = 18
    LESS_EQUAL = 19
    LESS_UNSIGNED = 20
    LESS_EQUAL_UNSIGNED = 21
    FLOAT_EQUAL = 22
    FLOAT_NOT_EQUAL = 23
    FLOAT_LESS = 24
    FLOAT_LESS_EQUAL = 25
    IS_NAN = 26
    CANONICAL = 27
    FLOOR = 28
    CEIL = 29
    TRUNC = 30
    ROUND_EVEN = 31
    FLOAT_FROM_HALF = 32
    HALF_FROM_FLOAT = 33
    FLOAT_FROM_SIGNED = 34
    FLOAT_FROM_UNSIGNED = 35
    INTEGER_FROM_FLOAT = 36
    MULTIPLY = 37
    """The 64-bit product of the low 32 bits of both, unsigned."""
    FLOAT_ADD = 38
    FLOAT_SUBTRACT = 39
    FLOAT_MULTIPLY = 40
    FLOAT_MULTIPLY_ADD = 41
    DIVIDE = 48
    REMAINDER = 49
    DIVIDE_SIGNED = 50
    REMAINDER_SIGNED = 51
    FLOAT_DIVIDE = 52
    FLOAT_SQUARE_ROOT = 53


ITERATIVE = frozenset(op for op in Operation if op.value >= Operation.DIVIDE.value)
"""Operations of the divider, which works on one group of elements at a time."""

FLOAT_QUOTIENT_BITS = 27
"""Bits of a float's quotient or root: 24 stay, one rounds, the first may be zero, one is to spare."""


def division_cycles(operation: Operation, width: int) -> int:
    """Cycles the divider turns: a bit of the result each."""
    is_float = operation in (Operation.FLOAT_DIVIDE, Operation.FLOAT_SQUARE_ROOT)
    return FLOAT_QUOTIENT_BITS if is_float else width


GIVES_CANONICAL = frozenset(
    {
        Operation.CANONICAL,
        Operation.FLOOR,
        Operation.CEIL,
        Operation.TRUNC,
        Operation.ROUND_EVEN,
        Operation.FLOAT_FROM_HALF,
        Operation.FLOAT_FROM_SIGNED,
        Operation.FLOAT_FROM_UNSIGNED,
        Operation.FLOAT_ADD,
        Operation.FLOAT_SUBTRACT,
        Operation.FLOAT_MULTIPLY,
        Operation.FLOAT_MULTIPLY_ADD,
        Operation.FLOAT_DIVIDE,
        Operation.FLOAT_SQUARE_ROOT,
    }
)
"""Operations whose result is never a NaN other than the canonical one."""

WIDTHS = (1, 8, 16, 32, 64)
"""A step's width by its code."""


class Place(enum.Enum):
    """Place of a value; the enumeration's value is its code."""

    TEMPORARY = 0
    OPERAND = 1
    CONSTANT = 2
    SPECIAL = 3


SPECIAL_LANE, SPECIAL_BASE, SPECIAL_STEP = 0, 1, 2
"""Places of kind SPECIAL: the lane's number; what `iota` has at lane 0, and its step from lane to lane (`gather`: the
distance between neighbours picked)."""


@dataclass(frozen=True)
class Source:
    """Source of a step's operand: a temporary, an operand (0 to 2), a constant's bits, a special value."""

    place: Place
    number: int


@dataclass(frozen=True)
class Step:
    """One step. `target`: a temporary, or None for the result. Sources that the operation does not use are absent."""

    operation: Operation
    width: int
    target: int | None
    sources: tuple[Source, ...]


MicroProgram = tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class _Value:
    """A value while it is recorded: where it is, if that is known already, else the step that makes it."""

    kind: Kind
    source: Source | None = None
    maker: "_Made | None" = None
    is_canonical: bool = False


@dataclass(eq=False)
class _Made:
    operation: Operation
    width: int
    operands: tuple[_Value, ...]


class _Recorder:
    """`tapeout.numerics.builder.Builder` on values to be."""

    def __init__(self) -> None:
        self.made: list[_Made] = []
        self._known: dict[tuple[Any, ...], _Value] = {}

    # Bookkeeping.

    def _make(self, operation: Operation, kind: Kind, *operands: _Value, width: int | None = None) -> _Value:
        width = kind.bits if width is None else width
        key = (operation, width, *(_identity(operand) for operand in operands))
        if key not in self._known:
            made = _Made(operation, width, operands)
            self.made.append(made)
            canonical = operation in GIVES_CANONICAL
            if operation is Operation.SELECT:
                canonical = all(operand.is_canonical for operand in operands[1:])
            self._known[key] = _Value(kind, maker=made, is_canonical=canonical)
        known = self._known[key]
        return known if known.kind is kind else self._as(known, kind)

    def _as(self, value: _Value, kind: Kind) -> _Value:
        return _Value(kind, value.source, value.maker, value.is_canonical and kind is value.kind)

    def kind(self, value: _Value) -> Kind:
        return value.kind

    def const(self, kind: Kind, value: int | float | bool, like: _Value) -> _Value:
        if kind is Kind.F32:
            bits = CANONICAL_NAN[DType.F32] if value != value else struct.unpack("<I", struct.pack("<f", value))[0]
        elif kind.is_float:
            raise InternalError(f"the lanes of the RTL have no {kind.label}")
        else:
            bits = int(value) & ((1 << kind.bits) - 1)
        return _Value(kind, Source(Place.CONSTANT, bits), is_canonical=kind is Kind.F32)

    # Floats and wrapping integers.

    def _arithmetic(self, floating: Operation, integral: Operation, a: _Value, b: _Value) -> _Value:
        return self._make(floating if self._float(a) else integral, a.kind, a, b)

    @staticmethod
    def _float(a: _Value) -> bool:
        if a.kind is Kind.F64:
            raise InternalError("the lanes of the RTL have no f64")
        return a.kind is Kind.F32

    def add(self, a: _Value, b: _Value) -> _Value:
        return self._arithmetic(Operation.FLOAT_ADD, Operation.ADD, a, b)

    def sub(self, a: _Value, b: _Value) -> _Value:
        return self._arithmetic(Operation.FLOAT_SUBTRACT, Operation.SUBTRACT, a, b)

    def mul(self, a: _Value, b: _Value) -> _Value:
        if self._float(a):
            return self._make(Operation.FLOAT_MULTIPLY, a.kind, a, b)
        if a.kind.bits <= 32:
            return self._make(Operation.MULTIPLY, a.kind, a, b)
        # (a_high * 2**32 + a_low) * (b_high * 2**32 + b_low), of which the low 64 bits stay.
        by = self.const(Kind.I64, 32, a)
        cross = self.add(self._wide(self.shr_u(a, by), b), self._wide(a, self.shr_u(b, by)))
        return self.add(self._wide(a, b), self.shl(cross, by))

    def _wide(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.MULTIPLY, Kind.I64, a, b)

    def div(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.FLOAT_DIVIDE, a.kind, a, b)

    def sqrt(self, a: _Value) -> _Value:
        return self._make(Operation.FLOAT_SQUARE_ROOT, a.kind, a)

    def fma(self, a: _Value, b: _Value, c: _Value) -> _Value:
        return self._make(Operation.FLOAT_MULTIPLY_ADD, a.kind, a, b, c)

    def floor(self, a: _Value) -> _Value:
        return self._make(Operation.FLOOR, a.kind, a)

    def ceil(self, a: _Value) -> _Value:
        return self._make(Operation.CEIL, a.kind, a)

    def trunc(self, a: _Value) -> _Value:
        return self._make(Operation.TRUNC, a.kind, a)

    def round_even(self, a: _Value) -> _Value:
        return self._make(Operation.ROUND_EVEN, a.kind, a)

    def is_nan(self, a: _Value) -> _Value:
        return self._make(Operation.IS_NAN, Kind.BOOL, a)

    def canonical(self, a: _Value) -> _Value:
        return a if a.is_canonical else self._make(Operation.CANONICAL, a.kind, a)

    # Comparisons. The width says where an integer's sign is.

    def _compare(self, floating: Operation, integral: Operation, a: _Value, b: _Value) -> _Value:
        return self._make(floating if self._float(a) else integral, Kind.BOOL, a, b, width=a.kind.bits)

    def eq(self, a: _Value, b: _Value) -> _Value:
        return self._compare(Operation.FLOAT_EQUAL, Operation.EQUAL, a, b)

    def ne(self, a: _Value, b: _Value) -> _Value:
        return self._compare(Operation.FLOAT_NOT_EQUAL, Operation.NOT_EQUAL, a, b)

    def lt(self, a: _Value, b: _Value) -> _Value:
        return self._compare(Operation.FLOAT_LESS, Operation.LESS, a, b)

    def le(self, a: _Value, b: _Value) -> _Value:
        return self._compare(Operation.FLOAT_LESS_EQUAL, Operation.LESS_EQUAL, a, b)

    def ult(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.LESS_UNSIGNED, Kind.BOOL, a, b, width=a.kind.bits)

    def ule(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.LESS_EQUAL_UNSIGNED, Kind.BOOL, a, b, width=a.kind.bits)

    # Bits.

    def and_(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.AND, a.kind, a, b)

    def or_(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.OR, a.kind, a, b)

    def xor(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.XOR, a.kind, a, b)

    def not_(self, a: _Value) -> _Value:
        return self._make(Operation.NOT, a.kind, a)

    def select(self, condition: _Value, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.SELECT, a.kind, condition, a, b)

    def shl(self, a: _Value, amount: _Value) -> _Value:
        return self._make(Operation.SHIFT_LEFT, a.kind, a, amount)

    def shr_s(self, a: _Value, amount: _Value) -> _Value:
        return self._make(Operation.SHIFT_RIGHT_SIGNED, a.kind, a, amount)

    def shr_u(self, a: _Value, amount: _Value) -> _Value:
        return self._make(Operation.SHIFT_RIGHT, a.kind, a, amount)

    def div_s(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.DIVIDE_SIGNED, a.kind, a, b)

    def div_u(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.DIVIDE, a.kind, a, b)

    def rem_s(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.REMAINDER_SIGNED, a.kind, a, b)

    def rem_u(self, a: _Value, b: _Value) -> _Value:
        return self._make(Operation.REMAINDER, a.kind, a, b)

    def leading_zeros(self, a: _Value) -> _Value:
        return self._make(Operation.LEADING_ZEROS, a.kind, a)

    def population_count(self, a: _Value) -> _Value:
        return self._make(Operation.POPULATION_COUNT, a.kind, a)

    # From kind to kind.

    def bitcast(self, a: _Value, kind: Kind) -> _Value:
        return self._as(a, kind)

    def zero_extend(self, a: _Value, kind: Kind) -> _Value:
        return self._as(a, kind)

    def sign_extend(self, a: _Value, kind: Kind) -> _Value:
        if a.kind is kind:
            return a
        return self._make(Operation[f"EXTEND_SIGN_{a.kind.bits}"], kind, a)

    def truncate(self, a: _Value, kind: Kind) -> _Value:
        return a if a.kind is kind else self._make(Operation.COPY, kind, a)

    def f32_from_f16_bits(self, a: _Value) -> _Value:
        return self._make(Operation.FLOAT_FROM_HALF, Kind.F32, a)

    def f16_bits_from_f32(self, a: _Value) -> _Value:
        return self._make(Operation.HALF_FROM_FLOAT, Kind.I16, a)

    def _to_float(self, operation: Operation, a: _Value, kind: Kind) -> _Value:
        if kind is not Kind.F32:
            raise InternalError("the lanes of the RTL have no f64")
        return self._make(operation, kind, a, width=a.kind.bits)

    def float_from_signed(self, a: _Value, kind: Kind) -> _Value:
        return self._to_float(Operation.FLOAT_FROM_SIGNED, a, kind)

    def float_from_unsigned(self, a: _Value, kind: Kind) -> _Value:
        return self._to_float(Operation.FLOAT_FROM_UNSIGNED, a, kind)

    def signed_from_float(self, a: _Value, kind: Kind) -> _Value:
        return self._make(Operation.INTEGER_FROM_FLOAT, kind, a)

    def unsigned_from_float(self, a: _Value, kind: Kind) -> _Value:
        return self._make(Operation.INTEGER_FROM_FLOAT, kind, a)


def _identity(value: _Value) -> Any:
    return value.source if value.source is not None else id(value.maker)


def _allocated(made: list[_Made], result: _Value) -> MicroProgram:
    """The steps that matter for the result, with temporaries given places."""
    if result.maker is None:
        made = [_Made(Operation.COPY, result.kind.bits, (result,))]
        final = made[0]
    else:
        final = result.maker
    needed, kept = {id(final)}, []
    for step in reversed(made):
        if id(step) in needed:
            kept.append(step)
            needed |= {id(operand.maker) for operand in step.operands if operand.maker is not None}
    kept.reverse()
    last_use = {
        id(operand.maker): number for number, step in enumerate(kept) for operand in step.operands if operand.maker
    }
    if id(final) in last_use:  # read again after it is made: the result is a copy of it
        kept.append(_Made(Operation.COPY, result.kind.bits, (_Value(result.kind, maker=final),)))
        last_use[id(final)] = len(kept) - 1
        final = kept[-1]
    place_of: dict[int, int] = {}
    free: list[int] = []
    place_count = itertools.count()
    steps = []
    for number, step in enumerate(kept):
        sources = []
        for operand in step.operands:
            if operand.source is not None:
                sources.append(operand.source)
            else:
                sources.append(Source(Place.TEMPORARY, place_of[id(operand.maker)]))
        for maker in {id(operand.maker) for operand in step.operands if operand.maker is not None}:
            if last_use[maker] == number:
                free.append(place_of[maker])
        target = None
        if step is not final:
            free.sort(reverse=True)
            target = place_of[id(step)] = free.pop() if free else next(place_count)
        steps.append(Step(step.operation, step.width, target, tuple(sources)))
    return tuple(steps)


def _recorded(kinds: Iterable[Kind], meaning: Callable[..., _Value]) -> MicroProgram:
    recorder = _Recorder()
    operands = [_Value(kind, Source(Place.OPERAND, number)) for number, kind in enumerate(kinds)]
    result = meaning(recorder, *operands)
    return _allocated(recorder.made, result)


@functools.cache
def function_program(function: Function, dtype: DType) -> MicroProgram:
    """A function on elements of a type."""
    kinds = [KIND_OF_DTYPE[operand] for operand in function.operand_dtypes(dtype)]
    return _recorded(kinds, lambda builder, *operands: MEANING[function](builder, dtype, *operands))


@functools.cache
def convert_program(dtype: DType, result_dtype: DType, unsigned: bool, rounding: Rounding) -> MicroProgram:
    """A conversion."""
    return _recorded(
        [KIND_OF_DTYPE[dtype]], lambda builder, a: convert(builder, a, dtype, result_dtype, unsigned, rounding)
    )


def _special(number: int) -> _Value:
    return _Value(Kind.I64, Source(Place.SPECIAL, number))


@functools.cache
def iota_program() -> MicroProgram:
    """base + lane * step."""

    def meaning(b: Any) -> Any:
        return b.add(_special(SPECIAL_BASE), b.mul(_special(SPECIAL_LANE), _special(SPECIAL_STEP)))

    return _recorded([], meaning)


@functools.cache
def gather_program(index_dtype: DType) -> MicroProgram:
    """Return how far an index leads: index * stride, signed, of which the scratchpad's address takes the low bits."""

    def meaning(b: Any, index: Any) -> Any:
        wide = b.sign_extend(index, Kind.I64)
        return b._make(Operation.MULTIPLY, Kind.I64, wide, _special(SPECIAL_STEP))

    return _recorded([KIND_OF_DTYPE[index_dtype]], meaning)


# ------------------------------------------------------------------------------------------ laid out in a memory

COMPUTED = tuple(dtype for dtype in DType if dtype is not DType.F64)
"""Element types that the lanes compute with."""

Key = tuple[Any, ...]
"""("function", function, dtype), ("convert", dtype, result dtype, unsigned, rounding), ("iota",) or
("gather", index dtype)."""


def vector_programs() -> dict[Key, MicroProgram]:
    """Everything the vector engine can be asked for."""
    programs: dict[Key, MicroProgram] = {}
    for function in Function:
        for dtype in function.dtypes:
            if dtype in COMPUTED:
                programs["function", function, dtype] = function_program(function, dtype)
    for dtype, result_dtype in itertools.product(COMPUTED, COMPUTED):
        for unsigned, rounding in itertools.product((False, True), Rounding):
            program = convert_program(dtype, result_dtype, unsigned, rounding)
            programs["convert", dtype, result_dtype, unsigned, rounding] = program
    programs["iota",] = iota_program()
    for dtype in INTEGERS:
        programs["gather", dtype] = gather_program(dtype)
    return programs


def scalar_programs() -> dict[Key, MicroProgram]:
    """Everything the sequencer's arithmetic can be asked for."""
    return {
        ("function", function, dtype): function_program(function, dtype)
        for function in Function
        for dtype in function.dtypes
        if dtype in LOGICAL and function.arity <= 2
    }


OPERATION_BITS, WIDTH_BITS, NUMBER_BITS, PLACE_BITS = 6, 3, 8, 2
SOURCE_BITS = NUMBER_BITS + PLACE_BITS
TARGET_BITS = 6
STEP_BITS = OPERATION_BITS + WIDTH_BITS + 3 * SOURCE_BITS + TARGET_BITS + 2
"""Fields of an encoded step, from bit 0: operation, width, three sources (number, place), target, whether the target is
the result, whether it is the program's last step."""


@dataclass(frozen=True)
class Rom:
    """Programs in one memory. `constants`: what sources of that place number. `start_of`: each program's first step."""

    words: tuple[int, ...]
    constants: tuple[int, ...]
    start_of: dict[Key, int]
    temporary_count: int


def rom(programs: dict[Key, MicroProgram]) -> Rom:
    """Lay programs out one after the other; equal ones once."""
    constants: dict[int, int] = {}
    place_of: dict[MicroProgram, int] = {}
    words: list[int] = []
    start_of = {}
    temporaries = 0
    for key, program in programs.items():
        if program not in place_of:
            place_of[program] = len(words)
            for step in program:
                temporaries = max(temporaries, (step.target if step.target is not None else -1) + 1)
                words.append(_encoded(step, constants, is_last=step is program[-1]))
        start_of[key] = place_of[program]
    if len(constants) > 1 << NUMBER_BITS or temporaries > 1 << TARGET_BITS:
        raise InternalError(f"{len(constants)} constants and {temporaries} temporaries do not fit a step's fields")
    return Rom(tuple(words), tuple(constants), start_of, temporaries)


def _encoded(step: Step, constants: dict[int, int], is_last: bool) -> int:
    bits = step.operation.value | WIDTHS.index(step.width) << OPERATION_BITS
    position = OPERATION_BITS + WIDTH_BITS
    for source in step.sources:
        number = source.number
        if source.place is Place.CONSTANT:
            number = constants.setdefault(number, len(constants))
        bits |= (number | source.place.value << NUMBER_BITS) << position
        position += SOURCE_BITS
    position = OPERATION_BITS + WIDTH_BITS + 3 * SOURCE_BITS
    bits |= (step.target or 0) << position
    bits |= (step.target is None) << (position + TARGET_BITS)
    return bits | is_last << (position + TARGET_BITS + 1)


def reduction_dtypes() -> Iterable[tuple[Function, DType]]:
    """Return which functions reduce which types."""
    return ((function, dtype) for function in REDUCTIONS for dtype in function.dtypes if dtype in COMPUTED)
