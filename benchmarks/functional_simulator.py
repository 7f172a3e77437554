"""The functional simulator against Triton's interpreter and PyTorch on the CPU, on the same kernels and data.

The interpreter runs in a process of its own, because TRITON_INTERPRET must be set before Triton is imported.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import kernels
from benchmarks.measure import conditions, median_s


@dataclass(frozen=True)
class Case:
    """One kernel, its arguments, the same computation in PyTorch and the error allowed between the two."""

    name: str
    launch: Callable[..., torch.Tensor]
    reference: Callable[..., torch.Tensor]
    arguments: tuple[torch.Tensor, ...]
    absolute_tolerance: float


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True)[0]


def cases() -> tuple[Case, ...]:
    half = torch.float16
    return (
        Case("vector add, 1M float32", kernels.add, torch.add, (_random(1 << 20), _random(1 << 20)), 0.0),
        Case(
            "softmax, 1024 x 1024 float32",
            kernels.softmax,
            lambda values: torch.softmax(values, dim=1),
            (_random(1024, 1024),),
            1e-6,
        ),
        Case(
            "matmul, 512^3 float16",
            kernels.matmul,
            torch.matmul,
            (_random(512, 512, dtype=half), _random(512, 512, dtype=half)),
            0.1,  # values of about 20 rounded to float16 after sums in different orders
        ),
        Case(
            "flash attention, 4 x 512 x 64 float32",
            kernels.attention,
            _causal,
            (_random(4, 512, 64), _random(4, 512, 64), _random(4, 512, 64)),
            1e-5,
        ),
    )


def check(case: Case, device: str) -> None:
    """Raise unless the kernel computes what PyTorch does."""
    got = case.launch(*(argument.to(device) for argument in case.arguments)).cpu()
    torch.testing.assert_close(got, case.reference(*case.arguments), atol=case.absolute_tolerance, rtol=0.0)


def times_s(device: str, measured: tuple[Case, ...], least_runs: int = 5) -> dict[str, float]:
    """Median time of each kernel on a device, once its result is known to be right."""
    result = {}
    for case in measured:
        check(case, device)
        arguments = tuple(argument.to(device) for argument in case.arguments)
        result[case.name] = median_s(
            lambda case=case, arguments=arguments: case.launch(*arguments), least_runs=least_runs
        )
    return result


def interpreter_times_s(module: str) -> dict[str, float]:
    """What a benchmark measures in the interpreter: it must print that when run with --interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--interpreter"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    import tapeout  # noqa: F401  registers the device

    on_chip = times_s("chip", cases())
    in_torch = {case.name: median_s(lambda case=case: case.reference(*case.arguments)) for case in cases()}
    interpreted = interpreter_times_s("benchmarks.functional_simulator")

    table = Table(title="Functional simulator, medians")
    for heading in ("kernel", "interpreter", "PyTorch CPU", "chip", "interpreter / chip", "chip / PyTorch"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    for name, chip_s in on_chip.items():
        figures = (interpreted[name], in_torch[name], chip_s)
        speedup, slowdown = interpreted[name] / chip_s, chip_s / in_torch[name]
        table.add_row(name, *(f"{s * 1e3:.2f} ms" for s in figures), f"{speedup:.0f} x", f"{slowdown:.1f} x")
    console = Console()
    console.print(table)
    mean = math.exp(sum(math.log(interpreted[name] / s) for name, s in on_chip.items()) / len(on_chip))
    console.print(f"geometric mean over the interpreter: {mean:.0f} x   ({conditions()})")


if __name__ == "__main__":
    if sys.argv[1:] == ["--interpreter"]:
        print(json.dumps(times_s("cpu", cases())))
    else:
        main()
