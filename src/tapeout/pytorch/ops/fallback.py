"""Operators without a hand-written kernel: Inductor compiles them (compiled.py), else they run on the host.

torch calls `run` for every overload nobody registered. The host's part is C++ (shim.cpp), reached by a dispatch key
that belongs to no device.
"""

from typing import Any

import torch

from tapeout.pytorch.device_runtime import refuse_host
from tapeout.pytorch.ledger import count
from tapeout.pytorch.ops import compiled, scalars


def run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """The operator's result, counted as the chip's or the host's. Raises NotImplementedError if the host may not."""
    args = _with_tensors_for_numbers(operator, _on_one_device(operator, args))
    if compiled.is_running(operator):
        compiled.refuse(operator, "what Inductor wrote for it calls it again")
    result = compiled.run(operator, args, kwargs)
    if not isinstance(result, compiled.Refusal):
        count(operator._schema.name)
        return result
    return on_host(operator, result.reason, *args, **kwargs)


def on_host(operator: Any, reason: str, *args: Any, **kwargs: Any) -> Any:
    """The operator's result from the host, counted as its. Raises NotImplementedError if the host may not."""
    refuse_host(operator.name(), reason)
    return operator._op_dk(torch._C.DispatchKey.PrivateUse2, *args, **kwargs)


def refuse_layout(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises NotImplementedError: of what is not dense, the chip has only what ops/sparse.py does."""
    raise NotImplementedError(
        f"{operator.name()} of a sparse or quantized tensor: the chip has no such operator. Keep it on the CPU, "
        "or make it dense with to_dense() (sparse) or dequantize() (quantized)"
    )


def _on_one_device(operator: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A CPU tensor of one element that is read may stand beside the chip's tensors; it goes there."""
    if not any(isinstance(value, torch.Tensor) and value.is_cpu for value in args):
        return args
    return tuple(
        value.to("chip")
        if isinstance(value, torch.Tensor) and value.is_cpu and not value.dim() and not argument.is_write
        else value
        for value, argument in zip(args, operator._schema.arguments, strict=False)
    )


def _with_tensors_for_numbers(operator: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch hands over `2` where an operator that takes a tensor was given one; its own overloads refuse that."""
    if not any(value.__class__ in (bool, int, float) for value in args):
        return args
    numbers = [
        place
        for place, (value, argument) in enumerate(zip(args, operator._schema.arguments, strict=False))
        if isinstance(value, bool | int | float) and isinstance(argument.type, torch.TensorType)
    ]
    if not numbers:
        return args
    tensors = [value for value in args if isinstance(value, torch.Tensor)]

    def as_tensor(place: int, value: scalars.Number) -> torch.Tensor:
        """Return the number as a tensor of the type that torch gives it beside the other operand."""
        if len(tensors) != 1:
            return torch.tensor(value, device="cpu")
        dtype = torch.result_type(tensors[0], value)
        if dtype in scalars.INTEGERS and tensors[0].dim():  # whose type stands; or a float's, which holds more
            return torch.tensor(value, device="cpu")
        if place and dtype in compiled.HALVES and operator.overloadpacket.__name__ in KEEP_NUMBERS and tensors[0].dim():
            return torch.tensor(value, dtype=torch.float32, device="cpu")
        return torch.tensor(scalars.operand(value, dtype), dtype=dtype, device="cpu")

    return tuple(as_tensor(place, value) if place in numbers else value for place, value in enumerate(args))


KEEP_NUMBERS = ("div", "div_", "divide", "divide_", "floor_divide", "floor_divide_")
"""Operators that take a divisor unrounded, though the tensor beside it is of a half type."""
