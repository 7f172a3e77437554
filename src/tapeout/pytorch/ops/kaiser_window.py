"""Kaiser's window. Of the windows torch composes every other of operators; this one it computes by a kernel for each
device, and ends in an assertion of its own where a device has none."""

import torch

from tapeout.pytorch.ops.launch import count


def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    """I0(beta * sqrt(1 - x * x)) / I0(beta) at x from -1 to 1; of a periodic window the last place is left out."""
    dtype = dtype or torch.get_default_dtype()
    if layout not in (None, torch.strided):
        raise RuntimeError(f"kaiser_window is not implemented for sparse types, got: {layout}")
    if not dtype.is_floating_point:
        raise RuntimeError(f"kaiser_window expects floating point dtypes, got: {dtype}")
    if window_length < 0:
        raise RuntimeError(f"kaiser_window requires non-negative window_length, got window_length={window_length}")
    count("aten::kaiser_window")
    if window_length <= 1:
        return torch.ones(window_length, dtype=dtype, device=device)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    intervals = window_length if periodic else window_length - 1
    x = torch.arange(window_length, dtype=wide, device=device) * 2 / intervals - 1
    greatest = torch.special.i0(torch.tensor(beta, dtype=torch.float64)).item()
    return (torch.special.i0((1 - x * x).sqrt() * beta) / greatest).to(dtype)
