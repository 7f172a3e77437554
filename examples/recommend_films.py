"""A recommender (DLRM) trained on the ratings of MovieLens-100k, then asked for films a user may like.

    python examples/recommend_films.py                     on the chip
    python examples/recommend_films.py --device cpu        on the host, for comparison
    tapeout run --chip training examples/recommend_films.py --device cuda

The model is that of Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems" (arXiv:1906.00091): an MLP for what is a number, an embedding bag for what is a category, products of every
pair of them, and an MLP on top. It learns whether a user rates a film with four stars or more.
"""

import argparse
import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

EMBEDDING_SIZE = 16
TEST_SHARE = 10  # one rating in ten is kept for the test


@dataclass(frozen=True)
class Ratings:
    """Rows of ratings: two numbers (age, year of the film), five categories, genres as bags; liked is 0 or 1."""

    numbers: torch.Tensor
    categories: torch.Tensor
    genres: torch.Tensor
    liked: torch.Tensor

    def __len__(self) -> int:
        return self.liked.shape[0]

    def rows(self, which: torch.Tensor) -> "Ratings":
        return Ratings(self.numbers[which], self.categories[which], self.genres[which], self.liked[which])

    def to(self, device: str) -> "Ratings":
        parts = (self.numbers, self.categories, self.genres, self.liked)
        return Ratings(*(part.to(device, non_blocking=True) for part in parts))


@dataclass(frozen=True)
class Films:
    """What is known of films and users, and the sizes of the tables."""

    titles: list[str]
    table_sizes: tuple[int, ...]
    genre_count: int
    genre_slots: int


def folder() -> Path:
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the ratings are not installed; try: pip install --no-deps recbole==1.2.1")
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"


