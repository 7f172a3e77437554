"""A straight run of tile instructions, arranged: vector instructions in groups, blocks read and written where they lie.

Takes the run in program order with register values filled in; gives units in an order that leaves every byte of HBM the
same. What a group computes for nobody is not stored; a block that only a group (or a matrix product) reads is read from
HBM directly, and a group's result that only goes to HBM is written there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tapeout.isa import AccessPattern, Instruction
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit as Engine
from tapeout.isa.fields import operand_dtype
from tapeout.sim.functional.analysis import Region, covers, may_overlap
from tapeout.sim.functional.liveness import Live, Liveness
from tapeout.sim.functional.node import Node
from tapeout.sim.functional.operands import ANYWHERE, tile_uses
from tapeout.sim.functional.vector import Block, Group, Mapping, map_onto_block, unit_dimension

SHORTEST_ROW_BYTES = 32
"""Blocks with shorter rows are copied: reading them in place would cost more than the copy."""


@dataclass(frozen=True)
class OperandView:
    """An operand of a matrix product read from its block; `mapping` is for batch, m, n, k."""

    block: Block
    mapping: Mapping


@dataclass
class Unit:
    """A group, or one instruction. `is_view`: a load that need not fill its tile. `stores`: the store instructions
    whose blocks the group's results go to, by step."""

    node: Node | None = None
    group: Group | None = None
    members: list[Node] = field(default_factory=list)
    is_view: bool = False
    operand_views: dict[str, OperandView] = field(default_factory=dict)
    stores: dict[int, Node] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        return [self.node] if self.node else self.members

    @property
    def stores_to_hbm(self) -> bool:
        return bool(self.stores) or any(node.item.unit is Engine.STORE for node in self.nodes)

    @property
    def touches_hbm(self) -> bool:
        return self.stores_to_hbm or any(node.item.unit is Engine.LOAD for node in self.nodes)


