"""Tile sizes of our own kernels, chosen from the chip's description: the same sizes on the same chip, at once.

A product's tiles are those whose estimated cycles are fewest. The estimate counts, for one program, what the matrix
array takes (output tiles in groups, as `isa.costs.matrix_product` says), what the DMA takes to bring its operands and
what reading sums back takes; the longest of them counts, plus a start and an end that overlap with nothing. Programs
come in waves of as many as the chip has cores, so tiles that leave cores empty lose by themselves. Tiles must fit the
scratchpad twice (three times where there is a choice), so that loads run ahead. The timing simulator judges the result
(`python -m benchmarks code_quality`); asking it for each shape would cost more than it gives.
"""

import functools
import itertools
import math
from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.pytorch.ops.sizes import ceil_div, power_of_two_at_least

STEP_CYCLES = 64
"""Cost of a step of the inner loop besides its work: issuing its instructions and handing over tiles."""

NEAR = 17 / 16
"""Estimates are no better than this."""

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COLUMNS = (16, 32, 64, 128, 256)
INNER = (16, 32, 64, 128, 256)


def _array_steps(chip: Chip, rows: int, columns: int) -> int:
    """Steps of the matrix array for each k of an output tile."""
    engine = chip.core.matrix
    tiles = ceil_div(rows, engine.row_count) * ceil_div(columns, engine.column_count)
    return ceil_div(tiles, engine.accumulator_interleave) * engine.accumulator_interleave


def _load_bytes_per_cycle(chip: Chip, active_cores: int) -> float:
    """Return the rate of one core's DMA when so many are at work: the least of its port, its share of the last-level
    SRAM, and what it may have in flight over the time it takes from HBM."""
    sram, hbm, dma = chip.last_level_sram, chip.hbm, chip.core.load_dma
    latency_cycles = sram.latency_cycles + hbm.latency_ns * chip.clock_hz // 10**9
    share = sram.slice_count * sram.bytes_per_cycle_per_slice / active_cores
    return min(dma.bytes_per_cycle, share, dma.outstanding_bytes / latency_cycles)


Tile = tuple[int, ...]


@dataclass(frozen=True)
class _Choice:
    """A tile: its estimated cycles, the elements it computes including padding, and its merit among equals."""

    tile: Tile
    cycles: float
    computed: int
    merit: tuple[int, ...]


def _best(chip: Chip, choices: list[_Choice]) -> Tile:
    """Pick the fastest tile. Among tiles whose launch, with its overhead, takes at most NEAR times as long, prefer the
    one with the least padding, then the most merit: the chip does not care, but simulating padding costs host time."""
    launch = chip.host.launch_ns * chip.clock_hz / 10**9
    limit = NEAR * (min(choice.cycles for choice in choices) + launch)
    near = [choice for choice in choices if choice.cycles + launch <= limit]
    return min(near, key=lambda choice: (choice.computed, tuple(-m for m in choice.merit))).tile


def product_tile(
    chip: Chip, dtype: str, size_bytes: int, batches: int, rows: int, columns: int, inner: int
) -> tuple[int, int, int]:
    """Rows, columns and depth of the tiles of a product. `dtype` is the chip's name of the operands' type."""
    return _product_tile(chip, dtype, size_bytes, batches, _rounded(rows), _rounded(columns), _rounded(inner))


