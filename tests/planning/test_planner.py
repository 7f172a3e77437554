"""The planner: exact times, bounds, equality with brute force on small cases, refusals that say what would do."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import planner_brute_force
from tapeout.models.step import ModelShape
from tapeout.planning import Question, events, plan
from tapeout.planning.costs import Costs
from tapeout.training import Mesh, Pipeline, TrainingError, fleet_of, model_of, predict, schedules

SMALL = ModelShape(
    name="small",
    layers=12,
    hidden=2048,
    heads=16,
    key_value_heads=16,
    head_size=128,
    intermediate=5632,
    vocabulary=32000,
)


@pytest.fixture(scope="module")
def two_kinds():
    return fleet_of("training:8,H100:8")


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (1, 4), (4, 2), (4, 4), (4, 9), (7, 3)])
def test_the_order_of_1f1b_is_that_of_the_schedules(stages, micro_batches):
    mine, theirs = (
        events.order("1f1b", stages, micro_batches),
        schedules.order("1f1b", stages, micro_batches),
    )
    assert (mine.rows == theirs.rows).all() and (mine.starts == theirs.starts).all()


@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_ends_are_those_of_the_schedules(schedule):
    random = np.random.default_rng(0)
    order = events.order(schedule, 5, 8)
    passes = random.uniform(0.5, 2, (3, 6, 5))
    hops = random.uniform(0, 0.3, (6, 4))
    found = events.ends(order, *passes, hops)
    for row in range(6):
        timeline = schedules.times(order, *(each[row] for each in passes), hops[row])
        ends = [timeline.end[a:b].max() for a, b in zip(order.starts[:-1], order.starts[1:], strict=True)]
        np.testing.assert_allclose(found[row], ends, rtol=1e-12)


def test_times_and_memory_are_those_of_the_prediction(two_kinds):
    question = Question(model=SMALL, fleet=two_kinds, batch=32, sequence=2048)
    mixed = Pipeline(
        meshes=(
            Mesh(kind="H100", stages=2, tp=2, layers=(3, 2), recompute="full"),
            Mesh(kind="training", stages=2, tp=2, layers=(3, 4)),
        ),
        replicas=1,
        batch=24,
        micro_batch=2,
    )
    alone = Pipeline(meshes=(Mesh(kind="H100", layers=(12,)),), replicas=2, batch=8, micro_batch=1)
    costs = Costs(SMALL, two_kinds, question.base)
    for pipelines in ((replace(mixed, batch=32),), (mixed, alone)):
        wanted = predict(SMALL, two_kinds, replace(question.base, pipelines=pipelines))
        (found,) = costs.timed([wanted.plan])
        assert found.seconds == pytest.approx(wanted.seconds, rel=1e-9)
        share = max(stage.memory.value / stage.capacity_bytes for stages in wanted.stages for stage in stages)
        assert found.memory_share == pytest.approx(share, rel=1e-9)
        assert found.fits == wanted.fits


def test_a_mixed_fleet_beats_each_of_its_kinds_and_not_the_perfect_mix(two_kinds):
    found = plan(Question(model=SMALL, fleet=two_kinds, batch=64, sequence=2048))
    assert found.best.seconds == pytest.approx(found.step.seconds, rel=1e-9)
    assert found.step.fits and found.best.memory_share <= 1
    assert found.bound_s < found.best.seconds
    assert [each.seconds for each in found.plans] == sorted(each.seconds for each in found.plans)
    for kind in ("training", "H100"):
        alone = plan(Question(model=SMALL, fleet=fleet_of(f"{kind}:8"), batch=64, sequence=2048))
        assert found.best.seconds <= alone.best.seconds
        assert alone.bound_s < alone.best.seconds
    assert all(seconds is not None and seconds >= found.best.seconds for seconds in found.without.values())
    for earlier, later in zip(found.pareto, found.pareto[1:], strict=False):
        assert later.memory_share < earlier.memory_share or later.usd_per_step < earlier.usd_per_step


@pytest.mark.parametrize("seed", [4, 7])
def test_small_cases_equal_brute_force(seed):
    question = planner_brute_force.case(seed)
    least, count = planner_brute_force.brute_force(question)
    found = plan(question)
    assert found.is_proven and count > 100
    assert min(each.seconds for each in found.plans if each.plan.virtual_stages == 1) == pytest.approx(least, rel=1e-9)


def test_ten_thousand_cards_of_six_kinds_are_planned_in_seconds():
    words = "training:2048,H100:4096,Ascend 910B3:2048,MI300X:512,H20:512,A100-SXM4-80GB:1024"
    question = Question(model=model_of("llama-3.1-405b"), fleet=fleet_of(words, assume=True), batch=2048, sequence=8192)
    began = time.process_time()
    found = plan(question)
    assert time.process_time() - began < 15  # 5 s on a quiet machine
    assert found.simulated >= 50
    assert found.bound_s < found.best.seconds < 3 * found.bound_s
    assert sum(found.best.plan.cards.values()) > 5000


def refused(**more):
    fields = {"model": SMALL, "fleet": fleet_of("H100:8"), "batch": 32, "sequence": 2048} | more
    with pytest.raises(TrainingError) as error:
        plan(Question(**fields))
    return str(error.value)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"stages": 13}, "13 stages for the 12 layers of small; use at most 12 stages"),
        (
            {"batch": 33, "micro_batch": (2,)},
            "a batch of 33 does not divide into micro-batches of 2; 32 or 34 does",
        ),
        ({"tp": (3,)}, r"small has 16 heads, which do not divide over tp 3; \[1, 2, 4, 8, 16\] do"),
        (
            {"model": model_of("llama-3.1-405b")},
            r"llama-3.1-405b with its optimizer takes [\d,]+ GiB, the fleet has 640 GiB; \d+ more H100 would do.*",
        ),
        ({"tp": (16,)}, r"tp \(16,\) is larger than a node of H100 .*; use at most 8"),
        (
            {"fleet": fleet_of("H100@board8:8,training:8")},
            "cluster 'board8' of H100 ends at 8 places and shares no network with other kinds; .*",
        ),
    ],
)
def test_bad_questions_are_told_what_would_do(question, message):
    said = refused(**question)
    assert re.fullmatch(message, said), said


def test_a_kind_without_a_figure_says_which():
    with pytest.raises(ValueError, match="L600"):
        plan(Question(model=SMALL, fleet=fleet_of("Enflame L600:8"), batch=32, sequence=2048))
