"""`tapeout clusters` and `tapeout collective`: how chips are connected, and the time of a collective."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tapeout.errors import TapeoutError
from tapeout.report.page import Format, write

_SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as "64MiB", "256" or "1.5 GB". Raises TapeoutError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].lower() not in _SIZES:
        raise TapeoutError(f"{text!r} is not a size; write it like 64MiB, 1.5GB or 4096")
    size = float(match[1]) * _SIZES[match[2].lower()]
    if size != int(size):
        raise TapeoutError(f"{text!r} is not a whole number of bytes")
    return int(size)


def clusters(
    cluster: Annotated[str | None, typer.Argument(help="A cluster's name or TOML file (default: list all).")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """List the clusters that ship, or show the levels of one."""
    from tapeout import cluster as known
    from tapeout.report import clusters as report

    page = report.listing(known.shipped().values()) if cluster is None else report.levels(known.load(cluster))
    write(page, form, output)


def collective(
    cluster: Annotated[str, typer.Argument(help="A cluster's name or TOML file.")],
    operation: Annotated[str, typer.Argument(help="Collective: all_reduce, all_gather, reduce_scatter, all_to_all, …")],
    size: Annotated[str, typer.Argument(help="Size as NCCL's tests count it: 64MiB, 1GB, 4096.")],
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Number of ranks, from place 0 on (default: all, or 1,024).")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show how long a collective takes on a cluster, which algorithm is used and what limits it."""
    from tapeout import cluster as known
    from tapeout.report import clusters as report

    if operation not in known.OPERATIONS:
        raise TapeoutError(f"there is no collective {operation!r}; choose from {', '.join(known.OPERATIONS)}")
    found = known.load(cluster)
    count = ranks or (2 if operation in ("send", "recv") else found.place_count or 1024)
    found.check_ranks(count)
    wanted = size_bytes(size)
    time = known.collective_time(found, operation, wanted, range(count))
    write(report.collective(time, wanted, count), form, output)
