"""Checks for features that the RTL does not have, made before anything is simulated."""

from tapeout.chip import Chip
from tapeout.chip.description import MICROCODED_MATRIX_RATES
from tapeout.errors import UnsupportedError
from tapeout.isa import Instruction, Program
from tapeout.isa import definitions as isa
from tapeout.isa.fields import SCRATCHPAD_ADDRESS_BITS
from tapeout.numerics.dtypes import DType

LANE_COUNTS = (8, 16, 32)


def check_chip(chip: Chip) -> None:
    """Raises UnsupportedError if the RTL cannot be this chip's core."""
    core = chip.core
    faults = [
        *(() if core.is_microcoded else _rates(chip)),
        (core.vector.lane_count not in LANE_COUNTS, f"vector.lane_count={core.vector.lane_count}", "8, 16 or 32"),
        (
            core.matrix.column_count > core.vector.lane_count or core.matrix.row_count > 32,
            f"a matrix engine of {core.matrix.row_count} x {core.matrix.column_count}",
            f"at most 32 rows and as many columns as lanes ({core.vector.lane_count})",
        ),
        (
            not 2 <= core.matrix.accumulator_interleave <= 4,
            f"matrix.accumulator_interleave={core.matrix.accumulator_interleave}",
            "2 to 4",
        ),
        (
            core.scratchpad.size_bytes > 1 << SCRATCHPAD_ADDRESS_BITS
            or core.scratchpad.size_bytes & (core.scratchpad.size_bytes - 1) != 0,
            f"scratchpad.size_bytes={core.scratchpad.size_bytes}",
            "a power of two",
        ),
        (core.scratchpad.port_width_bytes < 16, "scratchpad.port_width_bytes below 16", "16 or more"),
        (core.scratchpad.bank_count < 2, "scratchpad.bank_count=1", "2 or more"),
        *(
            (dma.bytes_per_cycle < 16 or dma.bytes_per_cycle & (dma.bytes_per_cycle - 1) != 0, f"{name}.bytes_per_cycle"
             f"={dma.bytes_per_cycle}", "a power of two from 16 on")
            for name, dma in (("load_dma", core.load_dma), ("store_dma", core.store_dma))
        ),
    ]  # fmt: skip
    for wrong, what, hint in faults:
        if wrong:
            raise UnsupportedError(f"RTL of {chip.name} with {what}", hint=hint)


def _rates(chip: Chip) -> list[tuple[bool, str, str]]:
    """Rates that a pipelined core's description may ask for and no RTL has."""
    core = chip.core
    faults = [
        (core.vector.float64, f"vector.float64_rate={core.vector.float64_rate:g}", "0: there are no float64 lanes")
    ]
    for dtype, rate in MICROCODED_MATRIX_RATES.items():
        name, asked = f"{dtype}_rate", getattr(core.matrix, f"{dtype}_rate")
        faults.append((asked not in (0, rate), f"matrix.{name}={asked:g}", f"{rate:g}: a cell has one adder"))
    for name, dma in (("load_dma", core.load_dma), ("store_dma", core.store_dma)):
        asked = dma.gather_addresses_per_cycle
        faults.append((asked != 1, f"{name}.gather_addresses_per_cycle={asked}", "1"))
    tiles, words = core.matrix.accumulator_interleave, core.fetch_words_per_cycle
    faults.append((tiles not in (2, 4), f"matrix.accumulator_interleave={tiles}", "2 or 4"))
    faults.append((words not in (1, 2, 4, 8), f"fetch_words_per_cycle={words}", "1, 2, 4 or 8"))
    return faults


def check_program(program: Program) -> None:
    """Raises UnsupportedError at the first instruction that the RTL does not execute."""
    for index, item in enumerate(program.instructions):
        if DType.F64 in _computed_dtypes(item):
            raise UnsupportedError(
                item.mnemonic,
                dtype="f64",
                where=program.location(index),
                hint="the RTL's lanes, cells and atomics have float32",
            )


def _computed_dtypes(item: Instruction) -> set[DType]:
    computing = (isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Reduce, isa.MatrixMultiply, isa.Atomic)
    if not isinstance(item, computing):
        return set()
    return {getattr(item, field.name) for field in item.fields if field.kind == "dtype"}
