"""A training step and run on one or several clusters, and goodput, as pages."""

from collections.abc import Sequence

from tapeout.figures import Estimate
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table
from tapeout.report.pictures import Lanes, Span, Stack, Stacks
from tapeout.report.times import duration, spread
from tapeout.report.units import Shown, figure_cell, significant
from tapeout.training.campaign import Campaign
from tapeout.training.goodput import Published, Reliability, Simulated, closed_form, components
from tapeout.training.network import Fabric, Traffic
from tapeout.training.prediction import Stage, Step
from tapeout.training.shapes import parameter_count

TIMELINE_WIDTH = 96
_LETTERS = "FBWB"
Answer = tuple[Step, Campaign]


def cluster_page(answers: Sequence[Answer], *, with_timelines: bool = False) -> Page:
    """Steps side by side, then each one's parts and memory, and its pipelines pass by pass."""
    first = answers[0][0]
    rows = []
    for step, run in answers:
        low, high = step.time.interval()
        memory = max((stage for stages in step.stages for stage in stages), key=lambda each: each.memory.value)
        rows.append(
            (
                _cards(step),
                Shown(duration(step.seconds), value=step.seconds, unit="s", low=low, high=high),
                spread(low, step.seconds, high),
                _share(step.mfu),
                _share(step.mac_share),
                _gib(memory.memory.value) + ("" if step.fits else " (too much)"),
                step.bound,
                _share(run.goodput),
                figure_cell(run.days),
                figure_cell(run.energy) if run.energy is not None else "not known",
                _dollars(run.cost),
            )
        )
    plan = first.plan
    blocks: list[Block] = [
        Paragraph(
            f"{first.model.name}: {parameter_count(first.model) / 1e9:,.1f} billion parameters, "
            f"{plan.batch:,} sequences of {plan.sequence:,} tokens a step, {plan.dtype}, {_plan(first)}."
        ),
        Table(
            ("cards", "step", "range", "MFU", "MACs at work", "memory", "bound", "goodput", "time", "energy", "cost"),
            rows,
            right=(1, 2, 3, 4, 7, 8, 9, 10),
            caption=f"Time, energy and cost of {answers[0][1].tokens:,.3g} tokens, failures included. MFU counts "
            "useful operations; MACs at work those that are done again too. Ranges hold 90 %.",
        ),
    ]
    if len(answers) > 1:
        blocks.append(_parts_of(answers))
    for step, run in answers:
        blocks += _details(step, run)
        if with_timelines:
            blocks += [timeline(step, pipeline) for pipeline in range(len(step.timelines))]
    return Page(f"Training {first.model.name}", blocks, kind="cluster")


def _parts_of(answers: Sequence[Answer]) -> Stacks:
    """The parts of each cluster's step beside each other's."""
    names = list(dict.fromkeys(part.name for step, _ in answers for part in step.time.parts))
    stacks = []
    for step, _ in answers:
        found = {part.name: part.value for part in step.time.parts}
        stacks.append(Stack(_cards(step), [found.get(name, 0.0) for name in names], duration(step.seconds)))
    return Stacks("parts of a step", names, stacks)


def timeline(step: Step, pipeline: int = 0) -> Lanes:
    """A pipeline's passes on the lanes of its stages."""
    found = step.timelines[pipeline]
    of = found.order
    names = ("forward", "backward", "weights", "backward and weights")
    used = sorted({int(each) for each in of.rows[:, 0]})
    spans = [
        Span(
            lane=device,
            start=float(found.start[row]),
            end=float(found.end[row]),
            kind=used.index(int(of.rows[row, 0])),
            label=f"{names[of.rows[row, 0]]} of micro-batch {of.rows[row, 2]}, chunk {of.rows[row, 1]}",
        )
        for row, device in enumerate(of.devices.tolist())
    ]
    lanes = [f"{stage.number} {stage.kind}" for stage in step.stages[pipeline]]
    return Lanes(f"pipeline {pipeline}, a step", "seconds", lanes, [names[each] for each in used], spans)


