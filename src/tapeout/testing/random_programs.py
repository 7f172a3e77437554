"""Random legal programs, with the memory they run on: to hold one implementation of the machine against
another.

`random_case(seed, chip)` gives a whole program: a loop over the grid's programs whose body has loops,
branches, every kind of queued instruction on every element type, access patterns with broadcast, gaps and
negative strides, rotating buffers, chains of instructions that reuse a few whole tiles as compiled code does,
and the semaphores that make it free of races. It leaves everything it computed in memory: each program of the
grid ends by copying its scratchpad and its scalars to an area of its own.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tapeout.chip import Chip
from tapeout.isa import (
    AccessPattern,
    Function,
    Parameter,
    Program,
    RegisterValue,
)
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.testing.random_chains import Chains
from tapeout.testing.random_writing import (
    BASE,
    FULL,
    INPUT_BYTES,
    LINEAR,
    LOOP_COUNTERS,
    OUTPUT,
    SCALARS,
    TABLE,
    TABLE_BYTES,
    WORKSPACE,
    Sizes,
)


@dataclass(frozen=True)
class Case:
    """A program and what to run it on. The only argument is the address where `image` lies."""

    seed: int
    program: Program
    grid: tuple[int, int, int]
    image: np.ndarray[Any, np.dtype[np.uint8]]


def random_case(seed: int, chip: Chip, instruction_count: int = 40, sizes: Sizes = FULL) -> Case:
    """A random program of about `instruction_count` queued instructions. The same seed gives the same
    case."""
    return _Generator(random.Random(seed), seed, chip, sizes).case(instruction_count)


class _Generator(Chains):
    """Writes a whole program: a loop over the programs of a grid."""

    def case(self, instruction_count: int) -> Case:
        grid = self.source.choice(self.grids)
        program_bytes = self.output.size + self.scratchpad_bytes + TABLE_BYTES
        self.emit(isa.Argument(destination=BASE, index=0))
        again = len(self.items)
        self.emit(isa.NextProgram(destination=LOOP_COUNTERS[0]))
        leave = self.emit(isa.BranchZero(condition=LOOP_COUNTERS[0], target=0))
        self._set_up_addresses(program_bytes)
        self._fill_scratchpad()
        self._body(instruction_count, depth=1)
        self._dump()
        self.emit(isa.Jump(target=again))
        self.items[leave] = replace(self.items[leave], target=len(self.items))  # type: ignore[type-var]
        self.emit(isa.Halt())
        program = Program(
            name=f"random_{self.seed}",
            chip=self.chip.name,
            instructions=tuple(self.items),
            scratchpad_bytes=self.scratchpad_bytes,
            parameters=(Parameter("memory", "*i8"),),
            workspace_bytes=self.workspace.size,
            lines=tuple(range(len(self.items))),
            locations=tuple(f"random_{self.seed}:{n}" for n in range(len(self.items))),
        )
        count = grid[0] * grid[1] * grid[2]
        return Case(self.seed, program, grid, self._image(INPUT_BYTES + count * program_bytes))

    def _image(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Random bits, floats near 1 of several types, small integers, zeros."""
        generator = np.random.default_rng(self.seed)
        parts: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        while sum(part.nbytes for part in parts) < size:
            normal = generator.normal(size=32)
            parts += [
                generator.integers(0, 256, 64, np.uint8),
                normal.astype(np.float32).view(np.uint8),
                normal.astype(np.float16).view(np.uint8),
                normal.view(np.uint8),
                generator.integers(-4, 5, 16, np.int32).view(np.uint8),
                np.zeros(16, np.uint8),
            ]
        order = generator.permutation(len(parts))
        return np.concatenate([parts[n] for n in order])[:size].copy()

    def _set_up_addresses(self, program_bytes: int) -> None:
        x, y, z, width, height = (self.fresh() for _ in range(5))
        for axis, register in enumerate((x, y, z)):
            self.emit(isa.ProgramId(destination=register, axis=axis))
        for axis, register in enumerate((width, height)):
            self.emit(isa.GridSize(destination=register, axis=axis))
        self.scalar(LINEAR, Function.MUL, z, height)
        self.scalar(LINEAR, Function.ADD, LINEAR, y)
        self.scalar(LINEAR, Function.MUL, LINEAR, width)
        self.scalar(LINEAR, Function.ADD, LINEAR, x)
        self.scalar(OUTPUT, Function.MUL, LINEAR, self.constant(program_bytes))
        self.scalar(OUTPUT, Function.ADD, OUTPUT, self.constant(INPUT_BYTES))
        self.scalar(OUTPUT, Function.ADD, OUTPUT, BASE)
        self.scalar(TABLE, Function.ADD, OUTPUT, self.constant(self.output.size + self.scratchpad_bytes))
        self.emit(isa.Workspace(destination=WORKSPACE))
        for register in SCALARS:
            self.emit(isa.LoadImmediate(destination=register, value=self._random_integer(64)))
        self.scalar(SCALARS[0], Function.ADD, LINEAR, 0)

    def _fill_scratchpad(self) -> None:
        """Every byte, from memory: what lies there otherwise depends on what the core did before."""
        count = self.scratchpad_bytes // 4
        for start in range(0, count, INPUT_BYTES // 4):
            part = min(count - start, INPUT_BYTES // 4)
            self.queue(
                isa.Load(
                    dtype=DType.I32,
                    base=BASE,
                    strides=(0, 0, 0, self.constant(4)),
                    shape=(1, 1, 1, part),
                    tile=AccessPattern(4 * start, (0, 0, 0, 1)),
                ),
                writes=self.slots,
            )
        self.queue(
            isa.Store(
                dtype=DType.I32,
                base=WORKSPACE,
                strides=(0, 0, 0, self.constant(4)),
                shape=(1, 1, 1, self.workspace.size // 4),
                tile=RegisterValue(LINEAR),
            ),
            writes=[self.workspace],
        )
        self.drain()

    def _dump(self) -> None:
        self.drain()
        for number, register in enumerate(SCALARS):
            self.emit(isa.ScalarStore(a=register, address=8 * number, dtype=DType.I64))
        address = self.fresh()
        self.scalar(address, Function.ADD, OUTPUT, self.constant(self.output.size))
        self.queue(
            isa.Store(
                dtype=DType.I32,
                base=address,
                strides=(0, 0, 0, self.constant(4)),
                shape=(1, 1, 1, self.scratchpad_bytes // 4),
                tile=AccessPattern(0, (0, 0, 0, 1)),
            )
        )
        self.drain()

    def _body(self, budget: int, depth: int) -> None:
        while budget > 0:
            kind = self.source.random()
            if kind < 0.06 and depth < len(LOOP_COUNTERS) and budget > 6:
                budget -= self._loop(self.source.randint(3, 8), depth)
            elif kind < 0.12 and depth < len(LOOP_COUNTERS) and budget > 6:
                budget -= self._branch(self.source.randint(2, 5), depth)
            elif kind < 0.14:
                self._pipelined_loop()
                budget -= 5
            elif kind < 0.2 and budget > 6:
                budget -= self._chain()
            else:
                self.source.choices(*zip(*self._steps().items(), strict=True))[0]()
                budget -= 1

    def _steps(self) -> dict[Callable[[], None], float]:
        """Kinds of instruction, and how often."""
        return {
            self._map: 8,
            self._convert: 4,
            self._reduce: 2,
            self._load: 3,
            self._load_indexed: 1,
            self._store: 2,
            self._store_indexed: 1,
            self._spill: 0.5,
            self._atomic: 1,
            self._gather: 1.5,
            self._iota: 1,
            self._matrix: 3,
            self._scalars: 2,
            self._scalar_memory: 1,
        }

    def _loop(self, budget: int, depth: int) -> int:
        counter, one = LOOP_COUNTERS[depth], self.fresh()
        self.drain()
        self.emit(isa.LoadImmediate(destination=counter, value=self.source.randint(1, 3)))
        again = len(self.items)
        self._body(budget, depth + 1)
        self.drain()
        self.emit(isa.LoadImmediate(destination=one, value=1))
        self.scalar(counter, Function.SUB, counter, one)
        self.emit(isa.BranchNonzero(condition=counter, target=again))
        return 2 * budget

    def _branch(self, budget: int, depth: int) -> int:
        self.drain()
        kind = self.source.choice((isa.BranchZero, isa.BranchNonzero))
        condition = self.fresh()
        self.scalar(condition, Function.AND, self.source.choice((LINEAR, *SCALARS)), self.constant(1))
        other = self.emit(kind(condition=condition, target=0))
        self._body(budget, depth + 1)
        self.drain()
        end = self.emit(isa.Jump(target=0))
        self.items[other] = replace(self.items[other], target=len(self.items))  # type: ignore[type-var]
        self._body(budget, depth + 1)
        self.drain()
        self.items[end] = replace(self.items[end], target=len(self.items))  # type: ignore[type-var]
        return 2 * budget
