"""Tensors of the chip in what hands tensors on: queues between processes, DLPack, safetensors files.

None of these lets a device join in, so each function here changes one of them, for tensors of the chip only. Processes
have a chip each: what goes through a queue is copied to the receiver's.
"""

import functools
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch


def send_between_processes() -> None:
    """Tensors of the chip go through the queues of torch.multiprocessing as the CPU's do."""
    from torch.multiprocessing.reductions import reduce_tensor

    def reduce(tensor: torch.Tensor) -> Any:
        if tensor.device.type != "chip":
            return reduce_tensor(tensor)
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError("a tensor of the chip that is part of a graph cannot go to another process: detach() it")
        return _received, (tensor.detach().cpu(), tensor.requires_grad, isinstance(tensor, torch.nn.Parameter))

    for kind in (torch.Tensor, torch.nn.Parameter):
        ForkingPickler.register(kind, reduce)


def _received(sent: torch.Tensor, requires_grad: bool, is_parameter: bool) -> torch.Tensor:
    tensor = sent.to("chip")
    return torch.nn.Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)


def exchange_by_dlpack() -> None:
    """DLPack's number of the chip's kind of device, which torch's C++ knows and its Python does not."""
    device_of = torch.Tensor.__dlpack_device__

    @functools.wraps(device_of)
    def device_with_chip(self: torch.Tensor) -> Any:
        if self.device.type != "chip":
            return device_of(self)
        from torch.utils.dlpack import DLDeviceType

        return DLDeviceType.kDLExtDev, self.device.index

    torch.Tensor.__dlpack_device__ = device_with_chip  # type: ignore[method-assign]


def open_safetensors_on_chip() -> None:
    """`safe_open(file, "pt", device="chip")`, and with it `load_file`. Runs when safetensors has been imported."""
    import safetensors

    open_file = safetensors.safe_open

    @functools.wraps(open_file, updated=())
    def safe_open(filename: Any, framework: str, device: Any = "cpu", **options: Any) -> Any:
        if str(device).split(":")[0] != "chip":
            return open_file(filename, framework, device, **options)
        return _OnChip(open_file(filename, framework, "cpu", **options), str(device))

    safetensors.safe_open = safe_open  # type: ignore[misc,assignment]


class _OnChip:
    """A file of safetensors, or a tensor in it that is read in slices, whose tensors go to the chip."""

    def __init__(self, opened: Any, device: str):
        self._opened, self._device = opened, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def __enter__(self) -> "_OnChip":
        return _OnChip(self._opened.__enter__(), self._device)

    def __exit__(self, *error: Any) -> Any:
        return self._opened.__exit__(*error)

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._opened.get_tensor(name).to(self._device)

    def get_tensors(self, *names: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self._device) for name, tensor in self._opened.get_tensors(*names).items()}

    def get_slice(self, name: str) -> "_OnChip":
        return _OnChip(self._opened.get_slice(name), self._device)

    def __getitem__(self, place: Any) -> torch.Tensor:
        return self._opened[place].to(self._device)
