"""Work of the chip: a total of the process so far, and the difference of two totals.

Brings together the runtime's counters (kernels, instructions, traffic) and the device's ledger of operators.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Work:
    """Totals of this process. Subtract an earlier one to get what happened in between.

    `kernels_loaded` are those whose machine code was in the disk cache. Operators are those torch dispatched
    one by one; what a compiled graph does inside its own kernels shows as kernels.
    """

    kernels_compiled: int = 0
    kernels_loaded: int = 0
    kernels_launched: int = 0
    instructions_by_engine: Mapping[str, int] = field(default_factory=dict)
    hbm_read_bytes: int = 0
    hbm_written_bytes: int = 0
    ops_on_chip: Mapping[str, int] = field(default_factory=dict)
    ops_on_host: Mapping[str, int] = field(default_factory=dict)

    def __sub__(self, earlier: "Work") -> "Work":
        return Work(**{f.name: _difference(getattr(self, f.name), getattr(earlier, f.name)) for f in fields(self)})

    @property
    def share_on_chip(self) -> float | None:
        """Share of the operators that ran on the chip, or None when there were none."""
        on_chip, on_host = sum(self.ops_on_chip.values()), sum(self.ops_on_host.values())
        return on_chip / (on_chip + on_host) if on_chip + on_host else None


def so_far() -> Work:
    """Return what this process has had the chip do."""
    from tapeout.pytorch import ledger
    from tapeout.runtime import counters

    runtime = counters.snapshot()
    ops = ledger.snapshot()
    return Work(
        kernels_compiled=runtime.kernels_compiled,
        kernels_loaded=runtime.kernels_loaded,
        kernels_launched=runtime.kernels_launched,
        instructions_by_engine=runtime.instructions_by_engine,
        hbm_read_bytes=runtime.hbm_read_bytes,
        hbm_written_bytes=runtime.hbm_written_bytes,
        ops_on_chip=ops.on_chip,
        ops_on_host=ops.on_host,
    )


def _difference(later: Any, earlier: Any) -> Any:
    return dict(Counter(later) - Counter(earlier)) if isinstance(later, Mapping) else later - earlier
