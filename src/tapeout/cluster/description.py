"""A cluster, written down once: how chips are joined, level by level, and what a message costs at each.

Takes figures, gives a `Cluster`, which refuses what cannot be built. Files are read in `tapeout.cluster.loading`, the
clusters that ship are in `tapeout.cluster.reference`, and what a collective takes is in `tapeout.cluster.collectives`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tapeout.chip.description import Chip, Part, checked_later, count, number, text
from tapeout.errors import ChipError

FABRICS = ("switch", "ring", "torus")

OPERATIONS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "send",
    "recv",
    "barrier",
)


@dataclass(frozen=True, kw_only=True)
class Protocol(Part):
    """One way to move a message; the cheapest for a message's size is taken.

    A message of b bytes in s steps takes `base_ns` + s · `step_ns` + b / (`efficiency` · rate), and size /
    `copy_bytes_per_s` for what a chip moves within its own memory meanwhile (sizes: `tapeout.cluster.collectives`).
    """

    label: ClassVar[str] = "protocol"

    name: str = text("what it is called")
    base_ns: int = count("from the start of a collective to its first byte", minimum=0)
    step_ns: int = count("added to the fabric's latency in each step", minimum=0, default=0)
    efficiency: float = number("share of the link's rate that payload gets", minimum=0.001, maximum=1, default=0.9)
    copy_bytes_per_s: int = count("rate of the copy within a chip's memory; 0: it takes no time", minimum=0, default=0)
    steps: str = text(
        "over a switch: direct, every pair at once; ring, from neighbour to neighbour",
        choices=("direct", "ring"),
        default="direct",
    )
    operations: tuple[str, ...] = checked_later("operations it is for; none: for those without their own", default=())

    def check(self) -> None:
        if unknown := [name for name in self.operations if name not in OPERATIONS]:
            self.refuse("operations", f"names {unknown[0]!r}, which is none of {', '.join(OPERATIONS)}")


@dataclass(frozen=True, kw_only=True)
class Level(Part):
    """Chips (or units of the level below) that one fabric joins."""

    label: ClassVar[str] = "level"

    name: str = text("what people call it")
    size: int = count("chips in one unit of this level; 0: all of the cluster", minimum=0)
    fabric: str = text("switch: any to any; ring: neighbours; torus: neighbours in each dimension", choices=FABRICS)
    bytes_per_s: int = count("what one chip sends and receives at once into this level, each direction")
    latency_ns: int = count("of a hop: from the sender's memory to the receiver's", minimum=0)
    shape: tuple[int, ...] = checked_later("extents of a torus", default=())
    reduces_in_switch: bool = checked_later("whether the switch adds", default=False)
    oversubscription: float = number(
        "how much more the chips below can send than the level carries", minimum=1, maximum=64, default=1
    )

    def check(self) -> None:
        if self.fabric == "torus" and (not self.shape or math.prod(self.shape) != self.size):
            self.refuse("shape", f"is not the shape of a torus of {self.size} chips")
        if self.fabric != "torus" and self.shape:
            self.refuse("shape", f"belongs to a torus; a {self.fabric} has none")
        if self.reduces_in_switch and self.fabric != "switch":
            self.refuse("reduces_in_switch", f"needs a switch; this is a {self.fabric}")


@dataclass(frozen=True, kw_only=True)
class Cluster(Part):
    """Chips and the levels that join them, innermost first. Rank n is at place n: units of a level are consecutive."""

    label: ClassVar[str] = "cluster"

    name: str = text("what people call it")
    levels: tuple[Level, ...] = checked_later("innermost first")
    protocols: tuple[Protocol, ...] = checked_later("ways to move a message")
    chip: str = checked_later("kind of chip; empty: the active one", default="")
    measured: str = checked_later("where the protocols' constants were measured; empty: they are assumed", default="")

    def check(self) -> None:
        if not self.levels:
            self.refuse("levels", "joins nothing; a cluster has at least one level")
        if not self.protocols:
            self.refuse("protocols", "moves nothing; give at least one protocol")
        if lacking := [name for name in OPERATIONS if not self.protocols_of(name)]:
            self.refuse("protocols", f"has none for {lacking[0]}; one without operations is for all that have none")
        below = 1
        for place, level in enumerate(self.levels):
            last = place == len(self.levels) - 1
            if level.size == 0 and not last:
                self.refuse("levels", f"ends at level {level.name!r} (size 0: all of the cluster), but more follow")
            if level.size and level.size % below:
                self.refuse(
                    "levels",
                    f"has a level {level.name!r} of {level.size} chips, not a whole number of units of {below}",
                )
            if level.size and level.size <= below and place:
                self.refuse("levels", f"has a level {level.name!r} no larger than the one below it")
            below = level.size or below

    def protocols_of(self, operation: str) -> tuple[Protocol, ...]:
        """Return the protocols among which an operation chooses: its own, else those for every operation."""
        own = tuple(protocol for protocol in self.protocols if operation in protocol.operations)
        return own or tuple(protocol for protocol in self.protocols if not protocol.operations)

    @property
    def place_count(self) -> int | None:
        """Chips the cluster has room for; None: any number."""
        return self.levels[-1].size or None

    def check_ranks(self, ranks: int) -> None:
        """Raise ChipError if so many ranks have no place."""
        if self.place_count is not None and ranks > self.place_count:
            raise ChipError(
                f"cluster {self.name!r} has {self.place_count} places, so {ranks} ranks do not fit; "
                f"use at most {self.place_count} or a larger cluster"
            )

    def spans(self, places: Sequence[int]) -> tuple[tuple[Level, int], ...]:
        """Return each level the places meet at and how many units of the level below take part in it, innermost first.

        If units take part with unequal numbers of places, all places meet at the level that joins them all.
        """
        found: list[tuple[Level, int]] = []
        units = sorted(set(places))
        for level in self.levels:
            size = level.size or max(units[-1] + 1, 1)
            divisor = size // (self.levels[self.levels.index(level) - 1].size if level is not self.levels[0] else 1)
            groups: dict[int, int] = {}
            for unit in units:
                parent = unit // max(divisor, 1) if level.size else 0
                groups[parent] = groups.get(parent, 0) + 1
            members = set(groups.values())
            if len(members) > 1:
                return self._flat(places)
            found.append((level, members.pop()))
            units = sorted(groups)
        return tuple((level, members) for level, members in found if members > 1)

    def _flat(self, places: Sequence[int]) -> tuple[tuple[Level, int], ...]:
        return ((self.meeting_level(places), len(set(places))),)

    def meeting_level(self, places: Sequence[int]) -> Level:
        """Return the innermost level whose one unit holds all places."""
        for level in self.levels:
            if level.size == 0 or len({place // level.size for place in places}) == 1:
                return level
        raise ChipError(f"places {min(places)} and {max(places)} of cluster {self.name!r} meet at no level")


def check_links(chip: Chip, ranks: int) -> None:
    """Raise ChipError if chips of this kind cannot be joined."""
    if not chip.links.link_count and ranks > 1:
        raise ChipError(
            f"chip {chip.name!r} has no links (links.link_count=0), so {ranks} of them cannot run one program; "
            "describe links, or name a cluster with --cluster"
        )


def of_links(rates: Sequence[tuple[int, int]]) -> Cluster:
    """The cluster that chips imply that nobody described: on one switch, each with its links' rate (bytes/s, all links
    together, one direction) and latency (ns). The slowest chip sets the pace."""
    level = Level(
        name="links",
        size=0,
        fabric="switch",
        bytes_per_s=max(min(rate for rate, _ in rates), 1),
        latency_ns=max(latency for _, latency in rates),
    )
    return Cluster(name="links alone", levels=(level,), protocols=PROTOCOLS)


PROTOCOLS = (
    Protocol(name="low latency", base_ns=1_500, step_ns=200, efficiency=0.4),
    Protocol(name="bulk", base_ns=5_000, step_ns=500, efficiency=0.92),
)
"""Assumed of chips that do not exist: copy engines on the links that add in flight. Between what is measured of
NCCL's three protocols on NVLink (docs/decisions/collectives.md)."""
