"""Tensors resized along their last dimensions by weights that only positions decide, as products with matrices.

Adaptive average pooling and the gradients of nearest, linear and cubic interpolation: one small matrix for each
dimension, made on the host from the sizes, says how much of each source element a result element has. And the gradients
of pools of maxima, whose weights are the indices.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from tapeout.pytorch.ops.launch import count, otherwise
from tapeout.pytorch.ops.matmul import MATRIX_DTYPES

aten = torch.ops.aten
CUBIC = -0.75  # torch's coefficient


def _averages(size: int, out_size: int) -> torch.Tensor:
    """(out_size, size): adaptive average pooling."""
    matrix = torch.zeros(out_size, size, dtype=torch.float64)
    for row in range(out_size):
        start, end = row * size // out_size, -(-(row + 1) * size // out_size)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def _positions(size: int, out_size: int, align_corners: bool, factor: float | None) -> torch.Tensor:
    """Return where in the source each result element lies."""
    place = torch.arange(out_size, dtype=torch.float64)
    if align_corners:
        return place * ((size - 1) / (out_size - 1)) if out_size > 1 else place * 0
    return (place + 0.5) * (1 / factor if factor else size / out_size) - 0.5


def _linear(size: int, out_size: int, align_corners: bool, factor: float | None) -> torch.Tensor:
    """(out_size, size): linear interpolation."""
    place = _positions(size, out_size, align_corners, factor).clamp(min=0)
    below = place.floor().clamp(max=size - 1)
    share = (place - below).clamp(max=1)
    return _spread({0: 1 - share, 1: share}, below, size)


def _nearest(size: int, out_size: int, factor: float | None, middle: float) -> torch.Tensor:
    """(out_size, size): the nearest element, in float32 as torch has it. `middle`: 0.5 to go by middles."""
    step = torch.tensor(1 / factor if factor else size / out_size, dtype=torch.float32)
    chosen = ((torch.arange(out_size, dtype=torch.float32) + middle) * step).floor().clamp(max=size - 1)
    return _spread({0: torch.ones(out_size, dtype=torch.float64)}, chosen, size)


def _cubic(size: int, out_size: int, align_corners: bool, factor: float | None) -> torch.Tensor:
    """(out_size, size): cubic interpolation."""
    place = _positions(size, out_size, align_corners, factor)
    below = place.floor()
    share = place - below

    def near(x: torch.Tensor) -> torch.Tensor:
        return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1

    def far(x: torch.Tensor) -> torch.Tensor:
        return ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC

    weights = {-1: far(share + 1), 0: near(share), 1: near(1 - share), 2: far(2 - share)}
    return _spread(weights, below, size)


def _spread(weights: dict[int, torch.Tensor], below: torch.Tensor, size: int) -> torch.Tensor:
    """A matrix of weights by their distance from a source element; those beyond the border go to it."""
    matrix = torch.zeros(below.shape[0], size, dtype=torch.float64)
    for distance, weight in weights.items():
        column = (below.long() + distance).clamp(0, size - 1)
        matrix.scatter_add_(1, column.unsqueeze(1), weight.unsqueeze(1))
    return matrix


def _product(source: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """The last dimensions of a tensor, each times the transpose of its matrix; half types in float32, rounded at the
    end."""
    wide = torch.float64 if source.dtype == torch.float64 else torch.float32
    sizes = [matrix.shape[0] for matrix in matrices]
    if source.numel() == 0 or math.prod(sizes) == 0:
        return source.new_zeros([*source.shape[: -len(sizes)], *sizes])
    out = source.to(wide)
    for dim, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
        weights = matrix.to(wide).to(source.device)
        out = torch.matmul(out.movedim(dim, -1), weights.t()).movedim(-1, dim)
    return out.to(source.dtype).contiguous()


def _is_ours(source: torch.Tensor) -> bool:
    return source.dtype in MATRIX_DTYPES or source.dtype == torch.float64


def adaptive_average(self: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor:
    if not _is_ours(self):
        result: torch.Tensor = otherwise(aten._adaptive_avg_pool3d.default, self, output_size)
        return result
    count("aten::_adaptive_avg_pool3d")
    sizes = self.shape[-len(output_size) :]
    return _product(self, [_averages(n, out) for n, out in zip(sizes, output_size, strict=True)])


def _adaptive_average_backward(operator: Any, dims: int) -> Any:
    def run(grad_output: torch.Tensor, self: torch.Tensor) -> torch.Tensor:
        if not _is_ours(grad_output):
            result: torch.Tensor = otherwise(operator, grad_output, self)
            return result
        count(operator._schema.name)
        sizes = zip(self.shape[-dims:], grad_output.shape[-dims:], strict=True)
        return _product(grad_output, [_averages(n, out).t() for n, out in sizes])

    return run


adaptive_average_backward_2d = _adaptive_average_backward(aten._adaptive_avg_pool2d_backward.default, 2)
adaptive_average_backward_3d = _adaptive_average_backward(aten._adaptive_avg_pool3d_backward.default, 3)


def _interpolation_backward(operator: Any, matrix: Any) -> Any:
    def run(
        grad_output: torch.Tensor, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool,
        *factors: float | None, grad_input: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        dims = len(output_size)
        if not _is_ours(grad_output):
            return otherwise(
                operator, grad_output, output_size, input_size, align_corners, *factors, grad_input=grad_input
            )
        if grad_input.shape != tuple(input_size):
            grad_input.resize_(input_size)
        given = (*factors, *(None,) * (dims - len(factors)))
        sizes = zip(input_size[-dims:], output_size, given, strict=True)
        count(operator._schema.name)
        matrices = [matrix(n, out, align_corners, factor).t() for n, out, factor in sizes]
        return grad_input.copy_(_product(grad_output, matrices))

    return run


def _nearest_backward(operator: Any, middle: float) -> Any:
    def run(
        grad_output: torch.Tensor, output_size: Sequence[int], input_size: Sequence[int], *factors: float | None,
        grad_input: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        def matrix(size: int, out_size: int, align_corners: bool, factor: float | None) -> torch.Tensor:
            return _nearest(size, out_size, factor, middle)

        backward = _interpolation_backward(operator, matrix)
        result: torch.Tensor = backward(grad_output, output_size, input_size, False, *factors, grad_input=grad_input)
        return result

    return run


linear_backward_1d = _interpolation_backward(aten.upsample_linear1d_backward.grad_input, _linear)
linear_backward_2d = _interpolation_backward(aten.upsample_bilinear2d_backward.grad_input, _linear)
linear_backward_3d = _interpolation_backward(aten.upsample_trilinear3d_backward.grad_input, _linear)
nearest_backward_1d = _nearest_backward(aten.upsample_nearest1d_backward.grad_input, 0.0)
nearest_backward_2d = _nearest_backward(aten.upsample_nearest2d_backward.grad_input, 0.0)  # Inductor's ignores factors
nearest_backward_3d = _nearest_backward(aten.upsample_nearest3d_backward.grad_input, 0.0)
nearest_exact_backward_1d = _nearest_backward(aten._upsample_nearest_exact1d_backward.grad_input, 0.5)
nearest_exact_backward_2d = _nearest_backward(aten._upsample_nearest_exact2d_backward.grad_input, 0.5)
nearest_exact_backward_3d = _nearest_backward(aten._upsample_nearest_exact3d_backward.grad_input, 0.5)
cubic_backward_2d = _interpolation_backward(aten.upsample_bicubic2d_backward.grad_input, _cubic)


def _pool_backward_of_largest(name: str, dims: int) -> Any:
    """Adaptive and fractional pools: all that their gradients need is the indices, whatever else they are given."""

    def run(grad_output: torch.Tensor, self: torch.Tensor, *given: Any, grad_input: torch.Tensor) -> torch.Tensor:
        count(name)
        if grad_input.shape != self.shape:
            grad_input.resize_(self.shape)
        return grad_input.copy_(_to_largest(grad_output, self, given[-1], dims))

    return run


adaptive_max_backward_2d = _pool_backward_of_largest("aten::adaptive_max_pool2d_backward", 2)
adaptive_max_backward_3d = _pool_backward_of_largest("aten::adaptive_max_pool3d_backward", 3)
fractional_max_backward_2d = _pool_backward_of_largest("aten::fractional_max_pool2d_backward", 2)


def fractional_max_backward_3d(
    grad_output: torch.Tensor, self: torch.Tensor, kernel_size: Sequence[int], output_size: Sequence[int],
    indices: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    count("aten::fractional_max_pool3d_backward")
    return _to_largest(grad_output, self, indices, 3)


def max_pool_backward_3d(
    grad_output: torch.Tensor, self: torch.Tensor, kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], ceil_mode: bool, indices: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Each gradient goes to the element that was the largest."""
    count("aten::max_pool3d_with_indices_backward")
    return _to_largest(grad_output, self, indices, 3)


def _to_largest(gradient: torch.Tensor, source: torch.Tensor, indices: torch.Tensor, dims: int) -> torch.Tensor:
    flat = torch.zeros_like(source, memory_format=torch.contiguous_format).flatten(-dims)
    return flat.scatter_add_(-1, indices.flatten(-dims), gradient.flatten(-dims)).view(source.shape)
