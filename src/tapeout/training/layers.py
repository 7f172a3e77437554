"""Time of one layer, of the embedding and of the head on a kind of card: forwards, back to the input, and back to the
weights.

Takes a model, how a mesh splits it, and a kind; gives seconds by part, with the share by which each may be wrong. Times
of operators are those of `tapeout.models`; what is added here is which operators a layer has.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tapeout.models.step import ModelShape
from tapeout.models.tables import DTYPE_BYTES, table
from tapeout.training import collectives, shapes
from tapeout.training.collectives import Group
from tapeout.training.fleet import Cards

MATRIX, ATTENTION, VECTOR = "matrix products", "attention", "vector operators"
TENSOR, CONTEXT, EXPERT, DATA, HOST, TRANSFER = (
    "tensor parallel",
    "context parallel",
    "expert parallel",
    "data parallel",
    "host",
    "between stages",
)
PARTS = (MATRIX, ATTENTION, VECTOR, TENSOR, CONTEXT, EXPERT, DATA, HOST, TRANSFER)

ATTENTION_BACKWARD = 2.5 / 0.75
"""Backward over forward time of fused attention: 2.5 times the operations at three quarters of the rate (Dao 2023 and
Shah et al. 2024, figures of forward and backward speed on A100 and H100)."""
VECTOR_BACKWARD = 1.7
"""Backward over forward traffic of norms, activations and residuals: saved inputs are read again beside gradients."""
OPTIMIZER_BYTES = 30.0
"""Traffic of Adam for each parameter: master weight, two moments and gradient read, three and the weight written."""
LOSS_ARRAYS, EAGER_LOSS_ARRAYS = (5, 4), (19, 7)
"""Arrays of two-byte words that the loss moves forwards and backwards, each of a word for every token and word of the
vocabulary: fused, and as Megatron-LM's cross entropy in single precision does it step by step (cast, maximum,
difference, exponential, sum, quotient; product and cast back)."""
ALIGNMENT = 64
UNALIGNED = {32: 1.05, 16: 1.15, 8: 1.35, 4: 2.0, 2: 3.0, 1: 4.0}
"""Time of a product on multipliers of GPUs whose widths are no multiples of 64, by the greatest power of two that
divides them, over that of its neighbours (after Anthony et al. 2024, "The Case for Co-Designing Model Architectures
with Hardware", measured on A100; the last three are assumed). Measured tables hold aligned shapes only."""
TILE = 128
"""Rows to which each expert's tokens are padded in a grouped product."""
GROUPED = 1.15
"""Time of the experts' grouped products over that of one product of their rows (DeepGEMM's tables on H800: 1,550 and
about 1,350 TFLOP/s at best)."""
EXCHANGE_UNITS = 20 / 132
"""Share of a chip's multiprocessors that move tokens while they are exchanged beside products (DeepSeek-V3 technical
report, section 3.2.2)."""
IMBALANCE = 1.1
"""Tokens of the busiest rank of experts over the mean, in training with balancing (assumed; 1.05 to 1.3)."""


@dataclass(frozen=True)
class Split:
    """What of a plan decides a layer's time on one card. `tokens`: of a micro-batch."""

    tp: int = 1
    cp: int = 1
    ep: int = 1
    micro_batch: int = 1
    sequence: int = 2048
    dtype: str = "bfloat16"
    sequence_parallel: bool = True
    fused_attention: bool = True
    dropout: bool = True

    @property
    def tokens(self) -> int:
        return max(self.micro_batch * self.sequence // self.cp, 1)

    @property
    def tokens_of_norms(self) -> int:
        return max(self.tokens // (self.tp if self.sequence_parallel else 1), 1)


@dataclass(frozen=True)
class Pass:
    """Seconds of a pass by part; `low` and `high` as factors of them."""

    seconds: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Passes:
    """Forward, back to the input, and back to the weights."""

    forward: Pass
    backward: Pass
    weight: Pass


def joined(passes: Iterable[tuple[float, Pass]]) -> Pass:
    """A weighted sum of passes; their errors go together."""
    seconds: dict[str, float] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for count, each in passes:
        for part, value in each.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + count * value
            low[part] = low.get(part, 0.0) + count * value * each.low[part]
            high[part] = high.get(part, 0.0) + count * value * each.high[part]
    return Pass(
        MappingProxyType(seconds),
        MappingProxyType({part: low[part] / value if value else 1.0 for part, value in seconds.items()}),
        MappingProxyType({part: high[part] / value if value else 1.0 for part, value in seconds.items()}),
    )


NOTHING = Pass(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


class _Adding:
    """Operators of the three passes, collected and then timed together."""

    def __init__(self, cards: Cards):
        self.cards = cards
        self.products: dict[str, list[tuple[int, str, float, float, float, float]]] = {}
        self.streams: list[tuple[int, float, float, float, float]] = []
        self.sums: list[dict[str, list[float]]] = [{}, {}, {}]

    def product(self, m: float, n: float, k: float, dtype: str, *, times: float = 1.0, part: str = MATRIX) -> None:
        """A product forwards, and its two backwards."""
        rows = self.products.setdefault(dtype, [])
        m, n, k = math.ceil(m), math.ceil(n), math.ceil(k)
        times *= self.unaligned(n, k)
        rows += [(0, part, times, m, n, k), (1, part, times, m, k, n), (2, part, times, k, n, m)]

    def unaligned(self, *widths: int) -> float:
        """How much longer a product takes for its widths. Own chips are simulated with the widths they get."""
        if self.cards.chip.design is not None:
            return 1.0
        return UNALIGNED.get(math.gcd(ALIGNMENT, *widths), 1.0)

    def one_product(self, which: int, m: float, n: float, k: float, times: float, part: str) -> None:
        self.products.setdefault("bfloat16", []).append((which, part, times, math.ceil(m), math.ceil(n), math.ceil(k)))

    def stream(self, elements: float, inputs: float, *, times: float = 1.0, backward: float = VECTOR_BACKWARD) -> None:
        """A pass over memory that reads so many arrays of that many elements and writes one."""
        self.streams += [(0, elements, inputs, times, 1.0), (1, elements, inputs, times * backward, 1.0)]

    def accumulate(self, parameters: float) -> None:
        """Gradients of a micro-batch added to those kept in single precision: read and written once."""
        self.streams.append((2, parameters, 3.0, 1.0, 1.0))

    def seconds(self, which: int, part: str, value: float, low: float = 1.0, high: float = 1.0) -> None:
        kept = self.sums[which].setdefault(part, [0.0, 0.0, 0.0])
        kept[0] += value
        kept[1] += value * low
        kept[2] += value * high

    def attention(self, which: int, times: float, **sizes: float) -> None:
        found = self.cards.timer.time(table("context_attention", "bfloat16", **sizes))
        value = float(found.seconds[0])
        self.seconds(which, ATTENTION, times * value, float(found.low[0]) / value, float(found.high[0]) / value)

    def latent_attention(self, times: tuple[float, float], batch: float, length: float, heads: float) -> None:
        found = self.cards.timer.time(table("context_mla", "bfloat16", batch_size=batch, isl=length, num_heads=heads))
        value = float(found.seconds[0])
        for which in (0, 1):
            low, high = float(found.low[0]) / value, float(found.high[0]) / value
            self.seconds(which, ATTENTION, times[which] * value, low, high)

    def passes(self) -> Passes:
        for dtype, rows in self.products.items():
            m, n, k = (np.array([row[place] for row in rows]) for place in (3, 4, 5))
            found = self.cards.timer.time(table("gemm", dtype, m=m, n=n, k=k))
            for row, value, low, high in zip(rows, found.seconds, found.low, found.high, strict=True):
                self.seconds(row[0], row[1], row[2] * float(value), float(low / value), float(high / value))
        if self.streams:
            elements = np.array([max(math.ceil(row[1]), 1) for row in self.streams])
            inputs = np.array([row[2] for row in self.streams])
            found = self.cards.timer.time(table("elementwise", "bfloat16", elements=elements, inputs=inputs))
            for stream, value, low, high in zip(self.streams, found.seconds, found.low, found.high, strict=True):
                self.seconds(stream[0], VECTOR, stream[3] * float(value), float(low / value), float(high / value))
        return Passes(*(_pass(each) for each in self.sums))


def _pass(sums: Mapping[str, list[float]]) -> Pass:
    return Pass(
        MappingProxyType({part: kept[0] for part, kept in sums.items()}),
        MappingProxyType({part: kept[1] / kept[0] if kept[0] else 1.0 for part, kept in sums.items()}),
        MappingProxyType({part: kept[2] / kept[0] if kept[0] else 1.0 for part, kept in sums.items()}),
    )


PRODUCT_DTYPES = {"float16": "bfloat16", "tfloat32": "bfloat16"}
"""Element types whose products take the time of another's; those of tfloat32 take twice that (`_with_software`)."""


_KEPT: dict[tuple[object, ...], Passes] = {}
"""Passes before software, by what decides them. A key holds its timer, by identity."""


@dataclass(frozen=True, eq=False)
class _Same:
    """Equal if it holds the very same object, which it keeps alive."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def layer(model: ModelShape, index: int, split: Split, cards: Cards) -> Passes:
    """A layer of the model, counted from 0. Raises ModelError that names a figure the kind lacks."""
    is_sparse = shapes.is_sparse(model, index)
    key = (
        model,
        is_sparse,
        split,
        _Same(cards.timer),
        cards.network,
        cards.software.once_per_node,
    )
    if key not in _KEPT:
        _KEPT[key] = _layer(model, index, split, cards)
    return _with_software(_KEPT[key], split, cards, _slower_attention(model, split, cards, _KEPT[key]))


def _layer(model: ModelShape, index: int, split: Split, cards: Cards) -> Passes:
    adding = _Adding(cards)
    is_sparse = shapes.is_sparse(model, index)
    tokens, tp, hidden = split.tokens, split.tp, model.hidden
    dtype = PRODUCT_DTYPES.get(split.dtype, split.dtype)
    heads, shared = model.heads / tp, max(model.key_value_heads / tp, 1)
    if model.latent:
        query = shapes.LATENT_VALUE_SIZE + shapes.ROTARY_SIZE
        adding.product(tokens, shapes.QUERY_RANK + shapes.KEY_RANK + shapes.ROTARY_SIZE, hidden, dtype)
        adding.product(tokens, heads * query, shapes.QUERY_RANK, dtype)
        adding.product(tokens, heads * 2 * shapes.LATENT_VALUE_SIZE, shapes.KEY_RANK, dtype)
        adding.product(tokens, hidden, heads * shapes.LATENT_VALUE_SIZE, dtype)
        adding.stream(tokens * (heads * (query * 2 + shapes.LATENT_VALUE_SIZE) + shapes.QUERY_RANK), 1)
        times = (1 / split.cp, ATTENTION_BACKWARD / split.cp)
        adding.latent_attention(times, split.micro_batch, split.sequence, heads)
    else:
        adding.product(tokens, (heads + 2 * shared) * model.head_size, hidden, dtype)
        adding.product(tokens, hidden, heads * model.head_size, dtype)
        if model.gated:  # rotary positions came with the gate
            adding.stream(tokens * (heads + shared) * model.head_size, 1)
        _attention(adding, model, split, heads, shared)
    norms = split.tokens_of_norms
    adding.stream(norms * hidden, 1, times=2)
    adding.stream(norms * hidden, 2, times=2)
    if is_sparse:
        _experts(adding, model, split, cards, dtype)
    else:
        width = model.intermediate / tp
        adding.product(tokens, (2 if model.gated else 1) * width, hidden, dtype)
        adding.product(tokens, hidden, width, dtype)
        adding.stream(tokens * width, 2 if model.gated else 1)
    _collectives(adding, model, split, cards)
    owned = shapes.attention_parameters(model) + shapes.dense_parameters(model, index)
    adding.accumulate(owned / tp + shapes.expert_parameters(model, index) / split.ep)
    return adding.passes()


def _attention(adding: _Adding, model: ModelShape, split: Split, heads: float, shared: float) -> None:
    batch, length = split.micro_batch, split.sequence
    if split.fused_attention:
        for share, window in ((1 - model.windowed_share, 0), (model.windowed_share, model.window)):
            if share:
                sizes = {
                    "batch_size": batch,
                    "isl": length,
                    "num_heads": math.ceil(heads),
                    "num_key_value_heads": math.ceil(shared),
                    "head_dim": model.head_size,
                    "window_size": window,
                }
                adding.attention(0, share / split.cp, **sizes)
                adding.attention(1, share * ATTENTION_BACKWARD / split.cp, **sizes)
        return
    rows = batch * heads * length / split.cp
    longer = adding.unaligned(model.head_size)
    for which, count in ((0, 1), (1, 2)):
        adding.one_product(which, rows, length, model.head_size, count * longer, ATTENTION)
        adding.one_product(which, rows, model.head_size, length, count * longer, ATTENTION)
    scores = rows * length
    adding.stream(scores, 1, times=2, backward=1.5)  # scale, mask and softmax; dropout


def _experts(adding: _Adding, model: ModelShape, split: Split, cards: Cards, dtype: str) -> None:
    """Routed experts, spread over `ep` cards, and shared ones, split over tp."""
    tokens = split.tokens_of_norms if split.sequence_parallel else split.tokens / split.tp
    pairs = tokens * model.experts_per_token * (IMBALANCE if split.ep > 1 else 1.0)
    mine = max(model.experts / split.ep, 1)
    width = model.expert_intermediate
    rows = mine * math.ceil(pairs / mine / TILE) * TILE
    adding.product(rows, 2 * width, model.hidden, dtype, times=GROUPED)
    adding.product(rows, model.hidden, width, dtype, times=GROUPED)
    memory = adding.cards.chip.require("memory_gb_per_s").to("B/s").value
    weights = 3 * mine * width * model.hidden * DTYPE_BYTES[dtype] / memory
    for which in range(3):  # a grouped product reads the weights of all experts, or writes their gradients
        adding.seconds(which, MATRIX, weights)
    adding.product(tokens, model.experts, model.hidden, "bfloat16")
    adding.stream(tokens * model.experts, 3)
    adding.stream(pairs * model.hidden, 1, times=2, backward=1.0)  # to the experts' order, and back
    adding.stream(pairs * width, 2)
    if model.shared_experts:
        inner = model.shared_experts * width / split.tp
        adding.product(split.tokens, 2 * inner, model.hidden, dtype)
        adding.product(split.tokens, model.hidden, inner, dtype)
        adding.stream(split.tokens * inner, 2)


def _collectives(adding: _Adding, model: ModelShape, split: Split, cards: Cards) -> None:
    network = cards.network
    moved = split.tokens * model.hidden * 2.0
    if split.tp > 1:
        group = Group(split.tp)
        if split.sequence_parallel:
            each = collectives.time_s(network, "all_gather", moved, group)
            each += collectives.time_s(network, "reduce_scatter", moved, group)
        else:
            each = collectives.time_s(network, "all_reduce", moved, group)
        for which in (0, 1):
            adding.seconds(which, TENSOR, 2 * each)
    if split.cp > 1:
        kept = 2.0 * split.micro_batch * split.sequence * max(model.key_value_heads / split.tp, 1) * model.head_size * 2
        each = collectives.time_s(network, "all_gather", kept, Group(split.cp, split.tp))
        adding.seconds(0, CONTEXT, each)
        adding.seconds(1, CONTEXT, 2 * each)
    if split.ep > 1:
        sent = split.tokens / split.tp * model.experts_per_token * model.hidden * 2.0 * IMBALANCE
        if cards.software.once_per_node:
            sent *= _distinct_nodes(model, split, cards) / model.experts_per_token
        each = collectives.time_s(network, "all_to_all", sent, Group(split.ep))
        for which in (0, 1):
            adding.seconds(which, EXPERT, 2 * each)


def _distinct_nodes(model: ModelShape, split: Split, cards: Cards) -> float:
    """Nodes that a token's experts are on, in the mean, experts drawn evenly; all of them if its cards share a node."""
    nodes = math.prod(n for _, n in collectives.spans(cards.topology, Group(split.ep))[1:])
    if nodes == 1:
        return model.experts_per_token
    return nodes * (1 - (1 - 1 / nodes) ** model.experts_per_token)


def _slower_attention(model: ModelShape, split: Split, cards: Cards, passes: Passes) -> float:
    """How much longer fused attention takes with kernels that were not written for the chip."""
    share, copies = cards.software.attention, cards.chip.async_copy
    taken = passes.forward.seconds.get(ATTENTION, 0.0)
    if not share or not split.fused_attention or copies is None or not copies.value or not taken:
        return 1.0
    attended = shapes.attended(model, split.sequence) / model.layers
    flops = 2 * attended * split.tokens * model.heads / split.tp * shapes.head_width(model)
    peak = cards.chip.require("half_tflops").to("op/s").value
    return max(flops / (peak * share) / taken, 1.0)


def exchange_share(overlap: float) -> float:
    """What of an exchange of tokens a layer feels: what is not hidden, and of the rest the multiprocessors it takes."""
    return 1 - overlap + overlap * EXCHANGE_UNITS / (1 - EXCHANGE_UNITS)


def _with_software(passes: Passes, split: Split, cards: Cards, attention: float = 1.0) -> Passes:
    """Products, attention and vector operators at the software's speed, and of collectives what it does not hide."""
    ratio, exposed = cards.software.gemm.value / cards.clock, 1 - cards.software.overlap.value
    width = 2.0 if split.dtype == "tfloat32" else 1.0  # half the rate, twice the bytes
    factor = {
        MATRIX: ratio,
        ATTENTION: ratio * attention,
        VECTOR: cards.software.vector.value,
        TENSOR: exposed,
        EXPERT: exchange_share(cards.software.overlap.value),
        CONTEXT: exposed,
    }

    def scaled(each: Pass) -> Pass:
        seconds = {part: value * width * factor.get(part, 1.0) for part, value in each.seconds.items()}
        return Pass(MappingProxyType(seconds), each.low, each.high)

    return Passes(scaled(passes.forward), scaled(passes.backward), scaled(passes.weight))


def core_attention(model: ModelShape, split: Split, cards: Cards) -> Pass:
    """The forward pass of unfused attention alone, with scores, mask, softmax and dropout: what selective recomputation
    does again."""
    key = ("core attention", model, split, _Same(cards.timer))
    if key not in _KEPT:
        adding = _Adding(cards)
        _attention(adding, model, split, model.heads / split.tp, max(model.key_value_heads / split.tp, 1))
        _KEPT[key] = adding.passes()
    return _with_software(_KEPT[key], split, cards).forward


def embedding(model: ModelShape, split: Split, cards: Cards) -> Passes:
    """The gather of a micro-batch's words."""
    key = ("embedding", model.hidden, split.tokens, _Same(cards.timer))
    if key not in _KEPT:
        adding = _Adding(cards)
        adding.stream(split.tokens * model.hidden, 1)
        _KEPT[key] = adding.passes()
    return _KEPT[key]


def head(model: ModelShape, split: Split, cards: Cards) -> Passes:
    """The product with the vocabulary, and the loss."""
    forward, backward = EAGER_LOSS_ARRAYS if cards.software.eager else LOSS_ARRAYS
    key = ("head", model, split, _Same(cards.timer), forward)
    if key not in _KEPT:
        adding = _Adding(cards)
        words = math.ceil(model.vocabulary / split.tp / TILE) * TILE  # padded
        adding.product(split.tokens, words, model.hidden, "bfloat16")
        adding.stream(split.tokens * words, forward - 1, backward=backward / forward)
        _KEPT[key] = adding.passes()
    return _with_software(_KEPT[key], split, cards)
