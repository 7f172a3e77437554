"""Inserts the semaphores that order the queues.

Takes machine code with addresses; gives the same code in which every two instructions of different queues that touch
the same bytes (one of them writing) are ordered as in the program. An order that others already imply costs nothing.

Within a straight run of nodes, an edge from queue A to queue B uses the semaphore of (A, B, nesting depth): both
queues are in order and edges do not cross, so counts match one to one. A loop or branch counts as one node: before it
stands a wait in each queue that needs one, after it a signal. An order from one iteration to a later one (`distance`
iterations on: 1, or the number of copies of a rotating buffer) gets a semaphore of its own that starts with `distance`
counts, given before the loop and taken back after it. Programs of a grid are not ordered through HBM.

Every wait is for something earlier in program order, so no program deadlocks, whatever the depth of the queues.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tapeout.codegen.machine import ANYWHERE, Branch, Buffer, Home, Instr, Loop, Node, children, walk
from tapeout.isa import definitions as isa
from tapeout.isa.fields import QUEUES, Unit

Resource = object  # a Buffer, or what names memory in HBM
Use = tuple[Resource, bool]


class OutOfSemaphores(Exception):
    """More orders than semaphores."""


@dataclass
class _Item:
    """A node of a straight run as one queue sees it."""

    unit: Unit
    uses: list[Use]
    node: Instr | None
    waits: list[int] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)


class _Resources:
    """Resources that are the same bytes."""

    def __init__(self, code: list[Node]) -> None:
        buffers: dict[Buffer, None] = {}
        memories: dict[object, None] = {}
        for node in walk(code):
            if isinstance(node, Instr):
                for place, _ in node.places():
                    buffers[place.buffer] = None
                if node.memory is not None:
                    memories[node.memory] = None
        self.aliases: dict[Resource, dict[Resource, None]] = {}
        ordered = sorted(buffers, key=lambda b: b.address)
        for k, buffer in enumerate(ordered):
            mine = self.aliases.setdefault(buffer, {buffer: None})
            for other in ordered[k + 1 :]:
                if other.address >= buffer.address + buffer.size_bytes:
                    break
                mine[other] = None
                self.aliases.setdefault(other, {other: None})[buffer] = None
        for memory in memories:
            if isinstance(memory, Home):
                self.aliases[memory] = {memory: None}
            elif memory is ANYWHERE:
                self.aliases[memory] = {m: None for m in memories if not isinstance(m, Home)}
            else:
                self.aliases[memory] = {m: None for m in (memory, ANYWHERE) if m in memories}


class _LastUses:
    """The latest item of each queue that touches a resource, read or written."""

    def __init__(self, resources: _Resources) -> None:
        self.resources = resources
        self.of_resource: dict[Resource, dict[tuple[Unit, bool], int]] = {}
        self.of_unit: dict[Unit, dict[Resource, None]] = {unit: {} for unit in Unit if unit is not Unit.SEQUENCER}

    def add(self, unit: Unit, use: Use, index: int) -> None:
        resource, written = use
        self.of_resource.setdefault(resource, {})[unit, written] = index
        if unit in self.of_unit:
            self.of_unit[unit][resource] = None

    def of_others(self, unit: Unit, use: Use) -> Iterator[tuple[Resource, Unit, int]]:
        """Yield the last uses of the same bytes by other queues that must be ordered with this use."""
        resource, written = use
        aliases = self.resources.aliases[resource]
        # Most tiles, of which many share their bytes one after another, are the business of one queue.
        if all(other is unit or seen.keys().isdisjoint(aliases.keys()) for other, seen in self.of_unit.items()):
            return
        for alias in aliases:
            for (other, wrote), index in self.of_resource.get(alias, {}).items():
                if other is not unit and other is not Unit.SEQUENCER and (written or wrote):
                    yield alias, other, index


def _uses(instr: Instr) -> Iterator[Use]:
    for place, written in instr.places():
        yield place.buffer, written
    if instr.memory is not None:
        yield instr.memory, instr.unit is Unit.STORE


class _Synchroniser:
    def __init__(self, code: list[Node], semaphore_count: int) -> None:
        self.resources = _Resources(code)
        self.semaphore_count = semaphore_count
        self.next_semaphore = 1
        self.shared: dict[tuple[Unit, Unit, int], int] = {}

    def fresh(self) -> int:
        if self.next_semaphore >= self.semaphore_count:
            raise OutOfSemaphores
        self.next_semaphore += 1
        return self.next_semaphore - 1

    def semaphore(self, source: Unit, destination: Unit, depth: int) -> int:
        key = (source, destination, depth)
        if key not in self.shared:
            self.shared[key] = self.fresh()
        return self.shared[key]

    def run(self, nodes: list[Node], depth: int, loop: Loop | None) -> tuple[list[Node], list[Node], list[Node]]:
        """The nodes with semaphores; and what must stand before and after the loop they are the body of."""
        items: list[_Item] = []
        output: list[Node | _Item] = []
        last = _LastUses(self.resources)
        known: dict[Unit, dict[Unit, int]] = {unit: {} for unit in Unit}
        known_at: list[dict[Unit, int]] = []

        def add(item: _Item, consumer: bool, producer: bool) -> None:
            index = len(items)
            items.append(item)
            output.append(item)
            mine = known[item.unit]
            if consumer:
                for unit, source in sorted(_needs(item, last).items(), key=lambda need: need[0].value):
                    if mine.get(unit, -1) >= source:
                        continue
                    name = self.semaphore(unit, item.unit, depth)
                    items[source].signals.append(name)
                    item.waits.append(name)
                    for other, seen in known_at[source].items():
                        mine[other] = max(mine.get(other, -1), seen)
                    mine[unit] = source
            known_at.append(dict(mine))
            if producer:
                for use in item.uses:
                    last.add(item.unit, use, index)

        for node in nodes:
            if isinstance(node, Instr):
                uses = list(dict.fromkeys(_uses(node)))
                if node.unit in QUEUES or uses:
                    add(_Item(node.unit, uses, node), consumer=True, producer=True)
                else:
                    output.append(node)
                continue
            inside: dict[Unit, dict[Use, None]] = {}
            for inner in walk([node]):
                if isinstance(inner, Instr):
                    for use in _uses(inner):
                        inside.setdefault(inner.unit, {})[use] = None
            for unit, gathered in inside.items():
                add(_Item(unit, list(gathered), None), consumer=True, producer=False)
            output += self.compound(node, depth)
            for unit, gathered in inside.items():
                if unit is not Unit.SEQUENCER:
                    add(_Item(unit, list(gathered), None), consumer=False, producer=True)
        before, after = self.carried(items, last, loop) if loop is not None else ([], [])
        result: list[Node] = []
        for entry in output:
            result += _expand(entry) if isinstance(entry, _Item) else [entry]
        return result, before, after

    def compound(self, node: Node, depth: int) -> list[Node]:
        if isinstance(node, Branch):
            node.then = self.run(node.then, depth + 1, None)[0]
            node.otherwise = self.run(node.otherwise, depth + 1, None)[0]
            return [node]
        assert isinstance(node, Loop)
        if any(isinstance(n, Instr) and n.unit in QUEUES for n in walk(node.head)):
            # the condition is computed by queues: start and end every iteration with everything done
            node.head = [*self.run(node.head, depth + 1, None)[0], Instr(isa.Drain, {})]
            node.body = [*self.run(node.body, depth + 1, None)[0], Instr(isa.Drain, {})]
            return [node]
        node.body, before, after = self.run(node.body, depth + 1, node)
        return [*before, node, *after]

    def carried(self, items: list[_Item], last: _LastUses, loop: Loop) -> tuple[list[Node], list[Node]]:
        edges: dict[tuple[Unit, Unit, int], list[tuple[int, int]]] = {}
        is_grid = any(isinstance(n, Instr) and n.kind is isa.NextProgram for n in loop.head)
        for consumer, item in enumerate(items):
            for use in item.uses:
                resource = use[0]
                if is_grid and not isinstance(resource, Buffer | Home):
                    continue
                for alias, unit, producer in last.of_others(item.unit, use):
                    if producer > consumer:
                        rotates = isinstance(alias, Buffer) and alias is resource and alias.rotation is loop
                        distance = loop.copies if rotates else 1
                        edges.setdefault((unit, item.unit, distance), []).append((producer, consumer))
        before: list[Node] = []
        after: list[Node] = []
        for (source, destination, distance), pairs in edges.items():
            for producer, consumer in _strongest(pairs):
                name = self.fresh()
                items[producer].signals.append(name)
                items[consumer].waits.append(name)
                for _ in range(distance):
                    before += _expand(_Item(source, [], None, [], [name]))
                    after += _expand(_Item(destination, [], None, [name], []))
        return before, after


def _needs(item: _Item, last: _LastUses) -> dict[Unit, int]:
    """For each other queue, the latest earlier item that must be done before this one starts."""
    needs: dict[Unit, int] = {}
    for use in item.uses:
        for _, unit, index in last.of_others(item.unit, use):
            needs[unit] = max(needs.get(unit, -1), index)
    return needs


def _strongest(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Edges (producer, consumer) not implied by one with a later producer and an earlier consumer; one, if many."""
    kept: list[tuple[int, int]] = []
    for producer, consumer in sorted(set(pairs), key=lambda pair: (-pair[0], pair[1])):
        if not kept or consumer < kept[-1][1]:
            kept.append((producer, consumer))
    if len(kept) > 2:
        return [(max(p for p, _ in kept), min(c for _, c in kept))]
    return kept


