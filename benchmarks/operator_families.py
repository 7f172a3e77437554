"""Torch's operators, family by family, over aligned and odd shapes, each against its true limit.

    python -m benchmarks.operator_families training [text in a family's or a case's name ...]

prints a line of JSON for each case; `code_quality` reads them for its table. The limit is the largest of HBM's time for
the bytes that must move, the matrix engines' peak, and the least lane operations of the function
(`tapeout.workbench.limits`). Nothing is computed, memory starts outside the last-level SRAM; gathers go to random rows.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from tapeout import chip as chips
from tapeout.pytorch import device_runtime
from tapeout.runtime import clock
from tapeout.runtime.process import session
from tapeout.workbench import limits
from tapeout.workbench.limits import Need

BF16, F32 = torch.bfloat16, torch.float32
aten = torch.ops.aten
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A call of a family: `function` of tensors of these shapes and types; `need` as `tapeout.workbench.limits` has it;
    `bar` the share of the limit that is asked for."""

    family: str
    name: str
    function: Callable[..., Any]
    operands: tuple[tuple[Shape, torch.dtype], ...]
    need: Need
    bar: float


@dataclass(frozen=True)
class Result:
    family: str
    name: str
    us: float
    limit_us: float
    limit: str
    bar: float
    launches: int
    reason: str

    @property
    def share(self) -> float:
        return self.limit_us / self.us


def _text(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def _of_size(shape: Shape, dtype: torch.dtype = BF16) -> int:
    return math.prod(shape) * dtype.itemsize


def _lanes(name: str, elements: int, operands: int, results: int, **other: Any) -> Need:
    plain, special = limits.lanes_of(name, elements, operands, results)
    return Need(plain=plain, special=special, **other)


def _mapped(
    name: str, function: Callable[..., Any], shape: Shape, count: int = 1, dtype: torch.dtype = BF16, key: str = ""
) -> Case:
    """An element-by-element function of `count` operands."""
    halves = dtype in limits.HALVES
    moved = (count + 1) * _of_size(shape, dtype)
    need = _lanes(key or name, math.prod(shape), halves * count, halves, hbm_bytes=moved)
    text = f"{name} {_text(*shape)} {str(dtype).removeprefix('torch.')}"
    return Case("elementwise", text, function, ((shape, dtype),) * count, need, 0.75)


def _elementwise() -> Iterator[Case]:
    for shape in ((8192, 4096), (4095, 4097)):
        yield _mapped("add", torch.add, shape, 2)
        yield _mapped("mul", torch.mul, shape, 2)
        yield _mapped("gelu", functional.gelu, shape)
        yield _mapped("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh"), shape)
        yield _mapped("silu", functional.silu, shape)
        yield _mapped("relu", functional.relu, shape)
    yield _mapped("exp", torch.exp, (8192, 4096))
    yield _mapped("tanh", torch.tanh, (8192, 4096))
    yield _mapped("sigmoid", torch.sigmoid, (8192, 4096))
    yield _mapped("div", torch.div, (8192, 4096), 2)
    yield _mapped("add", torch.add, (8192, 4096), 2, F32)
    yield _mapped("gelu", functional.gelu, (8192, 4096), 1, F32)
    for function in (lambda a, b: functional.silu(a) * b, torch.compile(lambda a, b: functional.silu(a) * b)):
        case = _mapped("swiglu", function, (4096, 14336), 2)
        compiled = ", compiled" * hasattr(function, "_torchdynamo_orig_callable")
        yield Case(case.family, case.name + compiled, function, case.operands, case.need, case.bar)


