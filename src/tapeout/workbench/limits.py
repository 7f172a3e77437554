"""The least time of each operator of a script on a chip, beside the time that its launches took.

The limit is the largest of three times: the bytes of its operands and results over HBM's bandwidth, its products at
the matrix engines' peak, and the least lane operations that its function needs at the vector engines' peak. It says
nothing of how a kernel does it: no tile sizes, no padding, no traffic twice. Takes the calls that a dispatch mode sees
and the activities that the clock recorded meanwhile. A kernel that no operator asked for (Inductor's, a user's) has no
function that is known here; the limit of its program as it is written stands for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from tapeout import chip as chips
from tapeout.chip import Chip
from tapeout.runtime.clock import Activity, Kind, VirtualClock
from tapeout.workbench import profiling, script

HALVES = (torch.bfloat16, torch.float16)
NAMES_OF_DTYPES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float8_e4m3fn: "float8",
    torch.float8_e5m2: "float8",
    torch.int8: "int8",
}
"""The chip's names of what the matrix engine multiplies."""


@dataclass(frozen=True)
class Lanes:
    """Least operations of the vector engine for an element of a function's largest tensor.

    `plain` take a lane a cycle, `special` (roots, quotients, exponentials, ...) the engine's special rate. `in_half`:
    half types are computed as they are; elsewhere each operand and each result of a half type is converted, which is
    one operation more.
    """

    plain: float
    special: float = 0
    in_half: bool = False


