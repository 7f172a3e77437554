"""A candidate's figures in milliseconds: forms of operators fitted to the simulator, and the silicon model.

The forms are those of `tapeout.models`. Their parameters start at what was fitted to the shipped chips' simulations
and are fitted again to simulations of chips drawn from the space. What a form does not know of a chip (its vector
lanes, its DMA engines) is learned beside it, for each shape:

    ln(simulated / form) = a + sum over varied fields of b x log2(field) + c x log2(field)²       (ridge regression)

The error that is told is that on chips left out one at a time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.accelerator import Accelerator
from tapeout.chip import Chip
from tapeout.chip.changing import value_of
from tapeout.exploration.simulation import Row, rows_of
from tapeout.exploration.space import Space
from tapeout.exploration.workloads import Workload
from tapeout.models import parameters
from tapeout.models.fitting import fit_form
from tapeout.models.forms import form_of
from tapeout.models.machine import machine
from tapeout.models.tables import Table, joined, table
from tapeout.silicon import export_control
from tapeout.silicon.described import of_chip
from tapeout.silicon.export_control import Ruling
from tapeout.silicon.ownership import Site, ownership
from tapeout.silicon.technology import SiliconError, Technology

RIDGE = 0.3
SPREAD = 0.5
"""How far, as a logarithm, parameters are expected to lie from those of the shipped chips."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Subject:
    """One kind and element type: the rows of the workloads that it answers for, the form's parameters, and for each
    row the coefficients of the ridge regression."""

    table: Table
    rows: tuple[Row, ...]
    parameters: Mapping[str, float]
    beyond: Array


@dataclass(frozen=True)
class Fit:
    """`error`: mean of |ln(told / simulated)| of the workloads' times on chips left out, by workload."""

    subjects: tuple[_Subject, ...]
    fields: tuple[str, ...]
    centre: Array
    scale: Array
    chips: int
    error: Mapping[str, float]

    def row_seconds(self, chip: Accelerator) -> dict[Row, float]:
        """Seconds of each shape on a chip. Raises ModelError that names a figure it lacks."""
        assert chip.design is not None
        asked = _asked(self.fields, chip.design, self.centre, self.scale)
        found: dict[Row, float] = {}
        for subject in self.subjects:
            formed = _formed(subject.table, chip, subject.parameters)
            seconds = formed * np.exp(subject.beyond @ asked)
            found |= dict(zip(subject.rows, seconds.tolist(), strict=True))
        return found


def workload_seconds(workload: Workload, times: Mapping[Row, float]) -> float:
    """Seconds of a workload, of its shapes' seconds."""
    return sum(
        times[row] * operation.count
        for operation in workload.operations
        for row in rows_of([Workload("", (operation,))])
    )


def _asked(fields: Sequence[str], chip: Chip, centre: Array, scale: Array) -> Array:
    """What the regression asks of a chip: 1, each field as a centred logarithm, and its square."""
    at = (_logs(fields, chip) - centre) / scale
    return np.concatenate([[1.0], at, at * at])


def _logs(fields: Sequence[str], chip: Chip) -> Array:
    return np.array([math.log2(max(float(value_of(chip, place)), 1e-9)) for place in fields])


def _formed(rows: Table, chip: Accelerator, values: Mapping[str, float]) -> Array:
    of = machine(chip, rows.dtype, rows.kind.name)
    parts = form_of(rows.kind.name, of).time(of, values, rows)
    return np.asarray(np.maximum(parts.seconds, parts.roofline))


def fit(
    space: Space,
    workloads: Sequence[Workload],
    chips: Sequence[Accelerator],
    simulated: Sequence[Mapping[Row, float]],
) -> Fit:
    """Fit to what the simulator said of these chips."""
    fields = tuple(place for place in space.fields if isinstance(value_of(space.base, place), int | float))
    designs = [chip.design for chip in chips if chip.design is not None]
    logs = np.stack([_logs(fields, design) for design in designs])
    centre, scale = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-3)
    asked = np.stack([_asked(fields, design, centre, scale) for design in designs])
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows_of(workloads):
        groups.setdefault(row[:2], []).append(row)
    subjects, left_out = [], [dict[Row, float]() for _ in chips]
    for (kind, dtype), rows in groups.items():
        tables = joined([_table_of(row) for row in rows])
        sets = [
            (machine(chip, dtype, kind), _timed(tables, [times[row] for row in rows]))
            for chip, times in zip(chips, simulated, strict=True)
        ]
        form = form_of(kind, sets[0][0])
        start = _start(kind, dtype)
        values = fit_form(form, sets, start=start, spread=SPREAD if start else None)
        formed = np.stack([_formed(tables, chip, values) for chip in chips])
        measured = np.array([[times[row] for row in rows] for times in simulated])
        wanted = np.log(measured / formed)
        beyond, unseen = _ridge(asked, wanted)
        subjects.append(_Subject(tables, tuple(rows), values, beyond.T))
        for place, times in enumerate(left_out):
            times |= dict(zip(rows, (formed[place] * np.exp(unseen[place])).tolist(), strict=True))
    error = {
        workload.name: float(
            np.mean(
                [
                    abs(math.log(workload_seconds(workload, told) / workload_seconds(workload, true)))
                    for told, true in zip(left_out, simulated, strict=True)
                ]
            )
        )
        for workload in workloads
    }
    return Fit(tuple(subjects), fields, centre, scale, len(chips), error)


