"""Operands of an instruction as the functional simulator sees them: how partial writes and picks count."""

from tapeout.isa import AccessPattern, Instruction
from tapeout.isa import definitions as isa
from tapeout.isa.fields import OperandUse, tiles
from tapeout.sim.functional.analysis import Region

ANYWHERE = Region(0, 1 << 62, 0, 0, False)
"""An index may reach any byte of the scratchpad."""


def tile_uses(item: Instruction) -> list[tuple[OperandUse, AccessPattern, bool]]:
    """Every tile of an instruction, and whether bytes that lay there before can matter: it is read, or written only
    where a mask says so."""
    partly = isinstance(item, isa.Atomic)
    return [(use, tile, use.reads or partly) for use, tile in tiles(item)]
