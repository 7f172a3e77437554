"""The recommender of recommend_films.py with its embedding tables spread over chips, each on one of them.

    tapeout run --chip training --ranks 4 examples/shard_recommender.py
    tapeout run --chip training --ranks 1 examples/shard_recommender.py      the same on one chip

Every rank has a share of the batch. It asks the owners of the tables for the rows of its share (all_to_all), and the
gradients of those rows go back the same way; the dense layers are trained by DistributedDataParallel.
"""

import argparse

import recommend_films as films
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.nn.parallel import DistributedDataParallel


class Lookups(torch.nn.Module):
    """The tables that this rank owns, every `ranks`-th, and lookups in all of them."""

    def __init__(self, table_sizes: tuple[int, ...], weights: list[torch.Tensor]):
        super().__init__()
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.owned_by = [list(range(rank, len(table_sizes), self.ranks)) for rank in range(self.ranks)]
        self.tables = torch.nn.ParameterList(weights[place].clone() for place in self.owned_by[self.rank])
        for table in self.tables:  # losses are means over a rank's share of the batch; the sum of ranks' is not
            table.register_hook(lambda gradient: gradient / self.ranks)

    def forward(self, categories: torch.Tensor) -> list[torch.Tensor]:
        """Rows of every table, in order, for `categories` [row of the batch, table]."""
        count, mine = len(categories), len(self.owned_by[self.rank])
        asked = torch.cat([categories[:, places].flatten() for places in self.owned_by])
        wanted = torch.empty(self.ranks * count * mine, dtype=asked.dtype, device=asked.device)
        dist.all_to_all_single(wanted, asked, [count * mine] * self.ranks, [count * len(p) for p in self.owned_by])
        wanted = wanted.view(self.ranks * count, mine)
        found = torch.stack([F.embedding(wanted[:, n], table) for n, table in enumerate(self.tables)], 1)
        size = films.EMBEDDING_SIZE
        sizes = [count * len(places) * size for places in self.owned_by]
        received = all_to_all_single_autograd(
            found.flatten(), sizes, [count * mine * size] * self.ranks, dist.group.WORLD
        )
        rows: dict[int, torch.Tensor] = {}
        for places, part in zip(self.owned_by, received.split(sizes), strict=True):
            for n, place in enumerate(places):
                rows[place] = part.view(count, len(places), size)[:, n]
        return [rows[place] for place in sorted(rows)]


class Dense(torch.nn.Module):
    """The model without its tables."""

    def __init__(self, whole: films.DLRM):
        super().__init__()
        self.bottom, self.top, self.genres = whole.bottom, whole.top, whole.genres
        self.register_buffer("pairs", whole.pairs)

    def forward(self, numbers: torch.Tensor, found: list[torch.Tensor], genres: torch.Tensor) -> torch.Tensor:
        dense = self.bottom(numbers)
        features = torch.stack([dense, *found, self.genres(genres)], dim=1)
        products = torch.bmm(features, features.transpose(1, 2)).flatten(1)
        return self.top(torch.cat([dense, products[:, self.pairs]], dim=1)).squeeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=1024)
    options = parser.parse_args()
    dist.init_process_group()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    ratings, described = films.load()
    training, test = films.split(ratings)
    torch.manual_seed(0)
    whole = films.DLRM(described)
    lookups = Lookups(described.table_sizes, [bag.weight.detach() for bag in whole.tables]).to("chip")
    dense = DistributedDataParallel(Dense(whole).to("chip"))
    parameters = [*lookups.parameters(), *dense.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, fused=True)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(1)).split(options.batch_size)
    losses = []

    def scores(rows: films.Ratings) -> torch.Tensor:
        return dense(rows.numbers, lookups(rows.categories), rows.genres)

    for rows in order[: options.steps]:
        mine = training.rows(rows.chunk(ranks)[rank]).to("chip")
        loss = F.binary_cross_entropy_with_logits(scores(mine), mine.liked)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
    asked = test.rows(torch.arange(len(test) // ranks * ranks).chunk(ranks)[rank]).to("chip")
    with torch.no_grad():
        own = scores(asked)
    gathered = torch.empty(ranks * len(own), device="chip")
    liked = torch.empty_like(gathered)
    dist.all_gather_into_tensor(gathered, own)
    dist.all_gather_into_tensor(liked, asked.liked)
    if rank == 0:
        print("losses", *(f"{loss:.5f}" for loss in losses))
        print(f"area {films.area_under_curve(gathered.cpu(), liked.cpu()):.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
