"""Runs a Program on the RTL of a chip: Verilated cores with a simple memory.

Takes what the reference evaluator takes and changes the memory in place like it; gives the cycles it took.
"""

import ctypes
import functools
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import Program
from tapeout.isa.fields import QUEUES, Unit
from tapeout.isa.program import encode
from tapeout.rtl import verilator
from tapeout.rtl.core import CoreSizes
from tapeout.rtl.support import check_chip, check_program
from tapeout.rtl.verilog import TOP, verilog_of
from tapeout.sim.faults import AccessFault, Fault, IllegalInstruction, SynchronisationFault, Trapped
from tapeout.sim.state import Memory

TESTBENCH = Path(__file__).with_name("testbench.cpp")
CYCLE_LIMIT = 50_000_000

LAUNCH_CYCLES = 1
"""Cycles that the testbench counts before the first fetch."""


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
        ("trace", ctypes.c_char_p),
        ("timeline", ctypes.c_char_p),
        ("cycles", ctypes.c_int64),
        ("status", ctypes.c_int64),
        ("core", ctypes.c_int64),
        ("word", ctypes.c_int64),
        ("detail", ctypes.c_int64),
        ("started", ctypes.c_int64 * len(QUEUES)),
    )


WRITE_RECORD = np.dtype(
    [
        ("cycle", "i8"),
        ("serial", "i8"),
        ("address", "u8"),
        ("core", "i4"),
        ("queue", "i4"),
        ("is_memory", "i4"),
        ("bytes", "i4"),
        ("mask", "u8"),
        ("data", "u1", 64),
    ]
)
"""`Record` of testbench.cpp: bytes an instruction wrote. `serial` counts from 0 what its queue began; the last queue is
the sequencer."""

EVENT = np.dtype([("cycle", "i8"), ("word", "i8"), ("core", "i4"), ("queue", "i4"), ("is_end", "i4"), ("unused", "i4")])
"""`Event` of testbench.cpp: a queue began or ended an instruction, or (the last queue) the sequencer fetches one."""


@dataclass(frozen=True)
class RtlOutcome:
    """Cost of a run on the RTL: cycles from the first fetch until the last core halted, instructions each queue
    began, and how long the host simulated it."""

    cycles: int
    instruction_counts: dict[Unit, int]
    host_seconds: float


def testbench_of(chip: Chip) -> str:
    """The testbench in C++ with this chip's sizes."""
    core = chip.core
    sizes = {
        "LOAD_BLOCK_BYTES": core.load_dma.bytes_per_cycle,
        "STORE_BLOCK_BYTES": core.store_dma.bytes_per_cycle,
        "ROW_BYTES": core.scratchpad.port_width_bytes,
        "FETCH_WORDS": core.fetch_words_per_cycle,
        "LATENCY_CYCLES": chip.memory_side.latency_cycles,
        "DISPATCH_CYCLES": chip.host.dispatch_cycles,
    }
    return "".join(f"#define {name} {value}\n" for name, value in sizes.items()) + TESTBENCH.read_text("utf-8")


NOT_IN_THE_MODEL = (
    *(
        "cosimulation",
        "coverage",
        "cut_down",
        "difference",
        "files",
        "simulation",
        "support",
        "synthesis",
        "timeline",
        "verilator",
    ),
    *("costs", "manual", "microcoded_cycles", "printing", "verify"),
)
"""Modules of the folders below that have no part in a core's Verilog."""


@functools.cache
def _sources() -> str:
    """Changes with every source file that has a part in the Verilog of a core."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(metadata.version("amaranth").encode())
    for folder in ("rtl", "rtl/pipelined", "isa", "numerics"):
        for path in sorted((package / folder).glob("*.py")):
            if path.stem in NOT_IN_THE_MODEL:
                continue
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def library(chip: Chip, *, trace: bool = False, optimised: bool = True) -> ctypes.CDLL:
    """The model of a chip's core with its testbench, made now or taken from the cache."""
    check_chip(chip)
    return verilator.library(
        lambda: verilog_of(chip),
        f"{_sources()} {CoreSizes.of(chip)} {chip.core.design} {chip.core.fetch_words_per_cycle}",
        TOP,
        testbench_of(chip),
        trace=trace,
        optimised=optimised,
    )


def run(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    memory: Memory,
    *,
    workspace: int = 0,
    waveform: Path | None = None,
    trace: Path | None = None,
    timeline: Path | None = None,
    optimised: bool = True,
    cycle_limit: int = CYCLE_LIMIT,
) -> RtlOutcome:
    """Run a program as `tapeout.sim.evaluator.run` does. `waveform`: a file (FST) for the signals of core 0. `trace`: a
    file for every write (`WRITE_RECORD`), `timeline`: one for every start and end (`EVENT`). `optimised`: as for
    `library`.

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
        latency_cycles=chip.memory_side.latency_cycles,
        dispatch_cycles=chip.host.dispatch_cycles,
        cycle_limit=cycle_limit,
        waveform=str(waveform).encode() if waveform else None,
        trace=str(trace).encode() if trace else None,
        timeline=str(timeline).encode() if timeline else None,
    )
    model = library(chip, trace=waveform is not None, optimised=optimised)
    begin = time.perf_counter()
    model.tapeout_rtl_run(ctypes.byref(launch))
    seconds = time.perf_counter() - begin
    _refuse(program, launch)
    counts = dict(zip(QUEUES, launch.started, strict=True))
    return RtlOutcome(launch.cycles - LAUNCH_CYCLES, counts, seconds)


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
