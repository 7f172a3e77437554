"""Time of a script by operator, kernel and engine, and the bound of each.

Takes the activities a recording clock kept; gives a frozen `Profile` that the terminal summary, the JSON file and the
trace read. A kernel's limits are the times it could not have been faster than: its products at the matrix engines'
peak rate, its elements at the vector engines', its traffic at HBM's and the last-level SRAM's peak bandwidth, and the
time the busiest core's DMA engines and sequencer were taken. The silicon model prices energy from the same counts.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tapeout.chip import Chip
from tapeout.figures import notebook
from tapeout.isa import Unit
from tapeout.numerics.dtypes import BY_LABEL, DType
from tapeout.runtime.clock import PICOSECONDS_PER_NANOSECOND, Activity, Kind, Launch, kernel_ps
from tapeout.sim.timing import Timing
from tapeout.workbench.script import RunTime

if TYPE_CHECKING:  # figures of silicon are read only when a profile is made
    from tapeout.workbench.at_work import AtWork

FORMAT = 1
BOUND_SHARE = 0.5
"""A limit that fills less than this of a kernel's time does not bound it: then its engines wait for each other."""

ROOFLINE = ("matrix", "vector", "HBM")
"""Limits that no schedule on this chip escapes."""


@dataclass(frozen=True)
class KernelRow:
    """All launches of kernels of one name.

    `bound`: the limit that fills most of the time, "dependency stall" if none fills half, or "launch" if the host
    needs longer to launch than the chip to run. `limits`: each limit as a share of the time. `stalls`: waiting of the
    busiest engine, by reason, as a share of the time. `roofline_share`: the largest limit that no schedule escapes.
    """

    name: str
    operator: str
    launches: int
    total_ps: int
    share: float
    bound: str
    limits: Mapping[str, float]
    stalls: Mapping[str, float]
    roofline_share: float
    matrix_utilisation: float
    operations: int
    hbm_bytes: int
    sram_bytes: int


@dataclass(frozen=True)
class OperatorRow:
    """Kernels, copies and host operators asked for by one operator. `host_calls` have an unknown time."""

    name: str
    launches: int
    total_ps: int
    share: float
    host_calls: int


@dataclass(frozen=True)
class EngineRow:
    """An engine over all kernels and all cores of the chip: busy, waiting by reason, cores without work, as shares."""

    name: str
    busy: float
    stalls: Mapping[str, float]
    unused_cores: float


@dataclass(frozen=True)
class EnergyRow:
    """Energy of the run in joules, by block, as far as its launches were counted; modelled.

    `low_j` and `high_j` are the middle 90 % of what the model's uncertain inputs allow; `provenance` is the weakest of
    theirs. Copies between host and chip are not in it.
    """

    total_j: float
    low_j: float
    high_j: float
    provenance: str
    by_block_j: Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """Uses of a chip's time by a script, longest rows first.

    Shares are of `run.total_ps` for kernels and operators, of the kernels' time for engines. `cores_idle_ps`: no kernel
    ran, mostly because the host was launching. `energy` and `at_work` are None for a run that took no time.
    """

    run: RunTime
    chip_fingerprint: str
    kernels: tuple[KernelRow, ...]
    operators: tuple[OperatorRow, ...]
    engines: tuple[EngineRow, ...]
    cores_idle_ps: int
    energy: EnergyRow | None
    at_work: "AtWork | None"

    def _repr_html_(self) -> str:
        rows = [
            (row.name, str(row.launches), f"{row.total_ps / 1e6:.4g} µs", f"{row.share:.1%}", row.bound)
            for row in self.kernels
        ]
        title = f"{self.run.chip}: {self.run.total_ps / 1e6:.4g} µs of simulated time"
        return notebook.table(title, rows, ("kernel", "launches", "time", "share", "bound"))

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2)


def profile(run: RunTime, chip: Chip, activities: Sequence[Activity]) -> Profile:
    """The profile of a recorded run."""
    kernels = [activity for activity in activities if activity.kind is Kind.KERNEL]
    busy_ps = sum(activity.duration_ps for activity in activities if activity.kind in (Kind.KERNEL, Kind.COPY_ON_CHIP))
    by_kernel = _by_kernel(kernels, run.total_ps)
    engines = _by_engine([_launch(activity) for activity in kernels])
    return Profile(
        run=run,
        chip_fingerprint=chip.fingerprint(),
        kernels=by_kernel,
        operators=_by_operator(activities, run.total_ps),
        engines=engines,
        cores_idle_ps=run.total_ps - busy_ps,
        energy=_energy(run, chip, [_launch(activity).timing for activity in kernels]),
        at_work=_at_work(run, chip, activities, by_kernel, engines),
    )


