"""Reductions and scans."""

from collections.abc import Sequence
from dataclasses import replace

from tapeout.codegen.access_patterns import aligned, pieces, slice_of
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
    source_strides = aligned(source.strides, source.shape)
    kept_strides = tuple(s for d, s in enumerate(source_strides) if d != axis)
    for extents, offsets, (out_strides, in_strides) in pieces(
        kept, [aligned(out.strides, kept), kept_strides], DIMENSIONS - 1
    ):
        selector.emit(
            isa.Reduce,
            function=function,
            dtype=source.dtype,
            shape=(*extents, extent),
            result=selector.place(out, out.dtype, offsets[0], (*out_strides, 0)),
            a=selector.place(source, source.dtype, offsets[1], (*in_strides, source_strides[axis])),
        )
    return out


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
    """Inclusive scan by doubling: after step s each element holds the combination of the 2s elements up to it."""
    axis, region = operation.attributes["axis"], operation.regions[0]
    reverse = operation.attributes.get("reverse", False)
    current = [selector.view(o) for o in operation.operands]
    extent = current[0].shape[axis]
    step = 1
    while step < extent:
        rest = extent - step
        early, late = (step, 0) if reverse else (0, step)
        before = [slice_of(v, axis, early, rest) for v in current]
        after = [slice_of(v, axis, late, rest) for v in current]
        combined = _combine(selector, region, before, after, before[0].shape)
        following = [selector.new_view(v.dtype, v.shape) for v in current]
        for old, new, tile in zip(current, following, combined, strict=True):
            selector.copy(tile, slice_of(new, axis, late, rest))
            unchanged = rest if reverse else 0
            selector.copy(slice_of(old, axis, unchanged, step), slice_of(new, axis, unchanged, step))
        current = following
        step *= 2
    for view, result in zip(current, operation.results, strict=True):
        out = selector.destinations.get(result)
        selector.bindings[result] = view if out is None else selector.copy(view, out)


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
