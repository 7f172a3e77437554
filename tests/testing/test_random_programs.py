"""Random programs are legal, reproducible, and mean the same whatever order the queues take."""

import numpy as np
import pytest

from tapeout.chip import load
from tapeout.isa import Program
from tapeout.sim.evaluator import run
from tapeout.sim.schedules import ProgramOrder, adversaries
from tapeout.sim.state import Memory
from tapeout.testing.random_programs import random_case
from tapeout.testing.random_writing import FULL, SHORT

CHIP = load("inference")
BASE = 0x40_0000


def outcome(case, schedule):
    """The memory image after a run."""
    workspace = np.zeros(CHIP.core_count * case.program.workspace_bytes, np.uint8)
    memory = Memory(BASE, np.concatenate([case.image, workspace]))
    run(case.program, CHIP, case.grid, (BASE,), memory, workspace=BASE + len(case.image), schedule=schedule)
    return memory.data[: len(case.image)]


def test_the_same_seed_gives_the_same_case():
    first, second, other = (random_case(seed, CHIP) for seed in (3, 3, 4))
    assert first.program == second.program and (first.image == second.image).all()
    assert first.program != other.program


@pytest.mark.parametrize(("seed", "sizes"), [(n, FULL) for n in range(8)] + [(n, SHORT) for n in range(4)])
def test_random_programs_mean_the_same_under_every_schedule(seed, sizes):
    case = random_case(seed, CHIP, instruction_count=25, sizes=sizes)
    assert Program.decode(case.program.encode()) == case.program
    want = outcome(case, ProgramOrder())
    schedules = adversaries(seed, random_count=2)
    for schedule in schedules[seed % 3 + 1 :: 3]:
        np.testing.assert_array_equal(outcome(case, schedule), want, err_msg=str(schedule))
    assert (want != case.image).any()
