"""Published runs of training beside their predictions, as pages."""

import statistics
from collections.abc import Sequence

from tapeout.figures import Provenance
from tapeout.report.page import Block, Dot, Heading, Page, Paragraph, Scatter, Table
from tapeout.report.times import duration, spread
from tapeout.report.units import Shown
from tapeout.training import runs
from tapeout.training.runs import Replayed
from tapeout.training.software import eras, fitted


def by_family(rows: Sequence[Replayed]) -> Page:
    """Errors of each family, rows that were fitted apart from those that were not."""
    families: dict[str, list[Replayed]] = {}
    for row in rows:
        families.setdefault(row.run.family, []).append(row)
    table = []
    for name, mine in families.items():
        for is_fitted in (True, False):
            some = [row for row in mine if runs.is_fitted(row.run) == is_fitted]
            errors = [row.error for row in some if row.error is not None]
            if not errors:
                continue
            sizes = [abs(error) for error in errors]
            within = [row for row in some if row.error is not None and _is_within(row)]
            table.append(
                (
                    name,
                    "fitted" if is_fitted else "not fitted",
                    str(len(errors)),
                    *(_percent(value) for value in (statistics.mean(sizes), statistics.median(sizes), max(sizes))),
                    Shown(f"{statistics.mean(errors):+.1%}", value=statistics.mean(errors)),
                    f"{len(within)} of {len(errors)}",
                )
            )
    left_out = [row for row in rows if row.error is None]
    blocks: list[Block] = [
        Paragraph(
            "Step times of published runs: predicted over measured. Rows marked fitted set the three numbers of "
            "their software era; the others were predicted with them. Network, chips and schedules are not fitted."
        ),
        Table(
            ("family", "rows", "count", "mean error", "median", "largest", "bias", "within range"),
            table,
            right=(2, 3, 4, 5, 6, 7),
        ),
    ]
    if left_out:
        reasons = sorted({row.reason.partition(": ")[2] or row.reason or "no measured time" for row in left_out})
        blocks.append(Paragraph(f"{len(left_out)} rows are not predicted: {'; '.join(reasons[:5])}."))
    blocks += [Heading("Software eras"), _era_table()]
    if any(row.error is not None for row in rows):
        blocks.append(_picture(rows))
    return Page("Published training runs, replayed", blocks, kind="replay")


def row_by_row(title: str, rows: Sequence[Replayed]) -> Page:
    """Each row with its prediction and what was assumed."""
    table, notes = [], []
    for row in rows:
        name = f"{row.run.cells.get('model', '')} on {row.run.cells.get('chips', '?')} {row.run.cells.get('chip', '')}"
        if row.step is None:
            table.append((row.run.name, name, "not known", "", "", "", "", ""))
            notes.append(Paragraph(row.reason))
            continue
        low, high = row.step.time.interval()
        memory = max(stage.memory.value for stages in row.step.stages for stage in stages) / 2**30
        table.append(
            (
                row.run.name,
                name,
                Shown(duration(row.step.seconds), value=row.step.seconds, unit="s"),
                spread(low, row.step.seconds, high),
                Shown(duration(row.measured_s), value=row.measured_s, unit="s") if row.measured_s is not None else "",
                Shown(f"{row.error:+.1%}", value=row.error) if row.error is not None else "",
                Shown(f"{memory:.0f} GiB", value=memory, unit="GiB") + ("" if row.step.fits else ", does not fit"),
                ("fitted; " if runs.is_fitted(row.run) else "") + ", ".join(row.assumed),
            )
        )
    blocks: list[Block] = [
        Table(
            ("row", "run", "predicted", "range", "measured", "error", "memory", "assumed"), table, right=(2, 3, 4, 5)
        ),
        *notes,
    ]
    if any(row.error is not None for row in rows):
        blocks.append(_picture(rows))
    return Page(title, blocks, kind="replay-rows")


def _picture(rows: Sequence[Replayed]) -> Scatter:
    """Predicted over measured: points on the line are right."""
    timed = [(row, row.step.seconds, row.measured_s) for row in rows if row.step is not None and row.measured_s]
    least = min(min(predicted, measured) for _, predicted, measured in timed)
    most = max(max(predicted, measured) for _, predicted, measured in timed)
    return Scatter(
        "predicted beside measured",
        "measured, seconds a step",
        "predicted, seconds a step",
        [Dot(f"{row.run.family} {row.run.name}", measured, predicted, 0.01) for row, predicted, measured in timed],
        lines=[("equal", ((least, least), (most, most)))],
        only_drawn=True,
    )


def _era_table() -> Table:
    table = []
    for name, era in sorted(eras().items(), key=lambda item: item[1].date):
        record = fitted().get(name)
        table.append(
            (
                name,
                era.date,
                Shown(f"{era.host.value * 1e6:,.0f} µs", value=era.host.value, unit="s"),
                f"{era.overlap.value:.0%}",
                f"{era.gemm.value:.2f}",
                f"{era.vector.value:.2f}",
                f"{len(record['rows'])} rows, {record['rows_sha256'][:12]}"
                if record
                else era.gemm.source
                if era.gemm.provenance is Provenance.MODELLED
                else "assumed",
            )
        )
    return Table(
        ("era", "date", "host a layer's pass", "overlap", "products over tuned", "vector operators", "fitted to"),
        table,
        right=(2, 3, 4, 5),
    )


def _percent(value: float) -> str:
    return Shown(f"{value:.1%}", value=value)


def _is_within(row: Replayed) -> bool:
    assert row.step is not None and row.measured_s is not None
    low, high = row.step.time.interval()
    return low <= row.measured_s <= high
