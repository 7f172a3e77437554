"""Goodput: the share of a run's time that is kept, with failures, restarts, checkpoints and spares.

    closed form   1 / ((1 + stall / interval) (1 + rate (restart + interval / 2)))
    interval      sqrt(2 stall / rate), Young's, where none is given

The closed form takes failures one at a time. The Monte Carlo draws them, also during restarts, and waits for a repair
where no spare is left; it is seeded. Stragglers slow every step: the slowest of all cards sets the pace.
"""

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from tapeout.figures import Estimate, Provenance, computed, given, number
from tapeout.training.problems import TrainingError

HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """`failures_per_card_hour`: unplanned stops. `restart_s`: from a failure to the first useful step again.

    `checkpoint_s`: between checkpoints, None for the best interval; `stall_s`: that a checkpoint holds training up.
    `spares`: nodes ready to take over; a failed one is back after `repair_s`. `spread`: standard deviation of a card's
    speed, as a share of it.
    """

    cards: int
    failures_per_card_hour: Estimate
    restart_s: float = 600.0
    checkpoint_s: float | None = None
    stall_s: float = 10.0
    spares: int | None = None
    repair_s: float = 24 * HOUR_S
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.cards < 1:
            raise TrainingError(f"{self.cards} cards; the least is 1")
        if self.checkpoint_s is not None and self.checkpoint_s <= 0:
            raise TrainingError(f"checkpoints every {self.checkpoint_s:g} s; it is more than 0")
        if min(self.restart_s, self.stall_s, self.repair_s, self.spread) < 0 or (self.spares or 0) < 0:
            raise TrainingError("restart, stall, repair, spread and spares are not negative")

    @property
    def failures_per_s(self) -> Estimate:
        """Stops of the whole job."""
        return self.failures_per_card_hour.to("1/s") * float(self.cards)

    @property
    def interval_s(self) -> float:
        """Between checkpoints: as given, or Young's."""
        if self.checkpoint_s is not None:
            return self.checkpoint_s
        rate = self.failures_per_s.value
        return max(math.sqrt(2 * self.stall_s / rate), 1.0) if rate else 86400.0

    @property
    def slowdown(self) -> float:
        """Time of a step over that of a card of middling speed: the largest of so many normal draws."""
        if not self.spread or self.cards == 1:
            return 1.0
        many = math.sqrt(2 * math.log(self.cards))
        most = many - (math.log(math.log(self.cards)) + math.log(4 * math.pi)) / (2 * many)
        return 1 + self.spread * most


def default_failures() -> Estimate:
    """Unplanned stops a card and hour, of the largest run that published them."""
    entry = _data()["failures"]
    count = sum(entry["components"].values())
    rate = count / (entry["cards"] * entry["days"] * 24)
    return given(
        "failures of a card",
        rate,
        "1/h",
        Provenance.PUBLISHED,
        "Llama 3 405B: 419 in 54 days on 16,384 cards",
        low=rate / 2,
        high=rate * 2,
    )


def components() -> dict[str, float]:
    """Shares of what stopped that run."""
    counts = _data()["failures"]["components"]
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def closed_form(of: Reliability) -> Estimate:
    """The goodput that the formula gives."""
    interval, stall, restart, slow = of.interval_s, of.stall_s, of.restart_s, of.slowdown

    def share(rate: Any) -> Any:
        return 1 / ((1 + stall / interval) * (1 + rate * (restart + interval / 2)) * slow)

    return computed("", share, of.failures_per_s).called("goodput", provenance=Provenance.MODELLED)


@dataclass(frozen=True)
class Simulated:
    """Goodput of drawn runs: mean, the middle 80 %, and what the rest of the time went to, in shares."""

    mean: float
    low: float
    high: float
    failures_per_day: float
    lost: dict[str, float]


def monte_carlo(of: Reliability, *, days: float = 54, runs: int = 40, seed: int = 0) -> Simulated:
    """Draw runs of so many days. Equal seed, equal answer."""
    if days <= 0 or runs < 1:
        raise TrainingError(f"{runs} runs of {days:g} days; both are more than 0")
    generator = np.random.default_rng(seed)
    found = [_one_run(of, days * 86400, generator) for _ in range(runs)]
    shares = np.array([kept for kept, _, _ in found])
    lost = {name: float(np.mean([parts[name] for _, parts, _ in found])) for name in found[0][1]}
    low, high = np.quantile(shares, [0.1, 0.9])
    return Simulated(
        float(shares.mean()), float(low), float(high), float(np.mean([count for *_, count in found])) / days, lost
    )


def _one_run(of: Reliability, length_s: float, generator: np.random.Generator) -> tuple[float, dict[str, float], int]:
    rate, interval, stall = of.failures_per_s.value, of.interval_s, of.stall_s
    cycle = interval + stall
    now = kept = stalled = redone = restarting = waiting = 0.0
    busy: list[float] = []  # when each failed node is back
    count = 0
    while now < length_s:
        up = generator.exponential(1 / rate) if rate else math.inf
        is_last = now + up >= length_s
        up = min(up, length_s - now)
        whole = math.floor(up / cycle)
        rest = min(up - whole * cycle, interval)
        kept += whole * interval + (rest if is_last else 0.0)
        stalled += up - whole * interval - rest
        redone += 0.0 if is_last else rest
        now += up
        if is_last:
            break
        count += 1
        if of.spares is not None:
            busy = sorted(back for back in busy if back > now)
            busy.append(now + of.repair_s)
            if len(busy) > of.spares:  # the job waits for the first node to come back
                ready = min(busy[0], length_s)
                waiting += ready - now
                now = ready
        while now < length_s:  # a failure during a restart begins it again
            broken = generator.exponential(1 / rate)
            took = min(of.restart_s, broken, length_s - now)
            now += took
            restarting += took
            if broken >= of.restart_s:
                break
            count += 1
    parts = {"checkpoints": stalled, "work done again": redone, "restarts": restarting, "waiting for repair": waiting}
    shares = {name: value / length_s for name, value in parts.items()}
    useful = kept / length_s / of.slowdown
    shares["stragglers"] = kept / length_s - useful
    return useful, shares, count


@dataclass(frozen=True)
class Published:
    """A system's goodput as it reports it, and with its inputs as we compute it."""

    name: str
    cards: int
    reported: float
    is_bound: bool
    closed: float
    simulated: Simulated
    source: str


@cache
def published() -> tuple[Published, ...]:
    """The systems whose inputs are known."""
    found = []
    for entry in _data()["published"]:
        rate = entry["failures_per_day"] / 24 / entry["cards"]
        of = Reliability(
            cards=entry["cards"],
            failures_per_card_hour=given("failures of a card", rate, "1/h", Provenance.PUBLISHED, entry["source"]),
            restart_s=entry["restart_s"],
            checkpoint_s=entry["checkpoint_s"],
            stall_s=entry["stall_s"],
        )
        found.append(
            Published(
                entry["name"],
                entry["cards"],
                entry["goodput_pct"] / 100,
                entry["at_least"],
                closed_form(of).value,
                monte_carlo(of),
                entry["source"],
            )
        )
    return tuple(found)


@cache
def _data() -> dict[str, Any]:
    path = resources.files("tapeout.training") / "data" / "reliability.toml"
    return tomllib.loads(path.read_text("utf-8"))


def kept_time(step: Estimate, of: Reliability, steps: float) -> Estimate:
    """Calendar time of so many steps with failures."""
    return (step * number(steps) / closed_form(of)).called("run time", provenance=Provenance.MODELLED)
