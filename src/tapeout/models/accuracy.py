"""Errors of predictions on rows that no fit has seen, by operator, element type, region and tier.

With the package of measured rows the errors are computed anew on the check rows; without it, they are what the files of
parameters say of rows left out when they were fitted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.models import measured, parameters
from tapeout.models.campaigns_fit import FAMILIES
from tapeout.models.parameters import subject_of
from tapeout.models.tables import Table
from tapeout.models.timers import Timer
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator

CALIBRATED, UNSEEN, PRIOR = "same chip", "unseen region", "family left out"


@dataclass(frozen=True)
class Line:
    """Errors of one operator and element type: shares, not per cent. `coverage`: rows within the printed range."""

    chip: str
    campaign: str
    operator: str
    dtype: str
    tier: str
    rows: int
    mean: float
    median: float
    p90: float
    bias: float
    coverage: float


@dataclass(frozen=True)
class Points:
    """Predicted and measured seconds, for a picture."""

    title: str
    predicted: NDArray[np.float64]
    measured: NDArray[np.float64]


def compared(chip: str, campaign: str, tier: str, timer: Timer, rows: Table) -> tuple[Line, Points]:
    """Rows against a timer."""
    assert rows.seconds is not None
    found = timer.time(Table(rows.kind, rows.dtype, rows.columns, rows.words))
    error = found.seconds / rows.seconds - 1
    size = np.abs(error)
    inside = (found.low <= rows.seconds) & (rows.seconds <= found.high)
    line = Line(
        chip,
        campaign,
        rows.kind.name,
        rows.dtype,
        tier,
        len(rows),
        float(size.mean()),
        float(np.median(size)),
        float(np.quantile(size, 0.9)),
        float(error.mean()),
        float(inside.mean()),
    )
    title = f"{chip}, {rows.kind.name} {rows.dtype}, {tier}"
    return line, Points(title, found.seconds, rows.seconds)


def lines(chip_name: str = "", *, tiers: Sequence[str] = (CALIBRATED, UNSEEN, PRIOR)) -> Iterator[tuple[Line, Points]]:
    """Errors on check rows of every campaign there are parameters for, or of one chip's."""
    figures = technology.load()
    wanted = accelerator(chip_name, figures).name if chip_name else ""
    for name, kept in sorted(parameters.shipped().items()):
        if name not in measured.campaigns() or (wanted and kept.chip != wanted):
            continue
        chip = accelerator(kept.chip, figures)
        calibrated = Timer(chip=chip, campaign=name, assume=True)
        left_out = Timer(chip=chip, without_family=True, assume=True)
        for table in measured.tables_of(measured.campaigns()[name]):
            if subject_of(table.kind.name, table.dtype) not in kept.fitted:
                continue
            _, check, unseen = measured.split(table)
            for tier, timer, rows in (
                (CALIBRATED, calibrated, check),
                (UNSEEN, calibrated, unseen),
                (PRIOR, left_out, check),
            ):
                is_prior_kind = tier != PRIOR or (kept.chip in FAMILIES and not table.kind.name.endswith("mla"))
                if tier in tiers and len(rows) and is_prior_kind:
                    yield compared(kept.chip, name, tier, timer, rows)


def kept_lines(chip_name: str = "") -> list[tuple[str, str, str, int, float]]:
    """Campaign, chip, subject, rows and mean error on rows left out, as the parameter files say."""
    wanted = accelerator(chip_name, technology.load()).name if chip_name else ""
    return [
        (kept.campaign, kept.chip, subject, fitted.row_count, fitted.error)
        for _, kept in sorted(parameters.shipped().items())
        if not wanted or kept.chip == wanted
        for subject, fitted in sorted(kept.fitted.items())
    ]
