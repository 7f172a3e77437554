"""Sorting: sort, topk, stable in all cases, in every type of the chip.

A row is sorted as 64-bit keys, the value's order in the upper half and its index in the lower, so equal values keep
their order and the key says where a value came from. Values of 64 bits take two rounds, the lower half first. Tiles
are sorted in the scratchpad; longer rows merge them bitonically, tile against tile.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from tapeout.pytorch.ops.elementwise import TRITON_DTYPES
from tapeout.pytorch.ops.launch import INTEGERS, POINTER, ceil_div, count, kernel, otherwise, power_of_two_at_least

TILE = 512
MAP_TILE = 1024
LONGEST_ROW = 1 << 31

aten = torch.ops.aten


@triton.jit
def _order_of(value, HALF: tl.constexpr):
    """A 32-bit integer that is smaller for a smaller value; NaN is larger than all. HALF of a 64-bit value."""
    if value.dtype == tl.float64:
        value = tl.where(value == 0.0, 0.0, value)
        bits = value.to(tl.int64, bitcast=True)
        bits = tl.where(value != value, 0x7FFFFFFFFFFFFFFF, bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF))
    elif value.dtype.is_floating():
        single = value.to(tl.float32)
        single = tl.where(single == 0.0, 0.0, single)
        short = single.to(tl.int32, bitcast=True)
        bits = tl.where(single != single, 0x7FFFFFFF, short ^ ((short >> 31) & 0x7FFFFFFF)).to(tl.int64)
    else:
        bits = value.to(tl.int64)
    if HALF == "low":
        return (bits & 0xFFFFFFFF) - 0x80000000
    elif HALF == "high":
        return bits >> 32
    else:
        return bits


@triton.jit
def _pack(
    source, order, keys, columns, row_stride, column_stride, width,
    HALF: tl.constexpr, DESCENDING: tl.constexpr, GIVEN_ORDER: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The keys of a row, for its elements as they come or in a given order; the largest key past its end."""
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < columns
    index = place
    if GIVEN_ORDER:
        index = tl.load(order + row * columns + place, mask=inside, other=0)
    value = tl.load(source + row * row_stride + index * column_stride, mask=inside)
    upper = _order_of(value, HALF)
    if DESCENDING:
        upper = ~upper
    tl.store(keys + row * width + place, tl.where(inside, upper << 32 | place, 0x7FFFFFFFFFFFFFFF))


@triton.jit
def _sort_tiles(keys, width, span, TILE: tl.constexpr):
    """Each tile in order; downwards where the bit `span` of its place is set."""
    start = tl.program_id(0).to(tl.int64) * TILE
    where = keys + tl.program_id(1).to(tl.int64) * width + start + tl.arange(0, TILE)
    downwards = (start & span) != 0
    key = tl.load(where)
    key = tl.sort(tl.where(downwards, ~key, key))
    tl.store(where, tl.where(downwards, ~key, key))


@triton.jit
def _exchange(keys, width, distance, span, TILE: tl.constexpr):
    """Elements that far apart in order; downwards where the bit `span` of their place is set."""
    pair = tl.program_id(0).to(tl.int64) * TILE
    start = pair // distance * 2 * distance + pair % distance
    lower = keys + tl.program_id(1).to(tl.int64) * width + start + tl.arange(0, TILE)
    a, b = tl.load(lower), tl.load(lower + distance)
    swap = (a > b) != ((start & span) != 0)
    tl.store(lower, tl.where(swap, b, a))
    tl.store(lower + distance, tl.where(swap, a, b))


