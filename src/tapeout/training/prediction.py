"""A training step on a fleet: its time with parts and range, memory of each stage, what bounds it.

Takes a model, a fleet and a plan. Each pipeline is simulated pass by pass with the times of its own stages; a
homogeneous plan goes the same way with one kind. What a step is made of is told of the stage that works longest:
its passes by part, the bubble it waits in, what is exposed of the gradients' reduction, and the optimizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from statistics import NormalDist

import numpy as np

from tapeout.figures import Estimate, Provenance, given, number, total
from tapeout.models.step import ModelShape
from tapeout.models.tables import table
from tapeout.training import collectives, layers, memory, schedules, shapes
from tapeout.training.collectives import Group
from tapeout.training.fleet import Cards, Fleet
from tapeout.training.layers import DATA, HOST, NOTHING, PARTS, TRANSFER, Pass, Passes, Split
from tapeout.training.plan import Mesh, Pipeline, Plan
from tapeout.training.problems import TrainingError
from tapeout.training.schedules import Timeline

BUBBLE, OPTIMIZER = "bubble", "optimizer"
HOST_SPREAD = 0.1
"""Deviation of the hosts' times of a layer over their mean (assumed)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: `forward_s` and `backward_s` of a micro-batch, the time its device works in a step, its memory."""

    number: int
    kind: str
    layers: int
    tp: int
    forward_s: float
    backward_s: float
    busy_s: float
    in_flight: int
    memory: Estimate
    capacity_bytes: float

    @property
    def fits(self) -> bool:
        return self.memory.value <= self.capacity_bytes


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a plan takes. `time` has the parts; `mfu`: useful operations over the peak of all cards; `mac_share`: the
    share of the multipliers' time in which they work, recomputation included. `pipelines`: stages and timeline of one
    replica of each."""

    model: ModelShape
    fleet: Fleet
    plan: Plan
    time: Estimate
    mfu: Estimate
    mac_share: Estimate
    bound: str
    stages: tuple[tuple[Stage, ...], ...]
    timelines: tuple[Timeline, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.time.value

    @property
    def fits(self) -> bool:
        """Whether every stage fits its card's memory."""
        return all(stage.fits for stages in self.stages for stage in stages)

    @cached_property
    def tokens_per_s(self) -> Estimate:
        return (number(self.plan.tokens, "token") / self.time).called("tokens a second")


@dataclass(frozen=True)
class _Part:
    """A device's chunk of layers with its passes."""

    mesh: Mesh
    cards: Cards
    split: Split
    first: int
    count: int
    passes: Passes


def predict(model: ModelShape, fleet: Fleet, plan: Plan) -> Step:
    """Time, memory and bound of a step. Raises TrainingError for a plan that is none (one that does not fit its
    memory is no error: `Step.fits`), ModelError that names a figure a kind lacks."""
    plan.check(model)
    for kind, count in plan.cards.items():
        if count > fleet[kind].count:
            raise TrainingError(f"the plan takes {count} {kind}, the fleet has {fleet[kind].count}")
    found = [_pipeline(model, fleet, plan, pipeline) for pipeline in plan.pipelines]
    slowest = max(found, key=lambda each: each.seconds)
    time = _estimate(slowest, fleet)
    flops = shapes.flops_of_token(model, plan.sequence) * plan.tokens
    peak = sum(_peak(fleet[kind], plan.dtype) * count for kind, count in plan.cards.items())
    share = number(flops / peak, "s") / time
    executed = number(_executed(model, plan) / peak, "s") / time
    return Step(
        model=model,
        fleet=fleet,
        plan=plan,
        time=time,
        mfu=share.called("model FLOPs utilisation"),
        mac_share=executed.called("share of multipliers at work"),
        bound=_bound(slowest),
        stages=tuple(each.stages for each in found),
        timelines=tuple(each.timeline for each in found),
    )


