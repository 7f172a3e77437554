"""Twelve kernels on the chip against Triton's interpreter, on the same data; and how long each takes to compile, cold.

The four of `functional_simulator`, layer norm forward and backward, dropout, grouped products, convolution by gather,
cumsum, sort and an embedding bag with atomics. Every result is compared with PyTorch's first.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import functional_simulator, language_kernels
from benchmarks.functional_simulator import Case, interpreter_times_s, times_s
from benchmarks.measure import conditions
from tapeout.host import disk_cache

GROUP_STARTS = torch.tensor([0, 100, 300, 301, 512], dtype=torch.int32)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _indices(count: int, limit: int) -> torch.Tensor:
    return torch.randint(0, limit, (count,), generator=torch.Generator().manual_seed(limit), dtype=torch.int32)


def _layer_norm_gradients(values: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    values, weight = values.clone().requires_grad_(), weight.clone().requires_grad_()
    out = torch.nn.functional.layer_norm(values, weight.shape, weight, torch.zeros_like(weight))
    of_values, of_weight = torch.autograd.grad(out, (values, weight), gradient)
    return torch.cat([of_values, of_weight[None]])


def _grouped(left: torch.Tensor, right: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    ends = starts.tolist()
    return torch.cat([left[a:b] @ w for a, b, w in zip(ends, ends[1:], right, strict=False)])


def _bags(table: torch.Tensor, index: torch.Tensor, bag: torch.Tensor) -> torch.Tensor:
    return torch.zeros(language_kernels.BAGS, table.shape[1]).index_add(0, bag, table[index])


def cases() -> tuple[Case, ...]:
    k = language_kernels
    values, weight, bias = _random(512, 1024), _random(1024), _random(1024) / 2
    return (
        *functional_simulator.cases(),
        Case(
            "layer norm, 512 x 1024 float32",
            k.layer_norm,
            lambda x, w, b: torch.nn.functional.layer_norm(x, w.shape, w, b),
            (values, weight, bias),
            2e-5,
        ),
        Case(
            "layer norm backward, 512 x 1024 float32",
            k.layer_norm_backward,
            _layer_norm_gradients,
            (values, weight, _random(512, 1024) * 0.5),
            2e-3,  # sums of 512 products
        ),
        Case("dropout, 128k float32", k.dropout, _is_dropout, (_random(1 << 17),), 0.0),
        Case(
            "grouped matmul, 4 groups of 512 x 256 x 256 float32",
            k.grouped_matmul,
            _grouped,
            (_random(512, 256), _random(4, 256, 256), GROUP_STARTS),
            1e-3,
        ),
        Case(
            "convolution 3 x 3, 2 x 32 x 32 x 32 float32",
            k.convolution,
            lambda image, weight: torch.nn.functional.conv2d(image, weight, padding=1),
            (_random(2, 32, 32, 32), _random(32, 32, 3, 3)),
            1e-3,
        ),
        Case("cumsum, 1024 x 1024 float32", k.cumsum, lambda x: x.cumsum(1), (_random(1024, 1024),), 1e-3),
        Case("sort, 64 x 512 float32", k.sort, lambda x: x.sort(1).values, (_random(64, 512),), 0.0),
        Case(
            "embedding bag, 8192 x 64 float32, atomics",
            k.embedding_bag,
            _bags,
            (_random(4096, 64), _indices(8192, 4096), _indices(8192, language_kernels.BAGS)),
            1e-4,
        ),
    )


def _is_dropout(values: torch.Tensor) -> torch.Tensor:
    """What `dropout` keeps, by the numbers that tl.rand has for its seed."""
    counter = torch.arange(values.numel(), dtype=torch.int64)
    kept = philox_uniform(7, counter) > 0.5
    return torch.where(kept, values / 0.5, torch.zeros(()))


def philox_uniform(seed: int, counter: torch.Tensor) -> torch.Tensor:
    """Philox-4x32-10 of counters below 2**32 (Salmon et al., 2011), its first word as a number below 1."""
    mask = 0xFFFFFFFF
    words = [counter & mask, torch.zeros_like(counter), torch.zeros_like(counter), torch.zeros_like(counter)]
    key = [seed & mask, seed >> 32]
    for _ in range(10):
        (low_0, high_0), (low_2, high_2) = _product(words[0], 0xD2511F53), _product(words[2], 0xCD9E8D57)
        words = [high_2 ^ words[1] ^ key[0], low_2, high_0 ^ words[3] ^ key[1], low_0]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    signed = words[0].to(torch.int32)
    magnitude = torch.where(signed < 0, -signed - 1, signed)
    return magnitude.float() * 4.6566127342e-10


def _product(a: torch.Tensor, b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Low and high 32 bits, in 64-bit integers without overflow."""
    low, high = a & 0xFFFF, a >> 16
    first, second = low * b, high * b
    total = first + ((second & 0xFFFF) << 16)
    return total & 0xFFFFFFFF, (total >> 32) + (second >> 16)


# Each kernel in a process of its own with empty caches. A kernel before it pays for what only a first kernel costs.
COMPILATION = """
import sys, time, torch, tapeout
from benchmarks import kernels, language
warm = torch.ones(64, device="chip")
number = int(sys.argv[1])
kernels.add(warm, warm) if number else kernels.softmax(warm[None])  # not the measured one
case = language.cases()[number]
arguments = tuple(a.to("chip") for a in case.arguments)
start = time.perf_counter(); case.launch(*arguments); first = time.perf_counter() - start
start = time.perf_counter(); case.launch(*arguments); print(first - (time.perf_counter() - start))
"""


def compile_time_s(number: int) -> float:
    """Of the kernels one case launches, from Python to machine code, without caches of kernels."""
    with tempfile.TemporaryDirectory() as empty:
        kept = Path(empty, "tapeout")
        kept.mkdir()
        for library in ("runtime", "shim", "timing"):  # what g++ builds once is no kernel's
            if (built := disk_cache.directory() / library).is_dir():
                kept.joinpath(library).symlink_to(built)
        caches = {"TRITON_CACHE_DIR": f"{empty}/triton", "TAPEOUT_CACHE_DIR": f"{empty}/tapeout"}
        command = [sys.executable, "-c", COMPILATION, str(number)]
        done = subprocess.run(command, env=os.environ | caches, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    import tapeout  # noqa: F401  registers the device

    started = time.perf_counter()
    on_chip = times_s("chip", cases())
    interpreted = interpreter_times_s("benchmarks.language")
    compile_s = [compile_time_s(number) for number in range(len(on_chip))]
    table = Table(title="Kernels on the chip and in Triton's interpreter, medians")
    for heading in ("kernel", "interpreter", "chip", "interpreter / chip", "cold compile"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    factors = [interpreted[name] / chip_s for name, chip_s in on_chip.items()]
    for (name, chip_s), factor, compiling in zip(on_chip.items(), factors, compile_s, strict=True):
        figures = (f"{interpreted[name] * 1e3:.1f} ms", f"{chip_s * 1e3:.2f} ms", f"{factor:.0f} x")
        table.add_row(name, *figures, f"{compiling:.2f} s")
    console = Console()
    console.print(table)
    mean = math.exp(sum(map(math.log, factors)) / len(factors))
    console.print(
        f"geometric mean {mean:.0f} x, least {min(factors):.0f} x; median cold compile "
        f"{statistics.median(compile_s):.2f} s   ({conditions()}; {time.perf_counter() - started:.0f} s in all)"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--interpreter"]:
        print(json.dumps(times_s("cpu", cases(), least_runs=1)))
    else:
        main()
