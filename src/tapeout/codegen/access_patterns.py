"""Places of a tile's elements, dimension by dimension, and the instructions for an iteration of any shape.

Strides are in elements. A stride of 0 repeats an element along its dimension.
"""

from collections.abc import Iterator
from dataclasses import replace

from tapeout.codegen.machine import View
from tapeout.isa.fields import DIMENSIONS, MAX_EXTENT


def pieces(
    shape: tuple[int, ...], strides: list[tuple[int, ...]], dimensions: int = DIMENSIONS
) -> Iterator[tuple[tuple[int, ...], list[int], list[tuple[int, ...]]]]:
    """Cuts an iteration space into ones an instruction can run: extents of `dimensions` loops within limits, and for
    each operand an offset and strides. Neighbouring dimensions are merged where every operand allows it; of what is
    left the shortest are unrolled, but not the last."""
    block = MAX_EXTENT // 2 + 1
    uneven = next((d for d, extent in enumerate(shape) if extent > MAX_EXTENT and extent % block), None)
    if uneven is not None:
        rest = shape[uneven] % block
        for start, length in ((0, shape[uneven] - rest), (shape[uneven] - rest, rest)):
            part = (*shape[:uneven], length, *shape[uneven + 1 :])
            for extents, offset, own_strides in pieces(part, strides, dimensions):
                yield extents, [o + start * s[uneven] for o, s in zip(offset, strides, strict=True)], own_strides
        return
    dims: list[tuple[int, list[int]]] = []
    for d, extent in enumerate(shape):
        if extent == 1:
            continue
        own = [s[d] for s in strides]
        if dims:
            last_extent, last = dims[-1]
            if last_extent * extent <= MAX_EXTENT and all(x == y * extent for x, y in zip(last, own, strict=True)):
                dims[-1] = (last_extent * extent, own)
                continue
        while extent > MAX_EXTENT:
            dims.append((extent // block, [s * block for s in own]))
            extent = block
        dims.append((extent, own))
    unrolled = sorted(range(len(dims) - 1), key=lambda d: dims[d][0])[: max(0, len(dims) - dimensions)]
    outer = [dims[d] for d in sorted(unrolled)]
    inner = [dim for d, dim in enumerate(dims) if d not in unrolled]
    padding = dimensions - len(inner)
    extents = (1,) * padding + tuple(extent for extent, _ in inner)
    inner_strides = [(0,) * padding + tuple(own[k] for _, own in inner) for k in range(len(strides))]

    def offsets(level: int) -> Iterator[list[int]]:
        if level == len(outer):
            yield [0] * len(strides)
            return
        extent, own = outer[level]
        for i in range(extent):
            for rest in offsets(level + 1):
                yield [i * o + r for o, r in zip(own, rest, strict=True)]

    for offset in offsets(0):
        yield extents, offset, inner_strides


def aligned(strides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides with 0 along dimensions of one element."""
    return tuple(0 if extent == 1 else stride for stride, extent in zip(strides, shape, strict=True))


def aligned_to(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tile that may have extents of 1 where `shape` has more."""
    if not view.shape:
        return (0,) * len(shape)
    return tuple(0 if extent == 1 else stride for stride, extent in zip(view.strides, view.shape, strict=True))


def slice_of(view: View, axis: int, start: int, length: int) -> View:
    shape = (*view.shape[:axis], length, *view.shape[axis + 1 :])
    return replace(view, offset=view.offset + start * view.strides[axis], shape=shape)


def divide(view: View, axis: int, count: int) -> View:
    """The same elements with a dimension divided into `count` parts and the elements of a part."""
    length, stride = view.shape[axis] // count, view.strides[axis]
    shape = (*view.shape[:axis], count, length, *view.shape[axis + 1 :])
    return replace(
        view, shape=shape, strides=(*view.strides[:axis], stride * length, stride, *view.strides[axis + 1 :])
    )


def permuted(view: View, order: list[int]) -> View:
    """The same elements with dimension order[d] in place d."""
    return replace(view, shape=tuple(view.shape[d] for d in order), strides=tuple(view.strides[d] for d in order))


def without(view: View, axis: int) -> View:
    """The same elements without a dimension of one element."""
    return replace(
        view,
        shape=(*view.shape[:axis], *view.shape[axis + 1 :]),
        strides=(*view.strides[:axis], *view.strides[axis + 1 :]),
    )


def repeated(view: View, axis: int, count: int) -> View:
    """The elements repeated along a new dimension before dimension `axis`."""
    return replace(
        view,
        shape=(*view.shape[:axis], count, *view.shape[axis:]),
        strides=(*view.strides[:axis], 0, *view.strides[axis:]),
    )


def reshaped_strides(view: View, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides of the same elements in another shape, or None if they have to be moved."""
    old = [(e, s) for e, s in zip(view.shape, view.strides, strict=True) if e > 1]
    merged: list[tuple[int, int]] = []
    for extent, stride in old:
        if merged and merged[-1][1] == stride * extent:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    strides: list[int] = []
    for extent in reversed(shape):
        if extent == 1:
            strides.append(0)
            continue
        if not merged or merged[-1][0] % extent:
            return None
        size, stride = merged.pop()
        strides.append(stride)
        if size > extent:
            merged.append((size // extent, stride * extent))
    return tuple(reversed(strides))
