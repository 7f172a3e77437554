"""Random programs on a cut-down core of the RTL: `python -m benchmarks.rtl_random_programs [count] [first seed]
[design]` holds their bytes against the reference evaluator and their cycles against the timing simulator, and counts
what the RTL executed. The design is `microcoded` or `pipelined`. The host's cores share the programs out. Fails if a
byte differs.
"""

import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter

from rich.console import Console

from benchmarks.measure import conditions
from tapeout.chip import Chip
from tapeout.isa.fields import BY_MNEMONIC
from tapeout.report.page import Format, Page, Paragraph, Table, write
from tapeout.rtl import simulation
from tests.rtl.cut_down import PIPELINED, SMALL
from tests.rtl.random_programs import Agreement, agreement

DEFAULT_COUNT = 2000
REPORTED = 200
"""Programs between two lines of progress."""


def keep_to_one_core(numbers: "multiprocessing.Queue[int]") -> None:
    """So that the testbench steps the cores of a launch in one thread."""
    os.sched_setaffinity(0, {numbers.get()})


def agreement_of(chip: Chip, seed: int) -> Agreement:
    with tempfile.TemporaryDirectory() as folder:
        return agreement(seed, folder, chip=chip, optimised=True)


def measure(count: int, first: int, chip: Chip) -> list[Agreement]:
    simulation.library(chip)  # made once, before the workers ask for it
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for core in cores:
        numbers.put(core)
    found: list[Agreement] = []
    with context.Pool(len(cores), keep_to_one_core, (numbers,)) as pool:
        for one in pool.imap_unordered(functools.partial(agreement_of, chip), range(first, first + count)):
            found.append(one)
            if one.difference:
                Console().print(f"seed {one.seed}: {one.difference}")
            if len(found) % REPORTED == 0:
                Console(stderr=True).print(f"{len(found)} programs")
    return found


def page(found: list[Agreement], seconds: float, chip: Chip) -> Page:
    cycles = sum(one.rtl_cycles for one in found)
    errors = [abs(one.cycle_error) for one in found]
    wrong = sorted(one.seed for one in found if one.difference)
    executed: Counter[tuple[str, ...]] = sum((one.executed for one in found), Counter())
    rows = []
    for mnemonic, kind in sorted(BY_MNEMONIC.items(), key=lambda pair: (pair[1].unit.value, pair[0])):
        mine = {key: times for key, times in executed.items() if key[0] == mnemonic}
        programs = sum(any(key[0] == mnemonic for key in one.executed) for one in found)
        rows.append((mnemonic, kind.unit.value, f"{programs:,}", f"{sum(mine.values()):,}", f"{len(mine):,}"))
    summary = (
        f"{len(found) - len(wrong):,} of {len(found):,} programs leave the evaluator's bytes"
        f"{f', not those of seeds {wrong}' if wrong else ''}. They took {cycles:,} cycles; "
        f"the timing simulator's are off by {statistics.mean(errors):.2%} in the mean, {max(errors):.1%} at worst. "
        f"{seconds:.0f} s, {len(found) / seconds:.1f} programs a second ({conditions()})."
    )
    columns = ("instruction", "unit", "programs", "executed", "functions and types")
    return Page(f"Random programs on the RTL of {chip.name}", [Paragraph(summary), Table(columns, rows, (2, 3, 4))])


def main(count: int, first: int, design: str) -> None:
    start = time.perf_counter()
    chip = {"microcoded": SMALL, "pipelined": PIPELINED}[design]
    found = measure(count, first, chip)
    write(page(found, time.perf_counter() - start, chip), Format.text, None)
    if any(one.difference for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    given = [*sys.argv[1:], *(str(DEFAULT_COUNT), "0", "microcoded")[len(sys.argv) - 1 :]]
    main(int(given[0]), int(given[1]), given[2])
