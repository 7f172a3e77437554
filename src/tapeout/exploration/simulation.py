"""Operators of a whole chip, timed by the cycle simulator: a process a chip, results kept on disk.

What is asked is a list of shapes; what comes back is the simulated seconds of each, kernels compiled for that chip. A
file of a chip's times is written whole or not at all, so a run that was killed goes on where it was.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.errors import TapeoutError
from tapeout.exploration.workloads import Workload

Row = tuple[str, str, tuple[tuple[str, float], ...]]
"""Kind, element type and sizes of an operator."""


def rows_of(workloads: Sequence[Workload]) -> list[Row]:
    """Every shape of the workloads once, in order."""
    rows: dict[Row, None] = {}
    for workload in workloads:
        for operation in workload.operations:
            sizes = tuple((name, float(values[0])) for name, values in operation.table.columns.items())
            rows[operation.table.kind.name, operation.table.dtype, sizes] = None
    return list(rows)


@dataclass(frozen=True)
class Simulator:
    """Simulates shapes on chips, `jobs` at a time, and keeps what it found in `folder`."""

    folder: Path
    rows: tuple[Row, ...]
    jobs: int

    def times(self, chips: Iterable[Chip], done: Callable[[], None] = lambda: None) -> list[dict[Row, float] | str]:
        """Seconds of each shape on each chip; a sentence for a chip that cannot run one of them."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda chip: self._one(chip, done), chips))

    def _path(self, chip: Chip) -> Path:
        asked = hashlib.sha256(repr(self.rows).encode()).hexdigest()[:12]
        return self.folder / f"{chip.fingerprint()}-{asked}.json"

    def _one(self, chip: Chip, done: Callable[[], None]) -> dict[Row, float] | str:
        path = self._path(chip)
        if not path.exists():
            self._simulate(chip, path)
        done()
        told: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        if "fault" in told:
            return str(told["fault"])
        return dict(zip(self.rows, map(float, told["seconds"]), strict=True))

    def _simulate(self, chip: Chip, path: Path) -> None:
        asked = json.dumps({"chip": chip.to_dict(), "rows": self.rows})
        command = [sys.executable, "-m", "tapeout.exploration.simulation"]
        ended = subprocess.run(command, input=asked, capture_output=True, text=True)
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
            raise TapeoutError(f"the simulation of a candidate ended: {last[0]}")
        whole = path.with_suffix(f".{os.getpid()}.part")
        whole.write_text(ended.stdout.splitlines()[-1] + "\n", "utf-8")
        whole.replace(path)


def _simulate_here(asked: Mapping[str, Any]) -> dict[str, Any]:
    """In this process, which has used no chip yet."""
    from tapeout.chip.loading import from_plain
    from tapeout.models import measure
    from tapeout.workbench import script

    script.make_ready(from_plain(asked["chip"], "candidate"), timing_only=True)
    seconds = []
    for op, dtype, sizes in asked["rows"]:
        shape = {"op": op, **{name: int(value) for name, value in sizes}}
        try:
            seconds.append(measure.seconds_of_one("chip", shape, dtype))
        except (TapeoutError, RuntimeError) as error:
            return {"fault": f"{op} {dict(sizes)}: {str(error).splitlines()[0]}"}
    return {"seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(_simulate_here(json.load(sys.stdin))))
