"""Costs of instructions on a chip: cycles an engine is busy, cycles until the result is there, work done.

A chip's cores are of one of two designs (`core.design`): `pipelined_costs` counts the one, `microcoded_costs` the
other, of which there is RTL.

An instruction's definition names its function here; the function's docstring is the cost paragraph of its page in the
manual. Costs know the instruction and the chip only. What depends on registers, on other instructions or on the memory
system (bursts of a DMA, waiting) is up to the timing simulator, which calls these functions.
"""

from typing import TYPE_CHECKING

from tapeout.isa import microcoded_cycles
from tapeout.isa.cost import CoreCosts, Cost
from tapeout.isa.fields import Instruction, Queued
from tapeout.isa.microcoded_costs import MicrocodedCosts
from tapeout.isa.pipelined_costs import PipelinedCosts

if TYPE_CHECKING:  # the definitions name these functions
    from tapeout.chip import Chip
    from tapeout.isa import definitions as isa

TAKEN_BRANCH_CYCLES = 3
"""A taken branch refills the fetch pipeline."""


def _of(chip: "Chip") -> CoreCosts:
    return MicrocodedCosts(chip) if chip.core.is_microcoded else PipelinedCosts(chip)


def handover_cycles(chip: "Chip") -> int:
    """Return the cycles of each stage of a hand-over from one engine to another."""
    return _of(chip).handover_cycles


def release_cycles(item: Queued, chip: "Chip") -> int:
    """Return the cycles from an instruction's end until its engine can start the next: signals are given in turn."""
    return handover_cycles(chip) * (2 + microcoded_cycles.signal_count(item))


def issue_cycles(item: Queued, chip: "Chip") -> int:
    """Return the sequencer's cycles for an instruction of a queue."""
    return _of(chip).issue_cycles(item)


def front_cycles(item: Queued, chip: "Chip") -> int:
    """Return the cycles from an instruction's issue until its start, if engine and queue are empty."""
    return _of(chip).front_cycles(item)


# ------------------------------------------------------------------------------------------------ sequencer


def sequencer_cycles(item: Instruction, chip: "Chip") -> int:
    """Cycles the sequencer needs for any instruction: as many as it fetches words in, at least one."""
    return _of(chip).sequencer_cycles(item)


def one_cycle(item: Instruction, chip: "Chip") -> Cost:
    """A cycle, or as many as it takes to fetch its words. Microcoded: four, one more for every further word, and
    one while the answer to `argument` comes."""
    return Cost(sequencer_cycles(item, chip))


def branch(item: Instruction, chip: "Chip") -> Cost:
    """A cycle; if taken, three. Microcoded: four, and one for the condition."""
    return Cost(sequencer_cycles(item, chip))


def scalar(item: "isa.Scalar", chip: "Chip") -> Cost:
    """A cycle; multiplications three; divisions and remainders twenty. Microcoded: four, one for each register it may
    name, and for `scalar` four for each step of its microprogram, a division's bits besides."""
    return _of(chip).scalar(item)


def scalar_load(item: "isa.ScalarLoad", chip: "Chip") -> Cost:
    """The latency of the scratchpad. Microcoded: five besides."""
    return _of(chip).scalar_load(item)


def scalar_store(item: "isa.ScalarStore", chip: "Chip") -> Cost:
    """A cycle. Microcoded: six."""
    return Cost(sequencer_cycles(item, chip), scratchpad_bytes=item.dtype.size_bytes)


def next_program(item: Instruction, chip: "Chip") -> Cost:
    """The dispatcher's cycles (`host.dispatch_cycles`) when there is a program, else one. Microcoded: five besides."""
    return Cost(sequencer_cycles(item, chip))


def dispatch_cycles(item: Instruction, chip: "Chip") -> int:
    """Return what the sequencer waits for the dispatcher when there is a program, on top of the instruction's
    cycles."""
    return _of(chip).dispatch_cycles(item)


def waiting(item: Instruction, chip: "Chip") -> Cost:
    """A cycle, once what it waits for has happened. Microcoded: at least four."""
    return Cost(sequencer_cycles(item, chip))


# ------------------------------------------------------------------------------------------------------ DMA


def synchronise(item: Queued, chip: "Chip") -> Cost:
    """A cycle of its queue, once it has its semaphores; it signals when all before it in the queue is done.
    Microcoded: none."""
    return _of(chip).synchronise(item)


