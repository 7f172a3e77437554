"""Speed of the functional simulator on the host's vector units, against PyTorch's own kernels on the same units.

Measured in CPU time, one thread on either side, in turns, so that others' work on the machine does not show. Every set
of host features that the host has and PyTorch knows is measured in a process of its own.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import functional_simulator, other_kernels
from benchmarks.functional_simulator import Case, interpreter_times_s
from benchmarks.measure import conditions

SAME_FEATURES = {
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
"""Settings that make PyTorch use the same vector units."""

Measured = tuple[str, Callable[[], object], Callable[[], object]]
"""A name, the computation on the chip, and in PyTorch on the CPU."""


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def written_differently() -> tuple[Case, ...]:
    half = torch.float16
    attention = torch.nn.functional.scaled_dot_product_attention
    return (
        Case(
            "bias and GELU, 500 x 781 float32",
            other_kernels.bias_gelu,
            lambda values, bias: torch.nn.functional.gelu(values + bias),
            (_random(500, 781), _random(781)),
            1e-5,
        ),
        Case(
            "softmax, 8 rows a program, 1000 x 781 float32",
            other_kernels.row_softmax,
            lambda values: torch.softmax(values, 1),
            (_random(1000, 781),),
            1e-6,
        ),
        Case(
            "matmul, 500 x 517 x 391 float16, right transposed",
            other_kernels.matmul_of_transposed,
            lambda left, right: left @ right.T,
            (_random(500, 391, dtype=half), _random(517, 391, dtype=half)),
            0.1,
        ),
        Case(
            "attention, 4 x 500 x 64 float32, key transposed",
            other_kernels.attention_of_transposed_key,
            lambda q, k, v: attention(q[None], k[None], v[None])[0],
            (_random(4, 500, 64), _random(4, 500, 64) / 2, _random(4, 500, 64)),
            1e-4,
        ),
    )


def cases() -> tuple[Case, ...]:
    return (*functional_simulator.cases(), *written_differently())


def products() -> list[Measured]:
    measured: list[Measured] = []
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        left, right = _random(1024, 1024, dtype=dtype), _random(1024, 1025, dtype=dtype)[:, :1024].contiguous()
        on_chip = (left.to("chip"), right.to("chip"))
        in_torch = (left, right) if dtype is torch.float32 else (left.float(), right.float())
        measured.append(
            (
                f"torch: product, 1024^3 {name}",
                lambda a=on_chip: torch.mm(*a),
                lambda a=in_torch: torch.mm(*a),
            )
        )
    return measured


def eager_calls() -> list[Measured]:
    measured: list[Measured] = []
    for size in (1024, 4096):
        values = _random(size, size)
        there = values.to("chip")
        for name, call in {
            "add": lambda x: x + x,
            "GELU": torch.nn.functional.gelu,
            "softmax": lambda x: torch.softmax(x, 1),
            "sum of rows": lambda x: x.sum(1),
            "sum of columns": lambda x: x.sum(0),
            "sum": torch.sum,
        }.items():
            measured.append(
                (
                    f"torch: {name}, {size} x {size} float32",
                    lambda call=call, x=there: call(x),
                    lambda call=call, x=values: call(x),
                )
            )
    return measured


def in_turns(on_chip: Callable[[], object], in_torch: Callable[[], object]) -> tuple[float, float]:
    """Median CPU seconds of both, measured one after the other for a second and at least five times."""
    on_chip()
    in_torch()
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < 5 or sum(times[0]) + sum(times[1]) < 1.0:
        for run, taken in zip((on_chip, in_torch), times, strict=True):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def measure(names: list[str]) -> dict[str, tuple[float, float]]:
    """CPU seconds on the chip and in PyTorch of everything whose name contains one of `names`, or of all."""
    import tapeout  # noqa: F401  registers the device

    torch.set_num_threads(1)
    results = {}

    def wanted(name: str) -> bool:
        return not names or any(part in name for part in names)

    for case in cases():
        if wanted(case.name):
            functional_simulator.check(case, "chip")
            there = tuple(argument.to("chip") for argument in case.arguments)
            results[case.name] = in_turns(
                lambda case=case, there=there: case.launch(*there),
                lambda case=case: case.reference(*case.arguments),
            )
    for name, on_chip, in_torch in (*products(), *eager_calls()):
        if wanted(name):
            results[name] = in_turns(on_chip, in_torch)
    return results


def in_the_interpreter() -> dict[str, float]:
    """CPU seconds of each kernel in Triton's interpreter, once its result is known to be right."""
    torch.set_num_threads(1)
    taken = {}
    for case in cases():
        functional_simulator.check(case, "cpu")
        start = time.process_time()
        case.launch(*case.arguments)
        taken[case.name] = time.process_time() - start
    return taken


def measured_with(level: str, names: list[str]) -> dict[str, tuple[float, float]]:
    environment = {"TAPEOUT_HOST_FEATURES": level, "TAPEOUT_THREADS": "1", **SAME_FEATURES[level]}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.host_speed", "--measure", *names],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {name: (chip_s, torch_s) for name, (chip_s, torch_s) in json.loads(done.stdout).items()}


def main() -> None:
    from tapeout.host.features import levels

    console = Console()
    interpreted = interpreter_times_s("benchmarks.host_speed")
    for level in levels():
        if level not in SAME_FEATURES:
            continue
        results = measured_with(level, [])
        table = Table(title=f"CPU time with {level}, one thread")
        for heading in ("", "PyTorch CPU", "chip", "chip / PyTorch", "interpreter / chip"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, (chip_s, torch_s) in results.items():
            speedup = f"{interpreted[name] / chip_s:.0f}" if name in interpreted else ""
            table.add_row(name, f"{torch_s * 1e3:.2f} ms", f"{chip_s * 1e3:.2f} ms", f"{chip_s / torch_s:.2f}", speedup)
        console.print(table)
        factors = [interpreted[name] / results[name][0] for name in interpreted]
        console.print(f"geometric mean over the interpreter: {math.exp(statistics.fmean(map(math.log, factors))):.0f}")
    console.print("products of float16 and bfloat16 are held against PyTorch's of float32")
    console.print(conditions())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2:])))
    elif sys.argv[1:] == ["--interpreter"]:
        print(json.dumps(in_the_interpreter()))
    else:
        main()
