"""Random Triton kernels with tiles around the size of a scratchpad, held against NumPy:
`python -m benchmarks random_kernels [--count N] [--first SEED] [--chip NAME]`. Fails if one is wrong or refused.

Kernels go in turn to the chip, to it with an eighth of its scratchpad, and with a quarter. Sources of those that fail
are kept in the folder that is printed.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.measure import conditions
from tapeout import chip
from tapeout.chip import Chip
from tests.passes.random_kernels import random_kernel

DEFAULT_COUNT = 300
PARTS = (8, 4, 1)
REPORTED = 100
"""Kernels between two lines of progress."""


def with_part_of_scratchpad(whole: Chip, part: int) -> Chip:
    scratchpad = replace(whole.core.scratchpad, size_bytes=whole.core.scratchpad.size_bytes // part)
    return replace(whole, name=f"{whole.name}-{part}", core=replace(whole.core, scratchpad=scratchpad))


def failure(seed: int, description: Chip, folder: Path) -> str | None:
    """Return what is wrong with a kernel, or None; a compiler that gives up is as wrong as a number."""
    try:
        found = random_kernel(seed, description.core.scratchpad.size_bytes).differences(folder, description)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    path = folder / f"random_kernel_{seed}.py"
    if not found:
        path.unlink()
    return "; ".join(found) or None


def main(options: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks random_kernels")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--chip", default="tiny")
    asked = parser.parse_args(options or [])
    console, whole = Console(), chip.load(asked.chip)
    folder = Path(tempfile.mkdtemp(prefix="tapeout-random-kernels-"))
    start, failed = time.process_time(), 0
    for count, seed in enumerate(range(asked.first, asked.first + asked.count), 1):
        description = with_part_of_scratchpad(whole, PARTS[seed % len(PARTS)])
        problem = failure(seed, description, folder)
        if problem is not None:
            failed += 1
            console.print(f"seed {seed} on {description.name}: {problem}", markup=False)
        if count % REPORTED == 0:
            Console(stderr=True).print(f"{count} kernels")
    seconds = time.process_time() - start
    console.print(
        f"{asked.count} random kernels on {asked.chip}: {failed} wrong or refused; {seconds:.0f} CPU s ({folder})"
    )
    console.print(conditions())
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
