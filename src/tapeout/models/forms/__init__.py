"""Physical forms: what an operator's time is made of on a machine, with few parameters that have a meaning.

A form takes a machine, parameters and a table, gives `Parts` of seconds for every row. Each part grows with each size,
so a form never says that more work takes less time. Parameters are positive; ratios to a machine's figures wherever
possible, so that what was fitted to one chip can be carried to another.
"""

from tapeout.models.forms import attention, collective, described, gemm, moe, streaming
from tapeout.models.forms.base import Form, Parts
from tapeout.models.machine import Machine

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

_OF_DESCRIBED: dict[str, Form] = {
    "context_attention": described.CONTEXT,
    "generation_attention": described.GENERATION,
    **{name: described.STREAMING for name in ("norm", "softmax", "elementwise", "embedding")},
}


def form_of(kind: str, machine: Machine) -> Form:
    """The form of an operator on a machine: what runs on described chips are our own kernels."""
    if machine.is_described and kind in _OF_DESCRIBED:
        return _OF_DESCRIBED[kind]
    return FORMS[kind]


__all__ = ["FORMS", "Form", "Parts", "form_of"]
