"""Formulas for operations of Triton and functions of libdevice, and the accuracy of each.

`find` takes the name of a Triton operation or of a libdevice function (`__nv_...`, what Triton's `libdevice` calls) and
the type of its first operand; it gives a formula over `Term`s, or None. `ACCURACY_ULP` states how good each is.
"""

from tapeout.numerics.dtypes import DType
from tapeout.passes.math import bessel, directed_rounding
from tapeout.passes.math.error_functions import erf, erfc, erfcinv, erfcx, erfinv, normcdf, normcdfinv
from tapeout.passes.math.exponentials import cosh, exp, exp2, exp10, expm1, sinh, tanh
from tapeout.passes.math.float_parts import is_finite, is_infinite, sign_bit
from tapeout.passes.math.formula import (
    Formula,
    bits,
    fma,
    from_bits,
    is_nan,
    narrow,
    to_float,
    to_integer,
    unary,
    with_sign_of,
)
from tapeout.passes.math.gamma import lgamma, tgamma
from tapeout.passes.math.integers import (
    average,
    byte_permute,
    count_leading_zeros,
    double_of_words,
    find_first_set,
    high_word,
    low_word,
    mul24,
    mulhi_signed,
    mulhi_unsigned,
    population_count,
    reciprocal_of_high_word,
    reverse_bits,
    sum_of_absolute_difference,
    umul24,
)
from tapeout.passes.math.logarithms import acosh, asinh, atanh, cbrt, log, log1p, log2, log10, pow, powi, rcbrt
from tapeout.passes.math.remainders import (
    fdim,
    fmod,
    hypot,
    ilogb,
    ldexp,
    logb,
    nextafter,
    remainder,
    rhypot,
    round_half_away,
    saturate,
)
from tapeout.passes.math.trigonometry import acos, asin, atan, atan2, cos, cospi, sin, sinpi, tan


def _math(name: str) -> Formula:
    return lambda x: unary(name, x)


def _arith(name: str) -> Formula:
    return lambda x, y: x.emit(f"arith.{name}", [x, y], x.dtype)


ROUNDINGS: dict[str, Formula] = {
    "rn": _math("roundeven"),
    "rz": _math("trunc"),
    "rd": _math("floor"),
    "ru": _math("ceil"),
}


def _to_integer(mode: str, dtype: DType, unsigned: bool) -> Formula:
    return lambda x: to_integer(ROUNDINGS[mode](x), dtype, unsigned)


def _bits_as(dtype: DType) -> Formula:
    return lambda x: from_bits(x, dtype)


BOTH: dict[str, Formula] = {  # __nv_<name>f of f32 and __nv_<name> of f64
    "acos": acos, "acosh": acosh, "asin": asin, "asinh": asinh, "atan": atan, "atan2": atan2, "atanh": atanh,
    "cbrt": cbrt, "ceil": _math("ceil"), "copysign": with_sign_of, "cos": cos, "cosh": cosh, "cospi": cospi,
    "erf": erf, "erfc": erfc, "erfcx": erfcx, "erfinv": erfinv, "exp": exp, "exp10": exp10,
    "exp2": exp2, "expm1": expm1, "lgamma": lgamma, "tgamma": tgamma,
    "erfcinv": erfcinv, "normcdfinv": normcdfinv, "j0": bessel.j0, "j1": bessel.j1, "y0": bessel.y0, "y1": bessel.y1,
    "cyl_bessel_i0": bessel.i0, "cyl_bessel_i1": bessel.i1,
    "fabs": abs, "fdim": fdim, "floor": _math("floor"), "fma": fma, "fmod": fmod, "hypot": hypot, "ilogb": ilogb,
    "ldexp": ldexp, "llrint": _to_integer("rn", DType.I64, False), "log": log, "log10": log10, "log1p": log1p,
    "log2": log2, "logb": logb, "nearbyint": _math("roundeven"), "nextafter": nextafter, "norm3d": hypot,
    "norm4d": hypot, "normcdf": normcdf, "pow": pow, "powi": powi, "rcbrt": rcbrt, "remainder": remainder,
    "rhypot": rhypot, "rint": _math("roundeven"), "rnorm3d": rhypot, "rnorm4d": rhypot, "round": round_half_away,
    "rsqrt": _math("rsqrt"), "scalbn": ldexp, "sin": sin, "sinh": sinh, "sinpi": sinpi, "sqrt": _math("sqrt"),
    "tan": tan, "tanh": tanh, "trunc": _math("trunc"),
    "llround": lambda x: to_integer(round_half_away(x), DType.I64),
}  # fmt: skip
OTHERS: dict[str, Formula] = {
    "fast_cosf": cos, "fast_exp10f": exp10, "fast_expf": exp, "fast_log10f": log10, "fast_log2f": log2,
    "fast_logf": log, "fast_powf": pow, "fast_sinf": sin, "fast_tanf": tan, "fast_tanhf": tanh,
    "fast_fdividef": _arith("divf"), "saturatef": saturate,
    "isnanf": is_nan, "isnand": is_nan, "isinff": is_infinite, "isinfd": is_infinite,
    "finitef": is_finite, "isfinited": is_finite, "signbitf": sign_bit, "signbitd": sign_bit,
    "float_as_int": bits, "float_as_uint": bits, "double_as_longlong": bits,
    "int_as_float": _bits_as(DType.F32), "uint_as_float": _bits_as(DType.F32),
    "longlong_as_double": _bits_as(DType.F64), "double2hiint": high_word, "double2loint": low_word,
    "hiloint2double": double_of_words, "rcp64h": reciprocal_of_high_word, **directed_rounding.FUNCTIONS,
    "frcp_rn": lambda x: 1.0 / x, "drcp_rn": lambda x: 1.0 / x, "frsqrt_rn": _math("rsqrt"),
    "fsqrt_rn": _math("sqrt"), "dsqrt_rn": _math("sqrt"), "fmaf_rn": fma, "fma_rn": fma,
    "fadd_rn": _arith("addf"), "dadd_rn": _arith("addf"), "fsub_rn": _arith("subf"), "dsub_rn": _arith("subf"),
    "fmul_rn": _arith("mulf"), "dmul_rn": _arith("mulf"), "fdiv_rn": _arith("divf"), "ddiv_rn": _arith("divf"),
    "int2float_rn": lambda x: to_float(x, DType.F32), "uint2float_rn": lambda x: to_float(x, DType.F32, True),
    "ll2float_rn": lambda x: to_float(x, DType.F32), "ull2float_rn": lambda x: to_float(x, DType.F32, True),
    "int2double_rn": lambda x: to_float(x, DType.F64), "uint2double_rn": lambda x: to_float(x, DType.F64, True),
    "ll2double_rn": lambda x: to_float(x, DType.F64), "ull2double_rn": lambda x: to_float(x, DType.F64, True),
    "double2float_rn": lambda x: narrow(x, DType.F32),
    "abs": abs, "llabs": abs, "brev": reverse_bits, "brevll": reverse_bits, "byte_perm": byte_permute,
    "clz": count_leading_zeros, "clzll": count_leading_zeros, "ffs": find_first_set, "ffsll": find_first_set,
    "popc": population_count, "popcll": population_count, "mulhi": mulhi_signed, "mul64hi": mulhi_signed,
    "umulhi": mulhi_unsigned, "umul64hi": mulhi_unsigned, "mul24": mul24, "umul24": umul24,
    "hadd": average(False, False), "rhadd": average(True, False), "uhadd": average(False, True),
    "urhadd": average(True, True), "sad": sum_of_absolute_difference(False), "usad": sum_of_absolute_difference(True),
}  # fmt: skip
FLOAT8 = (DType.F8E4M3, DType.F8E5M2)
OPERATIONS: dict[tuple[str, DType], Formula] = {
    **{("math.absf", dtype): lambda x: from_bits(bits(x) & 0x7F, x.dtype) for dtype in FLOAT8},
    **{("arith.negf", dtype): lambda x: from_bits(bits(x) ^ -0x80, x.dtype) for dtype in FLOAT8},
    **{("math.erf", dtype): erf for dtype in (DType.F32, DType.F64)},
    **{("math." + f.__name__, DType.F64): f for f in (exp, exp2, log, log2, sin, cos)},
    **{("arith.remf", dtype): fmod for dtype in (DType.F32, DType.F64, DType.F16, DType.BF16)},
}


