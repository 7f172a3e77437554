"""Two profiles or two chips against each other, as a page."""

from tapeout.report.page import Block, Heading, Page, Paragraph, Table
from tapeout.report.units import Shown, decimal, significant
from tapeout.workbench.differences import Change, Difference

ROWS = 20
"""Rows of a subject on the page; the largest changes come first."""


def page(found: Difference, *, rows: int | None = ROWS) -> Page:
    """Every subject with its changes; `rows` bounds each, None shows all."""
    blocks: list[Block] = []
    first = next(iter(found.changes.values()), ())
    if first and (ratio := first[0].ratio) is not None and first[0].name == "simulated time":
        blocks.append(Paragraph(f"{found.after} takes {ratio:.3g} times the simulated time of {found.before}."))
    for subject, changes in found.changes.items():
        if not changes:
            continue
        left = f"{len(changes) - rows:,} more in --format json" if rows is not None and len(changes) > rows else ""
        blocks += [
            Heading(subject),
            Table(
                ("", found.before, found.after, "ratio", "note"),
                [
                    (
                        each.name,
                        _figure(each, each.before),
                        _figure(each, each.after),
                        Shown(f"{each.ratio:.3g}", value=each.ratio) if each.ratio is not None else "",
                        each.note,
                    )
                    for each in changes[:rows]
                ],
                right=(1, 2, 3),
                caption=left,
            ),
        ]
    return Page(f"Difference: {found.before}, {found.after}", blocks, kind="difference")


def _figure(change: Change, value: float | None) -> str:
    if value is None:
        return ""
    if change.unit == "s":
        scale, unit = next(each for each in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (0, "ns")) if value >= each[0])
        return Shown(f"{significant(value / (scale or 1e-9))} {unit}", value=value, unit="s")
    if change.unit in ("B", "OP/s"):
        return decimal(value, change.unit)
    return Shown(f"{significant(value)} {change.unit}".strip(), value=value, unit=change.unit)
