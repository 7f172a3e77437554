"""How fast the timing simulator is: core-cycles a host second on a 64-core product, and the cost of a small launch."""

import time

from rich.console import Console

from benchmarks.code_quality import cases, program_of, run
from benchmarks.measure import conditions, median_s
from tapeout import chip as chips
from tapeout.sim import timing


def main() -> None:
    chip = chips.load("training")
    case = cases(chip)[0]
    program = program_of(case.kernel, case.signature, chip, **case.constants)
    timing.simulate(program, chip, case.grid, case.arguments)
    start = time.process_time()
    result = timing.simulate(program, chip, case.grid, case.arguments)
    spent_s = time.process_time() - start
    core_cycles = result.cycles * result.core_count
    console = Console()
    console.print(conditions())
    console.print(
        f"{case.name} on {result.core_count} cores: {core_cycles / spent_s / 1e6:.1f} M core-cycles a CPU second "
        f"({result.cycles:,} cycles in {spent_s:.2f} s); bar: 20"
    )
    small = next(case for case in cases(chip) if "softmax" in case.name)
    program = program_of(small.kernel, small.signature, chip, **small.constants)
    one_s = median_s(lambda: timing.simulate(program, chip, (1, 1, 1), small.arguments))
    console.print(f"a launch of one program (softmax of 8 rows of 4096): {one_s * 1e6:.0f} us")
    assert run(case, chip).cycles == result.cycles
