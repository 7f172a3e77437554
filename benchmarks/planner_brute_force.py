"""The planner against brute force: random small fleets and models, every pipeline there is, exact times.

`python -m benchmarks planner_brute_force`: 500 cases of at most 16 cards, 3 kinds and 12 layers. Brute force goes
through every order of kinds, tensor size, recomputation, number of stages and number of layers of each stage, with no
bound that leaves any out.
"""

import itertools
import sys
import time
from dataclasses import replace

import numpy as np
from rich.console import Console

from benchmarks.measure import conditions
from tapeout.models.step import ModelShape
from tapeout.planning import Question, events, plan
from tapeout.planning.costs import Costs
from tapeout.training import fleet_of
from tapeout.training.plan import Mesh

CASES = 500
KINDS = ("training", "inference", "H100", "H20", "A100-SXM4-80GB", "MI300X", "L20", "Ascend 910B3")


def case(seed: int) -> Question:
    random = np.random.default_rng(seed)
    kinds = random.choice(KINDS, size=int(random.integers(1, 4)), replace=False)
    left, words = 16, []
    for kind in kinds:
        count = int(random.integers(1, min(left - (len(kinds) - len(words) - 1), 6) + 1))
        left -= count
        words.append(f"{kind}:{count}")
    heads = int(random.choice([8, 16, 32]))
    model = ModelShape(
        name="random",
        layers=int(random.integers(2, 13)),
        hidden=heads * 128,
        heads=heads,
        key_value_heads=heads,
        head_size=128,
        intermediate=int(random.choice([2, 3, 4])) * heads * 128,
        vocabulary=int(random.choice([1024, 32000, 128256])),
    )
    return Question(
        model=model,
        fleet=fleet_of(words, assume=True),
        batch=int(random.choice([2, 4, 6, 8, 16, 32])),
        sequence=int(random.choice([1024, 4096])),
        micro_batch=(1, 2),
        tp=(1, 2, 4),
        one_pipeline=True,
    )


def brute_force(question: Question) -> tuple[float, int]:
    """Seconds of the fastest plan of one pipeline, infinity if none fits, and how many there are."""
    costs, model, fleet = Costs(question.model, question.fleet, question.base), question.model, question.fleet
    least, seen = float("inf"), 0
    for micro_batch in question.micro_batch:
        if question.batch % micro_batch:
            continue
        shares = question.batch // micro_batch
        for replicas in (each for each in range(1, fleet.count + 1) if not shares % each):
            meshes = {
                cards.name: [
                    Mesh(kind=cards.name, stages=stages, tp=tp, recompute=recompute)
                    for tp in question.tp
                    if tp <= cards.node and not model.heads % tp
                    for recompute in ("none", "full")
                    for stages in range(1, min(cards.count // (tp * replicas), model.layers) + 1)
                ]
                for cards in fleet.cards
            }
            for used in range(1, len(meshes) + 1):
                for order in itertools.permutations(meshes, used):
                    for chosen in itertools.product(*(meshes[name] for name in order)):
                        if sum(mesh.stages for mesh in chosen) <= model.layers:
                            time_s, count = _fastest(costs, chosen, micro_batch, replicas, shares // replicas)
                            least, seen = min(least, time_s), seen + count
    return least, seen


def _fastest(
    costs: Costs, meshes: tuple[Mesh, ...], micro_batch: int, replicas: int, micro_batches: int
) -> tuple[float, int]:
    """The fastest split of the layers over the stages of these meshes, and how many splits there are."""
    stages = [replace(mesh, stages=1) for mesh in meshes for _ in range(mesh.stages)]
    count, layers = len(stages), costs.model.layers
    cuts = itertools.combinations(range(1, layers), count - 1)
    splits = np.array([np.diff([0, *cut, layers]) for cut in cuts])
    figures = np.zeros((len(splits), count, 8))
    for place, mesh in enumerate(stages):
        for size in np.unique(splits[:, place]):
            found = costs.stage(
                mesh,
                micro_batch,
                replicas,
                replicas,
                first=1,
                count=int(size),
                is_first=place == 0,
                is_last=place == count - 1,
            )
            figures[splits[:, place] == size, place] = [
                found.forward,
                found.backward,
                found.weight,
                found.after,
                found.late,
                found.static_bytes,
                found.flight_bytes,
                found.capacity_bytes,
            ]
    in_flight = np.minimum(count - np.arange(count), micro_batches)
    fits = (figures[..., 5] + in_flight * figures[..., 6] <= figures[..., 7]).all(1)
    if not fits.any():
        return float("inf"), len(splits)
    figures = figures[fits]
    hops = [costs.hop(here, there, micro_batch, replicas) for here, there in itertools.pairwise(stages)]
    order = events.order("1f1b", count, micro_batches)
    forward, backward, weight = (figures[..., each] for each in range(3))
    transfer = np.tile(hops, (len(figures), 1))
    began = np.zeros_like(forward)
    began[:, 1:] = np.cumsum(forward[:, :-1] + transfer, 1)
    ends = events.ends(order, forward, backward, weight, transfer)
    return float((ends + figures[..., 3] + np.maximum(figures[..., 4] - began, 0)).max(1).min()), len(splits)


def main(cases: int = CASES) -> None:
    console, equal, plans, planner_s, brute_s, compared = Console(), 0, 0, 0.0, 0.0, 0
    for seed in range(cases):
        question = case(seed)
        started = time.process_time()
        least, count = brute_force(question)
        between = time.process_time()
        brute_s, plans = brute_s + between - started, plans + count
        if least == float("inf"):
            continue
        found = plan(question).plans
        planner_s += time.process_time() - between
        best = min(each.seconds for each in found if each.plan.virtual_stages == 1)
        compared += 1
        equal += best <= least * (1 + 1e-9)
        if best > least * (1 + 1e-9):
            console.print(f"case {seed}: planner {best:.6g} s, brute force {least:.6g} s")
    console.print(
        f"{equal} of {compared} cases equal brute force over {plans:,} plans; CPU {planner_s:.0f} s for the planner, "
        f"{brute_s:.0f} s for brute force"
    )
    console.print(conditions())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
