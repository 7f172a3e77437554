"""The answer to a question: the best plans, their bound, what each kind adds, and which no other plan beats.

Takes a `Question`; gives `Planned`, which report and command read.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tapeout.planning import small
from tapeout.planning.costs import Costs, Timed
from tapeout.planning.search import Found, nothing_fits, search
from tapeout.planning.settings import Question
from tapeout.silicon import technology
from tapeout.silicon.ownership import Site, ownership
from tapeout.training.plan import Plan
from tapeout.training.prediction import Step, predict
from tapeout.training.problems import TrainingError

VIRTUAL_STAGES = (2, 3, 4)
INTERLEAVED = 3
"""How many of the best plans are tried with virtual stages."""


@dataclass(frozen=True)
class Ranked:
    """A plan with its time, the greatest share of a card's memory it needs, and dollars of a step; None where a kind
    has no price."""

    plan: Plan
    seconds: float
    memory_share: float
    usd_per_step: float | None


@dataclass(frozen=True)
class Planned:
    """`plans` best first; `step` is the prediction of the first, with range and parts. `bound_s`: no plan of the
    settings that were tried is faster, were all cards busy all the time. `pareto`: plans that none beats in time,
    memory and dollars. `without`: seconds of the best plan without a kind; None where none was found. `is_proven`: no
    plan of one pipeline is faster."""

    question: Question
    plans: tuple[Ranked, ...]
    step: Step
    bound_s: float
    pareto: tuple[Ranked, ...]
    without: dict[str, float | None]
    templates: int
    simulated: int
    seconds: float
    is_proven: bool

    @property
    def best(self) -> Ranked:
        return self.plans[0]

    @property
    def share_of_bound(self) -> float:
        return self.bound_s / self.best.seconds


def plan(question: Question) -> Planned:
    """Plan a training step. Raises TrainingError that says what would do, ModelError for a figure a kind lacks."""
    started = time.perf_counter()
    _check_network(question)
    costs = Costs(question.model, question.fleet, question.base)
    found = search(question, costs)
    plans, simulated = list(found.plans), found.simulated
    is_proven = small.is_small(question)
    if is_proven:
        better, count = small.faster(question, costs, plans[0].seconds if plans else math.inf)
        plans, simulated = plans + better, simulated + count
    if not plans:
        raise TrainingError(nothing_fits(question, costs))
    plans += _interleaved(question, plans)
    plans.sort(key=lambda each: (each.seconds, each.memory_share))
    prices = _prices(question)
    ranked = [_ranked(each, prices) for each in plans]
    return Planned(
        question=question,
        plans=tuple(ranked),
        step=predict(question.model, question.fleet, ranked[0].plan),
        bound_s=_perfect_mix(question, costs),
        pareto=_pareto(ranked),
        without=_without(question, found),
        templates=found.templates,
        simulated=simulated,
        seconds=time.perf_counter() - started,
        is_proven=is_proven,
    )


def _check_network(question: Question) -> None:
    """Kinds share the outermost network; one whose network ends cannot take part."""
    for cards in question.fleet.cards:
        places = cards.topology.place_count
        if len(question.fleet.cards) > 1 and places is not None:
            raise TrainingError(
                f"cluster {cards.topology.name!r} of {cards.name} ends at {places} places and shares no network with "
                f"other kinds; give it an outermost level of size 0, or plan {cards.name} alone"
            )


def _perfect_mix(question: Question, costs: Costs) -> float:
    """Seconds of a step in which every card works all the time on layers, each kind in the way it is fastest. The few
    dense layers before a mixture's count as layers of the mixture, whose work is alike."""
    best: dict[str, float] = {}
    for (kind, _, micro_batch, cp, _), ways in costs.options.items():
        for way in ways:
            rate = micro_batch / (way.mesh.tp * cp * way.layer_s)
            best[kind] = max(best.get(kind, 0.0), rate)
    layers_per_s = sum(best[cards.name] * cards.count for cards in question.fleet.cards if cards.name in best)
    return question.batch * question.model.layers / layers_per_s


def _interleaved(question: Question, plans: Sequence[Timed]) -> list[Timed]:
    """The best plans of one pipeline with virtual stages."""
    found: list[Timed] = []
    tried = 0
    for each in plans:
        (pipeline, *others) = each.plan.pipelines
        if tried == INTERLEAVED or question.schedule != "1f1b":
            break
        if others or pipeline.stages < 2 or pipeline.micro_batches % pipeline.stages:
            continue
        tried += 1
        for virtual in VIRTUAL_STAGES:
            if virtual > min(pipeline.layers(question.model)):
                break
            plan = replace(each.plan, schedule="interleaved", virtual_stages=virtual)
            step = predict(question.model, question.fleet, plan)
            if step.fits:
                share = max(stage.memory.value / stage.capacity_bytes for stage in step.stages[0])
                found.append(Timed(plan, step.seconds, share))
    return found


def _prices(question: Question) -> dict[str, float | None]:
    """Dollars of a card's hour, of each kind."""
    figures = technology.load()
    found: dict[str, float | None] = {}
    for cards in question.fleet.cards:
        try:
            costs = ownership(cards.chip, Site(chip_count=question.fleet.count), figures)
            found[cards.name] = costs.per_hour.to("USD/h").value
        except ValueError:
            found[cards.name] = None
    return found


def _ranked(timed: Timed, prices: dict[str, float | None]) -> Ranked:
    hourly = 0.0
    for kind, count in timed.plan.cards.items():
        price = prices[kind]
        if price is None:
            return Ranked(timed.plan, timed.seconds, timed.memory_share, None)
        hourly += price * count
    return Ranked(timed.plan, timed.seconds, timed.memory_share, hourly * timed.seconds / 3600)


def _pareto(plans: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Plans that no other beats in one of time, memory and dollars without losing in another. `plans`: by time."""
    kept: list[Ranked] = []
    for each in plans:
        figures = (each.memory_share, each.usd_per_step or 0.0)
        if not any(other.memory_share <= figures[0] and (other.usd_per_step or 0.0) <= figures[1] for other in kept):
            kept.append(each)
    return tuple(kept)


def _without(question: Question, found: Found) -> dict[str, float | None]:
    return {cards.name: found.without.get(cards.name) for cards in question.fleet.cards}
