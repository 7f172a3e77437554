"""Small boosted trees on what a physical form leaves over.

Every tree is oblivious: all nodes of a level ask the same question, so a tree of depth d is d thresholds and 2^d
values, and a million rows are evaluated by array arithmetic. Fitting is deterministic: same rows and seed, same trees.
"""

import base64
import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.models.native import library

Array = NDArray[np.float64]
BINS = 128
"""Bins of a feature; the C++ knows the number too."""
STEPS = 127
"""Leaf values are kept as 8-bit integers times their tree's scale."""


@dataclass(frozen=True)
class Trees:
    """`edges` of each feature's bins, and for each tree the feature and bin of each level and the values of leaves."""

    edges: tuple[Array, ...]
    features: NDArray[np.uint8]  # tree x level
    bins: NDArray[np.uint8]  # tree x level
    values: NDArray[np.int8]  # tree x leaf
    scales: NDArray[np.float32]  # of each tree
    base: float

    def predict(self, features: Array) -> Array:
        """The sum of all trees for each row of `features` (rows x features)."""
        features = np.ascontiguousarray(features)
        total = np.full(len(features), self.base)
        tree_count, depth = self.features.shape
        library().tapeout_sum_trees(
            _at(features),
            len(features),
            len(self.edges),
            _at(self._thresholds),
            tree_count,
            depth,
            _at(np.ascontiguousarray(self.features)),
            _at(np.ascontiguousarray(self.bins)),
            _at(self._leaves),
            _at(total),
        )
        return total

    @cached_property
    def _leaves(self) -> Array:
        return np.ascontiguousarray(self.values * self.scales[:, None].astype(np.float64))

    @cached_property
    def _thresholds(self) -> Array:
        found = np.full((len(self.edges), BINS), np.inf)
        for number, each in enumerate(self.edges):
            found[number, : len(each)] = each
        return found

    def to_dict(self) -> dict[str, object]:
        """Return the trees as plain values that TOML holds."""
        return {
            "base": float(f"{self.base:.6g}"),
            "depth": int(self.features.shape[1]),
            "edges": [[float(f"{edge:.6g}") for edge in edges] for edges in self.edges],
            "features": base64.b64encode(self.features.tobytes()).decode(),
            "bins": base64.b64encode(self.bins.tobytes()).decode(),
            "values": base64.b64encode(self.values.tobytes()).decode(),
            "scales": base64.b64encode(self.scales.astype("<f4").tobytes()).decode(),
        }

    @classmethod
    def from_dict(cls, kept: dict[str, object]) -> "Trees":
        depth = int(str(kept["depth"]))

        def raw(name: str) -> bytes:
            return base64.b64decode(str(kept[name]))

        edges = kept["edges"]
        assert isinstance(edges, list)
        return cls(
            edges=tuple(np.array(each, float) for each in edges),
            features=np.frombuffer(raw("features"), np.uint8).reshape(-1, depth),
            bins=np.frombuffer(raw("bins"), np.uint8).reshape(-1, depth),
            values=np.frombuffer(raw("values"), np.int8).reshape(-1, 1 << depth),
            scales=np.frombuffer(raw("scales"), "<f4").astype(np.float32),
            base=float(str(kept["base"])),
        )


def fit(
    features: Array,
    wanted: Array,
    *,
    tree_count: int = 400,
    depth: int = 6,
    rate: float = 0.1,
    bin_count: int = BINS,
    least_rows: float = 2.0,
    seed: int = 0,
) -> Trees:
    """Trees whose sum comes near `wanted`. Gradients are clipped, so single wild rows do not steer the fit."""
    generator = np.random.default_rng(seed)
    row_count, feature_count = features.shape
    edges = tuple(_edges(features[:, number], bin_count) for number in range(feature_count))
    codes = _codes(edges, features)
    base = float(np.median(wanted))
    current = np.full(row_count, base)
    asked = np.zeros((tree_count, depth), np.uint8)
    bins = np.zeros((tree_count, depth), np.uint8)
    values = np.zeros((tree_count, 1 << depth))
    for tree in range(tree_count):
        left_over = wanted - current
        bound = 2.5 * np.median(np.abs(left_over)) + 1e-9
        gradient = np.clip(left_over, -bound, bound)
        chosen = np.flatnonzero(generator.random(row_count) < 0.8)
        leaves = np.empty(1 << depth)
        library().tapeout_grow_tree(
            _at(codes),
            row_count,
            _at(gradient),
            _at(chosen),
            len(chosen),
            feature_count,
            bin_count,
            depth,
            least_rows,
            _at(asked[tree]),
            _at(bins[tree]),
            _at(leaves),
        )
        leaves *= rate
        values[tree] = leaves
        everywhere = np.zeros(row_count, np.int64)
        for level in range(depth):
            everywhere |= (codes[asked[tree, level]] > bins[tree, level]).astype(np.int64) << level
        current += leaves[everywhere]
    scales = np.maximum(np.abs(values).max(axis=1) / STEPS, 1e-12).astype(np.float32)
    kept = np.rint(values / scales[:, None]).astype(np.int8)
    rounded = tuple(np.array([float(f"{edge:.6g}") for edge in each]) for each in edges)
    return Trees(rounded, asked, bins, kept, scales, float(f"{base:.6g}"))


def _codes(edges: tuple[Array, ...], features: Array) -> NDArray[np.uint8]:
    """The bin of each feature of each row: feature x row."""
    codes = np.empty(features.shape[::-1], np.uint8)
    for number, each in enumerate(edges):
        codes[number] = np.searchsorted(each, features[:, number], side="left")
    return codes


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _edges(values: Array, bin_count: int) -> Array:
    """Return at most `bin_count` - 1 thresholds, at quantiles between distinct values."""
    distinct = np.unique(values)
    if len(distinct) <= bin_count - 1:
        return (distinct[1:] + distinct[:-1]) / 2
    return np.unique(np.quantile(distinct, np.linspace(0, 1, bin_count + 1)[1:-1]))
