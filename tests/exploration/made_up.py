"""A small space, and times that a formula tells instead of the simulator, so that a search takes a second."""

import json
import sys
from pathlib import Path

from tapeout.exploration import search, simulation, space, workloads

TEXT = """
base = "inference"
[fields]
core_count = [16, 24, 32, 48]
clock_hz = { from = 1_000_000_000, to = 1_800_000_000, step = 100_000_000 }
"core.vector.lane_count" = { from = 32, to = 128, times = 2 }
"hbm.stack_count" = { from = 2, to = 6, step = 1 }
[constraints]
export = { on = 2026-01-01 }
area_mm2 = { most = 450 }
[workloads.decode]
model = "smollm2-135m"
batch = 8
context = 512
[wanted]
most = ["speed_per_usd", "speed"]
"""


def seconds(chip, row):
    """A roofline with lanes, so that a field the forms do not know matters."""
    kind, _, sizes = row
    of = dict(sizes)
    work = 2 * of["m"] * of["n"] * of["k"] if kind == "gemm" else 1e6
    moved = of["n"] * of["k"] * 2 if kind == "gemm" else 1e6
    peak = chip.peak_flops_per_s("bfloat16")
    lanes = chip.core.vector.lane_count * chip.core_count * chip.clock_hz
    return 3e-6 + max(work / peak, moved / chip.hbm.bandwidth_bytes_per_s) + 1e6 / lanes


def simulate(self, chip, path):
    path.write_text(json.dumps({"seconds": [seconds(chip, row) for row in self.rows]}))


def explored(folder, limits, text=TEXT, progress=lambda *told: None):
    """A search with the formula."""
    folder.mkdir(exist_ok=True)
    file = folder / "space.toml"
    file.write_text(text)
    asked = space.read(file)
    simulation.Simulator._simulate = simulate
    return search.explore(asked, workloads.chosen(asked, ()), folder, limits, progress)


if __name__ == "__main__":
    explored(Path(sys.argv[1]), search.Limits(candidates=int(sys.argv[2]), fitted=8, checked=4))
