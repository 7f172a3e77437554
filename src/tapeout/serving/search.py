"""The highest rate of requests at which an objective still holds, by bisection."""

from collections.abc import Callable
from dataclasses import dataclass

DOUBLINGS = 12


@dataclass(frozen=True)
class HighestRate:
    """`rate_per_s` holds, 0 if none that was tried does; `fails_at` does not, None if none that was tried fails."""

    rate_per_s: float
    fails_at: float | None
    tries: int


def highest_rate(holds: Callable[[float], bool], start: float, *, tolerance: float = 0.03) -> HighestRate:
    """The gap between the rate that holds and the one that fails is at most this share of the former.

    From `start` the rate is doubled, or halved, until the answer changes, at most 12 times; then bisected. A rate that
    holds above one that fails is not looked for.
    """
    is_held = holds(start)
    low, high, tries = (start, None, 1) if is_held else (0.0, start, 1)
    for _ in range(DOUBLINGS):
        rate = low * 2 if is_held else (high or start) / 2
        tries += 1
        if holds(rate):
            low = rate
        else:
            high = rate
        if low and high is not None:
            break
    while low and high is not None and high - low > tolerance * low:
        middle = (low * high) ** 0.5
        tries += 1
        if holds(middle):
            low = middle
        else:
            high = middle
    return HighestRate(low, high, tries)
