"""What users of a server feel: times of a request, objectives for them, and their figures over many requests.

TTFT: from a request's arrival to its first token. TPOT: (last token - first token) / (tokens - 1), of requests with
two tokens or more. ITL: every gap between two tokens of a request. E2E: from arrival to last token. Percentiles are
interpolated linearly between ranks, as vLLM's own benchmark does.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tapeout.errors import TapeoutError

MEASURES = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = (50, 90, 99)
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


class ObjectiveError(TapeoutError, ValueError):
    """An objective that cannot be read."""


@dataclass(frozen=True)
class RequestTimes:
    """One request, served. Times are seconds since the trace began."""

    arrival_s: float
    prompt_tokens: int
    token_times_s: tuple[float, ...]
    preemptions: int = 0
    cached_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        count = len(self.token_times_s)
        return (self.token_times_s[-1] - self.token_times_s[0]) / (count - 1) if count > 1 else None

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.token_times_s)]

    @property
    def e2e_s(self) -> float:
        return self.token_times_s[-1] - self.arrival_s

    def measured(self, measure: str) -> float | None:
        """A measure of this request; ITL is its longest gap."""
        if measure == "itl":
            return max(self.gaps_s, default=None)
        return {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2e": self.e2e_s}[measure]


@dataclass(frozen=True)
class Objective:
    """The most a measure may take, in seconds. A request holds it if each of its measures that exists does."""

    limits_s: Mapping[str, float]

    @classmethod
    def of(cls, text: str) -> "Objective":
        """From "ttft=200ms,tpot=50ms". Raises ObjectiveError."""
        limits: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = re.fullmatch(r"(\w+)\s*=\s*([0-9.]+)\s*(us|µs|ms|s)", part)
            if found is None or found[1] not in MEASURES or not found[2].replace(".", "", 1).isdigit():
                raise ObjectiveError(
                    f"{part!r} is not an objective; write one of {', '.join(MEASURES)} with a time, as in 'ttft=200ms'"
                )
            limits[found[1]] = float(found[2]) * _UNITS[found[3]]
        if not limits:
            raise ObjectiveError("an objective names at least one measure, as in 'ttft=200ms,tpot=50ms'")
        return cls(MappingProxyType(limits))

    def is_held_by(self, request: RequestTimes) -> bool:
        measured = ((request.measured(name), limit) for name, limit in self.limits_s.items())
        return all(value is None or value <= limit for value, limit in measured)

    def share_held(self, requests: Sequence[RequestTimes]) -> float:
        return sum(map(self.is_held_by, requests)) / len(requests)

    def __str__(self) -> str:
        return ", ".join(f"{name.upper()} <= {limit * 1e3:g} ms" for name, limit in self.limits_s.items())


@dataclass(frozen=True)
class Figures:
    """Seconds at each percentile of `PERCENTILES`, and their mean; of no values, None."""

    mean_s: float
    at_s: Mapping[int, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figures | None":
        if not len(values):
            return None
        found = np.percentile(np.asarray(values, np.float64), PERCENTILES)
        at = dict(zip(PERCENTILES, map(float, found), strict=True))
        return cls(float(np.mean(values)), MappingProxyType(at))


def figures_of(requests: Sequence[RequestTimes]) -> dict[str, Figures | None]:
    """Figures of each measure over all requests; ITL over all gaps of all requests."""
    return {
        "ttft": Figures.of([each.ttft_s for each in requests]),
        "tpot": Figures.of([each.tpot_s for each in requests if each.tpot_s is not None]),
        "itl": Figures.of([gap for each in requests for gap in each.gaps_s]),
        "e2e": Figures.of([each.e2e_s for each in requests]),
    }
