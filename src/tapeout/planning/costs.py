"""What a stage takes and holds, remembered: the planner asks for the same stages again and again.

Takes a model, a fleet and a setting; gives `StageCost`s that put together are exactly what `training.predict` says of
the plan. The one place of the planner that stands on the inside of `training.prediction`.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.models.step import ModelShape
from tapeout.planning import events
from tapeout.training import memory, prediction, schedules, shapes
from tapeout.training.fleet import Fleet
from tapeout.training.layers import NOTHING, Passes, Split
from tapeout.training.plan import Mesh, Pipeline, Plan

LONG_S = 1e4
"""Longer than any collective."""


@dataclass(frozen=True)
class StageCost:
    """A stage of a pipeline.

    Seconds of a micro-batch forwards, back to the input and to the weights. After the last pass: `after`, and `late`
    less the time at which the first pass begins, as new weights are gathered until then. Bytes of a card without
    activations, and of each micro-batch in flight.
    """

    forward: float
    backward: float
    weight: float
    after: float
    late: float
    static_bytes: float
    flight_bytes: float
    capacity_bytes: float

    @property
    def pass_s(self) -> float:
        return self.forward + self.backward + self.weight


@dataclass(frozen=True)
class LayerTerms:
    """What the search needs of a mesh, apart from replicas: seconds of a micro-batch in one layer (all passes, and
    forwards), and what the embedding and the head add; parameters of a layer and of either end; bytes kept of a
    micro-batch by a layer, and by the loss; bytes of a card."""

    layer_s: float
    embedding_s: float
    head_s: float
    layer_forward_s: float
    embedding_forward_s: float
    head_forward_s: float
    dense: float
    experts: float
    ends: float
    kept_bytes: float
    working_bytes: float
    loss_bytes: float
    capacity_bytes: float


@dataclass(frozen=True)
class MemoryTerms:
    """Bytes of a card: for each parameter, for each byte of activations in flight, and always."""

    dense: float
    experts: float
    activations: float
    always: float


@dataclass(frozen=True)
class Timed:
    """A plan with its exact time and the greatest share of a card's memory that it needs."""

    plan: Plan
    seconds: float
    memory_share: float

    @property
    def fits(self) -> bool:
        return self.memory_share <= 1.0


