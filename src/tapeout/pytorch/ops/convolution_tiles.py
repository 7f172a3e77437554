"""Tiles of convolutions, chosen from the chip's description as those of products are (`tiles.py`).

What the load engine asks for counts beside bytes and products: a run of neighbours in memory is at least one request,
and small images have short rows.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.pytorch.ops.sizes import ceil_div, power_of_two_at_least
from tapeout.pytorch.ops.tiles import NEAR, load_bytes_per_cycle, padded, steps_of_array

SCALAR_CYCLES = 200
"""Of the sequencer, for a step: addresses and bounds of what a tap meets."""

LOAD_SHARE = 0.65
"""Of the rate at which the last-level SRAM could serve all cores, that they reach: their lines meet in its slices."""

MOST_PIXELS = 1024


@dataclass(frozen=True)
class Problem:
    """A convolution: sizes of a group, places of the result, taps of all dimensions. `is_last`: channels are neighbours
    in memory. Of `skipped` columns that are loaded one is used."""

    images: int
    groups: int
    channels: int
    outputs: int
    depth: int
    height: int
    width: int
    taps: int
    is_last: bool
    skipped: int


@dataclass(frozen=True)
class Tile:
    """A block of pixels, channels of a step for each of the sums that run side by side, outputs, and whether pixels are
    the rows of the matrix array."""

    images: int
    rows: int
    columns: int
    channels: int
    outputs: int
    chains: int
    pixels_first: bool

    @property
    def pixels(self) -> int:
        return self.images * self.rows * self.columns


def _blocks(problem: Problem, least: int) -> Iterator[tuple[int, int, int]]:
    """Blocks of pixels: whole rows where they are short, then rows, then images."""
    whole = power_of_two_at_least(problem.width)
    for columns in {min(whole, side) for side in (32, 64, 128, 256)}:
        most_rows = min(MOST_PIXELS // columns, power_of_two_at_least(problem.height))
        for rows in (2**n for n in range(most_rows.bit_length())):
            most_images = min(MOST_PIXELS // columns // rows, power_of_two_at_least(problem.images))
            for images in (2**n for n in range(most_images.bit_length())):
                is_all = columns == whole and 2 * rows > most_rows and 2 * images > most_images
                if images * rows * columns >= least or is_all:
                    yield images, rows, columns


def _block_count(problem: Problem, block: tuple[int, int, int]) -> int:
    images, rows, columns = block
    across = ceil_div(problem.height, rows) * ceil_div(problem.width, columns)
    return ceil_div(problem.images, images) * across * problem.depth


def _load_cycles(
    chip: Chip,
    size_bytes: int,
    problem: Problem,
    block: tuple[int, int, int],
    channels: int,
    is_last: bool,
    skipped: int,
) -> float:
    """Cycles that the load engine takes for so many channels of what a block of pixels meets."""
    line = chip.memory_side.line_bytes
    images, rows = min(block[0], problem.images), min(block[1], problem.height)
    columns = min(block[2], problem.width)
    if is_last:
        runs, run = images * rows * columns, channels * size_bytes
    else:
        runs, run = images * rows * channels, columns * skipped * size_bytes
    requests = runs * (max(1, run / line) + (0 if run % line == 0 and is_last else 0.75))
    rate = LOAD_SHARE * load_bytes_per_cycle(chip, chip.core_count)
    return max(runs * run / rate, requests / chip.core.load_dma.gather_addresses_per_cycle)


@functools.lru_cache(maxsize=4096)
def correlation_tile(chip: Chip, dtype: str, size_bytes: int, problem: Problem) -> tuple[Tile, float]:
    """The tile of a convolution whose estimated cycles are fewest, and the cycles. `dtype` is the chip's name of the
    operands' type."""
    found: list[tuple[float, int, Tile]] = []
    engine, pad = chip.core.matrix, chip.core.scratchpad
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    latency = chip.memory_side.latency_cycles + chip.global_memory.latency_ns * chip.clock_hz / 10**9
    most_channels = power_of_two_at_least(problem.channels)
    sides = itertools.product(
        _blocks(problem, 64),
        {min(side, most_channels) for side in (16, 32, 64, 128)},
        {min(side, power_of_two_at_least(problem.outputs)) for side in (64, 128, 256)},
        (False, True),
    )
    for block, channels, outputs, pixels_first in sides:
        pixels = block[0] * block[1] * block[2]
        sides_of_tile = (pixels, outputs) if pixels_first else (outputs, pixels)
        for chains in (1, 2, 4):
            steps_array = steps_of_array(chip, *sides_of_tile, chains)
            if chains > 1 and (chains * channels > problem.channels or steps_array > engine.accumulator_interleave):
                continue
            deep = chains * channels
            step_bytes = deep * (pixels * problem.skipped + outputs) * size_bytes
            if 2 * step_bytes + (8 + 4 * chains) * pixels * outputs > pad.size_bytes and found:
                continue
            steps = problem.taps * ceil_div(problem.channels, deep)
            exchanges = 2 if steps_array > engine.accumulator_interleave else 1
            sums = exchanges * 4 * chains * pixels * outputs / (pad.bandwidth_bytes_per_cycle / 4)
            load = _load_cycles(chip, size_bytes, problem, block, deep, problem.is_last, problem.skipped)
            load += _load_cycles(chip, size_bytes, problem, (1, 1, outputs), deep, False, 1)
            step = max(steps_array * channels / rate, sums, load, SCALAR_CYCLES)
            is_turned = pixels_first != problem.is_last
            end = pixels * outputs * size_bytes * (3 if is_turned else 1) / chip.core.store_dma.bytes_per_cycle
            folding = (2 + chains) * pixels * outputs / chip.core.vector.lane_count
            programs = _block_count(problem, block) * ceil_div(problem.outputs, outputs) * problem.groups
            cycles = ceil_div(programs, chip.core_count) * (steps * step + latency + load + end + folding)
            computed = programs * pixels * outputs * padded(problem.channels, deep)
            found.append((cycles, computed, Tile(*block, channels, outputs, chains, pixels_first)))
    limit = NEAR * min(cycles for cycles, _, _ in found)
    cycles, _, tile = min((entry for entry in found if entry[0] <= limit), key=lambda entry: (entry[1], entry[0]))
    return tile, cycles


