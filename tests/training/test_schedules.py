"""Schedules: every pass once, times equal to a simulation by events, published bubbles."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.training import schedules
from tapeout.training.schedules import FORWARD, WEIGHT, WHOLE_BACKWARD


def by_events(order, forward, backward, weight, transfer):
    """The same by a queue of events: a device takes its next pass when it is free and a message has come."""
    queues = [
        [tuple(row) for row in order.rows[first:last]]
        for first, last in zip(order.starts[:-1], order.starts[1:], strict=True)
    ]
    arrived, busy_until, ends = set(), [0.0] * len(queues), {}
    events = [(0.0, 0, ("start", 0, 0))]
    serial = 0

    def needs(row):
        kind, chunk, micro = row
        if kind == FORWARD:
            return None if chunk == 0 else ("F", chunk - 1, micro)
        if kind == WEIGHT or chunk == order.chunk_count - 1:
            return None
        return ("B", chunk + 1, micro)

    while events:
        now, _, message = heapq.heappop(events)
        arrived.add(message)
        for device, queue in enumerate(queues):
            while queue and busy_until[device] <= now and (needs(queue[0]) is None or needs(queue[0]) in arrived):
                kind, chunk, micro = queue.pop(0)
                lasts = (forward[chunk], backward[chunk], weight[chunk], backward[chunk] + weight[chunk])[kind]
                busy_until[device] = now + lasts
                ends[kind, chunk, micro] = now + lasts
                hop = 0.0
                if kind == FORWARD and chunk < order.chunk_count - 1:
                    hop = transfer[chunk]
                elif kind not in (FORWARD, WEIGHT) and chunk:
                    hop = transfer[chunk - 1]
                name = {FORWARD: "F", WEIGHT: "W"}.get(kind, "B")
                serial += 1
                heapq.heappush(events, (now + lasts + hop, serial, (name, chunk, micro)))
                heapq.heappush(events, (now + lasts, -serial, ("free", device, serial)))
    return ends


@st.composite
def cases(draw):
    schedule = draw(st.sampled_from(["gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipe"]))
    stages = draw(st.integers(1, 5))
    virtual = draw(st.integers(1, 3)) if schedule in ("interleaved", "zero-bubble") else 1
    micro = stages * draw(st.integers(1, 3)) if virtual > 1 else draw(st.integers(1, 9))
    if schedule == "dualpipe":
        stages, micro = 2 * draw(st.integers(1, 3)), 0
        micro = 2 * stages + 2 * draw(st.integers(0, 3))
    chunks = stages * virtual
    seconds = st.lists(st.integers(1, 9).map(float), min_size=chunks, max_size=chunks)
    hops = st.lists(st.integers(0, 4).map(float), min_size=chunks, max_size=chunks)
    return schedules.order(schedule, stages, micro, virtual), *(draw(seconds) for _ in range(3)), draw(hops)


@given(cases())
def test_times_are_those_of_a_simulation_by_events(case):
    order, *durations = case
    timeline = schedules.times(order, *durations)
    expected = by_events(order, *durations)
    for row, end in zip(order.rows, timeline.end, strict=True):
        assert end == expected[tuple(row)]


@given(cases())
def test_every_chunk_sees_every_micro_batch_once(case):
    order = case[0]
    rows = [tuple(row) for row in order.rows]
    assert len(set(rows)) == len(rows)
    every = order.chunk_count * order.micro_batches
    counts = np.bincount(order.rows[:, 0], minlength=4)
    assert counts[FORWARD] == every
    assert counts[WHOLE_BACKWARD] + counts[WEIGHT] == every
    assert counts[WHOLE_BACKWARD] + counts[1] == every


@pytest.mark.parametrize(
    ("schedule", "virtual", "bubble"),
    [("gpipe", 1, 3 * 3.0), ("1f1b", 1, 3 * 3.0), ("interleaved", 2, 3 * 3.0 / 2), ("zero-bubble", 1, 3 * 1.0)],
)
def test_bubbles_are_those_of_the_papers(schedule, virtual, bubble):
    """Four stages, F = B = W = 1: (S-1)(F+B+W), over the chunks if interleaved, (S-1)(F+B-W) without bubble."""
    order = schedules.order(schedule, 4, 8, virtual)
    seconds = [1.0 / virtual] * 4 * virtual
    assert schedules.times(order, seconds, seconds, seconds, [0.0] * len(seconds)).makespan == 24 + bubble


def test_in_flight():
    assert schedules.most_in_flight(schedules.order("1f1b", 4, 8)).tolist() == [4, 3, 2, 1]
    assert schedules.most_in_flight(schedules.order("gpipe", 4, 8)).tolist() == [8] * 4
    assert schedules.most_in_flight(schedules.order("zero-bubble", 4, 8)).tolist() == [4] * 4
    assert schedules.most_in_flight(schedules.order("dualpipe", 8, 20)).tolist() == [9] * 8
