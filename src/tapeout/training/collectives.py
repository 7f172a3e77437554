"""Times of collectives in a training step: which algorithm, over which levels, from the places of a group's ranks.

A group is `count` ranks whose places lie `stride` apart, which is how frameworks place tensor-, expert- and
data-parallel groups. Its ranks on one node pool their network cards: what a node reduces first is a share for each card
to send on. Algorithms are those of `tapeout.cluster.collectives`, the ring and the tree of NCCL besides; the fastest
is taken.
"""

import math
from dataclasses import dataclass
from functools import cache

from tapeout.cluster import Cluster, Level
from tapeout.errors import InternalError

RAMP_SHARE = 0.6
"""Ramp of a short message over the seconds of its bytes at full rate: protocols with little latency send about five
eighths of it (all-reduce of 1 to 8 MiB on A100 and H100, aiconfigurator-core 0.12)."""


@dataclass(frozen=True)
class Network:
    """Levels of a kind of cards, and the shares of their rates that collectives get.

    `link_efficiency`: of the links in a node, in sums; `gather_efficiency`: in the other collectives (0: the same).
    `ramp_s`: what a pass over the links takes beyond start and bytes, once it is long enough for the full rate.
    """

    topology: Cluster
    link_efficiency: float
    fabric_efficiency: float
    gather_efficiency: float = 0.0
    ramp_s: float = 0.0

    def is_inner(self, level: Level) -> bool:
        """Whether a level is the links within a node."""
        return level is self.topology.levels[0] and len(self.topology.levels) > 1

    def rate(self, level: Level, operation: str = "all_reduce") -> float:
        """Bytes a second that one card sends into a level, in large messages."""
        share = self.fabric_efficiency
        if self.is_inner(level):
            share = (
                self.link_efficiency if operation == "all_reduce" else self.gather_efficiency or self.link_efficiency
            )
        return level.bytes_per_s * share / level.oversubscription

    def transfer_s(self, level: Level, sent: float, operation: str, passes: int = 1) -> float:
        """Seconds of `sent` bytes in so many passes. Short messages have less of a ramp: their protocol waits for less,
        at a lower rate."""
        seconds = sent / self.rate(level, operation)
        if self.is_inner(level):
            seconds += passes * min(self.ramp_s, RAMP_SHARE * seconds / passes)
        return seconds


@dataclass(frozen=True)
class Group:
    """`count` ranks at places `stride` apart."""

    count: int
    stride: int = 1


def spans(topology: Cluster, group: Group) -> tuple[tuple[Level, int], ...]:
    """Levels at which a group meets and how many units of the level below take part, innermost first."""
    found: list[tuple[Level, int]] = []
    below = 1
    for level in topology.levels:
        within = group.count
        if level.size:
            within = min(max(level.size // group.stride, 1), group.count)
            while group.count % within:
                within -= 1
        if within > below:
            found.append((level, -(-within // below)))
        below = max(within, below)
    return tuple(found)


@cache
def time_s(network: Network, operation: str, size_bytes: float, group: Group) -> float:
    """Seconds of one collective. `size_bytes` as in `tapeout.cluster.collectives`: of all_reduce what a rank holds, of
    all_gather what it has in the end, of reduce_scatter and all_to_all what it begins with, of send what it sends."""
    met = spans(network.topology, group)
    if not met or size_bytes <= 0:
        return 0.0
    start = min(protocol.base_ns for protocol in network.topology.protocols) * 1e-9
    choices = [_hierarchical(network, operation, size_bytes, met)]
    if len(met) > 1:
        choices.append(_hierarchical(network, operation, size_bytes, ((met[-1][0], group.count),)))
    return start + min(choices)


def _hierarchical(network: Network, operation: str, size: float, met: tuple[tuple[Level, int], ...]) -> float:
    total, share = 0.0, size
    if operation == "all_to_all":
        reached, everyone = 1, math.prod(n for _, n in met)
        for level, n in met:
            beyond = size * (reached * n - reached) / everyone * _detour(level, n)
            total = max(total, network.transfer_s(level, beyond, operation)) + level.latency_ns * 1e-9 * _hops(level, n)
            reached *= n
        return total
    if operation == "send":
        level = met[-1][0]
        return size / network.rate(level, operation) + level.latency_ns * 1e-9
    if operation not in ("all_reduce", "all_gather", "reduce_scatter"):
        raise InternalError(f"no collective {operation!r}")
    for place, (level, n) in enumerate(met):
        is_last = place == len(met) - 1
        passes = 2 if operation == "all_reduce" else 1
        if is_last and level.reduces_in_switch and operation == "all_reduce":
            total += share / network.rate(level, operation) + 2 * level.latency_ns * 1e-9
        else:
            sent = passes * share * (n - 1) / n
            total += network.transfer_s(level, sent, operation, passes)
            total += passes * _rounds(level, n) * level.latency_ns * 1e-9
        share /= n
    return total


def _is_whole_torus(level: Level, n: int) -> bool:
    return level.fabric == "torus" and n == math.prod(level.shape)


def _rounds(level: Level, n: int) -> int:
    """Steps of a pass: a tree's over a switch, a ring's over neighbours, and of a whole torus a ring's in each
    dimension after the other (all dimensions at once, each on its part of the data, so that every port is busy)."""
    if level.fabric == "switch":
        return math.ceil(math.log2(n))
    if _is_whole_torus(level, n):
        return sum(extent - 1 for extent in level.shape)
    return n - 1


def _hops(level: Level, n: int) -> int:
    """Steps between the two farthest of n units."""
    if level.fabric == "switch":
        return 1
    if _is_whole_torus(level, n):
        return sum(extent // 2 for extent in level.shape)
    return max(n // 2, 1)


def _detour(level: Level, n: int) -> float:
    """How often a byte crosses a link on its way, in the mean."""
    return 1.0 if level.fabric == "switch" else max(_hops(level, n) / 2, 1.0)
