"""`tapeout plan`: the best plans of a training run on cards of one or several kinds."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tapeout.errors import TapeoutError
from tapeout.report.page import Format, write


class Framework(enum.StrEnum):
    flagscale = "flagscale"
    megatron = "megatron"
    torchtitan = "torchtitan"
    torch = "torch"


def plan(
    model: Annotated[str, typer.Option(help="Model: a public name, a Hugging Face config.json, or file.py:function.")],
    cards: Annotated[
        str, typer.Option(help="Kinds of cards: 'training:2048,H100:4096,Ascend 910B3:2048', KIND@CLUSTER:COUNT.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Sequences of a step.")] = 2048,
    sequence: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 8192,
    dtype: Annotated[str, typer.Option(help="Element type of products: bfloat16, fp8, nvfp4.")] = "bfloat16",
    zero: Annotated[int, typer.Option(min=0, max=3, help="Split over replicas: 1 optimizer state … 3 weights.")] = 1,
    tp: Annotated[list[int] | None, typer.Option(min=1, help="Tensor-parallel cards (repeat for several).")] = None,
    cp: Annotated[list[int] | None, typer.Option(min=1, help="Context-parallel cards.")] = None,
    ep: Annotated[list[int] | None, typer.Option(min=1, help="Expert-parallel cards.")] = None,
    stages: Annotated[int | None, typer.Option(min=1, help="Pipeline stages.")] = None,
    micro_batch: Annotated[list[int] | None, typer.Option(min=1, help="Sequences of a micro-batch.")] = None,
    recompute: Annotated[list[str] | None, typer.Option(help="Recomputation: none, selective, products, full.")] = None,
    schedule: Annotated[str, typer.Option(help="Schedule of the passes: 1f1b, zero-bubble.")] = "1f1b",
    one_pipeline: Annotated[
        bool, typer.Option("--one-pipeline", help="Give no kind a pipeline and share of the batch of its own.")
    ] = False,
    tokens: Annotated[float | None, typer.Option(min=1, help="Also show days and dollars of so many tokens.")] = None,
    software: Annotated[str, typer.Option(help="Software era of the cards (default: each kind's usual one).")] = "",
    assume: Annotated[
        bool, typer.Option("--assume", help="Use a typical value for figures that are not published.")
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    emit: Annotated[
        Framework | None, typer.Option(help="Also write the best plan this framework can express (with -o).")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the output to this file; with --emit, this folder.")
    ] = None,
) -> None:
    """Plan a training step: parallelism, layers and batches over kinds, memory, and the distance from a bound."""
    from tapeout import planning
    from tapeout.planning import emit as emitters
    from tapeout.report import planning as report
    from tapeout.training import fleet_of, model_of

    question = planning.Question(
        model=model_of(model),
        fleet=fleet_of(cards, software=software, own_catalog=catalog, assume=assume),
        batch=batch,
        sequence=sequence,
        dtype=dtype,
        zero=zero,
        schedule=schedule,
        tp=tuple(tp or ()),
        cp=tuple(cp or ()),
        ep=tuple(ep or ()),
        stages=stages,
        micro_batch=tuple(micro_batch or ()),
        recompute=tuple(recompute or ()),
        one_pipeline=one_pipeline,
    )
    if emit is not None and output is None:
        raise TapeoutError(f"name the folder for the configuration of {emit.value} with --output")
    found = planning.plan(question)
    write(report.page(found, tokens), form, None if emit is not None else output)
    if emit is not None:
        assert output is not None
        place, paths = emitters.write(emit.value, found, output)
        typer.echo(f"wrote plan {place + 1} of the list: {', '.join(map(str, paths))}", err=True)
