"""Random programs on a cut-down core of the RTL, for a night: `python -m benchmarks.rtl_random_programs [count] [first
seed]` holds their bytes against the reference evaluator and their cycles against the timing simulator."""

import statistics
import sys
import time

import numpy as np

from tapeout.rtl import simulation
from tapeout.sim import evaluator, timing
from tapeout.sim.evaluator import Memory
from tapeout.sim.generate import random_case
from tests.rtl.cut_down import SMALL

BASE = 0x40_0000
REPORTED = 20
"""Programs between two lines of the report."""


def cycle_error(seed: int) -> float:
    """What the timing simulator is off by, of the RTL's cycles. Raises AssertionError if a byte differs."""
    case = random_case(seed, SMALL, instruction_count=25)
    area = np.zeros(SMALL.core_count * case.program.workspace_bytes, np.uint8)
    expected = np.concatenate([case.image, area])
    found, before = expected.copy(), expected.copy()
    arguments, place = (case.program, SMALL, case.grid, (BASE,)), {"workspace": BASE + len(case.image)}
    evaluator.run(*arguments, Memory(BASE, expected), **place)
    on_rtl = simulation.run(*arguments, Memory(BASE, found), optimised=False, **place)
    assert np.array_equal(expected, found), f"seed {seed}: memory differs"
    data = timing.record_trace(*arguments, Memory(BASE, before), **place)
    latency = {"memory_base": BASE, "memory_latency_cycles": SMALL.last_level_sram.latency_cycles}
    return timing.simulate(*arguments, data=data, **latency, **place).cycles / on_rtl.cycles - 1


def main(count: int, first: int) -> None:
    start, errors = time.perf_counter(), []
    for seed in range(first, first + count):
        errors.append(abs(cycle_error(seed)))
        if len(errors) % REPORTED == 0 or len(errors) == count:
            print(
                f"{len(errors)} programs agree in every byte; cycles are off by {statistics.mean(errors):.2%} in the "
                f"mean, {max(errors):.1%} at worst; {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
