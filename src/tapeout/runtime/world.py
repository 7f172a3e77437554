"""The clocks of many chips: when a collective starts and ends in virtual time, and what waiting for it costs.

Each rank has a `World`: its cluster and the ports of its chip. A `Group` is told of every operation this rank posts and
answers when the rank is ready for it and what it costs; the ranks of the group exchange these answers with the data, so
all of them find the same start (the last rank's) and the same end. Whoever waits tells the group, and the current
stream of the chip goes on at the end.

A chip's ports carry one operation at a time at full rate, in the order in which the rank posts them. Groups are lanes
of their own: an operation starts when all ranks are ready and the one before it in its group has ended.
"""

import os
import socket
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tapeout import chip as chips
from tapeout import cluster as clusters
from tapeout.runtime import clock
from tapeout.runtime.clock import Activity, Kind
from tapeout.runtime.process import session

NO_CLOCK = -1

KIND_VARIABLE = "TAPEOUT_RANK_KIND"
"""Set to "cpu" in a rank that computes on the host alone: it has no clock, and what it does is of unknown time."""

ALONE_VARIABLE = "TAPEOUT_AS_RANK"
"""Set to "1" in a process that stands for every rank of its world."""


@dataclass(frozen=True)
class Member:
    """Facts that a rank sends when a group is made. `chip` is "" without one; `links`: rate and latency; `reduction`:
    the order of sums."""

    host: str
    process: int
    chip: str
    timing_only: bool
    cluster: str
    links: tuple[int, int] | None
    reduction: str

    @classmethod
    def this_process(cls, chip: chips.Chip | None, cluster: clusters.Cluster | None, reduction: str) -> "Member":
        """This process, on a chip or on the host alone, in the cluster that was named, if one was."""
        links = None
        if chip is not None:
            links = chip.links.link_count * chip.links.bandwidth_bytes_per_s, chip.links.latency_ns
        name = cluster.name if cluster else ""
        chip_name = chip.name if chip else ""
        return cls(socket.gethostname(), os.getpid(), chip_name, session.timing_only, name, links, reduction)

    @property
    def is_gone(self) -> bool:
        """True if the process is known to have ended; of another host nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            state = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state in "ZX"


@dataclass
class Communication:
    """Time of one kind of collective on this rank, in picoseconds.

    `total_ps` is the time of the operations themselves. The cores did nothing for `exposed_ps` of it, and for
    `waited_ps` after this rank was ready and before the last one was; the rest was hidden behind kernels.
    """

    count: int = 0
    size_bytes: int = 0
    total_ps: int = 0
    exposed_ps: int = 0
    waited_ps: int = 0


@dataclass
class World:
    """This rank's place in a cluster, rank n at place n. `cluster`: the one that was named, if one was."""

    cluster: clusters.Cluster | None
    rank: int
    port_free_ps: int = 0
    operations: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    """Each operation's name and size, and when this rank was ready, it started, and it ended."""

    def communication(self) -> dict[str, Communication]:
        """Return what the operations took so far, by name."""
        found: dict[str, Communication] = {}
        now = session.clock
        for name, size_bytes, ready_ps, start_ps, end_ps in self.operations:
            noted = found.setdefault(name, Communication())
            noted.count += 1
            noted.size_bytes += size_bytes
            noted.total_ps += end_ps - start_ps
            if now is not None:
                noted.exposed_ps += now.idle_ps(start_ps, end_ps)
                noted.waited_ps += now.idle_ps(ready_ps, start_ps)
        return found


@dataclass
class Group:
    """One process group: `ranks` are its members' ranks in the world, `members` what they said of themselves."""

    world: World
    name: str
    ranks: tuple[int, ...]
    members: tuple[Member, ...]
    _waited_for: set[int] = field(default_factory=set)

    @property
    def timing_only(self) -> bool:
        return session.timing_only

    @cached_property
    def cluster(self) -> clusters.Cluster:
        """The cluster that was named, or the one that the members' links imply."""
        if self.world.cluster is not None:
            return self.world.cluster
        return clusters.of_links(
            [(member.links[0], member.links[1]) for member in self.members if member.links] or [(1, 0)]
        )

    def post(self, operation: str, size_bytes: int, total_bytes: int, peer: int) -> tuple[int, int, int, str]:
        """Return when this rank is ready, what the operation costs, how much is of unknown time, and the call site.

        `total_bytes`: of all operations posted as one; this one takes its share. `peer`: of a message, else -1.
        """
        now = session.clock
        site = _call_site()
        if now is None:
            return NO_CLOCK, 0, 0, site
        if now.kernel_spans is None:
            now.kernel_spans = []
        moment = now.moment(session.current_stream())
        cost_ps = self._cost_ps(operation, total_bytes, peer)
        if total_bytes > size_bytes:
            cost_ps = cost_ps * size_bytes // total_bytes
        ready_ps = max(moment.time_ps, self.world.port_free_ps)
        self.world.port_free_ps = ready_ps + cost_ps
        return ready_ps, cost_ps, moment.unknown_count, site

    def _cost_ps(self, operation: str, size_bytes: int, peer: int) -> int:
        if operation in ("send", "recv"):
            mine = self.world.rank
            ranks: Sequence[int] = (mine, self.ranks[peer] if peer >= 0 else mine)
        else:
            ranks = self.ranks
        return clusters.collective_time(self.cluster, operation, size_bytes, ranks).time_ps

    def waited(
        self,
        number: int,
        operation: str,
        size_bytes: int,
        ready_ps: int,
        start_ps: int,
        end_ps: int,
        unknown_count: int,
        peer: int,
    ) -> None:
        """Let the current stream go on at the end of operation `number`."""
        now = session.clock
        if now is None:
            return
        stream = session.current_stream()
        now.wait(stream, end_ps)
        if operation == "barrier":
            now.reach(end_ps)
        if number in self._waited_for:
            return
        self._waited_for.add(number)
        self.world.port_free_ps = max(self.world.port_free_ps, end_ps)
        now.learn_unknown(unknown_count)
        self.world.operations.append((operation, size_bytes, ready_ps, start_ps, end_ps))
        now.count(Kind.COLLECTIVE, end_ps - start_ps)
        if now.is_watched:
            lane = f"{operation} in {self.name}"
            if peer >= 0:
                lane = f"{operation} {self.world.rank} - {self.ranks[peer]}"
            now.tell(Activity(Kind.COLLECTIVE, lane, operation, stream, ready_ps, start_ps, end_ps, size_bytes))

    def poll(self, end_ps: int) -> bool:
        """Return whether the host finds the operation ended; asking costs time, so that asking again helps."""
        latency_ps = chips.active().host.latency_ns * clock.PICOSECONDS_PER_NANOSECOND
        return session.clock is None or session.clock.poll(end_ps, max(latency_ps, 1))

    def explain(self, operation: str, site: str, reason: str) -> str:
        """Return the sentence for an operation that failed on this rank."""
        what = f"{operation} in group {self.name!r} failed on rank {self.world.rank}, called at {site}"
        gone = [
            f"rank {self.ranks[place]} (process {member.process} on {member.host})"
            for place, member in enumerate(self.members)
            if member.is_gone
        ]
        if gone:
            return f"{what}: {' and '.join(gone)} ended"
        return f"{what}: {reason}"


_PACKAGE = str(Path(__file__).parents[1])
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def _call_site() -> str:
    """Return "file:line" of the innermost frame of the user's own: of no installed package, nor of Tapeout."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/site-packages/" not in path and not path.startswith((_PACKAGE, _STANDARD_LIBRARY, "<")):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"
