"""Fit of the three numbers of each software era to published runs, and the record of which rows that were.

A row may be fitted if the hash of its family and number says so (`may_fit`); all others check. The record
(`data/fitted.toml`) holds the numbers, the rows and a digest of them, and is made by one command, the same bytes each
time: `tapeout replay --fit TABLE`.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from tapeout.figures import Provenance, given
from tapeout.training import runs, software
from tapeout.training.runs import Run
from tapeout.training.software import SoftwareEra

FIT_BELOW = 0.5
MOST_OF_FAMILY = 20
"""Rows of one family that are fitted, those of least hash: more would tell nothing new and weigh no more."""
LIMITS = ((0.0, 5e-3), (0.0, 0.9), (0.8, 2.0))
"""Least and greatest of host time, overlap and products over tuned kernels."""
STEPS = (2e-4, 0.15, 0.1)


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
            f"host_us = {values[0] * 1e6:.1f}",
            f"overlap = {values[1]:.4f}",
            f"gemm = {values[2]:.4f}",
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


def _fitted(name: str, rows: Sequence[Run]) -> tuple[tuple[float, ...], float]:
    before = software.eras()[name]
    families: dict[str, list[Run]] = {}
    for run in rows:
        families.setdefault(run.family, []).append(run)

    def loss(values: tuple[float, ...]) -> float:
        software.eras()[name] = era_with(before, values)
        errors = []
        for mine in families.values():  # every family weighs the same, however many rows it has
            each = [runs.replay(run).error for run in mine]
            errors.append(sum(abs(math.log1p(error)) for error in each if error is not None) / len(each))
        return sum(errors) / len(errors)

    start = (before.host.value, before.overlap.value, before.gemm.value)
    try:
        return _pattern_search(loss, start)
    finally:
        software.eras()[name] = before


def era_with(era: SoftwareEra, values: Sequence[float]) -> SoftwareEra:
    """An era with other numbers, for a trial."""
    host, overlap, gemm = values
    return replace(
        era,
        host=given("host", host, "s", Provenance.MODELLED),
        overlap=given("overlap", overlap, "", Provenance.MODELLED),
        gemm=given("gemm", gemm, "", Provenance.MODELLED),
    )


def _pattern_search(
    loss: Callable[[tuple[float, ...]], float], start: tuple[float, ...]
) -> tuple[tuple[float, ...], float]:
    """Hooke and Jeeves: a step along each axis, halved when none helps. Deterministic; no gradient is needed."""
    best, least = start, loss(start)
    steps = list(STEPS)
    for _ in range(4):
        is_better = True
        while is_better:
            is_better = False
            for axis, step in enumerate(steps):
                for sign in (1, -1):
                    moved = list(best)
                    moved[axis] = min(max(moved[axis] + sign * step, LIMITS[axis][0]), LIMITS[axis][1])
                    found = loss(tuple(moved)) if moved[axis] != best[axis] else math.inf
                    if found < least - 1e-5:
                        best, least, is_better = tuple(moved), found, True
                        break
        steps = [step / 2 for step in steps]
    return best, least
