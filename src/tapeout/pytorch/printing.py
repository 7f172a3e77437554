"""`print(tensor)`: the figures of a tensor on the chip are laid out by the host.

torch looks at the values in float64, one operator after another, on the tensor's own device. A chip need not have
float64, and what it computed for a print would be time that no program asked for.
"""

import functools

import torch
from torch import _tensor_str


def lay_out_on_host() -> None:
    """Make every `repr` of a tensor on the chip so, in this process. Idempotent."""
    _tensor_str._Formatter.__init__ = _look_at_a_copy  # type: ignore[method-assign]


_look = _tensor_str._Formatter.__init__


@functools.wraps(_look)
def _look_at_a_copy(self: _tensor_str._Formatter, tensor: torch.Tensor) -> None:
    """torch gives all of a small tensor, the edges of a large one."""
    _look(self, tensor.detach().cpu() if tensor.device.type == "chip" else tensor)
