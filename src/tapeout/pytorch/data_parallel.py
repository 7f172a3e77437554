"""What `torch.nn.DataParallel` asks of a device: copies to several chips and back, which torch builds for CUDA alone.

Gradients are summed by torch's own code: on the first chip, then the others in ascending order.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch


def install() -> None:
    """Give torch the functions that its build for the CPU leaves out."""
    for name, function in (
        ("_broadcast", _broadcast),
        ("_broadcast_out", _broadcast_out),
        ("_broadcast_coalesced", _broadcast_coalesced),
        ("_scatter", _scatter),
        ("_scatter_out", _scatter_out),
        ("_gather", _gather),
        ("_gather_out", _gather_out),
    ):
        if not hasattr(torch._C, name):
            setattr(torch._C, name, function)
    nccl = torch.cuda.nccl
    could_add = nccl.is_available
    nccl.is_available = lambda tensors: tensors[0].device.type != "chip" and could_add(tensors)


def _device(index: int) -> torch.device:
    return torch.device("cpu") if index < 0 else torch.device("chip", index)


def _broadcast(tensor: torch.Tensor, devices: Sequence[int]) -> list[torch.Tensor]:
    return [tensor.to(_device(index), non_blocking=True) for index in devices]


def _broadcast_out(tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    for each in out:
        each.copy_(tensor, non_blocking=True)
    return out


def _broadcast_coalesced(
    tensors: Sequence[torch.Tensor], devices: Sequence[int], buffer_size: int
) -> list[list[torch.Tensor]]:
    """The tensors on each device. A copy costs the chips the same in one piece or several, but for its latency."""
    return [[tensor.to(_device(index), non_blocking=True) for tensor in tensors] for index in devices]


def _parts(tensor: torch.Tensor, count: int, sizes: Sequence[int] | None, dim: int) -> Sequence[torch.Tensor]:
    return tensor.split(list(sizes), dim) if sizes is not None else tensor.chunk(count, dim)


def _scatter(
    tensor: torch.Tensor, devices: Sequence[int], sizes: Sequence[int] | None, dim: int, streams: Any
) -> list[torch.Tensor]:
    """A part of the tensor on each device. `streams`: of each device, for the copies; None: the current ones."""
    scattered = []
    for place, part in enumerate(_parts(tensor, len(devices), sizes, dim)):
        with streams[place] if streams and streams[place] is not None else contextlib.nullcontext():
            scattered.append(part.contiguous().to(_device(devices[place]), non_blocking=True))
    return scattered


def _scatter_out(tensor: torch.Tensor, out: Sequence[torch.Tensor], dim: int, streams: Any) -> Sequence[torch.Tensor]:
    sizes = [each.size(dim) for each in out]
    for place, (part, each) in enumerate(zip(tensor.split(sizes, dim), out, strict=True)):
        with streams[place] if streams and streams[place] is not None else contextlib.nullcontext():
            each.copy_(part, non_blocking=True)
    return out


def _gather(tensors: Sequence[torch.Tensor], dim: int, destination: int | None) -> torch.Tensor:
    """The tensors one after another on a device: -1 the CPU, None the current chip."""
    device = _device(torch.chip.current_device() if destination is None else destination)  # type: ignore[attr-defined]
    return torch.cat([tensor.to(device, non_blocking=True) for tensor in tensors], dim)


def _gather_out(tensors: Sequence[torch.Tensor], out: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([tensor.to(out.device, non_blocking=True) for tensor in tensors], dim, out=out)
