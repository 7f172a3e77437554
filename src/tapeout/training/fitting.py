"""Fit of the three numbers of each software era to published runs, and the record of which rows that were.

A row may be fitted if the hash of its family and number says so (`may_fit`); all others check. The record
(`data/fitted.toml`) holds the numbers, the rows and a digest of them, and is made by one command, the same bytes each
time: `tapeout replay --fit TABLE`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tapeout.figures import Provenance, given
from tapeout.training import runs, software
from tapeout.training.runs import Run
from tapeout.training.software import SoftwareEra

FIT_BELOW = 0.5
MOST_OF_FAMILY = 20
"""Rows of one family that are fitted, those of least hash: more would tell nothing new and weigh no more."""
LIMITS = {"host_us": (0.0, 5000.0), "overlap": (0.0, 0.9), "gemm": (0.5, 2.0), "vector": (1.0, 3.0)}
"""Least and greatest of each number. Products may be faster than the tuned ones of a chip whose kernels nobody
published: its operator model holds what chips of its class reach."""
STEPS = {"host_us": 200.0, "overlap": 0.15, "gemm": 0.1, "vector": 0.2}


def may_fit(run: Run) -> bool:
    """Whether a row may be fitted; the others are for checks."""
    return runs.share_of(run) < FIT_BELOW


def fit(rows: Sequence[Run]) -> str:
    """The record of a fit of every era that the rows hold, as TOML."""
    by_era: dict[str, list[Run]] = {}
    taken: dict[str, int] = {}
    for run in sorted(rows, key=runs.share_of):
        if not may_fit(run) or taken.get(run.family, 0) >= MOST_OF_FAMILY or runs.replay(run).error is None:
            continue
        taken[run.family] = taken.get(run.family, 0) + 1
        by_era.setdefault(runs.family_of(run)["software"], []).append(run)
    lines = ["# Fitted by `tapeout replay --fit`; do not edit."]
    for name, mine in sorted(by_era.items()):
        values, error = _fitted(name, mine)
        names = sorted(f"{run.family}|{run.name}" for run in mine)
        lines += [
            "",
            f"[{name}]",
            *(f"{column} = {value:.4f}" for column, value in values.items()),
            f"error = {error:.4f}",
            f'rows_sha256 = "{digest(mine)}"',
            "rows = [",
            *(f'    "{each}",' for each in names),
            "]",
        ]
    return "\n".join(lines) + "\n"


def digest(rows: Sequence[Run]) -> str:
    """Digest of rows: every cell, in order of family and number."""
    texts = sorted("|".join(f"{name}={cell}" for name, cell in sorted(run.cells.items())) for run in rows)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _fitted(name: str, rows: Sequence[Run]) -> tuple[dict[str, float], float]:
    before = software.eras()[name]
    families: dict[str, list[Run]] = {}
    for run in rows:
        families.setdefault(run.family, []).append(run)

    def loss(values: dict[str, float]) -> float:
        software.eras()[name] = era_with(before, values)
        errors = []
        for mine in families.values():  # every family weighs the same, however many rows it has
            each = [runs.replay(run).error for run in mine]
            errors.append(sum(abs(math.log1p(error)) for error in each if error is not None) / len(each))
        return sum(errors) / len(errors)

    try:
        return _pattern_search(loss, numbers_of(before))
    finally:
        software.eras()[name] = before


def numbers_of(era: SoftwareEra) -> dict[str, float]:
    """The numbers of an era that a fit may set, by column."""
    scale = {"host_us": 1e6}
    return {column: getattr(era, software.COLUMNS[column]).value * scale.get(column, 1.0) for column in era.free}


def era_with(era: SoftwareEra, values: Mapping[str, float]) -> SoftwareEra:
    """An era with other numbers, for a trial."""
    changed = {}
    for column, value in values.items():
        name = software.COLUMNS[column]
        scaled, unit = (value * 1e-6, "s") if column == "host_us" else (value, "")
        changed[name] = given(name, scaled, unit, Provenance.MODELLED)
    return replace(era, **changed)  # type: ignore[arg-type]


def _pattern_search(
    loss: Callable[[dict[str, float]], float], start: dict[str, float]
) -> tuple[dict[str, float], float]:
    """Hooke and Jeeves: a step along each axis, halved when none helps. Deterministic; no gradient is needed."""
    best, least = start, loss(start)
    steps = {column: STEPS[column] for column in start}
    for _ in range(4):
        is_better = True
        while is_better:
            is_better = False
            for column, step in steps.items():
                low, high = LIMITS[column]
                for sign in (1, -1):
                    moved = best | {column: min(max(best[column] + sign * step, low), high)}
                    found = loss(moved) if moved != best else math.inf
                    if found < least - 1e-5:
                        best, least, is_better = moved, found, True
                        break
        steps = {column: step / 2 for column, step in steps.items()}
    return best, least
