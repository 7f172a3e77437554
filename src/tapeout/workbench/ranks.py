"""Runs a script as many ranks of torch.distributed, a chip a rank, or as one rank that stands for all.

The ranks are processes that torchrun starts; each is a `tapeout run` of its own, and leaves its times in a file.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tapeout import cluster as clusters
from tapeout.errors import TapeoutError
from tapeout.runtime.world import ALONE_VARIABLE
from tapeout.workbench.script import RunTime, Script
from tapeout.workbench.timeline import Timeline

RESULTS_VARIABLE = "TAPEOUT_RANK_RESULTS"
"""The folder in which a rank leaves its times. Set for the processes that `run_ranks` starts."""

TIMELINES_VARIABLE = "TAPEOUT_RANK_TIMELINES"
"""Set to "1" for them if a rank is to leave what its chip did, too."""


def run_ranks(
    script: Script, chip_names: Sequence[str], cluster: str | None, count: int, *, with_timelines: bool = False
) -> tuple[list[RunTime], list[Timeline]]:
    """Run the script as `count` ranks and return their times and, if wanted, what their chips did. Rank n runs on chip
    n of the names, taken in turn.

    Raises ChipError if the cluster has no room for them, TapeoutError if a rank fails.
    """
    if cluster is not None:
        clusters.load(cluster).check_ranks(count)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, RESULTS_VARIABLE: folder, "TAPEOUT_RANK_CHIPS": ",".join(chip_names)}
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment[TIMELINES_VARIABLE] = str(int(with_timelines))
        options = ["--timing-only"] * script.timing_only + ["--read-zeros"] * script.read_zeros
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        options += ["-m"] * script.is_module
        command = [*launcher, "-m", "tapeout", "run", *options, "--", script.name, *script.arguments]
        status = subprocess.run(command, env=environment).returncode
        results = sorted(Path(folder).glob("rank-*.json"))
        if status or len(results) != count:
            raise TapeoutError(f"{script.name} failed with status {status} on {count - len(results)} of {count} ranks")
        times = [RunTime.from_json(result.read_text("utf-8")) for result in results]
        left = sorted(Path(folder).glob("timeline-*.json"))
        return times, [Timeline.from_json(each.read_text("utf-8")) for each in left]


def wants_timeline() -> bool:
    """Return whether `run_ranks` wants to know what this rank's chip did."""
    return os.environ.get(TIMELINES_VARIABLE) == "1"


def leave_result(time: RunTime, timelines: Sequence[Timeline] = ()) -> bool:
    """Leave the times of this rank for `run_ranks`. Returns False in a process that it did not start."""
    folder = os.environ.get(RESULTS_VARIABLE)
    if folder is None:
        return False
    Path(folder, f"rank-{int(os.environ['RANK']):06}.json").write_text(time.to_json(), "utf-8")
    for timeline in timelines:
        Path(folder, f"timeline-{int(os.environ['RANK']):06}.json").write_text(timeline.to_json(), "utf-8")
    return True


def chip_of_this_rank() -> str | None:
    """Return the chip that `run_ranks` chose for this process, None in others."""
    names = os.environ.get("TAPEOUT_RANK_CHIPS")
    if names is None:
        return None
    chosen = names.split(",")
    return chosen[int(os.environ["RANK"]) % len(chosen)]


def join(cluster: str) -> None:
    """Let this process, and those it starts, be ranks of a cluster. Raises ChipError if there is none of that name."""
    clusters.load(cluster)
    os.environ[clusters.CLUSTER_VARIABLE] = cluster


def stand_for(rank: int, count: int, cluster: str | None) -> None:
    """Make this process rank `rank` of `count` that has no peers: every rank does what this one does.

    Raises TapeoutError for a rank that is not among them.
    """
    if not 0 <= rank < count:
        raise TapeoutError(f"--as-rank {rank} is not one of {count} ranks; choose from 0 to {count - 1}")
    if cluster is not None:
        join(cluster)
        found = clusters.load(cluster)
        found.check_ranks(count)
        board = found.levels[0].size or count
    else:
        board = count
    os.environ |= {
        ALONE_VARIABLE: "1",
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(board),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
    }
