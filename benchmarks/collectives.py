"""Collectives of clusters that exist against measured NCCL times; `--write` fits the constants again.

The rows are those of the package aiconfigurator-core whose shape hash falls below one half (`tapeout.models.measured`).
Protocols are fitted to those below a quarter and judged by the others; the constants that ship are fitted to all of
them. A time is the least among an operation's protocols, each a start, so much a step of a ring, the bytes over a share
of the links' rate, and the size over the rate of the copy within a chip (`tapeout.cluster.description.Protocol`).
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tapeout import cluster as clusters
from tapeout.cluster import Cluster, Level, Protocol
from tapeout.cluster import loading as cluster_files
from tapeout.models import measured
from tapeout.models.tables import DTYPE_BYTES, FIT_BELOW, share_of_hash

OPERATIONS = {
    "all_reduce": ("all_reduce",),
    "all_gather": ("all_gather", "broadcast", "reduce", "gather", "scatter", "send", "recv", "barrier"),
    "reduce_scatter": ("reduce_scatter",),
    "all_to_all": ("all_to_all",),
}
"""Each operation that was measured, and those that take its protocols because they were not."""

PROTOCOLS_OF_OPERATION = 4
STARTS = 12
BANDS = {"to 64 KiB": (0, 64 << 10), "to 4 MiB": (64 << 10, 4 << 20), "beyond": (4 << 20, 1 << 40)}
FEWEST_BYTES, MOST_BYTES, MOST_RANKS = 256, 512 << 20, 8
MOST_MEAN_ERROR, MOST_BAND_ERROR = 0.08, 0.12


@dataclass(frozen=True)
class System:
    """A measured system: its campaign, chip, and what one chip sends over NVLink (published, bytes/s)."""

    campaign: str
    chip: str
    bytes_per_s: int


SYSTEMS = {
    "a100x8": System("a100-vllm-0.14.0", "A100-SXM4-80GB", 300_000_000_000),
    "h100x8": System("h100-vllm-0.24.0", "H100-SXM5-80GB", 450_000_000_000),
    "h200x8": System("h200-vllm-0.24.0", "H200-SXM-141GB", 450_000_000_000),
    "b200x8": System("b200-vllm-0.24.0", "B200-SXM", 900_000_000_000),
}


@dataclass(frozen=True)
class Row:
    """One measured collective. `share`: where its shape's hash falls between 0 and 1."""

    operation: str
    ranks: int
    size_bytes: int
    seconds: float
    share: float


def rows_of(system: System) -> list[Row]:
    """The measured rows that may be looked at, of 256 bytes to 512 MiB on 2 to 8 ranks."""
    campaign = measured.campaigns()[system.campaign]
    folder = measured.package_folder()
    assert folder is not None, "pip install 'tapeout[models]' brings the measured rows"
    found = []
    for table in measured.tables_of(campaign):
        if table.kind.name not in measured.COLLECTIVES:
            continue
        assert table.seconds is not None
        size_bytes = table["message_size"] * DTYPE_BYTES[table.dtype]
        for key, ranks, size, seconds in zip(table.keys(), table["num_gpus"], size_bytes, table.seconds, strict=True):
            name = table.kind.name.replace("alltoall", "all_to_all")
            if FEWEST_BYTES <= size <= MOST_BYTES and ranks <= MOST_RANKS:
                found.append(Row(name, int(ranks), int(size), float(seconds), share_of_hash(key)))
    return found


def fitted(system: System, operation: str, rows: Sequence[Row]) -> list[Protocol]:
    """The protocols of an operation with the least error of the logarithm, from several starting points."""
    from scipy.optimize import least_squares

    ranks = np.array([row.ranks for row in rows])
    size = np.array([float(row.size_bytes) for row in rows])
    took_us = np.array([row.seconds for row in rows]) * 1e6
    passes = 2 if operation == "all_reduce" else 1
    steps = passes * (ranks - 1)
    sent_us = size * passes * (ranks - 1) / ranks / system.bytes_per_s * 1e6
    shape = (PROTOCOLS_OF_OPERATION, 4)  # start and step in µs, efficiency, ps to copy a byte

    def differences(logarithms: np.ndarray) -> np.ndarray:
        base, step, efficiency, copy = np.exp(logarithms).reshape(shape).T[:, :, None]
        each = base + step * steps + sent_us / np.minimum(efficiency, 1) + size * copy * 1e-6
        least = each.min(0)
        sharpness = 40  # a minimum that knows of the second best, so that the fit can change its mind
        soft = least * (1 - np.log(np.exp(-sharpness * (each / least - 1)).sum(0)) / sharpness)
        usual_step = 0.006 * (logarithms.reshape(shape)[:, 1] - math.log(0.8))
        return np.concatenate([np.log(soft / took_us), usual_step])

    random = np.random.default_rng(0)
    found = []
    for _ in range(STARTS):
        start = np.stack(
            [
                np.sort(random.uniform(math.log(3), math.log(60), shape[0])),
                np.log(random.uniform(0.2, 1.5, shape[0])),
                np.sort(random.uniform(math.log(0.005), 0, shape[0])),
                np.log(random.uniform(1e-3, 1, shape[0])),
            ],
            axis=1,
        )
        start[0, 0], start[-1, 2] = math.log(4), math.log(0.8)
        found.append(least_squares(differences, start.ravel(), loss="soft_l1", f_scale=0.05, max_nfev=300))
    best = np.exp(min(found, key=lambda fit: fit.cost).x).reshape(shape)
    return [
        Protocol(
            name=f"{operation} {number}",
            base_ns=round(base_us * 1000),
            step_ns=round(step_us * 1000),
            efficiency=round(min(efficiency, 1), 4),
            copy_bytes_per_s=round(1e12 / copy / 1e6) * 1_000_000,
            steps="ring",
            operations=OPERATIONS[operation],
        )
        for number, (base_us, step_us, efficiency, copy) in enumerate(sorted(best.tolist()), 1)
    ]


