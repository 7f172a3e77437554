"""The trace keeps the rules of Chrome's JSON trace-event format that Perfetto's importer relies on.

The rules are those of the format's documentation ("Trace Event Format") and of Perfetto's importer: what each phase of
event must carry, times as microseconds that become whole nanoseconds, and slices of one track that nest or follow each
other. A slice that does neither is dropped by Perfetto, silently.
"""

import dataclasses
import gzip
import json
from collections import defaultdict

import numpy as np
import pytest

from tapeout import chip
from tapeout.report import perfetto
from tapeout.runtime.clock import Activity, Kind, Launch
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tapeout.sim.timing.trace import flat
from tapeout.testing.random_programs import random_case

TINY = chip.load("tiny")
METADATA = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}


def recorded(seed):
    """A copy, a launch of a random program, and an operator on the host."""
    base = 1 << 20
    case = random_case(seed, TINY, instruction_count=30)
    workspace = base + len(case.image)
    image = np.concatenate([case.image, np.zeros(TINY.core_count * case.program.workspace_bytes, np.uint8)])
    memory = Memory(base, image)
    data = flat(timing.record_trace(case.program, TINY, case.grid, (base,), memory, workspace=workspace))
    result = timing.simulate(case.program, TINY, case.grid, (base,), data=data, workspace=workspace)
    launch = Launch(case.program, TINY, case.grid, (base,), workspace, data, (), result)
    end_ps = 5_000 + result.cycles * 1000
    return [
        Activity(Kind.COPY_TO_CHIP, "copy", "aten::copy_", 0, 0, 0, 5_000, size_bytes=64),
        Activity(Kind.KERNEL, case.program.name, "", 0, 3_000, 5_000, end_ps, launch=launch),
        Activity(Kind.HOST_OPERATOR, "aten::foo", "aten::foo", 0, end_ps, end_ps, end_ps),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_trace_is_what_perfetto_reads(seed, tmp_path):
    path = tmp_path / "trace.json.gz"
    perfetto.trace(recorded(seed), all_cores=True).write(path)
    read = json.loads(gzip.decompress(path.read_bytes()))
    assert read["displayTimeUnit"] in ("ms", "ns")
    tracks, named, slices, arrows = set(), set(), defaultdict(list), defaultdict(list)
    for event in read["traceEvents"]:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        track = (event["pid"], event["tid"])
        if event["ph"] == "M":
            assert METADATA[event["name"]] in event["args"]
            named.add(track if event["name"] == "thread_name" else event["pid"])
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            start_ns, duration_ns = int(event["ts"] * 1000), int(event["dur"] * 1000)
            assert duration_ns >= 0
            slices[track].append((start_ns, -duration_ns))
            tracks.add(track)
        elif event["ph"] in "sf":
            arrows[event["id"]].append((event["ts"], event["ph"], track))
        elif event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
            tracks.add(track)
        else:
            assert event["ph"] == "C" and all(isinstance(value, int | float) for value in event["args"].values())
    assert tracks and tracks <= named and {pid for pid, _ in tracks} <= named
    for (from_us, first, source), (to_us, second, target) in arrows.values():
        assert (first, second) == ("s", "f") and from_us <= to_us and {source, target} <= tracks
        starts = {ts for ts in (from_us, to_us)}
        assert starts <= {event["ts"] for event in read["traceEvents"] if event["ph"] == "X"}
    for found in slices.values():
        open_until: list[int] = []
        for start_ns, negative_ns in sorted(found):
            while open_until and open_until[-1] <= start_ns:
                open_until.pop()
            assert not open_until or start_ns - negative_ns <= open_until[-1]
            open_until.append(start_ns - negative_ns)


def test_a_span_of_one_cycle_keeps_its_length():
    activities = recorded(0)
    quick = dataclasses.replace(TINY, clock_hz=1_350_000_000)
    launch = dataclasses.replace(activities[1].launch, chip=quick)
    events = perfetto.trace([dataclasses.replace(activities[1], launch=launch)]).events
    lengths = {
        event["args"]["cycles"]: event["dur"]
        for event in events
        if event["ph"] == "X" and "cycles" in event.get("args", {})
        if "instruction" in event["args"]
    }
    assert lengths[1] == pytest.approx(1 / 1350, rel=2e-3)


def test_what_a_trace_leaves_out_it_says(monkeypatch):
    monkeypatch.setattr(perfetto, "ACTIVITIES", 2)
    trace = perfetto.trace(recorded(1))
    assert trace.caption == "engines of 1 of 1 distinct launches; the last 1 of 3 activities are left out"


def test_an_arrow_leads_from_who_gave_a_semaphore_to_who_waited():
    launch = recorded(1)[1].launch
    cores = perfetto._by_core(launch, True)
    pairs = [pair for own in cores.values() for pair in perfetto.semaphores_given(launch.program, own)]
    items = launch.program.instructions
    assert pairs
    for giver, taker in pairs:
        given = {items[giver.instruction_index].signal_a, items[giver.instruction_index].signal_b}
        assert given & perfetto._taken(items[taker.instruction_index])
        assert taker.start - taker.waited_cycles <= giver.end <= taker.start
