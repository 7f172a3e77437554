"""Reductions and scans."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tapeout.codegen.access_patterns import aligned, divide, permuted, pieces, repeated, slice_of, without
from tapeout.codegen.engine_functions import (
    BINARY,
    binary_function,
)
from tapeout.codegen.machine import (
    View,
)
from tapeout.codegen.selection.selector import Handler, Selector, Tile
from tapeout.errors import InternalError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import DIMENSIONS, MAX_EXTENT
from tapeout.numerics.operations import REDUCTIONS, Function
from tapeout.tile.ir import Operation, Region

ROWS_THAT_TAKE_TURNS = 32
"""Rows of a reduction that hide the steps of each other, on as many as 256 lanes."""

LEAST_PART = 64
"""Least elements of a part of a row that is reduced on its own."""

SCAN_BLOCK = 16
"""Elements of a row that are scanned by doubling."""


def reduce(selector: Selector, operation: Operation) -> None:
    axis = operation.attributes["axis"]
    region = operation.regions[0]
    function = _combine_function(region)
    sources = [selector.view(o) for o in operation.operands]
    kept = tuple(e for d, e in enumerate(sources[0].shape) if d != axis)
    if function is not None and len(sources) == 1 and sources[0].dtype in function.dtypes:
        selector.check_dtype(sources[0].dtype)
        selector.bindings[operation.result] = _reduce_simply(selector, operation, function, sources[0], axis, kept)
        return
    extent = sources[0].shape[axis]
    current = sources
    while extent > 1:
        half = extent // 2
        parts = [[slice_of(view, axis, start, half) for view in current] for start in (0, half)]
        current = [_dense(selector, t) for t in _combine(selector, region, parts[0], parts[1], parts[0][0].shape)]
        extent = half
    for view, result in zip(current, operation.results, strict=True):
        strides = tuple(s for d, s in enumerate(view.strides) if d != axis)
        final = replace(view, strides=strides, shape=kept)
        if result in selector.destinations:
            final = selector.copy(final, selector.destinations[result])
        selector.bindings[result] = final


def _reduce_simply(
    selector: Selector, operation: Operation, function: Function, source: View, axis: int, kept: tuple[int, ...]
) -> View:
    out = selector.result_view(operation.result)
    extent = source.shape[axis]
    while extent > MAX_EXTENT:  # halve until an instruction can take it
        half = extent // 2
        parts = [slice_of(source, axis, start, half) for start in (0, half)]
        source = selector.compute(function, source.dtype, *parts, shape=parts[0].shape)
        extent = half
    count = _parts_of_a_row(selector, math.prod(kept), extent)
    if count > 1:
        divided = divide(source, axis, count)
        partial = selector.new_view(source.dtype, (*kept, count))
        order = [*(d for d in range(len(divided.shape)) if d not in (axis, axis + 1)), axis, axis + 1]
        _reduce_rows(selector, function, permuted(divided, order), partial)
        source, axis = partial, len(kept)
    order = [*(d for d in range(len(source.shape)) if d != axis), axis]
    _reduce_rows(selector, function, permuted(source, order), out)
    return out


def _parts_of_a_row(selector: Selector, rows: int, extent: int) -> int:
    """Return in how many parts a row is reduced, before their results are: a step of a row waits for the one before,
    so where rows are too few to take turns, parts of them do."""
    if selector.chip.core.is_microcoded:
        return 1
    return max(1, min(ROWS_THAT_TAKE_TURNS // rows, extent // LEAST_PART))


def _reduce_rows(selector: Selector, function: Function, source: View, out: View) -> None:
    """Reduce the last dimension."""
    selector.check_function(function)
    *kept, extent = source.shape
    strides = aligned(source.strides, source.shape)
    for extents, offsets, (out_strides, in_strides) in pieces(
        tuple(kept), [aligned(out.strides, tuple(kept)), strides[:-1]], DIMENSIONS - 1
    ):
        selector.emit(
            isa.Reduce,
            function=function,
            dtype=source.dtype,
            shape=(*extents, extent),
            result=selector.place(out, out.dtype, offsets[0], (*out_strides, 0)),
            a=selector.place(source, source.dtype, offsets[1], (*in_strides, strides[-1])),
        )


def _combine(
    selector: Selector, region: Region, left: Sequence[Tile], right: Sequence[Tile], shape: tuple[int, ...]
) -> list[Tile]:
    """A combine function applied to whole tiles."""
    block = region.block
    for argument, tile in zip(block.arguments, [*left, *right], strict=True):
        selector.bindings[argument] = tile
    saved, selector.combine_shape = selector.combine_shape, shape
    for operation in block.operations[:-1]:
        selector.operation(operation)
    selector.combine_shape = saved
    return [selector.bindings[o] for o in block.operations[-1].operands]


def _dense(selector: Selector, tile: Tile) -> View:
    if isinstance(tile, View):
        return tile
    raise InternalError("a combine function yields a constant")


def scan(selector: Selector, operation: Operation) -> None:
    axis, region = operation.attributes["axis"], operation.regions[0]
    reverse = operation.attributes.get("reverse", False)
    scanned = _scanned(selector, region, [selector.view(o) for o in operation.operands], axis, reverse)
    for view, result in zip(scanned, operation.results, strict=True):
        out = selector.destinations.get(result)
        selector.bindings[result] = view if out is None else selector.copy(view, out)


def _scanned(selector: Selector, region: Region, views: list[View], axis: int, reverse: bool) -> list[View]:
    """Inclusive scan. A long row is scanned in blocks, then the blocks' totals are, and each block is combined with
    what came before it: few operations for an element, however long the row."""
    extent = views[0].shape[axis]
    if extent <= SCAN_BLOCK or selector.chip.core.is_microcoded:
        return _scanned_by_doubling(selector, region, views, axis, reverse)
    count = extent // SCAN_BLOCK
    divided = [divide(view, axis, count) for view in views]
    blocks = _scanned_by_doubling(selector, region, divided, axis + 1, reverse)
    totals = [without(slice_of(v, axis + 1, 0 if reverse else SCAN_BLOCK - 1, 1), axis + 1) for v in blocks]
    before = _scanned(selector, region, totals, axis, reverse)
    own, previous = (0, 1) if reverse else (1, 0)
    rest = [slice_of(v, axis, own, count - 1) for v in blocks]
    carried = [repeated(slice_of(v, axis, previous, count - 1), axis + 1, SCAN_BLOCK) for v in before]
    _combine_into(selector, region, carried, rest, rest)
    shape = (*views[0].shape[:axis], extent, *views[0].shape[axis + 1 :])
    return [replace(v, shape=shape, strides=(*v.strides[:axis], *v.strides[axis + 1 :])) for v in blocks]


def _scanned_by_doubling(selector: Selector, region: Region, views: list[View], axis: int, reverse: bool) -> list[View]:
    """After step s each element holds the combination of the 2s elements up to it."""
    current = views
    extent = current[0].shape[axis]
    step = 1
    while step < extent:
        rest = extent - step
        early, late = (step, 0) if reverse else (0, step)
        before = [slice_of(v, axis, early, rest) for v in current]
        after = [slice_of(v, axis, late, rest) for v in current]
        following = [selector.new_view(v.dtype, v.shape) for v in current]
        _combine_into(selector, region, before, after, [slice_of(v, axis, late, rest) for v in following])
        unchanged = rest if reverse else 0
        for old, new in zip(current, following, strict=True):
            selector.copy(slice_of(old, axis, unchanged, step), slice_of(new, axis, unchanged, step))
        current = following
        step *= 2
    return current


def _combine_into(selector: Selector, region: Region, left: list[View], right: list[View], results: list[View]) -> None:
    """A combine function applied to whole tiles, its results where they are wanted."""
    function = _combine_function(region)
    if function is not None and len(left) == 1 and left[0].dtype in function.dtypes:
        selector.map(function, left[0].dtype, [left[0], right[0]], results[0])
        return
    for tile, result in zip(_combine(selector, region, left, right, left[0].shape), results, strict=True):
        selector.copy(tile, result)


def _combine_function(region: Region) -> Function | None:
    """The vector function a combine region is, if it is just one that reductions know."""
    block = region.block
    if len(block.operations) != 2:
        return None
    operation, last = block.operations
    if operation.name not in BINARY:
        return None
    function = binary_function(operation.name, operation.result.type.dtype)
    if function not in REDUCTIONS or last.operands != operation.results:
        return None
    return function if set(operation.operands) == set(block.arguments) else None


HANDLERS: dict[str, Handler] = {
    "tt.reduce": reduce,
    "tt.scan": scan,
}