ONE = Lanes(1, in_half=True)
LEAST_LANES: Mapping[str, Lanes] = {
    **dict.fromkeys(("clone", "copy_", "_to_copy", "cat", "constant_pad_nd", "fill_", "zero_"), Lanes(0, in_half=True)),
    **dict.fromkeys(("embedding", "index_select", "index", "gather", "sort"), Lanes(0, in_half=True)),
    **dict.fromkeys(("add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "neg", "abs"), ONE),
    **dict.fromkeys(("relu", "where", "masked_fill", "logical_not", "bitwise_and", "bitwise_or", "amax", "amin"), ONE),
    **dict.fromkeys(("div", "reciprocal", "sqrt", "rsqrt"), Lanes(0, 1, in_half=True)),
    **dict.fromkeys(("exp", "log", "sin", "cos"), Lanes(0, 1)),
    **dict.fromkeys(("sum", "mean"), Lanes(1)),
    **dict.fromkeys(("addcmul", "lerp"), Lanes(1)),
    "max": ONE,
    "argmax": Lanes(2, in_half=True),
    "cumsum": Lanes(1),
    "sigmoid": Lanes(2, 2),
    "silu": Lanes(2, 2),
    "tanh": Lanes(3, 2),
    "gelu": Lanes(9, 2),
    "gelu_tanh": Lanes(4, 2),
    "_softmax": Lanes(4, 1),
    "_log_softmax": Lanes(4, 1),
    "native_layer_norm": Lanes(5),
    "native_group_norm": Lanes(4),
    "native_batch_norm": Lanes(4),
    "_fused_rms_norm": Lanes(3),
    "native_layer_norm_backward": Lanes(8),
    "native_group_norm_backward": Lanes(5),
    "native_batch_norm_backward": Lanes(5),
    "_fused_rms_norm_backward": Lanes(6),
    "swiglu": Lanes(3, 2),
    "cross_entropy": Lanes(3, 1),
    "cross_entropy_backward": Lanes(3, 1),
    "rotary": Lanes(2),
    "adamw": Lanes(9, 2),
    "decode": Lanes(0, in_half=True),
}
"""By the operator's name in aten, or the name that the benchmarks give to several in one. Counted by hand from the
formulas with fused multiply-adds: softmax takes the largest, a difference, an exponential, a sum and a product; layer
norm a sum, a difference, a square added, and two products, the last with the bias; GELU the error function as a
polynomial of five terms times an exponential. What stands nowhere here counts no lane."""


@dataclass(frozen=True)
class Need:
    """What no implementation can do without: bytes of operands and results, multiply-accumulates by type, and lane
    operations, plain and at the special rate."""

    hbm_bytes: float = 0
    products: Mapping[str, float] = field(default_factory=dict)
    plain: float = 0
    special: float = 0


@dataclass(frozen=True)
class Limit:
    """The least time, and what takes it: HBM, matrix or lanes."""

    seconds: float
    name: str


def limit_of(need: Need, chip: Chip) -> Limit:
    lanes_per_s = chip.core.vector.lane_count * chip.core_count * chip.clock_hz
    matrix_s = 0.0
    for dtype, count in need.products.items():
        matrix_s += 2 * count / chip.peak_flops_per_s(dtype)
    times = {
        "HBM": need.hbm_bytes / chip.global_memory.bandwidth_bytes_per_s,
        "matrix": matrix_s,
        "lanes": (need.plain + need.special / chip.core.vector.special_rate) / lanes_per_s,
    }
    name = max(times, key=lambda part: times[part])
    return Limit(times[name], name)


def lanes_of(name: str, elements: float, half_operands: int = 0, half_results: int = 0) -> tuple[float, float]:
    """Least plain and special lane operations of a function of so many elements."""
    lanes = LEAST_LANES.get(name, Lanes(0, in_half=True))
    conversions = 0 if lanes.in_half else half_operands + half_results
    return (lanes.plain + conversions) * elements, lanes.special * elements


def need_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Need:
    """The need of one call of an aten operator."""
    operands, results = _tensors((args, kwargs)), _tensors(result)
    written = {_place(tensor) for tensor in results}
    moved = sum(_bytes(tensor) for tensor in _distinct(operands) if _place(tensor) not in written)
    moved += sum(_bytes(tensor) for tensor in _distinct(results))
    name = operator.overloadpacket.__name__
    if name in ROWS_READ:
        moved = 2 * sum(map(_bytes, results)) + sum(_bytes(t) for t in operands if not t.dtype.is_floating_point)
    dtype = NAMES_OF_DTYPES.get(operands[0].dtype, "float32") if operands else "float32"
    operations = _product_operations(operator, args, kwargs, result)
    elements = max((tensor.numel() for tensor in (*operands, *results)), default=0)
    if name == "gelu" and kwargs.get("approximate") == "tanh":
        name = "gelu_tanh"
    large = [tensor for tensor in operands if tensor.numel() == elements and tensor.dtype in HALVES]
    plain, special = lanes_of(
        name.removesuffix("_") if name.removesuffix("_") in LEAST_LANES else name,
        elements,
        len(large),
        sum(tensor.numel() == elements and tensor.dtype in HALVES for tensor in results),
    )
    if name in ("_to_copy", "copy_") and operands and results and operands[-1].dtype != results[0].dtype:
        plain = elements
    return Need(moved, {dtype: operations / 2} if operations else {}, plain, special)


ROWS_READ = ("embedding", "index_select", "index", "gather")
"""Operators that read as much of their operand as they give."""

ATTENTION = "_scaled_dot_product_fused_attention_overrideable"


def _product_operations(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> float:
    packet = operator.overloadpacket
    if packet.__name__ == ATTENTION:
        query, key, value = args[:3]
        queries = (*query.shape[:1], query.shape[1], *query.shape[2:])
        keys, values = ((*query.shape[:2], *tensor.shape[2:]) for tensor in (key, value))
        causal = kwargs.get("is_causal", args[5] if len(args) > 5 else False)
        return float(sdpa_flop_count(queries, keys, values)) / (2 if causal else 1)
    count = flop_registry.get(packet)
    return float(count(*args, **kwargs, out_val=result)) if count else 0.0


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.device.type == "chip"]


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset())


def _distinct(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list({(_place(tensor), tensor.shape, tensor.stride()): tensor for tensor in tensors}.values())


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes of the elements that exist: a dimension of stride 0 repeats them."""
    count = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count


@dataclass
class Call:
    """A call of an aten operator that launched something: its need, and its launches among the clock's activities."""

    name: str
    shapes: str
    need: Need
    launches: Sequence[Activity]


class Calls(TorchDispatchMode):
    """Keeps what every operator needed and launched; `others` are launches that no operator asked for."""

    def __init__(self, now: VirtualClock) -> None:
        super().__init__()
        self.now = now
        self.calls: list[Call] = []
        self._owned: set[int] = set()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What torch.compile has written runs as it would without this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = len(self.now.activities)
        result = func(*args, **(kwargs or {}))
        launches = [activity for activity in self.now.activities[first:] if activity.kind is Kind.KERNEL]
        if launches:
            self._owned.update(map(id, launches))
            shapes = ", ".join(_shape_text(tensor) for tensor in _tensors((args, kwargs)))
            need = need_of(func, args, kwargs or {}, result)
            self.calls.append(Call(func.overloadpacket.__name__, shapes, need, launches))
        return result

    @property
    def others(self) -> list[Activity]:
        return [a for a in self.now.activities if a.kind is Kind.KERNEL and id(a) not in self._owned]


def _shape_text(tensor: torch.Tensor) -> str:
    sizes = "x".join(map(str, tensor.shape)) or "1"
    return f"{str(tensor.dtype).removeprefix('torch.')} {sizes}"


@dataclass(frozen=True)
class Row:
    """All calls of an operator with the same shapes, or all launches of a kernel that no operator asked for
    (`is_program`: then the limit is that of its program as written). `reason`: what held the launches up."""

    name: str
    shapes: str
    calls: int
    launches: int
    total_ps: int
    limit: Limit
    reason: str
    is_program: bool = False

    @property
    def share(self) -> float:
        """The limit as a share of the time."""
        return self.limit.seconds * 1e12 / self.total_ps if self.total_ps else 0.0


def reason_of(launches: Sequence[Activity], chip: Chip) -> str:
    """What filled most of the launches' time, and the share of it; or what the busiest engine waited for."""
    total = sum(activity.duration_ps for activity in launches) or 1
    shares: dict[str, float] = defaultdict(float)
    for activity in launches:
        assert activity.launch is not None
        for name, share in profiling.limits(activity.launch.timing, chip).items():
            shares[name] += share * activity.duration_ps / total
    name = max(shares, key=lambda part: shares[part])
    text = f"{name} {shares[name]:.0%}"
    if shares[name] < profiling.BOUND_SHARE:
        stalls = profiling.stall_shares([activity.launch for activity in launches if activity.launch])
        waits = max(stalls, key=lambda part: stalls[part], default="")
        text = f"waits for {waits} {stalls[waits]:.0%}, {text}" if waits else text
    return text


def rows(calls: Calls, chip: Chip) -> list[Row]:
    """Longest first."""
    groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls.calls:
        groups[call.name, call.shapes].append(call)
    found = []
    for (name, shapes), group in groups.items():
        launches = [activity for call in group for activity in call.launches]
        limits = [limit_of(call.need, chip) for call in group]
        limit = Limit(sum(part.seconds for part in limits), limits[0].name)
        total = sum(activity.duration_ps for activity in launches)
        found.append(Row(name, shapes, len(group), len(launches), total, limit, reason_of(launches, chip)))
    kernels: dict[str, list[Activity]] = defaultdict(list)
    for activity in calls.others:
        kernels[activity.name].append(activity)
    for name, launches in kernels.items():
        total = sum(activity.duration_ps for activity in launches)
        limit = _limit_of_programs(launches, chip)
        found.append(Row(name, "", len(launches), len(launches), total, limit, reason_of(launches, chip), True))
    return sorted(found, key=lambda row: (-row.total_ps, row.name, row.shapes))


def _limit_of_programs(launches: Sequence[Activity], chip: Chip) -> Limit:
    seconds: dict[str, float] = defaultdict(float)
    for activity in launches:
        assert activity.launch is not None
        shares = profiling.limits(activity.launch.timing, chip)
        for name in profiling.ROOFLINE:
            seconds["lanes" if name == "vector" else name] += shares[name] * activity.launch.timing.seconds
    name = max(seconds, key=lambda part: seconds[part])
    return Limit(seconds[name], name)


@dataclass(frozen=True)
class Limits:
    """Limits of a script's operators, and the time that the script took."""

    time: script.RunTime
    chip: Chip
    rows: Sequence[Row]


def limits(asked: script.Script, chip: Chip | str) -> Limits:
    """Run the script in this process, which must not have used the chip yet."""
    seen: list[Calls] = []

    @contextmanager
    def watch(now: VirtualClock) -> Iterator[None]:
        with Calls(now) as calls:
            seen.append(calls)
            yield

    recorded = script.record(asked, chip, watch)
    return Limits(recorded.time, chips.active(), rows(seen[0], chips.active()))