def block_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """Four cycles for the descriptor, then packets. Runs go along the innermost dimension whose stride is the element
    size (else every element is a run of its own); neighbouring runs join; a run is cut into requests at lines of the
    last-level SRAM, and eight requests are a packet. A packet takes the engine its bytes over `bytes_per_cycle` (times
    the bank conflicts of a transposing tile) or its requests over `gather_addresses_per_cycle`, whichever is more. It
    waits while `outstanding_bytes` are in flight. Data arrive in order; the signal comes with the last byte.
    Microcoded: vectors of `vector.lane_count` elements along the innermost dimension that has more than one; for each
    a cycle a block of `bytes_per_cycle` that its elements lie in (at least one), and in a store two more. A load's
    vector goes to the scratchpad a row a cycle, a store's comes from there so. The next instruction starts when all
    answers are there."""
    return _of(chip).block_transfer(item)


def indexed_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """As a block transfer, each run displaced by its index; where index or mask vary along the innermost dimension,
    every element is a run of its own. Neighbouring runs join. Microcoded: a load makes a vector's addresses one a
    cycle, before it asks; a store does that too and sends each element by itself."""
    return block_transfer(item, chip)


def atomic_transfer(item: "isa.Transfer", chip: "Chip") -> Cost:
    """As a block transfer with a request for every element: each is a round trip to the last-level SRAM, pipelined.
    Microcoded: the next vector waits until all old values of the one before are back."""
    return block_transfer(item, chip)


# --------------------------------------------------------------------------------------------------- vector


def elementwise(item: "isa.Map | isa.Convert | isa.Iota", chip: "Chip") -> Cost:
    """An element a lane and cycle: `vector.lane_count`, times `float64_rate` for f64, half for i64, times
    `special_rate` for the special functions, div and sqrt, an eighth for integer division. More where a beat touches a
    scratchpad bank more than once, or all operands together more banks than there are. The result is there
    `vector.latency_cycles` and a scratchpad latency after the last beat. The next instruction starts when the last
    beat has gone in; if it reads this result in the same order, once the first elements are written; else once all
    are. Microcoded: batches of four vectors of `vector.lane_count` elements; a batch takes four cycles for each step of
    the function's microprogram, for a division or root four times its bits and three, and one more, unless its vectors
    take longer to read or write: a row of the scratchpad a cycle. About twenty cycles go by before and after."""
    return _of(chip).elementwise(item)


def reduction(item: "isa.Reduce", chip: "Chip") -> Cost:
    """An element a lane and cycle, but at least `matrix.accumulator_interleave` cycles for each of the ceil(n / 32)
    steps of a row's partial results, which depend on each other (rows take turns); then the combining of 31 pairs a
    row, an element a lane and cycle, five sums deep. Microcoded: a row at a time; a batch's microprogram for every 32
    elements after the first vectors, and for every halving of the partial results, each with about seven cycles."""
    return _of(chip).reduction(item)


def pick(item: "isa.Gather", chip: "Chip") -> Cost:
    """As many elements a cycle as half the scratchpad's banks, or the lanes if those are fewer: random picks find
    about half of the banks free. Microcoded: as elementwise, with a row a cycle to read what is picked; rows are
    taken to be as many as the result has."""
    return _of(chip).pick(item)


# --------------------------------------------------------------------------------------------------- matrix


def matrix_product(item: "isa.MatrixMultiply", chip: "Chip") -> Cost:
    """Output tiles of `row_count` x `column_count` take turns in groups of `accumulator_interleave`; a group takes
    k x `accumulator_interleave` steps even if it is not full. `float8_rate` and so on are steps a cycle. f64 runs at
    the rate of the vector engine's f64 lanes. Operands are read along whichever of their dimensions is contiguous; more
    cycles go by where that touches a bank too often. Each sum has a second register: through a quarter of the
    scratchpad's ports the sums of the group before are written, and through another quarter those of the next group
    read, while a group computes; an accumulating instruction's first group is read as soon as its semaphores are there.
    Nothing is read if the instruction follows one with the same accumulator that is a single group, and nobody wrote
    there since: then the sums are still in the array. Microcoded: a group's operands are fetched for
    `vector.lane_count` steps of k, a vector a row of lhs, and of rhs a vector a step and tile (a column, where it is
    contiguous along k), a row of the scratchpad a cycle; then the steps run, a cycle each and tile, four for f32. Sums
    are read before and written after, a vector a row and tile. Nothing of this overlaps."""
    return _of(chip).matrix_product(item)
