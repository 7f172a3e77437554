"""A network that moves packets cycle by cycle: what the timing model's reservations are held against.

Every station keeps what arrives until its link is free (there is room for all). A link sends one flit of its width a
cycle, all flits of a packet before those of another, first come first served, ties to the lower number of packet. A
flit is at the next station `hop_cycles` after it was sent. Nothing here is shared with `tapeout.sim.timing.network`
but the routes.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Packet:
    """Made at `cycle`, along links in their order; no bytes for an acknowledgement."""

    cycle: int
    route: tuple[int, ...]
    size: int


@dataclass
class Waiting:
    """A packet at a station before its next link: cycles at which its flits arrive, and how many it has in all."""

    number: int
    position: int
    flit_count: int
    arrivals: deque = field(default_factory=deque)
    sent: int = 0


def delivered(packets: list[Packet], hop_cycles: int, link_bytes: int) -> list[int]:
    """The cycle at which the last flit of each packet is there."""
    done = [0] * len(packets)
    to_come: defaultdict[int, list] = defaultdict(list)  # cycle -> (packet number, position on its route)
    places: dict[tuple[int, int], Waiting] = {}
    queues: defaultdict[int, deque[Waiting]] = defaultdict(deque)
    for number, packet in enumerate(packets):
        if not packet.size or not packet.route:
            last = 0 if not packet.size else -(-packet.size // link_bytes)
            done[number] = packet.cycle + hop_cycles * len(packet.route) + (last if packet.route else 0)
            continue
        flits = -(-packet.size // link_bytes)
        for _ in range(flits):
            to_come[packet.cycle].append((number, 0, flits))
    cycle, left = min(to_come, default=0), sum(1 for p in packets if p.size and p.route)
    while left:
        for number, position, flits in sorted(to_come.pop(cycle, [])):
            route = packets[number].route
            if position == len(route):
                place = places.setdefault((number, position), Waiting(number, position, flits))
                place.sent += 1
                if place.sent == flits:
                    done[number], left = cycle + 1, left - 1
                continue
            place = places.get((number, position))
            if place is None:
                place = places[number, position] = Waiting(number, position, flits)
                queues[route[position]].append(place)
            place.arrivals.append(cycle)
        for queue in queues.values():
            if queue and queue[0].arrivals:
                place = queue[0]
                place.arrivals.popleft()
                place.sent += 1
                to_come[cycle + hop_cycles].append((place.number, place.position + 1, place.flit_count))
                if place.sent == place.flit_count:
                    queue.popleft()
        cycle += 1
    return done