@triton.jit
def _unpack(
    keys, order, source, values, indices, columns, kept, row_stride, column_stride, width,
    GIVEN_ORDER: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < kept
    index = tl.load(keys + row * width + place, mask=inside, other=0) & 0xFFFFFFFF
    if GIVEN_ORDER:
        index = tl.load(order + row * columns + index, mask=inside, other=0)
    value = tl.load(source + row * row_stride + index * column_stride, mask=inside)
    tl.store(values + row * kept + place, value, mask=inside)
    tl.store(indices + row * kept + place, index, mask=inside)


def _sorted(matrix: torch.Tensor, kept: int, descending: bool, values: torch.Tensor, indices: torch.Tensor) -> None:
    """The first `kept` of each row of a matrix in order, into contiguous results."""
    rows, columns = matrix.shape
    halves = ("low", "high") if matrix.dtype in (torch.float64, torch.int64) else ("all",)
    width = power_of_two_at_least(columns)
    keys = torch.empty((rows, width), dtype=torch.int64, device=matrix.device)
    order = indices
    pointer = POINTER[matrix.dtype]
    keys_pointer = POINTER[torch.int64]
    for round_, half in enumerate(halves):
        if round_:
            _order_into(keys, order := torch.empty((rows, columns), dtype=torch.int64, device=matrix.device))
        pack_tile = min(MAP_TILE, width)
        pack = kernel(
            _pack,
            (pointer, keys_pointer, keys_pointer, *INTEGERS[:4]),
            HALF=half,
            DESCENDING=descending,
            GIVEN_ORDER=round_ > 0,
            TILE=pack_tile,
        )
        read_and_written = (matrix.data_ptr(), order.data_ptr(), keys.data_ptr())
        pack((width // pack_tile, rows, 1), (*read_and_written, columns, *matrix.stride(), width))
        _sort_keys(keys)
    tile = min(MAP_TILE, power_of_two_at_least(kept))
    unpack = kernel(
        _unpack,
        (keys_pointer, keys_pointer, pointer, pointer, keys_pointer, *INTEGERS[:5]),
        GIVEN_ORDER=len(halves) > 1,
        TILE=tile,
    )
    tensors = (keys, order, matrix, values, indices)
    addresses = tuple(tensor.data_ptr() for tensor in tensors)
    unpack((ceil_div(kept, tile), rows, 1), (*addresses, columns, kept, *matrix.stride(), width))


def _order_into(keys: torch.Tensor, order: torch.Tensor) -> None:
    order.copy_(keys[:, : order.shape[1]] & 0xFFFFFFFF)


def _sort_keys(keys: torch.Tensor) -> None:
    """Each row (a power of two long), upwards."""
    rows, width = keys.shape
    tile = min(TILE, width)
    if width == 1:
        return
    sort_tiles = kernel(_sort_tiles, (POINTER[torch.int64], *INTEGERS[:2]), TILE=tile)
    exchange = kernel(_exchange, (POINTER[torch.int64], *INTEGERS[:3]), TILE=tile) if width > tile else None
    span = tile
    while True:
        distance = span // 2
        while exchange is not None and distance >= tile:
            exchange((width // 2 // tile, rows, 1), (keys.data_ptr(), width, distance, span % width))
            distance //= 2
        sort_tiles((width // tile, rows, 1), (keys.data_ptr(), width, span % width))
        if span == width:
            return
        span *= 2


def _run(
    operator: Any, self: torch.Tensor, dim: int, kept: int, descending: bool, values: torch.Tensor,
    indices: torch.Tensor,
) -> bool:  # fmt: skip
    if self.dtype not in TRITON_DTYPES or (self.dim() and self.shape[dim] >= LONGEST_ROW):
        return False
    shape = list(self.shape)
    if self.dim():
        shape[dim] = kept
    for out in (values, indices):
        if out.shape != tuple(shape):
            out.resize_(shape)
    if values.numel():
        source = self.movedim(dim, -1) if self.dim() else self.reshape(1)
        matrix = source.reshape(-1, source.shape[-1])
        found = [
            torch.empty((*source.shape[:-1], kept), dtype=out.dtype, device=self.device) for out in (values, indices)
        ]
        _sorted(matrix, kept, descending, *found)
        for out, result in zip((values, indices), found, strict=True):
            out.copy_(result.movedim(-1, dim) if self.dim() else result.reshape(()))
    count(operator._schema.name)
    return True


def sort_out(
    self: torch.Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False, values: torch.Tensor,
    indices: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    operator = aten.sort.values_stable
    kept = self.shape[dim] if self.dim() else 1
    if not _run(operator, self, dim, kept, descending, values, indices):
        otherwise(operator, self, stable=stable, dim=dim, descending=descending, values=values, indices=indices)
    return values, indices


def topk_out(
    self: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, values: torch.Tensor,
    indices: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    if not _run(aten.topk.values, self, dim, k, largest, values, indices):
        otherwise(aten.topk.values, self, k, dim, largest, sorted, values=values, indices=indices)
    return values, indices
