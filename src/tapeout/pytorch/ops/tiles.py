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


def steps_of_array(chip: Chip, rows: int, columns: int, chains: int = 1) -> int:
    """Steps of the matrix array for each k of an output tile, of so many sums side by side."""
    engine = chip.core.matrix
    tiles = chains * ceil_div(rows, engine.row_count) * ceil_div(columns, engine.column_count)
    return ceil_div(tiles, engine.accumulator_interleave) * engine.accumulator_interleave


def load_bytes_per_cycle(chip: Chip, active_cores: int) -> float:
    """Return the rate of one core's DMA when so many are at work: the least of its port, its share of the last-level
    SRAM, and what it may have in flight over the time it takes from HBM."""
    sram, hbm, dma = chip.memory_side, chip.global_memory, chip.core.load_dma
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


def _best(choices: list[_Choice], launch: float = 0.0) -> Tile:
    """Pick the fastest tile. Among tiles that take at most NEAR times as long, with `launch` cycles of overhead, prefer
    the one with the least padding, then the most merit: the chip does not care, but simulating padding costs host
    time."""
    limit = NEAR * (min(choice.cycles for choice in choices) + launch)
    near = [choice for choice in choices if choice.cycles + launch <= limit]
    return min(near, key=lambda choice: (choice.computed, tuple(-m for m in choice.merit))).tile


@dataclass(frozen=True)
class ProductTile:
    """How a product is cut: rows and columns of an output tile, k of a step, sums that run side by side over
    neighbouring k, and the parts of the inner dimension, of `share` each, that have programs of their own."""

    rows: int
    columns: int
    depth: int
    chains: int
    parts: int
    share: int


@dataclass(frozen=True)
class Lie:
    """How an operand lies in memory: whether neighbours along the inner dimension are neighbours there, and whether
    each line of neighbours begins where a line of the last-level SRAM does."""

    along_inner: bool
    is_aligned: bool


def product_tile(
    chip: Chip, dtype: str, size_bytes: int, batches: int, rows: int, columns: int, inner: int,
    lies: tuple[Lie, Lie] = (Lie(True, True), Lie(False, True)),
) -> ProductTile:  # fmt: skip
    """The tiles of a product. `dtype` is the chip's name of the operands' type."""
    tile_rows, tile_columns, depth, chains, parts = _product_tile(
        chip, dtype, size_bytes, batches, _rounded(rows), _rounded(columns), _rounded(inner), lies
    )
    share = padded(ceil_div(inner, parts), depth * chains)
    return ProductTile(tile_rows, tile_columns, depth, chains, ceil_div(inner, share) if inner else 1, share)