def _at_work(
    run: RunTime, chip: Chip, activities: Sequence[Activity], kernels: Sequence[KernelRow], engines: Sequence[EngineRow]
) -> "AtWork | None":
    if not run.total_ps:
        return None
    from tapeout.workbench.at_work import at_work

    taken: Counter[Kind] = Counter()
    for activity in activities:
        taken[activity.kind] += activity.duration_ps
    return at_work(
        chip,
        total_ps=run.total_ps,
        kernels_ps=taken[Kind.KERNEL],
        copies_ps=max(taken[Kind.COPY_TO_CHIP], taken[Kind.COPY_TO_HOST]),
        links_ps=taken[Kind.COLLECTIVE],
        engine_busy={row.name: row.busy for row in engines},
        hbm_bytes=sum(row.hbm_bytes for row in kernels),
        sram_bytes=sum(row.sram_bytes for row in kernels),
    )


def _energy(run: RunTime, chip: Chip, timings: Sequence[Timing]) -> EnergyRow | None:
    from tapeout.silicon import area, die, power, technology
    from tapeout.workbench import measured_activity

    if not run.total_ps:
        return None
    figures = technology.load()
    contents = die.of_chip(chip)
    done = measured_activity.of_timings("run", timings, run.total_ps / 1e12)
    spent = power.energy(done, contents, area.die_area(contents, figures), figures)
    low, high = spent.interval()
    return EnergyRow(
        total_j=spent.value,
        low_j=low,
        high_j=high,
        provenance=str(spent.provenance),
        by_block_j={part.name: part.value for part in spent.parts},
    )


def _launch(activity: Activity) -> Launch:
    assert activity.launch is not None
    return activity.launch


def operator_of(activity: Activity) -> str:
    """Origin of a launch: the aten operator, the operators that Inductor fused into a kernel, or the user's kernel."""
    if activity.operator:
        return activity.operator
    fused = re.fullmatch(r"triton_[a-z]+_fused_(.+?)(_\d+)?", activity.name)
    if fused:
        return f"compiled: {fused[1]}"
    return activity.name


def limits(timing: Timing, chip: Chip) -> dict[str, float]:
    """Each limit of one launch as a share of its time."""
    cycles = max(timing.cycles, 1)
    busiest = {unit: column for unit, column in zip(Unit, _busiest(timing), strict=True)}
    hbm_bytes_per_cycle = chip.global_memory.bandwidth_bytes_per_s / chip.clock_hz
    sram = chip.memory_side
    sram_bytes = timing.sram_read_bytes + timing.sram_written_bytes
    return {
        "matrix": matrix_cycles(timing, chip) / cycles,
        "vector": timing.vector_operations / (chip.core.vector.lane_count * chip.core_count) / cycles,
        "HBM": (timing.hbm_read_bytes + timing.hbm_written_bytes) / hbm_bytes_per_cycle / cycles,
        "last-level SRAM": sram_bytes / (sram.slice_count * sram.bytes_per_cycle_per_slice) / cycles,
        "DMA issue": max(busiest[Unit.LOAD], busiest[Unit.STORE]) / cycles,
        "matrix engine of a core": busiest[Unit.MATRIX] / cycles,
        "vector engine of a core": busiest[Unit.VECTOR] / cycles,
        "instruction issue": busiest[Unit.SEQUENCER] / cycles,
    }


def _busiest(timing: Timing) -> list[int]:
    from tapeout.sim.timing import UNITS

    busy = dict(zip(UNITS, timing.busy_cycles.max(axis=0).tolist(), strict=True))
    return [busy[unit] for unit in Unit]


def matrix_cycles(timing: Timing, chip: Chip) -> float:
    """Cycles that the launch's products take if all matrix engines of the chip run at peak."""
    engine, vector = chip.core.matrix, chip.core.vector
    total = 0.0
    for label, products in timing.multiply_accumulates.items():
        dtype = BY_LABEL[label]
        if dtype is DType.F64:  # runs on the vector engine's lanes
            rate = vector.lane_count * vector.float64_rate
        else:
            rate = engine.multiply_accumulates_per_cycle(dtype.long_name)
        total += products / (rate * chip.core_count)
    return total


def bound_of(shares: Mapping[str, float], launch_share: float) -> str:
    """The limit that explains a kernel's time."""
    if launch_share > 1:
        return "launch"
    name = max(shares, key=lambda limit: shares[limit])
    if shares[name] < BOUND_SHARE:
        return "dependency stall"
    return name.removesuffix(" engine of a core")


