"""The time of a script: on one chip in words, on several chips as a table."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from tapeout.report.units import decimal, significant
from tapeout.runtime.clock import PICOSECONDS_PER_SECOND, Kind
from tapeout.workbench.script import RunTime


def seconds(picoseconds: int) -> str:
    """1_234_000 -> "1.23 µs"."""
    micro_nano = {"": 1, "m": 10**3, "µ": 10**6, "n": 10**9, "p": 10**12}
    value = picoseconds / PICOSECONDS_PER_SECOND
    for prefix, factor in micro_nano.items():
        if value * factor >= 1 or prefix == "p":
            return decimal(value * factor, f"{prefix}s")
    raise AssertionError


def total(time: RunTime) -> str:
    """The whole time, with what is not in it."""
    if time.is_whole:
        return seconds(time.total_ps)
    parts = (("host operators", time.host_operators), ("kernels", time.untimed_kernels))
    missing = " and ".join(f"{sum(counts.values()):,} {what}" for what, counts in parts if counts)
    return f"at least {seconds(time.total_ps)} plus {missing} of unknown time"


def plain_summary(time: RunTime) -> str:
    """One line, without markup."""
    return f"{time.chip}: {total(time)} of simulated time"


def summary(time: RunTime) -> str:
    """A line with the total, then one for each part, as markup."""
    first, *others = map(escape, plain_lines(time))
    return "\n".join([first.replace(escape(time.chip), f"[bold]{escape(time.chip)}[/]", 1), *others])


def plain_lines(time: RunTime) -> list[str]:
    """The same without markup, a line each."""
    if time.is_empty:
        return [f"{time.chip}: nothing ran on the chip in this process"]
    lines = [plain_summary(time)]
    if parts := _busy(time.busy_ps, time.counts):
        lines.append(f"  busy: {parts}")
    for index, of_chip in enumerate(time.of_chips):
        parts = _busy(of_chip["busy_ps"], of_chip["counts"]) or "nothing"
        lines.append(f"    chip:{index} {of_chip['chip']}: {parts}")
    if time.communication:
        exposed, hidden, waiting = communication_ps(time)
        lines.append(
            f"  communication: {seconds(exposed)} exposed, {seconds(hidden)} hidden, "
            f"{seconds(waiting)} waiting for other ranks"
        )
    if not time.is_whole:
        lines.append("  of unknown time: " + _counted({**time.host_operators, **time.untimed_kernels}))
    if time.assumptions:
        lines.append("  launches timed on an assumption:")
        lines += [f"    {count:,} x {assumption}" for assumption, count in time.assumptions.items()]
    return lines


def _busy(busy_ps: Mapping[str, int], counts: Mapping[str, int]) -> str:
    kinds = [kind.value for kind in Kind if kind.value in busy_ps]
    return "; ".join(f"{kind} {seconds(busy_ps[kind])} in {counts[kind]:,}" for kind in kinds)


def communication_ps(time: RunTime) -> tuple[int, int, int]:
    """Return what communication took that was exposed, what was hidden behind other work, and waiting for others."""
    kinds = time.communication.values()
    exposed = sum(each["exposed_ps"] for each in kinds)
    return exposed, sum(each["total_ps"] for each in kinds) - exposed, sum(each["waited_ps"] for each in kinds)


def ranks(times: Sequence[RunTime], cluster: str) -> Table:
    """A row for each rank: what it computed, what communication cost it, and how long it waited for the slowest."""
    table = Table(title=f"{len(times)} ranks, {escape(cluster)}", title_justify="left", box=SIMPLE)
    for header in ("rank", "chip", "simulated time", "kernels", "exposed", "hidden", "waiting for others"):
        table.add_column(header, justify="left" if header == "chip" else "right")
    for rank, time in enumerate(times):
        kernels = time.busy_ps.get(Kind.KERNEL.value, 0)
        parts = (kernels, *communication_ps(time))
        table.add_row(str(rank), escape(time.chip), total(time), *map(seconds, parts))
    return table


def side_by_side(times: Sequence[RunTime]) -> Table:
    """A column for each chip."""
    table = Table("", box=SIMPLE)
    for time in times:
        table.add_column(escape(time.chip), justify="right")
    table.add_row("simulated time", *map(total, times))
    if all(time.is_whole for time in times):
        ratios = (times[0].total_ps / max(time.total_ps, 1) for time in times)
        table.add_row("speed against the first", *(f"{significant(ratio)} x" for ratio in ratios))
    for kind in (kind for kind in Kind if any(kind.value in time.busy_ps for time in times)):
        table.add_row(f"busy: {kind.value}", *(seconds(time.busy_ps.get(kind.value, 0)) for time in times))
    labels = {
        "host_operators": "operators on the host",
        "untimed_kernels": "kernels of unknown time",
        "assumptions": "launches on an assumption",
    }
    for name, label in labels.items():
        if any(getattr(time, name) for time in times):
            table.add_row(label, *(escape(_counted(getattr(time, name))) or "none" for time in times))
    return table


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)
