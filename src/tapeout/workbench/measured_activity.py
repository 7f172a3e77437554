"""Counts of a simulator, as an `Activity` that `tapeout.silicon.power` prices in joules."""

from collections import Counter
from collections.abc import Iterable

from tapeout.numerics.dtypes import BY_LABEL
from tapeout.silicon.activity import Activity
from tapeout.sim.timing import Timing
from tapeout.workbench.work import Work


def of_timing(name: str, timing: Timing) -> Activity:
    """A launch as the timing simulator counted it. Elementwise operations count as float32, whatever their type."""
    return of_timings(name, [timing], timing.seconds)


def of_timings(name: str, timings: Iterable[Timing], duration_s: float) -> Activity:
    """Several launches within `duration_s`, which may be longer than they are: then the rest of it is idle."""
    products: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    operations = 0
    for timing in timings:
        for label, count in timing.multiply_accumulates.items():
            products[BY_LABEL[label].long_name] += count
        operations += timing.vector_operations
        moved["scratchpad"] += timing.scratchpad_bytes
        moved["last_level"] += timing.sram_read_bytes + timing.sram_written_bytes
        moved["memory"] += timing.hbm_read_bytes + timing.hbm_written_bytes
    return Activity(
        name=name,
        duration_s=duration_s,
        multiply_accumulates=products,
        vector_operations={"float32": operations},
        bytes_moved=moved,
    )


def of_work(name: str, work: Work, duration_s: float) -> Activity:
    """Return what the functional simulator counts, which is traffic to memory and nothing on the die: energy is a lower
    bound."""
    return Activity(
        name=name,
        duration_s=duration_s,
        bytes_moved={"memory": work.hbm_read_bytes + work.hbm_written_bytes},
    )
