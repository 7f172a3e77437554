"""Clusters and their collectives, for people."""

from collections.abc import Iterable

from tapeout.cluster import Cluster, CollectiveTime, Protocol
from tapeout.report.page import Page, Paragraph, Table
from tapeout.report.run_time import seconds
from tapeout.report.units import Shown, decimal


def listing(clusters: Iterable[Cluster]) -> Page:
    """A row for each cluster."""
    rows = [
        (
            cluster.name,
            cluster.chip or "the active one",
            Shown(str(cluster.place_count), value=cluster.place_count) if cluster.place_count else "any",
            ", ".join(f"{level.name} ({level.size or 'all'}, {level.fabric})" for level in cluster.levels),
        )
        for cluster in clusters
    ]
    table = Table(("cluster", "chip", "places", "levels, innermost first"), rows, right=(2,))
    return Page("Clusters", [table], kind="clusters")


def levels(cluster: Cluster) -> Page:
    """A row for each level of one cluster, then its protocols."""
    rows = [
        (
            level.name,
            Shown(str(level.size), value=level.size) if level.size else "all",
            level.fabric + (f" {'x'.join(map(str, level.shape))}" if level.shape else ""),
            decimal(level.bytes_per_s, "B/s"),
            Shown(f"{level.latency_ns:,} ns", value=level.latency_ns, unit="ns"),
            "yes" if level.reduces_in_switch else "no",
            Shown(f"{level.oversubscription:g}", value=level.oversubscription),
        )
        for level in cluster.levels
    ]
    columns = ("level", "chips", "fabric", "rate of a chip", "latency", "adds in the switch", "oversubscription")
    source = f"measured: {cluster.measured}" if cluster.measured else "assumed"
    protocols = "\n".join([f"protocols ({source})", *(f"  {_protocol(each)}" for each in cluster.protocols)])
    title = f"{cluster.name}: {cluster.chip or 'the active chip'}"
    return Page(title, [Table(columns, rows, right=(1, 3, 4, 6)), Paragraph(protocols)], kind="cluster-levels")


def _protocol(each: Protocol) -> str:
    parts = [f"{each.base_ns:,} ns", f"{each.step_ns:,} ns a step", f"{each.efficiency:.1%} of the rate"]
    if each.copy_bytes_per_s:
        parts.append(f"{decimal(each.copy_bytes_per_s / 1e9, 'GB/s')} within the chip")
    return f"{each.name}: {', '.join(parts)}"


def collective(time: CollectiveTime, size_bytes: int, ranks: int) -> Page:
    """One time with its algorithm, bound and rate."""
    rate = decimal(size_bytes / (time.time_ps * 1e-12), "B/s") if time.time_ps and size_bytes else ""
    rows = [
        ("time", Shown(seconds(time.time_ps), value=time.time_ps / 1e12, unit="s")),
        ("bound by", time.bound),
        ("algorithm", time.algorithm),
        ("rate", rate),
        ("least time of the busiest level", Shown(seconds(time.least_ps), value=time.least_ps / 1e12, unit="s")),
    ]
    title = f"{time.operation} of {size_bytes:,} bytes on {ranks:,} ranks"
    return Page(title, [Table(("", "value"), rows, right=(1,))], kind="collective")
