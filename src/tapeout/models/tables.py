"""Operators as tables: which there are, the fields that give one its shape, and rows of them as arrays.

An operator is a row. One operator is a table of one row, so a single question and a million go the same way. Canonical
keys name a shape whatever machine ran it, and their hash decides which measured rows may be fitted (`may_fit`), which
check a fit (`may_check`), and which are kept for others to judge and are never read.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.errors import TapeoutError

Array = NDArray[np.float64]


class ModelError(TapeoutError, ValueError):
    """An operator, a table of operators or a set of parameters that cannot be used; the message says why."""


@dataclass(frozen=True)
class Kind:
    """A kind of operator: its size fields in canonical order, which of them have a default, and what it is."""

    name: str
    meaning: str
    fields: tuple[str, ...]
    defaults: Mapping[str, float]
    words: tuple[str, ...] = ()  # fields that hold a word

    @property
    def all_fields(self) -> tuple[str, ...]:
        return self.fields + self.words


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("gemm", "matrix product (m x k) (k x n)", ("m", "n", "k"), {}),
        Kind(
            "context_attention",
            "attention of a prompt, causal",
            ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
            {"num_key_value_heads": 0, "head_dim": 128, "window_size": 0},
            ("kv_cache_dtype",),
        ),
        Kind(
            "generation_attention",
            "attention of one new token a sequence over a cache of `step` tokens",
            ("batch_size", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
            {"num_key_value_heads": 0, "head_dim": 128, "window_size": 0},
            ("kv_cache_dtype",),
        ),
        Kind(
            "context_mla",
            "multi-head latent attention of a prompt",
            ("batch_size", "isl", "num_heads"),
            {"num_heads": 128},
            ("kv_cache_dtype",),
        ),
        Kind(
            "generation_mla",
            "multi-head latent attention of one new token a sequence",
            ("batch_size", "step", "num_heads"),
            {"num_heads": 128},
            ("kv_cache_dtype",),
        ),
        Kind(
            "moe",
            "mixture of experts: two grouped products and the gated activation between them",
            ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
            {"moe_tp_size": 1, "moe_ep_size": 1},
            ("distribution",),
        ),
        *(
            Kind(name, meaning, ("num_gpus", "message_size"), {})
            for name, meaning in (
                ("all_reduce", "sum over chips, everywhere; message_size counts elements"),
                ("all_gather", "concatenation over chips; message_size counts elements of the result"),
                ("reduce_scatter", "sum over chips, a share each; message_size counts elements"),
                ("alltoall", "each chip's share to every other; message_size counts elements"),
            )
        ),
        Kind("norm", "layer or RMS norm of rows", ("rows", "columns"), {}),
        Kind("softmax", "softmax of rows", ("rows", "columns"), {}),
        Kind("elementwise", "elementwise operator", ("elements", "inputs"), {"inputs": 1}),
        Kind("embedding", "gather of rows, summed over a bag", ("rows", "columns", "bag"), {"bag": 1}),
        Kind(
            "convolution",
            "2-d convolution, as the matrix product it is",
            ("batch", "channels", "height", "width", "filters", "kernel", "stride"),
            {"stride": 1},
        ),
    )
}
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
DTYPE_BYTES: dict[str, float] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_block": 1,
    "float8": 1,
    "int8": 1,
    "sq": 1,
    "int8_wo": 1,
    "int4_wo": 0.5,
    "nvfp4": 0.5625,
    "w4a16_mxfp4": 0.53125,
    "w4a4_mxfp4": 0.53125,
    "w4a8_mxfp4_mxfp8": 0.53125,
    "float4": 0.5,
}
"""Bytes of a weight by the names tables use, block scales included."""
PEAK_OF_DTYPE: dict[str, str] = {
    "half": "float16",
    "fp8": "float8",
    "fp8_block": "float8",
    "sq": "int8",
    "int8_wo": "bfloat16",
    "int4_wo": "bfloat16",
    "nvfp4": "float4",
    "w4a16_mxfp4": "bfloat16",
    "w4a4_mxfp4": "float4",
    "w4a8_mxfp4_mxfp8": "float8",
}
"""The element type whose peak a product with operands of that name can reach; others are their own."""
DISTRIBUTIONS = ("balanced", "power_law_1.01", "power_law_1.2")
LARGEST = 1e15


@dataclass(frozen=True)
class Table:
    """Rows of one kind and one element type. `seconds` is what was measured, where it was."""

    kind: Kind
    dtype: str
    columns: Mapping[str, Array]
    words: Mapping[str, NDArray[np.str_]]
    seconds: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, field: str) -> Array:
        return self.columns[field]

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Table":
        return replace(
            self,
            columns={name: values[chosen] for name, values in self.columns.items()},
            words={name: values[chosen] for name, values in self.words.items()},
            seconds=None if self.seconds is None else self.seconds[chosen],
        )

    def keys(self) -> list[str]:
        """Canonical keys, as in "gemm|bfloat16|m=128,n=4096,k=4096"."""
        parts = [
            *((name, [f"{value:.0f}" for value in self.columns[name]]) for name in self.kind.fields),
            *((name, list(self.words[name])) for name in self.kind.words),
        ]
        head = f"{self.kind.name}|{self.dtype}|"
        names = [name for name, _ in parts]
        return [
            head + ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            for values in zip(*(values for _, values in parts), strict=True)
        ]


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several tables of one kind and element type, without what was measured."""
    first = tables[0]
    return Table(
        first.kind,
        first.dtype,
        {name: np.concatenate([each.columns[name] for each in tables]) for name in first.columns},
        {name: np.concatenate([each.words[name] for each in tables]) for name in first.words},
    )


