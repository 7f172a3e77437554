"""Checks of one rank of a job: `python -m torch.distributed.run --nproc-per-node 3 checks.py`."""

import itertools
import os
import time

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
CHIP = "chip"
RANKS = range(SIZE)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def of_rank(rank: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """The tensor that a rank holds; every rank can make every rank's."""
    generator = torch.Generator().manual_seed(100 * seed + rank)
    values = torch.randint(-4, 5, shape, generator=generator) if dtype in INTEGERS else None
    if values is None:
        values = torch.randn(shape, generator=generator)
    return values.to(dtype)


def reduced(parts: list[torch.Tensor], op: str) -> torch.Tensor:
    """The documented result: ascending rank, float32 or wider, rounded once."""
    dtype = parts[0].dtype
    wide = dtype if dtype in INTEGERS or dtype == torch.float64 else torch.float32
    combine = {
        "sum": torch.logical_or if dtype == torch.bool else torch.add,
        "avg": torch.add,
        "product": torch.logical_and if dtype == torch.bool else torch.mul,
        "max": torch.maximum,
        "min": torch.minimum,
    }[op]
    result = parts[0].to(wide)
    for part in parts[1:]:
        result = combine(result, part.to(wide))
    if op == "avg":
        result = result / len(parts)
    return result.to(dtype)


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    """Bit for bit."""
    got = got.cpu()
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, got.shape, want.dtype, want.shape)
    assert torch.equal(got.contiguous().view(torch.uint8), want.contiguous().view(torch.uint8)), (got, want)


def collectives() -> None:
    cases = [(dtype, (5,)) for dtype in (*FLOATS, *INTEGERS)]
    cases += itertools.product((torch.float32, torch.bfloat16, torch.int64), ((3000,), (0,)))
    for dtype, shape in cases:
        parts = [of_rank(rank, shape, dtype) for rank in RANKS]
        mine = parts[RANK].to(CHIP)
        for op in ("sum", "max", "min", "product", "avg"):
            if op == "avg" and dtype in INTEGERS:
                continue
            out = mine.clone()
            dist.all_reduce(out, getattr(ReduceOp, op.upper()))
            same(out, reduced(parts, op))
        everybody = [torch.empty(shape, dtype=dtype, device=CHIP) for _ in RANKS]
        dist.all_gather(everybody, mine)
        for got, want in zip(everybody, parts, strict=True):
            same(got, want)
        out = mine.clone()
        dist.broadcast(out, SIZE - 1)
        same(out, parts[-1])
        out = mine.clone()
        dist.reduce(out, 1)
        same(out, reduced(parts, "sum") if RANK == 1 else parts[RANK])
        whole = [of_rank(rank, (SIZE, *shape), dtype, seed=1) for rank in RANKS]
        out = torch.empty(shape, dtype=dtype, device=CHIP)
        dist.reduce_scatter_single(out, whole[RANK].to(CHIP).flatten())
        same(out, reduced([each[RANK] for each in whole], "sum"))
        exchanged = torch.empty((SIZE, *shape), dtype=dtype, device=CHIP)
        dist.all_to_all_single(exchanged, whole[RANK].to(CHIP))
        same(exchanged, torch.stack([each[RANK] for each in whole]))
        collected = [torch.empty(shape, dtype=dtype, device=CHIP) for _ in RANKS] if RANK == 0 else None
        dist.gather(mine, collected, 0)
        for got, want in zip(collected or [], parts, strict=False):
            same(got, want)
        out = torch.empty(shape, dtype=dtype, device=CHIP)
        dist.scatter(out, list(whole[0].to(CHIP)) if RANK == 0 else None, 0)
        same(out, whole[0][RANK])


def uneven_and_strided() -> None:
    sizes = [rank + 1 for rank in RANKS]
    mine = torch.full((sizes[RANK],), float(RANK), device=CHIP)
    parts = [torch.empty(size, device=CHIP) for size in sizes]
    dist.all_gather(parts, mine)
    for rank, part in enumerate(parts):
        same(part, torch.full((sizes[rank],), float(rank)))
    sent = torch.arange(float(sum(sizes)), device=CHIP) + 100 * RANK
    received = torch.empty(SIZE * sizes[RANK], device=CHIP)
    dist.all_to_all_single(received, sent, [sizes[RANK]] * SIZE, sizes)
    start = sum(sizes[:RANK])
    same(received, torch.cat([torch.arange(float(start), float(start + sizes[RANK])) + 100 * rank for rank in RANKS]))
    square = (torch.arange(12.0).reshape(3, 4) * (RANK + 1)).to(CHIP).t()
    dist.all_reduce(square)
    same(square, (torch.arange(12.0).reshape(3, 4) * sum(sizes)).t())


def order() -> None:
    """The sum does not depend on the message: alone, in pieces and inside a larger one it has the same bits."""
    large = [of_rank(rank, (4099,), torch.float32, seed=2) * 10.0 ** (rank * 4) for rank in RANKS]
    want = reduced(large, "sum")
    whole = large[RANK].to(CHIP)
    pieces = [piece.clone() for piece in whole.split(617)]
    padded = torch.cat([torch.randn(1001, device=CHIP), whole, torch.randn(5, device=CHIP)])
    for tensor in (whole, padded, *pieces):
        dist.all_reduce(tensor)
    same(whole, want)
    same(torch.cat(pieces), want)
    same(padded[1001:-5], want)
    halves = [part.bfloat16() for part in large]
    half = halves[RANK].to(CHIP)
    dist.all_reduce(half)
    same(half, sum(part.float() for part in halves).bfloat16())


