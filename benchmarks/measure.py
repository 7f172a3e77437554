"""How a time is measured and under which conditions."""

import os
import platform
import statistics
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
