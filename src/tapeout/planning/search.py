"""The search: candidates from templates, exact times of the best, and neighbours of those.

Takes a `Question`; gives plans with exact times, best first. Three families: all kinds in one pipeline; each kind, or
group of kinds, in pipelines of its own that share the batch by their speed; some kinds left out. A candidate's time is
first told by fill + (m - 1) slowest; the best of them are then simulated pass by pass.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tapeout.planning import templates
from tapeout.planning.costs import Costs, Timed
from tapeout.planning.settings import Question
from tapeout.planning.templates import Option, Template
from tapeout.training.plan import Mesh, Pipeline, Plan

FINALISTS = 50
POLISHED = 6
ROUNDS = 4


@dataclass(frozen=True)
class Candidate:
    plan: Plan
    about_s: float


@dataclass(frozen=True)
class Found:
    """Plans with exact times, best first; how many settings were looked at; and per kind left out, the best without."""

    plans: tuple[Timed, ...]
    templates: int
    simulated: int
    without: dict[str, float]


def search(question: Question, costs: Costs) -> Found:
    """Plans that fit; none if there are none."""
    names = [cards.name for cards in question.fleet.cards]
    whole = tuple(names)
    groups = [whole]
    if len(names) > 1:
        groups += [(name,) for name in names]
    if len(names) > 2:
        groups += [tuple(name for name in names if name != left) for left in names]
    found: dict[tuple[str, ...], list[Template]] = {}
    for group in groups:
        found[group] = _templates(question, costs, group, found.get(whole))
    candidates: dict[Plan, float] = {}
    for partition in _partitions(names, one_pipeline=question.one_pipeline):
        for candidate in _shared(question, partition, found):
            candidates.setdefault(candidate.plan, candidate.about_s)
    ranked = sorted(candidates, key=lambda plan: candidates[plan])
    exact = costs.timed(_varied(ranked, FINALISTS))
    simulated = len(exact)
    fitting = sorted((each for each in exact if each.fits), key=lambda each: each.seconds)
    seen = {each.plan for each in exact}
    for _ in range(ROUNDS):
        before = fitting[0].seconds if fitting else float("inf")
        start = [each.plan for each in fitting[:POLISHED]] or ranked[:POLISHED]
        near = [plan for plan in _neighbours(question, costs, start) if plan not in seen]
        seen |= set(near)
        simulated += len(near)
        fitting = sorted([*fitting, *(each for each in costs.timed(near) if each.fits)], key=lambda each: each.seconds)
        if not fitting or fitting[0].seconds >= before * (1 - 1e-6):
            break
    without = {}
    for name in names:
        rest = [each.seconds for each in fitting if name not in each.plan.cards]
        if rest:
            without[name] = min(rest)
    return Found(tuple(fitting), sum(map(len, found.values())), simulated, without)


def _templates(
    question: Question, costs: Costs, group: tuple[str, ...], of_whole: list[Template] | None
) -> list[Template]:
    """Templates of a group for every number of replicas and micro-batch. Groups after the first try only the context
    and expert sizes that the first found best."""
    sizes = list(itertools.product(question.context_sizes, question.expert_sizes))
    if of_whole:
        first = min(of_whole, key=lambda each: each.seconds(question.batch)).meshes[0]
        sizes = [(first.cp, first.ep)]
    cards = question.fleet.count
    share = sum(question.fleet[name].count for name in group) / cards
    found = []
    for micro_batch in question.micro_batches:
        for replicas in question.replica_counts(micro_batch):
            micro_batches = max(round(question.batch * share / (replicas * micro_batch)), 1)
            for cp, ep in sizes:
                made = templates.best(question, costs, group, replicas, micro_batch, cp, ep, micro_batches)
                if made is not None and _stages_agree(question, made):
                    found.append(made)
    return found


def _stages_agree(question: Question, made: Template) -> bool:
    return question.stages is None or sum(mesh.stages for mesh in made.meshes) == question.stages


def _partitions(names: Sequence[str], *, one_pipeline: bool) -> list[list[tuple[str, ...]]]:
    """Which kinds form pipelines together: all; each alone; one apart from the rest; all but one."""
    whole = tuple(names)
    found = [[whole]]
    if len(names) == 1:
        return found
    rests = {left: tuple(name for name in names if name != left) for left in names}
    found += [[rest] for rest in rests.values()]
    if len(names) > 2:
        found += [[(name,)] for name in names]
    if not one_pipeline:
        found.append([(name,) for name in names])
        found += [[(name,) for name in rest] for rest in rests.values() if len(rest) > 1]
        found += [[(left,), rest] for left, rest in rests.items() if len(rest) > 1]
    return found


def _shared(
    question: Question, partition: Sequence[tuple[str, ...]], found: dict[tuple[str, ...], list[Template]]
) -> Iterable[Candidate]:
    """Plans in which each group's pipelines do the share of the batch that ends them together."""
    if len(partition) == 1:
        for each in found[partition[0]]:
            if not question.batch % each.share:
                yield _candidate(question, [(each, question.batch)])
        return
    lists = [found[group] for group in partition]
    if not all(lists):
        return
    # The best together, and the best with each micro-batch alone, which is easier to run.
    for micro_batch in (0, *question.micro_batches):
        chosen = [[each for each in ways if micro_batch in (0, each.micro_batch)] for ways in lists]
        if all(chosen):
            made = _dealt_batch(question.batch, chosen)
            if made is not None:
                yield _candidate(question, made)


