"""`tapeout serve-sim`: a trace of requests served on chips, in virtual time."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


def serve_sim(
    model: Annotated[str, typer.Argument(help="Shape of a model: 'llama-3.1-8b', 'smollm2-135m', 'gpt-oss-120b' ...")],
    trace: Annotated[
        str, typer.Option(help="'azure-conv', a CSV or JSONL file, or 'poisson:RATE' in requests a second.")
    ] = "azure-conv",
    chip: Annotated[str, typer.Option(help="Chips, separated by commas: 'inference,H100,H20,mine.py'.")] = "inference",
    slo: Annotated[
        str, typer.Option(help="Objective: 'ttft=200ms,tpot=50ms' (also itl, e2e). Finds the highest rate too.")
    ] = "",
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of requests that must hold the objective.")
    ] = 0.99,
    requests: Annotated[int, typer.Option(min=1, help="Number of requests: the trace's first.")] = 200,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Stretch the trace to this mean rate, in requests a second.")
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Tokens of every prompt and answer, in place of the trace's: 512:128.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of a Poisson trace.")] = 0,
    tp: Annotated[int, typer.Option(min=1, help="Tensor-parallel chips.")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="Expert-parallel groups.")] = 1,
    dtype: Annotated[str, typer.Option(help="Element type of weights: bfloat16, fp8, float32 ...")] = "bfloat16",
    kv: Annotated[str, typer.Option(help="Element type of the key-value cache.")] = "bfloat16",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="vLLM's limit of sequences in a step.")] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="vLLM's limit of tokens in a step.")] = 8192,
    host_us: Annotated[
        float, typer.Option(min=0, help="Time a step costs the host beyond what it hides, in microseconds.")
    ] = 0.0,
    each: Annotated[
        Path | None, typer.Option(help="Also write every request's and step's times here, as JSON.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Serve a trace of requests on each chip: vLLM's scheduler in virtual time, steps by the operator models."""
    from tapeout.cli.terminal import check_file_can_be_written
    from tapeout.models import questions, step
    from tapeout.report import serving as report
    from tapeout.serving import scheduler, simulation, traces
    from tapeout.serving.objectives import Objective

    objective = Objective.of(slo) if slo else None
    asked = questions.timers([name.strip() for name in chip.split(",") if name.strip()])
    arrivals = traces.called(trace, count=requests, lengths=lengths, seed=seed)
    if rate is not None:
        arrivals = traces.at_rate(arrivals, rate)
    for path in (each, output):
        if path is not None:
            check_file_can_be_written(path)
    server = simulation.Server(
        model=step.model_called(model),
        tp=tp,
        ep=ep,
        weight_dtype=dtype,
        cache_dtype=kv,
        max_sequences=max_num_seqs,
        max_batched_tokens=max_num_batched_tokens,
        host_us=host_us,
    )
    answers = [
        (
            timer.chip.name,
            simulation.answer(arrivals, server, timer, scheduler.engine, objective=objective, share=share),
        )
        for timer in asked
    ]
    if each is not None:
        report.write_requests(each, server.model.name, arrivals, answers)
    write(report.page(server.model.name, arrivals, answers), form, output)
