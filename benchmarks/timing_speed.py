"""Speed of the timing simulator: core-cycles a host second on a 64-core product, the cost of a small launch, and
how long it takes, with no kernel in any cache, to time a decoder block of Llama 2 7B."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.code_quality import cases, program_of, run
from benchmarks.measure import conditions, median_s, timed_cold
from tapeout import chip as chips
from tapeout.sim import timing

BLOCK = Path(__file__).parents[1] / "examples" / "llama_7b_block.py"
DECODE = ("--batch", "8", "--context", "2048")
PREFILL = ("--prompt", "2048")


def time_blocks(console: Console) -> None:
    """The whole process, and the same without what importing torch takes on any device."""
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    imports = partial(subprocess.run, [sys.executable, "-c", "import torch"], check=True, env=environment)
    imports_s = median_s(imports, least_runs=3)
    table = Table(
        "Llama 2 7B decoder block", "chip", "to time it, cold", "less imports", "bar", "the chip's time",
        caption=f"importing torch: {imports_s:.1f} s",
    )  # fmt: skip
    for name, arguments, bar_s in (
        ("decode, batch 8, context 2048", DECODE, 10),
        ("prefill, 2048 tokens", PREFILL, 30),
    ):
        for chip in ("training", "inference"):
            elapsed_s, _, printed = timed_cold(str(BLOCK), chip, *arguments)
            block = re.search(r"decoder block: (.*)", printed)
            assert block is not None, printed
            table.add_row(name, chip, f"{elapsed_s:.1f} s", f"{elapsed_s - imports_s:.1f} s", f"{bar_s} s", block[1])
    console.print(table)


def main() -> None:
    chip = chips.load("training")
    case = cases(chip)[0]
    program = program_of(case.kernel, case.signature, chip, **case.constants)
    result = timing.simulate(program, chip, case.grid, case.arguments)
    spent_s = median_s(partial(timing.simulate, program, chip, case.grid, case.arguments), least_runs=7)
    core_cycles = result.cycles * result.core_count
    console = Console()
    console.print(conditions())
    console.print(
        f"{case.name} on {result.core_count} cores: {core_cycles / spent_s / 1e6:.1f} M core-cycles a second "
        f"({result.cycles:,} cycles in {spent_s:.2f} s); bar: 20"
    )
    small = next(case for case in cases(chip) if "softmax" in case.name)
    program = program_of(small.kernel, small.signature, chip, **small.constants)
    one_s = median_s(lambda: timing.simulate(program, chip, (1, 1, 1), small.arguments))
    console.print(f"a launch of one program (softmax of 8 rows of 4096): {one_s * 1e6:.0f} us")
    assert run(case, chip).cycles == result.cycles
    time_blocks(console)
