"""Rates that workloads reach, beside the peak figures of a comparison."""

from collections.abc import Sequence

from tapeout.accelerator import Accelerator
from tapeout.figures import Estimate, number
from tapeout.models.questions import own_parameters
from tapeout.models.tables import ModelError, Table, table
from tapeout.models.timers import Timer
from tapeout.silicon.comparison import Line

GROUP = "achieved, by operator models"


def workloads() -> list[tuple[str, str, float, Table]]:
    """Return what is timed: name, unit, work in that unit times seconds, and the operator."""
    decode = {"batch_size": 64, "step": 4095, "num_heads": 32, "num_key_value_heads": 8}
    prefill = {"batch_size": 4, "isl": 4096, "num_heads": 32, "num_key_value_heads": 8}
    return [
        (
            "product of 8192 x 8192 x 8192",
            "Top/s",
            2 * 8192**3 / 1e12,
            table("gemm", "bfloat16", m=8192, n=8192, k=8192),
        ),
        (
            "product of 16 rows with 8192 x 8192",
            "GB/s",
            8192**2 * 2 / 1e9,
            table("gemm", "bfloat16", m=16, n=8192, k=8192),
        ),
        (
            "attention of 4 prompts of 4096 tokens",
            "Top/s",
            4 * 4 * 32 * 128 * 4096 * 4097 / 2 / 1e12,
            table("context_attention", "bfloat16", **prefill),
        ),
        (
            "attention of 64 sequences over 4096 tokens",
            "GB/s",
            64 * 8 * 4096 * 128 * 4 / 1e9,
            table("generation_attention", "bfloat16", **decode),
        ),
        (
            "bags of 20 rows of 128, 65536 of them",
            "GB/s",
            65536 * 20 * 128 * 2 / 1e9,
            table("embedding", "bfloat16", rows=65536, columns=128, bag=20),
        ),
    ]


def lines(chips: Sequence[Accelerator]) -> list[Line]:
    """A line a workload; None for a chip that lacks a figure the model needs."""
    own = own_parameters()
    timers = [Timer(chip=chip, own=own) for chip in chips]
    found = []
    for label, unit, work, asked in workloads():
        rates = tuple(_rate(timer, work, unit, asked) for timer in timers)
        if any(rates):
            found.append(Line(GROUP, label, {"Top/s": "TFLOP/s"}.get(unit, unit), rates))
    return found


def _rate(timer: Timer, work: float, unit: str, asked: Table) -> Estimate | None:
    try:
        seconds = timer.time(asked).estimate()
    except ModelError:
        return None
    return (number(work, unit.removesuffix("/s")) / seconds).to(unit)