def messages() -> None:
    following, before = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    for count in (4, 5000):
        got = torch.empty(count, device=CHIP)
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, torch.full((count,), float(RANK), device=CHIP), following),
                dist.P2POp(dist.irecv, got, before),
            ]
        )
        for work in works:
            work.wait()
        same(got, torch.full((count,), float(before)))
    # Two messages, received in the other order; and two groups, posted in opposite orders.
    if RANK == 0:
        for work in [dist.isend(torch.full((3000,), float(tag), device=CHIP), 1, tag=tag) for tag in (1, 2)]:
            work.wait()
    if RANK == 1:
        out = {tag: torch.empty(3000, device=CHIP) for tag in (1, 2)}
        works = {tag: dist.irecv(out[tag], 0, tag=tag) for tag in (1, 2)}
        for tag in (2, 1):
            works[tag].wait()
            same(out[tag], torch.full((3000,), float(tag)))
    groups = [dist.new_group(list(RANKS)) for _ in range(2)]
    posted = [
        dist.all_reduce(torch.ones(8, device=CHIP), group=group, async_op=True)
        for group in groups[:: 1 - 2 * (RANK % 2)]
    ]
    for work in posted:
        while not work.is_completed():
            pass
        work.wait()


def times() -> None:
    """All ranks leave a collective at the same picosecond, however late their hosts are; work hides it."""
    from tapeout.runtime import session

    def now() -> int:
        torch.chip.synchronize()
        return session.clock.moment().time_ps

    a = torch.randn(512, 512, device=CHIP)
    for _ in range(RANK * 3):
        a @ a
    time.sleep(0.05 * (SIZE - RANK))
    before = now()
    gradient = torch.ones(1 << 20, device=CHIP)
    dist.all_reduce(gradient)
    ends = [torch.zeros(1, dtype=torch.int64) for _ in RANKS]
    dist.all_gather(ends, torch.tensor([now()]))
    assert len({int(end) for end in ends}) == 1 and int(ends[0]) > before, ends
    cost = _taken(lambda: dist.all_reduce(gradient), now)
    work = _taken(lambda: [a @ a for _ in range(20)], now)

    def overlapped() -> None:
        pending = dist.all_reduce(gradient, async_op=True)
        for _ in range(20):
            a @ a
        pending.wait()

    both = _taken(overlapped, now)
    assert max(cost, work) <= both < cost + work - 0.3 * min(cost, work), (cost, work, both)
    pair = [dist.new_group([rank]) for rank in RANKS]
    assert _taken(lambda: dist.all_reduce(gradient, group=pair[RANK]), now) < cost / 10


def _taken(action, now) -> int:
    dist.barrier()
    before = now()
    action()
    return now() - before


def training() -> None:
    """DDP and FSDP2 give one process's gradients and losses."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def model() -> torch.nn.Module:
        torch.manual_seed(7)
        return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))

    batch = torch.randn(4 * SIZE, 16, generator=torch.Generator().manual_seed(3))
    alone = model()
    want = _losses(alone, batch)
    for wrap in (DistributedDataParallel, fully_shard):
        trained = wrap(model().to(CHIP))
        got = _losses(trained, batch[RANK * 4 : RANK * 4 + 4].to(CHIP))
        mean = torch.tensor(got)
        dist.all_reduce(mean, ReduceOp.AVG)
        torch.testing.assert_close(mean, torch.tensor(want), rtol=1e-5, atol=1e-6)


def _losses(model: torch.nn.Module, batch: torch.Tensor) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def disagreement() -> None:
    """Ranks that do not do the same are told so, with both call sites."""
    for odd, said in (
        (lambda group: dist.all_reduce(torch.ones(5, device=CHIP), group=group), "ALLREDUCE (20 bytes of Float, sum)"),
        (
            lambda group: dist.all_reduce(torch.ones(4, device=CHIP).int(), group=group),
            "ALLREDUCE (16 bytes of Int, sum)",
        ),
        (
            lambda group: dist.broadcast(torch.ones(4, device=CHIP), 1, group=group),
            "BROADCAST (16 bytes of Float, root 1)",
        ),
        (
            lambda group: dist.all_reduce(torch.ones(4, device=CHIP), ReduceOp.MAX, group=group),
            "16 bytes of Float, max",
        ),
    ):
        group = dist.new_group(list(RANKS))
        try:
            odd(group) if RANK == 1 else dist.all_reduce(torch.ones(4, device=CHIP), group=group)
        except RuntimeError as error:
            assert "ranks disagree on operation 0" in str(error) and said in str(error), error
            assert str(error).count("checks.py:") >= 3, error
        else:
            raise AssertionError("no rank was told")


if __name__ == "__main__":
    dist.init_process_group()
    for check in (collectives, uneven_and_strided, order, messages, times, training, disagreement):
        check()
        if RANK == 0:
            print(f"right: {check.__name__}", flush=True)
    dist.destroy_process_group()