def _copies() -> Iterator[Case]:
    def case(family: str, name: str, function: Callable[..., Any], shape: Shape, bar: float, **types: Any) -> Case:
        dtype, to = types.get("dtype", BF16), types.get("to", types.get("dtype", BF16))
        moved = _of_size(shape, dtype) + _of_size(shape, to)
        need = Need(moved, plain=math.prod(shape) if dtype != to else 0)
        return Case(family, f"{name} {_text(*shape)}", function, ((shape, dtype),), need, bar)

    for shape in ((8192, 4096), (4095, 4097)):
        yield case("copies", "clone", torch.clone, shape, 0.75)
        yield case("copies", "bfloat16 to float32", lambda x: x.float(), shape, 0.75, to=F32)
        yield case("copies", "float32 to bfloat16", lambda x: x.bfloat16(), shape, 0.75, dtype=F32, to=BF16)
    for shape, dims in (
        ((8192, 4096), (1, 0)), ((5003, 3001), (1, 0)), ((8, 2048, 32, 128), (0, 2, 1, 3)),
        ((8, 320, 64, 64), (0, 2, 3, 1)), ((8, 64, 64, 320), (0, 3, 1, 2)), ((64, 48, 33, 130), (3, 1, 2, 0)),
        ((32, 100, 80, 77), (2, 0, 3, 1)),
    ):  # fmt: skip
        name = f"permute {dims} of"
        yield case("transposes", name, lambda x, dims=dims: x.permute(dims).contiguous(), shape, 0.60)
    yield case("transposes", "transpose", lambda x: x.t().contiguous(), (4096, 4096), 0.60, dtype=F32)


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight)


def _layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], weight, bias)


def _norms() -> Iterator[Case]:
    def case(name: str, function: Callable[..., Any], shape: Shape, others: tuple[Any, ...], key: str, moved: int = 2):
        need = _lanes(key, math.prod(shape), moved - 1, 1, hbm_bytes=moved * _of_size(shape))
        return Case("norms", f"{name} {_text(*shape)}", function, ((shape, BF16), *others), need, 0.75)

    for rows, columns in ((8192, 4096), (4096, 8192), (2047, 3000), (64, 4096)):
        weight = ((columns,), BF16)
        yield case("rms_norm", _rms, (rows, columns), (weight,), "_fused_rms_norm")
        yield case("layer_norm", _layer, (rows, columns), (weight, weight), "native_layer_norm")
    shape, statistics = (8192, 4096), ((8192, 1), F32)
    yield case(
        "layer_norm backward",
        lambda g, x, m, r, w, b: aten.native_layer_norm_backward(g, x, [x.shape[-1]], m, r, w, b, [True] * 3),
        shape, ((shape, BF16), statistics, statistics, ((4096,), BF16), ((4096,), BF16)), "native_layer_norm_backward",
        3,
    )  # fmt: skip
    yield case(
        "rms_norm backward",
        lambda g, x, r, w: aten._fused_rms_norm_backward(g, x, [x.shape[-1]], r, w, [True] * 2),
        shape, ((shape, BF16), statistics, ((4096,), BF16)), "_fused_rms_norm_backward", 3,
    )  # fmt: skip
    for shape in ((8, 320, 64, 64), (2, 960, 33, 35)):
        channels = ((shape[1],), BF16)
        yield case(
            "group_norm", lambda x, w, b: functional.group_norm(x, 32, w, b), shape, (channels,) * 2,
            "native_group_norm",
        )  # fmt: skip
        running = ((shape[1],), F32)
        yield case(
            "batch_norm, training", lambda x, m, v, w, b: functional.batch_norm(x, m, v, w, b, True), shape,
            (running,) * 4, "native_batch_norm",
        )  # fmt: skip
        samples, length = shape[0], math.prod(shape[2:])
        statistics = ((samples, 32), F32)
        yield case(
            "group_norm backward",
            lambda g, x, m, r, w, s=shape, n=length: aten.native_group_norm_backward(
                g, x, m, r, w, s[0], s[1], n, 32, [True] * 3
            ),
            shape, ((shape, BF16), statistics, statistics, channels), "native_group_norm_backward", 3,
        )  # fmt: skip
        yield case(
            "batch_norm backward",
            lambda g, x, m, r, w: aten.native_batch_norm_backward(g, x, w, m, r, m, r, True, 1e-5, [True] * 3),
            shape, ((shape, BF16), running, running, running), "native_batch_norm_backward", 3,
        )  # fmt: skip


