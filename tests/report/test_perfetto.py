"""The trace keeps the rules of Chrome's JSON trace-event format that Perfetto's importer relies on.

The rules are those of the format's documentation ("Trace Event Format") and of Perfetto's importer: what each phase of
event must carry, times as microseconds that become whole nanoseconds, and slices of one track that nest or follow each
other. A slice that does neither is dropped by Perfetto, silently.
"""

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
    path = tmp_path / "trace.json"
    perfetto.trace(recorded(seed), all_cores=True).write(path)
    read = json.loads(path.read_text())
    assert read["displayTimeUnit"] in ("ms", "ns")
    tracks, named, slices = set(), set(), defaultdict(list)
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
        elif event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
            tracks.add(track)
        else:
            assert event["ph"] == "C" and all(isinstance(value, int | float) for value in event["args"].values())
    assert tracks and tracks <= named and {pid for pid, _ in tracks} <= named
    for found in slices.values():
        open_until: list[int] = []
        for start_ns, negative_ns in sorted(found):
            while open_until and open_until[-1] <= start_ns:
                open_until.pop()
            assert not open_until or start_ns - negative_ns <= open_until[-1]
            open_until.append(start_ns - negative_ns)
