"""Clusters and their collectives, for people."""

from collections.abc import Iterable

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from tapeout.cluster import Cluster, CollectiveTime, Protocol
from tapeout.report.run_time import seconds
from tapeout.report.units import decimal


def listing(clusters: Iterable[Cluster]) -> Table:
    """A row for each cluster."""
    table = Table(box=SIMPLE)
    for header in ("cluster", "chip", "places", "levels, innermost first"):
        table.add_column(header, justify="right" if header == "places" else "left")
    for cluster in clusters:
        levels = ", ".join(f"{level.name} ({level.size or 'all'}, {level.fabric})" for level in cluster.levels)
        table.add_row(cluster.name, cluster.chip or "the active one", str(cluster.place_count or "any"), levels)
    return table


def levels(cluster: Cluster) -> Table:
    """A row for each level of one cluster, then its protocols."""
    table = Table(
        title=escape(f"{cluster.name}: {cluster.chip or 'the active chip'}"), title_justify="left", box=SIMPLE
    )
    for header in ("level", "chips", "fabric", "rate of a chip", "latency", "adds in the switch", "oversubscription"):
        table.add_column(header, justify="left" if header in ("level", "fabric") else "right")
    for level in cluster.levels:
        table.add_row(
            escape(level.name),
            str(level.size or "all"),
            level.fabric + (f" {'x'.join(map(str, level.shape))}" if level.shape else ""),
            decimal(level.bytes_per_s / 1e9, "GB/s"),
            f"{level.latency_ns:,} ns",
            "yes" if level.reduces_in_switch else "no",
            f"{level.oversubscription:g}",
        )
    protocols = "\n".join(f"  {_protocol(each)}" for each in cluster.protocols)
    source = f"measured: {cluster.measured}" if cluster.measured else "assumed"
    table.caption, table.caption_justify = escape(f"protocols ({source})\n{protocols}"), "left"
    return table


def _protocol(each: Protocol) -> str:
    parts = [f"{each.base_ns:,} ns", f"{each.step_ns:,} ns a step", f"{each.efficiency:.1%} of the rate"]
    if each.copy_bytes_per_s:
        parts.append(f"{decimal(each.copy_bytes_per_s / 1e9, 'GB/s')} within the chip")
    return f"{each.name}: {', '.join(parts)}"


def collective(time: CollectiveTime, size_bytes: int, ranks: int) -> str:
    """Two lines: the time with its bound, and the rate."""
    first = (
        f"{time.operation} of {size_bytes:,} bytes on {ranks:,} ranks: {seconds(time.time_ps)}, bound by {time.bound}"
    )
    if not size_bytes:
        return f"{first}\n  algorithm: {time.algorithm}"
    rate = decimal(size_bytes / (time.time_ps * 1e-12) / 1e9, "GB/s") if time.time_ps else "no time"
    return f"{first}\n  algorithm: {time.algorithm}; {rate}; the busiest level alone needs {seconds(time.least_ps)}"
