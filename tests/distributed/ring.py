"""A rank of a job whose sums are a ring's."""

import torch
import torch.distributed as dist

dist.init_process_group("tccl")
rank, size = dist.get_rank(), dist.get_world_size()


def of(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return (torch.randn(count, generator=generator) * 10.0**rank).to(dtype)


def by_ring(parts: list[torch.Tensor]) -> torch.Tensor:
    """Chunk c begins at rank c + 1; every hop rounds to the tensors' type."""
    chunks = [part.split(-(-len(part) // size)) for part in parts]
    sums = []
    for chunk in range(len(chunks[0])):
        sum = chunks[(chunk + 1) % size][chunk]
        for hop in range(1, size):
            sum = (sum.float() + chunks[(chunk + 1 + hop) % size][chunk].float()).to(sum.dtype)
        sums.append(sum)
    return torch.cat(sums)


for count in (7, 60, 5000):  # in a message and beside it
    for dtype in (torch.float32, torch.bfloat16):
        parts = [of(each, count, dtype) for each in range(size)]
        want = by_ring(parts)
        got = parts[rank].to("chip")
        dist.all_reduce(got)
        assert torch.equal(got.cpu(), want), (count, dtype)
        mean = parts[rank].to("chip")
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        assert torch.equal(mean.cpu(), (want.float() / size).to(dtype)), (count, dtype)
        if count % size == 0:
            part = torch.empty(count // size, dtype=dtype, device="chip")
            dist.reduce_scatter_tensor(part, parts[rank].to("chip"))
            assert torch.equal(part.cpu(), want.chunk(size)[rank])
ascending = sum(part.float() for part in parts).to(dtype)
assert not torch.equal(got.cpu(), ascending)
print("right")
dist.destroy_process_group()
