"""What happens to an operator without a kernel of its own: Inductor writes one (compiled.py), else it runs on the host.

torch calls `run` for every overload nobody registered. The host's part is C++ (shim.cpp), reached by a dispatch key
that belongs to no device.
"""

from typing import Any

import torch

from tapeout.pytorch.device_runtime import refuse_host
from tapeout.pytorch.ledger import count
from tapeout.pytorch.ops import compiled


def run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """The operator's result, counted as the chip's or the host's. Raises NotImplementedError if the host may not."""
    args = _with_tensors_for_numbers(operator, args)
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
    wide = any(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in args)
    real = torch.float64 if wide else torch.get_default_dtype()
    return tuple(
        torch.tensor(value, dtype=real if isinstance(value, float) else None) if place in numbers else value
        for place, value in enumerate(args)
    )
