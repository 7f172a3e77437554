"""A step of a language model as a list of operators: its time, tokens a second, joules and dollars a token.

Takes a model's shape, a batch and a split over chips; gives the sum of its operators' times in one captured graph.
Kernels follow each other without gaps of the host; the all-reduces of tensor parallelism are not overlapped. A
server's queue, its scheduler and its sampling are not in it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.accelerator import Accelerator
from tapeout.figures import Provenance
from tapeout.models.questions import own_parameters
from tapeout.models.tables import DTYPE_BYTES, ModelError, Table, joined, table
from tapeout.models.timers import Timer
from tapeout.silicon import technology
from tapeout.silicon.ownership import Site, cost_of_work, ownership


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder's sizes, as its published configuration states them. `experts` 0 for a dense model; `latent`:
    multi-head latent attention; `tied`: the head's matrix is the embedding's."""

    name: str
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    window: int = 0
    windowed_share: float = 0.0
    latent: bool = False
    gated: bool = True
    tied: bool = False

    @property
    def parameter_count(self) -> float:
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.key_value_heads)
        dense = (3 if self.gated else 2) * self.hidden * self.intermediate
        mixed = self.experts * 3 * self.hidden * self.expert_intermediate
        sparse_layers = self.layers - self.dense_layers if self.experts else 0
        return (
            self.layers * attention
            + (self.layers - sparse_layers) * dense
            + sparse_layers * mixed
            + 2 * self.vocabulary * self.hidden
        )


def _dense(
    name: str, layers: int, hidden: int, heads: int, shared: int, head: int, inter: int, words: int
) -> ModelShape:
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=shared,
        head_size=head,
        intermediate=inter,
        vocabulary=words,
    )


