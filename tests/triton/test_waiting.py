"""Programs that wait for each other: locks work, waiting for a later program is refused instead of hanging."""

import pytest
import torch
import triton
import triton.language as tl

from tapeout.errors import LaunchError
from tests.triton.harness import run


@triton.jit
def barrier_of_whole_grid(count, out):
    tl.atomic_add(count, 1)
    while tl.atomic_add(count, 0) < tl.num_programs(0):
        pass
    tl.store(out + tl.program_id(0), 1.0)


@triton.jit
def barrier_with_carried_value(count, out):
    seen = tl.atomic_add(count, 1) + 1
    while seen < tl.num_programs(0):
        seen = tl.load(count, volatile=True)
    tl.store(out + tl.program_id(0), 1.0)


@triton.jit
def lock_never_released(count, out):
    while tl.atomic_cas(count, 0, 1) == 1:
        pass
    tl.store(out + tl.program_id(0), 1.0)


@triton.jit
def lock_that_counts_its_turns(count, out):
    turns = 0
    while tl.atomic_xchg(count, 1) == 1:
        turns += 1
    tl.store(out + tl.program_id(0), turns)


@triton.jit
def flag_is_a_float(count, out):
    flag = 0.0
    while flag < 1.0:
        flag = tl.load(out + tl.program_id(0) + 1, volatile=True)
    tl.store(out + tl.program_id(0), 1.0)


@pytest.mark.parametrize(
    ("kernel", "program"),
    [
        (barrier_of_whole_grid, 0),
        (barrier_with_carried_value, 0),
        (lock_never_released, 1),
        (lock_that_counts_its_turns, 1),
        (flag_is_a_float, 0),
    ],
)
def test_waiting_for_a_later_program_is_refused(kernel, program):
    with pytest.raises(LaunchError) as error:
        run(kernel, (4,), {"count": torch.zeros(1, dtype=torch.int32), "out": torch.zeros(4)})
    place, _, sentence = str(error.value).partition(f": {kernel.__name__}: ")
    assert place.split(":")[0].endswith("test_waiting.py")
    assert sentence == (
        f"program ({program}, 0, 0) waits in this loop for memory that only another program can change. Programs of a "
        "grid run in order, each to its end before a core takes the next, so a kernel must not need a later program, "
        "or all of them at once; split it into several launches"
    )


@triton.jit
def look_back(flags, sums, x, out, N: tl.constexpr):
    """An inclusive scan over programs: each waits for the one before it, which has run."""
    pid, i = tl.program_id(0), tl.arange(0, N)
    own = tl.sum(tl.load(x + pid * N + i), 0)
    before = 0.0
    if pid > 0:
        while tl.atomic_add(flags + pid - 1, 0) == 0:
            pass
        before = tl.load(sums + pid - 1)
    tl.store(sums + pid, before + own)
    tl.atomic_xchg(flags + pid, 1)
    tl.store(out + pid * N + i, before + tl.cumsum(tl.load(x + pid * N + i), 0))


def test_waiting_for_an_earlier_program_works():
    x = torch.arange(64.0)
    arguments = {"flags": torch.zeros(8, dtype=torch.int32), "sums": torch.zeros(8), "x": x, "out": torch.zeros(64)}
    assert torch.equal(run(look_back, (8,), arguments, N=8)["out"], x.cumsum(0))


@triton.jit
def try_a_while(lock, out):
    turns = 0
    while (tl.atomic_cas(lock, 0, 1) == 1) & (turns < 1000):
        turns += 1
    tl.store(out + tl.program_id(0), turns)


def test_waiting_that_gives_up_works():
    result = run(try_a_while, (3,), {"lock": torch.zeros(1, dtype=torch.int32), "out": torch.zeros(3)})
    assert result["out"].tolist() == [0.0, 1000.0, 1000.0]
