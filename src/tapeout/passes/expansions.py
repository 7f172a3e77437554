"""Mathematical functions that are not in the vector engine, expanded into functions that are.

Looked up by the name of a Triton operation or of a libdevice function (`__nv_...`, what Triton's `libdevice` calls).
"""

from typing import TYPE_CHECKING

from tapeout.isa.functions import Function
from tapeout.numerics.dtypes import DType

if TYPE_CHECKING:
    from tapeout.passes.machine import Register, View
    from tapeout.passes.select_instructions import Selector

DIRECT = {
    "__nv_expf": Function.EXP,
    "__nv_exp2f": Function.EXP2,
    "__nv_logf": Function.LOG,
    "__nv_log2f": Function.LOG2,
    "__nv_sinf": Function.SIN,
    "__nv_cosf": Function.COS,
    "__nv_sqrtf": Function.SQRT,
    "__nv_fsqrt_rn": Function.SQRT,
    "__nv_rsqrtf": Function.RSQRT,
    "__nv_rsqrt": Function.RSQRT,
    "__nv_sqrt": Function.SQRT,
    "__nv_fabsf": Function.ABS,
    "__nv_fabs": Function.ABS,
    "__nv_floorf": Function.FLOOR,
    "__nv_ceilf": Function.CEIL,
    "__nv_truncf": Function.TRUNC,
    "__nv_nearbyintf": Function.ROUND_EVEN,
    "__nv_rintf": Function.ROUND_EVEN,
    "__nv_fmaf": Function.FMA,
    "__nv_fdiv_rn": Function.DIV,
}


def knows(label: str, dtype: DType) -> bool:
    return label in DIRECT and dtype in DIRECT[label].dtypes


def expand(selector: "Selector", label: str, dtype: DType, sources: "list[View | Register]", out: "View") -> "View":
    return selector.map(DIRECT[label], dtype, sources, out)