def _expand(item: _Item) -> list[Node]:
    """The instruction with its semaphores; what exceeds two waits or signals goes to sync instructions beside it."""
    waits, signals = list(item.waits), list(item.signals)
    if item.unit is Unit.SEQUENCER:
        result: list[Node] = [Instr(isa.Wait, {"semaphore": name}) for name in waits]
        return [*result, item.node] if item.node is not None else result
    nodes: list[Node] = []
    sync = isa.SYNC[item.unit]
    limit = 2 if item.node is not None else 0
    while len(waits) > limit:
        nodes.append(Instr(sync, {}, waits=tuple(waits[:2])))
        waits = waits[2:]
    if item.node is not None:
        item.node.waits, item.node.signals = tuple(waits), tuple(signals[:2])
        nodes.append(item.node)
        signals = signals[2:]
    while signals:
        nodes.append(Instr(sync, {}, signals=tuple(signals[:2])))
        signals = signals[2:]
    return nodes


def _with_drains(nodes: list[Node]) -> list[Node]:
    """The plain way, for programs with more orders than semaphores: drain wherever queues meet."""
    result: list[Node] = []
    busy: set[Unit] = set()
    for node in nodes:
        if isinstance(node, Instr):
            touches = node.unit in QUEUES or any(_uses(node))
            if touches and busy - {node.unit}:
                result.append(Instr(isa.Drain, {}))
                busy = set()
            if node.unit in QUEUES:
                busy.add(node.unit)
            result.append(node)
            continue
        if busy:
            result.append(Instr(isa.Drain, {}))
        if isinstance(node, Loop):
            node.head, node.body = _with_drains(node.head), _with_drains(node.body)
            node.head.append(Instr(isa.Drain, {}))
            node.body.append(Instr(isa.Drain, {}))
        elif isinstance(node, Branch):
            node.then, node.otherwise = _with_drains(node.then), _with_drains(node.otherwise)
        result.append(node)
        busy = (
            set(QUEUES) if any(isinstance(n, Instr) and n.unit in QUEUES for n in walk(children(node)[-1])) else set()
        )
        if isinstance(node, Branch):
            result.append(Instr(isa.Drain, {}))
            busy = set()
    return result


def synchronise(code: list[Node], semaphore_count: int) -> list[Node]:
    try:
        return _Synchroniser(code, semaphore_count).run(code, 0, None)[0]
    except OutOfSemaphores:
        for node in walk(code):
            if isinstance(node, Instr):
                node.waits = node.signals = ()
        return _with_drains(_without_sync(code))


def _without_sync(nodes: list[Node]) -> list[Node]:
    """The code as it was before a failed attempt to insert semaphores."""
    inserted = (*isa.SYNC.values(), isa.Wait, isa.Drain)
    result = []
    for node in nodes:
        if isinstance(node, Instr) and node.kind in inserted:
            continue
        if isinstance(node, Loop):
            node.head, node.body = _without_sync(node.head), _without_sync(node.body)
        elif isinstance(node, Branch):
            node.then, node.otherwise = _without_sync(node.then), _without_sync(node.otherwise)
        result.append(node)
    return result
