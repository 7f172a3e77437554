"""Calls from the C++ shim to the clock of the current chip. Each method is an entry of the table `ClockCalls` in
shim.h.

They are called from any thread, with or without a profile, but (except `turn_on`) only while time is kept.
"""

import functools
from collections.abc import Callable
from typing import Any

from tapeout import chip as chips
from tapeout import cluster as clusters
from tapeout.runtime import clock, session
from tapeout.runtime.clock import Kind

KINDS = (Kind.COPY_TO_CHIP, Kind.COPY_TO_HOST, Kind.COPY_ON_CHIP)


class DeviceClock:
    """The clock as the shim calls it. `trace` is told of activities while torch.profiler takes a trace: name, whether
    it is a copy, chip, stream, start and end."""

    def __init__(self, trace: Callable[[bytes, int, int, int, int, int], None]) -> None:
        self._trace = trace

    def _clock(self) -> clock.VirtualClock:
        assert session.clock is not None
        return session.clock

    def turn_on(self) -> None:
        session.turn_on()

    def moment(self, stream: int, out: Any) -> None:
        now = self._clock().moment(stream)
        out[0], out[1] = now.time_ps, now.unknown_count

    def wait(self, stream: int, time_ps: int) -> None:
        self._clock().wait(stream, time_ps)

    def reach(self, time_ps: int) -> None:
        self._clock().reach(time_ps)

    def poll(self, time_ps: int) -> int:
        latency_ps = chips.active().host.latency_ns * clock.PICOSECONDS_PER_NANOSECOND
        return int(self._clock().poll(time_ps, max(latency_ps, 1)))

    def synchronize(self) -> None:
        self._clock().synchronize()

    def copy(self, kind: int, size_bytes: int, stream: int, host_waits: int) -> None:
        what, chip = KINDS[kind], chips.active()
        duration_ps = (clock.chip_copy_ps if what is Kind.COPY_ON_CHIP else clock.host_copy_ps)(size_bytes, chip)
        self._clock().work(
            what,
            what.value,
            duration_ps,
            stream=stream,
            host_waits=bool(host_waits),
            operator=session.current_operator(),
            size_bytes=size_bytes,
        )

    def copy_between(self, size_bytes: int, stream: int, target: int, target_stream: int) -> None:
        """A copy from the current chip to another, over their links; by way of the host where they have none."""
        source = chips.current_index()
        own = chips.of_process()
        if own[source].links.link_count and own[target].links.link_count:
            duration_ps = clusters.collective_time(_cluster(), "send", size_bytes, (source, target)).time_ps
        else:
            duration_ps = clock.host_copy_ps(size_bytes, own[source]) + clock.host_copy_ps(size_bytes, own[target])
        clocks = session.clocks
        operator = session.current_operator()
        clock.copy_between(
            clocks[source], stream, clocks[target], target_stream, duration_ps, size_bytes, operator=operator
        )

    def watch(self, on: int) -> None:
        for index, each in enumerate(session.clocks):
            each.listener = functools.partial(self._pass_on, index) if on else None

    def _pass_on(self, chip: int, activity: clock.Activity) -> None:
        if activity.kind is not Kind.HOST_OPERATOR:
            is_copy = activity.kind is not Kind.KERNEL
            self._trace(activity.name.encode(), is_copy, chip, activity.stream, activity.start_ps, activity.end_ps)

    def host_operator(self, name: bytes) -> None:
        self._clock().host_operator(name.decode())


@functools.cache
def _cluster() -> clusters.Cluster:
    """The cluster that TAPEOUT_CLUSTER names, or the one that the links of this process's chips imply."""
    own = chips.of_process()
    found = clusters.named()
    if found is not None:
        found.check_ranks(len(own))
        return found
    rates = [
        (c.links.link_count * c.links.bandwidth_bytes_per_s, c.links.latency_ns) for c in own if c.links.link_count
    ]
    return clusters.of_links(rates)
