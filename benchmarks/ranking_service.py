"""A ranking service: queries a second at p99 <= 10 ms, of 256 candidates each, with Poisson and bursty arrivals.

`inference` twice: as the chip's own time of the model's graph, copies in and out included, with one kernel for all 26
tables; and, beside other vendors' chips, by the operator models, whose times are at least: no copies.
"""

from itertools import pairwise

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import tapeout  # noqa: F401
from tapeout import chip as chips
from tapeout.models import questions, ranking
from tapeout.runtime import session
from tapeout.serving import queries, search
from tapeout.silicon import technology
from tapeout.silicon.ownership import Site, ownership

CANDIDATES = 256
ROWS = 20_000
LIMIT_S = 10e-3
QUERIES = 20_000
MAX_BATCH = 8
OTHERS = ("inference", "H100", "H20", "L20", "Ascend 910B3")


class TableBatchedBags(torch.nn.Module):
    """`tables` tables of one width as one: a bag a row and table, in one kernel."""

    def __init__(self, tables: int, rows: int, width: int):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(tables * rows, width, mode="sum")
        self.register_buffer("first_row", torch.arange(tables) * rows)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """(candidates, tables) rows of each table -> (candidates, tables, width)."""
        rows = (indices + self.first_row).view(-1, 1)
        return self.bag(rows).view(*indices.shape, -1)


def perceptron(*widths: int, last: bool = True) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for number, (k, n) in enumerate(pairwise(widths)):
        layers.append(torch.nn.Linear(k, n))
        if last or number < len(widths) - 2:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


class Ranker(torch.nn.Module):
    """DLRM, or DCN-v2 where the shape has cross layers."""

    def __init__(self, shape: ranking.RankingShape):
        super().__init__()
        self.embeddings = TableBatchedBags(shape.tables, ROWS, shape.width)
        self.bottom = perceptron(shape.dense_features, *shape.bottom)
        together = shape.features * shape.width
        self.crosses = torch.nn.ModuleList(torch.nn.Linear(together, together) for _ in range(shape.crosses))
        met = together if shape.crosses else shape.width + shape.pairs
        self.top = perceptron(met, *shape.top, last=False)
        first, second = torch.triu_indices(shape.features, shape.features, 1)
        self.register_buffer("pairs", first * shape.features + second)

    def forward(self, dense: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        d = self.bottom(dense)
        z = torch.cat([d[:, None], self.embeddings(indices)], 1)
        if self.crosses:
            first = met = z.flatten(1)
            for cross in self.crosses:
                met = torch.addcmul(met, first, cross(met))
        else:
            met = torch.cat([d, torch.bmm(z, z.transpose(1, 2)).flatten(1).index_select(1, self.pairs)], 1)
        return self.top(met).sigmoid()


def time_on_chip(shape: ranking.RankingShape) -> tuple[dict[int, float], float]:
    """Seconds of one to MAX_BATCH queries on the active chip, and the largest difference from the CPU's scores."""
    torch.manual_seed(0)
    model = Ranker(shape).eval()
    on_chip = Ranker(shape).eval()
    on_chip.load_state_dict(model.state_dict())
    on_chip = on_chip.to("chip")
    now = session.turn_on()
    found, difference = {}, 0.0
    for count in range(1, MAX_BATCH + 1):
        size = CANDIDATES * count
        dense, indices = torch.randn(size, shape.dense_features), torch.randint(0, ROWS, (size, shape.tables))
        inputs = dense.to("chip"), indices.to("chip")
        with torch.no_grad():
            on_chip(*inputs)
            graph = torch.chip.Graph()
            with torch.chip.graph(graph):
                scores = on_chip(*inputs)
            graph.replay()
            now.synchronize()
            start = now.moment().time_ps
            inputs[0].copy_(dense)
            inputs[1].copy_(indices)
            graph.replay()
            given = scores.cpu()
            now.synchronize()
            found[count] = (now.moment().time_ps - start) / 1e12
            difference = max(difference, float((given - model(dense, indices)).abs().max()))
    return found, difference


def highest(times: dict[int, float], arrive) -> float:
    """Queries a second at which p99 holds."""

    def holds(rate: float) -> bool:
        waits = queries.latencies(arrive(rate, QUERIES), times.__getitem__, max_batch=MAX_BATCH)
        return float(np.percentile(waits, 99)) <= LIMIT_S

    return search.highest_rate(holds, 0.5 / times[1]).rate_per_s


def cost(timer, qps: float) -> tuple[str, str]:
    """Joules of TDP and dollars of owning, for a million queries."""
    joules = f"{timer.chip.tdp.to('W').value / qps * 1e6:,.0f}" if timer.chip.tdp is not None else "not known"
    try:
        hourly = ownership(timer.chip, Site(), technology.load()).per_useful_hour.value
    except ValueError:
        return joules, "not known"
    return joules, f"{hourly / 3600 / qps * 1e6:,.3f}"


def main() -> None:
    console = Console()
    chips.activate("inference")
    for shape in ranking.SHAPES.values():
        table = Table(
            "chip", "a query", "QPS, Poisson", "QPS, bursty", "J a million", "USD a million",
            title=f"{shape.name}: {CANDIDATES} candidates a query, p99 <= 10 ms, up to {MAX_BATCH} queries together",
        )  # fmt: skip
        measured, difference = time_on_chip(shape)
        rows = {"inference, the chip's time": (questions.timers(["inference"])[0], measured)}
        for name in OTHERS:
            timer = questions.timers([name])[0]
            # A chip without float32 products would serve in 16 bits.
            dtype = "float32" if "float32" in timer.chip.peak else "bfloat16"
            times = {
                count: ranking.seconds(shape, count * CANDIDATES, timer, dtype) for count in range(1, MAX_BATCH + 1)
            }
            rows[f"{timer.chip.name}, operator models, {dtype}"] = (timer, times)
        for name, (timer, times) in rows.items():
            steady, bursts = (highest(times, arrive) for arrive in (queries.poisson, queries.bursty))
            table.add_row(name, f"{times[1] * 1e6:.1f} µs", f"{steady:,.0f}", f"{bursts:,.0f}", *cost(timer, steady))
        console.print(table)
        console.print(f"scores differ from the CPU's by at most {difference:.1e}; J: TDP all the time")


if __name__ == "__main__":
    main()
