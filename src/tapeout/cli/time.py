"""`tapeout time`: how long an operator, or a step of a model, takes on chips."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def time(
    operator: Annotated[
        str | None,
        typer.Argument(
            help="Operator: gemm, prefill, decode, moe, norm, softmax, elementwise, embedding, convolution ..."
        ),
    ] = None,
    sizes: Annotated[
        list[str] | None, typer.Argument(help="Sizes of the operator, in order or by name: 'batch_size=64 step=4096'.")
    ] = None,
    on: Annotated[
        str, typer.Option(help="Chips, separated by commas: 'H100,MI300X,Ascend 910B3,inference'.")
    ] = "inference",
    dtype: Annotated[str, typer.Option(help="Element type: bfloat16, fp8, nvfp4, int8, float32 ...")] = "bfloat16",
    model: Annotated[
        str | None, typer.Option(help="Time a step of this model instead: 'llama-3.1-70b', 'gpt-oss-120b' ...")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in the step (with --model).")] = 1,
    context: Annotated[int, typer.Option(min=1, help="Tokens already in each sequence (with --model).")] = 4096,
    prefill: Annotated[
        bool, typer.Option("--prefill", help="Time a prefill step instead of a decode step (with --model).")
    ] = False,
    tp: Annotated[int, typer.Option(min=1, help="Tensor-parallel chips (with --model).")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="Expert-parallel groups (with --model).")] = 1,
    kv: Annotated[str, typer.Option(help="Element type of the key-value cache (with --model).")] = "bfloat16",
    campaign: Annotated[str, typer.Option(help="Measured campaign to use; `tapeout models list` shows them.")] = "",
    without_family: Annotated[
        bool, typer.Option("--without-family", help="Ignore measurements of the chip's own family.")
    ] = False,
    measured: Annotated[Path | None, typer.Option(help="Rows you measured on the chip, to base answers on.")] = None,
    assume: Annotated[
        bool, typer.Option("--assume", help="Use a typical value for figures that are not published.")
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show how long an operator or a model's step takes on each chip, with range, limit and provenance."""
    from tapeout.models import questions, step
    from tapeout.models.tables import ModelError
    from tapeout.report import times as report

    asked = questions.timers(
        [name.strip() for name in on.split(",") if name.strip()],
        own_catalog=catalog,
        campaign=campaign,
        without_family=without_family,
        assume=assume,
        measured=measured,
    )
    if model is not None:
        shape = step.model_called(model)
        work = step.Step(
            model=shape,
            batch=batch,
            context=context,
            is_prefill=prefill,
            tp=tp,
            ep=ep,
            weight_dtype=dtype,
            cache_dtype=kv,
        )
        write(report.step_page(work, [(timer, step.answer(work, timer)) for timer in asked]), form, output)
        return
    if operator is None:
        raise ModelError("name an operator, as in `tapeout time gemm 4096 4096 4096 --on H100`, or a --model")
    table = questions.table_of(operator, sizes or [], dtype)
    write(report.operator_page(table, questions.answers(table, asked)), form, output)
