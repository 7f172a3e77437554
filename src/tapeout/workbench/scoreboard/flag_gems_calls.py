"""Calls of the operators for which FlagGems has a function and PyTorch's database (OpInfo) no sample.

By the operator's name with its overload, what makes the arguments and the named arguments, on the CPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = tuple[tuple[Any, ...], dict[str, Any]]

NO_REFERENCE = {
    "_flash_attention_forward": "PyTorch has the operator for CUDA only, so there is nothing to compare with",
    "max_pool2d_backward": "PyTorch has the operator for MPS only, so there is nothing to compare with",
    "greater.out": "PyTorch has no such operator",
    "new_full.Tensor": "PyTorch has no such operator",
    "nll_loss_nd_backward": "PyTorch has no such operator",
    "nll_loss_nd_forward": "PyTorch has no such operator",
    "scaled_softmax_backward": "PyTorch has no such operator",
    "scaled_softmax_forward": "PyTorch has no such operator",
}
"""Functions for which there is nothing to compare with."""

FAULTS_OF_THE_PACKAGE = {
    "_upsample_nearest_exact1d": "it takes the element at floor(i * in / out), PyTorch at floor((i + 0.5) * in / out)",
    "bitwise_left_shift": "it hands its own code None where a tensor for the result is expected",
    "bitwise_right_shift": "it hands its own code None where a tensor for the result is expected",
    "native_batch_norm": "it returns statistics in evaluation too, where PyTorch returns empty tensors",
    "native_batch_norm_backward": "it reads saved statistics in evaluation, where there are none",
    "native_group_norm": "with a group size that is no power of two it averages channels of the next group too",
    "native_layer_norm": "it returns the statistics in another shape than PyTorch",
    "nll_loss_forward": "it leaves the total weight uninitialised where PyTorch returns 0",
    "repeat": "the Python code that it writes for tensors without dimensions is not Python",
    "tile": "the Python code that it writes for tensors without dimensions is not Python",
    "unique_consecutive": "it returns only the results asked for, the operator all",
    "var.dim": "it does not take the operator's argument `unbiased`",
    "zero": "it overwrites its argument, of which the operator returns a zeroed copy",
}
"""Differences of FlagGems from the operator on every device, as its source says."""


def _floats(*shape: int) -> Tensor:
    return torch.randn(shape)


def _counts(*shape: int, end: int = 9) -> Tensor:
    return torch.randint(end, shape)


def _call(*arguments: Callable[[], Any] | Any, **named: Callable[[], Any] | Any) -> Callable[[], Call]:
    """Makes the call; arguments that are functions are asked for their value when it is made."""

    def value(argument: Any) -> Any:
        if isinstance(argument, list):
            return [value(item) for item in argument]
        return argument() if callable(argument) else argument

    return lambda: (tuple(map(value, arguments)), {name: value(each) for name, each in named.items()})


def matrix() -> Tensor:
    return _floats(4, 5)


def positive() -> Tensor:
    return torch.rand(4, 5) + 0.5


def counts() -> Tensor:
    return _counts(4, 5)


def mask() -> Tensor:
    return torch.rand(4, 5) > 0.4


def image() -> Tensor:
    return _floats(1, 2, 8, 8)


def row() -> Tensor:
    return _floats(1, 2, 8)


def wide_row() -> Tensor:
    return _floats(1, 2, 13)


_GROUP_NORM = (lambda: _floats(2, 3), lambda: torch.rand(2, 3) + 0.5, lambda: _floats(6))

CALLS: dict[str, Callable[[], Call]] = {
    **{f"__{name}__.Scalar": _call(counts, 6) for name in ("or", "ior")},
    **{f"__{name}__.Tensor": _call(counts, counts) for name in ("or", "ior")},
    **{f"bitwise_{name}.Scalar": _call(counts, 6) for name in ("and", "or", "and_", "or_")},
    **{f"bitwise_{name}.Scalar_Tensor": _call(6, counts) for name in ("and", "or")},
    **{f"{name}{place}.Scalar": _call(matrix, 0.7) for name in ("div", "divide", "true_divide") for place in ("", "_")},
    **{
        f"{name}{place}.Scalar_mode": _call(matrix, 0.7, rounding_mode="floor")
        for name in ("div", "divide")
        for place in ("", "_")
    },
    **{f"{name}.Scalar": _call(matrix, 0.7) for name in ("floor_divide", "floor_divide_", "remainder_")},
    **{f"{name}.Scalar": _call(counts, 4) for name in ("eq", "ne", "lt", "le", "gt", "ge", "greater")},
    "greater.Scalar_out": _call(counts, 4, out=mask),
    "remainder.Scalar_Tensor": _call(5.5, positive),
    "pow.Scalar": _call(1.5, matrix),
    "pow.Tensor_Scalar": _call(positive, 1.5),
    "pow_.Scalar": _call(positive, 1.5),
    **{f"{name}{place}": _call(matrix, -0.5, 0.5) for name in ("clamp", "clip") for place in ("", "_")},
    **{f"clamp_min{place}": _call(matrix, 0.1) for place in ("", "_")},
    "copysign": _call(matrix, matrix),
    **{f"bitwise_{side}_shift": _call(counts, counts) for side in ("left", "right")},
    "isin.Scalar_Tensor": _call(4, counts),
    "isin.Tensor_Scalar": _call(counts, 4),
    "_is_all_true": _call(mask),
    "_assert_async": _call(lambda: torch.ones(1)),
    "_functional_sym_constrain_range_for_size": _call(3, 1, 8, lambda: torch.zeros(1)),
    "conv3d": _call(lambda: _floats(1, 2, 4, 5, 5), lambda: _floats(3, 2, 2, 2, 3)),
    # Filling and copying
    "arange": _call(7, device=torch.device("cpu")),
    "rand": _call([4, 5], device=torch.device("cpu")),
    "randperm": _call(9, device=torch.device("cpu")),
    "_to_copy": _call(matrix, dtype=torch.float64),
    "copy_": _call(matrix, matrix),
    "lift_fresh_copy": _call(matrix),
    "fill.Tensor": _call(matrix, lambda: torch.tensor(2.5)),
    "fill.Tensor_out": _call(matrix, lambda: torch.tensor(2.5), out=matrix),
    "fill_.Tensor": _call(matrix, lambda: torch.tensor(2.5)),
    "zero": _call(matrix),
    "zero.out": _call(matrix, out=matrix),
    "zero_": _call(matrix),
    "where.self_out": _call(mask, matrix, matrix, out=matrix),
    # Indexing
    "index.Tensor": _call(matrix, [lambda: _counts(3, end=4)]),
    "gather_backward": _call(lambda: _floats(4, 3), matrix, 1, lambda: _counts(4, 3, end=5), False),
    **{
        f"scatter{place}.reduce": _call(matrix, 1, lambda: _counts(4, 3, end=5), lambda: _floats(4, 3), reduce="add")
        for place in ("", "_")
    },
    "_unique2": _call(counts, True, True, True),
    "embedding_backward": _call(lambda: _floats(3, 5), lambda: _counts(3, end=6), 6, -1, False, False),
    "embedding_dense_backward": _call(lambda: _floats(3, 5), lambda: _counts(3, end=6), 6, -1, False),
    # Functions, norms and products
    "log_sigmoid": _call(matrix),
    "special_i0e": _call(matrix),
    "special_i0e.out": _call(matrix, out=matrix),
    "special_i1": _call(matrix),
    "_safe_softmax": _call(matrix, 1),
    "linalg_vector_norm": _call(matrix, 2, [1], False),
    "_weight_norm_interface": _call(matrix, lambda: _floats(4, 1), 0),
    "_weight_norm_interface_backward": _call(matrix, matrix, lambda: _floats(4, 1), lambda: torch.rand(4, 1) + 0.5, 0),
    "native_group_norm_backward": _call(
        lambda: _floats(2, 6, 5), lambda: _floats(2, 6, 5), *_GROUP_NORM, 2, 6, 5, 3, [True, True, True]
    ),
    "_grouped_mm": _call(
        lambda: _floats(8, 16).bfloat16(),
        lambda: _floats(3, 16, 16).bfloat16(),
        lambda: torch.tensor([2, 5, 8], dtype=torch.int32),
    ),
    "_conv_depthwise2d": _call(image, lambda: _floats(2, 1, 3, 3), [3, 3], lambda: _floats(2), [1, 1], [1, 1], [1, 1]),
    # Losses and dropout
    "margin_ranking_loss": _call(matrix, matrix, lambda: _floats(4, 5).sign(), 0.1, 1),
    "nll_loss2d_forward": _call(lambda: _floats(2, 4, 3, 3), lambda: _counts(2, 3, 3, end=4), None, 1, -100),
    "nll_loss2d_backward": _call(
        lambda: torch.tensor(1.0),
        lambda: _floats(2, 4, 3, 3),
        lambda: _counts(2, 3, 3, end=4),
        None,
        1,
        -100,
        lambda: torch.tensor(18.0),
    ),
    "native_dropout": _call(matrix, 0.5, True),
    "native_dropout_backward": _call(matrix, mask, 2.0),
    "rrelu_with_noise_backward": _call(matrix, matrix, positive, 0.1, 0.3, True, False),
    # Padding and resizing
    **{f"{name}_pad1d": _call(row, [2, 3]) for name in ("reflection", "replication")},
    **{f"{name}_pad1d.out": _call(row, [2, 3], out=wide_row) for name in ("reflection", "replication")},
    "reflection_pad2d": _call(image, [1, 2, 2, 1]),
    "reflection_pad2d.out": _call(image, [1, 2, 2, 1], out=lambda: _floats(1, 2, 11, 11)),
    "replication_pad3d": _call(lambda: _floats(1, 2, 4, 4, 4), [1, 1, 0, 1, 1, 2]),
    "_upsample_bicubic2d_aa": _call(image, [5, 6], False),
    "_upsample_bicubic2d_aa_backward": _call(lambda: _floats(1, 2, 5, 6), [5, 6], [1, 2, 8, 8], False),
    "upsample_bicubic2d": _call(image, [5, 6], False),
    "upsample_linear1d": _call(row, [5], False),
    "_upsample_nearest_exact1d": _call(row, [5]),
    "upsample_nearest1d": _call(row, [5]),
    "upsample_nearest2d": _call(image, [5, 6]),
    "upsample_nearest3d": _call(lambda: _floats(1, 2, 4, 4, 4), [3, 6, 5]),
}
