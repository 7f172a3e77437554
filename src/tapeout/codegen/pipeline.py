"""The compiler: its passes, in order.

Set TAPEOUT_DUMP to a folder to have the kernel written there as text after every pass.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.codegen import machine
from tapeout.codegen.allocate import ScratchpadOverflow
from tapeout.codegen.emit import emit
from tapeout.codegen.select_instructions import select_instructions
from tapeout.codegen.split_tiles import fit
from tapeout.codegen.synchronise import synchronise
from tapeout.isa.program import Parameter, Program
from tapeout.isa.verify import verify as verify_program
from tapeout.passes.compute_in_halves import compute_in_halves
from tapeout.passes.inline_calls import inline_calls
from tapeout.passes.lower_prints import lower_prints
from tapeout.passes.math.expand_operations import expand_operations
from tapeout.passes.raise_accesses import raise_accesses
from tapeout.passes.recognise_extrema import recognise_extrema
from tapeout.passes.remove_dead import remove_dead
from tapeout.passes.share_loads import has_shared_loads, share_overlapping_loads
from tapeout.passes.structure_returns import structure_returns
from tapeout.passes.sum_products import sum_products
from tapeout.tile.ir import DEFAULT_STAGES, Kernel, Type, show
from tapeout.tile.ttir import read_kernel
from tapeout.tile.verify import verify

TILE_PASSES: tuple[Callable[[Kernel], Kernel], ...] = (
    structure_returns,
    inline_calls,
    lower_prints,
    recognise_extrema,
    expand_operations,
    compute_in_halves,
    raise_accesses,
    remove_dead,
)


def compile_kernel(ttir: str, chip: Chip, stages: int = DEFAULT_STAGES, *, fuses_products: bool = True) -> Program:
    """A Program for a chip from the text of a module of Triton's IR (after Triton's own passes, with locations).
    `stages`: in how many steps loops around a product are pipelined, if they do not say it themselves.
    `fuses_products`: whether a product may be rounded only with the sum it goes into."""
    tile_passes = (*TILE_PASSES, sum_products) if fuses_products else TILE_PASSES
    try:
        return compile_with((*tile_passes, share_overlapping_loads), ttir, chip, stages)
    except ScratchpadOverflow:  # shared tiles are not for splitting: each load brings its own
        return compile_with(tile_passes, ttir, chip, stages)


def compile_with(
    tile_passes: Sequence[Callable[[Kernel], Kernel]], ttir: str, chip: Chip, stages: int = DEFAULT_STAGES
) -> Program:
    """The same with tile passes of one's choice."""
    kernel = verify(replace(read_kernel(ttir), stages=stages), after="read_kernel")
    dump = _Dump(kernel.name)
    dump.write("read_kernel", show, kernel)
    for run_pass in tile_passes:
        kernel = verify(run_pass(kernel), after=run_pass.__name__)
        dump.write(run_pass.__name__, show, kernel)
    selected = select_instructions(kernel, chip)
    dump.write("select_instructions", machine.show, selected.code)
    fitted = fit(
        selected.code, chip.core.scratchpad.size_bytes, selected.constants, may_split=not has_shared_loads(kernel)
    )
    dump.write("fit", machine.show, fitted.code)
    code = synchronise(fitted.code, chip.core.semaphore_count)
    dump.write("synchronise", machine.show, code)
    instructions, locations, scratchpad_bytes = emit(code, fitted.scratchpad_bytes, chip.core.register_count)
    table = {location: number for number, location in enumerate(dict.fromkeys(filter(None, locations)))}
    program = Program(
        name=kernel.name,
        chip=chip.name,
        instructions=tuple(instructions),
        parameters=tuple(Parameter(p.name, _type_text(p.type)) for p in kernel.parameters),
        scratchpad_bytes=scratchpad_bytes,
        workspace_bytes=fitted.workspace_bytes,
        order_free=selected.order_free,
        lines=tuple(table.get(location, -1) for location in locations),
        locations=tuple(table),
        messages=selected.messages,
        prints=tuple(kernel.prints),
    )
    dump.write("emit", lambda program: program.text, program)
    return verify_program(program, chip)


class _Dump:
    """Writes numbered text files, one a pass, if the user asked for them."""

    def __init__(self, kernel_name: str) -> None:
        self.folder = os.environ.get("TAPEOUT_DUMP")
        self.kernel_name = kernel_name
        self.count = 0

    def write(self, pass_name: str, show_stage: Callable[[Any], str], stage: Any) -> None:
        if self.folder:
            path = Path(self.folder, f"{self.kernel_name}.{self.count}.{pass_name}.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(show_stage(stage))
            self.count += 1


def _type_text(type: Type) -> str:
    """A parameter's type as Triton writes it in signatures."""
    return ("*" if type.pointee else "") + (type.pointee or type.dtype).triton_name
