"""PyTorch until the chip is first used: a program that never uses it finds torch as it is without Tapeout.

torch asks its accelerator about things that have nothing to do with it (is this memory of the host pinned?), and the
chip could answer only after its C++ part has been built. Until then it is answered here: nothing is pinned, nothing is
allocated. What asks for the chip's own uses it.
"""

import atexit
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from tapeout.pytorch import device_runtime
from tapeout.pytorch.import_hooks import when_imported


def install() -> None:
    """Answer for the chip until it is used. `torch.accelerator.Graph` becomes the chip's."""
    when_imported("torch.utils.data.dataloader", _pin_for_a_device_in_use)
    when_imported("torch.distributed.distributed_c10d", _communicate_between_hosts)
    when_imported("torch.accelerator", _offer_graphs)
    stand_ins: dict[tuple[Any, str], Callable[..., Any]] = {
        (torch.Tensor, "is_pinned"): lambda tensor, device=None: False,
        (torch.Tensor, "pin_memory"): _using_the_chip(torch.Tensor.pin_memory),
        (torch._C, "_get_accelerator"): lambda check=None: torch.device("chip"),
        (torch._C, "_accelerator_isAllocatorInitialized"): lambda: False,
        (torch._C, "_accelerator_getMemoryInfo"): _using_the_chip(torch._C._accelerator_getMemoryInfo),
        (torch._C, "_accelerator_getDeviceCapability"): _using_the_chip(torch._C._accelerator_getDeviceCapability),
    }
    own = {place: vars(place[0]).get(place[1]) for place in stand_ins}
    for (owner, name), answer in stand_ins.items():
        setattr(owner, name, answer)

    def restore() -> None:
        for (owner, name), before in own.items():
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    device_runtime.when_used(restore)
    atexit.register(_say_if_never_used)
    # The chip keeps no memory of the host for later.
    torch._C._accelerator_emptyHostCache = lambda: None


def _say_if_never_used() -> None:
    """A program that imports tapeout means to use the chip: one that ends well and never did is told so."""
    program, package = sys.modules.get("__main__"), sys.modules.get("tapeout")
    if device_runtime.is_initialized() or program is None or hasattr(sys, "last_type"):
        return
    if any(value is package for value in list(vars(program).values())):
        print('tapeout: nothing ran on the chip; tensors and modules go there with .to("chip")', file=sys.stderr)


def _using_the_chip(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        device_runtime.shim()
        return function(*args, **kwargs)

    return call


def _pin_for_a_device_in_use() -> None:
    """A data loader pins batches for the sake of a device: not for one that the program has not touched."""
    from torch.utils.data import dataloader

    iterator = dataloader._BaseDataLoaderIter
    begin = iterator.__init__

    @functools.wraps(begin)
    def __init__(self: Any, loader: Any) -> None:
        begin(self, loader)
        if not device_runtime.is_initialized():
            self._pin_memory = False

    iterator.__init__ = __init__  # type: ignore[method-assign]


def _communicate_between_hosts() -> None:
    """A process group without a named back end is gloo's, for tensors of the CPU: the chip has none of its own."""
    from torch.distributed import distributed_c10d as c10d

    choose = c10d.BackendConfig.__init__

    @functools.wraps(choose)
    def __init__(self: Any, backend: Any) -> None:
        unnamed = str(backend) == c10d.Backend.UNDEFINED
        choose(self, c10d.Backend("cpu:gloo") if unnamed else backend)

    c10d.BackendConfig.__init__ = __init__  # type: ignore[method-assign]


def _offer_graphs() -> None:
    def __getattr__(name: str) -> Any:
        if name == "Graph":
            from tapeout.pytorch import graphs  # brings the runtime, which importing torch does not need

            return graphs.Graph
        raise AttributeError(f"module 'torch.accelerator' has no attribute {name!r}")

    del torch.accelerator.Graph
    torch.accelerator.__getattr__ = __getattr__  # type: ignore[method-assign]
