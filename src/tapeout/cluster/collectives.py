"""Time of a collective on a cluster: the algorithm, the time, and the bound.

Takes an operation, its size and the places of its ranks; gives a `CollectiveTime`. Pure arithmetic on the description:
the same question has the same answer everywhere. `size_bytes` is what NCCL's tests call the size: of all_reduce,
broadcast, reduce, send and recv what one rank holds; of all_gather what each rank has in the end; of reduce_scatter and
all_to_all what each rank begins with; of gather and scatter what one rank gives or gets.

A level's step moves a message once across it. For n units at a level, bytes that one chip sends (or receives):
all_reduce 2(n-1)/n of the size in two steps when every pair is joined (a switch), in 2(n-1) on a ring; a switch that
adds needs the size once. Several levels: reduce-scatter inwards, all-reduce at the outermost, all-gather outwards, each
level on the share that is left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tapeout.cluster.description import OPERATIONS, Cluster, Level, Protocol
from tapeout.errors import InternalError


@dataclass(frozen=True)
class CollectiveTime:
    """Cost of a collective. `bound`: "latency" or the level whose rate takes most of it."""

    operation: str
    algorithm: str
    time_ps: int
    bound: str
    least_ps: int
    """The bytes of the algorithm that cross the busiest level, at its peak rate."""


@dataclass(frozen=True)
class _Phase:
    level: Level
    algorithm: str
    step_count: int
    sent_bytes: float
    """Bytes that one chip sends across this level."""
    ring_step_count: int
    """Steps where the protocol goes from neighbour to neighbour."""


def collective_time(cluster: Cluster, operation: str, size_bytes: int, places: Sequence[int]) -> CollectiveTime:
    """Return the time of one operation among the ranks at these places."""
    return _time(cluster, operation, size_bytes, tuple(sorted(set(places))))


@cache
def _time(cluster: Cluster, operation: str, size_bytes: int, places: tuple[int, ...]) -> CollectiveTime:
    if operation not in OPERATIONS:
        raise InternalError(f"no collective {operation!r}")
    spans = cluster.spans(places)
    if not spans:
        return CollectiveTime(operation, "local", 0, "nothing to do", 0)
    choices = [_phases(operation, size_bytes, spans)]
    if len(spans) > 1:  # one level does it all: less to start, more to send
        flat = ((cluster.meeting_level(places), len(places)),)
        choices.append(_phases(operation, size_bytes, flat))
    protocols = cluster.protocols_of(operation)
    timed = [_of_phases(operation, size_bytes, phases, protocol) for phases in choices for protocol in protocols]
    return min(timed, key=lambda each: each.time_ps)


def _of_phases(operation: str, size_bytes: int, phases: list[_Phase], protocol: Protocol) -> CollectiveTime:
    latency_ns = protocol.base_ns
    for phase in phases:
        step_count = phase.ring_step_count if protocol.steps == "ring" else phase.step_count
        latency_ns += step_count * (phase.level.latency_ns + protocol.step_ns)
    at_peak_s: dict[str, float] = {}
    for phase in phases:
        name = phase.level.name
        at_peak_s[name] = (
            at_peak_s.get(name, 0.0) + phase.sent_bytes * phase.level.oversubscription / phase.level.bytes_per_s
        )
    transfer_s = sum(at_peak_s.values()) / protocol.efficiency
    if protocol.copy_bytes_per_s:
        transfer_s += size_bytes / protocol.copy_bytes_per_s
    total_ps = latency_ns * 1000 + math.ceil(transfer_s * 1e12)
    widest, least_s = max(at_peak_s.items(), key=lambda item: item[1])
    bound = "latency" if latency_ns * 1e-9 >= least_s / protocol.efficiency else f"rate of level {widest}"
    is_ring = protocol.steps == "ring" and operation in ("all_reduce", "all_gather", "reduce_scatter")
    names = ("ring" if is_ring and phase.algorithm == "direct" else phase.algorithm for phase in phases)
    algorithm = " + ".join(dict.fromkeys(names))
    return CollectiveTime(operation, f"{algorithm}, {protocol.name}", total_ps, bound, math.ceil(least_s * 1e12))


def _phases(operation: str, size_bytes: int, spans: tuple[tuple[Level, int], ...]) -> list[_Phase]:
    size = float(size_bytes)
    if operation == "barrier":
        return [phase for level, n in spans for phase in _gather(level, n, 0.0)] * 2
    if operation == "all_reduce":
        if len(spans) == 1:
            return _all_reduce(*spans[0], size)
        inwards, shares = [], [size]
        for level, n in spans[:-1]:
            inwards += _gather(level, n, shares[-1])
            shares.append(shares[-1] / n)
        outermost = _all_reduce(*spans[-1], shares[-1])
        return inwards + outermost + inwards[::-1]
    if operation in ("all_gather", "reduce_scatter"):
        phases, share = [], size
        for level, n in spans:
            phases += _gather(level, n, share)
            share /= n
        return phases
    if operation == "all_to_all":
        phases, reached = [], 1
        total = math.prod(n for _, n in spans)
        for level, n in spans:
            beyond = size * (reached * n - reached) / total  # to ranks first reached at this level
            hops = _hops(level, n)
            phases.append(_Phase(level, "direct", hops, beyond * _detour(level, n), max(hops, n - 1)))
            reached *= n
        return phases
    count = sum((n - 1).bit_length() for _, n in spans)
    level = spans[-1][0]
    if operation in ("send", "recv"):
        hops = _hops(level, spans[-1][1])
        return [_Phase(level, "direct", hops, size, hops)]
    if operation in ("broadcast", "reduce"):
        return [_Phase(level, "tree", count, size, count)]
    total = math.prod(n for _, n in spans)
    return [_Phase(level, "direct", 1, size * (total - 1), 1)]  # gather, scatter: the root's port


def _all_reduce(level: Level, n: int, size: float) -> list[_Phase]:
    if level.reduces_in_switch:
        return [_Phase(level, "in the switch", 2, size, 2)]
    return _gather(level, n, size) * 2


def _gather(level: Level, n: int, size: float) -> list[_Phase]:
    """All-gather of `size` in all among n units, or its mirror, reduce-scatter."""
    if level.fabric == "switch":
        return [_Phase(level, "direct", 1, size * (n - 1) / n, n - 1)]
    if level.fabric == "ring" or n != math.prod(level.shape):
        return [_Phase(level, "ring", n - 1, size * (n - 1) / n, n - 1)]
    phases, share = [], size
    for extent in level.shape:  # all dimensions at once, each on its part of the data: every port is busy
        if extent > 1:
            phases.append(_Phase(level, "torus", extent - 1, share * (extent - 1) / extent, extent - 1))
            share /= extent
    return phases


def _hops(level: Level, n: int) -> int:
    """Steps between the two farthest of n units."""
    if level.fabric == "switch":
        return 1
    if level.fabric == "torus" and n == math.prod(level.shape):
        return sum(extent // 2 for extent in level.shape)
    return max(n // 2, 1)


def _detour(level: Level, n: int) -> float:
    """Return how often a byte crosses a link on its way, in the mean."""
    return 1.0 if level.fabric == "switch" else max(_hops(level, n) / 2, 1.0)
