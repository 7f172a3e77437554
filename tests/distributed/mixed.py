"""A rank of a job on unlike kinds: the chips `training` and `inference`, and the host's CPU.

python -m torch.distributed.run --nproc-per-node 3 mixed.py
"""

import os

RANK = int(os.environ["RANK"])
DEVICE = "cpu" if RANK == 2 else "chip"
os.environ["TAPEOUT_CHIP"] = ("training", "inference", "training")[RANK]
os.environ["TAPEOUT_RANK_KIND" if RANK == 2 else "TAPEOUT_TIMING"] = "cpu" if RANK == 2 else "on"

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.pipelining import PipelineStage, Schedule1F1B  # noqa: E402
from torch.nn.functional import mse_loss  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

BATCHES = (2, 8, 6)
ROWS = slice(sum(BATCHES[:RANK]), sum(BATCHES[: RANK + 1]))


def model() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))


def train(trained, inputs, targets, weight=1.0):
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    for _ in range(3):
        (mse_loss(trained(inputs), targets) * weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [getattr(p, "full_tensor", lambda p=p: p)().detach().cpu() for p in trained.parameters()]


dist.init_process_group("tccl")
generator = torch.Generator().manual_seed(2)
inputs, targets = torch.randn(16, 8, generator=generator), torch.randn(16, 4, generator=generator)
want = train(model(), inputs, targets)
# DDP averages over ranks: a rank's loss counts as its share of the samples times the number of ranks.
uneven = train(
    DistributedDataParallel(model().to(DEVICE)),
    inputs[ROWS].to(DEVICE),
    targets[ROWS].to(DEVICE),
    BATCHES[RANK] * 3 / 16,
)
torch.testing.assert_close(uneven, want, rtol=1e-5, atol=1e-6)
mesh = dist.DeviceMesh(DEVICE, list(range(3)))
sharded = train(
    fully_shard(model().to(DEVICE), mesh=mesh),
    inputs[ROWS].to(DEVICE),
    targets[ROWS].to(DEVICE),
    BATCHES[RANK] * 3 / 16,
)
torch.testing.assert_close(sharded, want, rtol=1e-5, atol=1e-6)

alone, piped = model(), model()
mse_loss(alone(inputs), targets).backward()
stage = PipelineStage(piped[RANK].to(DEVICE), RANK, 3, torch.device(DEVICE))
schedule = Schedule1F1B(stage, n_microbatches=4, loss_fn=mse_loss)
schedule.step(*([inputs.to(DEVICE)] if RANK == 0 else []), **({"target": targets.to(DEVICE)} if RANK == 2 else {}))
for got, expected in zip(piped[RANK].parameters(), alone[RANK].parameters(), strict=True):
    torch.testing.assert_close(got.grad.cpu(), expected.grad, rtol=1e-5, atol=1e-6)

if RANK != 2:
    from tapeout.runtime import session

    assert session.clock.moment().unknown_count > 0, "the CPU's time is not known, so neither is the whole"
print(f"right: rank {RANK} on {DEVICE}", flush=True)
dist.destroy_process_group()
