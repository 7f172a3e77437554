"""The chip's time in a live server's answers: `usage.chip` of each response, and metrics `tapeout:*`.

vLLM's own metrics are wall time, which here is the simulator's; these are the chip's alone. An ASGI middleware, given
to `vllm serve` by its option of that name.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from tapeout.serving.step_times import BUCKETS, PICOSECONDS, VARIABLE, Histogram, StepTimes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
PATHS = ("/v1/completions", "/v1/chat/completions")


class ChipUsage:
    def __init__(self, app: Application):
        self.app = app
        self.times = StepTimes(Path(os.environ[VARIABLE]))
        _offer_metrics(self.times)

    async def __call__(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self.app(scope, receive, send)
            return
        answer = _Answer(self.times, send)
        await self.app(scope, receive, answer.send)


class _Answer:
    """A response on its way: JSON is held until it is whole, an event of a stream until its line is."""

    def __init__(self, times: StepTimes, send: Send):
        self.times, self.onward = times, send
        self.start: Message = {}
        self.is_stream = False
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self.is_stream = kind.startswith(b"text/event-stream")
            self.start = message
            if self.is_stream:
                await self.onward(message)
            return
        if message["type"] != "http.response.body":
            await self.onward(message)
            return
        self.body += message.get("body", b"")
        is_last = not message.get("more_body", False)
        if self.is_stream:
            cut = len(self.body) if is_last else self.body.rfind(b"\n") + 1
            lines, self.body = self.body[:cut], self.body[cut:]
            told = b"".join(self._event(line) for line in lines.splitlines(keepends=True))
            await self.onward({"type": "http.response.body", "body": told, "more_body": not is_last})
        elif is_last:
            body = self._told(self.body)
            headers = [(name, value) for name, value in self.start["headers"] if name != b"content-length"]
            await self.onward({**self.start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
            await self.onward({"type": "http.response.body", "body": body, "more_body": False})

    def _event(self, line: bytes) -> bytes:
        start = b"data: "
        if not line.startswith(start + b"{"):
            return line
        return start + self._told(line[len(start) :].rstrip(b"\n")) + b"\n"

    def _told(self, body: bytes) -> bytes:
        """The response with the chip's time, where it has a `usage`; else as it is."""
        try:
            response = json.loads(body)
        except ValueError:
            return body
        if not isinstance(response, dict) or not isinstance(response.get("usage"), dict) or "id" not in response:
            return body
        self.times.update()
        found = self.times.of(response["id"])
        if found is None:
            return body
        response["usage"]["chip"] = found.usage()
        return json.dumps(response, ensure_ascii=False).encode()


def _offer_metrics(times: StepTimes) -> None:
    from prometheus_client import REGISTRY

    REGISTRY.register(ChipMetrics(times))


class ChipMetrics:
    """A collector of prometheus_client."""

    def __init__(self, times: StepTimes):
        self.times = times

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        self.times.update()
        for name, meaning, histogram in (
            ("first_token", "Chip time from a request's first step to its first token.", self.times.first_token),
            ("inter_token", "Chip time between two tokens of a request.", self.times.gaps),
        ):
            family = HistogramMetricFamily(f"tapeout:{name}_seconds", meaning)
            family.add_metric([], buckets=cumulated(histogram), sum_value=histogram.total)
            yield family
        yield CounterMetricFamily("tapeout:steps", "Steps of the engine.", value=self.times.steps)
        busy = self.times.busy_ps / PICOSECONDS
        yield CounterMetricFamily("tapeout:busy_seconds", "Chip time of all steps.", value=busy)


def cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus's buckets: how many values are no larger than each limit."""
    count, found = 0, []
    for limit, here in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
        count += here
        found.append((limit, float(count)))
    return found
