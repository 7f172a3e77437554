"""Plans of training as a page: the best, how far from the perfect mix, what each kind adds, what none beats."""

from collections.abc import Sequence

from tapeout.planning import Planned, Ranked
from tapeout.report.page import Bar, Bars, Block, Dot, Heading, Page, Paragraph, Scatter, Table
from tapeout.report.times import duration, spread
from tapeout.report.units import Shown, figure_cell, significant
from tapeout.training.plan import Mesh, Pipeline, Plan

SHOWN = 5
MOST_PARETO = 12


def page(planned: Planned, tokens: float | None = None) -> Page:
    question, step, best = planned.question, planned.step, planned.best
    low, high = step.time.interval()
    cards = ", ".join(f"{each.count:,} {each.name}" for each in question.fleet.cards)
    proof = " No plan of one pipeline is faster: all were looked at." if planned.is_proven else ""
    blocks: list[Block] = [
        Paragraph(
            f"{question.model.name}, {question.batch:,} sequences of {question.sequence:,} tokens a step, on {cards}: "
            f"{duration(step.seconds)} ({spread(low, step.seconds, high)}), MFU {step.mfu.value:.1%}, bound by "
            f"{step.bound}."
        ),
        Paragraph(
            f"{planned.share_of_bound:.1%} of the perfect mix: were all cards busy all the time, a step would take "
            f"{duration(planned.bound_s)}. Searched {planned.seconds:.1f} s: {planned.templates:,} pipelines, "
            f"{planned.simulated:,} plans simulated pass by pass.{proof}"
        ),
        Table(
            ("", "step", "of the perfect mix", "memory", "USD a step", "plan"),
            [_row(place, each, planned.bound_s) for place, each in enumerate(planned.plans[:SHOWN], 1)],
            right=(1, 2, 3, 4),
            caption="memory: of the fullest card. Plan: replicas x (kind, stages x tensor-parallel cards, layers of "
            "stages), micro-batch",
        ),
    ]
    if tokens is not None:
        blocks.append(_run(best, tokens))
    blocks += [Heading("The best plan"), _stages(planned), _parts(planned)]
    if len(question.fleet.cards) > 1:
        blocks += [Heading("What each kind adds"), _additions(planned)]
    blocks += [Heading("Plans that no other beats"), *_pareto(planned)]
    return Page(f"Plan of training: {question.model.name}", blocks, kind="plan")


def _row(place: int, each: Ranked, bound_s: float) -> tuple[str, ...]:
    return (
        Shown(str(place), value=place),
        _time(each.seconds),
        _share(bound_s / each.seconds),
        _share(each.memory_share),
        _usd(each.usd_per_step),
        shown(each.plan),
    )


def shown(plan: Plan) -> str:
    """A plan in a line."""
    parts = [_pipeline(each) for each in plan.pipelines]
    chunks = f", {plan.virtual_stages} virtual stages" if plan.virtual_stages > 1 else ""
    return "; ".join(parts) + chunks


def _pipeline(pipeline: Pipeline) -> str:
    meshes = " > ".join(_mesh(mesh) for mesh in pipeline.meshes)
    return f"{pipeline.replicas} x ({meshes}), batch {pipeline.batch}, micro-batch {pipeline.micro_batch}"


def _mesh(mesh: Mesh) -> str:
    sizes = f"{mesh.stages}x{mesh.tp}"
    sizes += f" cp {mesh.cp}" if mesh.cp > 1 else ""
    sizes += f" ep {mesh.ep}" if mesh.ep > 1 else ""
    sizes += f", {mesh.recompute} recompute" if mesh.recompute != "none" else ""
    return f"{mesh.kind} {sizes}, {_layers(mesh.layers)} layers"


def _layers(layers: Sequence[int]) -> str:
    """(7, 7, 7, 6) -> "7*3 6"."""
    runs: list[list[int]] = []
    for count in layers:
        if runs and runs[-1][0] == count:
            runs[-1][1] += 1
        else:
            runs.append([count, 1])
    return " ".join(f"{count}*{times}" if times > 1 else str(count) for count, times in runs)


def _run(best: Ranked, tokens: float) -> Paragraph:
    steps = tokens / best.plan.tokens
    usd = f" and {significant(best.usd_per_step * steps / 1e6)} million USD" if best.usd_per_step is not None else ""
    days = significant(steps * best.seconds / 86400)
    return Paragraph(f"{tokens:.3g} tokens are {steps:,.0f} steps: {days} days{usd}, without stops.")


