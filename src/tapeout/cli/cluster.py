"""`tapeout cluster`: what a training step and run take on a cluster of any cards."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def cluster(
    model: Annotated[str, typer.Option(help="Model: a public name, a Hugging Face config.json, or file.py:function.")],
    cards: Annotated[
        list[str], typer.Option(help="Cards, kind:count or kind@cluster:count; repeat it to compare clusters.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Sequences of a step, over all cards.")] = 1024,
    sequence: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 8192,
    tp: Annotated[int, typer.Option(min=1, help="Cards that split each layer (tensor parallel).")] = 1,
    pp: Annotated[int, typer.Option(min=1, help="Stages of the pipeline.")] = 1,
    cp: Annotated[int, typer.Option(min=1, help="Cards that split a sequence (context parallel).")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="Cards that split the experts of a layer.")] = 1,
    micro_batch: Annotated[int, typer.Option(min=1, help="Sequences that go through the pipeline together.")] = 1,
    virtual_stages: Annotated[int, typer.Option(min=1, help="Chunks of layers on each stage (interleaved).")] = 1,
    schedule: Annotated[str, typer.Option(help="Schedule: 1f1b, interleaved, zero-bubble, dualpipe, gpipe.")] = "",
    recompute: Annotated[
        str, typer.Option(help="What the backward pass computes again: none, selective, products, full.")
    ] = "none",
    zero: Annotated[int, typer.Option(min=0, max=3, help="State split over replicas: 0 to 3 (3: FSDP).")] = 1,
    dtype: Annotated[str, typer.Option(help="Element type of products: bfloat16, float16, fp8, nvfp4.")] = "bfloat16",
    tokens: Annotated[float, typer.Option(help="Tokens of the whole run.")] = 1e12,
    software: Annotated[str, typer.Option(help="Software era (default: megatron-2024; own chips: graph).")] = "",
    restart: Annotated[float, typer.Option(min=0, help="Seconds from a failure to the next useful step.")] = 600.0,
    timeline: Annotated[bool, typer.Option("--timeline", help="Draw the pipelines' timelines too.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write the timeline to this file, for ui.perfetto.dev.")] = None,
    assume: Annotated[
        bool, typer.Option("--assume", help="Use a typical value for figures that are not published.")
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Predict a training step and a whole run on any cards. (`tapeout clusters` lists own clusters by name.)"""
    from tapeout.report import training as report
    from tapeout.training import TrainingError, fleet_of, model_of, predict, uniform
    from tapeout.training.campaign import campaign
    from tapeout.training.goodput import Reliability, default_failures

    shape = model_of(model)
    answers = []
    for words in cards:
        fleet = fleet_of(words, software=software, own_catalog=catalog, assume=assume)
        if len(fleet.cards) > 1:
            raise TrainingError(
                f"--cards {words!r} mixes kinds, which need a plan of their own; to compare, give each its own --cards"
            )
        kind = fleet.cards[0]
        plan = uniform(
            kind.name,
            cards=kind.count,
            batch=batch,
            sequence=sequence,
            tp=tp,
            pp=pp,
            cp=cp,
            ep=ep,
            micro_batch=micro_batch,
            recompute=recompute,
            schedule=schedule,
            virtual_stages=virtual_stages,
            zero=zero,
            dtype=dtype,
        )
        step = predict(shape, fleet, plan)
        of = Reliability(cards=kind.count, failures_per_card_hour=default_failures(), restart_s=restart)
        answers.append((step, campaign(step, tokens, of)))
    write(report.cluster_page(answers, with_timelines=timeline and form is not Format.text), form, output)
    if timeline and form is Format.text:
        for step, _ in answers:
            print(report.timeline_text(step))
    if trace is not None:
        events = report.timeline_events(answers[0][0])
        trace.write_text(json.dumps({"displayTimeUnit": "ms", "traceEvents": events}), "utf-8")
