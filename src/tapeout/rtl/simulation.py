"""Runs a Program on the RTL of a chip: Verilated cores with a simple memory.

Takes what the reference evaluator takes and changes the memory in place like it; gives the cycles it took.
"""

import ctypes
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Program
from tapeout.isa.fields import QUEUES, Unit
from tapeout.isa.program import encode
from tapeout.rtl import verilator
from tapeout.rtl.support import check_chip, check_program
from tapeout.rtl.verilog import TOP, verilog_of
from tapeout.sim.evaluator import Memory
from tapeout.sim.faults import AccessFault, Fault, IllegalInstruction, SynchronisationFault, Trapped

TESTBENCH = Path(__file__).with_name("testbench.cpp")
CYCLE_LIMIT = 50_000_000


class _Launch(ctypes.Structure):
    """`Launch` of testbench.cpp."""

    _fields_ = (
        ("words", ctypes.c_void_p),
        ("word_count", ctypes.c_int64),
        ("arguments", ctypes.c_void_p),
        ("argument_count", ctypes.c_int64),
        ("grid", ctypes.c_int64 * 3),
        ("core_count", ctypes.c_int64),
        ("workspace", ctypes.c_uint64),
        ("workspace_bytes", ctypes.c_int64),
        ("memory_base", ctypes.c_uint64),
        ("memory", ctypes.c_void_p),
        ("memory_bytes", ctypes.c_int64),
        ("latency_cycles", ctypes.c_int64),
        ("dispatch_cycles", ctypes.c_int64),
        ("cycle_limit", ctypes.c_int64),
        ("waveform", ctypes.c_char_p),
        ("cycles", ctypes.c_int64),
        ("status", ctypes.c_int64),
        ("core", ctypes.c_int64),
        ("word", ctypes.c_int64),
        ("detail", ctypes.c_int64),
        ("started", ctypes.c_int64 * len(QUEUES)),
    )


@dataclass(frozen=True)
class RtlOutcome:
    """What a run on the RTL took: cycles until the last core halted, instructions each queue began, and how long
    the host simulated it."""

    cycles: int
    instruction_counts: dict[Unit, int]
    host_seconds: float


@functools.cache
def _library(chip: Chip, trace: bool) -> ctypes.CDLL:
    check_chip(chip)
    core = chip.core
    sizes = (
        f"#define LOAD_BLOCK_BYTES {core.load_dma.bytes_per_cycle}\n"
        f"#define STORE_BLOCK_BYTES {core.store_dma.bytes_per_cycle}\n"
    )
    return verilator.library(_verilog(chip), TOP, sizes + TESTBENCH.read_text(), trace=trace)


def _verilog(chip: Chip) -> str:
    return verilog_of(chip)


def run(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    memory: Memory,
    *,
    workspace: int = 0,
    waveform: Path | None = None,
    cycle_limit: int = CYCLE_LIMIT,
) -> RtlOutcome:
    """As `tapeout.sim.evaluator.run`. `waveform`: a file (FST) for the signals of core 0.

    Raises UnsupportedError for what the RTL does not have, before simulating anything, and a
    `tapeout.sim.faults.Fault` where the hardware reports one.
    """
    check_chip(chip)
    check_program(program)
    words = np.frombuffer(encode(program.instructions), np.uint64).copy()
    values = np.array([value % (1 << 64) for value in arguments] or [0], np.uint64)
    launch = _Launch(
        words=words.ctypes.data,
        word_count=len(words),
        arguments=values.ctypes.data,
        argument_count=len(arguments),
        grid=grid,
        core_count=min(chip.core_count, grid[0] * grid[1] * grid[2]),
        workspace=workspace,
        workspace_bytes=program.workspace_bytes,
        memory_base=memory.base,
        memory=memory.data.ctypes.data,
        memory_bytes=len(memory.data),
        latency_cycles=chip.last_level_sram.latency_cycles,
        dispatch_cycles=chip.host.dispatch_cycles,
        cycle_limit=cycle_limit,
        waveform=str(waveform).encode() if waveform else None,
    )
    library = _library(chip, waveform is not None)
    begin = time.perf_counter()
    library.tapeout_rtl_run(ctypes.byref(launch))
    seconds = time.perf_counter() - begin
    _refuse(program, launch)
    counts = dict(zip(QUEUES, launch.started, strict=True))
    return RtlOutcome(launch.cycles, counts, seconds)


def _refuse(program: Program, launch: _Launch) -> None:
    """Raise what the testbench found."""
    starts = np.cumsum([0, *(item.word_count for item in program.instructions)])
    index = int(np.searchsorted(starts, launch.word, side="right")) - 1
    place = f"{program.name} on core {launch.core} of the RTL, cycle {launch.cycles}"
    if index < len(program.instructions):
        place += f", sequencer at instruction {index} ({program.location(index)})"
    if launch.status == 2:
        code = launch.detail
        raise Trapped(place, program.messages[code] if code < len(program.messages) else f"trap {code}", code)
    faults: dict[int, tuple[type[Fault], str]] = {
        1: (SynchronisationFault, "has not ended after the allowed cycles"),
        3: (IllegalInstruction, "an opcode that is no instruction"),
        4: (AccessFault, "an element does not lie at a multiple of its size"),
        5: (AccessFault, f"HBM address {launch.detail:#x} is outside memory"),
        6: (SynchronisationFault, "a semaphore was given more often than its counter holds"),
        7: (SynchronisationFault, "semaphores are not zero at the end"),
    }
    if launch.status:
        kind, sentence = faults[launch.status]
        raise kind(place, sentence)
