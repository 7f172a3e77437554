"""Random programs on every example chip: the simulators give the evaluator's bytes, and both timing models one time."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import EXAMPLE_CHIPS, load
from tapeout.isa import Parameter
from tapeout.sim import timing
from tapeout.sim.evaluator import run
from tapeout.sim.state import Memory
from tapeout.sim.timing import fast, reference
from tapeout.testing.random_programs import random_case


def prepared(name, seed):
    used = load(name)
    case = random_case(seed, used, instruction_count=25)
    program = replace(case.program, parameters=(Parameter("memory", "*i8"),))
    memory = np.concatenate([case.image, np.zeros(used.core_count * program.workspace_bytes, np.uint8)])
    return used, case, program, memory


@pytest.mark.parametrize("name", EXAMPLE_CHIPS)
@pytest.mark.parametrize("seed", range(2))
def test_the_functional_simulator_gives_the_evaluators_bytes(name, seed):
    used, case, program, memory = prepared(name, seed)
    base, size = memory.ctypes.data, len(case.image)
    run(program, used, case.grid, (base,), Memory(base, memory), workspace=base + size)
    want = memory[:size].copy()
    memory[:size] = case.image
    runtime.load(program, used).launch(case.grid, (base,))
    np.testing.assert_array_equal(memory[:size], want)


@pytest.mark.parametrize("name", EXAMPLE_CHIPS)
def test_both_timing_models_count_the_same_cycles(name):
    used, case, program, memory = prepared(name, 5)
    base, workspace = 1 << 20, (1 << 20) + len(case.image)
    trace = timing.record_trace(program, used, case.grid, (base,), Memory(base, memory), workspace=workspace)
    one, other = (
        model.simulate(program, used, case.grid, (base,), data=trace, memory_base=base, workspace=workspace)
        for model in (reference, fast)
    )
    assert timing.differences(one, other) == []
