"""The virtual clock: what waits for what, in exact picoseconds."""

import pytest

from tapeout.chip import load
from tapeout.errors import TapeoutError
from tapeout.runtime import clock, session
from tapeout.runtime.clock import Kind, VirtualClock

NS = clock.PICOSECONDS_PER_NANOSECOND


def launch(now, duration_ps, stream=0, submission_ps=3000):
    return now.work(Kind.KERNEL, "k", duration_ps, stream=stream, submission_ps=submission_ps)


def test_the_first_launch_shows_its_overhead_and_long_kernels_hide_the_next():
    now = VirtualClock()
    assert launch(now, 10_000) == 3_000 + 10_000
    assert launch(now, 10_000) == 13_000 + 10_000  # submitted at 6000, while the first ran
    assert now.elapsed.total_ps == 23_000


def test_short_kernels_wait_for_the_host():
    now = VirtualClock()
    assert [launch(now, 100) for _ in range(3)] == [3_100, 6_100, 9_100]


def test_a_replayed_graph_is_one_launch_and_a_gap_before_each_further_kernel():
    now = VirtualClock()
    with now.replaying(7):
        assert [launch(now, 100) for _ in range(3)] == [3_100, 3_207, 3_314]
    assert launch(now, 100) == 6_100  # the host went on at 3000
    assert now.elapsed.busy_ps == {Kind.KERNEL: 400}


def test_the_gap_of_a_graph_is_two_reads_of_memory_and_a_dispatch():
    chip = load("tiny")
    cycles = 2 * chip.last_level_sram.latency_cycles + chip.host.dispatch_cycles
    assert clock.graph_gap_ps(chip) == clock.kernel_ps(cycles, chip) + 2 * chip.hbm.latency_ns * NS


def test_copies_and_kernels_of_different_streams_go_on_side_by_side():
    now = VirtualClock()
    launch(now, 50_000, stream=0, submission_ps=0)
    assert now.work(Kind.COPY_TO_CHIP, "c", 20_000, stream=1) == 20_000
    assert now.work(Kind.COPY_TO_HOST, "c", 30_000, stream=2) == 30_000
    assert now.work(Kind.COPY_TO_CHIP, "c", 20_000, stream=2) == 50_000  # in stream 2 after the copy before it
    assert now.elapsed.total_ps == 50_000


def test_kernels_of_different_streams_take_turns_on_the_cores():
    now = VirtualClock()
    launch(now, 50_000, stream=0, submission_ps=0)
    assert launch(now, 10_000, stream=1, submission_ps=0) == 60_000


def test_a_stream_waits_for_an_event_of_another():
    now = VirtualClock()
    now.work(Kind.COPY_TO_CHIP, "c", 40_000, stream=1)
    event = now.moment(1)
    now.wait(0, event.time_ps)
    assert launch(now, 1_000, submission_ps=0) == 41_000


def test_the_host_waits_for_a_blocking_copy_and_for_synchronize():
    now = VirtualClock()
    launch(now, 50_000, submission_ps=0)
    now.work(Kind.COPY_TO_HOST, "c", 5_000, host_waits=True)
    assert now.moment(7).time_ps == 55_000  # an idle stream is as far as the host
    launch(now, 10_000, submission_ps=0)
    now.synchronize()
    assert now.moment(7).time_ps == 65_000


def test_polling_ends():
    now = VirtualClock()
    launch(now, 10_000, submission_ps=0)
    end = now.moment().time_ps
    asked = 0
    while not now.poll(end, 2_000):
        asked += 1
    assert asked == 5


def test_what_has_no_known_time_is_counted_and_never_zero():
    now = VirtualClock(record=True)
    launch(now, 10_000, submission_ps=0)
    before = now.moment()
    now.host_operator("aten::sort")
    now.host_operator("aten::sort")
    now.untimed_kernel("tree")
    assert now.moment().unknown_count - before.unknown_count == 3
    assert dict(now.elapsed.host_operators) == {"aten::sort": 2}
    assert dict(now.elapsed.untimed_kernels) == {"tree": 1}
    assert [activity.kind for activity in now.activities] == [Kind.KERNEL, Kind.HOST_OPERATOR, Kind.HOST_OPERATOR]
    assert now.activities[1].start_ps == 10_000  # the host operator waited for the chip


def test_launches_taken_up_later_have_the_times_they_would_have_had_at_once():
    launches = [(50_000, 3_000, 0), (10_000, 3_000, 1), (100, 3_000, 0), (70_000, 0, 1)]

    class Backlog:
        handle = 0

        def __init__(self, launches):
            self.launches = launches

        def take(self):
            taken, self.launches = self.launches, []
            return taken

    at_once, later = VirtualClock(), VirtualClock()
    for now in (at_once, later):
        launch(now, 20_000, stream=1)
        now.wait(0, 40_000)
    for duration_ps, submission_ps, stream in launches:
        launch(at_once, duration_ps, stream, submission_ps)
    later.backlog = Backlog(launches)
    assert later.elapsed == at_once.elapsed
    assert [later.moment(stream) for stream in (0, 1)] == [at_once.moment(stream) for stream in (0, 1)]


def test_durations_follow_from_the_chip():
    chip = load("tiny")  # 1 GHz, host link 4 GB/s and 2 µs, memory 51.2 GB/s and 80 ns
    assert clock.kernel_ps(7, chip) == 7_000
    assert clock.kernel_ps(1, load("inference")) == 741  # 1.35 GHz, rounded up
    assert clock.host_copy_ps(4_000, chip) == 2_000 * NS + 1_000 * NS
    assert clock.chip_copy_ps(5_120, chip) == 80 * NS + 200 * NS


def test_timing_alone_cannot_begin_in_the_middle(monkeypatch):
    monkeypatch.setattr(session, "clocks", (VirtualClock(),))
    monkeypatch.setattr(session, "timing_only", False)
    with pytest.raises(TapeoutError, match="must be asked for before anything else is timed"):
        session.turn_on(only=True)
    assert session.turn_on() is session.clock
