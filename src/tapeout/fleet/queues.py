"""Waiting of requests that arrive at random (Poisson) at a server that takes a fixed time for each (M/D/1).

Takes a rate and a service time, gives the wait that a share of requests does not exceed.
"""

import math
from collections.abc import Callable

TAIL = 0.01
"""Share of requests that may exceed a bound: the 99th percentile counts."""


def wait_s(rate_per_s: float, service_s: float, tail: float = TAIL) -> float:
    """The wait, without the service, that all but `tail` of the requests stay below; infinity for a server that cannot
    keep up.

    P(wait > t) = load · exp(-t / (mean wait of those who wait)), whose mean is service / (2 (1 - load)): exact at t = 0
    and in the mean, as in Allen's and Cunneen's approximation of M/G/1 (Allen, Probability, Statistics and Queueing
    Theory, 2nd ed., 5.3).
    """
    load = rate_per_s * service_s
    if load >= 1:
        return math.inf
    return service_s / (2 * (1 - load)) * math.log(load / tail) if load > tail else 0.0


def greatest(holds: Callable[[float], bool], limit: float) -> float:
    """The greatest value up to `limit` for which a condition holds that is monotone; 0 if it holds for none."""
    low, high = 0.0, limit
    if holds(high):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
