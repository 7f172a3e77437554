"""A table of operators in, the same table with times out."""

import csv
from pathlib import Path

import numpy as np

from tapeout.chip.description import shown_path
from tapeout.models import questions, userrows
from tapeout.models.tables import ModelError, Table
from tapeout.models.timers import Timer

COLUMNS = ("seconds", "low", "high", "bound", "provenance")


def predict(
    rows: Path,
    output: Path,
    chip: str,
    *,
    campaign: str = "",
    without_family: bool = False,
    measured: Path | None = None,
    assume: bool = False,
    own_catalog: Path | None = None,
) -> int:
    """Write every row of `rows` with its predicted time, range, bound and provenance; returns how many. A column of
    those names that is already there is kept as `measured_...`. Raises ModelError."""
    sheet = userrows.read(rows)
    count = len(sheet.cells)
    numbers = [np.empty(count) for _ in range(3)]
    words = [np.empty(count, "U9") for _ in range(2)]
    timers: dict[tuple[str, str], Timer] = {}
    (base,) = questions.timers(
        [chip],
        own_catalog=own_catalog,
        campaign=campaign,
        without_family=without_family,
        assume=assume,
        measured=measured,
    )
    for group in sheet.groups:
        software = (group.framework, group.version)
        if software not in timers:
            timers[software] = Timer(
                chip=base.chip,
                campaign=campaign,
                framework=group.framework,
                version=group.version,
                without_family=without_family,
                assume=assume,
                own=base.own,
                rows=base.rows,
            )
        asked = Table(group.table.kind, group.table.dtype, group.table.columns, group.table.words)
        found = timers[software].time(asked)
        for target, values in zip(numbers, (found.seconds, found.low, found.high), strict=True):
            target[group.places] = values
        for place, texts in zip(words, (found.bound, found.provenance), strict=True):
            place[group.places] = texts
    header = [f"measured_{name}" if name in COLUMNS else name for name in sheet.header]
    columns = [[f"{value:.6g}" for value in values.tolist()] for values in numbers]
    columns += [texts.tolist() for texts in words]
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*header, *COLUMNS])
            writer.writerows(
                [*cells, *added] for cells, added in zip(sheet.cells, zip(*columns, strict=True), strict=True)
            )
    except OSError as error:
        raise ModelError(f"{shown_path(str(output))}: cannot be written: {error}") from None
    return count
