"""Traces of requests: when each arrives, how long its prompt is and how many tokens it is answered with.

Read from CSV or JSONL, from the trace that ships, or drawn from a Poisson process. A trace begins at time 0.
"""

import csv
import datetime
import gzip
import io
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapeout.errors import TapeoutError

AZURE_CONVERSATIONS = "azure-conv"
"""Conversations at Azure, 16 November 2023: 19,366 requests in 3,502 s. From "Splitwise: Efficient generative LLM
inference using phase splitting" (Patel et al., ISCA 2024), github.com/Azure/AzurePublicDataset, CC-BY 4.0; kept here
as milliseconds and token counts."""
DATA = Path(__file__).parent / "data" / "azure-conv.csv.gz"
HASHED_TOKENS = 512
"""Tokens of one `hash_ids` entry of a timed trace: requests with equal first entries begin with the same tokens."""


class TraceError(TapeoutError, ValueError):
    """A trace that cannot be read; the message names file and line."""


@dataclass(frozen=True)
class Arrival:
    """One request. `prefix`: marks of its prompt's first blocks of `HASHED_TOKENS`, equal where the text is."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    prefix: tuple[int, ...] = ()


Trace = tuple[Arrival, ...]

_TIMES: Mapping[str, float] = {
    "arrival_s": 1.0,
    "arrived_at": 1.0,
    "arrival_time_s": 1.0,
    "arrival_time_ns": 1e-9,
    "arrival_ms": 1e-3,
    "timestamp": 1.0,
    "time_s": 1.0,
}
_PROMPTS = ("prompt_tokens", "input_length", "num_prefill_tokens", "contexttokens", "request tokens", "input_toks")
_OUTPUTS = ("output_tokens", "output_length", "num_decode_tokens", "generatedtokens", "response tokens", "output_toks")


def called(name: str, *, count: int | None = None, lengths: str = "", seed: int = 0) -> Trace:
    """The trace that `name` names: `azure-conv`, a file, or `poisson:RATE` in requests a second.

    count: only the first so many requests; needed for poisson (200 if not given).
    lengths: "PROMPT:OUTPUT" tokens of each request, in place of the trace's own.
    Raises TraceError.
    """
    if name.startswith("poisson:"):
        made = poisson(_rate(name), count or 200, seed)
    elif name == AZURE_CONVERSATIONS:
        made = azure_conversations()
    else:
        made = read(Path(name))
    made = made[:count] if count else made
    if lengths:
        prompt, output = _lengths(lengths)
        made = tuple(replace(each, prompt_tokens=prompt, output_tokens=output, prefix=()) for each in made)
    return made


def azure_conversations() -> Trace:
    """The trace that ships, as it was recorded."""
    rows = csv.reader(io.StringIO(gzip.decompress(DATA.read_bytes()).decode()))
    return tuple(Arrival(int(time_ms) / 1000, int(prompt), int(output)) for time_ms, prompt, output in rows)


def poisson(rate_per_s: float, count: int, seed: int = 0) -> Trace:
    """Independent arrivals at a mean rate; lengths are drawn from the conversations that ship."""
    drawn = random.Random(seed)
    lengths = azure_conversations()
    time_s, made = 0.0, []
    for _ in range(count):
        like = drawn.choice(lengths)
        made.append(Arrival(time_s, like.prompt_tokens, like.output_tokens))
        time_s += drawn.expovariate(rate_per_s)
    return tuple(made)


def rate_of(trace: Trace) -> float:
    """Mean requests a second between the first arrival and the last."""
    span = trace[-1].time_s - trace[0].time_s
    return (len(trace) - 1) / span if span > 0 else float("inf")


def at_rate(trace: Trace, rate_per_s: float) -> Trace:
    """The same requests in the same order, all gaps stretched alike, so that they arrive at this mean rate."""
    if len(trace) < 2 or trace[-1].time_s == trace[0].time_s:
        return tuple(replace(each, time_s=number / rate_per_s) for number, each in enumerate(trace))
    stretch = rate_of(trace) / rate_per_s
    return tuple(replace(each, time_s=each.time_s * stretch) for each in trace)


def read(path: Path) -> Trace:
    """A CSV file with a heading, or a JSONL file. Columns go by the names other tools use:

    time: arrival_s, arrived_at, timestamp (seconds or a date and time; milliseconds in JSONL, as timed traces have
    them), arrival_time_ns; prompt: prompt_tokens, input_length, num_prefill_tokens, ContextTokens; answer:
    output_tokens, output_length, num_decode_tokens, GeneratedTokens; hash_ids (JSONL).
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TraceError(
            f"cannot read the trace {str(path)!r}: {error.strerror}. A trace is a CSV or JSONL file, "
            f"{AZURE_CONVERSATIONS!r} or 'poisson:RATE'"
        ) from None
    is_json = path.suffix in (".jsonl", ".json") or text.lstrip().startswith("{")
    rows = list(_json_rows(path, text) if is_json else _csv_rows(text))
    if not rows:
        raise TraceError(f"{path}: no request in the trace")
    found = [_arrival(f"{path}:{line}", row, is_json) for line, row in rows]
    found.sort(key=lambda each: each.time_s)
    first = found[0].time_s
    return tuple(replace(each, time_s=each.time_s - first) for each in found)


