"""A script with every launch on four machines: reference evaluator, functional simulator, timing simulator and RTL."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.errors import UnsupportedError
from tapeout.isa import Program
from tapeout.rtl.cosimulation import Comparison, Grid, compare
from tapeout.runtime import session
from tapeout.runtime.kernel import Kernel
from tapeout.workbench.script import Script
from tapeout.workbench.script import run as run_script


def compare_launches(script: Script, chip: Chip | str, *, waveform: Path | None = None) -> list[Comparison]:
    """Run a script, every launch of it on all four machines, until one differs. This process must not have used the
    chip yet. Raises UnsupportedError at a launch the RTL cannot run."""
    comparisons: list[Comparison] = []

    def launch(kernel: Kernel, grid: Grid, arguments: Sequence[int]) -> None:
        if comparisons and not comparisons[-1].agrees:
            kernel.execute(grid, arguments)
            return
        live, arena_base = _live_memory(kernel.program, arguments)
        comparisons.append(compare(kernel, grid, arguments, live, memory_base=arena_base, waveform=waveform))

    with session.launched_by(launch):
        run_script(script, chip)
    return comparisons


def _live_memory(program: Program, arguments: Sequence[int]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], int]:
    """The chip's memory from the first to the last of the tensors a launch is given, and where all of it begins."""
    from tapeout.pytorch.device_runtime import arena, block_of  # brings PyTorch

    pointers = [a for p, a in zip(program.parameters, arguments, strict=True) if p.type.startswith("*")]
    blocks = [block for block in map(block_of, pointers) if block is not None]
    if not blocks:
        raise UnsupportedError(f"co-simulation of {program.name} without a tensor", hint="there is nothing to compare")
    start = min(block.address for block in blocks)
    size = max(block.address + block.size_bytes for block in blocks) - start
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start)), arena().address
