"""Which instructions of a program a pipelined core runs without a pipeline of their own, and why its cycles then differ
from the timing simulator's."""

from collections.abc import Sequence

from tapeout.isa import Instruction, Program
from tapeout.isa import definitions as isa
from tapeout.rtl.pipelined.recipes import convert_recipe, function_recipe

ONE_BY_ONE = (isa.LoadIndexed, isa.StoreIndexed, isa.Atomic)
"""Transfers whose addresses are made one after the other, and that wait for those before them."""


def without_pipeline(item: Instruction) -> str | None:
    """What an instruction does that has no pipeline, in a few words; None if it has one."""
    if isinstance(item, isa.Reduce | isa.Gather):
        return f"{item.mnemonic} {item.dtype.label}"
    if isinstance(item, isa.Map) and function_recipe(item.function, item.dtype) is None:
        return f"{item.function.label} {item.dtype.label}"
    if (
        isinstance(item, isa.Convert)
        and convert_recipe(item.dtype, item.result_dtype, item.unsigned, item.rounding) is None
    ):
        return f"convert {item.dtype.label} to {item.result_dtype.label}"
    if isinstance(item, ONE_BY_ONE):
        return item.mnemonic
    return None


def all_without_pipeline(program: Program) -> Sequence[str]:
    """Each of a program's once, in the order they first occur in."""
    found = (without_pipeline(item) for item in program.instructions)
    return tuple(dict.fromkeys(each for each in found if each is not None))