def _details(step: Step, run: Campaign) -> list[Block]:
    parts = sorted(step.time.parts, key=lambda part: -part.value)
    blocks: list[Block] = [Heading(_cards(step))]
    rows = []
    for part in parts:
        low, high = part.interval()
        cell = Shown(duration(part.value), value=part.value, unit="s", low=low, high=high)
        rows.append((part.name, cell, f"{part.value / step.seconds:.1%}", spread(low, part.value, high)))
    blocks.append(Table(("part", "time", "share", "range"), rows, right=(1, 2, 3)))
    blocks.append(
        Bars("step time", [Bar(part.name, part.value, duration(part.value)) for part in parts if part.value > 0])
    )
    for number, stages in enumerate(step.stages):
        name = f"pipeline {number}" if len(step.stages) > 1 else "stages"
        blocks.append(
            Table(
                (name, "card", "layers", "tp", "forward", "backward", "busy", "in flight", "memory", "of"),
                [_stage_row(each) for each in _shortened(stages)],
                right=(0, 2, 3, 4, 5, 6, 7, 8, 9),
            )
        )
    if not step.fits:
        blocks.append(
            Paragraph(
                "Does not fit: a stage needs more memory than its card has. More tp, pp or zero, a smaller micro-batch "
                "or recomputation would do."
            )
        )
    used = dict.fromkeys(step.fleet[kind].software.name for kind in step.plan.cards)
    blocks.append(
        Paragraph(
            f"Software: {', '.join(used)}. Provenance: {step.time.provenance}. What moves the step most: "
            + "; ".join(f"{each.varied.name}" for each in step.time.sensitivities()[:3])
            + "."
        )
    )
    blocks += [Paragraph(f"No cost: {reason}.") for reason in run.unknown]
    return blocks


def _shortened(stages: Sequence[Stage]) -> list[Stage]:
    """Stages, of a run of alike ones the first and the last."""
    kept = []
    for place, stage in enumerate(stages):
        beside = [stages[each] for each in (place - 1, place + 1) if 0 <= each < len(stages)]
        is_alike = all((each.kind, each.layers, each.tp) == (stage.kind, stage.layers, stage.tp) for each in beside)
        if len(stages) <= 8 or not is_alike or len(beside) < 2:
            kept.append(stage)
    return kept


def _stage_row(stage: Stage) -> tuple[str, ...]:
    return (
        str(stage.number),
        stage.kind,
        str(stage.layers),
        str(stage.tp),
        Shown(duration(stage.forward_s), value=stage.forward_s, unit="s"),
        Shown(duration(stage.backward_s), value=stage.backward_s, unit="s"),
        Shown(duration(stage.busy_s), value=stage.busy_s, unit="s"),
        str(stage.in_flight),
        _gib(stage.memory.value),
        _gib(stage.capacity_bytes),
    )


def timeline_text(step: Step, pipeline: int = 0) -> str:
    """The pipeline as letters: F forward, B backward, W gradients of weights, a dot where a device waits."""
    timeline = step.timelines[pipeline]
    of = timeline.order
    scale = TIMELINE_WIDTH / timeline.makespan
    lines = []
    for device in range(len(of.starts) - 1):
        cells = ["."] * TIMELINE_WIDTH
        for row in range(int(of.starts[device]), int(of.starts[device + 1])):
            begin = int(timeline.start[row] * scale)
            end = max(int(timeline.end[row] * scale), begin + 1)
            cells[begin:end] = _LETTERS[of.rows[row, 0]] * (min(end, TIMELINE_WIDTH) - begin)
        lines.append(f"{device:3d} {''.join(cells)}")
    return "\n".join(lines)


def timeline_events(step: Step) -> list[dict[str, object]]:
    """The pipelines as events that Perfetto opens: a process for each, a track for each device."""
    names = ("forward", "backward", "weights", "backward")
    events: list[dict[str, object]] = []
    for process, timeline in enumerate(step.timelines):
        of = timeline.order
        stages = step.stages[process]
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"pipeline {process}"}})
        for stage in stages:
            label = {"name": f"stage {stage.number}, {stage.kind}"}
            events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": stage.number, "args": label})
        for row, device in enumerate(of.devices.tolist()):
            kind, chunk, micro = (int(each) for each in of.rows[row])
            events.append(
                {
                    "ph": "X",
                    "name": f"{names[kind]} {micro}",
                    "cat": names[kind],
                    "pid": process,
                    "tid": device,
                    "ts": timeline.start[row] * 1e6,
                    "dur": (timeline.end[row] - timeline.start[row]) * 1e6,
                    "args": {"chunk": chunk, "micro-batch": micro},
                }
            )
    return events