def table(name: str) -> list[list[str]]:
    with open(folder() / name, newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def load() -> tuple[Ratings, Films]:
    """All ratings, in the order of the file, which is none in particular."""
    users = {row[0]: row for row in table("ml-100k.user")}
    films = {row[0]: row for row in table("ml-100k.item")}
    user_ids, film_ids = ({key: i for i, key in enumerate(rows)} for rows in (users, films))
    jobs = {name: i for i, name in enumerate(sorted({row[3] for row in users.values()}))}
    genres = {name: i for i, name in enumerate(sorted({g for row in films.values() for g in row[3].split()}))}
    genre_slots = max(len(row[3].split()) for row in films.values())
    numbers, categories, bags, liked = [], [], [], []
    for user_id, film_id, stars, _ in table("ml-100k.inter"):
        user, film = users[user_id], films[film_id]
        year = int(film[2]) if film[2].isdigit() else 1995
        of_film = [genres[name] for name in film[3].split()]
        numbers.append(((int(user[1]) - 35) / 15, (year - 1988) / 15))
        categories.append(
            (user_ids[user_id], film_ids[film_id], jobs[user[3]], int(user[2] == "F"), min(int(user[1]) // 10, 7))
        )
        bags.append(of_film + [len(genres)] * (genre_slots - len(of_film)))  # the last row stands for no genre
        liked.append(float(int(float(stars)) >= 4))
    ratings = Ratings(
        torch.tensor(numbers), torch.tensor(categories), torch.tensor(bags), torch.tensor(liked, dtype=torch.float32)
    )
    sizes = (len(user_ids), len(film_ids), len(jobs), 2, 8)
    return ratings, Films([row[1] for row in films.values()], sizes, len(genres), genre_slots)


def split(ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Training and test, by a fixed shuffle."""
    order = torch.randperm(len(ratings), generator=torch.Generator().manual_seed(0))
    kept = len(ratings) // TEST_SHARE
    return ratings.rows(order[kept:]), ratings.rows(order[:kept])


class DLRM(torch.nn.Module):
    """Scores (logits) of rows of ratings."""

    def __init__(self, films: Films):
        super().__init__()
        self.tables = torch.nn.ModuleList(
            torch.nn.EmbeddingBag(n, EMBEDDING_SIZE, mode="sum") for n in films.table_sizes
        )
        self.genres = torch.nn.EmbeddingBag(
            films.genre_count + 1, EMBEDDING_SIZE, mode="mean", padding_idx=films.genre_count
        )
        for bag in (*self.tables, self.genres):
            torch.nn.init.normal_(bag.weight, std=0.1)
        self.bottom = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, EMBEDDING_SIZE), torch.nn.ReLU()
        )
        features = len(films.table_sizes) + 2
        rows, columns = torch.tril_indices(features, features, offset=-1)
        self.register_buffer("pairs", rows * features + columns)
        self.top = torch.nn.Sequential(
            torch.nn.Linear(EMBEDDING_SIZE + len(self.pairs), 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
        )

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor, genres: torch.Tensor) -> torch.Tensor:
        dense = self.bottom(numbers)
        found = [bag(categories[:, i : i + 1]) for i, bag in enumerate(self.tables)]
        features = torch.stack([dense, *found, self.genres(genres)], dim=1)
        products = torch.bmm(features, features.transpose(1, 2)).flatten(1)
        return self.top(torch.cat([dense, products[:, self.pairs]], dim=1)).squeeze(1)


def train(
    model: DLRM, ratings: Ratings, device: str, *, epoch_count: int = 2, batch_size: int = 1024, rate: float = 0.01
) -> list[float]:
    """Losses, step by step. The order of the rows does not depend on the device."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    shuffle = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(epoch_count):
        for rows in torch.randperm(len(ratings), generator=shuffle).split(batch_size):
            batch = ratings.rows(rows).to(device)
            loss = F.binary_cross_entropy_with_logits(model(batch.numbers, batch.categories, batch.genres), batch.liked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).tolist()


@torch.no_grad()
def scores(model: DLRM, ratings: Ratings, device: str, batch_size: int = 2048) -> torch.Tensor:
    parts = (ratings.rows(rows).to(device) for rows in torch.arange(len(ratings)).split(batch_size))
    return torch.cat([model(part.numbers, part.categories, part.genres) for part in parts]).cpu()


def area_under_curve(scores: torch.Tensor, liked: torch.Tensor) -> float:
    """The chance that a liked film scores above one that is not; equal scores count half."""
    values, order = scores.double().unique(return_inverse=True)
    counts = torch.bincount(order, minlength=len(values))
    rank = (counts.cumsum(0) - (counts - 1) / 2)[order]
    positive = liked > 0
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def recommend(model: DLRM, ratings: Ratings, films: Films, user: int, count: int, device: str) -> list[str]:
    """Titles of the films with the best scores among those the user has not rated."""
    of_user = ratings.categories[:, 0] == user
    seen = set(ratings.categories[of_user, 1].tolist())
    first_of_film: dict[int, int] = {}
    for row, film in enumerate(ratings.categories[:, 1].tolist()):
        first_of_film.setdefault(film, row)
    unseen = sorted(set(first_of_film) - seen)
    rows = torch.tensor([first_of_film[film] for film in unseen])
    like_user = int(of_user.nonzero()[0])
    categories = ratings.categories[like_user].repeat(len(unseen), 1)
    categories[:, 1] = torch.tensor(unseen)
    numbers = torch.stack([ratings.numbers[like_user, 0].expand(len(unseen)), ratings.numbers[rows, 1]], 1)
    asked = Ratings(numbers, categories, ratings.genres[rows], torch.zeros(len(unseen)))
    best = scores(model, asked, device).topk(count).indices
    return [films.titles[unseen[i]] for i in best]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="chip")
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--user", type=int, default=42)
    options.add_argument("--rows", type=int, help="train on this many ratings only")
    given = options.parse_args()
    if given.device == "chip":
        import tapeout  # noqa: F401  the device

    ratings, films = load()
    training, test = split(ratings)
    if given.rows:
        training = training.rows(torch.arange(given.rows))
    torch.manual_seed(0)
    model = DLRM(films).to(given.device)
    losses = train(model, training, given.device, epoch_count=given.epochs)
    auc = area_under_curve(scores(model, test, given.device), test.liked)
    print(f"loss {losses[0]:.4f} at first, {sum(losses[-10:]) / 10:.4f} at last; test AUC {auc:.4f}")
    print(f"user {given.user} may like:")
    for title in recommend(model, ratings, films, given.user, 5, given.device):
        print(f"  {title}")


if __name__ == "__main__":
    main()
