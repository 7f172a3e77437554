"""One job on three kinds of devices: two chips of different kinds and the host's CPU learn to read digits together.

    torchrun --nproc-per-node 3 examples/digits_on_three_kinds.py
    torchrun --nproc-per-node 1 examples/digits_on_three_kinds.py      the same losses on one chip

Each rank takes as many rows of a batch as suit it, and its loss the weight of these. The digits are scikit-learn's.
"""

import os

RANK, RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
KINDS = ("training", "inference", "cpu") if RANKS == 3 else ("training",) * RANKS
SHARES = (4, 3, 1) if RANKS == 3 else (1,) * RANKS
if KINDS[RANK] == "cpu":
    os.environ["TAPEOUT_RANK_KIND"] = "cpu"
else:
    os.environ["TAPEOUT_CHIP"] = KINDS[RANK]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import nn  # noqa: E402

BATCH_SIZE = 128
STEPS = 30


def main() -> None:
    dist.init_process_group("tccl")  # for tensors of every kind
    device = "cpu" if KINDS[RANK] == "cpu" else "chip"
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    sizes = [BATCH_SIZE * share // sum(SHARES) for share in SHARES]
    shuffle = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        rows = torch.randint(len(labels), (BATCH_SIZE,), generator=shuffle).split(sizes)[RANK]
        loss = nn.functional.cross_entropy(parallel(images[rows].to(device)), labels[rows].to(device))
        weighted = loss * (len(rows) * RANKS / BATCH_SIZE)  # DDP takes the mean over ranks
        weighted.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = weighted.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
    with torch.no_grad():
        right = (model(images.to(device)).argmax(1).cpu() == labels).float().mean().item()
    if RANK == 0:
        print("losses", *(f"{loss:.6f}" for loss in losses))
        print(f"right {right:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
