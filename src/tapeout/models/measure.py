"""Measures operators on a device with plain PyTorch and writes rows that `tapeout models fit` reads.

Runs wherever PyTorch does (`cuda`, `npu`, `xpu`, `hpu`, `cpu`, `chip`): needs nothing of Tapeout but this file's
table of shapes. A row is the median of repetitions; its conditions (software, device, graph or eager, cache, timer)
stand beside it. On the device `chip` times are the simulated chip's own.
"""

import csv
import platform
import time as clock
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.models.tables import ModelError

_FIRST: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("gemm", (1, 4096, 4096)), ("gemm", (4096, 4096, 4096)), ("gemm", (16, 8192, 8192)), ("gemm", (128, 4096, 11008)),
    ("gemm", (1024, 1024, 1024)), ("gemm", (64, 12288, 4096)), ("gemm", (512, 4096, 4096)),
    ("gemm", (2048, 8192, 2048)),
    ("gemm", (32, 1024, 8192)), ("gemm", (256, 256, 256)), ("gemm", (8, 16384, 4096)), ("gemm", (8192, 1024, 4096)),
    ("context_attention", (1, 1024, 32, 8, 128, 0)), ("context_attention", (4, 2048, 32, 8, 128, 0)),
    ("context_attention", (1, 4096, 64, 8, 128, 0)), ("context_attention", (16, 512, 16, 16, 64, 0)),
    ("context_attention", (8, 128, 32, 4, 128, 0)),
    ("generation_attention", (1, 1024, 32, 8, 128, 0)), ("generation_attention", (32, 2048, 32, 8, 128, 0)),
    ("generation_attention", (8, 8192, 64, 8, 128, 0)), ("generation_attention", (64, 512, 16, 16, 64, 0)),
    ("generation_attention", (4, 32768, 8, 1, 128, 0)),
    ("norm", (1024, 4096)), ("norm", (64, 8192)), ("norm", (16384, 1024)), ("softmax", (1024, 4096)),
    ("softmax", (64, 8192)), ("elementwise", (1 << 22, 2)), ("elementwise", (1 << 26, 1)),
    ("elementwise", (1 << 16, 2)), ("embedding", (4096, 256, 20)), ("embedding", (8192, 4096, 1)),
)  # fmt: skip
"""32 shapes that span what models ask for: a benchmark of a minute."""

