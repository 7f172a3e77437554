"""Operations that move elements or only rename them: most change an access pattern and cost nothing."""

from dataclasses import replace

from tapeout.codegen.access_patterns import aligned, pieces, reshaped_strides, slice_of
from tapeout.codegen.engine_functions import (
    REARRANGING,
    RENAMES,
)
from tapeout.codegen.machine import (
    Register,
    contiguous,
)
from tapeout.codegen.selection.selector import Handler, Selector, Tile
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import Function
from tapeout.tile.ir import Operation

MOST_BYTES_OF_AN_INDEX = (1 << 16) - 1
"""Units that an index may count in an access to HBM, which gathers from large tiles become."""


def rearrange(selector: Selector, operation: Operation) -> None:
    selector.bindings[operation.result] = _rearranged(selector, operation)


def _rearranged(selector: Selector, operation: Operation) -> Tile:
    source, result = operation.operands[0], operation.result
    binding = selector.bindings[source]
    if operation.name in RENAMES:
        if isinstance(binding, Register):
            return binding
        if binding.dtype.size_bytes == result.type.dtype.size_bytes:
            return replace(binding, dtype=result.type.dtype)
        if result.type.shape:
            raise selector.unsupported(f"{operation.name} to {result.type.dtype}", binding.dtype)
        return selector.register(source)  # read in its own width
    if isinstance(binding, Register):
        return binding
    shape = result.type.shape
    name = operation.name
    if name == "tt.splat":
        return replace(binding, strides=(0,) * len(shape), shape=shape)
    if name == "tt.unsplat":
        return replace(binding, strides=(), shape=())
    if name == "tt.broadcast":
        return replace(binding, strides=aligned(binding.strides, binding.shape), shape=shape)
    if name == "tt.expand_dims":
        axis = operation.attributes["axis"]
        return replace(binding, strides=(*binding.strides[:axis], 0, *binding.strides[axis:]), shape=shape)
    if name == "tile.slice":
        axis = operation.attributes["axis"]
        return slice_of(binding, axis, operation.attributes["start"], shape[axis])
    if name == "tt.trans":
        return replace(binding, strides=tuple(binding.strides[d] for d in operation.attributes["order"]), shape=shape)
    strides = reshaped_strides(binding, shape)
    if strides is None:
        dense = selector.copy(binding, selector.new_view(binding.dtype, binding.shape))
        return replace(dense, strides=contiguous(shape), shape=shape)
    return replace(binding, strides=strides, shape=shape)


def join(selector: Selector, operation: Operation) -> None:
    out = selector.result_view(operation.result)
    for position, operand in enumerate(operation.operands):
        part = replace(
            out, offset=out.offset + position * out.strides[-1], strides=out.strides[:-1], shape=out.shape[:-1]
        )
        selector.copy(selector.tile(operand), part)
    selector.bindings[operation.result] = out


def split(selector: Selector, operation: Operation) -> None:
    source = selector.tile(operation.operands[0])
    for position, result in enumerate(operation.results):
        if isinstance(source, Register):
            selector.bindings[result] = source
        else:
            selector.bindings[result] = replace(
                source,
                offset=source.offset + position * source.strides[-1],
                strides=source.strides[:-1],
                shape=source.shape[:-1],
            )


def cat(selector: Selector, operation: Operation) -> None:
    out = selector.result_view(operation.result)
    start = 0
    for operand in operation.operands:
        length = operand.type.shape[0]
        selector.copy(selector.tile(operand), slice_of(out, 0, start, length))
        start += length
    selector.bindings[operation.result] = out


def gather(selector: Selector, operation: Operation) -> None:
    source, index = selector.view(operation.operands[0]), selector.view(operation.operands[1])
    axis = operation.attributes["axis"]
    out = selector.result_view(operation.result)
    stride = aligned(source.strides, source.shape)[axis]
    if stride < 0 or stride == 0:
        source = selector.copy(source, selector.new_view(source.dtype, source.shape))
        stride = source.strides[axis]
    if stride * source.dtype.size_bytes > MOST_BYTES_OF_AN_INDEX:
        wide = selector.convert(index, index.dtype, selector.new_view(DType.I64, index.shape))
        index = selector.compute(Function.MUL, DType.I64, wide, selector.constant(stride), shape=index.shape)
        stride = 1
    along = tuple(0 if d == axis else s for d, s in enumerate(aligned(source.strides, source.shape)))
    for extents, offsets, (out_strides, in_strides, index_strides) in pieces(
        out.shape, [out.strides, along, aligned(index.strides, index.shape)]
    ):
        selector.emit(
            isa.Gather,
            dtype=out.dtype,
            index_dtype=index.dtype,
            stride=stride,
            shape=extents,
            result=selector.place(out, out.dtype, offsets[0], out_strides),
            source=selector.place(source, source.dtype, offsets[1], in_strides),
            index=selector.place(index, index.dtype, offsets[2], index_strides),
        )
    selector.bindings[operation.result] = out


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(REARRANGING, rearrange),
    "tt.join": join,
    "tt.split": split,
    "tt.cat": cat,
    "tt.gather": gather,
}