def _ridge(asked: Array, wanted: Array) -> tuple[Array, Array]:
    """Coefficients for each column of `wanted`, and what each row is told when it is left out (exactly, by the
    leverage of ridge regression). The constant is not held back."""
    held = RIDGE * len(asked) / 10 * np.eye(asked.shape[1])
    held[0, 0] = 1e-9
    inverse = np.linalg.inv(asked.T @ asked + held)
    coefficients = inverse @ asked.T @ wanted
    leverage = np.einsum("ij,jk,ik->i", asked, inverse, asked)[:, None]
    told = asked @ coefficients
    return coefficients, (told - leverage * wanted) / np.maximum(1 - leverage, 1e-6)


def _table_of(row: Row) -> Table:
    kind, dtype, sizes = row
    words = {"kv_cache_dtype": dtype} if kind.endswith("attention") else {}
    return table(kind, dtype, **dict(sizes), **words)


def _timed(rows: Table, seconds: Sequence[float]) -> Table:
    return Table(rows.kind, rows.dtype, rows.columns, rows.words, np.array(seconds))


def _start(kind: str, dtype: str) -> Mapping[str, float] | None:
    """Parameters of the form as fitted to a shipped chip's simulations, of the nearest element type."""
    for name in (dtype, "bfloat16"):
        for shipped in parameters.shipped().values():
            if shipped.framework == parameters.SIMULATED and f"{kind}|{name}" in shipped.fitted:
                return shipped.fitted[f"{kind}|{name}"].parameters
    return None


@dataclass(frozen=True)
class Figures:
    """What is known of a candidate. `violations`: by how much each clause is missed, in the order of the space's
    clauses; at most 0 where it holds. `missing` says what could not be told."""

    values: Mapping[str, float]
    seconds: Mapping[str, float]
    violations: tuple[float, ...]
    export: str
    missing: str = ""

    @property
    def is_feasible(self) -> bool:
        return not self.missing and all(each <= 0 for each in self.violations)


@dataclass(frozen=True)
class Judge:
    """Figures of candidates. `reference`: the base chip's seconds by workload."""

    space: Space
    workloads: tuple[Workload, ...]
    technology: Technology
    fit: Fit
    reference: Mapping[str, float]

    def figures(self, chip: Chip) -> Figures:
        """The candidate's figures, by the fitted forms."""
        found = of_chip(chip, self.technology)
        times = self.fit.row_seconds(found)
        return self.with_seconds(found, {each.name: workload_seconds(each, times) for each in self.workloads})

    def with_seconds(self, chip: Accelerator, seconds: Mapping[str, float]) -> Figures:
        """The same for workloads whose seconds are known."""
        values, missing = silicon_figures(chip, self.technology)
        ratios = [self.reference[name] / taken for name, taken in seconds.items()]
        values["speed"] = math.exp(sum(map(math.log, ratios)) / len(ratios))
        if "usd_per_h" in values:
            values["speed_per_usd"] = values["speed"] / values["usd_per_h"]
        values["speed_per_w"] = values["speed"] / values["power_w"]
        violations, export = violated(self.space, self.workloads, chip, values)
        return Figures(values, seconds, violations, export, missing)


def silicon_figures(chip: Accelerator, technology: Technology) -> tuple[dict[str, float], str]:
    """Figures that no workload is needed for, and why one is missing."""
    assert chip.die_area is not None and chip.tdp is not None and chip.design is not None
    memory = chip.design.global_memory
    area, performance = chip.die_area.to("mm²").value, chip.design.total_processing_performance
    values = {
        "area_mm2": area,
        "power_w": chip.tdp.to("W").value,
        "memory_gb": memory.size_bytes / 2**30,
        "memory_gb_per_s": memory.bandwidth_bytes_per_s / 1e9,
        "tpp": performance,
        "density": performance / area,
    }
    if chip.price is None:
        return values, chip.missing.get("price_usd", "its price is not known")
    values["price_usd"] = chip.price.to("USD").value
    try:
        values["usd_per_h"] = ownership(chip, Site(), technology).per_hour.to("USD/h").value
    except SiliconError as unknown:
        return values, str(unknown)
    return values, ""


def violated(
    space: Space, workloads: Sequence[Workload], chip: Accelerator, values: Mapping[str, float]
) -> tuple[tuple[float, ...], str]:
    """By how much each clause is missed, and the export rules' sentence. A figure that is not known misses by 1."""
    found, sentence = [], ""
    if space.export:
        ruling = export_control.check(chip, space.export.on, space.export.circumstances)
        sentence = ruling.sentence
        found.append(_export_violation(ruling))
    for bound in space.bounds:
        found.append(bound.violation(values[bound.figure]) if bound.figure in values else 1.0)
    held = values["memory_gb"] * 2**30
    found.append(max((each.memory_bytes / held - 1 for each in workloads), default=-1.0))
    return tuple(found), sentence


def _export_violation(ruling: Ruling) -> float:
    """How far above the thresholds that control it a chip is, or -1 outside; undecided counts as controlled."""
    if ruling.eccn == "":
        return -1.0
    margins = [check.margin - 1 for finding in ruling.deciding for check in finding.checks if check.margin]
    return max(min(margins, default=1.0), 1e-3)


def any_value(chosen: Mapping[str, Any]) -> str:
    """A candidate's choices in one line."""
    return ", ".join(f"{place}={value}" for place, value in chosen.items())
