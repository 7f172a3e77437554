"""The data that a program's timing depends on, for one launch.

Loads and stores move bytes without looking at them; what matters for time is what becomes an address, a mask or a
branch: values read by `scalar_load`, and the index and mask tiles of `load_indexed`, `store_indexed` and `atomic`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.errors import TapeoutError
from tapeout.isa import AccessPattern, Instruction, Program, RegisterValue, Unit
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.sim import evaluator
from tapeout.sim.execution import Frame
from tapeout.sim.state import Memory

Tile = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class ProgramData:
    """Values that one program of the grid read, in order of execution.

    `scalars`: values of scalar_load. `load_tiles`, `store_tiles`: for each instruction of the queue that has an index
    or mask tile, its indices, then its mask, flattened in loop order over their own extents (a dimension along which
    the pattern has stride 0 counts once); an operand that is a register has no entry.
    """

    scalars: list[int] = field(default_factory=list)
    load_tiles: list[Tile] = field(default_factory=list)
    store_tiles: list[Tile] = field(default_factory=list)


@dataclass(frozen=True)
class DataTrace:
    """`programs[n]` is the data of program n of the grid, x fastest."""

    programs: Sequence[ProgramData]


@dataclass(frozen=True, eq=False)
class FlatTrace:
    """The same as a few arrays of 64-bit words, as the fast model reads it and the functional simulator notes it.

    Scalars of all programs and where each program's begin; values of all tiles, where each program's tiles of the load
    and of the store queue begin, and where each of those tiles begins among the values. Each list of beginnings ends
    with an end.
    """

    scalars: Tile
    first_scalar: Tile
    values: Tile
    first_load: Tile
    first_store: Tile
    load_starts: Tile
    store_starts: Tile

    @property
    def arrays(self) -> tuple[Tile, ...]:
        return (
            self.scalars, self.first_scalar, self.values, self.first_load, self.first_store, self.load_starts,
            self.store_starts,
        )  # fmt: skip

    @property
    def program_count(self) -> int:
        return len(self.first_scalar) - 1

    def by_program(self) -> DataTrace:
        programs = []
        for n in range(self.program_count):
            scalars = self.scalars[self.first_scalar[n] : self.first_scalar[n + 1]].tolist()
            loads, stores = (
                [self.values[starts[t] : starts[t + 1]] for t in range(first[n], first[n + 1])]
                for first, starts in ((self.first_load, self.load_starts), (self.first_store, self.store_starts))
            )
            programs.append(ProgramData(scalars, loads, stores))
        return DataTrace(programs)


def flat(data: DataTrace) -> FlatTrace:
    programs = data.programs

    def starts(lengths: list[int]) -> Tile:
        return np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)

    loads, stores = ([tile for p in programs for tile in getattr(p, kind)] for kind in ("load_tiles", "store_tiles"))
    tile_starts = starts([len(tile) for tile in (*loads, *stores)])
    return FlatTrace(
        words([value for p in programs for value in p.scalars]),
        starts([len(p.scalars) for p in programs]),
        np.concatenate([np.zeros(0, np.int64), *loads, *stores]).astype(np.int64),
        starts([len(p.load_tiles) for p in programs]),
        starts([len(p.store_tiles) for p in programs]),
        tile_starts[: len(loads) + 1].copy(),
        tile_starts[len(loads) :].copy(),
    )


def words(values: Sequence[int]) -> Tile:
    """Whole numbers as 64-bit words."""
    return np.array([value if value < 1 << 63 else value - (1 << 64) for value in values], np.int64)


def program_needs_data(program: Program) -> bool:
    """Return whether the time of a program depends on the content of memory."""
    return any(isinstance(item, isa.ScalarLoad | isa.Indexed) for item in program.instructions)


def own_extents(pattern: AccessPattern, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents of a tile's elements that are really there: 1 where it is broadcast."""
    return tuple(extent if stride else 1 for extent, stride in zip(shape, pattern.strides, strict=True))


def record_trace(
    program: Program,
    chip: Chip,
    grid: tuple[int, int, int],
    arguments: Sequence[int],
    memory: Memory,
    *,
    workspace: int = 0,
) -> DataTrace:
    """Run the program on the reference evaluator (which changes the memory) and note the data its time depends on."""
    programs = [ProgramData() for _ in range(grid[0] * grid[1] * grid[2])]

    def watch(program_id: tuple[int, int, int], item: Instruction, frame: Frame) -> None:
        x, y, z = program_id
        data = programs[x + grid[0] * (y + grid[1] * z)]
        if isinstance(item, isa.ScalarLoad):
            data.scalars.append(frame.registers[item.destination] if item.destination else 0)
        elif isinstance(item, isa.Indexed):
            tiles = data.load_tiles if item.unit is Unit.LOAD else data.store_tiles
            for operand, dtype in ((item.index, item.index_dtype), (item.mask, DType.I1)):
                if not isinstance(operand, RegisterValue):
                    values = frame.values(operand, item.shape, dtype)
                    tiles.append(np.ascontiguousarray(values).astype(np.int64).reshape(-1))

    evaluator.run(program, chip, grid, arguments, memory, workspace=workspace, watch=watch)
    return DataTrace(programs)


ASSUMED_INDEX_RANGE = 1 << 20
"""Indices of which nothing is known are taken as uniformly random: within the allocation they lead into or, where that
is not known either, below this."""


class DataMissing(TapeoutError):
    """A program's timing depends on data, and there is no trace of it, or not one of this launch."""


def data_missing(program: Program, index: int) -> DataMissing:
    return DataMissing(
        f"{program.location(index)}: the branch of instruction {index} of {program.name} depends on data, so its time "
        "is not known without them; run with data, or record a trace"
    )


def trace_too_short(program: Program, program_id: tuple[int, int, int]) -> DataMissing:
    return DataMissing(
        f"{program.name}: the trace ends before program {program_id} does; it was recorded for another launch"
    )


def scalar_assumption(program: Program, index: int) -> str:
    """Return what is said about a scalar that was loaded without a trace."""
    return f"{program.location(index)}: the scalar loaded by instruction {index} is taken as 0"


def tile_assumption(program: Program, index: int) -> str:
    """Return what is said about indices that were not traced."""
    return (
        f"{program.location(index)}: indices of instruction {index} ({program.instructions[index].mnemonic}) are taken "
        "as uniformly random within the memory allocated there, no element masked out"
    )
