"""Sparse tensors (COO) as embeddings' gradients need them: sums with dense and sparse ones, and equal indices merged.

All are made of dense operators over their indices and values, which are tensors of the chip. What is not here is
refused by name (fallback.py).
"""

import math
from typing import Any

import torch

from tapeout.pytorch.ops.launch import count


def coalesce(self: torch.Tensor) -> torch.Tensor:
    """Every index once, in order, with the sum of its values."""
    indices, values = self._indices(), self._values()
    sizes = self.shape[: self.sparse_dim()]
    if self._nnz() > 1:
        places, inverse = torch.unique(_places(indices, sizes), return_inverse=True)
        values = values.new_zeros((len(places), *values.shape[1:])).index_add_(0, inverse, values)
        indices = _indices_of(places, sizes)
    count("aten::_coalesce")
    return _sparse(self, indices, values, is_coalesced=True)


def to_dense(self: torch.Tensor, dtype: torch.dtype | None = None, masked_grad: bool | None = None) -> torch.Tensor:
    dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
    return add_(dense, self).to(dtype or self.dtype)


def sparse_mask(self: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The elements of a dense tensor at the indices of a sparse one."""
    if self.is_sparse:
        raise NotImplementedError("sparse_mask of a sparse tensor on the chip: use to_dense() first")
    count("aten::sparse_mask")
    return _sparse(mask, mask._indices(), self[tuple(mask._indices())], mask.is_coalesced())


def add(self: torch.Tensor, other: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    if not self.is_sparse:
        dtype = torch.result_type(self, other)
        return add_(self.to(dtype, copy=True), other, alpha=alpha)
    if not other.is_sparse:
        raise TypeError("add(sparse, dense) is not defined by torch: use add(dense, sparse)")
    if self.shape != other.shape or self.sparse_dim() != other.sparse_dim():
        raise NotImplementedError(f"a sum of sparse tensors of shapes {tuple(self.shape)} and {tuple(other.shape)}")
    indices = torch.cat((self._indices(), other._indices()), dim=1)
    scaled = other._values() if alpha == 1 else other._values() * alpha
    values = torch.cat((self._values(), scaled))  # of the type both have room in
    count("aten::add")
    return _sparse(self, indices, values, is_coalesced=False)


def add_(self: torch.Tensor, other: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    """A sparse tensor added to a dense one in place: only what it has is touched."""
    if self.is_sparse:
        raise NotImplementedError("add_ to a sparse tensor on the chip: write a = a + b")
    if self.shape != other.shape:
        raise NotImplementedError(f"a sum of shapes {tuple(self.shape)} and, sparse, {tuple(other.shape)}")
    if not torch.can_cast(other.dtype, self.dtype):
        raise RuntimeError(f"a sum of {self.dtype} and, sparse, {other.dtype} cannot be kept in {self.dtype}")
    indices = other._indices()
    if other.sparse_dim() == 1:
        self.index_add_(0, indices[0], other._values().to(self.dtype), alpha=alpha)
    else:
        sizes = self.shape[: other.sparse_dim()]
        flat = self.contiguous().view(math.prod(sizes), *self.shape[len(sizes) :])
        flat.index_add_(0, _places(indices, sizes), other._values().to(self.dtype), alpha=alpha)
        if flat.data_ptr() != self.data_ptr():
            self.copy_(flat.view(self.shape))
    count("aten::add_")
    return self


def mul(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return _by_number("mul", self, other)


def mul_(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return _by_number("mul_", self, other)


def div(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return _by_number("div", self, other)


def div_(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return _by_number("div_", self, other)


def neg(self: torch.Tensor) -> torch.Tensor:
    count("aten::neg")
    return _sparse(self, self._indices(), -self._values(), self.is_coalesced())


def mm(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(n, k) sparse times (k, m) dense: rows of the dense matrix, gathered, scaled and summed; (n, m) dense."""
    if not self.is_sparse or other.is_sparse or self.sparse_dim() != 2:
        raise NotImplementedError("on the chip, only the first matrix of a product may be sparse")
    if self.shape[1] != other.shape[0]:
        raise RuntimeError(f"mm of shapes {tuple(self.shape)} and {tuple(other.shape)}")
    rows, columns = self._indices()
    product = torch.zeros((self.shape[0], other.shape[1]), dtype=other.dtype, device=other.device)
    count("aten::mm")
    return product.index_add_(0, rows, self._values().unsqueeze(1) * other[columns])


def addmm(
    self: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor, *, beta: float = 1, alpha: float = 1
) -> torch.Tensor:  # fmt: skip
    product = mm(mat1, mat2)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else self * beta + product


def _by_number(operator: str, self: torch.Tensor, other: Any) -> torch.Tensor:
    """The values multiplied or divided by a number; in place if the operator's name ends so."""
    if not self.is_sparse and isinstance(other, torch.Tensor) and other.is_sparse and operator == "mul":
        self, other = other, self
    if isinstance(other, torch.Tensor) and (other.is_sparse or other.dim()):
        raise NotImplementedError(f"{operator} of a sparse tensor and one of shape {tuple(other.shape)} on the chip")
    values = getattr(self._values(), operator)(other)
    count(f"aten::{operator}")
    return self if operator.endswith("_") else _sparse(self, self._indices(), values, self.is_coalesced())


def _sparse(like: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, is_coalesced: bool) -> torch.Tensor:
    """The sparse tensor of this shape with other indices and values."""
    made: torch.Tensor = torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors(
        like.sparse_dim(), like.dense_dim(), like.shape, indices, values, dtype=values.dtype, layout=torch.sparse_coo,
        device=values.device, is_coalesced=is_coalesced,
    )  # fmt: skip
    return made


def _places(indices: torch.Tensor, sizes: torch.Size) -> torch.Tensor:
    """(nnz,): each element's place in a dense tensor of these sizes, rows first; of indices (dimensions, nnz)."""
    places = indices[0]
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        places = places * size + index
    return places


def _indices_of(places: torch.Tensor, sizes: torch.Size) -> torch.Tensor:
    """(dimensions, nnz): the inverse of `_places`."""
    indices = []
    for size in reversed(sizes[1:]):
        indices.append(places % size)
        places = places // size
    return torch.stack((places, *reversed(indices)))