def _dealt_batch(batch: int, lists: Sequence[Sequence[Template]]) -> list[tuple[Template, int]] | None:
    """One template of each list with its share of the batch, so that the slowest ends first; None if shares do not add
    up to the batch."""

    def most(ways: Sequence[Template], limit_s: float) -> tuple[int, Template]:
        counts = (max(int((limit_s - each.fill_s) / each.slowest_s + 1 + 1e-9), 0) for each in ways)
        return max(
            ((each.share * count, each) for each, count in zip(ways, counts, strict=True)), key=lambda one: one[0]
        )

    low, high = 0.0, max(min(each.seconds(batch) for each in ways) for ways in lists)
    for _ in range(templates.STEPS):
        middle = (low + high) / 2
        enough = sum(most(ways, middle)[0] for ways in lists) >= batch
        low, high = (low, middle) if enough else (middle, high)
    dealt = [most(ways, high) for ways in lists]
    surplus = sum(share for share, _ in dealt) - batch
    shares = [share for share, _ in dealt]
    for place in sorted(range(len(dealt)), key=lambda place: -dealt[place][1].share):
        unit = dealt[place][1].share
        fewer = min(surplus // unit, max(shares[place] // unit - 1, 0))
        shares[place] -= fewer * unit
        surplus -= fewer * unit
    if surplus or not all(shares):
        return None
    return [(each, share) for (_, each), share in zip(dealt, shares, strict=True)]


def _candidate(question: Question, parts: Sequence[tuple[Template, int]]) -> Candidate:
    place = [cards.name for cards in question.fleet.cards].index
    ordered = sorted(parts, key=lambda part: min(place(mesh.kind) for mesh in part[0].meshes))
    plan = replace(question.base, pipelines=tuple(each.pipeline(batch) for each, batch in ordered))
    return Candidate(plan, max(each.seconds(batch) for each, batch in parts))


def _varied(ranked: Sequence[Plan], count: int) -> list[Plan]:
    """The first plans, and the first of each set of kinds, so that leaving a kind out is known too."""
    chosen = dict.fromkeys(ranked[:count])
    kinds: dict[frozenset[str], int] = {}
    for plan in ranked:
        used = frozenset(plan.cards)
        if kinds.get(used, 0) < 3:
            kinds[used] = kinds.get(used, 0) + 1
            chosen[plan] = None
    return list(chosen)


def _neighbours(question: Question, costs: Costs, plans: Sequence[Plan]) -> list[Plan]:
    """Plans that differ from one of these in the order of kinds, in how one kind is used, or by one layer."""
    found: dict[Plan, None] = {}
    for plan in plans:
        for number, pipeline in enumerate(plan.pipelines):
            for changed in _changed(question, costs, pipeline):
                pipelines = (*plan.pipelines[:number], changed, *plan.pipelines[number + 1 :])
                found[replace(plan, pipelines=pipelines)] = None
    return list(found)


def _changed(question: Question, costs: Costs, pipeline: Pipeline) -> Iterable[Pipeline]:
    meshes = pipeline.meshes
    layout = (pipeline.replicas, pipeline.micro_batch, meshes[0].cp, meshes[0].ep)
    ways = {mesh.kind: templates.options(question, costs, mesh.kind, *layout) for mesh in meshes}

    def again(order: Sequence[Option]) -> Iterable[Pipeline]:
        made = templates.dealt(question, order, pipeline.replicas, pipeline.micro_batch, pipeline.micro_batches)
        if made is not None and _stages_agree(question, made):
            yield replace(pipeline, meshes=made.meshes)

    current = [_used(ways[mesh.kind], mesh) for mesh in meshes]
    if all(each is not None for each in current):
        options = [each for each in current if each is not None]
        orders = itertools.permutations(options) if len(options) <= 3 else _swapped(options)
        for order in orders:
            yield from again(order)
        for place, mesh in enumerate(meshes):
            for other in ways[mesh.kind]:
                yield from again([*options[:place], other, *options[place + 1 :]])
    yield from _one_layer_moved(pipeline)


def _used(ways: Sequence[Option], mesh: Mesh) -> Option | None:
    return next((each for each in ways if (each.mesh.tp, each.mesh.recompute) == (mesh.tp, mesh.recompute)), None)


def _swapped(options: Sequence[Option]) -> Iterable[list[Option]]:
    for place in range(len(options) - 1):
        swapped = list(options)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        yield swapped
    yield list(reversed(options))


def _one_layer_moved(pipeline: Pipeline) -> Iterable[Pipeline]:
    """A layer from the first, last or fullest stage of a mesh to the first or last stage of each mesh."""
    for here, mesh in enumerate(pipeline.meshes):
        for source in {0, len(mesh.layers) - 1}:
            if mesh.layers[source] < 2:
                continue
            for there, other in enumerate(pipeline.meshes):
                for target in {0, len(other.layers) - 1}:
                    if (here, source) == (there, target):
                        continue
                    counts = [list(each.layers) for each in pipeline.meshes]
                    counts[here][source] -= 1
                    counts[there][target] += 1
                    meshes = (
                        replace(each, layers=tuple(mine)) for each, mine in zip(pipeline.meshes, counts, strict=True)
                    )
                    yield replace(pipeline, meshes=tuple(meshes))


def nothing_fits(question: Question, costs: Costs) -> str:
    """Why no plan fits and what would do, as a sentence."""
    model, fleet = question.model, question.fleet
    names = [cards.name for cards in fleet.cards]
    if not any(question.replica_counts(size) for size in question.micro_batches):
        return f"a batch of {question.batch} does not divide into micro-batches of {question.micro_batch}"
    unusable = [name for name in names if not question.tensor_sizes(name)]
    if len(unusable) == len(names):
        return (
            f"tp {question.tp} is larger than a node of {', '.join(names)} or does not divide the sequence of "
            f"{question.sequence}; use at most {max(fleet[name].node for name in names)}"
        )
    needed = costs.least_bytes()
    have = sum(each.count * each.chip.require("memory_gb").to("B").value for each in fleet.cards)
    if needed > have:
        first = fleet.cards[0]
        each = first.chip.require("memory_gb").to("B").value
        more = int((needed - have) / (0.8 * each)) + 1
        return (
            f"{model.name} with its optimizer takes {needed / 2**30:,.0f} GiB, the fleet has {have / 2**30:,.0f} GiB; "
            f"{more:,} more {first.name} would do, or zero=3 with fewer bytes a parameter"
        )
    given = {
        "--stages": question.stages,
        "--tp": question.tp,
        "--cp": question.cp,
        "--micro-batch": question.micro_batch,
        "--recompute": question.recompute,
    }
    limited = ", ".join(word for word, said in given.items() if said)
    if limited:
        return f"no plan of {model.name} on these cards fits with {limited} as given; leave them to the planner"
    return (
        f"no plan of {model.name} with a batch of {question.batch} sequences of {question.sequence} fits these cards; "
        "a shorter sequence, --zero 3 or context parallelism (--cp 2) would take less memory"
    )
