"""Two layers of a model of 70 billion parameters, tensor parallel over 8 and FSDP over 128: one of 1,024 ranks.

What `benchmarks.many_chips` runs by `tapeout run --timing-only --as-rank 0 --of 1024`. Prints, for each step, the CPU's
seconds and the resident memory.
"""

import os
import resource

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

WIDTH, INNER, HEADS, KEY_HEADS, HEAD_SIZE, TOKENS = 8192, 28672, 64, 8, 128, 2048
TENSOR_PARALLEL, SHARDS = 8, 128


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, HEADS * HEAD_SIZE, bias=False)
        self.key = nn.Linear(WIDTH, KEY_HEADS * HEAD_SIZE, bias=False)
        self.value = nn.Linear(WIDTH, KEY_HEADS * HEAD_SIZE, bias=False)
        self.out = nn.Linear(HEADS * HEAD_SIZE, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, INNER, bias=False)
        self.gate = nn.Linear(WIDTH, INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)
        self.before_attention, self.before_mlp = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        normal = self.before_attention(x)
        query, key, value = (
            linear(normal).view(batch, tokens, -1, HEAD_SIZE).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        normal = self.before_mlp(x)
        return x + self.down(nn.functional.silu(self.gate(normal)) * self.up(normal))


def main() -> None:
    dist.init_process_group()
    mesh = init_device_mesh("chip", (SHARDS, TENSOR_PARALLEL), mesh_dim_names=("data", "tensor"))
    with torch.device("meta"):
        model = nn.Sequential(Layer(), Layer()).to(torch.bfloat16)
    plan = {name: ColwiseParallel() for name in ("query", "key", "value", "up", "gate")}
    plan |= {name: RowwiseParallel() for name in ("out", "down")}
    for layer in model:
        parallelize_module(layer, mesh["tensor"], plan)
        fully_shard(layer, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    model.to_empty(device="chip")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
    x = torch.empty(1, TOKENS, WIDTH, dtype=torch.bfloat16, device="chip")
    for _ in range(2):
        before = os.times()
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.chip.synchronize()
        after = os.times()
        cpu_s = after.user + after.system - before.user - before.system
        print("STEP", cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    main()
