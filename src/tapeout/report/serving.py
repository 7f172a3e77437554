"""A trace served on kinds of chips, as a page; every request's times, as JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapeout.errors import TapeoutError
from tapeout.report.page import SCHEMA_VERSION, Bar, Bars, Block, Heading, Page, Paragraph
from tapeout.report.page import Table as PageTable
from tapeout.report.times import duration
from tapeout.report.units import Shown, significant
from tapeout.serving.objectives import PERCENTILES, Figures, RequestTimes
from tapeout.serving.simulation import Answer
from tapeout.serving.traces import Trace, rate_of

NOT_KNOWN = "not known"
Answers = Sequence[tuple[str, Answer | TapeoutError]]


def page(model: str, trace: Trace, answers: Answers) -> Page:
    """Chips side by side, then each by itself. `answers` by the chip's name."""
    known = [(name, answer) for name, answer in answers if isinstance(answer, Answer)]
    prompt, output = sum(each.prompt_tokens for each in trace), sum(each.output_tokens for each in trace)
    rate = rate_of(trace)
    arriving = f"{significant(rate)} a second" if rate != float("inf") else "all at once"
    blocks: list[Block] = [
        Paragraph(
            f"{len(trace):,} requests, {arriving}: {prompt:,} tokens of prompts, {output:,} of answers. vLLM's own "
            "scheduler; steps take what the operator models say. Every time is at least: see what is untimed."
        ),
        PageTable(
            ("chip", "chips", *(f"{name.upper()} p{p}" for name in ("ttft", "tpot") for p in PERCENTILES), "ITL p99"),
            [(name, str(answer.server.chip_count), *_percentiles(answer)) for name, answer in known],
            right=tuple(range(1, 9)),
        ),
        PageTable(
            ("chip", "tokens/s a chip", "tokens/s a user", "batch p50", "cache peak", "preempted", "busy", "J", "USD"),
            [(name, *_load_cells(answer)) for name, answer in known],
            right=tuple(range(1, 9)),
            caption="J and USD: for a million output tokens, at this rate; joules of busy time. TPOT: (last - first "
            "token) / (tokens - 1).",
        ),
    ]
    if any(answer.objective for _, answer in known):
        blocks.append(_objective_table(known))
        bars = [
            Bar(name, answer.best.rate_per_s / answer.server.chip_count, f"{_rate(answer.best.rate_per_s)}")
            for name, answer in known
            if answer.best is not None
        ]
        blocks.append(Bars("highest rate that holds the objective, by chip (requests/s of the server beside it)", bars))
    for name, answer in answers:
        blocks += _chip_blocks(name, answer)
    return Page(f"{model} served on {', '.join(name for name, _ in answers)}", blocks, kind="serving")


def _percentiles(answer: Answer) -> list[str]:
    cells = [_at(answer.figures[name], p) for name in ("ttft", "tpot") for p in PERCENTILES]
    return [*cells, _at(answer.figures["itl"], 99)]


def _at(figures: Figures | None, percentile: int) -> str:
    return "none" if figures is None else _time(figures.at_s[percentile])


def _time(seconds: float) -> Shown:
    return Shown(duration(seconds), value=seconds, unit="s")


def _rate(per_s: float) -> Shown:
    return Shown(f"{significant(per_s)}/s", value=per_s, unit="1/s")