class Scheduler:
    """Arranges runs of one program."""

    def __init__(self, liveness: Liveness) -> None:
        self.ranges = liveness.ranges
        self.liveness = liveness

    def arrange(self, nodes: list[Node], live: Live) -> list[Unit]:
        """Units to write in order; `live`: what may be read after the run."""
        units: list[Unit] = []
        for node in nodes:
            self._insert(units, node)
        self._place_stores(units, live)
        self._view_loads(units, live)
        self._drop(units, live)
        return units

    # ----------------------------------------------------------------------------------------- groups

    def _overlap(self, a: Region, b: Region) -> bool:
        return may_overlap(a, b, self.ranges)

    def _conflict(self, unit: Unit, node: Node) -> bool:
        """Return whether a node must stay behind a unit."""
        if node.item.unit in (Engine.LOAD, Engine.STORE) and unit.touches_hbm:
            return True
        for other in unit.nodes:
            for mine in node.written.values():
                if any(self._overlap(mine, r) for r in (*other.read.values(), *other.written.values())):
                    return True
            for mine in node.read.values():
                if any(self._overlap(mine, r) for r in other.written.values()):
                    return True
        return False

    def _insert(self, units: list[Unit], node: Node) -> None:
        step = node.step
        if step is None:
            units.append(Unit(node=node))
            return
        floor = next((i for i in range(len(units) - 1, -1, -1) if self._conflict(units[i], node)), -1)
        for unit in units[max(floor, 0) :]:
            if unit.group is not None and unit.group.add(step):
                unit.members.append(node)
                return
        group = Group(self.ranges)
        if group.add(step):
            units.append(Unit(group=group, members=[node]))
        else:
            units.append(Unit(node=node))

    # ---------------------------------------------------------------------------------- stores to HBM

    def _place_stores(self, units: list[Unit], live: Live) -> None:
        """Let groups write blocks where they belong, if the tile is read by nobody else."""
        position = 0
        while position < len(units):
            if self._place_store(units, position, live):
                del units[position]
            else:
                position += 1

    def _place_store(self, units: list[Unit], position: int, live: Live) -> bool:
        node = units[position].node
        if node is None or not isinstance(node.item, isa.Store) or not _long_rows(node.item):
            return False
        region = node.read.get("tile")
        if region is None or not region.dense:
            return False
        source = next(
            (i for i in range(position - 1, -1, -1) if self._writes(units[i], region)),
            None,
        )
        if source is None or units[source].group is None or self._is_read_after(units, position, region, live):
            return False
        unit, group = units[source], units[source].group
        assert group is not None
        writer = self._writer(group, region)
        if writer is None:
            return False
        for between in units[source + 1 : position]:
            if between.stores_to_hbm or (unit.stores and between.touches_hbm):
                return False
            if any(self._conflict(between, member) for member in unit.members):
                return False
        block = Block.of(node.index, node.item)
        if group.view(writer, "result", block) is None:
            return False
        group.places[writer] = block
        unit.stores[writer] = node
        units.insert(position, unit)
        del units[source]  # the group now stands just before the store
        return True

    def _writer(self, group: Group, region: Region) -> int | None:
        """The step whose result is exactly this region, if no other step writes any of it."""
        found = None
        for index, step in enumerate(group.steps):
            other = step.result.region
            if not self._overlap(other, region):
                continue
            exact = (other.start, other.end, other.register, other.version, other.dense) == (
                region.start,
                region.end,
                region.register,
                region.version,
                True,
            )
            if not exact or step.is_reduction or index in group.places:
                return None
            found = index
        return found

    def _writes(self, unit: Unit, region: Region) -> bool:
        return any(self._overlap(written, region) for node in unit.nodes for written in node.written.values())

    def _readers(self, unit: Unit, region: Region) -> Iterator[tuple[int, str]]:
        """Operands of a unit (number of the instruction, name) that read from a region and are not forwarded."""
        for number, node in enumerate(unit.nodes):
            for name, read in node.read.items():
                forwarded = unit.group is not None and (number, name) in unit.group.forwards
                if not forwarded and self._overlap(read, region):
                    yield number, name

    def _is_read_after(self, units: list[Unit], position: int, region: Region, live: Live) -> bool:
        for unit in units[position + 1 :]:
            if any(True for _ in self._readers(unit, region)):
                return True
            if any(covers(w, region) for n in unit.nodes for w in n.written.values()):
                return False
        return self.liveness.is_live(region, live)

    # --------------------------------------------------------------------------------- loads from HBM

    def _view_loads(self, units: list[Unit], live: Live) -> None:
        for position, unit in enumerate(units):
            node = unit.node
            if node is not None and isinstance(node.item, isa.Load) and _long_rows(node.item):
                readers = self._viewers(units, position, node, live)
                for reader, number, name, view in readers:
                    if isinstance(view, OperandView):
                        reader.operand_views[name] = view
                    elif reader.group is not None:
                        reader.group.views[(number, name)] = view
                unit.is_view = bool(readers)

    def _viewers(
        self, units: list[Unit], position: int, node: Node, live: Live
    ) -> list[tuple[Unit, int, str, Block | OperandView]]:
        """Every operand that reads a load's tile, as it would read the block; none if that cannot be done for all."""
        region = node.written["tile"]
        found: list[tuple[Unit, int, str, Block | OperandView]] = []
        stored = False
        for unit in units[position + 1 :]:
            for number, name in self._readers(unit, region):
                view = None if stored else self._view(unit, number, name, node)
                if view is None:
                    return []
                found.append((unit, number, name, view))
            written = [w for n in unit.nodes for w in n.written.values() if self._overlap(w, region)]
            if any(covers(w, region) for w in written):
                return found
            if written:
                return []
            stored |= unit.stores_to_hbm
        return [] if self.liveness.is_live(region, live) else found

    def _view(self, unit: Unit, number: int, name: str, load: Node) -> Block | OperandView | None:
        """Return how one operand would read the block of a load."""
        item, reader = load.item, unit.nodes[number].item
        assert isinstance(item, isa.Load)
        pattern, version = getattr(reader, name), unit.nodes[number].read[name].version
        tile_version = load.written["tile"].version
        if (pattern.base, pattern.register, version) != (item.tile.base, item.tile.register, tile_version):
            return None
        block = Block.of(load.index, item)
        if unit.group is not None:
            return block if unit.group.view(number, name, block) is not None else None
        if isinstance(reader, isa.MatrixMultiply) and name in ("lhs", "rhs"):
            if operand_dtype(type(reader), name, reader).size_bytes != block.element_bytes:
                return None
            mapping = map_onto_block(pattern.strides, reader.shape, block.shape, block.tile_strides)
            return OperandView(block, mapping) if isinstance(mapping, tuple) else None
        return None

    # ---------------------------------------------------------------------------------------- dropping

    def _drop(self, units: list[Unit], live: Live) -> None:
        """Note which results of groups nobody reads from the scratchpad."""
        for unit in reversed(units):
            group = unit.group
            if group is not None:
                for index, step in enumerate(group.steps):
                    region = step.result.region
                    last = group.writers.get(group.key(step.result, step.shape)) == index
                    if not last or index in group.places or not self.liveness.is_live(region, live):
                        group.dropped.add(index)
            for node in unit.nodes:
                for region in node.written.values():
                    live = self.liveness.remove(region, live)
            for number, node in enumerate(unit.nodes):
                for name, region in node.read.items():
                    if name in unit.operand_views:
                        continue
                    if group is not None and ((number, name) in group.forwards or (number, name) in group.views):
                        continue
                    live = self.liveness.add(region, live)


def _long_rows(item: isa.BlockTransfer) -> bool:
    tile = item.tile
    if not isinstance(tile, AccessPattern):
        return False
    unit = unit_dimension(item.shape, tile.strides)
    if unit is None:
        return False
    row_bytes: int = item.shape[unit] * item.dtype.size_bytes
    return row_bytes >= SHORTEST_ROW_BYTES or row_bytes == item.dtype.size_bytes * _count(item.shape)


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for extent in shape:
        product *= extent
    return product


def node_regions(item: Instruction, region: dict[str, Region]) -> tuple[dict[str, Region], dict[str, Region]]:
    """Regions by operand name: read, written. What is only partly overwritten counts as read too."""
    read: dict[str, Region] = {}
    written: dict[str, Region] = {}
    for use, _, matters in tile_uses(item):
        if use.writes:
            written[use.name] = region[use.name]
        if matters:
            read[use.name] = ANYWHERE if use.picked else region[use.name]
    return read, written