def _softmaxes() -> Iterator[Case]:
    def case(name: str, function: Callable[..., Any], shape: Shape, key: str, written: bool, *others: Any) -> Case:
        need = _lanes(key, math.prod(shape), 1, written, hbm_bytes=(1 + written) * _of_size(shape))
        operands = ((shape, BF16), *others)
        return Case("softmax and cross-entropy", f"{name} {_text(*shape)}", function, operands, need, 0.75)

    yield case("softmax", lambda x: functional.softmax(x, -1), (16384, 4096), "_softmax", True)
    yield case("softmax", lambda x: functional.softmax(x, -1), (3001, 1999), "_softmax", True)
    yield case("log_softmax", lambda x: functional.log_softmax(x, -1), (4096, 32000), "_log_softmax", True)
    for rows, columns in ((4096, 32000), (1023, 50257)):
        target = ((rows,), torch.int64)
        yield case("cross_entropy", functional.cross_entropy, (rows, columns), "cross_entropy", False, target)
    yield case(
        "cross_entropy and gradient", _gradient, (4096, 32000), "cross_entropy_backward", True, ((4096,), torch.int64)
    )


def _gradient(x: torch.Tensor, target: torch.Tensor) -> None:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        functional.cross_entropy(x, target).backward()


def _rows_of_tables() -> Iterator[Case]:
    for count, rows, size in ((65536, 1 << 20, 128), (8192, 128256, 4096), (10007, 1 << 20, 100)):
        need = Need(2 * _of_size((count, size)) + 8 * count)
        text = f"{count} rows of {2 * size} B"
        operands = (((count,), torch.int64), ((rows, size), BF16))
        yield Case("embedding", f"embedding {text}", functional.embedding, operands, need, 0.75)
    yield Case(
        "embedding", "index_select 65536 rows of 256 B", lambda i, x: x.index_select(0, i),
        (((65536,), torch.int64), ((1 << 20, 128), BF16)), Need(2 * 65536 * 256 + 8 * 65536), 0.75,
    )  # fmt: skip


def _reductions() -> Iterator[Case]:
    shape = (64, 512, 1024)
    for dims in ((2,), (1,), (0,), (0, 1), (0, 2), (0, 1, 2)):
        need = _lanes("sum", math.prod(shape), 1, 0, hbm_bytes=_of_size(shape))
        name = f"sum over {dims} of {_text(*shape)}"
        yield Case("reductions", name, lambda x, dims=dims: x.sum(dims), ((shape, BF16),), need, 0.75)
    need = _lanes("sum", 3001 * 5003, 1, 0, hbm_bytes=_of_size((3001, 5003)))
    for dim in (0, 1):
        name = f"sum over {dim} of 3001x5003"
        yield Case("reductions", name, lambda x, dim=dim: x.sum(dim), (((3001, 5003), BF16),), need, 0.75)
    for name, function in (("amax", lambda x: x.amax(-1)), ("mean", lambda x: x.mean(-1))):
        need = _lanes(name, 8192 * 4096, 1, 0, hbm_bytes=_of_size((8192, 4096)))
        yield Case("reductions", f"{name} of 8192x4096", function, (((8192, 4096), BF16),), need, 0.75)


