"""What would make a kernel faster: the same program timed again on the chip with one part doubled.

Takes a launch as a recording clock kept it; gives the cycles with each part of which the program does not depend. Array
sizes and the scratchpad are not among them: with others the compiler would write another program.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from tapeout.chip import Chip
from tapeout.errors import ChipError
from tapeout.runtime.clock import Launch
from tapeout.sim import timing

LEAST_GAIN = 0.03
"""What saves less than this share of a kernel's time is no advice."""


@dataclass(frozen=True)
class Variant:
    """The launch with one part of the chip doubled."""

    part: str
    cycles: int


@dataclass(frozen=True)
class Advice:
    """A launch: its cycles, and with each part doubled, the best first."""

    cycles: int
    variants: tuple[Variant, ...]

    @property
    def sentence(self) -> str:
        best = self.variants[0]
        gain = 1 - best.cycles / self.cycles if self.cycles else 0.0
        if gain < LEAST_GAIN:
            return (
                f"No single part holds it back: with any one of {len(self.variants)} parts of the chip doubled it "
                f"takes at least {best.cycles:,} of its {self.cycles:,} cycles (simulated again); look at its waits."
            )
        return (
            f"It gains most from {best.part}: twice as much takes {best.cycles:,} instead of {self.cycles:,} cycles, "
            f"{gain:.0%} less (simulated again)."
        )


def _core(part: str, **factors: int) -> Callable[[Chip], Chip]:
    def change(chip: Chip) -> Chip:
        inner = getattr(chip.core, part)
        doubled = {name: getattr(inner, name) * factor for name, factor in factors.items()}
        core = dataclasses.replace(chip.core, **{part: dataclasses.replace(inner, **doubled)})
        return dataclasses.replace(chip, core=core)

    return change


def _hbm(chip: Chip) -> Chip:
    if chip.hbm is None:
        raise ChipError(f"{chip.name} has no DRAM")
    hbm = dataclasses.replace(chip.hbm, bandwidth_bytes_per_s=2 * chip.hbm.bandwidth_bytes_per_s)
    return dataclasses.replace(chip, hbm=hbm)


def _sram(chip: Chip) -> Chip:
    sram = chip.last_level_sram
    if sram is None:
        raise ChipError(f"{chip.name} has no last level")
    doubled = dataclasses.replace(sram, bytes_per_cycle_per_slice=2 * sram.bytes_per_cycle_per_slice)
    return dataclasses.replace(chip, last_level_sram=doubled)


def _queues(chip: Chip) -> Chip:
    core = dataclasses.replace(chip.core, queue_depth=2 * chip.core.queue_depth)
    return dataclasses.replace(chip, core=core)


CHANGES: dict[str, Callable[[Chip], Chip]] = {
    "bandwidth of main memory": _hbm,
    "bandwidth of the last-level SRAM": _sram,
    "the load engine's rate": _core("load_dma", bytes_per_cycle=2),
    "the load engine's bytes in flight": _core("load_dma", outstanding_bytes=2),
    "the load engine's gather addresses": _core("load_dma", gather_addresses_per_cycle=2),
    "the store engine's rate": _core("store_dma", bytes_per_cycle=2),
    "the store engine's bytes in flight": _core("store_dma", outstanding_bytes=2),
    "vector lanes": _core("vector", lane_count=2),
    "depth of the queues": _queues,
}


def advise(launch: Launch) -> Advice:
    """The launch with each part doubled that the description lets double, the fastest first."""
    found = []
    for part, change in CHANGES.items():
        try:
            chip = change(launch.chip)
        except ChipError:
            continue  # the chip lacks the part, or the description has a limit there
        again = timing.simulate(
            launch.program,
            chip,
            launch.grid,
            launch.words,
            data=launch.data,
            workspace=launch.workspace,
            regions=launch.regions,
        )
        found.append(Variant(part, again.cycles))
    return Advice(launch.timing.cycles, tuple(sorted(found, key=lambda each: each.cycles)))
