"""Functions of the engines for operations of the tile IR."""

from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import AtomicFunction, Function

FLOAT_BINARY = {
    "arith.addf": Function.ADD,
    "arith.subf": Function.SUB,
    "arith.mulf": Function.MUL,
    "arith.divf": Function.DIV,
    "tt.precise_divf": Function.DIV,
    "arith.maximumf": Function.MAXIMUM,
    "arith.minimumf": Function.MINIMUM,
    "arith.maxnumf": Function.MAX_NUMBER,
    "arith.minnumf": Function.MIN_NUMBER,
}
INTEGER_BINARY = {
    "arith.addi": Function.ADD,
    "arith.subi": Function.SUB,
    "arith.muli": Function.MUL,
    "arith.divsi": Function.DIV_SIGNED,
    "arith.divui": Function.DIV_UNSIGNED,
    "arith.remsi": Function.REM_SIGNED,
    "arith.remui": Function.REM_UNSIGNED,
    "arith.andi": Function.AND,
    "arith.ori": Function.OR,
    "arith.xori": Function.XOR,
    "arith.shli": Function.SHIFT_LEFT,
    "arith.shrsi": Function.SHIFT_RIGHT_SIGNED,
    "arith.shrui": Function.SHIFT_RIGHT_UNSIGNED,
    "arith.minsi": Function.MIN_SIGNED,
    "arith.maxsi": Function.MAX_SIGNED,
    "arith.minui": Function.MIN_UNSIGNED,
    "arith.maxui": Function.MAX_UNSIGNED,
    "tt.mulhiui": Function.MUL_HIGH_UNSIGNED,
}
BINARY = FLOAT_BINARY | INTEGER_BINARY
LOGICAL = {Function.ADD: Function.XOR, Function.SUB: Function.XOR, Function.MUL: Function.AND}
"""Arithmetic modulo 2 on i1."""
UNARY = {
    "arith.negf": Function.NEG,
    "math.absf": Function.ABS,
    "math.sqrt": Function.SQRT,
    "tt.precise_sqrt": Function.SQRT,
    "math.rsqrt": Function.RSQRT,
    "math.exp": Function.EXP,
    "math.exp2": Function.EXP2,
    "math.log": Function.LOG,
    "math.log2": Function.LOG2,
    "math.sin": Function.SIN,
    "math.cos": Function.COS,
    "math.floor": Function.FLOOR,
    "math.ceil": Function.CEIL,
    "math.trunc": Function.TRUNC,
    "math.roundeven": Function.ROUND_EVEN,
    "math.ctlz": Function.COUNT_LEADING_ZEROS,
    "math.ctpop": Function.POPULATION_COUNT,
}
COMPARE_INTEGER = {
    "eq": (Function.EQUAL, False),
    "ne": (Function.NOT_EQUAL, False),
    "slt": (Function.LESS, False),
    "sle": (Function.LESS_EQUAL, False),
    "sgt": (Function.LESS, True),
    "sge": (Function.LESS_EQUAL, True),
    "ult": (Function.LESS_UNSIGNED, False),
    "ule": (Function.LESS_EQUAL_UNSIGNED, False),
    "ugt": (Function.LESS_UNSIGNED, True),
    "uge": (Function.LESS_EQUAL_UNSIGNED, True),
}
# predicate: (function, operands swapped, result inverted)
COMPARE_FLOAT = {
    "oeq": (Function.EQUAL, False, False),
    "une": (Function.NOT_EQUAL, False, False),
    "olt": (Function.LESS, False, False),
    "ole": (Function.LESS_EQUAL, False, False),
    "ogt": (Function.LESS, True, False),
    "oge": (Function.LESS_EQUAL, True, False),
    "uge": (Function.LESS, False, True),
    "ugt": (Function.LESS_EQUAL, False, True),
    "ule": (Function.LESS, True, True),
    "ult": (Function.LESS_EQUAL, True, True),
}
CASTS = {
    "arith.extsi", "arith.extui", "arith.trunci", "arith.extf", "arith.truncf", "arith.sitofp", "arith.uitofp",
    "arith.fptosi", "arith.fptoui", "tt.fp_to_fp",
}  # fmt: skip
RENAMES = {
    "tt.bitcast",
    "arith.bitcast",
    "tt.int_to_ptr",
    "tt.ptr_to_int",
    "arith.index_cast",
    "tile.alias",
    "tile.extend",
}
REARRANGING = {
    "tt.splat",
    "tt.broadcast",
    "tt.expand_dims",
    "tt.trans",
    "tt.reshape",
    "tt.unsplat",
    "tile.slice",
    *RENAMES,
}
MATRIX_OPERANDS = (DType.F32, DType.BF16, DType.F16, DType.F8E4M3, DType.F8E5M2, DType.I8)
ATOMICS = {
    "fadd": AtomicFunction.ADD,
    "add": AtomicFunction.ADD,
    "max": AtomicFunction.MAX_SIGNED,
    "min": AtomicFunction.MIN_SIGNED,
    "umax": AtomicFunction.MAX_UNSIGNED,
    "umin": AtomicFunction.MIN_UNSIGNED,
    "and": AtomicFunction.AND,
    "or": AtomicFunction.OR,
    "xor": AtomicFunction.XOR,
    "exch": AtomicFunction.EXCHANGE,
}


def binary_function(name: str, dtype: DType) -> Function:
    function = BINARY[name]
    return LOGICAL.get(function, function) if dtype is DType.I1 else function
