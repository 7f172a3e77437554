"""Operators on a tensor and the stream that uses it."""

import torch


def record_stream(self: torch.Tensor, s: torch.Stream) -> None:
    """Nothing has to be kept: a stream's work has its numbers when the call that asks for it returns."""
