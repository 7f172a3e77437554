"""Small fleets: every pipeline there is, so that the best is known to be the best.

Takes a question with at most `MOST_CARDS` cards, `MOST_KINDS` kinds and `MOST_LAYERS` layers, and a time to beat; gives
every plan of one pipeline that may be faster, least bound first. A bound is what a stage works, what goes before its
first pass and what follows its last; a plan whose bound is not below the time to beat is left out unseen.

The bounds of stage j, of S stages and m micro-batches, with f and t the forward and whole time of a micro-batch:
    sum of t before j + m t_j
    sum of t of all others + f_j + m (t_j - f_j) + (m - min(S - j, m)) f_j
The first holds for any order; in 1F1B a stage does S - j passes forwards before its first backwards.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tapeout.planning import templates
from tapeout.planning.costs import Costs, Timed
from tapeout.planning.settings import Question
from tapeout.planning.templates import Option
from tapeout.training.plan import Pipeline, Plan

MOST_CARDS, MOST_KINDS, MOST_LAYERS = 16, 3, 12
CHUNK = 64


def is_small(question: Question) -> bool:
    fleet = question.fleet
    return (
        fleet.count <= MOST_CARDS
        and len(fleet.cards) <= MOST_KINDS
        and question.model.layers <= MOST_LAYERS
        and question.schedule == "1f1b"
    )


def faster(question: Question, costs: Costs, best_s: float) -> tuple[list[Timed], int]:
    """Plans of one pipeline that fit and are faster than `best_s`, the fastest of all among them, and how many were
    simulated."""
    bounded = sorted(_bounded(question, costs, best_s), key=lambda each: each[0])
    found: list[Timed] = []
    simulated = 0
    for start in range(0, len(bounded), CHUNK):
        if bounded[start][0] >= best_s:
            break
        timed = costs.timed([plan for bound, plan in bounded[start : start + CHUNK] if bound < best_s])
        simulated += len(timed)
        found += [each for each in timed if each.fits and each.seconds < best_s]
        best_s = min([best_s, *(each.seconds for each in found)])
    return found, simulated


def _bounded(question: Question, costs: Costs, best_s: float) -> Iterator[tuple[float, Plan]]:
    names = [cards.name for cards in question.fleet.cards]
    for micro_batch in question.micro_batches:
        for replicas in question.replica_counts(micro_batch):
            count = question.batch // (replicas * micro_batch)
            for cp, ep in itertools.product(question.context_sizes, question.expert_sizes):
                layout = (replicas, micro_batch, cp, ep)
                ways = {name: list(_ways(templates.options(question, costs, name, *layout))) for name in names}
                for used in range(1, len(names) + 1):
                    for order in itertools.permutations(names, used):
                        for meshes in itertools.product(*(ways[name] for name in order)):
                            for bound, layers in _splits(question, meshes, count, best_s):
                                yield bound, _plan(question, meshes, layers, replicas, micro_batch)


def _ways(options: list[Option]) -> Iterator[Option]:
    """Each option with each number of stages."""
    for option in options:
        for stages in range(1, option.mesh.stages + 1):
            yield replace(option, mesh=replace(option.mesh, stages=stages))


def _splits(
    question: Question, meshes: tuple[Option, ...], micro_batches: int, best_s: float
) -> Iterator[tuple[float, list[int]]]:
    """Every number of layers of each stage that may be faster, with its bound."""
    stages = [way for way in meshes for _ in range(way.mesh.stages)]
    layers = question.model.layers
    if len(stages) > layers or question.stages not in (None, len(stages)):
        return
    each_s = np.array([way.layer_s for way in stages])
    if micro_batches * layers / (1 / each_s).sum() >= best_s:
        return
    forward_s = np.array([way.terms.layer_forward_s for way in stages])
    counts = _compositions(layers, len(stages))
    more, more_forward = np.zeros(len(stages)), np.zeros(len(stages))
    more[0], more_forward[0] = stages[0].terms.embedding_s, stages[0].terms.embedding_forward_s
    more[-1] += stages[-1].terms.head_s
    more_forward[-1] += stages[-1].terms.head_forward_s
    whole, forward = counts * each_s + more, counts * forward_s + more_forward
    before = np.cumsum(whole, 1) - whole
    first = before + micro_batches * whole
    ahead = np.minimum(len(stages) - np.arange(len(stages)), micro_batches)
    others = whole.sum(1, keepdims=True) - whole
    second = others + forward + micro_batches * (whole - forward) + (micro_batches - ahead) * forward
    bounds = np.maximum(first, second).max(1)
    for row in np.flatnonzero(bounds < best_s):
        yield float(bounds[row]), [int(each) for each in counts[row]]


@cache
def _compositions(total: int, parts: int) -> NDArray[np.int64]:
    """Every way to write a number as a sum of so many positive ones."""
    chosen = list(itertools.combinations(range(1, total), parts - 1))
    cuts = np.array(chosen, np.int64).reshape(len(chosen), parts - 1)
    edges = np.hstack([np.zeros((len(cuts), 1), np.int64), cuts, np.full((len(cuts), 1), total, np.int64)])
    return np.diff(edges, axis=1)


def _plan(question: Question, ways: tuple[Option, ...], layers: list[int], replicas: int, micro_batch: int) -> Plan:
    meshes, place = [], 0
    for way in ways:
        meshes.append(replace(way.mesh, layers=tuple(layers[place : place + way.mesh.stages])))
        place += way.mesh.stages
    pipeline = Pipeline(meshes=tuple(meshes), replicas=replicas, batch=question.batch, micro_batch=micro_batch)
    return replace(question.base, pipelines=(pipeline,))