def _orders() -> Iterator[Case]:
    def case(name: str, function: Callable[..., Any], shape: Shape, key: str, dtype: torch.dtype, written: int) -> Case:
        need = _lanes(key, math.prod(shape), 1, written, hbm_bytes=(1 + written) * _of_size(shape, dtype))
        return Case("scans and argmax", f"{name} {_text(*shape)}", function, ((shape, dtype),), need, 0.60)

    yield case("cumsum over 1 of", lambda x: x.cumsum(1), (8192, 4096), "cumsum", BF16, 1)
    yield case("cumsum over 0 of", lambda x: x.cumsum(0), (8192, 4096), "cumsum", BF16, 1)
    yield case("cumsum over 1 of", lambda x: x.cumsum(1), (3001, 3001), "cumsum", BF16, 1)
    yield case("argmax", lambda x: x.argmax(-1), (4096, 32000), "argmax", BF16, 0)
    yield case("argmax over 0 of", lambda x: x.argmax(0), (8192, 4096), "argmax", BF16, 0)
    yield case("max over 1 of", lambda x: x.max(-1), (8191, 4097), "argmax", BF16, 0)
    # Bars of at most 3 and 12 passes: a pass reads and writes what is sorted.
    for rows, columns, k in ((64, 32000, 50), (8, 128256, 64)):
        need = Need(2 * _of_size((rows, columns)))
        yield Case(
            "top-k",
            f"topk {k} of {_text(rows, columns)}",
            lambda x, k=k: x.topk(k),
            (((rows, columns), BF16),),
            need,
            1 / 3,
        )
    for shape in ((1 << 20,), (8192, 1024)):
        need = Need(2 * _of_size(shape, F32))
        yield Case("sort", f"sort of {_text(*shape)} float32", lambda x: x.sort(-1), ((shape, F32),), need, 1 / 12)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _decode() -> Iterator[Case]:
    for batch, heads, groups, keys, size, values in (
        (8, 32, 8, 4096, 128, 128), (1, 32, 8, 32768, 128, 128), (64, 32, 8, 1024, 128, 128),
        (1, 64, 8, 131072, 128, 128), (256, 32, 8, 1024, 128, 128), (8, 32, 32, 4096, 128, 128),
        (8, 32, 8, 4001, 128, 128), (8, 128, 1, 4096, 576, 512),
    ):  # fmt: skip
        shapes = ((batch, heads, 1, size), (batch, groups, keys, size), (batch, groups, keys, values))
        moved = sum(map(_of_size, shapes)) + _of_size((batch, heads, values))
        if values < size:  # MLA: values are a part of the keys
            moved -= _of_size(shapes[2])
        products = float(batch * heads * keys * (size + values))
        name = f"decode {batch}x{heads}/{groups} heads, {keys} keys of {size}"
        function = _attention if values == size else lambda q, k, v: _attention(q, k, k[..., :512])
        need = Need(moved, {"bfloat16": products})
        operands = tuple((shape, BF16) for shape in shapes)
        yield Case("decode attention", name, function, operands, need, 0.75 if keys >= 4000 else 0.5)


