"""Chip time on its way from worker to response and metrics; what `tapeout serve` starts."""

import asyncio
import json
import os
import signal
import sys
import threading

import pytest

from tapeout.serving import launch, step_times
from tapeout.serving.step_times import StepTimes
from tapeout.serving.vllm import usage

MS = 10**9


@pytest.fixture
def times(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text(
        step_times.line(0, 4 * MS, ["cmpl-a-0-x", "cmpl-b-0-y"], ["cmpl-a-0-x"])
        + step_times.line(10 * MS, 12 * MS, ["cmpl-a-0-x", "cmpl-b-0-y"], ["cmpl-a-0-x", "cmpl-b-0-y"])
    )
    found = StepTimes(path)
    found.update()
    return found


def test_times_of_a_request_begin_with_its_first_step(times):
    assert times.of("cmpl-a").usage() == {
        "tokens": 2,
        "time_to_first_token_ms": 4.0,
        "total_ms": 12.0,
        "time_per_output_token_ms": 8.0,
    }
    assert times.of("cmpl-b").usage() == {"tokens": 1, "time_to_first_token_ms": 12.0, "total_ms": 12.0}
    assert times.of("cmpl") is None and times.of("cmpl-c") is None
    assert (times.steps, times.busy_ps) == (2, 6 * MS)


def test_a_line_that_is_not_whole_is_read_later(times):
    with times.path.open("a") as file:
        file.write('{"start_ps": 20')
        file.flush()
        times.update()
        assert times.steps == 2
        file.write(f', "end_ps": {30 * MS}, "in": [], "tokens": []}}\n')
    times.update()
    assert times.steps == 3


def test_requests_that_are_long_over_are_forgotten(times, monkeypatch):
    monkeypatch.setattr(step_times, "KEPT_REQUESTS", 1)
    with times.path.open("a") as file:
        file.write(step_times.line(0, 1, ["new"], []))
    times.update()
    assert list(times.requests) == ["new"]


def answered(times, kind, bodies):
    """What goes out of the middleware for a response in these pieces."""
    sent = []

    async def application(scope, receive, send):
        length = sum(map(len, bodies))
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", kind), (b"content-length", b"%d" % length)],
            }
        )
        for number, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies) - 1})

    async def send(message):
        sent.append(message)

    made = usage.ChipUsage.__new__(usage.ChipUsage)
    made.app, made.times = application, times
    asyncio.run(made({"type": "http", "path": "/v1/completions"}, None, send))
    return sent


def test_a_response_says_the_chips_time_in_its_usage(times):
    whole = json.dumps({"id": "cmpl-a", "choices": [], "usage": {"total_tokens": 7}}).encode()
    start, body = answered(times, b"application/json", [whole[:10], whole[10:]])
    told = json.loads(body["body"])
    assert told["usage"] == {"total_tokens": 7, "chip": dict(times.of("cmpl-a").usage())}
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])


def test_an_error_stays_as_it_is(times):
    error = b'{"error": {"message": "no such model"}}'
    assert answered(times, b"application/json", [error])[1]["body"] == error


def test_a_stream_says_it_where_it_says_usage(times):
    events = [
        b'data: {"id": "cmpl-a", "choices": [1], "usage": null}\n\n',
        b'data: {"id": "cmpl-a", "usa',
        b'ge": {"total_tokens": 7}}\n\ndata: [DONE]\n\n',
    ]
    text = b"".join(message.get("body", b"") for message in answered(times, b"text/event-stream", events))
    first, last, done = text.decode().strip().split("\n\n")
    assert first == events[0].decode().strip() and done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["usage"]["chip"]["total_ms"] == 12.0


def test_buckets_of_metrics_add_up(times):
    buckets = dict(usage.cumulated(times.first_token))
    assert (buckets["0.002"], buckets["0.005"], buckets["+Inf"]) == (0.0, 1.0, 2.0)
    assert times.first_token.total == pytest.approx(16e-3) and times.gaps.total == pytest.approx(8e-3)


def test_the_server_is_vllms_with_what_was_not_chosen():
    words = launch.command("folder", ["--port", "8001"], name="smollm2")
    assert words[:5] == [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "folder"]
    assert " ".join(words[5:]) == (
        "--port 8001 --served-model-name smollm2 --dtype float32 --kv-cache-memory-bytes 268435456 "
        "--middleware tapeout.serving.vllm.usage.ChipUsage"
    )
    chosen = launch.command("folder", ["--dtype=bfloat16", "--gpu_memory_utilization", "0.5"])
    assert "float32" not in chosen and "--kv-cache-memory-bytes" not in chosen


def test_the_servers_environment_names_the_chip_and_keeps_the_users_choices():
    made = launch.environment("inference", {"TAPEOUT_TIMING": "only", "TAPEOUT_VLLM": "0"})
    assert (made["TAPEOUT_CHIP"], made["TAPEOUT_VLLM"], made["TAPEOUT_TIMING"]) == ("inference", "1", "only")


def test_a_server_that_is_asked_to_end_ends_well_and_another_status_is_passed_on():
    assert launch.until_it_ends([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3
    waiting = [sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_DFL); time.sleep(60)"]
    asked = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    asked.start()
    assert launch.until_it_ends(waiting, os.environ) == 0
