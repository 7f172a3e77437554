"""Ranking models as lists of operators: the time of a batch of candidates on any chip, kernels in one captured graph.

Tables of embeddings that have one width are one table-batched kernel. Copies of a query to the chip and of its scores
back are not in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tapeout.models.step import Operation
from tapeout.models.tables import table
from tapeout.models.timers import Timer


@dataclass(frozen=True, kw_only=True)
class RankingShape:
    """`bottom` and `top`: layers of the perceptrons. `crosses`: full-rank cross layers over all features side by side
    (DCN-v2); without any, features meet in products of pairs (DLRM)."""

    name: str
    tables: int = 26
    width: int = 64
    dense_features: int = 13
    bottom: tuple[int, ...] = (512, 256, 64)
    top: tuple[int, ...] = (512, 256, 1)
    crosses: int = 0

    @property
    def features(self) -> int:
        """Vectors of `width` that meet each other."""
        return self.tables + 1

    @property
    def pairs(self) -> int:
        return self.features * (self.features - 1) // 2


SHAPES = {
    shape.name: shape
    for shape in (RankingShape(name="dlrm"), RankingShape(name="dcn-v2", crosses=3, top=(1024, 512, 1)))
}


def operations(model: RankingShape, candidates: int, dtype: str = "float32") -> Iterator[Operation]:
    """Everything the chip does to score so many candidates."""

    def layers(name: str, widths: tuple[int, ...]) -> Iterator[Operation]:
        for number, (k, n) in enumerate(pairwise(widths)):
            yield Operation(f"{name} {number}", 1, table("gemm", dtype, m=candidates, n=n, k=k))
            yield Operation(
                f"{name} {number}, activation", 1, table("elementwise", dtype, elements=candidates * n, inputs=1)
            )

    yield Operation("embeddings", 1, table("embedding", dtype, rows=candidates * model.tables, columns=model.width))
    yield from layers("bottom", (model.dense_features, *model.bottom))
    together = model.features * model.width
    yield Operation("features side by side", 1, table("elementwise", dtype, elements=candidates * together, inputs=1))
    if model.crosses:
        yield Operation("cross", model.crosses, table("gemm", dtype, m=candidates, n=together, k=together))
        yield Operation(
            "cross, product", model.crosses, table("elementwise", dtype, elements=candidates * together, inputs=3)
        )
        met = together
    else:
        # A batched product of features x features a candidate, as one of all their rows.
        rows = candidates * model.features
        yield Operation("pairs", 1, table("gemm", dtype, m=rows, n=model.features, k=model.width))
        yield Operation("pairs, chosen", 1, table("elementwise", dtype, elements=candidates * model.pairs, inputs=1))
        met = model.width + model.pairs
    yield from layers("top", (met, *model.top))


def seconds(model: RankingShape, candidates: int, timer: Timer, dtype: str = "float32") -> float:
    """Raises ModelError that names a figure the chip lacks."""
    return sum(float(timer.time(each.table).seconds[0]) * each.count for each in operations(model, candidates, dtype))
