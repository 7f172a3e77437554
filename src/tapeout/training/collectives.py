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


@dataclass(frozen=True)
class Network:
    """Levels of a kind of cards, and the shares of their rates that collectives get."""

    topology: Cluster
    link_efficiency: float
    fabric_efficiency: float

    def rate(self, level: Level) -> float:
        """Bytes a second that one card sends into a level, in large messages."""
        is_inner = level is self.topology.levels[0] and len(self.topology.levels) > 1
        share = self.link_efficiency if is_inner else self.fabric_efficiency
        return level.bytes_per_s * share / level.oversubscription


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
            beyond = size * (reached * n - reached) / everyone
            total = max(total, beyond / network.rate(level)) + level.latency_ns * 1e-9
            reached *= n
        return total
    if operation == "send":
        level = met[-1][0]
        return size / network.rate(level) + level.latency_ns * 1e-9
    if operation not in ("all_reduce", "all_gather", "reduce_scatter"):
        raise InternalError(f"no collective {operation!r}")
    for place, (level, n) in enumerate(met):
        is_last = place == len(met) - 1
        passes = 2 if operation == "all_reduce" else 1
        if is_last and level.reduces_in_switch and operation == "all_reduce":
            total += share / network.rate(level) + 2 * level.latency_ns * 1e-9
        else:
            rounds = math.ceil(math.log2(n)) if level.fabric == "switch" else n - 1
            sent = passes * share * (n - 1) / n
            total += sent / network.rate(level) + passes * rounds * level.latency_ns * 1e-9
        share /= n
    return total
