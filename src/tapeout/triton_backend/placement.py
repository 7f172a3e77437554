"""A Triton kernel runs on the chip that holds its tensors, whichever of the process's chips is the current one."""

import functools
from typing import Any

import torch
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction


def install() -> None:
    """For a process with several chips. A kernel without tensors runs on the current chip."""
    for launcher in (JITFunction, Autotuner):
        launcher.run = _on_chip_of_tensors(launcher.run)


def _on_chip_of_tensors(run: Any) -> Any:
    @functools.wraps(run)
    def on_chip(self: Any, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor) and value.device.type == "chip":
                with torch.chip.device(value.device):  # type: ignore[attr-defined]
                    return run(self, *args, **kwargs)
        return run(self, *args, **kwargs)

    return on_chip