_SIZES = {
    "gemm": ("m", "n", "k"),
    "context_attention": ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
    "generation_attention": ("batch_size", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
    "norm": ("rows", "columns"),
    "softmax": ("rows", "columns"),
    "elementwise": ("elements", "inputs"),
    "embedding": ("rows", "columns", "bag"),
}
OPERATORS = tuple(_SIZES)
_TURNS = (
    "gemm", "context_attention", "gemm", "generation_attention", "gemm", "norm", "gemm", "softmax", "gemm",
    "context_attention", "gemm", "elementwise", "gemm", "generation_attention", "gemm", "embedding",
)  # fmt: skip
_FIELDS = (
    "op", "dtype", *dict.fromkeys(name for names in _SIZES.values() for name in names),
    "kv_cache_dtype", "seconds", "repeats", "spread", "framework", "version", "device", "mode", "cache",
)  # fmt: skip
MOST_OPERATIONS, MOST_ELEMENTS = 1.2e12, 2**29
"""Limits of one shape, so that it fits a small card and takes little of a large one."""
EMBEDDED = 1 << 18
"""Rows of the table that an embedding gathers from."""


def shapes(count: int, operators: Sequence[str] = OPERATORS) -> Iterator[dict[str, Any]]:
    """`count` different shapes of these operators, in one fixed order: the table above, then sizes drawn evenly on a
    logarithmic scale, most of them round as those of models are."""
    generator = np.random.default_rng(0)
    seen: set[tuple[str, tuple[int, ...]]] = set()
    waiting = iter(_FIRST)
    turn = 0
    while len(seen) < count:
        name, sizes = next(waiting, ("", ()))
        if not name:
            name = _TURNS[turn % len(_TURNS)]
            turn += 1
            sizes = _drawn(name, generator) if name in operators else ()
        if sizes and name in operators and (name, sizes) not in seen:
            seen.add((name, sizes))
            yield {"op": name, **dict(zip(_SIZES[name], sizes, strict=True))}


def _drawn(name: str, generator: np.random.Generator) -> tuple[int, ...]:
    """Sizes of one operator, or none where they are beyond the limits."""

    def size(least: float, most: float, *steps: int) -> int:
        value = 2.0 ** generator.uniform(np.log2(least), np.log2(most))
        step = int(generator.choice(steps))
        near: int = round(value / step) * step
        return max(step, near)

    def one_of(*values: int) -> int:
        return int(generator.choice(values))

    if name == "gemm":
        m = size(1, 24, 1) if one_of(0, 0, 1) else size(1, 20_000, 1, 8, 16, 64, 128)
        n, k = (size(64, 32768, 16, 64, 128, 128, 256) for _ in range(2))
        fits = 2.0 * m * n * k <= MOST_OPERATIONS and max(n * k, m * k, m * n) <= MOST_ELEMENTS
        return (m, n, k) if fits else ()
    if name.endswith("attention"):
        group = one_of(1, 1, 2, 4, 4, 8, 8)
        shared, head = one_of(1, 2, 4, 8, 8, 16, 32), one_of(64, 128, 128)
        batch = size(1, 64, 1)
        if name == "context_attention":
            length = size(16, 16384, 1, 16, 64, 128)
            fits = 2.0 * batch * group * shared * head * length**2 <= MOST_OPERATIONS / 2
        else:
            batch = size(1, 256, 1)
            length = size(16, 131072, 1, 16, 64, 128)
            fits = True
        fits = fits and batch * shared * length * head <= MOST_ELEMENTS / 2 and group * shared <= 128
        return (batch, length, group * shared, shared, head, 0) if fits else ()
    if name == "elementwise":
        return size(64, MOST_ELEMENTS / 2, 1, 64, 1024), one_of(1, 2, 2, 3)
    rows = size(1, 131072, 1, 8, 64)
    columns = size(32, 16384, 8, 64, 128, 256)
    bag = one_of(1, 1, 4, 20, 50) if name == "embedding" else 1
    if name == "embedding":
        columns = size(16, 8192, 16, 64, 128)
        fits = rows * columns * bag <= MOST_ELEMENTS and columns * EMBEDDED <= 4 * MOST_ELEMENTS
        return (rows, columns, bag) if fits else ()
    return (rows, columns) if rows * columns <= MOST_ELEMENTS else ()


def measure(
    device: str,
    output: Path,
    *,
    count: int = 32,
    repeats: int = 10,
    dtype: str = "bfloat16",
    operators: Sequence[str] = OPERATORS,
) -> int:
    """Write `count` rows measured on a device; returns how many. Raises ModelError for a device PyTorch lacks and for
    an operator that is not measured."""
    import torch

    for operator in operators:
        if operator not in OPERATORS:
            raise ModelError(f"{operator!r} is not measured; measured are {', '.join(OPERATORS)}")

    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ModelError(f"PyTorch has no device {device!r} here: {str(error).splitlines()[0]}") from None
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ModelError(f"PyTorch has no element type {dtype!r}; bfloat16 is one")
    module = getattr(torch, place.type, None)
    name = _device_name(module, place.type)
    rows = 0
    with output.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.DictWriter(file, _FIELDS, restval="")
        sheet.writeheader()
        for shape in shapes(count, operators or OPERATORS):
            run = _operator(torch, shape, place, kind)
            times = _times(run, module, repeats)
            median = sorted(times)[len(times) // 2]
            sheet.writerow(
                shape
                | {
                    "dtype": dtype,
                    "kv_cache_dtype": dtype if shape["op"].endswith("attention") else "",
                    "seconds": f"{median:.6g}",
                    "repeats": repeats,
                    "spread": f"{(max(times) - min(times)) / median:.3g}" if median else "",
                    "framework": "pytorch",
                    "version": torch.__version__,
                    "device": name,
                    "mode": "eager",
                    "cache": "warm",
                }
            )
            rows += 1
    return rows


def seconds_of_one(device: str, shape: dict[str, Any], dtype: str) -> float:
    """Seconds of one operator on a device, warm; `shape` as `shapes` gives it."""
    import torch

    place = torch.device(device)
    return _times(_operator(torch, shape, place, getattr(torch, dtype)), getattr(torch, place.type, None), 1)[0]


def _device_name(module: Any, kind: str) -> str:
    if module is not None and hasattr(module, "get_device_name"):
        return str(module.get_device_name())
    return platform.processor() or kind


def _operator(torch: Any, shape: dict[str, Any], place: Any, kind: Any) -> Callable[[], object]:
    def tensor(*sizes: int) -> Any:
        if place.type == "chip":  # its times do not depend on values
            return torch.empty(*sizes, dtype=kind, device=place)
        return torch.randn(*sizes, device=place, dtype=torch.float32).to(kind)

    functional = torch.nn.functional
    name = shape["op"]
    if name == "gemm":
        left, right = tensor(shape["m"], shape["k"]), tensor(shape["n"], shape["k"])
        return lambda: functional.linear(left, right)
    if name.endswith("attention"):
        batch, head, shared = shape["batch_size"], shape["head_dim"], shape["num_key_value_heads"]
        generates = name == "generation_attention"
        length = shape["step"] + 1 if generates else shape["isl"]
        query = tensor(batch, shape["num_heads"], 1 if generates else length, head)
        key, value = (tensor(batch, shared, length, head) for _ in range(2))
        grouped = shape["num_heads"] != shared
        return lambda: functional.scaled_dot_product_attention(
            query, key, value, is_causal=not generates, enable_gqa=grouped
        )
    if name == "elementwise":
        first, *others = (tensor(shape["elements"]) for _ in range(shape["inputs"]))
        if len(others) == 2:
            return lambda: torch.addcmul(first, *others)
        return lambda: first * others[0] if others else functional.silu(first)
    rows, columns = shape["rows"], shape["columns"]
    if name == "embedding":
        weights = tensor(EMBEDDED, columns)
        chosen = (torch.arange(rows * shape["bag"], dtype=torch.int64) * 7919 % EMBEDDED).reshape(rows, -1).to(place)
        if shape["bag"] == 1:
            return lambda: functional.embedding(chosen, weights)
        return lambda: functional.embedding_bag(chosen, weights, mode="sum")
    data = tensor(rows, columns)
    if name == "softmax":
        return lambda: functional.softmax(data, -1)
    weight, bias = tensor(columns), tensor(columns)
    return lambda: functional.layer_norm(data, (columns,), weight, bias)


def _times(run: Callable[[], object], module: Any, repeats: int) -> list[float]:
    """Seconds of each repetition, by the device's own events where it has them."""
    run()
    has_events = module is not None and hasattr(module, "Event") and hasattr(module, "synchronize")
    times = []
    for _ in range(repeats):
        if has_events:
            first, last = module.Event(enable_timing=True), module.Event(enable_timing=True)
            module.synchronize()
            first.record()
            run()
            last.record()
            module.synchronize()
            times.append(first.elapsed_time(last) * 1e-3)
        else:
            start = clock.perf_counter()
            run()
            times.append(clock.perf_counter() - start)
    return times