@dataclass(frozen=True)
class _Simulated:
    seconds: float
    parts: Mapping[str, tuple[float, float, float]]  # value, and the factors of its low and high end
    kind: str
    slowest: int
    stages: tuple[Stage, ...]
    timeline: Timeline


def _pipeline(model: ModelShape, fleet: Fleet, plan: Plan, pipeline: Pipeline) -> _Simulated:
    counts = pipeline.layers(model)
    meshes = [mesh for mesh in pipeline.meshes for _ in range(mesh.stages)]
    stage_count, virtual = len(meshes), plan.virtual_stages
    chunks = _chunks(model, fleet, plan, pipeline, meshes, counts)
    hops = [_transfer_s(model.hidden, pipeline, chunks, number) for number in range(len(chunks) - 1)]
    chunks = [_sending(chunk, hops, place) for place, chunk in enumerate(chunks)]
    kind_of_schedule = plan.schedule if stage_count > 1 else "1f1b"
    of = schedules.order(kind_of_schedule, stage_count, pipeline.micro_batches, virtual)
    timeline = schedules.times(
        of,
        [chunk.passes.forward.total for chunk in chunks],
        [chunk.passes.backward.total for chunk in chunks],
        [chunk.passes.weight.total for chunk in chunks],
        [0.0 if chunks[number].cards.software.blocking else hop for number, hop in enumerate(hops)],
    )
    in_flight = schedules.most_in_flight(of)
    ends = [timeline.end[of.starts[device] : of.starts[device + 1]].max() for device in range(stage_count)]
    is_dual = kind_of_schedule == "dualpipe"
    stages, finished, after = [], [], []
    for device, mesh in enumerate(meshes):
        mine = [chunks[place] for place in _places(device, stage_count, virtual, is_dual)]
        share = 0.5 if is_dual else 1.0
        busy = pipeline.micro_batches * share * sum(_all(chunk).total for chunk in mine)
        owned = _owned(model, mine)
        reduction = _exposed(model, plan, pipeline, mine, timeline, device)
        update = _update_s(plan, pipeline, mine[0], owned)
        finished.append(float(ends[device]) + reduction + update)
        after.append((reduction, update))
        stages.append(_stage(model, plan, pipeline, device, mesh, mine, owned, busy, int(in_flight[device]), virtual))
    slowest = int(np.argmax(finished))
    works = int(np.argmax([stage.busy_s for stage in stages]))
    share = 0.5 if is_dual else 1.0
    places = _places(works, stage_count, virtual, is_dual)
    work = layers.joined((pipeline.micro_batches * share, _all(chunks[place])) for place in places)
    parts = {name: (work.seconds.get(name, 0.0), work.low.get(name, 1.0), work.high.get(name, 1.0)) for name in PARTS}
    reduction, update = after[slowest]
    data, low, high = parts[DATA]
    parts[DATA] = (data + reduction, low, high)
    parts[OPTIMIZER] = (update, 0.8, 1.25)
    rest = finished[slowest] - sum(value for value, _, _ in parts.values())
    parts[BUBBLE] = (max(rest, 0.0), 1.0, 1.0)
    return _Simulated(finished[slowest], parts, meshes[works].kind, works, tuple(stages), timeline)


def _places(device: int, stage_count: int, virtual: int, is_dual: bool) -> list[int]:
    """The chunks of a device."""
    if is_dual:
        return sorted({device, stage_count - 1 - device})
    return list(range(device, stage_count * virtual, stage_count))


