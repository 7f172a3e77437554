"""Templates: for some kinds of cards and a number of replicas, the pipeline whose slowest stage is fastest.

Takes kinds, replicas and micro-batch; gives meshes in order with layers for each stage. For a time T of the slowest
stage, each kind hosts at most (its stages) x (layers a stage does in T, or holds in memory), whatever the others do: T
is found by bisection. Then layers are dealt to stages, the ends having less because of embedding and head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.planning.costs import Costs, LayerTerms, MemoryTerms
from tapeout.planning.settings import Question
from tapeout.training.plan import Mesh, Pipeline

STEPS = 20
"""Number of bisections on a time: one part in a million is left."""


@dataclass(frozen=True)
class Option:
    """One way to use a kind: a mesh of all the stages its cards allow."""

    mesh: Mesh
    terms: LayerTerms
    memory: MemoryTerms

    @property
    def layer_s(self) -> float:
        return self.terms.layer_s

    @property
    def layer_bytes(self) -> float:
        """Weights, gradients and optimizer state of a layer."""
        return self.terms.dense * self.memory.dense + self.terms.experts * self.memory.experts

    @property
    def free_bytes(self) -> float:
        return self.terms.capacity_bytes - self.memory.always - self.terms.working_bytes

    @property
    def flight_bytes(self) -> float:
        """What a layer keeps of each micro-batch in flight."""
        return self.terms.kept_bytes * self.memory.activations

    @property
    def end_bytes(self) -> float:
        """What an embedding or a head adds."""
        return self.terms.ends * self.memory.dense


@dataclass(frozen=True)
class Template:
    """A pipeline without a batch: `fill_s` is the time of a micro-batch through all stages, `slowest_s` in the slowest.
    A step of m micro-batches takes about fill + (m - 1) slowest."""

    meshes: tuple[Mesh, ...]
    replicas: int
    micro_batch: int
    fill_s: float
    slowest_s: float

    @property
    def share(self) -> int:
        """Sequences of one micro-batch in all replicas."""
        return self.replicas * self.micro_batch

    def seconds(self, batch: int) -> float:
        return self.fill_s + (batch / self.share - 1) * self.slowest_s

    def pipeline(self, batch: int) -> Pipeline:
        return Pipeline(meshes=self.meshes, replicas=self.replicas, batch=batch, micro_batch=self.micro_batch)


def options(
    question: Question, costs: Costs, kind: str, replicas: int, micro_batch: int, cp: int, ep: int
) -> list[Option]:
    """Every way to use a kind in a pipeline of so many replicas."""
    key = (kind, replicas, micro_batch, cp, ep)
    if key not in costs.options:
        costs.options[key] = _options(question, costs, *key)
    known: list[Option] = costs.options[key]
    return known


def _options(
    question: Question, costs: Costs, kind: str, replicas: int, micro_batch: int, cp: int, ep: int
) -> list[Option]:
    found = []
    for tp in question.tensor_sizes(kind):
        stages = question.fleet[kind].count // (tp * cp * replicas)
        ranks = tp * cp * replicas
        if stages < 1 or question.sequence % (cp * tp) or (ep > 1 and ranks % ep):
            continue
        for recompute in question.recomputes:
            mesh = Mesh(kind=kind, stages=min(stages, question.model.layers), tp=tp, cp=cp, ep=ep, recompute=recompute)
            memory = costs.memory_terms(replicas * cp, max(ranks // ep, 1))
            found.append(Option(mesh, costs.terms(mesh, micro_batch, replicas), memory))
    return found


def best(
    question: Question,
    costs: Costs,
    kinds: Sequence[str],
    replicas: int,
    micro_batch: int,
    cp: int,
    ep: int,
    micro_batches: int,
) -> Template | None:
    """The template with the least time of its slowest stage, or None where nothing fits."""
    choices = {kind: options(question, costs, kind, replicas, micro_batch, cp, ep) for kind in kinds}
    order = sorted(
        (kind for kind in kinds if choices[kind]),
        key=lambda kind: -max(each.terms.capacity_bytes / each.terms.kept_bytes for each in choices[kind]),
    )
    if not order:
        return None
    layers, least = question.model.layers, question.least_layers
    # Of each way: stages, seconds and bytes of a layer, bytes of a layer in flight, free bytes.
    figures = {
        kind: [
            (each.mesh.stages, each.layer_s, each.layer_bytes, each.flight_bytes, each.free_bytes, each)
            for each in choices[kind]
        ]
        for kind in order
    }

    def hosted(limit_s: float) -> tuple[int, list[Option]]:
        """Layers that all kinds host, none of whose stages takes longer, and the way each is used."""
        behind, total, chosen = 0, 0, []
        for kind in reversed(order):
            most, way = 0, None
            for stages, layer_s, layer_bytes, flight_bytes, free, each in figures[kind]:
                flight = min(behind + stages, micro_batches)
                fits = int(free / (layer_bytes + flight * flight_bytes))
                held = stages * min(max(int(limit_s / layer_s), least), fits, layers)
                if held > most:
                    most, way = held, each
            if way is not None:
                total += most
                behind += way.mesh.stages
                chosen.append(way)
        return total, chosen[::-1]

    low, high = 0.0, layers * max(each.layer_s for kind in order for each in choices[kind])
    if hosted(high)[0] < layers:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if hosted(middle)[0] >= layers else (middle, high)
    return dealt(question, hosted(high)[1], replicas, micro_batch, micro_batches)


def dealt(
    question: Question, ways: Sequence[Option], replicas: int, micro_batch: int, micro_batches: int
) -> Template | None:
    """Layers dealt to the stages of meshes in this order, so that the slowest stage is as fast as can be and slow kinds
    do no more than they must. Stages left without layers are dropped."""
    layers = question.model.layers
    while True:
        stages = [way for way in ways for _ in range(way.mesh.stages)]
        if not stages:
            return None
        most = question.stages or layers
        if len(stages) > most:
            ways = _fewer(ways, len(stages) - most)
            continue
        counts = _deal(layers, stages, micro_batches, question.least_layers)
        if counts is None:
            return None
        if all(counts):
            break
        kept, place = [], 0
        for way in ways:
            used = sum(1 for count in counts[place : place + way.mesh.stages] if count)
            place += way.mesh.stages
            if used:
                kept.append(replace(way, mesh=replace(way.mesh, stages=used)))
        ways = kept
    meshes, place = [], 0
    for way in ways:
        mine = tuple(counts[place : place + way.mesh.stages])
        meshes.append(replace(way.mesh, layers=mine))
        place += way.mesh.stages
    times = [count * way.layer_s + more for count, way, more in zip(counts, stages, _extras(stages), strict=True)]
    return Template(tuple(meshes), replicas, micro_batch, math.fsum(times), max(times))


def _fewer(ways: Sequence[Option], surplus: int) -> list[Option]:
    """The ways with that many stages less, taken from the slowest kinds."""
    left = {id(way): way.mesh.stages for way in ways}
    for way in sorted(ways, key=lambda way: -way.layer_s):
        taken = min(surplus, left[id(way)])
        left[id(way)] -= taken
        surplus -= taken
    return [replace(way, mesh=replace(way.mesh, stages=left[id(way)])) for way in ways if left[id(way)]]


def _extras(stages: Sequence[Option]) -> list[float]:
    more = [0.0] * len(stages)
    more[0] += stages[0].terms.embedding_s
    more[-1] += stages[-1].terms.head_s
    return more


def _deal(layers: int, stages: Sequence[Option], micro_batches: int, least: int) -> list[int] | None:
    last = len(stages) - 1
    more, each_s = np.array(_extras(stages)), np.array([way.layer_s for way in stages])
    end_bytes = np.zeros(len(stages))
    end_bytes[0] += stages[0].end_bytes
    end_bytes[-1] += stages[-1].end_bytes + stages[-1].terms.loss_bytes
    figures = {id(way): (way.free_bytes, way.layer_bytes, way.flight_bytes) for way in stages}
    free, layer_bytes, flight_bytes = np.array([figures[id(way)] for way in stages]).T
    flight = np.minimum(last + 1 - np.arange(last + 1), micro_batches)
    caps = np.maximum((free - end_bytes) // (layer_bytes + flight * flight_bytes), 0)
    if caps.sum() < layers or caps.min() < least:
        return None

    def counts(limit_s: float) -> NDArray[np.float64]:
        layers_each: NDArray[np.float64] = np.clip(np.floor((limit_s - more) / each_s + 1e-9), least, caps)
        return layers_each

    low, high = 0.0, layers * float(each_s.max()) + float(more.max())
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if counts(middle).sum() >= layers else (middle, high)
    found = counts(high).astype(int)
    for _ in range(int(found.sum()) - layers):  # from the fullest stage of the slowest kind
        slowest = each_s[found > least].max()
        time = np.where((found > least) & (each_s == slowest), found * each_s + more, -1.0)
        found[int(time.argmax())] -= 1
    return [int(count) for count in found]
