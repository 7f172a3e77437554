"""Verilog of a core, from the chip's description."""

from amaranth.back import verilog
from amaranth.lib.wiring import Component

from tapeout.chip import Chip
from tapeout.isa import microcode
from tapeout.isa.core_design import DEPTH, GROUPS
from tapeout.rtl.core import Core, CoreSizes
from tapeout.rtl.lane import Lane
from tapeout.rtl.matrix import Cell, OperandLine
from tapeout.rtl.pipelined.cell import PipelinedCell, StreamLine
from tapeout.rtl.pipelined.core import PipelinedCore, PipelinedSizes
from tapeout.rtl.pipelined.lane import PipelinedLane
from tapeout.rtl.support import check_chip
from tapeout.rtl.tiles import TileReader, TileWriter

TOP = "core"


def _microcoded_units(sizes: CoreSizes) -> tuple[Component, ...]:
    return Cell(sizes.interleave), OperandLine(sizes.geometry.lane_count)


def _pipelined_units(sizes: CoreSizes) -> tuple[Component, ...]:
    return PipelinedCell(sizes.interleave), StreamLine(sizes.geometry.lane_count), PipelinedLane()


def verilog_of(chip: Chip) -> str:
    """The core and the modules it uses. Raises UnsupportedError for a chip whose core the RTL does not have."""
    check_chip(chip)
    sizes = CoreSizes.of(chip)
    temporaries = microcode.rom(microcode.vector_programs()).temporary_count
    shared = (
        *(_microcoded_units(sizes) if chip.core.is_microcoded else _pipelined_units(sizes)),
        Lane(group_count=GROUPS, temporary_count=temporaries),
        TileReader(sizes.geometry, DEPTH),
        TileReader(sizes.geometry, DEPTH, displaced=True),
        TileWriter(sizes.geometry),
    )
    texts = [verilog.convert(unit, name=unit.module_name, emit_src=False) for unit in shared]
    core = Core(sizes) if chip.core.is_microcoded else PipelinedCore(PipelinedSizes.of(chip))
    return "\n".join([verilog.convert(core, name=TOP, emit_src=False), *texts])
