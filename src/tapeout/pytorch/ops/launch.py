"""Launches our own kernels with little host time: compiled once per types and constants, then called directly.

Triton's launch path works out on every call what a kernel must be specialised for. Our kernels are specialised for
nothing but their types and constants, so a look-up in a dictionary replaces it. What every module with kernels needs is
imported from here: `count`, `ceil_div`, `power_of_two_at_least`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch.utils import _pytree as pytree
from triton.compiler import ASTSource

from tapeout import chip as chips
from tapeout.numerics.dtypes import DType
from tapeout.pytorch import graphs
from tapeout.pytorch.ledger import count as count
from tapeout.pytorch.ops.sizes import ceil_div as ceil_div
from tapeout.pytorch.ops.sizes import power_of_two_at_least as power_of_two_at_least
from tapeout.runtime import session

TYPE_NAMES = {
    **{getattr(torch, dtype.long_name): dtype.triton_name for dtype in DType if dtype.long_name != "float8"},
    torch.float8_e4m3fn: DType.F8E4M3.triton_name,
    torch.float8_e5m2: DType.F8E5M2.triton_name,
    torch.uint8: "u8",
}

POINTER = {dtype: f"*{name}" for dtype, name in TYPE_NAMES.items()}
INTEGERS = ("i64",) * 32

Launch = Callable[[tuple[int, int, int], Sequence[int]], None]

_compiled: dict[tuple[Any, ...], Launch] = {}


def kernel(function: "triton.JITFunction[Any]", types: tuple[str, ...], **constants: Any) -> Launch:
    """The compiled kernel as `launch(grid, words)`.

    `types` are Triton's names for the types of the kernel's parameters before its constants, in order; the words of a
    launch are their raw 64-bit values.
    """
    key = (function.fn, types, *constants.values(), chips.active_serial())
    launch = _compiled.get(key)
    if launch is None:
        launch = _compiled[key] = _compile(function, types, constants)
    return launch


def _compile(function: "triton.JITFunction[Any]", types: tuple[str, ...], constants: dict[str, Any]) -> Launch:
    names = list(function.arg_names)
    signature = dict(zip(names, [*types, *("constexpr" for _ in constants)], strict=True))
    target = triton.runtime.driver.active.get_current_target()
    positions = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, signature, positions)
    compiled = triton.compile(source, target=target, options={"debug": True})  # which keeps assertions
    compiled._init_handles()
    launch: Launch = compiled.function.launch
    return launch


def refuse_as_the_host_does(operator: Any, *arguments: Any, **keywords: Any) -> None:
    """Run an overload on the host with copies of its arguments, for the error it raises there: for arguments that
    something is wrong with. Where the host finds no fault, or there are no values to copy, nothing happens."""
    if session.timing_only or graphs.is_capturing():
        return

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().cpu()
        is_chip = isinstance(leaf, torch.device) and leaf.type == "chip"
        return torch.device("cpu") if is_chip else None if isinstance(leaf, torch.Generator) else leaf

    try:
        operator(*pytree.tree_map(copy, arguments), **pytree.tree_map(copy, keywords))
    except NotImplementedError as error:  # the host has no such operator, or not for the type
        if "not implemented for '" in str(error):
            raise


def otherwise(operator: Any, *arguments: Any, **keywords: Any) -> Any:
    """Run an overload some other way, for what its kernel here is not made for: compiled, or on the host."""
    from tapeout.pytorch.ops import fallback

    return fallback.run(operator, *arguments, **keywords)