def _csv_rows(text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for line, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        yield line, {str(name).strip().casefold(): value for name, value in row.items() if name is not None}


def _json_rows(path: Path, text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for line, written in enumerate(text.splitlines(), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except json.JSONDecodeError as error:
            raise TraceError(f"{path}:{line}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise TraceError(f"{path}:{line}: a request is an object, not {type(row).__name__}")
        yield line, {str(name).casefold(): value for name, value in row.items()}


def _arrival(place: str, row: Mapping[str, Any], is_json: bool) -> Arrival:
    name = _named(place, row, _TIMES, "arrival time")
    scale = 1e-3 if is_json and name == "timestamp" else _TIMES[name]
    prefix = row.get("hash_ids") or ()
    if not (isinstance(prefix, list | tuple) and all(isinstance(mark, int) for mark in prefix)):
        raise TraceError(f"{place}: hash_ids is a list of whole numbers, not {prefix!r}")
    return Arrival(
        _time(place, name, row[name]) * scale,
        _count(place, _named(place, row, _PROMPTS, "prompt's length"), row),
        _count(place, _named(place, row, _OUTPUTS, "answer's length"), row),
        tuple(prefix),
    )


def _named(place: str, row: Mapping[str, Any], names: Iterable[str], what: str) -> str:
    for name in names:
        if row.get(name) not in (None, ""):
            return name
    raise TraceError(f"{place}: no {what}; known columns: {', '.join(names)}")


def _time(place: str, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        # Seven digits of a second, as Azure writes them, are one too many for fromisoformat.
        whole, _, fraction = str(value).partition(".")
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        raise TraceError(f"{place}: {name}={value!r} is neither a number nor a date and time") from None


def _count(place: str, name: str, row: Mapping[str, Any]) -> int:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = -1.0
    if value < 1 or value != int(value):
        raise TraceError(f"{place}: {name}={row[name]!r} is not a number of tokens; the least is 1")
    return int(value)


def _rate(name: str) -> float:
    return _positive(name, name.partition(":")[2], float, "requests a second, as in 'poisson:4'")


def _lengths(text: str) -> tuple[int, int]:
    prompt, _, output = text.partition(":")
    what = "tokens of a prompt and its answer, as in '512:128'"
    return int(_positive(text, prompt, int, what)), int(_positive(text, output, int, what))


def _positive(whole: str, text: str, kind: Callable[[str], float], what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise TraceError(f"{whole!r} is not {what}")
    return value
