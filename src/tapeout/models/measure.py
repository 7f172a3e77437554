"""Measures operators on a device with plain PyTorch and writes rows that `tapeout models fit` reads.

Runs wherever PyTorch does (`cuda`, `npu`, `xpu`, `hpu`, `cpu`, `chip`): needs nothing of Tapeout but this file's
table of shapes. A row is the median of repetitions; its conditions (software, device, graph or eager, cache, timer)
stand beside it. On the device `chip` times are the simulated chip's own.
"""

import csv
import platform
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tapeout.models.tables import ModelError

_GEMM = (
    (1, 4096, 4096), (4096, 4096, 4096), (16, 8192, 8192), (128, 4096, 11008), (1024, 1024, 1024), (64, 12288, 4096),
    (512, 4096, 4096), (2048, 8192, 2048), (32, 1024, 8192), (256, 256, 256), (8, 16384, 4096), (8192, 1024, 4096),
    (300, 5120, 5120), (4, 2048, 2048), (1536, 6144, 1536), (96, 7168, 2048),
)  # fmt: skip
_ATTENTION = (
    (1, 1024, 32, 8, 128), (4, 2048, 32, 8, 128), (1, 4096, 64, 8, 128), (16, 512, 16, 16, 64), (8, 128, 32, 4, 128),
    (2, 1024, 8, 8, 64),
)  # fmt: skip
_ROWS = ((1024, 4096), (16384, 4096), (64, 8192), (4096, 1024), (512, 512))
_FIELDS = (
    "op", "dtype", "m", "n", "k", "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "window_size",
    "rows", "columns", "elements", "inputs", "kv_cache_dtype", "seconds", "repeats", "spread", "framework", "version",
    "device", "mode", "cache",
)  # fmt: skip
_SCALES = (1.0, 0.5, 2.0, 0.75, 1.5, 0.25, 4.0, 3.0)


def shapes(count: int) -> Iterator[dict[str, Any]]:
    """`count` shapes: the tables above, then the same with their first size scaled, in one fixed order."""
    made, level = 0, 0
    seen: set[tuple[object, ...]] = set()
    while made < count and level < 64:
        scale = _SCALES[level % len(_SCALES)] * (1 + level // len(_SCALES) * 0.125)
        for row in _level(scale):
            key = tuple(sorted(row.items()))
            if key not in seen and made < count:
                seen.add(key)
                made += 1
                yield row
        level += 1


def _level(scale: float) -> Iterator[dict[str, Any]]:
    def scaled(size: int) -> int:
        return max(1, round(size * scale))

    for m, n, k in _GEMM:
        yield {"op": "gemm", "m": scaled(m), "n": n, "k": k}
    for batch, length, heads, shared, head in _ATTENTION:
        yield {
            "op": "context_attention",
            "batch_size": batch,
            "isl": max(16, scaled(length)),
            "num_heads": heads,
            "num_key_value_heads": shared,
            "head_dim": head,
            "window_size": 0,
        }
    for rows, columns in _ROWS:
        yield {"op": "softmax", "rows": scaled(rows), "columns": columns}
        yield {"op": "norm", "rows": scaled(rows), "columns": columns}
        yield {"op": "elementwise", "elements": scaled(rows) * columns, "inputs": 2}


def measure(device: str, output: Path, *, count: int = 32, repeats: int = 10, dtype: str = "bfloat16") -> int:
    """Write `count` rows measured on a device; returns how many. Raises ModelError for a device PyTorch lacks."""
    import torch

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
        for shape in shapes(count):
            run = _operator(torch, shape, place, kind)
            times = _times(run, module, repeats)
            median = sorted(times)[len(times) // 2]
            sheet.writerow(
                shape
                | {
                    "dtype": dtype,
                    "kv_cache_dtype": dtype if shape["op"] == "context_attention" else "",
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


def _device_name(module: Any, kind: str) -> str:
    if module is not None and hasattr(module, "get_device_name"):
        return str(module.get_device_name())
    return platform.processor() or kind


def _operator(torch: Any, shape: dict[str, Any], place: Any, kind: Any) -> Callable[[], object]:
    def tensor(*sizes: int) -> Any:
        return torch.randn(*sizes, dtype=torch.float32).to(kind).to(place)

    functional = torch.nn.functional
    if shape["op"] == "gemm":
        left, right = tensor(shape["m"], shape["k"]), tensor(shape["n"], shape["k"])
        return lambda: functional.linear(left, right)
    if shape["op"] == "context_attention":
        batch, length, head = shape["batch_size"], shape["isl"], shape["head_dim"]
        query = tensor(batch, shape["num_heads"], length, head)
        key, value = (tensor(batch, shape["num_key_value_heads"], length, head) for _ in range(2))
        grouped = shape["num_heads"] != shape["num_key_value_heads"]
        return lambda: functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    if shape["op"] == "elementwise":
        left, right = tensor(shape["elements"]), tensor(shape["elements"])
        return lambda: left + right
    rows, columns = shape["rows"], shape["columns"]
    data = tensor(rows, columns)
    if shape["op"] == "softmax":
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
