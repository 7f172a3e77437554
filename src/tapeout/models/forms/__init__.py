"""Physical forms: what an operator's time is made of on a machine, with few parameters that have a meaning.

A form takes a machine, parameters and a table, gives `Parts` of seconds for every row. Each part grows with each size,
so a form never says that more work takes less time. Parameters are positive; ratios to a machine's figures wherever
possible, so that what was fitted to one chip can be carried to another.
"""

from tapeout.models.forms import attention, collective, gemm, moe, streaming
from tapeout.models.forms.base import Form, Parts

FORMS: dict[str, Form] = {
    "gemm": gemm.FORM,
    "context_attention": attention.CONTEXT,
    "generation_attention": attention.GENERATION,
    "context_mla": attention.CONTEXT_MLA,
    "generation_mla": attention.GENERATION_MLA,
    "moe": moe.FORM,
    **{name: collective.FORM for name in ("all_reduce", "all_gather", "reduce_scatter", "alltoall")},
    **{name: streaming.FORM for name in ("norm", "softmax", "elementwise", "embedding")},
}
"""A convolution has no form of its own: it is lowered to the matrix product it is."""

__all__ = ["FORMS", "Form", "Parts"]
