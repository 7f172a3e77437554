"""PyTorch on the chip against the CPU: eager overhead, a DLRM training step, compiling and decoding SmolLM2.

Every figure is host time, both sides in this process; the bars are what the project promises.
"""

import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tapeout  # noqa: F401  the device
from benchmarks.measure import conditions, median_s

EXAMPLES = Path(__file__).parents[1] / "examples"
CALLS = 500
LAYER = """
import sys, time, torch, tapeout
from tapeout import language_model
device = sys.argv[1]
layer = language_model.load(device=device, compiled=False).model.model
layer.layers = layer.layers[:1]
values = torch.randint(0, 1000, (1, 32), device=device)
run = torch.compile(layer)
with torch.no_grad():
    start = time.perf_counter()
    run(input_ids=values, use_cache=False)
print(time.perf_counter() - start)
"""


def eager_overhead_us(function: Callable[[], Any]) -> float:
    """Host time of a call on tensors too small to matter."""

    def calls() -> None:
        for _ in range(CALLS):
            function()

    return median_s(calls) / CALLS * 1e6


def training_step_s(device: str) -> float:
    """Median time of a step of examples/recommend_films.py, forward, backward and AdamW, 1024 ratings."""
    spec = importlib.util.spec_from_file_location("recommend_films", EXAMPLES / "recommend_films.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["recommend_films"] = example
    spec.loader.exec_module(example)
    ratings, films = example.load()
    few = ratings.rows(torch.arange(10 * 1024))
    torch.manual_seed(0)
    model = example.DLRM(films).to(device)
    return median_s(lambda: example.train(model, few, device, epoch_count=1), least_runs=3) / 10


def compile_s(device: str, cache: str) -> float:
    """Time of the first call of one compiled SmolLM2 layer in a process of its own, with that cache."""
    folders = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TRITON_CACHE_DIR": f"{cache}/triton"}
    done = subprocess.run(
        [sys.executable, "-c", LAYER, device], env={**os.environ, **folders}, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def decode_token_s(device: str) -> float:
    """Median time of a token of SmolLM2 in float32: on the chip compiled, on the CPU as transformers runs it."""
    from tapeout import language_model

    smollm = language_model.load(device=device, compiled=device == "chip")
    answer = language_model.answer(smollm, "Count to twenty.", max_new_tokens=24)
    times = answer.token_times_s
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times[8:]))


def main() -> None:
    print(conditions())
    small = torch.ones(4, device="chip")
    for name, function in (("add", lambda: small + small), ("tan (compiled)", small.tan), ("sum", small.sum)):
        print(f"eager overhead of {name}: {eager_overhead_us(function):.1f} µs (bar: 60)")
    on_cpu, on_chip = (training_step_s(device) for device in ("cpu", "chip"))
    print(f"DLRM training step: {on_chip * 1e3:.1f} ms, CPU {on_cpu * 1e3:.1f} ms: {on_chip / on_cpu:.2f} x (bar: 4)")
    with tempfile.TemporaryDirectory() as cache:
        cold_cpu, cold, warm = (compile_s(device, cache) for device in ("cpu", "chip", "chip"))
    print(f"compile a SmolLM2 layer: cold {cold:.1f} s, CPU {cold_cpu:.1f} s: {cold / cold_cpu:.2f} x (bar: 1.5)")
    print(f"compile a SmolLM2 layer, warm caches: {warm:.1f} s (bar: 5)")
    start = time.perf_counter()
    token_cpu, token = (decode_token_s(device) for device in ("cpu", "chip"))
    print(
        f"decode a token: {token * 1e3:.0f} ms, CPU {token_cpu * 1e3:.0f} ms: {token / token_cpu:.2f} x (bar: 2); "
        f"took {time.perf_counter() - start:.0f} s to find out"
    )


if __name__ == "__main__":
    main()