def described(name: str, system: System, rows: Sequence[Row]) -> Cluster:
    """The cluster with protocols fitted to these rows."""
    campaign = measured.campaigns()[system.campaign]
    protocols = [
        protocol
        for operation in OPERATIONS
        for protocol in fitted(system, operation, [row for row in rows if row.operation == operation])
    ]
    level = Level(name="NVLink", size=8, fabric="switch", bytes_per_s=system.bytes_per_s, latency_ns=0)
    version = campaign.tables["collectives"].split("/")[2]
    source = f"NCCL {version}, {len(rows)} rows of {campaign.source}"
    return Cluster(name=name, chip=system.chip, levels=(level,), protocols=tuple(protocols), measured=source)


def errors(cluster: Cluster, rows: Sequence[Row]) -> np.ndarray:
    """Relative error of the cluster's time for each measured row."""
    predicted = np.array(
        [
            clusters.collective_time(cluster, row.operation, row.size_bytes, range(row.ranks)).time_ps * 1e-12
            for row in rows
        ]
    )
    return np.abs(predicted / np.array([row.seconds for row in rows]) - 1)


def toml_of(cluster: Cluster) -> str:
    lines = [f"[{cluster.name}]", f'chip = "{cluster.chip}"', f'measured = "{cluster.measured}"']
    for level in cluster.levels:
        lines += [f"[[{cluster.name}.levels]]", f'name = "{level.name}"', f"size = {level.size}"]
        lines += [
            f'fabric = "{level.fabric}"',
            f"bytes_per_s = {level.bytes_per_s:_}",
            f"latency_ns = {level.latency_ns}",
        ]
    for each in cluster.protocols:
        names = ", ".join(f'"{operation}"' for operation in each.operations)
        lines += [f"[[{cluster.name}.protocols]]", f'name = "{each.name}"', f"operations = [{names}]"]
        lines += [f'steps = "{each.steps}"', f"base_ns = {each.base_ns:_}", f"step_ns = {each.step_ns:_}"]
        lines += [f"efficiency = {each.efficiency}", f"copy_bytes_per_s = {each.copy_bytes_per_s:_}"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] = ()) -> None:
    table = Table(title="Collectives against NCCL: mean error of rows that were not fitted")
    for header in ("cluster", "rows", "all", *BANDS, *OPERATIONS, "shipped constants, all rows"):
        table.add_column(header, justify="left" if header == "cluster" else "right", no_wrap=header == "cluster")
    written = []
    for name, system in SYSTEMS.items():
        rows = rows_of(system)
        checks = [row for row in rows if row.share >= FIT_BELOW]
        of_half = described(name, system, [row for row in rows if row.share < FIT_BELOW])
        wrong = errors(of_half, checks)
        size = np.array([row.size_bytes for row in checks])
        parts = [wrong[(size > least) & (size <= most)].mean() for least, most in BANDS.values()]
        by_operation = [wrong[np.array([row.operation == each for row in checks])].mean() for each in OPERATIONS]
        if "--write" in arguments:
            written.append(toml_of(described(name, system, rows)))
        whole = errors(clusters.load(name), rows).mean() if name in clusters.shipped() else math.nan
        figures = [wrong.mean(), *parts, *by_operation, whole]
        table.add_row(name, str(len(checks)), *(f"{100 * figure:.1f} %" for figure in figures))
    console = Console()
    console.print(table)
    console.print(f"bars: {100 * MOST_MEAN_ERROR:.0f} % over all, {100 * MOST_BAND_ERROR:.0f} % in each band of sizes")
    if written:
        path = Path(cluster_files.__file__).with_name(cluster_files.MEASURED)
        path.write_text("# Written by `python -m benchmarks collectives --write`.\n\n" + "\n".join(written), "utf-8")
        console.print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
