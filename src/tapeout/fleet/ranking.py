"""Ranking models as operators: what one query of a recommender does on one card.

Takes a public model's shape and the number of candidates, gives the operators of a step, for the operator models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tapeout.models.step import Operation
from tapeout.models.tables import ModelError, table


@dataclass(frozen=True, kw_only=True)
class RankingShape:
    """Tables of embeddings, then dense layers (DLRM, DCN-v2) or attention over a history (HSTU).

    `cross` is the rank of each of `cross_layers` low-rank cross layers; `layers` and `history` are of HSTU, whose width
    is the tables'.
    """

    name: str
    tables: int
    rows_per_table: int
    width: int
    bottom: tuple[int, ...] = ()
    top: tuple[int, ...] = ()
    cross_layers: int = 0
    cross: int = 0
    layers: int = 0
    history: int = 0
    heads: int = 1

    @property
    def memory_bytes(self) -> float:
        """Tables in float32; the dense layers are small beside them."""
        return 4.0 * self.tables * self.rows_per_table * self.width


RANKING_MODELS = {
    shape.name: shape
    for shape in (
        RankingShape(
            name="dlrm",
            tables=26,
            rows_per_table=20_000,
            width=64,
            bottom=(13, 512, 256, 64),
            top=(415, 512, 256, 1),
        ),
        # MLPerf's DLRM-DCNv2: 26 tables of width 128 over Criteo's terabyte (204 million rows), three cross layers.
        RankingShape(
            name="dlrm-dcnv2",
            tables=26,
            rows_per_table=7_850_000,
            width=128,
            bottom=(13, 512, 256, 128),
            top=(3456, 1024, 1024, 512, 256, 1),
            cross_layers=3,
            cross=512,
        ),
        RankingShape(
            name="hstu", tables=1, rows_per_table=1_000_000, width=256, layers=8, history=1024, heads=4, top=(256, 1)
        ),
    )
}


def ranking_called(name: str) -> RankingShape:
    if name not in RANKING_MODELS:
        raise ModelError(f"unknown ranking model {name!r}; known: {', '.join(RANKING_MODELS)}")
    return RANKING_MODELS[name]


def operations(shape: RankingShape, candidates: int) -> Iterator[Operation]:
    """Operators of one query, in float32 as trained; attention in bfloat16."""
    gathered = shape.history + candidates if shape.layers else candidates * shape.tables
    yield Operation("embedding", 1, table("embedding", "float32", rows=gathered, columns=shape.width))
    for sizes in (shape.bottom, shape.top):
        for inputs, outputs in pairwise(sizes):
            yield Operation("dense", 1, table("gemm", "float32", m=candidates, n=outputs, k=inputs))
    if shape.cross_layers:
        wide = shape.top[0]
        for outputs, inputs in ((shape.cross, wide), (wide, shape.cross)):
            product = table("gemm", "float32", m=candidates, n=outputs, k=inputs)
            yield Operation("cross", shape.cross_layers, product)
        cells = table("elementwise", "float32", elements=candidates * wide, inputs=2)
        yield Operation("cross, elementwise", shape.cross_layers, cells)
    elif not shape.layers:
        # Dot products of every pair of features.
        pairs = table("elementwise", "float32", elements=candidates * (shape.tables + 1) ** 2, inputs=1)
        features = (shape.tables + 1) * candidates
        yield Operation("interaction", 1, table("gemm", "float32", m=features, n=shape.tables + 1, k=shape.width))
        yield Operation("interaction, elementwise", 1, pairs)
    if shape.layers:
        tokens, width = shape.history + candidates, shape.width
        yield Operation("projections", shape.layers, table("gemm", "bfloat16", m=tokens, n=4 * width, k=width))
        attention = table(
            "context_attention",
            "bfloat16",
            batch_size=1,
            isl=tokens,
            num_heads=shape.heads,
            head_dim=width // shape.heads,
        )
        yield Operation("attention", shape.layers, attention)
        yield Operation("output", shape.layers, table("gemm", "bfloat16", m=tokens, n=width, k=width))
        yield Operation("norms", 2 * shape.layers, table("norm", "bfloat16", rows=tokens, columns=width))
