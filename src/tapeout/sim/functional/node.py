"""A tile instruction of a run, with what its registers hold and the bytes it reads and writes."""

from dataclasses import dataclass

from tapeout.isa import definitions as isa
from tapeout.sim.functional.analysis import Region
from tapeout.sim.functional.vector import Step


@dataclass
class Node:
    """`values`: registers as LLVM i64. Regions by operand name."""

    index: int
    item: isa.Tiled
    values: dict[int, str]
    read: dict[str, Region]
    written: dict[str, Region]
    step: Step | None = None