@functools.lru_cache(maxsize=4096)
def gradient_tile(
    chip: Chip, dtype: str, size_bytes: int, problem: Problem, is_gradient_last: bool
) -> tuple[Tile, int, float]:
    """The tile of a gradient of filters, whose sums go over pixels, how many blocks of pixels a program takes, and the
    cycles."""
    found: list[tuple[float, int, Tile, int]] = []
    engine, pad = chip.core.matrix, chip.core.scratchpad
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    latency = chip.memory_side.latency_cycles + chip.global_memory.latency_ns * chip.clock_hz / 10**9
    sides = itertools.product(
        _blocks(problem, 64),
        {min(side, power_of_two_at_least(problem.channels)) for side in (64, 128, 256)},
        {min(side, power_of_two_at_least(problem.outputs)) for side in (64, 128, 256)},
    )
    for block, channels, outputs in sides:
        pixels = block[0] * block[1] * block[2]
        for chains in (1, 2, 4):
            steps_array = steps_of_array(chip, outputs, channels, chains)
            if chains > 1 and steps_array > engine.accumulator_interleave:
                continue
            step_bytes = (channels * problem.skipped + outputs) * pixels * size_bytes
            if 2 * step_bytes + (8 + 4 * chains) * channels * outputs > pad.size_bytes and found:
                continue
            exchanges = 2 if steps_array > engine.accumulator_interleave else 1
            sums = exchanges * 4 * chains * channels * outputs / (pad.bandwidth_bytes_per_cycle / 4)
            load = _load_cycles(chip, size_bytes, problem, block, channels, problem.is_last, problem.skipped)
            load += _load_cycles(chip, size_bytes, problem, block, outputs, is_gradient_last, 1)
            step = max(steps_array * pixels / chains / rate, sums, load, SCALAR_CYCLES)
            tiles = ceil_div(problem.channels, channels) * ceil_div(problem.outputs, outputs)
            blocks, programs = _block_count(problem, block), tiles * problem.taps * problem.groups
            end = 4 * channels * outputs * (1 / chip.core.store_dma.bytes_per_cycle + 1 / chip.core.vector.lane_count)
            for parts in {1, *(ceil_div(turns * chip.core_count, programs) for turns in (1, 2, 4))}:
                share = ceil_div(blocks, min(parts, blocks))
                count = ceil_div(blocks, share)
                adding = count * 8 * tiles * channels * outputs * problem.taps * problem.groups
                adding_cycles = adding / chip.core_count / load_bytes_per_cycle(chip, chip.core_count)
                turns = ceil_div(programs * count, chip.core_count)
                cycles = turns * (share * step + latency + load + end) + adding_cycles
                computed = programs * blocks * pixels * channels * outputs
                tile = Tile(*block, channels, outputs, chains, False)
                found.append((cycles, computed, tile, share))
    limit = NEAR * min(entry[0] for entry in found)
    near = (entry for entry in found if entry[0] <= limit)
    cycles, _, tile, share = min(near, key=lambda entry: (entry[1], entry[0]))
    return tile, share, cycles


TURNING_SHARE = 0.4
"""Of HBM's bandwidth, that a copy with channels last reaches."""


def turning_cycles(chip: Chip, size_bytes: int) -> float:
    """Cycles of laying out a tensor with channels last."""
    latency = chip.memory_side.latency_cycles + chip.global_memory.latency_ns * chip.clock_hz / 10**9
    return 4 * latency + 2 * size_bytes * chip.clock_hz / chip.global_memory.bandwidth_bytes_per_s / TURNING_SHARE
