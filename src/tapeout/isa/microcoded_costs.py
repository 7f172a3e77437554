"""Costs of instructions on microcoded cores, from the cycles of their RTL in `microcoded_cycles`."""

import math
from typing import TYPE_CHECKING

from tapeout.isa import microcoded_cycles as cycles
from tapeout.isa.cost import CoreCosts, Cost
from tapeout.isa.fields import Instruction, Queued, tiles
from tapeout.numerics.dtypes import DType

if TYPE_CHECKING:  # the definitions name functions of `costs`, which imports this
    from tapeout.isa import definitions as isa


class MicrocodedCosts(CoreCosts):
    """Costs on microcoded cores."""

    @property
    def handover_cycles(self) -> int:
        return cycles.HANDOVER_CYCLES

    def sequencer_cycles(self, item: Instruction) -> int:
        return cycles.sequencer_cycles(item)

    def issue_cycles(self, item: Queued) -> int:
        return cycles.issue_cycles(item)

    def front_cycles(self, item: Queued) -> int:
        return cycles.front_cycles(item)

    def dispatch_cycles(self, item: Instruction) -> int:
        return self.chip.host.dispatch_cycles

    def scalar(self, item: "isa.Scalar") -> Cost:
        return Cost(cycles.scalar_cycles(item))

    def scalar_load(self, item: "isa.ScalarLoad") -> Cost:
        latency = self.chip.core.scratchpad.latency_cycles
        return Cost(self.sequencer_cycles(item) + latency, scratchpad_bytes=item.dtype.size_bytes)

    def synchronise(self, item: Queued) -> Cost:
        return Cost(0)

    def block_transfer(self, item: "isa.Transfer") -> Cost:
        return Cost(cycles.transfer_lead_cycles(item, self.chip))

    def elementwise(self, item: "isa.Map | isa.Convert | isa.Iota") -> Cost:
        elements = math.prod(item.shape)
        moved = sum(elements * use.dtype.size_bytes for use, _ in tiles(item))
        return Cost(cycles.map_cycles(item, self.chip), operations=elements, scratchpad_bytes=moved)

    def reduction(self, item: "isa.Reduce") -> Cost:
        rows, extent = math.prod(item.shape[:3]), item.shape[3]
        moved = (rows * extent + rows) * item.dtype.size_bytes
        return Cost(cycles.reduce_cycles(item, self.chip), operations=rows * extent, scratchpad_bytes=moved)

    def pick(self, item: "isa.Gather") -> Cost:
        elements = math.prod(item.shape)
        moved = elements * (2 * item.dtype.size_bytes + item.index_dtype.size_bytes)
        return Cost(cycles.gather_cycles(item, self.chip), operations=elements, scratchpad_bytes=moved)

    def matrix_product(self, item: "isa.MatrixMultiply") -> Cost:
        batch, m, n, k = item.shape
        sum_bytes = batch * m * n * (8 if item.lhs_dtype is DType.F64 else 4)
        moved = batch * (m * k + k * n) * item.lhs_dtype.size_bytes + sum_bytes * (2 if item.accumulate else 1)
        return Cost(cycles.matrix_cycles(item, self.chip), operations=batch * m * n * k, scratchpad_bytes=moved)
