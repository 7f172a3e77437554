"""The time of a described network: requests on their way from cores to slices of the memory, and answers back.

A packet's head takes a hop's cycles from station to station, its bytes follow at the rate of the links (virtual
cut-through with room to wait at every station). It holds each link of its path for as long as its bytes take; where a
link is held, it waits there. A link is held for packets in the order in which they are known, but one that comes
earlier takes a gap that is left; a link knows of few gaps and forgets the earliest. A load's request has
REQUEST_BYTES, a store's acknowledgement takes hops and no room. Requests and answers have wires of their own.

`tests/sim/network_by_cycles.py` moves the same packets cycle by cycle, and a test holds this against it.
"""

from dataclasses import dataclass, field

from tapeout.chip import Chip
from tapeout.chip.layout import Layout

TICKS = 1024
REQUEST_BYTES = 16
LINK_GAP_COUNT = 8
"""Gaps that a link knows of."""


@dataclass
class Link:
    """A link: held up to `free`, but for its gaps."""

    free: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def reserve(self, time: int, ticks: int) -> int:
        """Hold the link for so long from `time` on, as early as it is free; when that begins."""
        for number, (left, right) in enumerate(self.gaps):
            start = max(left, time)
            if start + ticks <= right:
                self.gaps[number : number + 1] = [(a, b) for a, b in ((left, start), (start + ticks, right)) if a < b]
                del self.gaps[:-LINK_GAP_COUNT]
                return start
        start = max(self.free, time)
        if start > self.free:
            self.gaps.append((self.free, start))
            del self.gaps[:-LINK_GAP_COUNT]
        self.free = start + ticks
        return start


@dataclass(frozen=True)
class NetworkParameters:
    """A network's times in ticks. Over a border between dies pass 1024 bytes in `border_ticks_per_kib`."""

    hop_ticks: int
    border_hop_ticks: int
    link_bytes_per_cycle: int
    border_ticks_per_kib: int

    def ticks_of(self, size: int, is_border: bool) -> int:
        """How long so many bytes hold a link."""
        ticks = -(-size * TICKS // self.link_bytes_per_cycle)
        return max(ticks, -(-size * self.border_ticks_per_kib // 1024)) if is_border else ticks


@dataclass
class Network:
    """The links of one launch."""

    layout: Layout
    parameters: NetworkParameters
    requests: dict[int, Link] = field(default_factory=dict)
    answers: dict[int, Link] = field(default_factory=dict)

    @staticmethod
    def of(chip: Chip) -> "Network | None":
        """The chip's network with all links free; None for a chip that describes none."""
        if chip.network is None:
            return None
        layout = Layout.of(chip)
        border_hop = ticks_per_kib = 0
        if layout.border_columns:
            assert chip.package is not None
            rows = layout.row_count if layout.kind == "mesh" else 1
            border_hop = chip.package.hop_cycles * TICKS
            ticks_per_kib = -(-1024 * TICKS * chip.clock_hz * rows // chip.package.link_bytes_per_s)
        parameters = NetworkParameters(
            hop_ticks=chip.network.hop_cycles * TICKS,
            border_hop_ticks=border_hop,
            link_bytes_per_cycle=chip.network.link_bytes_per_cycle,
            border_ticks_per_kib=ticks_per_kib,
        )
        return Network(layout, parameters)

    def facts(self) -> dict[str, int]:
        """What the model in C++ knows of it."""
        layout, parameters = self.layout, self.parameters
        return {
            "has_network": 1,
            "is_crossbar": int(layout.kind == "crossbar"),
            "is_ring": int(layout.kind == "ring"),
            "station_count": layout.station_count,
            "column_count": layout.column_count,
            "at_edges": int(layout.at_edges),
            "border_columns": layout.border_columns,
            "hop_ticks": parameters.hop_ticks,
            "border_hop_ticks": parameters.border_hop_ticks,
            "link_bytes_per_cycle": parameters.link_bytes_per_cycle,
            "border_ticks_per_kib": parameters.border_ticks_per_kib,
        }

    def request(self, time: int, core: int, slice_number: int, size: int) -> int:
        """Send a request that is made at `time`; when its last byte is at the slice."""
        return self._go(self.requests, list(self.layout.route(core, slice_number, answer=False)), time, size)

    def answer(self, time: int, core: int, slice_number: int, size: int) -> int:
        """Send an answer back; when its last byte is at the core. Without bytes it is an acknowledgement."""
        return self._go(self.answers, list(self.layout.route(core, slice_number, answer=True)), time, size)

    def _go(self, links: dict[int, Link], route: list[tuple[int, bool]], time: int, size: int) -> int:
        p, last = self.parameters, 0
        for number, is_border in route:
            ticks = p.ticks_of(size, is_border)
            start = links.setdefault(number, Link()).reserve(time, ticks) if size else time
            time = start + p.hop_ticks + (p.border_hop_ticks if is_border else 0)
            last = max(last, ticks)
        return time + last
