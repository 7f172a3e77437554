"""Calls from the C++ shim to this process's clock. Each method is one entry of the table `ClockCalls` in shim.h.

They are called from any thread, with or without a profile, but (except `turn_on`) only while time is kept.
"""

from collections.abc import Callable
from typing import Any

from tapeout import chip as chips
from tapeout.runtime import clock, session
from tapeout.runtime.clock import Kind

KINDS = (Kind.COPY_TO_CHIP, Kind.COPY_TO_HOST, Kind.COPY_ON_CHIP)


class DeviceClock:
    """The clock as the shim calls it. `trace` is told of activities while torch.profiler takes a trace: name, whether
    it is a copy, stream, start and end."""

    def __init__(self, trace: Callable[[bytes, int, int, int, int], None]) -> None:
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

    def watch(self, on: int) -> None:
        self._clock().listener = self._pass_on if on else None

    def _pass_on(self, activity: clock.Activity) -> None:
        if activity.kind is not Kind.HOST_OPERATOR:
            is_copy = activity.kind is not Kind.KERNEL
            self._trace(activity.name.encode(), is_copy, activity.stream, activity.start_ps, activity.end_ps)

    def host_operator(self, name: bytes) -> None:
        self._clock().host_operator(name.decode())
