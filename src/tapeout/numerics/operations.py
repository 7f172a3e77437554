"""The functions of the vector engine and of the scalar unit: names, codes, arity, operand and result types.

What each computes, bit for bit, is in `tapeout.numerics.functions`, under the same label.
"""

import enum

from tapeout.numerics.dtypes import DType

FLOATS = tuple(d for d in DType if d.is_float)
INTEGERS = (DType.I8, DType.I16, DType.I32, DType.I64)
LOGICAL = (DType.I1, *INTEGERS)
ALL = tuple(DType)
SPECIAL = (DType.F32,)
ARITHMETIC_FLOATS = FLOAT = (DType.F32, DType.BF16, DType.F16, DType.F64)
NUMBERS = (*ARITHMETIC_FLOATS, *INTEGERS)
COMPARABLE = (*ARITHMETIC_FLOATS, *LOGICAL)


class Function(enum.Enum):
    """(label, code, arity, operand dtypes, result is i1, what it computes in a phrase)."""

    COPY = ("copy", 0, 1, ALL, False, "a, bits unchanged (i1: 0 or 1)")
    NEG = ("neg", 1, 1, FLOAT, False, "-a: the sign bit flipped, NaN too")
    ABS = ("abs", 2, 1, FLOAT, False, "|a|: the sign bit cleared, NaN too")
    SQRT = ("sqrt", 3, 1, FLOAT, False, "square root, correctly rounded")
    RSQRT = ("rsqrt", 4, 1, FLOAT, False, "1 / sqrt(a), each step rounded to f32 (f64: f64)")
    RECIPROCAL = ("reciprocal", 5, 1, FLOAT, False, "1 / a, correctly rounded")
    EXP2 = ("exp2", 6, 1, SPECIAL, False, "2 to the power a")
    LOG2 = ("log2", 7, 1, SPECIAL, False, "logarithm of a to base 2")
    SIN = ("sin", 8, 1, SPECIAL, False, "sine of a radians")
    COS = ("cos", 9, 1, SPECIAL, False, "cosine of a radians")
    FLOOR = ("floor", 10, 1, FLOAT, False, "largest integer not above a")
    CEIL = ("ceil", 11, 1, FLOAT, False, "smallest integer not below a")
    TRUNC = ("trunc", 12, 1, FLOAT, False, "a rounded toward zero")
    ROUND_EVEN = ("round_even", 13, 1, FLOAT, False, "a rounded to the nearest integer, ties to even")
    COUNT_LEADING_ZEROS = ("clz", 14, 1, INTEGERS, False, "number of leading zero bits")
    POPULATION_COUNT = ("popcount", 15, 1, INTEGERS, False, "number of one bits")
    EXP = ("exp", 16, 1, SPECIAL, False, "e to the power a")
    LOG = ("log", 17, 1, SPECIAL, False, "natural logarithm of a")

    ADD = ("add", 32, 2, NUMBERS, False, "a + b; integers wrap")
    SUB = ("sub", 33, 2, NUMBERS, False, "a - b; integers wrap")
    MUL = ("mul", 34, 2, NUMBERS, False, "a * b; integers wrap")
    DIV = ("div", 35, 2, FLOAT, False, "a / b, correctly rounded")
    MINIMUM = ("minimum", 36, 2, FLOAT, False, "smaller of a and b; NaN if either is; -0 below +0")
    MAXIMUM = ("maximum", 37, 2, FLOAT, False, "larger of a and b; NaN if either is; -0 below +0")
    MIN_NUMBER = ("min_number", 38, 2, FLOAT, False, "smaller of a and b; the other one if one is NaN")
    MAX_NUMBER = ("max_number", 39, 2, FLOAT, False, "larger of a and b; the other one if one is NaN")
    MUL_HIGH_SIGNED = ("mulhi_s", 40, 2, INTEGERS, False, "upper half of the signed double-width product")
    MUL_HIGH_UNSIGNED = ("mulhi_u", 41, 2, INTEGERS, False, "upper half of the unsigned double-width product")
    DIV_SIGNED = ("div_s", 42, 2, INTEGERS, False, "quotient toward zero; b = 0 gives -1; overflow wraps")
    DIV_UNSIGNED = ("div_u", 43, 2, INTEGERS, False, "unsigned quotient; b = 0 gives all ones")
    REM_SIGNED = ("rem_s", 44, 2, INTEGERS, False, "a - b * div_s(a, b); b = 0 gives a")
    REM_UNSIGNED = ("rem_u", 45, 2, INTEGERS, False, "a - b * div_u(a, b); b = 0 gives a")
    MIN_SIGNED = ("min_s", 46, 2, LOGICAL, False, "smaller, signed (i1: and, its elements being 0 and 1)")
    MAX_SIGNED = ("max_s", 47, 2, LOGICAL, False, "larger, signed (i1: or, its elements being 0 and 1)")
    MIN_UNSIGNED = ("min_u", 48, 2, LOGICAL, False, "smaller, unsigned")
    MAX_UNSIGNED = ("max_u", 49, 2, LOGICAL, False, "larger, unsigned")
    AND = ("and", 50, 2, LOGICAL, False, "bitwise and")
    OR = ("or", 51, 2, LOGICAL, False, "bitwise or")
    XOR = ("xor", 52, 2, LOGICAL, False, "bitwise exclusive or")
    SHIFT_LEFT = ("shl", 53, 2, INTEGERS, False, "a << b; 0 if b is not within the width, read unsigned")
    SHIFT_RIGHT_SIGNED = (
        "shr_s",
        54,
        2,
        INTEGERS,
        False,
        "a >> b, sign fill; all sign if b is not within the width",
    )
    SHIFT_RIGHT_UNSIGNED = ("shr_u", 55, 2, INTEGERS, False, "a >> b; 0 if b is not within the width")
    EQUAL = ("eq", 56, 2, COMPARABLE, True, "a = b; false with NaN")
    NOT_EQUAL = ("ne", 57, 2, COMPARABLE, True, "not (a = b); true with NaN")
    LESS = ("lt", 58, 2, COMPARABLE, True, "a < b, signed (i1: 0 below 1); false with NaN")
    LESS_EQUAL = ("le", 59, 2, COMPARABLE, True, "a <= b, signed (i1: 0 below 1); false with NaN")
    LESS_UNSIGNED = ("ltu", 60, 2, LOGICAL, True, "a < b, unsigned")
    LESS_EQUAL_UNSIGNED = ("leu", 61, 2, LOGICAL, True, "a <= b, unsigned")

    FMA = ("fma", 96, 3, FLOAT, False, "a * b + c rounded once (bf16, f16: the f32 fma, rounded again)")
    SELECT = ("select", 97, 3, ALL, False, "b where a (i1) is true, else c; bits unchanged")

    def __init__(
        self, label: str, code: int, arity: int, dtypes: tuple[DType, ...], is_predicate: bool, summary: str
    ) -> None:
        self.label = label
        self.code = code
        self.arity = arity
        self.dtypes = dtypes
        self.is_predicate = is_predicate
        self.summary = summary

    def result_dtype(self, dtype: DType) -> DType:
        return DType.I1 if self.is_predicate else dtype

    def operand_dtypes(self, dtype: DType) -> tuple[DType, ...]:
        if self is Function.SELECT:
            return (DType.I1, dtype, dtype)
        return (dtype,) * self.arity

    def __repr__(self) -> str:
        return f"Function.{self.name}"


