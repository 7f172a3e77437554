"""Times of operators and of a model's step, as pages."""

from collections.abc import Sequence

from tapeout.models.step import Step, StepAnswer
from tapeout.models.tables import ModelError, Table
from tapeout.models.timers import Timer, Times
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph
from tapeout.report.page import Table as PageTable
from tapeout.report.units import significant

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    """1.42e-3 -> "1.42 ms"."""
    scale, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{significant(seconds / scale)} {unit}"


def spread(low: float, value: float, high: float) -> str:
    """The range in the unit of the value."""
    scale, _ = next((each for each in _UNITS if value >= each[0]), _UNITS[-1])
    return f"{significant(low / scale)} to {significant(high / scale)}"


def operator_page(table: Table, answers: Sequence[tuple[Timer, Times | ModelError]]) -> Page:
    """One operator on each chip."""
    shape = ", ".join(f"{name}={table[name][0]:g}" for name in table.kind.fields)
    rows, bars = [], []
    blocks: list[Block] = []
    for timer, answer in answers:
        if isinstance(answer, ModelError):
            rows.append((timer.chip.name, "", "", "", "not known"))
            blocks.append(Paragraph(f"{timer.chip.name}: {answer}"))
            continue
        value = float(answer.seconds[0])
        low, high = float(answer.low[0]), float(answer.high[0])
        rows.append(
            (
                timer.chip.name,
                duration(value),
                spread(low, value, high),
                f"{answer.bound[0]}-bound",
                str(answer.provenance[0]),
            )
        )
        bars.append(Bar(timer.chip.name, value, duration(value)))
        blocks.append(Paragraph(f"{timer.chip.name}: {answer.provenance[0]}; {answer.basis}."))
    head: list[Block] = [
        Paragraph(f"{table.kind.meaning[0].upper()}{table.kind.meaning[1:]}: {shape}, {table.dtype}."),
        PageTable(("chip", "time", "range (80 %)", "bound", "provenance"), rows, right=(1, 2)),
    ]
    if len(bars) > 1:
        head.append(Bars("time", bars))
    return Page(f"Time of {table.kind.name}", [*head, Heading("Where it comes from"), *blocks], kind="time")


def step_page(step: Step, answers: Sequence[tuple[Timer, StepAnswer | ModelError]]) -> Page:
    """A model's step on each chip, and what it is made of."""
    rows = []
    blocks: list[Block] = []
    for timer, answer in answers:
        if isinstance(answer, ModelError):
            rows.append((timer.chip.name, "not known", "", "", "", "", ""))
            blocks.append(Paragraph(f"{timer.chip.name}: {answer}"))
            continue
        energy = f"{significant(answer.joules_per_token)}" if answer.joules_per_token is not None else "not known"
        dollars = (
            f"{significant(answer.usd_per_million_tokens)}"
            if answer.usd_per_million_tokens is not None
            else "not known"
        )
        rows.append(
            (
                timer.chip.name,
                duration(answer.seconds),
                spread(answer.low, answer.seconds, answer.high),
                significant(answer.tokens_per_s),
                energy,
                dollars,
                answer.provenance,
            )
        )
        total = sum(part.seconds for part in answer.parts)
        blocks += [
            Heading(timer.chip.name),
            PageTable(
                ("part", "time", "share", "bound"),
                [
                    (part.name, duration(part.seconds), f"{part.seconds / total:.0%}", part.bound)
                    for part in sorted(answer.parts, key=lambda each: -each.seconds)
                ],
                right=(1, 2),
            ),
            *(Paragraph(note) for note in answer.notes),
        ]
    what = "prefill" if step.is_prefill else "decode"
    head: list[Block] = [
        Paragraph(
            f"One {what} step of {step.model.name}: {step.batch:,} sequences of {step.context:,} tokens, weights "
            f"{step.weight_dtype}, cache {step.cache_dtype}, {step.tp} chips a layer. A sum of operators in one graph: "
            "nothing is fitted to whole steps, and a server's queue is not in it."
        ),
        PageTable(
            ("chip", "step", "range", "tokens/s", "J a token", "USD a million tokens", "provenance"),
            rows,
            right=(1, 2, 3, 4, 5),
        ),
    ]
    return Page(f"{step.model.name}, {what}", [*head, *blocks], kind="time")