def _chunks(
    model: ModelShape, fleet: Fleet, plan: Plan, pipeline: Pipeline, meshes: list[Mesh], counts: tuple[int, ...]
) -> list[_Part]:
    """Chunks in the order of the layers."""
    virtual, stage_count = plan.virtual_stages, len(meshes)
    sizes = []
    for part in range(virtual):
        for device in range(stage_count):
            sizes.append(counts[device] // virtual + (1 if part < counts[device] % virtual else 0))
    found, first = [], 0
    for place, count in enumerate(sizes):
        mesh = meshes[place % stage_count]
        cards = fleet[mesh.kind]
        split = Split(
            tp=mesh.tp,
            cp=mesh.cp,
            ep=mesh.ep,
            micro_batch=pipeline.micro_batch,
            sequence=plan.sequence,
            dtype=plan.dtype,
            sequence_parallel=plan.sequence_parallel and mesh.tp > 1,
            fused_attention=plan.fused_attention,
            dropout=plan.dropout,
        )
        is_first, is_last = place == 0, place == len(sizes) - 1
        passes = _passes(model, plan, pipeline, mesh, cards, split, first, count, is_first, is_last)
        found.append(_Part(mesh, cards, split, first, count, passes))
        first += count
    return found


def _passes(
    model: ModelShape,
    plan: Plan,
    pipeline: Pipeline,
    mesh: Mesh,
    cards: Cards,
    split: Split,
    first: int,
    count: int,
    is_first: bool,
    is_last: bool,
) -> Passes:
    forward, backward, weight = [], [], []
    for is_sparse in (False, True):
        alike = [index for index in range(first, first + count) if shapes.is_sparse(model, index) == is_sparse]
        if not alike:
            continue
        each = layers.layer(model, alike[0], split, cards)
        again = _again(model, each.forward, mesh.recompute, split, cards)
        one = _with_host(each, again, cards, max(mesh.tp * mesh.cp, mesh.ep if is_sparse else 1))
        if plan.zero == 3 and pipeline.stages == 1:
            one = _with_gathering(one, model, alike[0], split, cards, pipeline, mesh)
        forward.append((float(len(alike)), one.forward))
        backward.append((float(len(alike)), one.backward))
        weight.append((float(len(alike)), one.weight))
    if is_first:
        ends = layers.embedding(model, split, cards)
        forward.append((1.0, ends.forward))
        backward.append((1.0, ends.backward))
    if is_last:
        ends = layers.head(model, split, cards)
        forward.append((1.0, ends.forward))
        backward.append((1.0, ends.backward))
        weight.append((1.0, ends.weight))
    return Passes(layers.joined(forward), layers.joined(backward), layers.joined(weight))


def _again(model: ModelShape, forward: Pass, recompute: str, split: Split, cards: Cards) -> Pass:
    """What is computed again in the backward pass."""
    if recompute == "full":
        return forward
    if recompute == "selective" and not split.fused_attention:
        return layers.core_attention(model, split, cards)
    if recompute == "products":
        shares = {layers.MATRIX: 0.5, layers.VECTOR: 1.0}
        seconds = {name: value * shares[name] for name, value in forward.seconds.items() if name in shares}
        return Pass(seconds, forward.low, forward.high)
    return NOTHING


@cache
def _slowest_host(ranks: int) -> float:
    """The slowest of so many hosts over the mean of hosts, times drawn from a normal distribution (Blom's formula)."""
    return 1 + HOST_SPREAD * NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 1.0


def _with_host(each: Passes, again: Pass, cards: Cards, ranks: int) -> Passes:
    """A layer's passes, none of which is shorter than the host needs to launch it. `ranks`: that meet in every layer,
    and wait there for the slowest of their hosts."""
    host = cards.software.host.value * _slowest_host(ranks)

    def padded(one: Pass, floor: float) -> Pass:
        missing = max(floor - one.total, 0.0)
        return layers.joined([(1.0, one), (1.0, Pass({HOST: missing}, {HOST: 0.5}, {HOST: 1.5}))])

    back = layers.joined([(1.0, each.backward), (1.0, again)])
    floor = host * (2 if again.total >= each.forward.total else 1)
    # The host is ahead in one of the two backward passes if it lags in the other.
    backward = padded(back, max(floor + host - each.weight.total, 0.0))
    return Passes(padded(each.forward, host), backward, each.weight)


def _with_gathering(
    one: Passes, model: ModelShape, index: int, split: Split, cards: Cards, pipeline: Pipeline, mesh: Mesh
) -> Passes:
    """Weights gathered before each pass and gradients scattered after it, beside the work of the layer."""
    owned = memory.held(model, index, 1, split, has_embedding=False, has_head=False)
    network = cards.network
    group = Group(pipeline.replicas * mesh.cp, mesh.tp)
    gather = collectives.time_s(network, "all_gather", owned.count * 2, group)
    scatter = collectives.time_s(network, "reduce_scatter", owned.count * 4, group)

    def beside(work: Pass, network_s: float) -> Pass:
        return layers.joined(
            [(1.0, work), (1.0, Pass({DATA: max(network_s - work.total, 0.0)}, {DATA: 0.8}, {DATA: 1.4}))]
        )

    both = one.backward.total + one.weight.total
    wait = max(gather + scatter - both, 0.0)
    backward = layers.joined([(1.0, one.backward), (1.0, Pass({DATA: wait}, {DATA: 0.8}, {DATA: 1.4}))])
    return Passes(beside(one.forward, gather), backward, one.weight)


def _all(chunk: _Part) -> Pass:
    passes = chunk.passes
    return layers.joined([(1.0, passes.forward), (1.0, passes.backward), (1.0, passes.weight)])


def _transfer_s(hidden: int, pipeline: Pipeline, chunks: list[_Part], number: int) -> float:
    """Activations from a chunk to the next: each card of a tensor-parallel group sends its share."""
    here, there = chunks[number], chunks[number + 1]
    split = here.split
    size = split.tokens * 2.0 * hidden / split.tp
    if here.mesh == there.mesh:
        stride = here.mesh.tp * here.mesh.cp * pipeline.replicas
        return collectives.time_s(here.cards.network, "send", size, Group(2, stride))
    ends = [here.cards, there.cards]
    rate = min(each.network.rate(each.fabric) for each in ends)
    return size / rate + max(each.fabric.latency_ns for each in ends) * 1e-9


def _sending(chunk: _Part, hops: list[float], place: int) -> _Part:
    """A chunk whose card waits while it sends, if its software does."""
    if not chunk.cards.software.blocking or not hops:
        return chunk

    def sent(one: Pass, seconds: float) -> Pass:
        return layers.joined([(1.0, one), (1.0, Pass({TRANSFER: seconds}, {TRANSFER: 0.8}, {TRANSFER: 1.4}))])

    passes = chunk.passes
    forward = sent(passes.forward, hops[place]) if place < len(hops) else passes.forward
    backward = sent(passes.backward, hops[place - 1]) if place else passes.backward
    return replace(chunk, passes=Passes(forward, backward, passes.weight))


def _owned(model: ModelShape, mine: list[_Part]) -> memory.Held:
    dense = experts = 0.0
    for chunk in mine:
        held = memory.held(
            model,
            chunk.first,
            chunk.count,
            chunk.split,
            has_embedding=chunk.first == 0,
            has_head=chunk.first + chunk.count == model.layers,
        )
        dense += held.dense
        experts += held.experts
    return memory.Held(dense, experts)


def _exposed(
    model: ModelShape, plan: Plan, pipeline: Pipeline, mine: list[_Part], timeline: Timeline, device: int
) -> float:
    """Seconds that the reduction of gradients and the gathering of new weights add to a device's step.

    With overlap, layers are reduced as their last backward pass ends, and gathered before their first forward pass;
    both go through the network one after the other.
    """
    if plan.zero == 3 and pipeline.stages == 1:
        return 0.0  # part of every pass
    both = [_of_replicas(model, plan, pipeline, chunk) for chunk in mine]
    if not plan.overlap_gradients:
        return sum(reduce + gather for reduce, gather in both)
    of = timeline.order
    here = slice(int(of.starts[device]), int(of.starts[device + 1]))
    rows, start, end = of.rows[here], timeline.start[here], timeline.end[here]
    is_back = (rows[:, 0] == schedules.WHOLE_BACKWARD) | (rows[:, 0] == schedules.WEIGHT)
    places = np.unique(rows[:, 1])
    times = []
    for place, chunk, (reduce, gather) in zip(places, mine, both, strict=True):
        of_chunk = rows[:, 1] == place
        ended = float(end[is_back & of_chunk].max())
        began = float(start[of_chunk & (rows[:, 0] == schedules.FORWARD)].min())
        times.append((ended, began, chunk, reduce, gather))
    free = late = 0.0
    for ended, _, chunk, reduce, _ in sorted(times, key=lambda each: each[0]):
        lasts = chunk.passes.backward.total + chunk.passes.weight.total
        layer = 1 / max(chunk.count, 1)
        free = max(max(free, ended - lasts * (1 - layer)) + reduce, ended + reduce * layer)
    free -= float(end.max())
    gathered = 0.0
    for _, began, chunk, _, gather in sorted(times, key=lambda each: each[1]):
        layer = 1 / max(chunk.count, 1)
        first = gathered + gather * layer - began
        gathered += gather
        late = max(late, first, gathered - began - chunk.passes.forward.total * (1 - layer))
    exposed = max(free, 0.0) + late
    beside = sum(reduce + gather for reduce, gather in both) - exposed
    return exposed + (1 - mine[0].cards.software.overlap.value) * max(beside, 0.0)


def _of_replicas(model: ModelShape, plan: Plan, pipeline: Pipeline, chunk: _Part) -> tuple[float, float]:
    """Seconds to reduce a chunk's gradients over its replicas, and to gather its weights."""
    mesh, network = chunk.mesh, chunk.cards.network
    owned = _owned(model, [chunk])
    reduce = gather = 0.0
    for count, group in zip((owned.dense, owned.experts), _replica_groups(plan, mesh), strict=True):
        if plan.zero:
            reduce += collectives.time_s(network, "reduce_scatter", count * plan.gradient_bytes, group)
            gather += collectives.time_s(network, "all_gather", count * 2, group)
        else:
            reduce += collectives.time_s(network, "all_reduce", count * plan.gradient_bytes, group)
    return reduce, gather


def _replica_groups(plan: Plan, mesh: Mesh) -> tuple[Group, Group]:
    """Cards that hold the same weights: those of dense ones, and those of the same experts."""
    replicas = sum(each.replicas for each in plan.pipelines) * mesh.cp
    return Group(replicas, mesh.tp), Group(max(replicas * mesh.tp // mesh.ep, 1), mesh.ep)


def _update_s(plan: Plan, pipeline: Pipeline, chunk: _Part, owned: memory.Held) -> float:
    """Seconds of the optimizer."""
    dense, experts = (group.count if plan.zero else 1 for group in _replica_groups(plan, chunk.mesh))
    elements = max(round(owned.dense / dense + owned.experts / experts), 1)
    inputs = layers.OPTIMIZER_BYTES / 2 - 1
    asked = table("elementwise", "bfloat16", elements=elements, inputs=inputs)
    return float(chunk.cards.timer.time(asked).seconds[0])


def _stage(
    model: ModelShape,
    plan: Plan,
    pipeline: Pipeline,
    device: int,
    mesh: Mesh,
    mine: list[_Part],
    owned: memory.Held,
    busy_s: float,
    in_flight: int,
    virtual: int,
) -> Stage:
    cards = mine[0].cards
    activations = sum(
        memory.activation_bytes(model, layer, chunk.split, mesh.recompute)
        for chunk in mine
        for layer in range(chunk.first, chunk.first + chunk.count)
    ) / len(mine)
    has_head = mine[-1].first + mine[-1].count == model.layers
    split = mine[0].split
    loss = memory.loss_bytes(model, split, cards.software.loss_bytes) if has_head else 0.0
    places = {
        shapes.is_sparse(model, layer): layer for each in mine for layer in range(each.first, each.first + each.count)
    }
    working = max(memory.working_bytes(model, layer, split, mesh.recompute) for layer in places.values())
    replicas = sum(each.replicas for each in plan.pipelines) * mesh.cp
    return Stage(
        number=device,
        kind=mesh.kind,
        layers=sum(chunk.count for chunk in mine),
        tp=mesh.tp,
        forward_s=sum(chunk.passes.forward.total for chunk in mine),
        backward_s=sum(chunk.passes.backward.total + chunk.passes.weight.total for chunk in mine),
        busy_s=busy_s,
        in_flight=in_flight,
        memory=memory.of_stage(
            owned,
            activations,
            in_flight,
            working=working,
            loss=loss,
            zero=plan.zero,
            replicas=replicas,
            expert_replicas=max(replicas * mesh.tp // mesh.ep, 1),
            dtype=plan.dtype,
            gradient_bytes=plan.gradient_bytes,
            stays_gathered=plan.zero == 3 and pipeline.stages > 1,
        ),
        capacity_bytes=cards.chip.require("memory_gb").to("B").value,
    )


def _estimate(found: _Simulated, fleet: Fleet) -> Estimate:
    """The step's time as a sum of parts, each with its range."""
    cards = fleet[found.kind]
    era = cards.software
    parts = []
    for name, (value, low, high) in found.parts.items():
        if value <= 0 or name == BUBBLE:
            continue
        base = given(
            name,
            value,
            "s",
            Provenance.MODELLED,
            "operator models and schedule",
            low=value * min(low, 1.0),
            high=value * max(high, 1.0),
        )
        if name in (layers.MATRIX, layers.ATTENTION):
            base = base * (era.gemm / era.gemm.value)
        elif name == layers.VECTOR:
            base = base * (era.vector / era.vector.value)
        elif name in (layers.TENSOR, layers.CONTEXT) and era.overlap.value < 1:
            base = base * ((1.0 - era.overlap) / (1 - era.overlap.value))
            base = base * (cards.efficiency.value / cards.efficiency)
        elif name == DATA:
            base = base * (cards.fabric_efficiency.value / cards.fabric_efficiency)
        parts.append(base.called(name, provenance=Provenance.MODELLED))
    bubble = found.parts[BUBBLE][0]
    if bubble > 0:  # stages wait for each other's work, so as much longer as that takes
        work = total("work", parts, provenance=Provenance.MODELLED)
        parts.append((work * (bubble / work.value)).called(BUBBLE, provenance=Provenance.MODELLED))
    return total("step time", parts, provenance=Provenance.MODELLED)


def _bound(found: _Simulated) -> str:
    seconds = {name: value for name, (value, _, _) in found.parts.items()}
    part = max(seconds, key=lambda name: seconds[name])
    if part in (BUBBLE, DATA, OPTIMIZER):
        return part
    stage = found.stages[found.slowest]
    return f"{part} of stage {found.slowest} on {stage.kind}"


def _peak(cards: Cards, dtype: str) -> float:
    """Operations a second of a card in a plan's element type."""
    names = {"fp8": ("float8", "bfloat16"), "nvfp4": ("float4", "float8", "bfloat16")}.get(dtype, (dtype, "bfloat16"))
    for name in names:
        if name in cards.chip.peak:
            return cards.chip.peak[name].to("op/s").value
    raise TrainingError(f"{cards.chip.name} has no peak rate for {dtype}; add it in a table of your own (--catalog)")


def _executed(model: ModelShape, plan: Plan) -> float:
    """Operations of the multipliers in a step, recomputation included."""
    done = 0.0
    per_token = shapes.flops_of_token(model, plan.sequence)
    head = 6.0 * model.vocabulary * model.hidden
    for pipeline in plan.pipelines:
        counts = pipeline.layers(model)
        meshes = [mesh for mesh in pipeline.meshes for _ in range(mesh.stages)]
        again = sum(count for mesh, count in zip(meshes, counts, strict=True) if mesh.recompute == "full")
        more = (per_token - head) / 3 * again / model.layers
        done += pipeline.batch * plan.sequence * (per_token + more)
    return done