def _optimisers() -> Iterator[Case]:
    def adamw(*tensors: torch.Tensor) -> None:
        count = len(tensors) // 4
        parts = [list(tensors[i * count : (i + 1) * count]) for i in range(4)]
        steps = [torch.empty((), device="chip")] * count
        torch._fused_adamw_(
            *parts,
            [],
            steps,
            lr=1e-3,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.01,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    for count, shape in ((4, (4096, 1024)), (64, (512, 512))):
        elements = count * math.prod(shape)
        need = _lanes("adamw", elements, 0, 0, hbm_bytes=28 * elements)
        operands = ((shape, F32),) * (4 * count)
        yield Case("optimisers", f"fused AdamW, {count} of {_text(*shape)} float32", adamw, operands, need, 0.75)


def _products() -> Iterator[Case]:
    for rows, columns, inner, bar in (
        (4096, 4096, 4096, 0.90), (1000, 1000, 1000, 0.70), (3000, 5000, 777, 0.70), (128, 4096, 4096, 0.75),
        (32, 4096, 14336, 0.75), (16, 4096, 4096, 0.75), (512, 14336, 4096, 0.75), (1, 8192, 8192, 0.75),
    ):  # fmt: skip
        moved = 2 * (rows * inner + columns * inner + rows * columns)
        need = Need(moved, {"bfloat16": float(rows * columns * inner)})
        operands = (((rows, inner), BF16), ((inner, columns), BF16))
        yield Case("products", f"mm {_text(rows, columns, inner)}", torch.mm, operands, need, bar)
    shape = (64, 1024, 64)
    need = Need(2 * 64 * (2 * 1024 * 64 + 1024 * 1024), {"bfloat16": 64 * 1024.0 * 1024 * 64})
    yield Case("products", "bmm 64x1024x64x1024", lambda a, b: a @ b.mT, ((shape, BF16),) * 2, need, 0.70)


def _convolutions() -> Iterator[Case]:
    for batch, channels, side, filters, width, stride in (
        (64, 64, 56, 64, 3, 1), (64, 256, 14, 256, 3, 1), (8, 320, 64, 320, 3, 1), (64, 64, 56, 256, 1, 1),
        (64, 3, 224, 64, 7, 2),
    ):  # fmt: skip
        out = side // stride
        images, weights = (batch, channels, side, side), (filters, channels, width, width)
        moved = _of_size(images) + _of_size(weights) + _of_size((batch, filters, out, out))
        need = Need(moved, {"bfloat16": float(batch * filters * out * out * channels * width * width)})
        function = lambda x, w, s=stride, p=width // 2: functional.conv2d(x, w, stride=s, padding=p)  # noqa: E731
        name = f"conv2d {width}x{width} stride {stride}, {_text(*images)} to {filters}"
        yield Case("convolutions", name, function, ((images, BF16), (weights, BF16)), need, 0.30)


def _prefill() -> Iterator[Case]:
    for batch, heads, length, size, causal in (
        (1, 32, 4096, 128, False),
        (4, 32, 2048, 128, True),
        (2, 16, 1000, 64, True),
    ):
        shape = (batch, heads, length, size)
        need = Need(
            4 * _of_size(shape), {"bfloat16": 2.0 * batch * heads * length**2 * size / (1 + causal)},
            special=batch * heads * length**2 / (1 + causal), plain=3 * batch * heads * length**2 / (1 + causal),
        )  # fmt: skip
        function = lambda q, k, v, c=causal: functional.scaled_dot_product_attention(q, k, v, is_causal=c)  # noqa: E731
        name = f"attention{', causal' * causal} {_text(*shape)}"
        yield Case("prefill attention", name, function, ((shape, BF16),) * 3, need, 0.65 if causal else 0.70)


FAMILIES = (
    _elementwise, _copies, _norms, _softmaxes, _rows_of_tables, _reductions, _orders, _decode, _optimisers, _products,
    _convolutions, _prefill,
)  # fmt: skip


def cases() -> Iterator[Case]:
    for family in FAMILIES:
        yield from family()


def measure(case: Case, chip: chips.Chip, now: clock.VirtualClock) -> Result:
    """Time the second call: the first compiles and makes what is kept."""
    tensors = [torch.empty(shape, dtype=dtype, device="chip") for shape, dtype in case.operands]
    with torch.no_grad():
        case.function(*tensors)
        now.empty_sram()
        _ = now.elapsed
        first = len(now.activities)
        case.function(*tensors)
        _ = now.elapsed
    activities = now.activities[first:]
    launches = [activity for activity in activities if activity.kind is clock.Kind.KERNEL]
    assert len(launches) == len(activities), f"{case.name}: {[a.name for a in activities if a not in launches]}"
    limit = limits.limit_of(case.need, chip)
    taken_ps = sum(activity.duration_ps for activity in launches)
    reason = limits.reason_of(launches, chip)
    now.activities.clear()
    us = taken_ps / 1e6
    return Result(case.family, case.name, us, limit.seconds * 1e6, limit.name, case.bar, len(launches), reason)


def main(chip_name: str, *wanted: str) -> None:
    chip = chips.activate(chip_name)
    now = session.turn_on(only=True)
    now.record = True
    device_runtime.name_operators()
    for case in cases():
        if not wanted or any(text in f"{case.family}: {case.name}" for text in wanted):
            print(json.dumps(asdict(measure(case, chip, now))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
