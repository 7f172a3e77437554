"""Compiled kernels and random programs on the RTL of `tiny`: bytes against the reference evaluator, cycles against the
timing simulator, and how fast the RTL runs: cycles of launches, in each of which all cores that have a program are
simulated (both of `tiny`, if the grid has more than one), by the host's seconds, making the models included.

The first run builds the model, which takes minutes. `python -m benchmarks.cosimulation [random programs]` runs more of
those than the default.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.measure import conditions
from tapeout.chip import tiny
from tapeout.report import cosimulation as report
from tapeout.report.page import Format, write
from tapeout.rtl import simulation
from tapeout.sim import evaluator
from tapeout.sim.state import Memory
from tapeout.testing.random_programs import random_case
from tapeout.workbench.cosimulation import compare_launches
from tapeout.workbench.script import Script

BASE = 0x40_0000
RANDOM_PROGRAMS = 20


def random_programs_that_differ(count: int) -> list[int]:
    """Seeds of random programs after which memory is not what the evaluator leaves."""
    differing = []
    for seed in range(count):
        case = random_case(seed, tiny, instruction_count=25)
        areas = np.zeros(tiny.core_count * case.program.workspace_bytes, np.uint8)
        expected = np.concatenate([case.image, areas])
        found = expected.copy()
        place = {"workspace": BASE + len(case.image)}
        evaluator.run(case.program, tiny, case.grid, (BASE,), Memory(BASE, expected), **place)
        simulation.run(case.program, tiny, case.grid, (BASE,), Memory(BASE, found), **place)
        if not np.array_equal(expected, found):
            differing.append(seed)
    return differing


def measure(random_count: int) -> None:
    comparisons = compare_launches(Script(Path(__file__).with_name("cosimulated_kernels.py")), tiny.name)
    write(report.page(tiny.name, comparisons), Format.text, None)
    errors = [abs(each.cycle_error) for each in comparisons]
    rate = sum(each.rtl_cycles for each in comparisons) / sum(each.rtl_cycles / each.rtl_hertz for each in comparisons)
    start = time.perf_counter()
    differing = random_programs_that_differ(random_count)
    Console().print(
        f"{sum(each.agrees for each in comparisons)} of {len(comparisons)} kernels agree in every byte; cycles of the "
        f"timing simulator are off by {statistics.mean(errors):.1%} in the mean, {max(errors):.1%} at worst "
        f"(bars: 3 %, 10 %); the RTL runs at {rate / 1e3:.1f} kHz, a cycle being one of all {tiny.core_count} cores "
        f"(bar: 30)\n"
        f"{random_count - len(differing)} of {random_count} random programs agree in every byte"
        f"{f', not those of seeds {differing}' if differing else ''}; {time.perf_counter() - start:.0f} s   "
        f"({conditions()})"
    )


def main() -> None:
    """In a process of its own: every launch in it is compared."""
    subprocess.run([sys.executable, "-m", "benchmarks.cosimulation"], check=True)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else RANDOM_PROGRAMS)
