"""Tile IR to machine code: every operation becomes instructions over virtual registers and buffers.

Takes a kernel whose accesses are raised; gives `machine` nodes. Integer and pointer scalars live in registers of the
sequencer; floating-point scalars and everything computed from tiles live in the scratchpad, a scalar as a tile of one
element. Operations that only rearrange (broadcast, transpose, expand, reshape of contiguous tiles, split, bitcast)
cost nothing: they change the access pattern. A tile carried by a loop has one buffer; the operation that computes its
next value writes there directly when the old value is no longer needed.
"""

from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.codegen.machine import Constants, Loop, Node, Register
from tapeout.codegen.selection import control_flow, elementwise, matrix, memory, rearranging, reductions, scalars
from tapeout.codegen.selection.selector import Handler, Selector
from tapeout.isa import definitions as isa
from tapeout.tile.ir import Kernel

HANDLERS: dict[str, Handler] = {
    **rearranging.HANDLERS,
    **elementwise.HANDLERS,
    **scalars.HANDLERS,
    **memory.HANDLERS,
    **matrix.HANDLERS,
    **reductions.HANDLERS,
    **control_flow.HANDLERS,
}


@dataclass(frozen=True)
class Selected:
    """Machine code of a kernel. `constants`: the registers in it that hold them. `messages`: of its assertions.
    `order_free`: whether programs of a grid may run in any order."""

    code: list[Node]
    constants: Constants
    messages: tuple[str, ...]
    order_free: bool


def select_instructions(kernel: Kernel, chip: Chip) -> Selected:
    """Machine code of a kernel for a chip: its arguments, then the loop over this core's programs of the grid."""
    selector = Selector(kernel, chip, HANDLERS, elementwise.elementwise)
    for index, parameter in enumerate(kernel.parameters):
        register = Register()
        selector.emit(isa.Argument, destination=register, index=index)
        selector.bindings[parameter] = register
    more = Register()
    prologue = selector.code
    head = selector.code_of(lambda: selector.emit(isa.NextProgram, destination=more))
    body = selector.code_of(lambda: selector.region(kernel.body))
    code = [*prologue, Loop(head, more, body)]
    return Selected(code, selector.constant, tuple(selector.messages), selector.order_free)