def _by_kernel(activities: Sequence[Activity], total_ps: int) -> tuple[KernelRow, ...]:
    groups: dict[str, list[Activity]] = defaultdict(list)
    for activity in activities:
        groups[activity.name].append(activity)
    rows = [_kernel_row(name, group, total_ps) for name, group in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-row.total_ps, row.name)))


def _kernel_row(name: str, group: Sequence[Activity], total_ps: int) -> KernelRow:
    launches = [_launch(activity) for activity in group]
    kernel_total_ps = sum(activity.duration_ps for activity in group)
    cycles = sum(launch.timing.cycles for launch in launches)
    times_launched = Counter(id(launch.timing) for launch in launches)
    shares: dict[str, float] = defaultdict(float)
    for launch in {id(launch.timing): launch for launch in launches}.values():
        weight = times_launched[id(launch.timing)] * launch.timing.cycles / max(cycles, 1)
        for limit, share in limits(launch.timing, launch.chip).items():
            shares[limit] += share * weight
    launch_ps = sum(launch.timing.launch_ns * PICOSECONDS_PER_NANOSECOND for launch in launches)
    operators = Counter(operator_of(activity) for activity in group)
    return KernelRow(
        name=name,
        operator=operators.most_common(1)[0][0],
        launches=len(group),
        total_ps=kernel_total_ps,
        share=kernel_total_ps / max(total_ps, 1),
        bound=bound_of(shares, launch_ps / max(kernel_total_ps, 1)),
        limits=dict(shares),
        stalls=stall_shares(launches),
        roofline_share=max((shares[limit] for limit in ROOFLINE), default=0.0),
        matrix_utilisation=shares["matrix"],
        operations=sum(_operations(launch.timing) for launch in launches),
        hbm_bytes=sum(launch.timing.hbm_read_bytes + launch.timing.hbm_written_bytes for launch in launches),
        sram_bytes=sum(launch.timing.sram_read_bytes + launch.timing.sram_written_bytes for launch in launches),
    )


def _operations(timing: Timing) -> int:
    """Arithmetic operations, a multiply-accumulate counting two."""
    return 2 * sum(timing.multiply_accumulates.values()) + timing.vector_operations


def stall_shares(launches: Sequence[Launch]) -> dict[str, float]:
    """Return what the engine that worked most waited for."""
    busy: Counter[Unit] = Counter()
    for launch in launches:
        busy.update({unit: cycles for unit, cycles in launch.timing.busy_by_unit.items() if unit is not Unit.SEQUENCER})
    busiest = max(busy, key=lambda unit: busy[unit])
    waiting: Counter[str] = Counter()
    whole = 0
    for launch in launches:
        waiting.update(launch.timing.stalls(busiest))
        whole += launch.timing.cycles * launch.timing.core_count
    return {reason: cycles / max(whole, 1) for reason, cycles in waiting.most_common()}


def _by_operator(activities: Sequence[Activity], total_ps: int) -> tuple[OperatorRow, ...]:
    groups: dict[str, list[Activity]] = defaultdict(list)
    for activity in activities:
        groups[operator_of(activity)].append(activity)
    rows = []
    for name, group in groups.items():
        on_host = sum(activity.kind is Kind.HOST_OPERATOR for activity in group)
        taken_ps = sum(activity.duration_ps for activity in group)
        rows.append(OperatorRow(name, len(group) - on_host, taken_ps, taken_ps / max(total_ps, 1), on_host))
    return tuple(sorted(rows, key=lambda row: (-row.total_ps, row.name)))


def _by_engine(launches: Sequence[Launch]) -> tuple[EngineRow, ...]:
    core_cycles = sum(launch.timing.cycles * launch.chip.core_count for launch in launches)
    if not core_cycles:
        return ()
    rows = []
    for unit in Unit:
        busy = sum(launch.timing.busy_by_unit[unit] for launch in launches)
        stalls: Counter[str] = Counter()
        for launch in launches:
            stalls.update(launch.timing.stalls(unit))
        unused = core_cycles - busy - sum(stalls.values())
        rows.append(
            EngineRow(
                unit.value,
                busy / core_cycles,
                {reason: cycles / core_cycles for reason, cycles in stalls.most_common()},
                unused / core_cycles,
            )
        )
    return tuple(rows)


def hbm_bytes_per_s(launch: Launch) -> float:
    """Average HBM bandwidth over one launch."""
    moved = launch.timing.hbm_read_bytes + launch.timing.hbm_written_bytes
    duration_ps = kernel_ps(launch.timing.cycles, launch.chip)
    return moved / (duration_ps / 1e12) if duration_ps else math.nan
