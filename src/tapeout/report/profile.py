"""A profile in the terminal: a line for the whole, then tables by kernel, operator and engine."""

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from tapeout.report.run_time import seconds, summary
from tapeout.report.units import decimal, significant
from tapeout.workbench.profiling import EnergyRow, KernelRow, Profile

ROWS = 15
"""Maximum rows of a table on the terminal; the JSON file has all."""


def render(profile: Profile) -> Iterator[RenderableType]:
    yield summary(profile.run)
    if profile.run.total_ps:
        idle = profile.cores_idle_ps / profile.run.total_ps
        yield f"  cores without a kernel: {seconds(profile.cores_idle_ps)} ({idle:.0%})"
    if profile.energy:
        yield _energy(profile.energy, profile.run.total_ps)
    yield _kernels(profile)
    yield _operators(profile)
    yield _engines(profile)


def _energy(energy: EnergyRow, total_ps: int) -> str:
    low, high = significant(energy.low_j * 1e3), significant(energy.high_j * 1e3)
    watts = significant(energy.total_j / (total_ps / 1e12))
    largest = sorted(energy.by_block_j.items(), key=lambda item: -item[1])[:3]
    blocks = ", ".join(f"{name} {joules / energy.total_j:.0%}" for name, joules in largest)
    return (
        f"  energy: {significant(energy.total_j * 1e3)} mJ ({low} to {high}; {energy.provenance}), "
        f"{watts} W on average: {blocks}"
    )


def _kernels(profile: Profile) -> Table:
    table = Table(title="Kernels", title_justify="left", box=SIMPLE)
    table.add_column("kernel", overflow="fold", min_width=12)
    for heading in ("launches", "time", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by")
    for heading in ("matrix", "roofline", "HBM"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("waits for")
    for row in profile.kernels[:ROWS]:
        table.add_row(
            escape(row.name),
            f"{row.launches:,}",
            seconds(row.total_ps),
            f"{row.share:.1%}",
            row.bound,
            f"{row.matrix_utilisation:.0%}",
            f"{row.roofline_share:.0%}",
            _bandwidth(row),
            _largest(row.stalls),
        )
    _say_what_is_left(table, len(profile.kernels))
    return table


def _operators(profile: Profile) -> Table:
    table = Table(title="Operators", title_justify="left", box=SIMPLE)
    table.add_column("operator", overflow="fold", max_width=48)
    for heading in ("calls", "time", "share", "on the host, time unknown"):
        table.add_column(heading, justify="right")
    for row in profile.operators[:ROWS]:
        on_host = f"{row.host_calls:,}" if row.host_calls else ""
        table.add_row(escape(row.name), f"{row.launches:,}", seconds(row.total_ps), f"{row.share:.1%}", on_host)
    _say_what_is_left(table, len(profile.operators))
    return table


def _engines(profile: Profile) -> Table:
    table = Table(title="Engines, over all kernels and cores", title_justify="left", box=SIMPLE)
    table.add_column("engine")
    table.add_column("busy", justify="right")
    table.add_column("no work for the core", justify="right")
    table.add_column("waiting")
    for row in profile.engines:
        waiting = ", ".join(f"{reason} {share:.0%}" for reason, share in row.stalls.items() if share >= 0.005)
        table.add_row(row.name, f"{row.busy:.1%}", f"{row.unused_cores:.1%}", waiting)
    return table


def _bandwidth(row: KernelRow) -> str:
    return decimal(row.hbm_bytes / (row.total_ps / 1e12), "B/s") if row.total_ps else ""


def _largest(shares: Mapping[str, float]) -> str:
    reason = max(shares, key=lambda name: shares[name], default="")
    return f"{reason} {shares[reason]:.0%}" if reason else ""


def _say_what_is_left(table: Table, count: int) -> None:
    if count > ROWS:
        table.caption = f"{count - ROWS:,} more in profile.json"
        table.caption_justify = "left"
