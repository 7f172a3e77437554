"""Parameters from a user's own measured rows, with the error before and after on the half that was not fitted."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.models import parameters, userrows
from tapeout.models.fitting import Fitted, fit
from tapeout.models.machine import machine
from tapeout.models.parameters import SIMULATED, Parameters, subject_of
from tapeout.models.tables import ModelError, Table, share_of_hash
from tapeout.models.timers import Timer, Times
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator

LEAST_ROWS = 10


@dataclass(frozen=True)
class Change:
    """Mean absolute relative error on the half of the rows that was not fitted."""

    subject: str
    rows: int
    before: float
    after: float


@dataclass(frozen=True)
class UserFit:
    parameters: Parameters
    changes: tuple[Change, ...]
    left_out: tuple[str, ...]


def file_name(chip: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", chip.casefold()).strip("-")


def fit_rows(path: Path, chip_name: str, *, own_catalog: Path | None = None) -> UserFit:
    """Raises ModelError for a table without enough rows or times."""
    chip = accelerator(chip_name, technology.load(), own_catalog=own_catalog)
    groups = userrows.read(path, needs_times=True).groups
    by_subject: dict[str, list[Table]] = {}
    for group in groups:
        by_subject.setdefault(subject_of(group.table.kind.name, group.table.dtype), []).append(group.table)
    prior = Timer(chip=chip, assume=True)
    simulated = chip.design is not None
    fitted: dict[str, Fitted] = {}
    changes, left_out = [], []
    for subject, tables in by_subject.items():
        count = sum(map(len, tables))
        if count < LEAST_ROWS:
            left_out.append(f"{subject}: {count} rows, at least {LEAST_ROWS} are needed")
            continue
        # What ships of a described chip was fitted to such rows too, and a fit must not depend on the one before it.
        start = None if simulated else prior.parameters_for(tables[0])
        halves = [_first_half(table) for table in tables]
        inside = [table.take(half) for table, half in zip(tables, halves, strict=True) if half.any()]
        outside = [table.take(~half) for table, half in zip(tables, halves, strict=True) if not half.all()]

        def sets(chosen: list[Table]) -> list[tuple[object, Table]]:
            return [(machine(chip, each.dtype, each.kind.name, assume=True), each) for each in chosen]

        if inside and outside and sum(map(len, inside)) >= LEAST_ROWS // 2:
            half = fit(sets(inside), start=start)  # type: ignore[arg-type]
            trial = Parameters("", chip.name, "", "", {subject: half}, {})
            after = Timer(chip=chip, assume=True, own=(trial,))
            errors = [
                np.concatenate([_errors(timer.time(_bare(each)), each) for each in outside]) for timer in (prior, after)
            ]
            changes.append(Change(subject, count, float(errors[0].mean()), float(errors[1].mean())))
        fitted[subject] = fit(sets(tables), start=start)  # type: ignore[arg-type]
    if not fitted:
        raise ModelError(f"{path}: too few rows to fit; {'; '.join(left_out)}")
    # A described chip's times are its simulator's: they hold for that very description.
    made = Parameters(
        campaign=f"{'simulated' if simulated else 'own'}-{file_name(chip.name)}",
        chip=chip.name,
        framework=SIMULATED if simulated else groups[0].framework,
        version=chip.design.fingerprint() if chip.design is not None else groups[0].version,
        fitted=fitted,
        rows_sha256={subject: parameters.hash_of_rows(by_subject[subject]) for subject in fitted},
        note=f"rows of {path.name}",
    )
    return UserFit(made, tuple(changes), tuple(left_out))


def _first_half(table: Table) -> NDArray[np.bool_]:
    keys = table.keys()
    return np.array([share_of_hash(key) < 0.5 for key in keys])


def _bare(table: Table) -> Table:
    return Table(table.kind, table.dtype, table.columns, table.words)


def _errors(found: Times, rows: Table) -> np.ndarray:
    assert rows.seconds is not None
    return np.abs(found.seconds / rows.seconds - 1)
