"""The assignment of least cost: how many instances of which column each workload gets.

Takes columns, demands and shared limits (cards of each kind, power of each site); gives whole numbers of instances,
what they cost an hour, a bound that no assignment goes below, and what one more of each limit would save.

A pattern is a whole answer for one workload. The linear program chooses shares of patterns within the limits; at its
prices of the limits, `cover` finds each workload's cheapest pattern, until no pattern helps (Dantzig and Wolfe, 1960).
The sum of the cheapest patterns at any prices, less the limits at those prices, is a bound (Lagrange). At the end an
integer program chooses one pattern a workload; workloads that the linear program splits may also be put together from
single instances.
"""

import importlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.errors import TapeoutError
from tapeout.fleet.cover import cheapest, whole

MOST_ROUNDS = 60
UNPLACED_FACTOR = 20.0
"""A workload that is left out costs this many times its dearest sole answer, in the solver alone."""


@dataclass(frozen=True)
class Item:
    """One kind of instance of one workload: what it carries, costs an hour and takes of each limit."""

    workload: int
    carries: float
    cost: float
    uses: Mapping[int, float]


@dataclass(frozen=True)
class Assignment:
    """`counts` instances of each item. `bound`: no assignment costs less an hour. `prices`: USD an hour that one more
    of each limit saves, by the linear program. `unplaced`: workloads, by number, that no room was found for."""

    counts: tuple[int, ...]
    cost: float
    bound: float
    prices: tuple[float, ...]
    unplaced: tuple[int, ...]
    seconds: float

    @property
    def gap(self) -> float:
        """Share of the cost by which it may be above the least possible."""
        return max(self.cost / self.bound - 1, 0.0) if self.bound > 0 else 0.0


@dataclass(frozen=True)
class _Pattern:
    workload: int
    counts: Mapping[int, int]
    cost: float
    uses: NDArray[np.float64]


@dataclass
class _Master:
    """Patterns found so far, and what is known of the bound."""

    items: Sequence[Item]
    demands: Sequence[float]
    limits: NDArray[np.float64]
    of_workload: list[list[int]]
    patterns: list[_Pattern] = field(default_factory=list)
    seen: set[tuple[int, tuple[tuple[int, int], ...]]] = field(default_factory=set)
    bound: float = -math.inf

    def price_out(self, prices: NDArray[np.float64]) -> float:
        """Add each workload's cheapest pattern at these prices; return the bound they give."""
        total = -float(prices @ self.limits)
        for workload, places in enumerate(self.of_workload):
            costs = [
                self.items[place].cost + sum(prices[limit] * taken for limit, taken in self.items[place].uses.items())
                for place in places
            ]
            found = cheapest(self.demands[workload], [self.items[place].carries for place in places], costs)
            total += found.bound
            self.add(workload, {place: count for place, count in zip(places, found.counts, strict=True) if count})
        self.bound = max(self.bound, total)
        return total

    def add(self, workload: int, counts: Mapping[int, int]) -> None:
        mark = (workload, tuple(sorted(counts.items())))
        if mark in self.seen:
            return
        self.seen.add(mark)
        uses = np.zeros(len(self.limits))
        for place, count in counts.items():
            for limit, taken in self.items[place].uses.items():
                uses[limit] += count * taken
        cost = sum(self.items[place].cost * count for place, count in counts.items())
        self.patterns.append(_Pattern(workload, dict(counts), cost, uses))


def assign(
    items: Sequence[Item],
    demands: Sequence[float],
    limits: Sequence[float],
    *,
    gap: float = 0.005,
    limit_s: float = 8.0,
) -> Assignment:
    """Choose instances for every workload, each of which has an item. Stops when the cost is within `gap` of the bound,
    or after about `limit_s`. Raises TapeoutError without SciPy."""
    optimize, sparse = _library("scipy.optimize"), _library("scipy.sparse")
    started = time.perf_counter()
    of_workload: list[list[int]] = [[] for _ in demands]
    for place, item in enumerate(items):
        of_workload[item.workload].append(place)
    master = _Master(items, demands, np.asarray(limits, float), of_workload)
    dearest = [
        UNPLACED_FACTOR * max(items[place].cost * whole(demands[workload] / items[place].carries) for place in places)
        + 1.0
        for workload, places in enumerate(of_workload)
    ]
    master.price_out(np.zeros(len(limits)))
    for place, item in enumerate(items):  # each instance alone, so that the first program has a choice
        master.add(item.workload, {place: whole(demands[item.workload] / item.carries)})
    prices, shares = _solve_linear(optimize, sparse, master, dearest)
    for _ in range(MOST_ROUNDS):
        known = len(master.patterns)
        master.price_out(prices)
        value = float(sum(share * pattern.cost for share, pattern in zip(shares, master.patterns, strict=False)))
        if len(master.patterns) == known or value - master.bound <= 1e-4 * abs(value):
            break
        if time.perf_counter() - started > limit_s / 2:
            break
        prices, shares = _solve_linear(optimize, sparse, master, dearest)
    prices, shares = _solve_linear(optimize, sparse, master, dearest)
    left = max(limit_s - (time.perf_counter() - started), 1.0)
    counts, unplaced = _solve_whole(optimize, sparse, master, dearest, shares, gap, left)
    cost = math.fsum(items[place].cost * count for place, count in enumerate(counts))
    return Assignment(
        tuple(counts),
        cost,
        min(max(master.bound, 0.0), cost) if not unplaced else max(master.bound, 0.0),
        tuple(float(price) for price in prices),
        tuple(unplaced),
        time.perf_counter() - started,
    )