FUNCTION_BY_LABEL = {function.label: function for function in Function}

REDUCTIONS = (
    Function.ADD,
    Function.MUL,
    Function.MINIMUM,
    Function.MAXIMUM,
    Function.MIN_NUMBER,
    Function.MAX_NUMBER,
    Function.MIN_SIGNED,
    Function.MAX_SIGNED,
    Function.MIN_UNSIGNED,
    Function.MAX_UNSIGNED,
    Function.AND,
    Function.OR,
    Function.XOR,
)
REDUCTION_PARTIALS = 32
"""Number of partial results that a reduction keeps; part of its numerics, the same on every chip."""


class Rounding(enum.Enum):
    """Rounding of a conversion to a narrower float, and what it does beyond the largest finite number."""

    NEAREST_EVEN = ("nearest", 0)
    TOWARD_ZERO = ("zero", 1)
    NEAREST_EVEN_SATURATE = ("nearest_saturate", 2)

    def __init__(self, label: str, code: int) -> None:
        self.label = label
        self.code = code


class AtomicFunction(enum.Enum):
    """What an atomic does to the word in HBM, old value x, operand a (b: the new value of compare_swap)."""

    ADD = ("add", 0)
    MAX_SIGNED = ("max_s", 1)
    MIN_SIGNED = ("min_s", 2)
    MAX_UNSIGNED = ("max_u", 3)
    MIN_UNSIGNED = ("min_u", 4)
    AND = ("and", 5)
    OR = ("or", 6)
    XOR = ("xor", 7)
    EXCHANGE = ("exchange", 8)
    COMPARE_SWAP = ("compare_swap", 9)

    def __init__(self, label: str, code: int) -> None:
        self.label = label
        self.code = code


ATOMIC_MEANING = {
    AtomicFunction.ADD: Function.ADD,
    AtomicFunction.MAX_SIGNED: Function.MAX_SIGNED,
    AtomicFunction.MIN_SIGNED: Function.MIN_SIGNED,
    AtomicFunction.MAX_UNSIGNED: Function.MAX_UNSIGNED,
    AtomicFunction.MIN_UNSIGNED: Function.MIN_UNSIGNED,
    AtomicFunction.AND: Function.AND,
    AtomicFunction.OR: Function.OR,
    AtomicFunction.XOR: Function.XOR,
}
"""Atomics that combine. The other two: `exchange` takes the new value, `compare_swap` compares bits."""
