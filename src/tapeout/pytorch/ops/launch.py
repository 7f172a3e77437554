"""Launches our own kernels with little host time: compiled once per types and constants, then called directly.

Triton's launch path works out on every call what a kernel must be specialised for. Our kernels are specialised for
nothing but their types and constants, so a look-up in a dictionary replaces it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from triton.compiler import ASTSource

from tapeout import chip as chips
from tapeout.pytorch import device
from tapeout.runtime import clock

TYPE_NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
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
    key = (function, types, *constants.values(), id(chips.active()))
    launch = _compiled.get(key)
    if launch is None:
        launch = _compiled[key] = _compile(function, types, constants)
    return launch


def _compile(function: "triton.JITFunction[Any]", types: tuple[str, ...], constants: dict[str, Any]) -> Launch:
    names = list(function.arg_names)
    signature = dict(zip(names, [*types, *("constexpr" for _ in constants)], strict=True))
    target = triton.runtime.driver.active.get_current_target()
    positions = {(names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(ASTSource(function, signature, positions), target=target)
    compiled._init_handles()
    launch: Launch = compiled.function.launch
    return launch


def ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def power_of_two_at_least(value: int) -> int:
    """The smallest power of two that is not smaller: what a tile's side may be."""
    return 1 << (max(value, 1) - 1).bit_length()


def count(name: str) -> None:
    """Note in the ledger that an aten operator ran on the chip."""
    device.shim().tapeout_count_on_chip(name.encode(), 1)


def on_host(operator: Any, *arguments: Any, **keywords: Any) -> Any:
    """Run an overload on the host after all, counted like any fallback: for what its kernel here is not made for.

    Arguments the operator writes (out=, self of an in-place operator) are written where they are.
    """
    tensors = [value for value in (*arguments, *keywords.values()) if isinstance(value, torch.Tensor)]
    device.note_fallback(operator._schema.name, sum(tensor.nbytes for tensor in tensors))
    if clock.timing_only:
        return _on_shapes(operator, *arguments, **keywords)
    result = operator(*map(_host, arguments), **{key: _host(value) for key, value in keywords.items()})
    if "out" in keywords:
        return keywords["out"]
    if operator._schema.name.endswith("_"):
        return arguments[0]
    return tuple(part.to("chip") for part in result) if isinstance(result, tuple) else result.to("chip")


def _on_shapes(operator: Any, *arguments: Any, **keywords: Any) -> Any:
    """The same where there are no values: results of the right shapes, written arguments as they were."""
    result = operator(*map(_shape, arguments), **{key: _shape(value) for key, value in keywords.items()})
    if "out" in keywords:
        return keywords["out"]
    if operator._schema.name.endswith("_"):
        return arguments[0]
    return tuple(map(_new, result)) if isinstance(result, tuple) else _new(result)


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return [_shape(item) for item in value] if isinstance(value, list | tuple) else value


def _new(shape: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype, device="chip")


def _host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.ops.tapeout.as_host(value)
    return [_host(item) for item in value] if isinstance(value, list | tuple) else value