def goodput_page(of: Reliability, found: Simulated, known: Sequence[Published], days: float) -> Page:
    """Goodput of a cluster, what is lost, and published systems beside the same formulas."""
    closed = closed_form(of)
    low, high = closed.interval()
    per_day = of.failures_per_s.value * 86400
    blocks: list[Block] = [
        Paragraph(
            f"{of.cards:,} cards, {per_day:.2f} unplanned stops a day (one every {24 / per_day:.1f} h), "
            f"{duration(of.restart_s)} to be back, a checkpoint every {duration(of.interval_s)} that holds training up "
            f"for {duration(of.stall_s)}."
            if per_day
            else f"{of.cards:,} cards that never fail."
        ),
        Table(
            ("goodput", "value", "range"),
            [
                ("closed form", _share(closed), f"{low:.1%} to {high:.1%}"),
                (
                    f"drawn runs of {days:g} days",
                    Shown(f"{found.mean:.1%}", value=found.mean, low=found.low, high=found.high),
                    f"{found.low:.1%} to {found.high:.1%}",
                ),
            ],
            right=(1, 2),
        ),
        Bars("share of the time lost", [Bar(name, value, f"{value:.2%}") for name, value in found.lost.items()]),
        Heading("What stops a run"),
        Table(
            ("component", "share"),
            [(name, f"{share:.0%}") for name, share in sorted(components().items(), key=lambda item: -item[1])],
            right=(1,),
            caption=of.failures_per_card_hour.source,
        ),
        Heading("Published systems"),
        Table(
            ("system", "cards", "reported", "closed form", "drawn runs", "inputs"),
            [
                (
                    each.name,
                    f"{each.cards:,}",
                    ("over " if each.is_bound else "") + f"{each.reported:.0%}",
                    f"{each.closed:.1%}",
                    f"{each.simulated.mean:.1%}",
                    each.source,
                )
                for each in known
            ],
            right=(1, 2, 3, 4),
        ),
    ]
    return Page("Goodput", blocks, kind="goodput")


def traffic_page(fabric: Fabric, quiet: Traffic, found: Traffic) -> Page:
    """A pattern on a fabric beside the same on neighbours without oversubscription."""
    rows = [
        (
            name,
            Shown(duration(each.seconds), value=each.seconds, unit="s"),
            Shown(f"{each.seconds / quiet.seconds:.2f}", value=each.seconds / quiet.seconds),
            each.busiest,
            f"{each.flows:,}",
        )
        for name, each in (("neighbours, nothing oversubscribed", quiet), ("as asked", found))
    ]
    blocks: list[Block] = [
        Paragraph(
            f"{fabric.nodes:,} nodes of {fabric.node_cards} cards, {fabric.leaves} leaves a rail, "
            f"{fabric.spines} spines, oversubscription {fabric.oversubscription:g}, "
            f"{len(fabric.failed_uplinks)} failed uplinks. Flows share links max-min fairly; a hash of its nodes "
            "names a flow's spine. No packets, queues or latencies."
        ),
        Table(("placement", "time", "times longer", "busiest links", "flows"), rows, right=(1, 2, 4)),
    ]
    return Page("Traffic", blocks, kind="traffic")


def _cards(step: Step) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in step.plan.cards.items())


def _plan(step: Step) -> str:
    plan = step.plan
    pipeline = plan.pipelines[0]
    mesh = pipeline.meshes[0]
    words = [f"tp {mesh.tp}", f"pp {pipeline.stages}", f"dp {pipeline.replicas}"]
    words += [f"cp {mesh.cp}"] * (mesh.cp > 1) + [f"ep {mesh.ep}"] * (mesh.ep > 1)
    words += [f"micro-batch {pipeline.micro_batch}", plan.schedule]
    words += [f"{plan.virtual_stages} chunks a stage"] * (plan.virtual_stages > 1)
    words += [f"ZeRO {plan.zero}", f"recompute {mesh.recompute}"]
    return ", ".join(words)


def _share(figure: Estimate) -> str:
    return figure_cell(figure, f"{figure.value:.1%}")


def _gib(value: float) -> str:
    return Shown(f"{value / 2**30:.0f} GiB", value=value, unit="B")


def _dollars(figure: Estimate | None) -> str:
    if figure is None:
        return "not known"
    scale, word = next((each for each in ((1e9, " bn"), (1e6, " M"), (1.0, "")) if figure.value >= each[0]), (1.0, ""))
    return figure_cell(figure, f"${significant(figure.value / scale)}{word}")
