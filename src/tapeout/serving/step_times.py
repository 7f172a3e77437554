"""The chip's time of a live server's steps, from the process that has the chip to the one that answers requests.

The worker appends a line to a file for every step; the server reads what is new. A request's time on the chip begins
with its first step, so waiting for a place in the batch before that is not in it, nor is anything of the host.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PICOSECONDS = 10**12
VARIABLE = "TAPEOUT_SERVE_TIMES"
"""The file's name, in the environment of both processes."""
KEPT_REQUESTS = 10_000
BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass
class ChipTime:
    """A request's moments on the chip, in picoseconds of its clock."""

    start_ps: int
    first_token_ps: int = 0
    last_token_ps: int = 0
    tokens: int = 0

    def usage(self) -> Mapping[str, Any]:
        """What a response's `usage` says: milliseconds of the chip's time."""
        told: dict[str, Any] = {"tokens": self.tokens}
        if self.tokens:
            told["time_to_first_token_ms"] = (self.first_token_ps - self.start_ps) / 1e9
            told["total_ms"] = (self.last_token_ps - self.start_ps) / 1e9
        if self.tokens > 1:
            told["time_per_output_token_ms"] = (self.last_token_ps - self.first_token_ps) / (self.tokens - 1) / 1e9
        return told


@dataclass
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[next((place for place, limit in enumerate(BUCKETS) if value <= limit), len(BUCKETS))] += 1
        self.total += value


def line(start_ps: int, end_ps: int, scheduled: list[str], sampled: list[str]) -> str:
    """One step: who had work in it, and who got a token."""
    return json.dumps({"start_ps": start_ps, "end_ps": end_ps, "in": scheduled, "tokens": sampled}) + "\n"


@dataclass
class StepTimes:
    """What the server knows of the steps so far."""

    path: Path
    requests: dict[str, ChipTime] = field(default_factory=dict)
    first_token: Histogram = field(default_factory=Histogram)
    gaps: Histogram = field(default_factory=Histogram)
    steps: int = 0
    busy_ps: int = 0
    _read_to: int = 0

    def update(self) -> None:
        """Read the lines that are new and whole."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for written in whole.splitlines():
            self._take(json.loads(written))

    def _take(self, step: Mapping[str, Any]) -> None:
        self.steps += 1
        self.busy_ps += step["end_ps"] - step["start_ps"]
        for name in step["in"]:
            if name not in self.requests:
                self.requests[name] = ChipTime(step["start_ps"])
        for name in step["tokens"]:
            request = self.requests[name]
            if not request.tokens:
                request.first_token_ps = step["end_ps"]
                self.first_token.observe((step["end_ps"] - request.start_ps) / PICOSECONDS)
            else:
                self.gaps.observe((step["end_ps"] - request.last_token_ps) / PICOSECONDS)
            request.last_token_ps = step["end_ps"]
            request.tokens += 1
        while len(self.requests) > KEPT_REQUESTS:
            del self.requests[next(iter(self.requests))]

    def of(self, response: str) -> ChipTime | None:
        """The time of the request behind a response, whose name begins that of the engine's request. None for
        responses of several requests, and where nothing is known."""
        found = [name for name in self.requests if name == response or name.startswith(f"{response}-")]
        return self.requests[found[0]] if len(found) == 1 else None
