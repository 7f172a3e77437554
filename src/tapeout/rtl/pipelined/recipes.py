"""What the pipelined lanes do for an instruction: which of their parts it uses, from its function and types.

A lane widens its operands to float32, runs one operation, and narrows the result; what is not in reach of that has no
recipe and runs as a microprogram.
"""

import enum
import functools
from dataclasses import dataclass

from tapeout.isa.microcode import WIDTHS, Key, Operation, vector_programs
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import FLOAT, INTEGERS, Function, Rounding
from tapeout.rtl.vector import GATHER_CODE, IOTA_CODE

RAW = DType.I64
"""Stands where nothing is widened or narrowed."""


class First(enum.Enum):
    """The operation's first operand."""

    A = 0
    ONE = 1


class Second(enum.Enum):
    """The operation's second operand; the masks are those of the operation's width."""

    B = 0
    A = 1
    SIGN_BIT = 2
    ALL_BUT_SIGN = 3
    UNIT = 4


class Extra(enum.Enum):
    """What lanes compute beside the operations of microprograms."""

    NONE = 0
    MIN_SIGNED = 1
    MAX_SIGNED = 2
    MIN_UNSIGNED = 3
    MAX_UNSIGNED = 4
    MINIMUM = 5
    MAXIMUM = 6
    MIN_NUMBER = 7
    MAX_NUMBER = 8
    SHIFT_LEFT = 9
    SHIFT_RIGHT = 10
    SHIFT_RIGHT_SIGNED = 11
    TO_SIGNED = 12
    TO_UNSIGNED = 13


@dataclass(frozen=True)
class Recipe:
    """One use of a lane's parts. `widened`, `narrowed`: float types, or RAW."""

    operation: Operation = Operation.COPY
    width: int = 64
    first: First = First.A
    second: Second = Second.B
    extra: Extra = Extra.NONE
    widened: DType = RAW
    narrowed: DType = RAW
    rounding: Rounding = Rounding.NEAREST_EVEN


EXTRAS = {
    Function.MIN_SIGNED: Extra.MIN_SIGNED,
    Function.MAX_SIGNED: Extra.MAX_SIGNED,
    Function.MIN_UNSIGNED: Extra.MIN_UNSIGNED,
    Function.MAX_UNSIGNED: Extra.MAX_UNSIGNED,
    Function.SHIFT_LEFT: Extra.SHIFT_LEFT,
    Function.SHIFT_RIGHT_UNSIGNED: Extra.SHIFT_RIGHT,
    Function.SHIFT_RIGHT_SIGNED: Extra.SHIFT_RIGHT_SIGNED,
}
FLOAT_EXTRAS = {
    Function.MINIMUM: Extra.MINIMUM,
    Function.MAXIMUM: Extra.MAXIMUM,
    Function.MIN_NUMBER: Extra.MIN_NUMBER,
    Function.MAX_NUMBER: Extra.MAX_NUMBER,
}
INTEGER_OPERATIONS = {
    Function.COPY: Operation.COPY,
    Function.ADD: Operation.ADD,
    Function.SUB: Operation.SUBTRACT,
    Function.AND: Operation.AND,
    Function.OR: Operation.OR,
    Function.XOR: Operation.XOR,
    Function.COUNT_LEADING_ZEROS: Operation.LEADING_ZEROS,
    Function.POPULATION_COUNT: Operation.POPULATION_COUNT,
    Function.EQUAL: Operation.EQUAL,
    Function.NOT_EQUAL: Operation.NOT_EQUAL,
    Function.LESS: Operation.LESS,
    Function.LESS_EQUAL: Operation.LESS_EQUAL,
    Function.LESS_UNSIGNED: Operation.LESS_UNSIGNED,
    Function.LESS_EQUAL_UNSIGNED: Operation.LESS_EQUAL_UNSIGNED,
}
FLAG_OPERATIONS = {
    Function.MIN_SIGNED: Operation.AND,
    Function.MAX_SIGNED: Operation.OR,
    Function.MIN_UNSIGNED: Operation.AND,
    Function.MAX_UNSIGNED: Operation.OR,
    Function.LESS: Operation.LESS_UNSIGNED,
    Function.LESS_EQUAL: Operation.LESS_EQUAL_UNSIGNED,
}
FLOAT_OPERATIONS = {
    Function.FLOOR: Operation.FLOOR,
    Function.CEIL: Operation.CEIL,
    Function.TRUNC: Operation.TRUNC,
    Function.ROUND_EVEN: Operation.ROUND_EVEN,
    Function.ADD: Operation.FLOAT_ADD,
    Function.SUB: Operation.FLOAT_SUBTRACT,
    Function.MUL: Operation.FLOAT_MULTIPLY,
    Function.FMA: Operation.FLOAT_MULTIPLY_ADD,
}
FLOAT_COMPARISONS = {
    Function.EQUAL: Operation.FLOAT_EQUAL,
    Function.NOT_EQUAL: Operation.FLOAT_NOT_EQUAL,
    Function.LESS: Operation.FLOAT_LESS,
    Function.LESS_EQUAL: Operation.FLOAT_LESS_EQUAL,
}


