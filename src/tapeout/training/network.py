"""Flow-level simulation of a network of rails: what placement, oversubscription and failed links do to a pattern.

Takes a `Fabric` and flows (bytes from card to card); gives the time until the last byte has come. Flows share every
link max-min fairly, and rates are computed anew whenever flows end. Messages to another node go through the sender's
peer on the receiver's rail, as collective libraries send them. Packets, queues and retransmission are not in it.

A node's cards are joined by a switch; card r of every node hangs on rail r: leaves of `nodes_per_leaf` nodes, joined by
spines. A flow takes the spine that a hash of its two nodes names, the same on every rail; a failed uplink is avoided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.training.fleet import Cards
from tapeout.training.problems import TrainingError

TOGETHER = 0.01
"""Flows that would end within this share of the time until the next end are taken to end with it."""
NO_LINK = -1
_LINKS = 6  # of a path: out of a card, into its peer, out of a network card, up, down, into a network card


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """`oversubscription`: what a leaf's nodes can send over what its uplinks carry. `failed_uplinks`: (rail, leaf,
    spine). Rates in bytes a second, one direction, as collectives get them."""

    nodes: int
    node_cards: int
    link_bytes_per_s: float
    nic_bytes_per_s: float
    nodes_per_leaf: int = 32
    spines: int = 32
    oversubscription: float = 1.0
    failed_uplinks: frozenset[tuple[int, int, int]] = frozenset()

    def __post_init__(self) -> None:
        if min(self.nodes, self.node_cards, self.nodes_per_leaf, self.spines) < 1 or self.oversubscription < 1:
            raise TrainingError(
                f"a fabric of {self.nodes} nodes of {self.node_cards} cards, leaves of {self.nodes_per_leaf}, "
                f"{self.spines} spines, oversubscription {self.oversubscription:g}: each is at least 1"
            )
        for rail, leaf, spine in self.failed_uplinks:
            if rail >= self.node_cards or leaf >= self.leaves or spine >= self.spines:
                raise TrainingError(f"no uplink of rail {rail} from leaf {leaf} to spine {spine} that could fail")

    @property
    def cards(self) -> int:
        return self.nodes * self.node_cards

    @property
    def leaves(self) -> int:
        """Leaves of one rail."""
        return -(-self.nodes // self.nodes_per_leaf)

    @property
    def uplink_bytes_per_s(self) -> float:
        return self.nic_bytes_per_s * self.nodes_per_leaf / self.spines / self.oversubscription


def fabric_of(
    cards: Cards, *, oversubscription: float = 1.0, nodes_per_leaf: int = 32, spines: int = 32, failed: int = 0
) -> Fabric:
    """The fabric of a kind's cards; `failed` uplinks of the first leaf of every rail are down."""
    node = min(cards.node, cards.count)
    if failed >= spines:
        raise TrainingError(f"{failed} failed uplinks of {spines} leave none; at most {spines - 1} may fail")
    return Fabric(
        nodes=-(-cards.count // node),
        node_cards=node,
        link_bytes_per_s=cards.topology.levels[0].bytes_per_s * (cards.gather_efficiency or cards.efficiency.value),
        nic_bytes_per_s=cards.fabric.bytes_per_s * cards.fabric_efficiency.value,
        oversubscription=oversubscription,
        nodes_per_leaf=nodes_per_leaf,
        spines=spines,
        failed_uplinks=frozenset((rail, 0, spine) for rail in range(node) for spine in range(failed)),
    )


@dataclass(frozen=True)
class Flows:
    """Bytes from one place to another, and the rail each crosses nodes on."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    rail: NDArray[np.int64]
    size: NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """The time of a pattern, and how busy the links were: of the busiest the share of the time at full rate."""

    seconds: float
    flows: int
    events: int
    busiest: str
    utilisation: float


def all_to_all(fabric: Fabric, groups: Sequence[NDArray[np.int64]], size_bytes: float) -> Flows:
    """Every card of a group sends its share of `size_bytes` to every other. What the cards of a node send to one card
    of another node goes as one flow on that card's rail."""
    sources, targets, rails, sizes = [], [], [], []
    for group in groups:
        places = group
        node, rail = places // fabric.node_cards, places % fabric.node_cards
        share = size_bytes / len(places)
        nodes, counts = np.unique(node, return_counts=True)
        # Inside the node: to each card there, and to the peer on the receiver's rail for every card elsewhere.
        here, there = np.nonzero((node[:, None] == node[None, :]) & (places[:, None] != places[None, :]))
        sources.append(places[here])
        targets.append(places[there])
        rails.append(np.full(len(here), NO_LINK))
        sizes.append(np.full(len(here), share))
        away, arriving = np.nonzero(nodes[:, None] != node[None, :])
        sources.append(nodes[away] * fabric.node_cards + rail[arriving])
        targets.append(places[arriving])
        rails.append(rail[arriving])
        sizes.append(share * counts[away])
    return Flows(np.concatenate(sources), np.concatenate(targets), np.concatenate(rails), np.concatenate(sizes))


def ring(fabric: Fabric, order: Sequence[int], size_bytes: float) -> Flows:
    """Every card sends so many bytes to the next of an order, on its own rail."""
    source = np.asarray(order)
    target = np.roll(source, -1)
    crosses = source // fabric.node_cards != target // fabric.node_cards
    rail = np.where(crosses, target % fabric.node_cards, NO_LINK)
    return Flows(source, target, rail, np.full(len(source), float(size_bytes)))


def groups_of(fabric: Fabric, size: int, *, scattered: bool = False, seed: int = 0) -> list[NDArray[np.int64]]:
    """Groups of neighbouring cards, or of whole nodes drawn at random."""
    if fabric.cards % size:
        raise TrainingError(f"{fabric.cards} cards do not divide into groups of {size}")
    nodes = np.arange(fabric.nodes)
    if scattered:
        nodes = np.random.default_rng(seed).permutation(nodes)
    places = (nodes[:, None] * fabric.node_cards + np.arange(fabric.node_cards)[None, :]).ravel()
    return list(places.reshape(-1, size))


def simulate(fabric: Fabric, flows: Flows) -> Traffic:
    """The time until every flow has ended."""
    flows, count = _of_one_rail(fabric, flows)
    inside = flows.rail == NO_LINK
    parts = [_ended(fabric, _taken(flows, chosen)) for chosen in (inside, ~inside) if chosen.any()]
    slowest = max(parts, key=lambda each: each.seconds)
    return replace(slowest, flows=count, events=sum(each.events for each in parts))


def _taken(flows: Flows, chosen: NDArray[np.bool_]) -> Flows:
    return Flows(flows.source[chosen], flows.target[chosen], flows.rail[chosen], flows.size[chosen])


def _ended(fabric: Fabric, flows: Flows) -> Traffic:
    """Flows that stay inside nodes and those between them share no link, and are simulated apart."""
    capacity, names = _capacities(fabric)
    numbers, links = np.unique(_paths(fabric, flows), return_inverse=True)
    links = links.reshape(len(flows.source), _LINKS) - int(numbers[0] == NO_LINK)
    numbers = numbers[numbers != NO_LINK]
    capacity = capacity[numbers]
    left = flows.size.astype(float).copy()
    carried = np.zeros(len(capacity))
    alive = np.arange(len(left))
    now, events = 0.0, 0
    while len(alive):
        rates = _fair(links[alive], capacity)
        ends = left[alive] / rates
        until = float(ends.min())
        done = ends <= until + TOGETHER * (now + until)
        until = float(ends[done].max())
        moved = np.minimum(rates * until, left[alive])
        here = links[alive]
        np.add.at(carried, here[here >= 0], np.broadcast_to(moved[:, None], here.shape)[here >= 0])
        left[alive] -= moved
        alive = alive[~done]
        now += until
        events += 1
    shares = carried / (capacity * now) if now else carried
    busiest = int(np.argmax(shares))
    kind = next(name for name, start in reversed(names) if numbers[busiest] >= start)
    return Traffic(now, len(left), events, kind, float(shares[busiest]))


def _of_one_rail(fabric: Fabric, flows: Flows) -> tuple[Flows, int]:
    """The flows without those of rails that carry what rail 0 does, which take the same time; and how many there are.

    Rails share no link but those inside nodes, on which flows of rails do not go.
    """
    count = len(flows.source)
    failures = {
        rail: {(leaf, spine) for each, leaf, spine in fabric.failed_uplinks if each == rail}
        for rail in range(fabric.node_cards)
    }
    if any(each != failures[0] for each in failures.values()):
        return flows, count
    ends = np.stack([flows.source // fabric.node_cards, flows.target // fabric.node_cards], axis=1)
    ordered = []
    for rail in range(fabric.node_cards):
        mine = np.flatnonzero(flows.rail == rail)
        order = np.lexsort((ends[mine, 1], ends[mine, 0]))
        ordered.append((ends[mine][order], flows.size[mine][order]))
    first = ordered[0]
    if not all(
        len(each[1]) == len(first[1]) and (each[0] == first[0]).all() and (each[1] == first[1]).all()
        for each in ordered[1:]
    ):
        return flows, count
    kept = flows.rail <= 0
    return _taken(flows, kept), count


def _capacities(fabric: Fabric) -> tuple[NDArray[np.float64], list[tuple[str, int]]]:
    """Bytes a second of every link, and where each kind of link begins."""
    uplinks = fabric.node_cards * fabric.leaves * fabric.spines
    kinds = (
        ("links out of cards", fabric.cards, fabric.link_bytes_per_s),
        ("links into cards", fabric.cards, fabric.link_bytes_per_s),
        ("network cards, sending", fabric.cards, fabric.nic_bytes_per_s),
        ("network cards, receiving", fabric.cards, fabric.nic_bytes_per_s),
        ("uplinks of leaves", uplinks, fabric.uplink_bytes_per_s),
        ("downlinks of leaves", uplinks, fabric.uplink_bytes_per_s),
    )
    starts = np.cumsum([0, *(count for _, count, _ in kinds)])
    names = [(name, int(start)) for (name, _, _), start in zip(kinds, starts[:-1], strict=True)]
    return np.concatenate([np.full(count, rate) for _, count, rate in kinds]), names


def _paths(fabric: Fabric, flows: Flows) -> NDArray[np.int64]:
    """The links of each flow; `NO_LINK` where it has fewer."""
    cards, uplinks = fabric.cards, fabric.node_cards * fabric.leaves * fabric.spines
    links = np.full((len(flows.source), _LINKS), NO_LINK)
    crosses = flows.rail != NO_LINK
    inside = ~crosses
    links[inside, 0] = flows.source[inside]
    links[inside, 1] = cards + flows.target[inside]
    source_node, target_node = flows.source // fabric.node_cards, flows.target // fabric.node_cards
    own = source_node * fabric.node_cards + flows.rail
    links[crosses, 2] = 2 * cards + own[crosses]
    links[crosses, 3] = 3 * cards + flows.target[crosses]
    leaf_out, leaf_in = source_node // fabric.nodes_per_leaf, target_node // fabric.nodes_per_leaf
    climbs = crosses & (leaf_out != leaf_in)
    spine = _spines(fabric, flows, source_node, target_node, leaf_out, leaf_in, climbs)
    rail = np.maximum(flows.rail, 0)
    up = (rail * fabric.leaves + leaf_out) * fabric.spines + spine
    down = (rail * fabric.leaves + leaf_in) * fabric.spines + spine
    links[climbs, 4] = 4 * cards + up[climbs]
    links[climbs, 5] = 4 * cards + uplinks + down[climbs]
    return links


def _spines(
    fabric: Fabric,
    flows: Flows,
    source_node: NDArray[np.int64],
    target_node: NDArray[np.int64],
    leaf_out: NDArray[np.int64],
    leaf_in: NDArray[np.int64],
    climbs: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """The spine of each flow: by a hash of its ends, the next one where that uplink failed."""
    mixed = (source_node * 2654435761 + target_node * 40503) & 0xFFFFFFFF
    spine = (mixed ^ (mixed >> 15)) % fabric.spines
    for number in np.flatnonzero(climbs) if fabric.failed_uplinks else ():
        rail = int(flows.rail[number])
        for offset in range(fabric.spines):
            chosen = (int(spine[number]) + offset) % fabric.spines
            ends = ((rail, int(leaf), chosen) for leaf in (leaf_out[number], leaf_in[number]))
            if not any(end in fabric.failed_uplinks for end in ends):
                spine[number] = chosen
                break
        else:
            raise TrainingError(f"rail {rail} has no uplink left between two of its leaves")
    return spine


def _fair(links: NDArray[np.int64], capacity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Max-min fair rates. In each round every link that is the narrowest of all its flows' fixes their rates, so that
    rounds are few where many links are alike; links within `TOGETHER` of that go with them."""
    rates = np.zeros(len(links))
    room = capacity.copy()
    left = np.arange(len(links))
    while len(left):
        mine = links[left]
        used = mine[mine >= 0]
        users = np.bincount(used, minlength=len(capacity))
        share = np.full(len(capacity) + 1, math.inf)  # the last one stands for no link
        np.divide(room, users, out=share[:-1], where=users > 0)
        narrowest = share[mine].min(axis=1)
        least = np.full(len(capacity) + 1, math.inf)
        np.minimum.at(least, mine.ravel(), np.repeat(narrowest, mine.shape[1]))
        is_tight = share <= least * (1 + TOGETHER)
        is_tight[-1] = False
        fixed = is_tight[mine].any(axis=1)
        rates[left[fixed]] = narrowest[fixed]
        taken = mine[fixed]
        weights = np.repeat(narrowest[fixed], mine.shape[1])[taken.ravel() >= 0]
        room -= np.bincount(taken[taken >= 0], weights=weights, minlength=len(capacity))
        np.maximum(room, 0.0, out=room)
        left = left[~fixed]
    return rates
