"""Places of cores and memory on a described network, and the links a request takes between them.

Takes a `Chip` with a network, gives a `Layout`: stations are numbered along rows, links by station and direction. The
timing model charges time to these links, the power model energy to the hops.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tapeout.chip.description import Chip

DIRECTIONS = 4
EAST, WEST, SOUTH, NORTH = range(DIRECTIONS)


@dataclass(frozen=True)
class Layout:
    """Stations of a network: a core each. `border_columns`: columns of a die after which a border is crossed, 0 for
    none. A crossbar has a station a core and one a slice, each a hop away from its middle."""

    kind: str
    station_count: int
    column_count: int
    slice_count: int
    at_edges: bool
    border_columns: int

    @staticmethod
    def of(chip: Chip) -> "Layout":
        """The layout of a chip that describes a network."""
        network, package = chip.network, chip.package
        assert network is not None
        columns = network.column_count if network.kind == "mesh" else chip.core_count
        is_cut = package is not None and package.kind == "dies"
        return Layout(
            kind=network.kind,
            station_count=chip.core_count,
            column_count=columns,
            slice_count=chip.memory_side.slice_count,
            at_edges=network.memory_place == "edges",
            border_columns=columns // package.die_count if is_cut and package is not None else 0,
        )

    @property
    def row_count(self) -> int:
        return self.station_count // self.column_count

    def station_of_slice(self, number: int) -> int:
        """The station beside which a slice (or memory controller) stands."""
        if self.at_edges:
            column = number % 2 * (self.column_count - 1)
            return number // 2 % self.row_count * self.column_count + column
        return number * self.station_count // self.slice_count

    def route(self, core: int, slice_number: int, *, answer: bool) -> Iterator[tuple[int, bool]]:
        """Links from a core to a slice, or of the answer back; see `path`. Answers have links of their own, under the
        same numbers. A crossbar has a link a core and, after those, one a slice."""
        if self.kind == "crossbar":
            links = [(core, False), (self.station_count + slice_number, False)]
            yield from reversed(links) if answer else links
            return
        station = self.station_of_slice(slice_number)
        yield from self.path(station, core) if answer else self.path(core, station)

    @property
    def link_numbers(self) -> int:
        """Numbers of links are below this."""
        return self.station_count + self.slice_count if self.kind == "crossbar" else self.station_count * DIRECTIONS

    @property
    def link_count(self) -> int:
        """Links in one direction of the traffic, each between two neighbours one way."""
        if self.kind == "crossbar":
            return self.station_count + self.slice_count
        if self.kind == "ring":
            return 2 * self.station_count
        rows, columns = self.row_count, self.column_count
        return 2 * (rows * (columns - 1) + columns * (rows - 1))

    def path(self, start: int, end: int) -> Iterator[tuple[int, bool]]:
        """Links from a station to another in their order: number, and whether the link crosses a border of dies. On a
        ring the shorter way, eastwards if both are equal; on a mesh the row first."""
        if self.kind == "ring":
            yield from self._around(start, end)
            return
        columns = self.column_count
        at = start
        while at % columns != end % columns:
            step, direction = (1, EAST) if end % columns > at % columns else (-1, WEST)
            yield at * DIRECTIONS + direction, self._is_border(at % columns, at % columns + step)
            at += step
        while at != end:
            step, direction = (columns, SOUTH) if end > at else (-columns, NORTH)
            yield at * DIRECTIONS + direction, False
            at += step

    def _around(self, start: int, end: int) -> Iterator[tuple[int, bool]]:
        count = self.station_count
        eastwards = (end - start) % count
        step, direction = (1, EAST) if 2 * eastwards <= count else (-1, WEST)
        at = start
        while at != end:
            after = (at + step) % count
            yield at * DIRECTIONS + direction, self._is_border(at, after)
            at = after

    def _is_border(self, column: int, after: int) -> bool:
        return self.border_columns > 0 and column // self.border_columns != after // self.border_columns

    def hops(self, core: int, slice_number: int) -> int:
        """Hops from a core to a slice."""
        if self.kind == "crossbar":
            return 2
        end = self.station_of_slice(slice_number)
        if self.kind == "ring":
            eastwards = (end - core) % self.station_count
            return min(eastwards, self.station_count - eastwards)
        columns = self.column_count
        return abs(core % columns - end % columns) + abs(core // columns - end // columns)

    @property
    def mean_hops(self) -> float:
        """Mean over all pairs of a core and a slice."""
        if self.kind == "crossbar":
            return 2.0
        if self.kind == "ring":  # all slices see the same distances
            return sum(self.hops(core, 0) for core in range(self.station_count)) / self.station_count
        hops = 0
        for number in range(self.slice_count):
            row, column = divmod(self.station_of_slice(number), self.column_count)
            hops += self.row_count * sum(abs(column - other) for other in range(self.column_count))
            hops += self.column_count * sum(abs(row - other) for other in range(self.row_count))
        return hops / (self.station_count * self.slice_count)


def network_bytes_per_s(chip: Chip) -> float:
    """Bytes a second, both ways together, that a described network carries when every link is busy and paths have mean
    length."""
    assert chip.network is not None
    layout = Layout.of(chip)
    return 2 * layout.link_count * chip.network.link_bytes_per_cycle * chip.clock_hz / max(layout.mean_hops, 1.0)