def _load_cells(answer: Answer) -> list[str]:
    served = answer.served
    batches = sorted(each.sequences for each in served.steps)
    per_user = answer.tokens_per_s_per_user
    return [
        significant(answer.tokens_per_s_per_chip),
        significant(per_user) if per_user is not None else "none",
        str(batches[len(batches) // 2]),
        f"{max(each.cache_share for each in served.steps):.1%}",
        f"{served.preemptions:,}",
        f"{served.busy_s / served.span_s:.0%}",
        significant(answer.joules) if answer.joules is not None else NOT_KNOWN,
        significant(answer.dollars) if answer.dollars is not None else NOT_KNOWN,
    ]


def _objective_table(known: Sequence[tuple[str, Answer]]) -> PageTable:
    rows = []
    for name, answer in known:
        if answer.objective is None or answer.best is None:
            continue
        at_best = answer.at_best
        rows.append(
            (
                name,
                f"{answer.share_held:.1%}",
                _rate(answer.goodput_per_s or 0.0),
                _rate(answer.best.rate_per_s) if answer.best.rate_per_s else "none that was tried",
                significant(at_best.output_tokens / at_best.span_s / answer.server.chip_count) if at_best else "",
                significant(answer.dollars_at_best) if answer.dollars_at_best is not None else NOT_KNOWN,
            )
        )
    objective = next(answer.objective for _, answer in known if answer.objective)
    return PageTable(
        ("chip", "requests that hold it", "goodput", "highest rate", "tokens/s a chip there", "USD there"),
        rows,
        right=(1, 2, 3, 4, 5),
        caption=f"Objective: {objective}. Highest rate: bisected to 3 %, the same requests closer together; goodput at "
        "the trace's own rate.",
    )


def _chip_blocks(name: str, answer: Answer | TapeoutError) -> list[Block]:
    if isinstance(answer, TapeoutError):
        return [Heading(name), Paragraph(str(answer))]
    served = answer.served
    total = sum(served.busy_ps.values()) or 1
    bounds = sorted(served.busy_ps.items(), key=lambda item: -item[1])
    batches = Counter(_octave(each.sequences) for each in served.steps)
    most = [Bar(_octave_name(size), batches[size], f"{batches[size]:,} steps") for size in sorted(batches)]
    lengths = Counter(_octave(each.duration_ps // 1_000_000) for each in served.steps)
    durations = [Bar(f"{_octave_name(size)} µs", lengths[size], f"{lengths[size]:,} steps") for size in sorted(lengths)]
    waits = sorted(each.ttft_s for each in served.requests)
    curve = [
        Bar(f"{share}% of requests", waits[min(len(waits) * share // 100, len(waits) - 1)], _time(at))
        for share in (10, 25, 50, 75, 90, 95, 99)
        for at in [waits[min(len(waits) * share // 100, len(waits) - 1)]]
    ]
    return [
        Heading(name),
        Paragraph(
            f"{len(served.steps):,} steps in {duration(served.span_s)}; cache for {answer.cache_tokens:,} tokens; "
            f"{answer.provenance}."
        ),
        PageTable(
            ("time by bound", "time", "share"),
            [(bound, _time(ps / 1e12), f"{ps / total:.1%}") for bound, ps in bounds],
            right=(1, 2),
        ),
        Bars("first token within", curve),
        Bars("sequences in a step", most),
        Bars("length of a step", durations),
        Paragraph(f"Untimed, so that every time is at least: {'; '.join(answer.untimed)}."),
        *(Paragraph(note) for note in answer.notes),
    ]


def _octave(value: int) -> int:
    return value.bit_length()


def _octave_name(octave: int) -> str:
    first, last = (1 << octave) >> 1, (1 << octave) - 1
    return f"{first:,}" if last <= first else f"{first:,} to {last:,}"


def requests_json(model: str, trace: Trace, answers: Answers) -> str:
    """Every request of every chip, with the time of each of its tokens in seconds, and every step."""
    chips = {name: _chip_data(answer) for name, answer in answers}
    data = {
        "schema": f"tapeout.served-requests/{SCHEMA_VERSION}",
        "model": model,
        "requests": len(trace),
        "chips": chips,
    }
    return json.dumps(data, indent=1) + "\n"


def _chip_data(answer: Answer | TapeoutError) -> Mapping[str, Any]:
    if isinstance(answer, TapeoutError):
        return {"error": str(answer)}
    return {
        "requests": [_request_data(each) for each in answer.served.requests],
        "steps": [
            {
                "start_ps": each.start_ps,
                "duration_ps": each.duration_ps,
                "tokens": each.tokens,
                "sequences": each.sequences,
                "cache_share": each.cache_share,
            }
            for each in answer.served.steps
        ],
        "highest_rate_per_s": answer.best.rate_per_s if answer.best else None,
        "busy_ps": dict(answer.served.busy_ps),
        "untimed": list(answer.untimed),
        "provenance": answer.provenance,
    }


def _request_data(request: RequestTimes) -> Mapping[str, Any]:
    return {
        "arrival_s": request.arrival_s,
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "preemptions": request.preemptions,
        "ttft_s": request.ttft_s,
        "tpot_s": request.tpot_s,
        "e2e_s": request.e2e_s,
        "token_times_s": list(request.token_times_s),
    }


def write_requests(path: Path, model: str, trace: Trace, answers: Answers) -> None:
    path.write_text(requests_json(model, trace, answers), "utf-8")
