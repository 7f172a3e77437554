"""Measurement of a time, and its conditions."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


def median_s(run: Callable[[], Any], *, least_runs: int = 5, least_s: float = 0.5) -> float:
    """Median time of `run`, caches warm; from at least `least_runs` runs and `least_s` seconds."""
    run()
    times: list[float] = []
    while len(times) < least_runs or sum(times) < least_s:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def conditions() -> str:
    """One line on the machine, so that a figure can be judged later."""
    import torch
    import triton

    load = os.getloadavg()[0]
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, "
        f"torch {torch.__version__} ({torch.get_num_threads()} threads), triton {triton.__version__}"
    )


def timed_cold(script: str, chip: str, *arguments: str) -> tuple[float, float, str]:
    """Seconds and GiB of host memory to time a script on a chip, nothing computed and no kernel in any cache, and what
    it printed."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TRITON_CACHE_DIR": folder, "TAPEOUT_CACHE_DIR": f"{folder}/tapeout"}
        parts = "import torch; torch.empty(1, device='chip'); from triton.runtime import cache; cache.triton_key(); "
        parts += "from tapeout.sim.timing import fast; fast.library()"
        build = [sys.executable, "-c", parts]  # what is made once per installation: C++ parts, the digest of Triton
        subprocess.run(build, env=environment, check=True)
        command = [sys.executable, "-m", "tapeout", "run", "--timing-only", "--chip", chip, script, *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        elapsed_s = time.perf_counter() - start
    memory_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return elapsed_s, memory_gib, done.stdout
