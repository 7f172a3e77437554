"""The compiler's passes, in order."""

from tapeout.chip import Chip
from tapeout.isa.program import Parameter, Program
from tapeout.passes.emit import emit
from tapeout.passes.raise_accesses import raise_accesses
from tapeout.passes.remove_dead import remove_dead
from tapeout.passes.select_instructions import select_instructions
from tapeout.passes.split_tiles import fit
from tapeout.passes.structure_returns import structure_returns
from tapeout.passes.synchronise import synchronise
from tapeout.tile.ir import Type
from tapeout.tile.ttir import read_kernel


def compile_kernel(ttir: str, chip: Chip) -> Program:
    """A Program for a chip from the text of a module of Triton's IR."""
    kernel = read_kernel(ttir)
    kernel = structure_returns(kernel)
    kernel = raise_accesses(kernel)
    kernel = remove_dead(kernel)
    selected = select_instructions(kernel, chip)
    code, scratchpad_bytes, workspace_bytes = fit(selected.code, chip.core.scratchpad.size_bytes, selected.constant)
    code = synchronise(code)
    instructions, locations, scratchpad_bytes = emit(code, scratchpad_bytes)
    table = {location: number for number, location in enumerate(dict.fromkeys(filter(None, locations)))}
    return Program(
        name=kernel.name,
        chip=chip.name,
        instructions=tuple(instructions),
        parameters=tuple(Parameter(p.name, _type_text(p.type)) for p in kernel.parameters),
        scratchpad_bytes=scratchpad_bytes,
        workspace_bytes=workspace_bytes,
        order_free=selected.order_free,
        lines=tuple(table.get(location, -1) for location in locations),
        locations=tuple(table),
        messages=tuple(selected.messages),
    )


_TRITON_NAMES = {"f32": "fp32", "f16": "fp16", "f64": "fp64", "f8e4m3": "fp8e4nv", "f8e5m2": "fp8e5"}


def _type_text(type: Type) -> str:
    """A parameter's type as Triton writes it in signatures."""
    label = str(type.pointee or type.dtype)
    return ("*" if type.pointee else "") + _TRITON_NAMES.get(label, label)