MODELS = {
    shape.name: shape
    for shape in (
        _dense("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        _dense("llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256),
        _dense("llama-3.1-405b", 126, 16384, 128, 8, 128, 53248, 128256),
        _dense("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000),
        _dense("llama-2-70b", 80, 8192, 64, 8, 128, 28672, 32000),
        _dense("qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936),
        _dense("qwen3-32b", 64, 5120, 64, 8, 128, 25600, 151936),
        _dense("smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152),
        ModelShape(
            name="qwen3-235b-a22b",
            layers=94,
            hidden=4096,
            heads=64,
            key_value_heads=4,
            head_size=128,
            intermediate=12288,
            vocabulary=151936,
            experts=128,
            experts_per_token=8,
            expert_intermediate=1536,
        ),
        ModelShape(
            name="qwen3-30b-a3b",
            layers=48,
            hidden=2048,
            heads=32,
            key_value_heads=4,
            head_size=128,
            intermediate=6144,
            vocabulary=151936,
            experts=128,
            experts_per_token=8,
            expert_intermediate=768,
        ),
        ModelShape(
            name="gpt-oss-120b",
            layers=36,
            hidden=2880,
            heads=64,
            key_value_heads=8,
            head_size=64,
            intermediate=2880,
            vocabulary=201088,
            experts=128,
            experts_per_token=4,
            expert_intermediate=2880,
            window=128,
            windowed_share=0.5,
        ),
        ModelShape(
            name="mixtral-8x7b",
            layers=32,
            hidden=4096,
            heads=32,
            key_value_heads=8,
            head_size=128,
            intermediate=14336,
            vocabulary=32000,
            experts=8,
            experts_per_token=2,
            expert_intermediate=14336,
        ),
        ModelShape(
            name="deepseek-v3",
            layers=61,
            hidden=7168,
            heads=128,
            key_value_heads=128,
            head_size=128,
            intermediate=18432,
            vocabulary=129280,
            experts=256,
            experts_per_token=8,
            expert_intermediate=2048,
            shared_experts=1,
            dense_layers=3,
            latent=True,
        ),
    )
}


def model_called(name: str) -> ModelShape:
    if name.casefold() not in MODELS:
        raise ModelError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    return MODELS[name.casefold()]


@dataclass(frozen=True, kw_only=True)
class Step:
    """`context`: tokens of each sequence so far; a prefill step reads them, a decode step writes the next one."""

    model: ModelShape
    batch: int
    context: int
    is_prefill: bool = False
    tp: int = 1
    ep: int = 1
    weight_dtype: str = "bfloat16"
    cache_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        model = self.model
        if model.heads % self.tp:
            raise ModelError(f"{model.name} has {model.heads} heads, which do not divide over --tp {self.tp}")
        if self.ep > 1 and (not model.experts or model.experts % self.ep):
            raise ModelError(f"{model.name} has {model.experts} experts, which do not divide over --ep {self.ep}")
        if self.weight_dtype not in DTYPE_BYTES:
            raise ModelError(f"unknown element type {self.weight_dtype!r}; known: {', '.join(DTYPE_BYTES)}")

    @property
    def tokens(self) -> int:
        return self.batch * (self.context if self.is_prefill else 1)

    @property
    def weight_bytes(self) -> float:
        """Weights of one chip."""
        return self.model.parameter_count * DTYPE_BYTES[self.weight_dtype] / (self.tp * self.ep)

    @property
    def cache_bytes_per_token(self) -> float:
        """Cache of one token of one sequence, on one chip."""
        model = self.model
        kept = (
            576 / 2 if model.latent else model.key_value_heads * model.head_size / min(self.tp, model.key_value_heads)
        )
        return 2 * model.layers * kept * DTYPE_BYTES[self.cache_dtype]

    @property
    def memory_bytes(self) -> float:
        """Weights and cache of one chip."""
        return self.weight_bytes + self.batch * self.context * self.cache_bytes_per_token


@dataclass(frozen=True)
class Operation:
    """An operator and how often a step runs it."""

    name: str
    count: float
    table: Table


def operations(step: Step) -> Iterator[Operation]:
    """Everything one chip does in a step."""
    model, tp, tokens = step.model, step.tp, step.tokens
    weights = step.weight_dtype
    layers = float(model.layers)
    heads, shared = model.heads // tp, max(model.key_value_heads // tp, 1)
    sparse = layers - model.dense_layers if model.experts else 0.0

    def product(name: str, count: float, n: float, k: float, rows: int = tokens, dtype: str = weights) -> Operation:
        return Operation(name, count, table("gemm", dtype, m=rows, n=math.ceil(n), k=math.ceil(k)))

    yield Operation("embedding", 1, table("embedding", "bfloat16", rows=tokens, columns=model.hidden))
    yield Operation("norms", 2 * layers + 1, table("norm", "bfloat16", rows=tokens, columns=model.hidden))
    if model.latent:
        yield product("latent down-projections", layers, 1536 + 576, model.hidden)
        yield product("latent up-projections", layers, heads * 192, 1536)
        yield product("latent absorption", 2 * layers, heads * 128, 512)
        kind = "context_mla" if step.is_prefill else "generation_mla"
    else:
        yield product("query, key, value", layers, (heads + 2 * shared) * model.head_size, model.hidden)
        kind = "context_attention" if step.is_prefill else "generation_attention"
        rotated = tokens * (heads + shared) * model.head_size
        yield Operation("rotary", layers, table("elementwise", "bfloat16", elements=rotated, inputs=1))
    length = {"isl": step.context} if step.is_prefill else {"step": step.context}
    for share, window in ((1 - model.windowed_share, 0), (model.windowed_share, model.window)):
        if not share:
            continue
        sizes: dict[str, float | str] = {"batch_size": step.batch, **length, "num_heads": heads}
        if not model.latent:
            sizes |= {"num_key_value_heads": shared, "head_dim": model.head_size, "window_size": window}
        asked = table(kind, "bfloat16", kv_cache_dtype=step.cache_dtype, **sizes)
        yield Operation("attention" if not window else "attention, windowed", layers * share, asked)
    yield product("attention output", layers, model.hidden, heads * model.head_size)
    dense = layers - sparse
    if dense:
        inter = model.intermediate / tp
        yield product("gate and up", dense, 2 * inter, model.hidden)
        yield Operation(
            "activation", dense, table("elementwise", "bfloat16", elements=math.ceil(tokens * inter), inputs=2)
        )
        yield product("down", dense, model.hidden, inter)
    if sparse:
        yield product("router", sparse, model.experts, model.hidden, dtype="bfloat16")
        yield Operation(
            "experts",
            sparse,
            table(
                "moe",
                weights,
                num_tokens=tokens,
                hidden_size=model.hidden,
                inter_size=model.expert_intermediate,
                topk=model.experts_per_token,
                num_experts=model.experts,
                moe_tp_size=tp if step.ep == 1 else 1,
                moe_ep_size=step.ep,
            ),
        )
        if model.shared_experts:
            inter = model.shared_experts * model.expert_intermediate / tp
            yield product("shared expert, gate and up", sparse, 2 * inter, model.hidden)
            yield product("shared expert, down", sparse, model.hidden, inter)
    if tp > 1:
        size = tokens * model.hidden
        yield Operation("all-reduce", 2 * layers, table("all_reduce", "half", num_gpus=tp, message_size=size))
    if step.ep > 1:
        size = max(tokens * model.experts_per_token * model.hidden // step.ep, 1)
        yield Operation("all-to-all", 2 * sparse, table("alltoall", "half", num_gpus=step.ep, message_size=size))
    last = step.batch if step.is_prefill else tokens
    yield product("head", 1, model.vocabulary / tp, model.hidden, rows=last, dtype="bfloat16")


@dataclass(frozen=True)
class Part:
    name: str
    seconds: float
    low: float
    high: float
    bound: str
    provenance: str


@dataclass(frozen=True)
class StepAnswer:
    """`joules_per_token` and `usd_per_million_tokens` are of all chips of the step; None where power or price is not
    known."""

    seconds: float
    low: float
    high: float
    tokens_per_s: float
    joules_per_token: float | None
    usd_per_million_tokens: float | None
    provenance: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def seconds_of(steps: Sequence[Step], timer: Timer) -> NDArray[np.float64]:
    """Seconds of each of many steps: every kind of operator is timed once, for all of them together. Raises ModelError
    as `Timer.time` does."""
    each = [list(operations(step)) for step in steps]
    found = iter(_timed([operation for of_step in each for operation in of_step], timer))
    return np.array([sum(next(found).seconds for _ in of_step) for of_step in each])


@dataclass(frozen=True)
class _Timed:
    """What an operation takes as often as the step runs it."""

    name: str
    seconds: float
    low: float
    high: float
    bound: str
    provenance: str
    basis: str


def _timed(asked: Sequence[Operation], timer: Timer) -> list[_Timed]:
    groups: dict[tuple[str, str], list[int]] = {}
    for place, operation in enumerate(asked):
        groups.setdefault((operation.table.kind.name, operation.table.dtype), []).append(place)
    found: dict[int, _Timed] = {}
    for (kind, dtype), places in groups.items():
        times = timer.time(joined([asked[place].table for place in places]))
        for row, place in enumerate(places):
            operation = asked[place]
            found[place] = _Timed(
                operation.name,
                float(times.seconds[row]) * operation.count,
                float(times.low[row]) * operation.count,
                float(times.high[row]) * operation.count,
                str(times.bound[row]),
                str(times.provenance[row]),
                f"{kind} {dtype}: {times.basis}.",
            )
    return [found[place] for place in range(len(asked))]


def answer(step: Step, timer: Timer) -> StepAnswer | ModelError:
    """A step on one kind of chip, or why it cannot be told."""
    try:
        timed = _timed(list(operations(step)), timer)
    except ModelError as error:
        return error
    notes: dict[str, None] = dict.fromkeys(each.basis for each in timed)
    parts = [Part(each.name, each.seconds, each.low, each.high, each.bound, each.provenance) for each in timed]
    chips = step.tp * step.ep
    seconds = sum(part.seconds for part in parts)
    # Errors of unlike operators are independent; those of one kind are not, and each part holds one kind.
    below = math.sqrt(sum((part.seconds - part.low) ** 2 for part in parts))
    above = math.sqrt(sum((part.high - part.seconds) ** 2 for part in parts))
    weakest = max((Provenance.named(part.provenance) for part in parts), default=Provenance.MODELLED)
    per_s = step.tokens / seconds
    chip = timer.chip
    joules = None
    if chip.tdp is not None:
        joules = chip.tdp.value * _load(parts) * chips / per_s
    dollars = None
    try:
        costs = ownership(chip, Site(), technology.load())
    except ValueError as missing:
        notes[f"No cost: {missing}."] = None
    else:
        dollars = cost_of_work(costs, per_s / chips, "token").value
    size = chip.dram.size
    if size is not None and step.memory_bytes > size.to("B").value:
        notes[
            f"Does not fit: weights and cache take {step.memory_bytes / 2**30:,.0f} GiB of a chip's "
            f"{size.to('GiB').value:,.0f} GiB."
        ] = None
    return StepAnswer(
        seconds,
        max(seconds - below, 0.0),
        seconds + above,
        per_s,
        joules,
        dollars,
        str(weakest),
        tuple(parts),
        tuple(notes),
    )


def rate_of_chip(step: Step, chip: Accelerator) -> float:
    """Tokens a second of one of the step's chips. Raises ModelError that says what is not known."""
    found = answer(step, Timer(chip=chip, own=own_parameters()))
    if isinstance(found, ModelError):
        raise found
    return found.tokens_per_s / (step.tp * step.ep)


POWER_SHARES = {"matrix": 0.95, "memory": 0.7, "vector": 0.6, "link": 0.4, "launch": 0.35}
"""Share of TDP drawn by what bounds a part: matrix-bound parts near all of it, memory-bound ones less, waiting little.
Assumed."""


def _load(parts: list[Part]) -> float:
    """Share of TDP drawn over all parts."""
    total = sum(part.seconds for part in parts)
    return float(np.sum([part.seconds * POWER_SHARES.get(part.bound, 0.7) for part in parts])) / total