def _solve_linear(
    optimize: Any, sparse: Any, master: _Master, dearest: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prices of the limits, not negative, and the share of each pattern."""
    patterns, workloads = master.patterns, len(master.demands)
    costs = np.array([pattern.cost for pattern in patterns] + list(dearest))
    uses = sparse.csr_matrix(np.array([pattern.uses for pattern in patterns]).T)
    uses = sparse.hstack([uses, sparse.csr_matrix((len(master.limits), workloads))])
    rows = [pattern.workload for pattern in patterns] + list(range(workloads))
    one_each = sparse.csr_matrix((np.ones(len(costs)), (rows, np.arange(len(costs)))), shape=(workloads, len(costs)))
    found = optimize.linprog(
        costs, A_ub=uses, b_ub=master.limits, A_eq=one_each, b_eq=np.ones(workloads), method="highs"
    )
    return np.maximum(-found.ineqlin.marginals, 0.0), found.x[: len(patterns)]


def _solve_whole(
    optimize: Any,
    sparse: Any,
    master: _Master,
    dearest: Sequence[float],
    shares: NDArray[np.float64],
    gap: float,
    limit_s: float,
) -> tuple[list[int], list[int]]:
    """Counts of each item and the workloads left out: one pattern a workload, single instances where shares split."""
    items, patterns, workloads = master.items, master.patterns, len(master.demands)
    greatest = np.zeros(workloads)
    for share, pattern in zip(shares, patterns, strict=True):
        greatest[pattern.workload] = max(greatest[pattern.workload], share)
    split = {workload for workload in range(workloads) if greatest[workload] < 1 - 1e-6}
    loose = [place for place, item in enumerate(items) if item.workload in split]
    # Columns: a choice for each pattern, counts of loose items, a workload built of loose items, a workload left out.
    column_count = len(patterns) + len(loose) + 2 * workloads
    built, out = len(patterns) + len(loose), len(patterns) + len(loose) + workloads
    costs = np.zeros(column_count)
    costs[: len(patterns)] = [pattern.cost for pattern in patterns]
    costs[len(patterns) : built] = [items[place].cost for place in loose]
    costs[out:] = dearest
    upper = np.ones(column_count)
    upper[len(patterns) : built] = [
        whole(master.demands[items[place].workload] / items[place].carries) for place in loose
    ]
    upper[built:out] = [1.0 if workload in split else 0.0 for workload in range(workloads)]
    entries: list[tuple[int, int, float]] = []
    for column, pattern in enumerate(patterns):
        entries.append((pattern.workload, column, 1.0))
        entries += [(workloads + limit, column, taken) for limit, taken in enumerate(pattern.uses) if taken]
    for column, place in enumerate(loose, len(patterns)):
        item = items[place]
        entries += [(workloads + limit, column, taken) for limit, taken in item.uses.items()]
        share = item.carries / master.demands[item.workload]
        entries.append((workloads + len(master.limits) + item.workload, column, share))
    for workload in range(workloads):
        entries += [(workload, built + workload, 1.0), (workload, out + workload, 1.0)]
        entries.append((workloads + len(master.limits) + workload, built + workload, -1.0))
    rows, columns, values = zip(*entries, strict=True)
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(2 * workloads + len(master.limits), column_count))
    low = np.concatenate([np.ones(workloads), np.full(len(master.limits), -np.inf), np.full(workloads, -1e-9)])
    high = np.concatenate([np.ones(workloads), master.limits, np.full(workloads, np.inf)])
    found = optimize.milp(
        costs,
        constraints=optimize.LinearConstraint(matrix, low, high),
        bounds=optimize.Bounds(0, upper),
        integrality=np.ones(column_count),
        options={"mip_rel_gap": gap / 2, "time_limit": limit_s},
    )
    counts = [0] * len(items)
    if found.x is None:  # out of time without any answer: nothing is placed
        return counts, list(range(workloads))
    chosen = np.round(found.x).astype(int)
    for column, pattern in enumerate(patterns):
        if chosen[column]:
            for place, count in pattern.counts.items():
                counts[place] += count
    for column, place in enumerate(loose, len(patterns)):
        if chosen[built + items[place].workload]:
            counts[place] += int(chosen[column])
    return counts, [workload for workload in range(workloads) if chosen[out + workload]]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TapeoutError(
            "assigning work to a fleet needs SciPy; in Tapeout's source folder: pip install --editable '.[plan]'"
        ) from None
