"""A step of a server as its scheduler makes it: prompts in pieces and new tokens of many sequences, in one batch.

Takes what a step works on; gives its seconds, by what bounds them. Everything but attention depends on the number of
tokens alone; attention on its sequences. Both are answered from tables made in one question of the operator models, so
a step costs microseconds here.

Approximations: sequences that write one token are timed at their mean context (their caches are read as bytes); pieces
of prompts as that many prompts of the length that has as many pairs of query and key. Between the sizes of a table
times are interpolated linearly.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.models.step import ModelShape, Operation, Step, operations
from tapeout.models.tables import Table, joined, table
from tapeout.models.timers import Timer

Array = NDArray[np.float64]

BOUNDS = ("matrix", "memory", "vector", "link", "launch")
ATTENTION = ("context_attention", "generation_attention", "context_mla", "generation_mla")


@dataclass(frozen=True)
class Work:
    """`prompts`: pieces of prompts, as new tokens and tokens of the sequence with them. `contexts`: tokens so far of
    each sequence that writes its next one. `sampled`: sequences that get a token."""

    prompts: Sequence[tuple[int, int]]
    contexts: Sequence[int]
    sampled: int

    @property
    def tokens(self) -> int:
        return sum(new for new, _ in self.prompts) + len(self.contexts)


@dataclass(frozen=True)
class BatchTime:
    """`by_bound`: seconds by what bounds them, a key for each of `BOUNDS` that occurs."""

    seconds: float
    by_bound: Mapping[str, float]


@dataclass
class BatchTimer:
    """Times of steps of one model on one kind of chip, split over `tp` x `ep` of them."""

    timer: Timer
    model: ModelShape
    tp: int = 1
    ep: int = 1
    weight_dtype: str = "bfloat16"
    cache_dtype: str = "bfloat16"
    largest_tokens: int = 8192
    largest_context: int = 131072
    notes: dict[str, None] = field(default_factory=dict)
    provenance: str = ""
    _linear: tuple[Array, Array] | None = None
    _sampling: tuple[Array, Array] | None = None
    _sums: dict[tuple[int, int], Array] = field(default_factory=dict)
    _attention: dict[tuple[bool, int], tuple[Array, Array]] = field(default_factory=dict)

    def time(self, work: Work) -> BatchTime:
        """Raises ModelError that names a figure the chip lacks."""
        total = self._without_attention(work.tokens, work.sampled)
        if work.contexts:
            total = total + _at(self._of_attention(False, len(work.contexts)), sum(work.contexts) / len(work.contexts))
        if work.prompts:
            pairs = sum(whole**2 - (whole - new) ** 2 for new, whole in work.prompts) / len(work.prompts)
            total = total + _at(self._of_attention(True, len(work.prompts)), math.sqrt(pairs))
        parts = total.tolist()
        return BatchTime(sum(parts), {name: part for name, part in zip(BOUNDS, parts, strict=True) if part})

    def _without_attention(self, tokens: int, sampled: int) -> Array:
        known = self._sums.get((tokens, sampled))
        if known is not None:
            return known
        if self._linear is None:
            self._linear = self._by_size(_sizes(self.largest_tokens), lambda each: not _is_head(each))
            self._sampling = self._by_size(_sizes(min(self.largest_tokens, 4096)), _is_head)
        assert self._sampling is not None
        found = _at(self._linear, tokens)
        if sampled:
            found = found + _at(self._sampling, sampled)
        self._sums[tokens, sampled] = found
        return found

    def _step(self, batch: int, context: int = 1, *, is_prefill: bool = False) -> Step:
        return Step(
            model=self.model,
            batch=batch,
            context=context,
            is_prefill=is_prefill,
            tp=self.tp,
            ep=self.ep,
            weight_dtype=self.weight_dtype,
            cache_dtype=self.cache_dtype,
        )

    def _by_size(self, sizes: Array, chosen: Callable[[Operation], bool]) -> tuple[Array, Array]:
        """Sizes and, for each, seconds by bound of the operators that depend on the number of rows alone."""
        rows: dict[str, list[Operation]] = {}
        for size in sizes:
            for each in (*operations(self._step(int(size))), _sampling(self.model, int(size), self.tp)):
                if each.table.kind.name not in ATTENTION and chosen(each):
                    rows.setdefault(each.name, []).append(each)
        total = np.zeros((len(sizes), len(BOUNDS)))
        for same in rows.values():
            total += self._seconds(joined([row.table for row in same]), same[0].count)
        return sizes, total

    def _of_attention(self, is_prefill: bool, batch: int) -> tuple[Array, Array]:
        key = (is_prefill, batch)
        if key not in self._attention:
            sizes = _sizes(self.largest_context, dense=16, growth=8)
            length = "isl" if is_prefill else "step"
            total = np.zeros((len(sizes), len(BOUNDS)))
            for each in operations(self._step(batch, is_prefill=is_prefill)):
                if each.table.kind.name in ATTENTION:
                    total += self._seconds(_varied(each.table, length, sizes), each.count)
            self._attention[key] = sizes, total
        return self._attention[key]

    def _seconds(self, asked: Table, count: float) -> Array:
        found = self.timer.time(asked)
        self.notes[f"{asked.kind.name} {asked.dtype}: {found.basis}."] = None
        self.provenance = max(self.provenance, str(found.provenance[0]), key=_WEAKNESS.index)
        by_bound = found.bound[:, None] == np.array(BOUNDS)[None, :]
        assert by_bound.any(axis=1).all()
        return np.where(by_bound, found.seconds[:, None] * count, 0.0)


_WEAKNESS = ("", "defined", "measured", "published", "modelled", "assumed")


def _is_head(operation: Operation) -> bool:
    return operation.name in ("head", "sampling")


def _sampling(model: ModelShape, rows: int, tp: int) -> Operation:
    """One pass over the logits, in 32 bits: what the greediest sampler reads."""
    elements = rows * max(model.vocabulary // tp, 1)
    return Operation("sampling", 1, table("elementwise", "float32", elements=elements, inputs=1))


def _varied(one: Table, column: str, values: Array) -> Table:
    count = len(values)
    columns = {name: np.repeat(value, count) for name, value in one.columns.items()} | {column: values}
    return replace(one, columns=columns, words={name: np.repeat(word, count) for name, word in one.words.items()})


def _sizes(largest: int, *, dense: int = 256, growth: int = 32) -> Array:
    """Every size up to `dense`, then `growth` a doubling, up to the largest."""
    doublings = max(np.log2(max(largest, dense) / dense), 0)
    beyond = dense * 2 ** (np.arange(1, int(np.ceil(doublings * growth)) + 1) / growth)
    return np.unique(np.concatenate([np.arange(1, dense + 1), np.minimum(np.ceil(beyond), largest)])).astype(np.float64)


def _at(known: tuple[Array, Array], size: float) -> Array:
    sizes, seconds = known
    place = int(np.searchsorted(sizes, size))
    if place >= len(sizes):  # beyond the table: in proportion
        return np.asarray(seconds[-1] * (size / sizes[-1]))
    if place == 0 or sizes[place] == size:
        return np.asarray(seconds[place])
    share = (size - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
    return np.asarray(seconds[place - 1] + share * (seconds[place] - seconds[place - 1]))
