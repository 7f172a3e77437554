"""Calls from the C++ shim to this process's clock. Each function is one entry of the table `ClockCalls` in shim.h.

They are called from any thread, with or without a profile, but (except `turn_on`) only while time is kept.
"""

from collections.abc import Callable
from typing import Any

from tapeout import chip as chips
from tapeout.runtime import clock
from tapeout.runtime.clock import Kind

KINDS = (Kind.COPY_TO_CHIP, Kind.COPY_TO_HOST, Kind.COPY_ON_CHIP)


def _clock() -> clock.VirtualClock:
    assert clock.active is not None
    return clock.active


def turn_on() -> None:
    clock.turn_on()


def moment(stream: int, out: Any) -> None:
    now = _clock().moment(stream)
    out[0], out[1] = now.time_ps, now.unknown_count


def wait(stream: int, time_ps: int) -> None:
    _clock().wait(stream, time_ps)


def reach(time_ps: int) -> None:
    _clock().reach(time_ps)


def poll(time_ps: int) -> int:
    latency_ps = chips.active().host.latency_ns * clock.PICOSECONDS_PER_NANOSECOND
    return int(_clock().poll(time_ps, max(latency_ps, 1)))


def synchronize() -> None:
    _clock().synchronize()


def copy(kind: int, size_bytes: int, stream: int, host_waits: int) -> None:
    what, chip = KINDS[kind], chips.active()
    duration_ps = (clock.chip_copy_ps if what is Kind.COPY_ON_CHIP else clock.host_copy_ps)(size_bytes, chip)
    _clock().work(
        what,
        what.value,
        duration_ps,
        stream=stream,
        host_waits=bool(host_waits),
        operator=clock.current_operator(),
        size_bytes=size_bytes,
    )


_trace: Callable[[bytes, int, int, int, int], None]


def trace_with(trace: Callable[[bytes, int, int, int, int], None]) -> None:
    """Destination of activities while torch.profiler takes a trace: name, whether it is a copy, stream, start and
    end."""
    global _trace
    _trace = trace


def watch(on: int) -> None:
    _clock().listener = _pass_on if on else None


def _pass_on(activity: clock.Activity) -> None:
    if activity.kind is not Kind.HOST_OPERATOR:
        is_copy = activity.kind is not Kind.KERNEL
        _trace(activity.name.encode(), is_copy, activity.stream, activity.start_ps, activity.end_ps)


def host_operator(name: bytes) -> None:
    _clock().host_operator(name.decode())
