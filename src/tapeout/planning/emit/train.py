"""Trains by the plan in plan.json, which lies beside this script. It needs PyTorch and nothing else.

    torchrun --nproc-per-node RANKS train.py           # all ranks of the plan on one host
    python train.py                                    # the same training in one process

Ranks are counted pipeline by pipeline, stage by stage, replica by replica, tensor-parallel rank by rank.
`--on KIND=cpu` runs a kind's ranks elsewhere. Tokens are random numbers from a seed: put your own in `batch`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

PLAN = json.loads(Path(__file__).with_name("plan.json").read_text("utf-8"))
MODEL, PIPELINES, SEQUENCE = PLAN["model"], PLAN["pipelines"], PLAN["sequence"]


def say(line: str) -> None:
    """Print a line in one piece: all ranks write to one terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--dtype", default=PLAN["dtype"], help="element type of weights and activations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--on", action="append", default=[], metavar="KIND=DEVICE", help="device of a kind's ranks")
    return parser.parse_args()


ARGUMENTS = arguments()
DEVICES = {kind: each["device"] for kind, each in PLAN["kinds"].items()} | dict(
    each.rsplit("=", 1) for each in ARGUMENTS.on
)
# Of each rank: pipeline, stage, replica, tensor-parallel rank.
PLACES = [
    (number, stage, replica, part)
    for number, pipeline in enumerate(PIPELINES)
    for stage, each in enumerate(pipeline["stages"])
    for replica in range(pipeline["replicas"])
    for part in range(each["tp"])
]
RANK_OF = {place: rank for rank, place in enumerate(PLACES)}
IS_ALONE = "RANK" not in os.environ
RANK = int(os.environ.get("RANK", "0"))
if not IS_ALONE and int(os.environ["WORLD_SIZE"]) != len(PLACES):
    raise SystemExit(f"the plan has {len(PLACES)} ranks, torchrun started {os.environ['WORLD_SIZE']}")
PIPELINE, STAGE, REPLICA, PART = PLACES[RANK]
KIND = PIPELINES[PIPELINE]["stages"][STAGE]["kind"]
DEVICE = "cpu" if IS_ALONE else DEVICES[KIND]
if DEVICE == "chip":  # which chip this process has is said before torch is imported
    os.environ.setdefault("TAPEOUT_CHIP", PLAN["kinds"][KIND]["chip"])
    os.environ.setdefault("TAPEOUT_TIMING", "on")
elif DEVICE == "cpu" and "chip" in DEVICES.values():
    os.environ.setdefault("TAPEOUT_RANK_KIND", "cpu")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B  # noqa: E402
from torch.distributed.tensor import DeviceMesh, DTensor  # noqa: E402
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

DTYPE = getattr(torch, ARGUMENTS.dtype)
BATCH = sum(pipeline["batch"] for pipeline in PIPELINES)


class Layer(nn.Module):
    """One layer of the decoder: attention and feed-forward, each after a norm. Its number decides its weights."""

    def __init__(self, number: int):
        super().__init__()
        torch.manual_seed(ARGUMENTS.seed * 1000 + number)
        hidden, head = MODEL["hidden"], MODEL["head_size"]
        shared = MODEL["key_value_heads"] * head
        self.norm, self.norm_after = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.query = nn.Linear(hidden, MODEL["heads"] * head, bias=False)
        self.key, self.value = nn.Linear(hidden, shared, bias=False), nn.Linear(hidden, shared, bias=False)
        self.output = nn.Linear(MODEL["heads"] * head, hidden, bias=False)
        self.up = nn.Linear(hidden, MODEL["intermediate"], bias=False)
        self.gate = nn.Linear(hidden, MODEL["intermediate"], bias=False) if MODEL["gated"] else None
        self.down = nn.Linear(MODEL["intermediate"], hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (self._heads(product(normed)) for product in (self.query, self.key, self.value))
        if MODEL["gated"]:
            query, key = rotated(query), rotated(key)
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(seen.transpose(1, 2).flatten(2))
        normed = self.norm_after(x)
        wide = F.silu(self.gate(normed)) * self.up(normed) if self.gate is not None else F.gelu(self.up(normed))
        return x + self.down(wide)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, MODEL["head_size"])).transpose(1, 2)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * (
        10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    )
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), -1)


