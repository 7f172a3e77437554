"""A profile prices what the timing simulator counted."""

import io

import pytest
from rich.console import Console

from tapeout.chip import tiny
from tapeout.isa import Parameter, Program, assemble
from tapeout.report import profile as report
from tapeout.sim import timing
from tapeout.workbench import measured_activity, profiling
from tapeout.workbench.script import RunTime


def run_of(total_ps):
    return RunTime("tiny", total_ps, {}, {}, {}, {}, {}, False, 0)


def launch():
    text = "map1 function=neg dtype=f32 shape=1x1x1x64 a=@0x0{0,0,0,1} result=@0x400{0,0,0,1}\nhalt\n"
    program = Program("by_hand", tiny.name, assemble(text), (Parameter("memory", "*i8"),), 1 << 16)
    return timing.simulate(program, tiny, (1, 1, 1), (0,))


def test_two_launches_are_twice_the_counts_of_one():
    once, twice = (measured_activity.of_timings("run", [launch()] * count, 1e-6) for count in (1, 2))
    assert twice.vector_operations["float32"] == 2 * once.vector_operations["float32"] == 128
    assert twice.bytes_moved["scratchpad"] == 2 * once.bytes_moved["scratchpad"] > 0


def test_time_without_work_costs_clock_and_leakage():
    idle = profiling.profile(run_of(1_000_000), tiny, []).energy
    assert set(idle.by_block_j) == {"clock and control", "leakage"}
    assert idle.total_j == pytest.approx(sum(idle.by_block_j.values()))
    assert idle.low_j < idle.total_j < idle.high_j
    longer = profiling.profile(run_of(2_000_000), tiny, []).energy
    assert longer.total_j == pytest.approx(2 * idle.total_j)


def test_a_run_without_time_has_no_energy_and_no_line():
    nothing = profiling.profile(run_of(0), tiny, [])
    assert nothing.energy is None
    assert '"energy": null' in nothing.to_json()


def test_the_line_says_joules_range_provenance_and_blocks():
    console = Console(width=200, file=io.StringIO())
    for part in report.render(profiling.profile(run_of(1_000_000), tiny, [])):
        console.print(part)
    (line,) = (line for line in console.file.getvalue().splitlines() if line.startswith("  energy:"))
    assert "assumed" in line and "W on average: clock and control" in line