def _stages(planned: Planned) -> Table:
    rows = []
    for number, (pipeline, stages) in enumerate(zip(planned.best.plan.pipelines, planned.step.stages, strict=True), 1):
        first = 0
        for mesh in pipeline.meshes:
            mine = stages[first : first + mesh.stages]
            first += mesh.stages
            fullest = max(mine, key=lambda stage: stage.memory.value / stage.capacity_bytes)
            rows.append(
                (
                    str(number),
                    mesh.kind,
                    Shown(f"{mesh.stages * mesh.tp * mesh.cp * pipeline.replicas:,}", value=pipeline.cards[mesh.kind]),
                    Shown(str(mesh.stages), value=mesh.stages),
                    Shown(str(mesh.tp), value=mesh.tp),
                    _layers([stage.layers for stage in mine]),
                    mesh.recompute,
                    _time(max(stage.forward_s + stage.backward_s for stage in mine)),
                    figure_cell(fullest.memory.to("GiB")),
                    Shown(f"{1 - fullest.memory.value / fullest.capacity_bytes:.0%}"),
                )
            )
    return Table(
        ("pipeline", "kind", "cards", "stages", "tp", "layers", "recompute", "micro-batch", "memory", "headroom"),
        rows,
        right=(2, 3, 4, 7, 8, 9),
        caption="micro-batch: forwards and backwards in the slowest stage; memory and headroom of the fullest",
    )


def _parts(planned: Planned) -> Bars:
    time = planned.step.time
    return Bars(
        "parts of the step, of the stage that works longest",
        [Bar(part.name, part.value, f"{duration(part.value)}  {part.value / time.value:.0%}") for part in time.parts],
    )


def _additions(planned: Planned) -> Table:
    best = planned.best.seconds
    rows = []
    for kind, without in planned.without.items():
        used = planned.best.plan.cards.get(kind, 0)
        added = "" if without is None else _share(max(without / best - 1, 0.0))
        rows.append((kind, Shown(f"{used:,}", value=used), "none found" if without is None else _time(without), added))
    return Table(
        ("kind", "cards in use", "step without it", "adds"),
        rows,
        right=(1, 2, 3),
        caption="adds: tokens a second that the best plan has more than the best without the kind",
    )


def _pareto(planned: Planned) -> list[Block]:
    kept = planned.pareto[:MOST_PARETO]
    table = Table(
        ("step", "memory", "USD a step", "cards", "plan"),
        [
            (
                _time(each.seconds),
                _share(each.memory_share),
                _usd(each.usd_per_step),
                Shown(f"{sum(each.plan.cards.values()):,}", value=sum(each.plan.cards.values())),
                shown(each.plan),
            )
            for each in kept
        ],
        right=(0, 1, 2, 3),
        caption="of time, memory of the fullest card, and dollars: owner's cost of the cards in use",
    )
    names = [f"{place}: {', '.join(each.plan.cards)}" for place, each in enumerate(kept, 1)]
    named = list(zip(names, kept, strict=True))
    bars: list[Block] = [Bars("step time", [Bar(name, each.seconds, duration(each.seconds)) for name, each in named])]
    priced = [(name, each.usd_per_step) for name, each in named if each.usd_per_step is not None]
    if priced:
        bars.append(Bars("USD a step", [Bar(name, usd, significant(usd)) for name, usd in priced]))
        bars.append(_picture(planned))
    return [table, *bars]


def _picture(planned: Planned) -> Scatter:
    """Plans by time and dollars, the share of memory as the area; those that no other beats are joined."""
    front = {id(each) for each in planned.pareto}
    others = [each for each in planned.plans if id(each) not in front]
    dots = [
        Dot(
            f"{shown(each.plan)}, memory {each.memory_share:.0%}",
            each.seconds,
            each.usd_per_step,
            each.memory_share / 4,
        )
        for each in (*planned.pareto, *others)
        if each.usd_per_step is not None
    ]
    best: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda each: (each.x, each.y)):
        if not best or dot.y < best[-1][1]:
            best.append((dot.x, dot.y))
    return Scatter(
        "time, dollars, and memory as the area",
        "seconds a step",
        "USD a step",
        dots,
        lines=[("least dollars", best)],
        linear=True,
        only_drawn=True,
    )


def _time(seconds: float) -> Shown:
    return Shown(duration(seconds), value=seconds, unit="s")


def _share(share: float) -> Shown:
    return Shown(f"{share:.0%}", value=share)


def _usd(value: float | None) -> str:
    return "not known" if value is None else significant(value)