class Part(nn.Module):
    """Layers `first` to `first + count`, with the embedding before the first of all and the head after the last."""

    def __init__(self, first: int, count: int, recompute: str = "none"):
        super().__init__()
        self.first, self.recompute = first, recompute
        torch.manual_seed(ARGUMENTS.seed)
        self.embedding = nn.Embedding(MODEL["vocabulary"], MODEL["hidden"]) if first == 0 else None
        self.layers = nn.ModuleList(Layer(number) for number in range(first, first + count))
        is_last = first + count == MODEL["layers"]
        torch.manual_seed(ARGUMENTS.seed * 1000 + MODEL["layers"])
        self.norm = nn.RMSNorm(MODEL["hidden"]) if is_last else None
        self.head = nn.Linear(MODEL["hidden"], MODEL["vocabulary"], bias=False) if is_last else None

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.layers:
            if self.recompute == "full" and self.training:
                x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x)
        return self.head(self.norm(x)) if self.head is not None else x

    def pieces(self) -> list[tuple[int, list[nn.Parameter]]]:
        """Parameters by what holds them: -1 the embedding, a layer's number, the count of layers for the head."""
        found = [(self.first + place, list(layer.parameters())) for place, layer in enumerate(self.layers)]
        if self.embedding is not None:
            found.insert(0, (-1, list(self.embedding.parameters())))
        if self.head is not None:
            found.append((MODEL["layers"], [*self.norm.parameters(), *self.head.parameters()]))
        return found


def split_over(part: Part, mesh: DeviceMesh) -> None:
    """Split each layer's products over the tensor-parallel ranks; every rank has made the same weights."""
    columns, rows = ("query", "key", "value", "up", "gate"), ("output", "down")
    for layer in part.layers:
        ways = {name: ColwiseParallel() for name in columns if getattr(layer, name) is not None}
        ways |= {name: RowwiseParallel() for name in rows}
        parallelize_module(layer, mesh, ways, src_data_rank=None)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a step, for all replicas: (sequences, tokens)."""
    generator = torch.Generator().manual_seed(ARGUMENTS.seed * 100_000 + step)
    tokens = torch.randint(MODEL["vocabulary"], (BATCH, SEQUENCE + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def share_of_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The micro-batch's part of the mean over all tokens of the step."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return total / (BATCH * SEQUENCE)


def optimizer_of(parts: list[Part]) -> torch.optim.Optimizer:
    return torch.optim.SGD([each for part in parts for each in part.parameters()], lr=ARGUMENTS.learning_rate)


def train_alone() -> None:
    """The reference: everything in one process."""
    whole = Part(0, MODEL["layers"]).to(DTYPE)
    optimizer = optimizer_of([whole])
    for step in range(ARGUMENTS.steps):
        inputs, targets = batch(step)
        loss = share_of_loss(whole(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        say(f"step {step}: loss {loss.item():.6f}")


def my_rows() -> slice:
    """Rows of a step's batch that this replica does."""
    before = sum(pipeline["batch"] for pipeline in PIPELINES[:PIPELINE])
    each = PIPELINES[PIPELINE]["batch"] // PIPELINES[PIPELINE]["replicas"]
    return slice(before + REPLICA * each, before + (REPLICA + 1) * each)


def holders(piece: int, part: int) -> tuple[int, ...]:
    """Ranks that hold a piece of the model (see `Part.pieces`)."""
    found = []
    for number, pipeline in enumerate(PIPELINES):
        for stage, each in enumerate(pipeline["stages"]):
            if any(
                first <= max(piece, 0) < first + count or (piece == MODEL["layers"] == first + count)
                for first, count in each["layers"]
            ):
                found += [RANK_OF[number, stage, replica, part] for replica in range(pipeline["replicas"])]
    return tuple(found)


def groups_of(all_ranks: list[tuple[int, ...]]) -> dict[tuple[int, ...], dist.ProcessGroup]:
    """A group for each set of ranks, made by all ranks in the same order."""
    return {ranks: dist.new_group(list(ranks)) for ranks in dict.fromkeys(all_ranks) if len(ranks) > 1}


