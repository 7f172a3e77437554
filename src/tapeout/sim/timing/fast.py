"""The timing model in C++: the same cycles as `reference`, some thousand times faster.

A program is prepared for a chip once (costs, tiles and fields as words); a launch passes the grid, arguments and, if
there is one, the trace.
"""

import ctypes
import functools
import math
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.errors import InternalError, TapeoutError
from tapeout.host.library import Library, for_this_host, load
from tapeout.isa import AccessPattern, Program, RegisterValue, Unit, microcoded_cycles
from tapeout.isa import definitions as isa
from tapeout.isa.cost import Cost
from tapeout.isa.costs import (
    dispatch_cycles,
    front_cycles,
    handover_cycles,
    issue_cycles,
    release_cycles,
)
from tapeout.isa.fields import Instruction, Queued, tiles
from tapeout.isa.pipelined_costs import single_group, transfer_conflict
from tapeout.numerics.dtypes import DType
from tapeout.sim.faults import AccessFault, SynchronisationFault, Trapped
from tapeout.sim.timing import abi
from tapeout.sim.timing.memory import MemoryParameters
from tapeout.sim.timing.network import TICKS, Network
from tapeout.sim.timing.result import REASONS, UNITS, Counts, Interval, MemoryRegion, Timing, activity
from tapeout.sim.timing.trace import (
    DataTrace,
    FlatTrace,
    data_missing,
    flat,
    own_extents,
    scalar_assumption,
    tile_assumption,
    trace_too_short,
    words,
)

SOURCE = Path(__file__).with_name("fast.cpp")
Word, Pointer = ctypes.c_int64, ctypes.c_void_p

KIND_OF: dict[type, str] = {
    isa.Halt: "HALT",
    isa.Jump: "JUMP",
    isa.BranchZero: "BRANCH_ZERO",
    isa.BranchNonzero: "BRANCH_NONZERO",
    isa.NextProgram: "NEXT_PROGRAM",
    isa.ProgramId: "PROGRAM_ID",
    isa.GridSize: "GRID_SIZE",
    isa.Argument: "ARGUMENT",
    isa.Workspace: "WORKSPACE",
    isa.LoadImmediate: "LOAD_IMMEDIATE",
    isa.Scalar: "SCALAR",
    isa.ScalarSelect: "SCALAR_SELECT",
    isa.ScalarConvert: "SCALAR_CONVERT",
    isa.Rotate: "ROTATE",
    isa.ScalarLoad: "SCALAR_LOAD",
    isa.ScalarStore: "SCALAR_STORE",
    isa.Wait: "WAIT",
    isa.Drain: "DRAIN",
    isa.Trap: "TRAP",
    isa.Atomic: "ATOMIC",
    **dict.fromkeys(isa.SYNC.values(), "SYNC"),
}


def _kind(item: Instruction) -> str:
    if item.unit is Unit.SEQUENCER and type(item) not in KIND_OF:
        raise InternalError(f"the timing simulator in C++ does not know {item.mnemonic}")
    return KIND_OF.get(type(item), "OTHER")


def source() -> Library:
    """Return what the model is built from, for this host."""
    return for_this_host("timing model", (SOURCE,), abi.header())