def numbers_of(words: NDArray[np.str_], number: Callable[[str], float]) -> Array:
    """A number for each word."""
    found = np.empty(len(words))
    if len(words) and (words == words[0]).all():
        found[:] = number(str(words[0]))
        return found
    for word in np.unique(words):
        found[words == word] = number(str(word))
    return found


def share_of_hash(key: str) -> float:
    """Return where a key lies between 0 and 1, the same for everybody."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


FIT_BELOW, CHECK_BELOW = 0.25, 0.5


def table(kind_name: str, dtype: str, **values: float | str | Sequence[float] | Array) -> Table:
    """Rows from sizes by field name; what has a default may be left out. Raises ModelError for an unknown operator,
    element type or field and for a size that is no size."""
    kind = kind_called(kind_name)
    if dtype not in DTYPE_BYTES:
        raise ModelError(f"unknown element type {dtype!r}; known: {', '.join(DTYPE_BYTES)}")
    for name in values:
        if name not in kind.all_fields:
            raise ModelError(f"{kind_name} has no field {name!r}; it has {', '.join(kind.all_fields)}")
    count = max((np.size(value) for name, value in values.items() if name in kind.fields), default=1)
    columns: dict[str, Array] = {}
    for name in kind.fields:
        if name not in values and name not in kind.defaults:
            raise ModelError(f"{kind_name} needs {name}; it takes {', '.join(kind.fields)}")
        given = values.get(name, kind.defaults.get(name))
        columns[name] = np.broadcast_to(np.asarray(given, np.float64), (count,)).copy()
        fault = first_fault(name, columns[name], kind)
        if fault is not None:
            raise ModelError(f"{kind_name} {fault[1]}")
    if "num_key_value_heads" in columns:
        own = columns["num_key_value_heads"]
        columns["num_key_value_heads"] = np.where(own == 0, columns["num_heads"], own)
    words = {}
    for name in kind.words:
        default = "power_law_1.2" if name == "distribution" else dtype if DTYPE_BYTES[dtype] <= 2 else "bfloat16"
        words[name] = np.broadcast_to(np.asarray(values.get(name, default), np.str_), (count,)).copy()
        known = DISTRIBUTIONS if name == "distribution" else tuple(DTYPE_BYTES)
        for word in np.unique(words[name]):
            if word not in known:
                raise ModelError(f"{kind_name} {name}={str(word)!r} is not known; known: {', '.join(known)}")
    made = Table(kind, dtype, columns, words)
    contradiction = first_contradiction(made)
    if contradiction is not None:
        raise ModelError(f"{kind_name} {contradiction[1]}")
    return made


def kind_called(name: str) -> Kind:
    if name not in KINDS:
        raise ModelError(f"unknown operator {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name]


def first_fault(name: str, values: Array, kind: Kind) -> tuple[int, str] | None:
    """The first value of a field that is no size, as (row, end of a sentence), or None."""
    may_be_zero = name in ("window_size", "num_key_value_heads") and name in kind.defaults
    least = 0 if may_be_zero else 1
    bad = ~(np.isfinite(values) & (values >= least) & (values <= LARGEST) & (values == np.floor(values)))
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    return row, f"{name}={values[row]:g} is not a size; it is a whole number from {least} to {LARGEST:g}"


def first_contradiction(rows: Table) -> tuple[int, str] | None:
    """The first row whose sizes contradict each other, as (row, end of a sentence), or None."""

    def found(bad: NDArray[np.bool_], what: str, *names: str) -> tuple[int, str] | None:
        if not bad.any():
            return None
        row = int(np.argmax(bad))
        return row, ", ".join(f"{name}={rows[name][row]:g}" for name in names) + f": {what}"

    if "num_key_value_heads" in rows.columns:
        heads, shared = rows["num_heads"], rows["num_key_value_heads"]
        return found(shared > heads, "more key heads than query heads", "num_heads", "num_key_value_heads")
    if rows.kind.name == "moe":
        return found(rows["topk"] > rows["num_experts"], "more experts a token than experts", "topk", "num_experts")
    if rows.kind.name in COLLECTIVES:
        return found(rows["num_gpus"] < 2, "a collective joins at least 2 chips", "num_gpus")
    if rows.kind.name == "convolution":
        smaller = np.minimum(rows["height"], rows["width"]) < rows["kernel"]
        return found(smaller, "the kernel is larger than the picture", "height", "width", "kernel")
    return None