def function_recipe(function: Function, dtype: DType) -> Recipe | None:
    """The recipe of a function on a type."""
    width = dtype.bits
    if function is Function.COPY:
        return Recipe(Operation.COPY, width)
    if function is Function.SELECT:
        return Recipe(Operation.SELECT, width)
    if function is Function.NEG:
        return Recipe(Operation.XOR, width, second=Second.SIGN_BIT)
    if function is Function.ABS:
        return Recipe(Operation.AND, width, second=Second.ALL_BUT_SIGN)
    if dtype in FLOAT:
        if function in FLOAT_OPERATIONS:
            return Recipe(FLOAT_OPERATIONS[function], 32, widened=dtype, narrowed=dtype)
        if function in FLOAT_EXTRAS:
            return Recipe(width=32, extra=FLOAT_EXTRAS[function], widened=dtype, narrowed=dtype)
        if function in FLOAT_COMPARISONS:
            return Recipe(FLOAT_COMPARISONS[function], 32, widened=dtype)
        return None
    if dtype is DType.I1 and function in FLAG_OPERATIONS:
        return Recipe(FLAG_OPERATIONS[function], width)
    if function in EXTRAS:
        return Recipe(width=width, extra=EXTRAS[function])
    if function in INTEGER_OPERATIONS:
        return Recipe(INTEGER_OPERATIONS[function], width)
    if function is Function.MUL and width <= 32:
        return Recipe(Operation.MULTIPLY, width)
    return None


def convert_recipe(dtype: DType, result: DType, unsigned: bool, rounding: Rounding) -> Recipe | None:
    """The recipe of a conversion; None where an integer is rounded to a float narrower than float32 in one step."""
    if dtype.is_float and result.is_float:
        return Recipe(Operation.CANONICAL, 32, widened=dtype, narrowed=result, rounding=rounding)
    if dtype.is_float and result is DType.I1:
        return Recipe(Operation.FLOAT_LESS_EQUAL, 32, first=First.ONE, second=Second.A, widened=dtype)
    if dtype.is_float:
        extra = Extra.TO_UNSIGNED if unsigned else Extra.TO_SIGNED
        return Recipe(width=result.bits, extra=extra, widened=dtype)
    without_sign = unsigned or dtype is DType.I1
    if result.is_float:
        if result is not DType.F32 and dtype.bits > 16:
            return None
        operation = Operation.FLOAT_FROM_UNSIGNED if without_sign else Operation.FLOAT_FROM_SIGNED
        return Recipe(operation, dtype.bits, narrowed=result)
    if result is DType.I1:
        return Recipe(Operation.AND, dtype.bits, second=Second.UNIT)
    if result.bits <= dtype.bits or without_sign:
        return Recipe(Operation.COPY, result.bits)
    extended = {8: Operation.EXTEND_SIGN_8, 16: Operation.EXTEND_SIGN_16, 32: Operation.EXTEND_SIGN_32}
    return Recipe(extended[dtype.bits], result.bits)


def recipe_of(key: Key) -> Recipe | None:
    """The recipe of what the vector engine can be asked for; None if it runs as a microprogram."""
    if key[0] == "function":
        return function_recipe(key[1], key[2])
    if key[0] == "convert":
        return convert_recipe(*key[1:])
    return Recipe() if key[0] == "iota" else None


FIELD_BITS = {
    "exists": 1,
    "operation": 6,
    "width": 3,
    "first": 1,
    "second": 3,
    "extra": 4,
    "widened": 4,
    "narrowed": 4,
    "rounding": 2,
}
"""Fields of an encoded recipe, from bit 0."""
RECIPE_BITS = sum(FIELD_BITS.values())


def encoded(recipe: Recipe | None) -> int:
    """A recipe as bits; 0 for none."""
    if recipe is None:
        return 0
    values = {
        "exists": 1,
        "operation": recipe.operation.value,
        "width": WIDTHS.index(recipe.width),
        "first": recipe.first.value,
        "second": recipe.second.value,
        "extra": recipe.extra.value,
        "widened": recipe.widened.code,
        "narrowed": recipe.narrowed.code,
        "rounding": recipe.rounding.code,
    }
    bits, place = 0, 0
    for name, width in FIELD_BITS.items():
        bits |= values[name] << place
        place += width
    return bits


@functools.cache
def recipe_table() -> tuple[int, ...]:
    """Encoded recipes by the index of `tapeout.rtl.vector.Decoded`; reductions have their function's, and are told
    apart by the opcode."""
    table = [0] * 4096
    for key in vector_programs():
        code = encoded(recipe_of(key))
        if key[0] == "function":
            table[key[2].code | key[1].code << 4] = code
        elif key[0] == "convert":
            _, dtype, result, unsigned, rounding = key
            table[2048 | dtype.code | result.code << 4 | unsigned << 8 | rounding.code << 9] = code
        elif key[0] == "iota":
            for dtype in INTEGERS:
                table[dtype.code | IOTA_CODE << 4] = code
        else:
            table[key[1].code | GATHER_CODE << 4] = code
    return tuple(table)
