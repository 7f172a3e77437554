"""The table of `tapeout limits`: each operator's time beside the least that the chip allows."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from tapeout.report.run_time import seconds, summary
from tapeout.workbench.limits import Limits

ROWS = 30
"""Maximum rows of the table."""


def render(found: Limits) -> Iterator[RenderableType]:
    yield summary(found.time)
    table = Table(title=f"Operators on {found.chip.name} and their limits", title_justify="left", box=SIMPLE)
    table.add_column("operator", overflow="fold", min_width=12)
    table.add_column("operands", overflow="fold")
    for heading in ("calls", "launches", "time", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("set by", no_wrap=True)
    table.add_column("reached", justify="right", no_wrap=True)
    table.add_column("its launches", overflow="fold")
    for row in found.rows[:ROWS]:
        table.add_row(
            escape(row.name) + (" *" if row.is_program else ""),
            escape(row.shapes),
            f"{row.calls:,}",
            f"{row.launches:,}",
            seconds(row.total_ps),
            seconds(round(row.limit.seconds * 1e12)),
            row.limit.name,
            f"{row.share:.0%}",
            row.reason,
        )
    captions = []
    if len(found.rows) > ROWS:
        captions.append(f"{len(found.rows) - ROWS:,} more take less time.")
    if any(row.is_program for row in found.rows[:ROWS]):
        captions.append("* No operator asked for it: the limit is that of the program as written.")
    table.caption, table.caption_justify = " ".join(captions) or None, "left"
    yield table
