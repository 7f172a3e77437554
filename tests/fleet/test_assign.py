"""Assignments of least cost: against brute force, their laws, and their size."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.fleet import queues
from tapeout.fleet.assign import Item, assign
from tapeout.fleet.cover import TOLERANCE, cheapest

SIZES = st.floats(0.1, 3.0)


@given(st.floats(0.5, 9.0), st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_cover_costs_the_least_of_all(demand, instances):
    carries, costs = zip(*instances, strict=True)
    found = cheapest(demand, carries, costs)
    assert sum(c * n for c, n in zip(carries, found.counts, strict=True)) >= demand * (1 - 1e-9)
    ranges = [range(math.ceil(demand / each) + 1) for each in carries]
    least = min(
        sum(cost * count for cost, count in zip(costs, counts, strict=True))
        for counts in itertools.product(*ranges)
        if sum(each * count for each, count in zip(carries, counts, strict=True)) >= demand * (1 - 1e-9)
    )
    assert least <= found.cost * (1 + 1e-9)
    assert found.cost <= least * (1 + 2 * TOLERANCE)
    assert found.bound <= least * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_an_assignment_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    demands = random.uniform(1, 4, 3)
    items = [
        Item(workload, random.uniform(0.8, 2.0), random.uniform(1, 3), {kind: 1.0})
        for workload in range(3)
        for kind in range(2)
    ]
    limits = [4.0, 5.0]
    counts = np.array(list(itertools.product(range(6), repeat=6))).reshape(-1, 3, 2)
    carries = np.array([item.carries for item in items]).reshape(3, 2)
    costs = np.array([item.cost for item in items]).reshape(3, 2)
    fits = ((counts * carries).sum(2) >= demands).all(1) & (counts.sum(1) <= limits).all(1)
    least = (counts[fits] * costs).sum((1, 2)).min(initial=math.inf)
    found = assign(items, demands, limits, gap=0.0)
    if math.isinf(least):
        assert found.unplaced
        return
    assert not found.unplaced
    assert found.cost == pytest.approx(least, rel=1e-3)
    assert found.bound <= least * (1 + 1e-9)


def a_fleet(workloads, seed=0):
    """Items, demands and limits of random work on eight kinds: serving and ranking in instances of 1 to 8 cards,
    training runs of 64 to 512."""
    random = np.random.default_rng(seed)
    price = [2.5, 2.1, 3.4, 1.2, 1.0, 2.4, 1.6, 0.5]
    speed = [1.5, 1.0, 1.3, 0.6, 0.6, 1.2, 0.9, 0.25]
    items, demands = [], []
    for workload in range(workloads):
        is_training = random.random() < 0.25
        demands.append(1.0 if is_training else float(random.lognormal(3.5, 1)))
        for kind in range(8):
            if random.random() < 0.25 and kind:
                continue
            sizes = (64, 128, 256, 512) if is_training else (1, 2, 4, 8)
            for size in sizes:
                carries = 1.0 if is_training else random.lognormal(0, 0.4) * size**0.9 * speed[kind]
                cost = price[kind] * size * random.uniform(0.9, 1.1)
                items.append(Item(workload, carries, cost, {kind: float(size)}))
    return items, demands, [workloads * each for each in (14.0, 7.0, 7.0, 7.0, 14.0, 4.0, 7.0, 14.0)]


def test_three_hundred_workloads_on_eight_kinds_are_assigned_within_a_percent():
    items, demands, limits = a_fleet(300)
    found = assign(items, demands, limits)
    assert not found.unplaced
    assert 0 < found.bound <= found.cost
    assert found.gap <= 0.01
    carried, used = np.zeros(len(demands)), np.zeros(len(limits))
    for item, count in zip(items, found.counts, strict=True):
        carried[item.workload] += item.carries * count
        for limit, taken in item.uses.items():
            used[limit] += taken * count
    assert (carried >= np.array(demands) * (1 - 1e-6)).all()
    assert (used <= np.array(limits) + 1e-6).all()
    # A limit with much left over is worth nothing.
    assert all(
        price == 0 for price, taken, limit in zip(found.prices, used, limits, strict=True) if taken < limit * 0.8
    )


def test_the_price_of_a_limit_is_what_one_more_saves():
    items = [Item(0, 1.0, 1.0, {0: 1.0}), Item(0, 1.0, 3.0, {1: 1.0})]
    before, after = (assign(items, [10.0], [limit, 100.0], gap=0.0) for limit in (4.0, 5.0))
    assert before.prices == pytest.approx((2.0, 0.0))
    assert before.cost - after.cost == pytest.approx(2.0)


def test_a_queue_waits_longer_the_fuller_it_is():
    waits = [queues.wait_s(load / 0.01, 0.01) for load in (0.0, 0.1, 0.5, 0.9, 0.99)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert math.isinf(queues.wait_s(101, 0.01))


def test_the_wait_is_that_of_a_simulated_queue():
    random = np.random.default_rng(1)
    for load in (0.5, 0.8):
        arrivals = np.cumsum(random.exponential(1 / load, 300_000))
        free, waits = 0.0, np.empty(len(arrivals))
        for place, arrival in enumerate(arrivals.tolist()):
            waits[place] = max(free - arrival, 0.0)
            free = max(free, arrival) + 1.0
        assert queues.wait_s(load, 1.0) == pytest.approx(np.quantile(waits, 0.99), rel=0.2)