@functools.cache
def library() -> ctypes.CDLL:
    loaded = load(source())
    for name, result, arguments in (
        ("tapeout_timing_system", Pointer, (Pointer,)),
        ("tapeout_timing_free_system", None, (Pointer,)),
        ("tapeout_timing_kernel", Pointer, (Pointer, Word)),
        ("tapeout_timing_free_kernel", None, (Pointer,)),
        (
            "tapeout_timing_simulate",
            Word,
            (*[Pointer] * 4, *[Word] * 4, *[Pointer] * 3, Word, Pointer, Word),
        ),
        ("tapeout_timing_take_intervals", None, (Pointer, Pointer)),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


# -------------------------------------------------------------------------------------------------- preparing


class _System:
    """A chip's memory system and cores, in C++."""

    def __init__(self, chip: Chip, memory_latency_cycles: int | None) -> None:
        core = chip.core
        network = Network.of(chip)
        facts = (
            asdict(MemoryParameters.of(chip, memory_latency_cycles))
            | (network.facts() if network else {})
            | {
                "core_count": chip.core_count,
                "queue_depth": core.queue_depth,
                "is_microcoded": core.is_microcoded,
                "handover_cycles": handover_cycles(chip),
                "lane_count": core.vector.lane_count,
                "load_bytes_per_cycle": core.load_dma.bytes_per_cycle,
                "load_addresses_per_cycle": core.load_dma.gather_addresses_per_cycle,
                "load_outstanding_bytes": core.load_dma.outstanding_bytes,
                "store_bytes_per_cycle": core.store_dma.bytes_per_cycle,
                "store_addresses_per_cycle": core.store_dma.gather_addresses_per_cycle,
                "store_outstanding_bytes": core.store_dma.outstanding_bytes,
            }
        )
        self.chip = chip
        self.handle = library().tapeout_timing_system(words(abi.CHIP.pack(facts)).ctypes.data)
        weakref.finalize(
            self, library().tapeout_timing_free_system, self.handle
        ).atexit = False  # threads may use it until the end


@functools.lru_cache(maxsize=8)
def _system(chip: Chip, memory_latency_cycles: int | None) -> _System:
    return _System(chip, memory_latency_cycles)


class _Prepared:
    """A program's words for one chip, in C++."""

    def __init__(self, program: Program, chip: Chip) -> None:
        self.costs: list[Cost] = [item.cost(item, chip) for item in program.instructions]
        self.size = len(program.instructions)
        shapes: dict[tuple[Any, ...], int] = {}
        rows = [_op(item, cost, chip, shapes) for item, cost in zip(program.instructions, self.costs, strict=True)]
        packed = np.concatenate([words(abi.OP.pack(row)) for row in rows])
        self.handle = library().tapeout_timing_kernel(packed.ctypes.data, self.size)
        weakref.finalize(
            self, library().tapeout_timing_free_kernel, self.handle
        ).atexit = False  # threads may use it until the end


def _op(item: Instruction, cost: Cost, chip: Chip, shapes: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    """Members of the structure Op for one instruction. `shapes` numbers what two equal tiles have in common."""
    row: dict[str, Any] = {
        "kind": abi.KINDS.index(_kind(item)),
        "unit": abi.AGENTS.index(item.unit),
        "occupancy": cost.occupancy_cycles,
        "conflict": cost.conflict_cycles,
        "latency": cost.latency_cycles,
        "fill": cost.fill_cycles,
        "first_result": cost.first_result_cycles,
        "last_read": cost.last_read_cycles,
    }
    if not isinstance(item, Queued):
        return row | _sequencer_op(item, chip)
    row |= {"wait_a": item.wait_a, "wait_b": item.wait_b, "signal_a": item.signal_a, "signal_b": item.signal_b}
    row |= {"issue_cycles": issue_cycles(item, chip), "front_cycles": front_cycles(item, chip)}
    row |= {"release_cycles": release_cycles(item, chip)} | _tiles(item, chip, shapes)
    if isinstance(item, isa.Transfer):
        row |= _transfer_op(item, chip)
    return row


def _sequencer_op(item: Instruction, chip: Chip) -> dict[str, Any]:
    names = {field.name for field in item.fields}
    row: dict[str, Any] = {
        name: getattr(item, name) for name in ("destination", "a", "b", "condition") if name in names
    }
    match item:
        case isa.Jump() | isa.BranchZero() | isa.BranchNonzero():
            row["value"] = item.target
        case isa.NextProgram():
            row["dispatch_cycles"] = dispatch_cycles(item, chip)
        case isa.ProgramId() | isa.GridSize():
            row["value"] = item.axis
        case isa.Argument():
            row["value"] = item.index
        case isa.LoadImmediate():
            row["value"] = item.value
        case isa.Scalar():
            row |= {"function": item.function.code, "bits": _bits(item.dtype)}
        case isa.ScalarConvert():
            row |= {"value": item.unsigned, "bits": _bits(item.dtype)}
        case isa.Rotate():
            row |= {"destination": item.register, "value": item.step, "limit": item.limit}
        case isa.ScalarStore():
            row |= {"value": item.address, "b": item.offset, "size": item.dtype.size_bytes}
        case isa.Wait():
            row["a"] = item.semaphore
        case isa.Trap():
            row["value"] = item.code
    return row


def _bits(dtype: Any) -> int:
    return 1 if dtype is DType.I1 else dtype.bits


def _tile(pattern: AccessPattern, extents: tuple[int, ...], size: int, shapes: dict[tuple[Any, ...], int]) -> list[int]:
    reach = [s * (e - 1) * size for s, e in zip(pattern.strides, extents, strict=True)]
    shape = shapes.setdefault((pattern.strides, extents, size), len(shapes))
    first = pattern.base + sum(min(0, r) for r in reach)
    end = pattern.base + sum(max(0, r) for r in reach) + size
    return abi.TILE.pack(
        {
            "shape": shape,
            "base": pattern.base,
            "reg": pattern.register,
            "first": first - pattern.base,
            "end": end - pattern.base,
        }
    )


def _tiles(item: Instruction, chip: Chip, shapes: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    reads: list[list[int]] = []
    row: dict[str, Any] = {"sum_read": -1}
    for use, pattern in sorted(tiles(item), key=lambda entry: entry[0].writes):
        if use.picked:  # it may be anything written before
            tile = abi.TILE.pack({"shape": -1, "end": chip.core.scratchpad.size_bytes})
        else:
            tile = _tile(pattern, use.extents, use.dtype.size_bytes, shapes)
        if use.writes:
            row |= {"has_written": 1, "written": tile}
            if use.reads:
                row["sum_read"] = len(reads)
        if use.reads:
            reads.append(tile)
    if isinstance(item, isa.MatrixMultiply):
        row["is_single_group"] = single_group(item, chip)
    return row | {"read_count": len(reads), "reads": [word for tile in reads for word in tile]}


def _transfer_op(item: isa.Transfer, chip: Chip) -> dict[str, Any]:
    size = item.dtype.size_bytes
    row: dict[str, Any] = {"size": size, "base": item.base, "extent": item.shape}
    if not isinstance(item, isa.Atomic):
        row |= {"strides": item.strides, "low": item.low, "high": item.high}
    if isinstance(item.tile, AccessPattern):
        dma = chip.core.load_dma if item.unit is Unit.LOAD else chip.core.store_dma
        row["conflicts"] = [
            transfer_conflict(item.tile, size, d, item.shape[d], dma.bytes_per_cycle, chip) for d in range(4)
        ]
    else:
        row["conflicts"] = [1, 1, 1, 1]
    if isinstance(item, isa.Indexed):
        row |= {"is_indexed": 1, "scale": item.scale, "index_bits": item.index_dtype.bits}
        patterns = [o for o in (item.index, item.mask) if isinstance(o, AccessPattern)]
        row["varies"] = sum(1 << d for d in range(4) if any(pattern.strides[d] for pattern in patterns))
        if isinstance(item.index, RegisterValue):
            row["index_register"] = item.index.register
        else:
            row |= {"has_index_tile": 1, "index_own": own_extents(item.index, item.shape)}
        if isinstance(item.mask, AccessPattern):
            row |= {"has_mask_tile": 1, "mask_own": own_extents(item.mask, item.shape)}
    return row | _vectors_op(item, row, chip) if chip.core.is_microcoded else row


def _vectors_op(item: isa.Transfer, row: dict[str, Any], chip: Chip) -> dict[str, Any]:
    """Return what the engines of a microcoded core, which go vector by vector, need to know; dimensions as they walk
    them."""
    shifts = microcoded_cycles.inward_shifts(item.shape)
    rows, count = microcoded_cycles.transfer_rows(item, chip)
    names = ("strides", "low", "high", "extent", "index_own", "mask_own")
    return {name: microcoded_cycles.moved_in(row[name], shifts) for name in names if name in row} | {
        "vector_cycles": microcoded_cycles.transfer_vector_cycles(item, chip),
        "first_request_cycles": microcoded_cycles.transfer_request_cycles(item, chip),
        "row_ticks": -(-rows * TICKS // count) if item.unit is Unit.LOAD else 0,
        "least_cycles": -(-rows // count) if item.unit is Unit.STORE else 0,
    }


_PREPARED: dict[tuple[int, Chip], _Prepared] = {}


def _prepared(program: Program, chip: Chip) -> _Prepared:
    """Prepared once for as long as the program lives (programs are compared by identity: they are large)."""
    key = (id(program), chip)
    found = _PREPARED.get(key)
    if found is None:
        found = _PREPARED[key] = _Prepared(program, chip)
        weakref.finalize(program, _PREPARED.pop, key, None)
    return found


# ------------------------------------------------------------------------------------------------- launching


def simulate(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    *,
    data: DataTrace | FlatTrace | None = None,
    record: bool = False,
    memory_base: int = 0,
    workspace: int = 0,
    memory_latency_cycles: int | None = None,
    regions: Sequence[MemoryRegion] = (),
) -> Timing:
    """Simulate a launch in C++; see `tapeout.sim.timing.simulate`."""
    prepared = _prepared(program, chip)
    system = _system(chip, memory_latency_cycles)
    size, program_count = prepared.size, math.prod(grid)
    core_count = min(chip.core_count, program_count)
    trace = flat(data) if isinstance(data, DataTrace) else data
    if trace is not None and trace.program_count != program_count:
        raise TapeoutError(f"{program.name}: a trace of {trace.program_count} programs for a grid of {program_count}")
    trace_words = words([array.ctypes.data for array in trace.arrays]) if trace else None
    lengths = (core_count * 5, core_count * 5 * len(REASONS), size, size, size * len(REASONS), size)
    numbers = np.zeros(sum(lengths), np.int64)
    ends = np.cumsum(lengths)
    parts = np.split(numbers, ends[:-1])
    pointers = np.array([part.ctypes.data for part in parts], np.int64)
    result = np.zeros(abi.RESULT.word_count + 1, np.int64)
    given = words([*grid, *arguments])
    region_words = words([word for region in regions for word in abi.REGION.pack(asdict(region))])
    shared = library()
    failure = shared.tapeout_timing_simulate(
        prepared.handle,
        system.handle,
        given.ctypes.data,
        given[3:].ctypes.data,
        len(arguments),
        memory_base,
        workspace,
        program.workspace_bytes,
        trace_words.ctypes.data if trace_words is not None else None,
        pointers.ctypes.data,
        result.ctypes.data,
        record,
        region_words.ctypes.data,
        len(regions),
    )
    values = dict(zip(abi.RESULT.offsets, result.tolist(), strict=False))
    if failure:
        raise _failure(program, grid, arguments, abi.FAILURES[failure], values["detail"], values["program"])
    busy, stalls, counts, op_busy, op_stalls, assumed = parts
    products, operations, moved = activity(program, prepared.costs, counts)
    return Timing(
        cycles=values["cycles"],
        launch_ns=chip.host.launch_ns,
        clock_hz=chip.clock_hz,
        program_count=program_count,
        busy_cycles=busy.reshape(core_count, 5),
        stall_cycles=stalls.reshape(core_count, 5, len(REASONS)),
        instruction_counts=counts,
        instruction_busy_cycles=op_busy,
        instruction_stall_cycles=op_stalls.reshape(size, len(REASONS)),
        hbm_read_bytes=values["hbm_read_bytes"],
        hbm_written_bytes=values["hbm_written_bytes"],
        sram_read_bytes=values["sram_read_bytes"],
        sram_written_bytes=values["sram_written_bytes"],
        sram_hits=values["sram_hits"],
        sram_misses=values["sram_misses"],
        row_hits=values["row_hits"],
        row_misses=values["row_misses"],
        multiply_accumulates=products,
        vector_operations=operations,
        scratchpad_bytes=moved,
        assumed=_assumed(program, assumed),
        intervals=_intervals(result, values["interval_count"]) if record else (),
        resident=tuple(map(bool, region_words.reshape(-1, abi.REGION.word_count)[:, -1].tolist())),
    )


def _assumed(program: Program, flags: Counts) -> tuple[str, ...]:
    def sentence(index: int) -> str:
        is_scalar = isinstance(program.instructions[index], isa.ScalarLoad)
        return (scalar_assumption if is_scalar else tile_assumption)(program, index)

    return tuple(sentence(index) for index in np.flatnonzero(flags).tolist())


def _intervals(result: Counts, count: int) -> tuple[Interval, ...]:
    rows = np.zeros((count, abi.INTERVAL.word_count), np.int64)
    library().tapeout_timing_take_intervals(result.ctypes.data, rows.ctypes.data)
    return tuple(
        Interval(core, UNITS[unit], index, start, end, waited, REASONS[reason] if reason >= 0 else "")
        for core, unit, start, index, end, waited, reason in rows.tolist()
    )


def _failure(
    program: Program, grid: tuple[int, int, int], arguments: Sequence[int], kind: str, detail: int, number: int
) -> Exception:
    program_id = (number % grid[0], number // grid[0] % grid[1], number // grid[0] // grid[1])
    match kind:
        case "DEADLOCK":
            return SynchronisationFault(f"core {number}", f"{program.name} waits for ever at instruction {detail}")
        case "PAST_END":
            return AccessFault(program.name, f"runs past its last instruction ({detail})")
        case "DATA_MISSING":
            return data_missing(program, detail)
        case "TRACE_TOO_SHORT":
            return trace_too_short(program, program_id)
        case "TRAPPED":
            sentence = program.messages[detail] if detail < len(program.messages) else f"trap {detail}"
            return Trapped(f"program {program_id}", sentence, detail)
        case "NO_ARGUMENT":
            return AccessFault(program.name, f"argument {detail} of {len(arguments)} is read")
    return InternalError(f"{program.name}: timing failed with {kind} {detail}")
