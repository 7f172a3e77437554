"""The cheapest whole numbers of instances that carry a demand: an unbounded covering knapsack.

Takes the demand, what each kind of instance carries and costs; gives counts, their cost, and a lower bound no whole
numbers go below. Branch and bound over instances in order of cost per unit carried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 1e-4
"""Branches that could save less than this share are not followed."""
_MOST_NODES = 2000


@dataclass(frozen=True)
class Cover:
    counts: tuple[int, ...]
    cost: float
    bound: float


def cheapest(demand: float, carries: Sequence[float], costs: Sequence[float]) -> Cover:
    """Counts of each instance. `costs` are not negative, `carries` are positive."""
    order = sorted(range(len(costs)), key=lambda item: (costs[item] / carries[item], -carries[item]))
    useful: list[int] = []
    for item in order:  # an instance that carries no more than a cheaper one is never needed
        if not any(costs[other] <= costs[item] and carries[other] >= carries[item] for other in useful):
            useful.append(item)
    amount = [carries[item] for item in useful]
    price = [costs[item] for item in useful]
    ratio = [cost / size for cost, size in zip(price, amount, strict=True)]
    best = float("inf")
    best_counts = [0] * len(useful)
    bound = float("inf")
    nodes = 0

    def follow(item: int, left: float, spent: float, counts: list[int]) -> None:
        nonlocal best, best_counts, bound, nodes
        nodes += 1
        most = whole(left / amount[item])
        if spent + most * price[item] < best:
            best = spent + most * price[item]
            best_counts = [*counts, most] + [0] * (len(useful) - len(counts) - 1)
        if item + 1 == len(useful):
            return
        for count in range(most - 1, -1, -1):
            rest, cost = left - count * amount[item], spent + count * price[item]
            least = cost + rest * ratio[item + 1]
            if least >= best * (1 - TOLERANCE) or nodes > _MOST_NODES:
                bound = min(bound, least)  # what lies here, and behind it in this loop, costs at least this
                return
            follow(item + 1, rest, cost, [*counts, count])

    follow(0, demand, 0.0, [])
    found = [0] * len(costs)
    for item, count in zip(useful, best_counts, strict=True):
        found[item] = count
    return Cover(tuple(found), best, min(best, bound))


def whole(value: float) -> int:
    """The whole number at or above, not disturbed by rounding of a value that is whole."""
    nearest = round(value)
    return nearest if abs(value - nearest) < 1e-9 * max(nearest, 1) else int(value) + 1