def _rounded(extent: int) -> int:
    """Round up to one of eight steps an octave, so that a context that grows with every token seldom needs a new
    tile."""
    step = max(1, power_of_two_at_least(extent) // 16)
    return ceil_div(extent, step) * step


@functools.lru_cache(maxsize=4096)
def _product_tile(
    chip: Chip, dtype: str, size_bytes: int, batches: int, rows: int, columns: int, inner: int
) -> tuple[int, int, int]:
    choices: list[_Choice] = []
    for tile in itertools.product(_sides(ROWS, rows), _sides(COLUMNS, columns), _sides(INNER, inner)):
        tile_rows, tile_columns, depth = tile
        step_bytes = (tile_rows + tile_columns) * depth * size_bytes
        copies = (chip.core.scratchpad.size_bytes - 8 * tile_rows * tile_columns) // step_bytes
        if copies >= 2 or not choices:
            cycles = _product_cycles(chip, dtype, size_bytes, (batches, rows, columns, inner), tile)
            computed = _padded(rows, tile_rows) * _padded(columns, tile_columns) * _padded(inner, depth)
            merit = (min(copies, 3), min(tile_rows, tile_columns), math.prod(tile))
            choices.append(_Choice(tile, cycles, computed, merit))
    tile_rows, tile_columns, depth = _best(chip, choices)
    return tile_rows, tile_columns, depth


def _sides(sides: tuple[int, ...], extent: int) -> list[int]:
    """Those that are not longer than it takes to hold all."""
    return [side for side in sides if side <= max(sides[0], power_of_two_at_least(extent))]


def _padded(extent: int, side: int) -> int:
    return ceil_div(extent, side) * side


def _product_cycles(
    chip: Chip, dtype: str, size_bytes: int, problem: tuple[int, int, int, int], tile: tuple[int, int, int]
) -> float:
    batches, rows, columns, inner = problem
    tile_rows, tile_columns, depth = tile
    engine, pad = chip.core.matrix, chip.core.scratchpad
    programs = batches * ceil_div(rows, tile_rows) * ceil_div(columns, tile_columns)
    active = min(chip.core_count, programs)
    steps = ceil_div(inner, depth)
    array_steps = _array_steps(chip, tile_rows, tile_columns)
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    matrix = array_steps * depth / rate
    exchanges = 2 if array_steps > engine.accumulator_interleave else 0
    sums = exchanges * 4 * tile_rows * tile_columns / (pad.bandwidth_bytes_per_cycle / 4)
    load_rate = _load_bytes_per_cycle(chip, active)
    loaded_bytes = (min(tile_rows, rows) + min(tile_columns, columns)) * depth * size_bytes
    load = loaded_bytes / load_rate
    start = chip.last_level_sram.latency_cycles + chip.hbm.latency_ns * chip.clock_hz / 10**9 + load
    end = tile_rows * tile_columns * size_bytes / chip.core.store_dma.bytes_per_cycle
    program = steps * (max(matrix, sums, load) + STEP_CYCLES) + start + end
    cores = ceil_div(programs, chip.core_count) * program
    unique_bytes = batches * size_bytes * (rows * inner + inner * columns + rows * columns)
    hbm = unique_bytes / (chip.hbm.bandwidth_bytes_per_s / chip.clock_hz)
    return max(cores, hbm)


def lanes_are_faster(chip: Chip, dtype: str, size_bytes: int, columns: int, inner: int) -> bool:
    """Return whether the vector engine computes a product with one row, which uses each weight once, faster. A weight
    is multiplied and added there, and converted before that if it is no float32. Of the matrix array only one row is of
    use. Small products stay on the vector engine where launching takes most of the time anyway."""
    engine = chip.core.matrix
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    by_lanes = chip.core.vector.lane_count / (2 if dtype == "float32" else 3)
    by_hbm = chip.hbm.bandwidth_bytes_per_s / chip.clock_hz / size_bytes
    lanes, array = (
        chip.host.launch_ns * chip.clock_hz / 10**9 + columns * inner / min(chip.core_count * weights, by_hbm)
        for weights in (by_lanes, engine.column_count * rate)
    )
    return lanes <= array * 5 / 4


LONG_SIDE, SHORT_SIDE = 1024, 64
"""Weights of a tile of a product with one row, along memory and across it, at most."""


def row_tile(chip: Chip, size_bytes: int, columns: int, inner: int, contiguous_columns: bool) -> tuple[int, int]:
    """Columns and depth of the tiles of a product with one row on the vector engine: long along memory, no more columns
    than leave every core some, and two tiles no more bytes than may be in flight, so that the next one is on its way
    while one comes."""
    share = power_of_two_at_least(max(1, columns // chip.core_count))
    weights = chip.core.load_dma.outstanding_bytes // 2 // size_bytes
    tile_columns = max(8, min(SHORT_SIDE, share)) if contiguous_columns else max(16, min(LONG_SIDE // 4, share))
    longest = LONG_SIDE if contiguous_columns else 4 * SHORT_SIDE
    return tile_columns, _long_side(inner, min(longest, max(SHORT_SIDE, weights // tile_columns)))


def _long_side(extent: int, most: int) -> int:
    """Return the longest side whose padding is at most a sixteenth."""
    sides = [side for side in (*INNER, 512, LONG_SIDE) if side <= most and 16 * _padded(extent, side) <= 17 * extent]
    return max(sides, default=INNER[0])


SOFTMAX_OPERATIONS = 5
"""Operations of the vector engine for each score besides its exponential: scaling, largest, sum, conversion, and its
share of the results shrunk when the largest score grows."""

SCORE_TILES = 6
"""Tiles of scores and weights, as float32, in the scratchpad at a time, copies for running ahead among them."""

KEYS = (64, 128, 256, 512)


def attention_tile(
    chip: Chip, dtype: str, size_bytes: int, heads: int, queries: int, keys: int, size: int, value_size: int
) -> tuple[int, int]:
    """Queries and keys of the tiles of attention; `heads` of all batches. A step computes scores, weighs them and
    multiplies them with values, on three engines at a time."""
    return _attention_tile(chip, dtype, size_bytes, heads, _rounded(queries), _rounded(keys), size, value_size)


@functools.lru_cache(maxsize=4096)
def _attention_tile(
    chip: Chip, dtype: str, size_bytes: int, heads: int, queries: int, keys: int, size: int, value_size: int
) -> tuple[int, int]:
    core, engine = chip.core, chip.core.matrix
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    operations = SOFTMAX_OPERATIONS + 1 / core.vector.special_rate
    choices: list[_Choice] = []
    for tile_queries, tile_keys in itertools.product(_sides(ROWS, queries), _sides(KEYS, keys)):
        scores_bytes = 4 * tile_queries * tile_keys
        loaded_bytes = tile_keys * (size + value_size) * size_bytes
        results_bytes = 4 * tile_queries * (size + 2 * value_size)
        if SCORE_TILES * scores_bytes + 2 * loaded_bytes + results_bytes > core.scratchpad.size_bytes and choices:
            continue
        matrix = _array_steps(chip, tile_queries, tile_keys) * size
        matrix += _array_steps(chip, tile_queries, value_size) * tile_keys
        vector = tile_queries * tile_keys * operations / core.vector.lane_count
        programs = heads * ceil_div(queries, tile_queries)
        load = loaded_bytes / _load_bytes_per_cycle(chip, min(chip.core_count, programs))
        step = max(matrix / rate, vector, load) + STEP_CYCLES
        cycles = ceil_div(programs, chip.core_count) * (ceil_div(keys, tile_keys) + 1) * step
        tile = (tile_queries, tile_keys)
        computed = _padded(queries, tile_queries) * _padded(keys, tile_keys)
        choices.append(_Choice(tile, cycles, computed, (math.prod(tile),)))
    tile_queries, tile_keys = _best(chip, choices)
    return tile_queries, tile_keys


SCRATCHPAD_BYTES_PER_ELEMENT = 64
"""Bytes of a tile whose rows are normalised: input, output and what is computed between, as float32, several copies
each."""

NORM_OPERATIONS = 5
"""Operations of the vector engine for each element of a softmax or layer norm."""


def rows_tile(chip: Chip, rows: int, columns: int, operations: int = 0) -> tuple[int, int]:
    """Rows and columns of a tile of a softmax or layer norm: whole rows if one fits, and as many rows as fit, but no
    more than leave every core some. `operations` of the vector engine for each element: where it takes longer than
    HBM, its waits between one instruction and the next count, so there are fewer copies of tiles of twice the rows;
    elsewhere the time until the first tile is there counts."""
    most = chip.core.scratchpad.size_bytes // SCRATCHPAD_BYTES_PER_ELEMENT
    tile_columns = min(power_of_two_at_least(columns), power_of_two_at_least(most))
    by_hbm = chip.hbm.bandwidth_bytes_per_s / chip.clock_hz / chip.core_count / 8
    tile_rows = most // tile_columns
    if operations * by_hbm > chip.core.vector.lane_count and 16 * tile_rows * chip.core_count <= rows:
        tile_rows *= 2
    share = power_of_two_at_least(ceil_div(rows, chip.core_count))
    return max(1, min(tile_rows, share)), tile_columns


REDUCED_COLUMNS = 256
"""Columns of a tile whose rows are reduced, where there are rows enough: further columns are added onto these."""

LEAST_SHARE = 1 << 16
"""Elements that are worth a program of their own, and a second launch for what programs leave of a row."""


def reduction_tile(chip: Chip, rows: int, columns: int, turned: bool) -> Tile:
    """Rows and columns of a tile whose rows are reduced. `turned`: neighbours in memory are of different rows; then a
    tile has as many rows as are a piece of memory worth asking for."""
    most = chip.core.scratchpad.size_bytes // SCRATCHPAD_BYTES_PER_ELEMENT
    share = power_of_two_at_least(ceil_div(rows, chip.core_count))
    if turned:
        tile_rows = min(power_of_two_at_least(rows), max(share, SHORT_SIDE), most // 8)
        return tile_rows, min(power_of_two_at_least(columns), most // tile_rows)
    tile_columns = min(power_of_two_at_least(columns), REDUCED_COLUMNS, most)
    tile_rows = min(power_of_two_at_least(rows), max(share, REDUCED_COLUMNS // tile_columns), most // tile_columns)
    return tile_rows, min(power_of_two_at_least(columns), most // tile_rows)


def reduction_share(chip: Chip, rows: int, columns: int, tile: Tile) -> int:
    """Return how many columns of a row a program reduces: all, unless cores would be left empty and there are very
    many."""
    programs = ceil_div(rows, tile[0])
    parts = min(max(1, chip.core_count // programs), max(1, tile[0] * columns // LEAST_SHARE))
    return _padded(ceil_div(columns, parts), tile[1])