def train_by_plan() -> None:
    kinds = set(DEVICES.values())
    backend = "tccl" if "chip" in kinds else "nccl" if kinds == {"cuda"} else "gloo"
    dist.init_process_group(backend)
    device = torch.device(DEVICE, int(os.environ.get("LOCAL_RANK", "0"))) if DEVICE == "cuda" else torch.device(DEVICE)
    mine = PIPELINES[PIPELINE]
    stages, this = mine["stages"], mine["stages"][STAGE]
    chains = [
        tuple(RANK_OF[number, stage, replica, part] for stage in range(len(pipeline["stages"])))
        for number, pipeline in enumerate(PIPELINES)
        for replica in range(pipeline["replicas"])
        for part in range(pipeline["stages"][0]["tp"])
    ]
    tensors = [
        tuple(RANK_OF[number, stage, replica, part] for part in range(each["tp"]))
        for number, pipeline in enumerate(PIPELINES)
        for stage, each in enumerate(pipeline["stages"])
        for replica in range(pipeline["replicas"])
    ]
    copies = [holders(piece, part) for part in range(stages[0]["tp"]) for piece in range(-1, MODEL["layers"] + 1)]
    groups = groups_of([*chains, *tensors, *copies])
    parts = [Part(first, count, this["recompute"]).to(DTYPE) for first, count in this["layers"]]
    for part in parts:
        part.to(device)
        if this["tp"] > 1:
            ranks = next(each for each in tensors if RANK in each)
            split_over(part, DeviceMesh.from_group(groups[ranks], device.type))
    optimizer = optimizer_of(parts)
    chain = next(each for each in chains if RANK in each)
    count = mine["batch"] // (mine["replicas"] * mine["micro_batch"])
    schedule = schedule_of(parts, len(stages), device, groups.get(chain), count)
    is_first, is_last = parts[0].embedding is not None, parts[-1].head is not None
    for step in range(ARGUMENTS.steps):
        inputs, targets = (each[my_rows()].to(device) for each in batch(step))
        began = clock(device)
        losses: list[Tensor] = []
        if schedule is None:
            for input_part, target in zip(inputs.chunk(count), targets.chunk(count), strict=True):
                losses.append(share_of_loss(parts[0](input_part), target))
                losses[-1].backward()
        else:
            schedule.step(*([inputs] if is_first else []), **({"target": targets, "losses": losses} if is_last else {}))
        for part in parts:
            for piece, parameters in part.pieces():
                ranks = holders(piece, PART)
                if len(ranks) > 1:
                    for each in parameters:
                        gradient = each.grad.to_local() if isinstance(each.grad, DTensor) else each.grad
                        dist.all_reduce(gradient, group=groups[ranks])
        optimizer.step()
        optimizer.zero_grad()
        took = seconds_since(began, device)
        if is_last:
            loss = torch.stack([each.detach() for each in losses]).sum()
            ranks = holders(MODEL["layers"], PART)
            if len(ranks) > 1:
                dist.all_reduce(loss, group=groups[ranks])
            if ranks[0] == RANK and PART == 0:
                say(f"step {step}: loss {loss.item():.6f}")
        if REPLICA == 0 and PART == 0:
            say(f"step {step}: stage {STAGE} of pipeline {PIPELINE} on {KIND} took {took * 1e3:.3f} ms")
    if RANK == 0:
        say(f"the plan predicts {PLAN['predicted_step_s'] * 1e3:.3f} ms a step")
    dist.destroy_process_group()


def schedule_of(
    parts: list[Part], stages: int, device: torch.device, group: dist.ProcessGroup | None, count: int
) -> Schedule1F1B | ScheduleInterleaved1F1B | None:
    """The pipeline's schedule; none for a pipeline of one stage."""
    if group is None:
        return None
    made = [
        PipelineStage(part, STAGE + place * stages, stages * len(parts), device, group=group)
        for place, part in enumerate(parts)
    ]
    if len(made) > 1:
        return ScheduleInterleaved1F1B(made, n_microbatches=count, loss_fn=share_of_loss, scale_grads=False)
    return Schedule1F1B(made[0], n_microbatches=count, loss_fn=share_of_loss, scale_grads=False)


def clock(device: torch.device) -> object:
    """A moment: of the device's own time, or of the host's."""
    if device.type == "cpu":
        return time.perf_counter()
    event = getattr(torch, device.type).Event(enable_timing=True)
    event.record()
    return event


def seconds_since(began: object, device: torch.device) -> float:
    now = clock(device)
    if device.type == "cpu":
        return now - began
    getattr(torch, device.type).synchronize()
    return began.elapsed_time(now) / 1e3


if __name__ == "__main__":
    train_alone() if IS_ALONE else train_by_plan()