def _libdevice() -> dict[str, Formula]:
    table = {f"__nv_{name}": formula for name, formula in OTHERS.items()}
    for name, formula in BOTH.items():
        table[f"__nv_{name}"] = table[f"__nv_{name}f"] = formula
    integers = {
        "int": (DType.I32, False),
        "uint": (DType.I32, True),
        "ll": (DType.I64, False),
        "ull": (DType.I64, True),
    }
    for source in ("float", "double"):
        for target, (dtype, unsigned) in integers.items():
            for mode in ROUNDINGS:
                table[f"__nv_{source}2{target}_{mode}"] = _to_integer(mode, dtype, unsigned)
    return table


LIBDEVICE = _libdevice()


ACCURACY_ULP: dict[str, tuple[float, float]] = {
    # largest error in units in the last place, f32 and f64; what is not listed is exact or correctly rounded
    "exp": (1, 1), "exp2": (1, 1), "exp10": (1.5, 1.5), "expm1": (1.5, 2), "log": (1, 1), "log2": (1, 1.5),
    "log10": (2, 3), "log1p": (1.5, 1.5), "pow": (1.5, 1.5), "cbrt": (1, 1), "rcbrt": (2, 2), "rsqrt": (1.5, 1.5),
    "sin": (1.2, 1), "cos": (1.2, 1), "tan": (3, 2), "sinpi": (2, 2), "cospi": (2, 2), "asin": (2.5, 2.5),
    "acos": (1.5, 1.5), "atan": (1.5, 1.5), "atan2": (2, 2), "sinh": (2, 2.5), "cosh": (1.5, 1.5), "tanh": (1.5, 2.5),
    "asinh": (2.5, 2.5), "acosh": (2.5, 2.5), "atanh": (2.5, 2.5), "erf": (1.5, 2), "erfc": (4.5, 4.5),
    "erfcx": (4, 4), "erfinv": (3.5, 4), "normcdf": (7, 8), "lgamma": (4, 4), "hypot": (1.5, 1.5), "rhypot": (2, 2),
    "tgamma": (7, 7), "erfcinv": (4, 3), "normcdfinv": (5, 4), "j0": (4, 4), "j1": (4, 4), "y0": (5, 5), "y1": (6, 6),
    "cyl_bessel_i0": (4, 4), "cyl_bessel_i1": (5, 5),
}  # fmt: skip
ACCURACY_LIMITS = {
    "erfcx": "from 0 on", "normcdf": "from -2 on; below, growing with x**2",
    "lgamma": "from 0 on; below, of the larger of the result and 1", "powi": "as pow, for powers up to 2**24 (f32)",
    **dict.fromkeys(("j0", "j1", "y0", "y1"), "beyond 0.5, of the larger of the result and 1 / sqrt(1 + x)"),
}  # fmt: skip


def find(label: str, dtype: DType) -> Formula | None:
    """The formula of an operation or libdevice function whose first operand has this type, if there is one."""
    return OPERATIONS.get((label, dtype)) or LIBDEVICE.get(label)
