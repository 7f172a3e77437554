"""A profile prices what the timing simulator counted."""

import dataclasses
import json

import pytest

from tapeout.chip import inference, tiny
from tapeout.isa import Parameter, Program, assemble
from tapeout.report import profile as report
from tapeout.report.page import to_html, to_json, to_text
from tapeout.sim import timing
from tapeout.workbench import measured_activity, profiling
from tapeout.workbench.at_work import at_work
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
    shown = to_text(report.page(profiling.profile(run_of(1_000_000), tiny, []), tiny))
    line = " ".join(shown[shown.index("Energy:") :].split())
    assert "assumed" in line and "W on average: clock and control" in line


def test_the_share_at_work_weighs_each_block_by_its_area():
    quiet = dict(kernels_ps=0, copies_ps=0, links_ps=0, engine_busy={}, hbm_bytes=0, sram_bytes=0)
    assert at_work(tiny, total_ps=10**9, **quiet).area_share == 0
    full = at_work(
        inference,
        total_ps=10**9,
        kernels_ps=10**9,
        copies_ps=10**9,
        links_ps=10**9,
        engine_busy={"matrix": 1.0, "vector": 1.0},
        hbm_bytes=10**15,
        sram_bytes=10**15,
    )
    idle = next(block for block in full.blocks if block.name == "float64 lanes")
    assert full.area_share == pytest.approx(1 - idle.area_share)
    assert full.transistor_share == pytest.approx(1 - idle.transistor_share)
    assert sum(block.area_share for block in full.blocks) == pytest.approx(1)
    half = at_work(inference, total_ps=10**9, **{**quiet, "hbm_bytes": 2_400_000_000})
    memory = next(block for block in half.blocks if block.name == "memory interfaces")
    assert memory.busy == pytest.approx(0.5) and half.area_share == pytest.approx(memory.area_share / 2)


def test_the_page_draws_a_dot_a_kernel_below_its_roofs():
    clock_kept = profiling.KernelRow(
        name="product<1>",
        operator="aten::mm",
        launches=2,
        total_ps=10**6,
        share=1.0,
        bound="matrix",
        limits={"matrix": 0.9},
        stalls={},
        roofline_share=0.9,
        matrix_utilisation=0.9,
        operations=10**8,
        hbm_bytes=10**6,
        sram_bytes=10**6,
    )
    whole = dataclasses.replace(profiling.profile(run_of(10**6), tiny, []), kernels=(clock_kept,))
    page = report.page(whole, tiny, rows=None)
    html = to_html(page)
    assert html.count("<circle") == 1 and "product&lt;1&gt;: 100.0% of the time" in html
    assert html.count("<path") == 2 and "matrix, bfloat16" in html
    scatter = next(section["scatters"] for section in json.loads(to_json(page))["sections"] if section["scatters"])
    assert (scatter[0]["dots"][0]["x"], scatter[0]["dots"][0]["y"]) == (100, 1e14)
