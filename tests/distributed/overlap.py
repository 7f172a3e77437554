"""Time of a step of data-parallel training: of the computation, of its communication, and of both, with and without a
hook. Rank 0 prints them in picoseconds."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from tapeout.pytorch.distributed import groups
from tapeout.runtime import session

width = int(sys.argv[1])
dist.init_process_group()
clock = session.turn_on()
torch.manual_seed(0)
x = torch.randn(width, width, device="chip")


def made(hook=None):
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(4))).to("chip")
    parallel = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=width * width * 4 / 2**20)
    if hook:
        parallel.register_comm_hook(None, hook)
    for _ in range(2):  # after the first step DDP makes its buckets anew
        parallel(x).sum().backward()
    return parallel


def step_ps(parallel):
    torch.chip.synchronize()
    dist.barrier()
    before = clock.moment().time_ps
    parallel(x).sum().backward()
    torch.chip.synchronize()
    return clock.moment().time_ps - before


def communicated_ps():
    return sum(of_kind.total_ps for name, of_kind in groups.world().communication().items() if name == "all_reduce")


plain, hooked = made(), made(default_hooks.allreduce_hook)
with plain.no_sync():
    computation = step_ps(plain)
before = communicated_ps()
both = step_ps(plain)
communication = communicated_ps() - before
with_hook = step_ps(hooked)
if dist.get_rank() == 0:
    print("STEP", computation, communication, both, with_hook)
dist.destroy_process_group()