def _rounded(extent: int) -> int:
    """Round up to one of eight steps an octave, so that a context that grows with every token seldom needs a new
    tile."""
    step = max(1, power_of_two_at_least(extent) // 16)
    return ceil_div(extent, step) * step


@functools.lru_cache(maxsize=4096)
def _product_tile(
    chip: Chip, dtype: str, size_bytes: int, batches: int, rows: int, columns: int, inner: int, lies: tuple[Lie, Lie]
) -> tuple[int, ...]:
    choices: list[_Choice] = []
    engine = chip.core.matrix
    for tile_rows, tile_columns, depth in itertools.product(
        _sides(ROWS, rows), _sides(COLUMNS, columns), _sides(INNER, inner)
    ):
        array_tiles = ceil_div(tile_rows, engine.row_count) * ceil_div(tile_columns, engine.column_count)
        programs = batches * ceil_div(rows, tile_rows) * ceil_div(columns, tile_columns)
        computed = padded(rows, tile_rows) * padded(columns, tile_columns) * padded(inner, depth)
        for chains in {1, max(1, engine.accumulator_interleave // array_tiles)}:
            if chains > 1 and chains * depth > inner:
                continue
            step_bytes = chains * (tile_rows + tile_columns) * depth * size_bytes
            sums_bytes = (8 + 4 * (chains if chains > 1 else 0)) * tile_rows * tile_columns
            copies = (chip.core.scratchpad.size_bytes - sums_bytes) // step_bytes
            if copies < 2 and choices:
                continue
            for parts in _parts(chip, programs, inner, depth * chains):
                tile = (tile_rows, tile_columns, depth, chains, parts)
                cycles = _product_cycles(chip, dtype, size_bytes, (batches, rows, columns, inner), tile, lies)
                merit = (
                    -parts,
                    min(copies, 3),
                    min(tile_rows, tile_columns),
                    math.prod(tile[:2]),
                    -abs(depth - USUAL_DEPTH),
                )
                choices.append(_Choice(tile, cycles, computed, merit))
    return _best(choices)


USUAL_DEPTH = 64
"""Of tiles that are equally fast, those whose steps are nearest to so many k."""

MOST_PARTS = 64
"""Programs that share the sums of one output tile, at most."""


def _parts(chip: Chip, programs: int, inner: int, depth: int) -> list[int]:
    """Numbers of parts of the inner dimension to try: until cores are full a few times, of a few steps each."""
    most = min(MOST_PARTS, 4 * chip.core_count // programs, inner // (2 * depth))
    return [1, *(parts for parts in (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64) if parts <= most)]


def _sides(sides: tuple[int, ...], extent: int) -> list[int]:
    """Those that are not longer than it takes to hold all."""
    return [side for side in sides if side <= max(sides[0], power_of_two_at_least(extent))]


def padded(extent: int, side: int) -> int:
    return ceil_div(extent, side) * side


def _product_cycles(
    chip: Chip, dtype: str, size_bytes: int, problem: tuple[int, int, int, int], tile: tuple[int, ...],
    lies: tuple[Lie, Lie],
) -> float:  # fmt: skip
    batches, rows, columns, inner = problem
    tile_rows, tile_columns, depth, chains, parts = tile
    engine, pad = chip.core.matrix, chip.core.scratchpad
    programs = parts * batches * ceil_div(rows, tile_rows) * ceil_div(columns, tile_columns)
    active = min(chip.core_count, programs)
    steps = ceil_div(ceil_div(inner, parts), depth * chains)
    array_steps = steps_of_array(chip, tile_rows, tile_columns, chains)
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    matrix = array_steps * depth / rate
    exchanges = 2 if array_steps > engine.accumulator_interleave else 1
    sum_cycles = 4 * chains * tile_rows * tile_columns / (pad.bandwidth_bytes_per_cycle / 4)
    load_rate = load_bytes_per_cycle(chip, active)
    line_bytes, loaded_bytes, requests = chip.memory_side.line_bytes, 0, 0.0
    for lie, side in zip(lies, (min(tile_rows, rows), min(tile_columns, columns)), strict=True):
        runs, run = (side, depth) if lie.along_inner else (depth, side)
        loaded_bytes += chains * runs * run * size_bytes
        requests += chains * runs * (max(1, run * size_bytes / line_bytes) + (0 if lie.is_aligned else 1))
    load = max(loaded_bytes / load_rate, requests / chip.core.load_dma.gather_addresses_per_cycle)
    latency = chip.memory_side.latency_cycles + chip.global_memory.latency_ns * chip.clock_hz / 10**9
    passes = chains + 1 if chains > 1 else int(steps > 1)  # zeros to begin with, and adding up what ran side by side
    folding = passes * tile_rows * tile_columns / chip.core.vector.lane_count
    out_bytes = 4 if parts > 1 else size_bytes
    end = sum_cycles + folding + tile_rows * tile_columns * out_bytes / chip.core.store_dma.bytes_per_cycle
    program = steps * (max(matrix, exchanges * sum_cycles, load) + STEP_CYCLES) + latency + load + end
    cores = ceil_div(programs, chip.core_count) * program
    unique_bytes = batches * size_bytes * (rows * inner + inner * columns + rows * columns)
    hbm = latency + unique_bytes / (chip.global_memory.bandwidth_bytes_per_s / chip.clock_hz)
    if parts == 1:
        return max(cores, hbm)
    summed_bytes = 4 * batches * rows * columns * parts
    return max(cores, hbm) + SECOND_LAUNCH_LATENCIES * latency + 2 * summed_bytes / (load_rate * active)


SECOND_LAUNCH_LATENCIES = 4
"""What a launch that adds up parts takes besides moving them, in latencies of the memory."""


def sum_tile(chip: Chip, batches: int, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the tiles in which parts of a product are added up: enough for every core."""
    tile_columns = min(power_of_two_at_least(columns), 256)
    share = batches * rows * ceil_div(columns, tile_columns) // chip.core_count
    return max(1, min(power_of_two_at_least(share + 1) // 2, power_of_two_at_least(rows), 64)), tile_columns


def lanes_are_faster(chip: Chip, dtype: str, size_bytes: int, columns: int, inner: int) -> bool:
    """Return whether the vector engine computes a product with one row, which uses each weight once, faster. A weight
    is multiplied and added there, and converted before that if it is no float32. Of the matrix array only one row is of
    use. Small products stay on the vector engine where launching takes most of the time anyway."""
    engine = chip.core.matrix
    rate = engine.multiply_accumulates_per_cycle(dtype) / (engine.row_count * engine.column_count)
    by_lanes = chip.core.vector.lane_count / (2 if dtype == "float32" else 3)
    by_hbm = chip.global_memory.bandwidth_bytes_per_s / chip.clock_hz / size_bytes
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
    sides = [
        side
        for side in (*INNER, 512, LONG_SIDE, 2048, 4096, 8192, 16384)
        if side <= most and 16 * padded(extent, side) <= 17 * extent
    ]
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
        matrix = steps_of_array(chip, tile_queries, tile_keys) * size
        matrix += steps_of_array(chip, tile_queries, value_size) * tile_keys
        vector = tile_queries * tile_keys * operations / core.vector.lane_count
        programs = heads * ceil_div(queries, tile_queries)
        load = loaded_bytes / load_bytes_per_cycle(chip, min(chip.core_count, programs))
        step = max(matrix / rate, vector, load) + STEP_CYCLES
        cycles = ceil_div(programs, chip.core_count) * (ceil_div(keys, tile_keys) + 1) * step
        tile = (tile_queries, tile_keys)
        computed = padded(queries, tile_queries) * padded(keys, tile_keys)
        choices.append(_Choice(tile, cycles, computed, (math.prod(tile),)))
    tile_queries, tile_keys = _best(choices, chip.host.launch_ns * chip.clock_hz / 10**9)
    return tile_queries, tile_keys


def attention_gradient_tile(
    chip: Chip, size_bytes: int, queries: int, keys: int, size: int, *, is_of_keys: bool
) -> tuple[int, int]:
    """Queries and keys of the tiles of attention's gradients; `size` of a row, a power of two. The side whose gradient
    is computed is as long as it takes to fill the matrix array with its sums, the other as long as its rows."""
    engine = chip.core.matrix
    own = engine.row_count * engine.column_count * engine.accumulator_interleave // size
    sides = [max(128, min(own, 512)), max(128, engine.row_count)]
    if is_of_keys:
        sides.reverse()
    sides = [min(side, power_of_two_at_least(extent)) for side, extent in zip(sides, (queries, keys), strict=True)]

    def needed_bytes() -> int:
        own, other = (sides[1], sides[0]) if is_of_keys else sides
        scores = sides[0] * sides[1] * (2 * 4 + 2 * (4 + size_bytes))
        return scores + own * size * (2 * size_bytes + 2 * 4) + 2 * other * size * 4 * size_bytes

    while needed_bytes() > chip.core.scratchpad.size_bytes and max(sides) > 16:
        longest = sides.index(max(sides))
        sides[longest] //= 2
    return sides[0], sides[1]


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
    by_hbm = chip.global_memory.bandwidth_bytes_per_s / chip.clock_hz / chip.core_count / 8
    tile_rows = most // tile_columns
    if operations * by_hbm > chip.core.vector.lane_count and 16 * tile_rows * chip.core_count <= rows:
        tile_rows *= 2
    share = power_of_two_at_least(ceil_div(rows, chip.core_count))
    return max(1, min(tile_rows, share)), tile_columns


PLANE_ELEMENTS = 16384
"""Elements of a tile of planes at most."""

TILES_OF_A_ROW = 8
"""Tiles of which a row is held whole at most: each has instructions of its own."""

LEAST_RUN = 16
"""Least columns of such a tile."""

WHOLE_ROW_BYTES = 16
"""Bytes of the scratchpad for an element of a row that is held whole."""


@dataclass(frozen=True)
class PlanesTile:
    """Rows, pieces and columns of a tile of planes; how many of them hold a whole row, and side by side."""

    rows: int
    pieces: int
    columns: int
    across: int
    tiles: int

    @property
    def is_whole(self) -> bool:
        return self.tiles > 0

    @property
    def constants(self) -> dict[str, int]:
        """What the kernels take."""
        if not self.is_whole:
            return {"PIECES": self.pieces, "COLUMNS": self.columns}
        sizes = {"ROWS": self.rows, "PIECES": self.pieces, "COLUMNS": self.columns}
        return {**sizes, "ACROSS": self.across, "TILES": self.tiles}


@functools.lru_cache(maxsize=4096)
def planes_tile(chip: Chip, rows: int, pieces: int, length: int, tensors: int, alike: int) -> PlanesTile:
    """The tiles in which programs walk rows of `pieces` runs of `length` neighbours, of so many tensors: those that
    compute the least padding and take the fewest steps. Rows of which a few tiles fit are held whole, as many of them
    as leave every core some; the rows of a tile divide `alike`, if that is not 0."""
    size_bytes, lanes = chip.core.scratchpad.size_bytes, chip.core.vector.lane_count
    most = min(PLANE_ELEMENTS, size_bytes // SCRATCHPAD_BYTES_PER_ELEMENT // tensors)
    most_whole = size_bytes // WHOLE_ROW_BYTES // tensors
    several = 1
    while 2 * several * chip.core_count <= rows and (not alike or alike % (2 * several) == 0):
        several *= 2

    def steps(tile: tuple[int, int]) -> int:
        return ceil_div(pieces, tile[0]) * ceil_div(length, tile[1])

    def rows_of(tile: tuple[int, int]) -> int:
        number = several
        while number > 1 and number * math.prod(tile) > min(most, most_whole // steps(tile) // 2):
            number //= 2
        return number

    def cycles(tile: tuple[int, int]) -> tuple[float, int]:
        """Of a row; of equals, long runs."""
        number = rows_of(tile) if steps(tile) <= TILES_OF_A_ROW else 1
        return steps(tile) * (math.prod(tile) * NORM_OPERATIONS / lanes + STEP_CYCLES / number), -tile[1]

    sides = [1 << place for place in range(1 + most.bit_length())]
    columns = [side for side in sides if LEAST_RUN <= side <= power_of_two_at_least(max(length, LEAST_RUN))]
    runs = [side for side in sides if side <= power_of_two_at_least(pieces)]
    tiles = [tile for tile in itertools.product(runs, columns) if math.prod(tile) <= most]
    held = [t for t in tiles if steps(t) <= TILES_OF_A_ROW and steps(t) * math.prod(t) <= most_whole]
    if not held:
        return PlanesTile(1, *min(tiles, key=cycles), 0, 0)
    best = min(held, key=cycles)
    return PlanesTile(rows_of(best), *best, ceil_div(length, best[1]), steps(best))


def logits_tile(chip: Chip, rows: int, columns: int, *, is_reduced: bool) -> tuple[int, int, int]:
    """Rows and columns of a tile of logits, of which a row may take many, and how many blocks of rows a program takes
    so that every core has one program. Tiles are twice as large where the lanes wait for each tile's largest."""
    elements = min(ELEMENTWISE_ELEMENTS[1], chip.core.scratchpad.size_bytes // ELEMENTWISE_BYTES) << is_reduced
    longest = min(LONGEST_LOGITS, elements)
    tile_columns = power_of_two_at_least(columns) if columns <= longest // 2 else _long_side(columns, longest)
    share = power_of_two_at_least(max(1, rows // chip.core_count))
    tile_rows = max(1, min(elements // tile_columns, share))
    return tile_rows, tile_columns, ceil_div(ceil_div(rows, tile_rows), chip.core_count)


LONGEST_LOGITS = 16384
"""Columns of a tile of logits at most: the rows of a tile take turns."""


REDUCED_COLUMNS = 256
"""Columns of a tile whose rows are reduced, where there are rows enough: further columns are added onto these."""

LEAST_SHARE = 1 << 16
"""Elements that are worth a program of their own, and a second launch for what programs leave of a row."""


def reduction_tile(chip: Chip, rows: int, columns: int, turned: bool, outer: int = 1) -> Tile:
    """Rows and columns of a tile whose rows are reduced, of so many matrices. `turned`: neighbours in memory are of
    different rows; then a tile has as many rows as are a piece of memory worth asking for."""
    most = chip.core.scratchpad.size_bytes // SCRATCHPAD_BYTES_PER_ELEMENT
    share = power_of_two_at_least(ceil_div(outer * rows, chip.core_count))
    if turned:
        tile_rows = min(power_of_two_at_least(rows), max(share, SHORT_SIDE), most // 8)
        return tile_rows, min(power_of_two_at_least(columns), most // tile_rows)
    tile_columns = min(power_of_two_at_least(columns), REDUCED_COLUMNS, most)
    tile_rows = min(power_of_two_at_least(rows), max(share, REDUCED_COLUMNS // tile_columns), most // tile_columns)
    return tile_rows, min(power_of_two_at_least(columns), most // tile_rows)


def reduction_share(chip: Chip, rows: int, columns: int, tile: Tile, outer: int = 1) -> int:
    """Return how many columns of a row a program reduces: all, unless cores would be left empty and there are very
    many."""
    programs = outer * ceil_div(rows, tile[0])
    parts = min(max(1, chip.core_count // programs), max(1, tile[0] * columns // LEAST_SHARE))
    return padded(ceil_div(columns, parts), tile[1])


ELEMENTWISE_BYTES = 128
"""Bytes of the scratchpad for each element of an elementwise tile: operands, results and what a long function computes
between, copies for running ahead among them."""

ELEMENTWISE_ELEMENTS = (4096, 16384)
"""Elements of such a tile, at least and at most."""


def elementwise_tile(chip: Chip, sizes: tuple[int, ...], size_bytes: int, is_turned: bool) -> Tile:
    """Rows and columns of a tile of the first two of `sizes`, of which the first is the columns'. Large tiles leave the
    sequencer time, but every core is to have some. `is_turned`: an operand lies in memory along the rows. A run of it
    goes down a column of the tile then, so rows are as long as a bank is wide, which puts neighbours into different
    banks."""
    least, most = ELEMENTWISE_ELEMENTS
    pad = chip.core.scratchpad
    share = power_of_two_at_least(max(1, math.prod(sizes) // (4 * chip.core_count)))
    elements = max(least, min(most, pad.size_bytes // ELEMENTWISE_BYTES, share))
    columns = min(pad.port_width_bytes // size_bytes if is_turned else elements, power_of_two_at_least(sizes[0]))
    return min(elements // columns, power_of_two_at_least(sizes[1])), columns


GATHERED_ELEMENTS = 16384
"""Elements of a tile of rows that come from anywhere: while one is on its way, the next one's places are found."""

GATHERED_COLUMNS = 1024
"""Elements of a row in such a tile at most."""


def gathered_rows_tile(chip: Chip, rows: int, columns: int) -> tuple[int, int, int]:
    """Rows and columns of a tile of rows that come from anywhere, and how many rows a program brings."""
    most = max(1024, min(GATHERED_ELEMENTS, chip.core.scratchpad.size_bytes // ELEMENTWISE_BYTES))
    tile_columns = min(GATHERED_COLUMNS, most // 16, power_of_two_at_least(columns))
    across = ceil_div(columns, tile_columns)
    share = power_of_two_at_least(max(1, rows * across // (4 * chip.core_count)))
    tile_rows = max(16, min(most // tile_columns, share))
    return tile_rows, tile_columns, padded(ceil_div(rows * across, 2 * chip.core_count), tile_rows)


def norm_gradient_tile(chip: Chip, rows: int, columns: int) -> tuple[int, int, int] | None:
    """Rows and columns of a tile of the gradient of a norm, and how many rows a program walks; None if no tile holds a
    row. Its sums of the weight's and the bias's gradients lie beside it, so it has half the rows of a norm's tile."""
    tile_rows, tile_columns = rows_tile(chip, rows, columns)
    if tile_columns < columns or 2 * tile_columns * SCRATCHPAD_BYTES_PER_ELEMENT > chip.core.scratchpad.size_bytes:
        return None
    tile_rows = max(1, tile_rows // 2)
    return tile_rows, tile_columns, padded(ceil_div(rows, chip.core_count), tile_rows)


LEAST_KEYS_OF_A_PROGRAM = 256
"""Keys that are worth a program of their own, and its part of joining the results."""

DECODE_KEYS = (64, 128, 256)


@dataclass(frozen=True)
class DecodeTile:
    """How attention of one query a sequence is divided: keys of a tile, keys of a program, elements of a key in a first
    product (`rest` in a second), sums of weighted values that run side by side."""

    keys: int
    share: int
    size: int
    rest: int
    chains: int


@functools.lru_cache(maxsize=4096)
def decode_tile(
    chip: Chip, dtype: str, size_bytes: int, heads: int, rows: int, keys: int, size: int, value_size: int
) -> DecodeTile:
    """`heads` of keys, of all sequences; `rows` queries that each of them serves."""
    core, engine = chip.core, chip.core.matrix
    whole = power_of_two_at_least(size)
    first = whole if whole * 3 <= 4 * size or whole <= 16 else whole // 2
    rest = 0 if first == whole else max(16, power_of_two_at_least(size - first))
    values = power_of_two_at_least(value_size)
    array_tiles = ceil_div(rows, engine.row_count) * ceil_div(values, engine.column_count)
    chains = max(1, min(4, engine.accumulator_interleave // array_tiles))
    fixed = 4 * power_of_two_at_least(rows) * values * (chains + 2) + power_of_two_at_least(rows) * whole * size_bytes
    key_tile = DECODE_KEYS[0]
    for tile in DECODE_KEYS:
        moved = (first + rest + values) * tile * size_bytes
        scores = SCORE_TILES * 4 * power_of_two_at_least(rows) * tile
        if fixed + 3 * moved + scores <= core.scratchpad.size_bytes and tile <= power_of_two_at_least(keys):
            key_tile = tile
    parts = max(1, min(2 * chip.core_count // heads, keys // LEAST_KEYS_OF_A_PROGRAM))
    return DecodeTile(key_tile, padded(ceil_div(keys, parts), key_tile), first, rest, chains)