@dataclass(frozen=True)
class Costs:
    """Stages of one model on one fleet, in plans like `base`: its sequence, types, zero and schedule hold for all."""

    model: ModelShape
    fleet: Fleet
    base: Plan
    options: dict[tuple[Any, ...], Any] = field(default_factory=dict, compare=False, repr=False)
    _stages: dict[tuple[Any, ...], StageCost] = field(default_factory=dict, compare=False, repr=False)
    _hops: dict[tuple[Any, ...], float] = field(default_factory=dict, compare=False, repr=False)
    _terms: dict[tuple[Any, ...], LayerTerms] = field(default_factory=dict, compare=False, repr=False)
    _memory: dict[tuple[int, int], MemoryTerms] = field(default_factory=dict, compare=False, repr=False)

    def stage(
        self,
        mesh: Mesh,
        micro_batch: int,
        replicas: int,
        all_replicas: int,
        *,
        first: int,
        count: int,
        is_first: bool,
        is_last: bool,
    ) -> StageCost:
        """A stage of `count` layers from `first` on, of a mesh of one stage. `all_replicas`: of all pipelines, which
        share gradients."""
        dense = min(max(self.model.dense_layers - first, 0), count) if self.model.experts else 0
        key = (mesh, micro_batch, replicas, all_replicas, dense, count, is_first, is_last)
        if key not in self._stages:
            self._stages[key] = self._stage(mesh, micro_batch, replicas, all_replicas, first, count, is_first, is_last)
        return self._stages[key]

    def terms(self, mesh: Mesh, micro_batch: int, replicas: int) -> LayerTerms:
        """Terms of a mesh. Replicas matter only where weights are gathered from them."""
        one = replace(mesh, stages=1, layers=())
        key = (one, micro_batch, replicas if self.base.zero == 3 else 0)
        if key not in self._terms:
            model, cards, split = self.model, self.fleet[mesh.kind], self._split(mesh, micro_batch)
            plan = self._plan(one, micro_batch, replicas, replicas)
            place = min(max(model.dense_layers, 1), model.layers - 1) if model.experts else 0

            def pass_s(is_first: bool, is_last: bool) -> NDArray[np.float64]:
                found = prediction._passes(
                    model, plan, plan.pipelines[0], one, cards, split, place, 1, is_first, is_last
                )
                forward = found.forward.total
                return np.array([forward + found.backward.total + found.weight.total, forward])

            layer = pass_s(False, False)
            embedding, head = pass_s(True, False) - layer, pass_s(False, True) - layer
            held = memory.held(model, place, 1, split, has_embedding=False, has_head=False)
            self._terms[key] = LayerTerms(
                layer_s=float(layer[0]),
                embedding_s=float(embedding[0]),
                head_s=float(head[0]),
                layer_forward_s=float(layer[1]),
                embedding_forward_s=float(embedding[1]),
                head_forward_s=float(head[1]),
                dense=held.dense,
                experts=held.experts,
                ends=model.vocabulary * model.hidden / split.tp,
                kept_bytes=memory.activation_bytes(model, place, split, mesh.recompute),
                working_bytes=memory.working_bytes(model, place, split, mesh.recompute),
                loss_bytes=memory.loss_bytes(model, split, cards.software.loss_bytes),
                capacity_bytes=cards.chip.require("memory_gb").to("B").value,
            )
        return self._terms[key]

    def memory_terms(self, replicas: int, expert_replicas: int) -> MemoryTerms:
        """The memory of a stage is a sum of terms, each of which is asked for alone."""
        key = (replicas, expert_replicas)
        if key not in self._memory:

            def held(dense: float, experts: float, activations: float) -> float:
                return memory.of_stage(
                    memory.Held(dense, experts),
                    activations,
                    1,
                    working=0.0,
                    loss=0.0,
                    zero=self.base.zero,
                    replicas=replicas,
                    expert_replicas=expert_replicas,
                    dtype=self.base.dtype,
                    gradient_bytes=self.base.gradient_bytes,
                ).value

            always = held(0.0, 0.0, 0.0)
            self._memory[key] = MemoryTerms(
                dense=(held(1e9, 0.0, 0.0) - always) / 1e9,
                experts=(held(0.0, 1e9, 0.0) - always) / 1e9,
                activations=(held(0.0, 0.0, 1e9) - always) / 1e9,
                always=always,
            )
        return self._memory[key]

    def least_bytes(self) -> float:
        """Bytes of weights, gradients and optimizer state of the whole model, spread over however many cards."""
        count = shapes.parameter_count(self.model)
        many = self.memory_terms(2**20, 2**20).dense if self.base.zero == 3 else 0.0
        whole = self.memory_terms(1, 1).dense
        return count * max(whole, many)

    def _plan(self, mesh: Mesh, micro_batch: int, replicas: int, all_replicas: int) -> Plan:
        mine = Pipeline(meshes=(mesh,), replicas=replicas, batch=replicas * micro_batch, micro_batch=micro_batch)
        others = all_replicas - replicas
        rest = (replace(mine, replicas=others, batch=others * micro_batch),) if others else ()
        return replace(self.base, pipelines=(mine, *rest))

    def _split(self, mesh: Mesh, micro_batch: int) -> Split:
        return Split(
            tp=mesh.tp,
            cp=mesh.cp,
            ep=mesh.ep,
            micro_batch=micro_batch,
            sequence=self.base.sequence,
            dtype=self.base.dtype,
            sequence_parallel=self.base.sequence_parallel and mesh.tp > 1,
            fused_attention=self.base.fused_attention,
            dropout=self.base.dropout,
        )

    def _stage(
        self,
        mesh: Mesh,
        micro_batch: int,
        replicas: int,
        all_replicas: int,
        first: int,
        count: int,
        is_first: bool,
        is_last: bool,
    ) -> StageCost:
        is_alone = is_first and is_last
        plan = self._plan(replace(mesh, stages=1 if is_alone else 2), micro_batch, replicas, all_replicas)
        pipeline, cards, split = plan.pipelines[0], self.fleet[mesh.kind], self._split(mesh, micro_batch)
        # Where the layers lie matters only to what a first or last stage has besides.
        place = 0 if is_first else self.model.layers - count if is_last else max(first, 1)
        passes = prediction._passes(self.model, plan, pipeline, mesh, cards, split, place, count, is_first, is_last)
        part = prediction._Part(mesh, cards, split, place, count, passes)
        owned = prediction._owned(self.model, [part])
        after, late = self._after(plan, pipeline, part, owned)
        held = prediction._stage(self.model, plan, pipeline, 0, mesh, [part], owned, 0.0, 0, 1)
        kept = sum(
            memory.activation_bytes(self.model, layer, split, mesh.recompute) for layer in range(place, place + count)
        )
        return StageCost(
            passes.forward.total,
            passes.backward.total,
            passes.weight.total,
            after,
            late,
            held.memory.value,
            kept * self.memory_terms(1, 1).activations,
            held.capacity_bytes,
        )

    def _after(self, plan: Plan, pipeline: Pipeline, part: prediction._Part, owned: memory.Held) -> tuple[float, float]:
        """`after` and `late` of a stage: what a step adds whose first pass begins late, and what more at once."""
        order = schedules.order("1f1b", 1, 1)

        def exposed(began_s: float) -> float:
            start = np.array([began_s, began_s + LONG_S])
            return float(
                prediction._exposed(
                    self.model, plan, pipeline, [part], schedules.Timeline(order, start, start + LONG_S), 0
                )
            )

        at_last = exposed(LONG_S)
        return at_last + prediction._update_s(plan, pipeline, part, owned), exposed(0.0) - at_last

    def hop(self, here: Mesh, there: Mesh, micro_batch: int, replicas: int) -> float:
        """Seconds from a stage of one mesh to the next, of the same mesh or another."""
        key = (here, there, micro_batch, replicas)
        if key not in self._hops:
            parts: list[Any] = [
                prediction._Part(mesh, self.fleet[mesh.kind], self._split(mesh, micro_batch), 0, 1, Passes(*_NO_PASSES))
                for mesh in (here, there)
            ]
            pipeline = self._plan(here, micro_batch, replicas, replicas).pipelines[0]
            self._hops[key] = prediction._transfer_s(self.model.hidden, pipeline, parts, 0)
        return self._hops[key]

    def timed(self, plans: list[Plan]) -> list[Timed]:
        """Exact times of plans without virtual stages, as `predict` gives them."""
        jobs: dict[tuple[int, int], list[tuple[int, list[StageCost], list[float]]]] = {}
        shares_of = np.zeros(len(plans))
        for number, plan in enumerate(plans):
            total = sum(each.replicas for each in plan.pipelines)
            for pipeline in plan.pipelines:
                costs, hops = self._costs(pipeline, total)
                shape = (len(costs), pipeline.micro_batches)
                flight = _in_flight(plan.schedule, *shape)
                shares = [
                    (each.static_bytes + held * each.flight_bytes) / each.capacity_bytes
                    for each, held in zip(costs, flight, strict=True)
                ]
                shares_of[number] = max(shares_of[number], *shares)
                jobs.setdefault(shape, []).append((number, costs, hops))
        seconds = np.zeros(len(plans))
        for (stages, micro_batches), found in jobs.items():
            order = events.order(self.base.schedule, stages, micro_batches)
            forward, backward, weight, after, late = (
                np.array([[getattr(each, name) for each in costs] for _, costs, _ in found])
                for name in ("forward", "backward", "weight", "after", "late")
            )
            transfer = np.array([hops for _, _, hops in found]).reshape(len(found), stages - 1)
            began = np.zeros_like(forward)
            began[:, 1:] = np.cumsum(forward[:, :-1] + transfer, 1)
            ended = (events.ends(order, forward, backward, weight, transfer) + after + np.maximum(late - began, 0)).max(
                1
            )
            for (number, _, _), end in zip(found, ended.tolist(), strict=True):
                seconds[number] = max(seconds[number], end)
        return [
            Timed(plan, float(time), float(share)) for plan, time, share in zip(plans, seconds, shares_of, strict=True)
        ]

    def _costs(self, pipeline: Pipeline, all_replicas: int) -> tuple[list[StageCost], list[float]]:
        """Cost of each stage, and seconds from each to the next."""
        found: list[StageCost] = []
        hops: list[float] = []
        first, counts, before = 0, iter(pipeline.layers(self.model)), None
        layout = (pipeline.micro_batch, pipeline.replicas)
        for mesh in pipeline.meshes:
            one = replace(mesh, stages=1, layers=())
            inside = self.hop(one, one, *layout) if mesh.stages > 1 else 0.0
            same: dict[tuple[int, bool, bool, int], StageCost] = {}
            for place in range(mesh.stages):
                count = next(counts)
                is_first, is_last = not found, len(found) == pipeline.stages - 1
                key = (count, is_first, is_last, max(self.model.dense_layers - first, 0))
                if key not in same:
                    same[key] = self.stage(
                        one,
                        *layout,
                        all_replicas,
                        first=first,
                        count=count,
                        is_first=is_first,
                        is_last=is_last,
                    )
                if found:
                    hops.append(inside if place else self.hop(before or one, one, *layout))
                found.append(same[key])
                first += count
            before = one
        return found, hops


def _in_flight(schedule: str, stages: int, micro_batches: int) -> list[int]:
    if schedule == "1f1b" or stages == 1:
        return [min(stages - place, micro_batches) for place in range(stages)]
    return [int(each) for each in schedules.most_in_flight(schedules.order(schedule, stages, micro_batches, 1))]


_NO_PASSES = (NOTHING,) * 3
