"""Queries to a ranking service: arrivals, a batching window, and how long each query takes.

A server scores one batch at a time: all queries that wait when it is free, up to `max_batch`. Times are seconds.
"""

import random
from collections.abc import Callable, Sequence

from tapeout.errors import TapeoutError

Arrivals = Sequence[float]


def poisson(rate_per_s: float, count: int, seed: int = 0) -> list[float]:
    """Independent arrivals at a mean rate."""
    drawn, now = random.Random(seed), 0.0
    found: list[float] = []
    for _ in range(count):
        now += drawn.expovariate(rate_per_s)
        found.append(now)
    return found


def bursty(
    rate_per_s: float, count: int, seed: int = 0, *, peak: float = 4.0, share: float = 0.1, burst_s: float = 0.05
) -> list[float]:
    """Arrivals whose rate switches between two levels (a Markov-modulated Poisson process) and has the given mean.

    peak: the high rate over the mean. share: of time in bursts. burst_s: a burst's mean length.
    Raises TapeoutError where the low rate would be negative.
    """
    if not (0 < share < 1 and peak * share < 1):
        raise TapeoutError(f"bursts of {peak:g} times the mean for {share:.0%} of the time leave nothing for the rest")
    drawn, now = random.Random(seed), 0.0
    found: list[float] = []
    rates = (rate_per_s * (1 - peak * share) / (1 - share), rate_per_s * peak)
    stays = (burst_s * (1 - share) / share, burst_s)
    level, until = 0, drawn.expovariate(1 / stays[0])
    while len(found) < count:
        after = now + drawn.expovariate(rates[level])
        if after < until:
            now = after
            found.append(now)
        else:  # the wait is memoryless: it begins anew at the other rate
            now, level = until, 1 - level
            until = now + drawn.expovariate(1 / stays[level])
    return found


def latencies(arrivals: Arrivals, time_of_batch: Callable[[int], float], *, max_batch: int = 1) -> list[float]:
    """From arrival to scores, of each query. `time_of_batch`: seconds that so many queries take together."""
    found: list[float] = []
    free, next_query = 0.0, 0
    while next_query < len(arrivals):
        start = max(free, arrivals[next_query])
        last = next_query
        while last < len(arrivals) and last - next_query < max_batch and arrivals[last] <= start:
            last += 1
        free = start + time_of_batch(last - next_query)
        found += [free - arrivals[each] for each in range(next_query, last)]
        next_query = last
    return found
