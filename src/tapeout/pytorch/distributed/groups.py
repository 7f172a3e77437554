"""Makes process groups of the back end "tccl": transport, clocks, and the checks that the ranks fit together.

Takes what torch.distributed says of a new group; gives a c10d back end. Ranks exchange what they are when the group is
made, so that ranks that could never work together are refused in one sentence.
"""

import json
import os
from dataclasses import asdict
from typing import Any

import torch.distributed as dist
from torch.distributed import PrefixStore, Store

from tapeout import chip as chips
from tapeout import cluster as clusters
from tapeout.errors import ChipError, TapeoutError
from tapeout.pytorch.device_runtime import shim
from tapeout.pytorch.distributed import extension, operators
from tapeout.runtime.world import ALONE_VARIABLE, KIND_VARIABLE, Group, Member, World

BACKEND = "tccl"
REDUCTION_VARIABLE = "TAPEOUT_REDUCTION"
REDUCTIONS = ("ascending", "ring")
"""Orders of sums: of ranks, rounded once (the default); or as a ring adds, from neighbour to neighbour, rounded each
time, where the order depends on an element's place in the message."""
_world: World | None = None
_newest: tuple[Store, Any] | None = None  # the group made last: torch asks for it once for each kind of device


def world() -> World:
    """The world of this process, made with its first group. Raises ChipError if its ranks have no place."""
    global _world
    if _world is None:
        found = clusters.named()
        if found is not None:
            found.check_ranks(int(os.environ.get("WORLD_SIZE", "1")))
        _world = World(found, int(os.environ.get("RANK", "0")))
    return _world


def world_if_any() -> World | None:
    return _world


def is_alone() -> bool:
    """Return whether this process stands for every rank of its world."""
    return os.environ.get(ALONE_VARIABLE) == "1"


def create(options: Any, _: Any = None) -> Any:
    """Return the back end of a new group. Raises ChipError or TapeoutError, on every rank, if the ranks do not fit."""
    global _newest
    store = options.store.underlying_store if isinstance(options.store, PrefixStore) else options.store
    if _newest is not None and _newest[0] is store:
        return _newest[1]
    if len(own := chips.of_process()) > 1:
        raise TapeoutError(
            f"this process simulates {len(own)} chips ({chips.CHIPS_VARIABLE}), and a rank of torch.distributed has "
            f"one: unset {chips.CHIPS_VARIABLE} and start a process for each chip"
        )
    rank, size, timeout = options.group_rank, options.group_size, options.timeout
    ranks = tuple(options.global_ranks_in_group) or tuple(range(size))
    here = world()
    chip = None
    if os.environ.get(KIND_VARIABLE) != "cpu":
        shim()
        chip = chips.active()
        if here.cluster is None:
            clusters.check_links(chip, size)
    operators.register()
    name = options.group_id or "default"
    member = Member.this_process(chip, here.cluster, _reduction())
    meta = data = None
    members: tuple[Member, ...] = (member,)
    if not is_alone() and size > 1:
        members = _introduced(PrefixStore("tccl", store), member, rank, size)
        _refuse_strangers(name, ranks, members)
        meta = dist.ProcessGroupGloo(PrefixStore("tccl-meta", store), rank, size, timeout=timeout)
        data = dist.ProcessGroupGloo(PrefixStore("tccl-data", store), rank, size, timeout=timeout)
    group = Group(here, name, ranks, members)
    backend = extension.load().ChipBackend(meta, data, rank, size, group, member.reduction == "ring")
    _newest = store, backend
    return backend


def _reduction() -> str:
    given = os.environ.get(REDUCTION_VARIABLE) or REDUCTIONS[0]
    if given not in REDUCTIONS:
        raise TapeoutError(f"{REDUCTION_VARIABLE}={given!r} is not an order of sums; choose {' or '.join(REDUCTIONS)}")
    return given


def forget() -> None:
    """Forget the newest group: torch.distributed has been torn down. What the world did is still told."""
    global _newest
    _newest = None


def _introduced(store: Store, member: Member, rank: int, size: int) -> tuple[Member, ...]:
    """Tell the others what this rank is, and learn what they are."""
    store.set(str(rank), json.dumps(asdict(member)))
    return tuple(Member(**json.loads(text)) for text in store.multi_get([str(other) for other in range(size)]))


def _refuse_strangers(name: str, ranks: tuple[int, ...], members: tuple[Member, ...]) -> None:
    first = members[0]
    for rank, member in zip(ranks, members, strict=True):
        if member.chip and first.chip and member.timing_only != first.timing_only:
            timed, computed = (rank, ranks[0]) if member.timing_only else (ranks[0], rank)
            raise TapeoutError(
                f"group {name!r}: rank {timed} only takes the time and rank {computed} computes; "
                "start all ranks with the same --timing-only or TAPEOUT_TIMING"
            )
        if member.reduction != first.reduction:
            raise TapeoutError(
                f"group {name!r}: rank {ranks[0]} adds in the order {first.reduction} and rank {rank} in "
                f"{member.reduction}; give all ranks the same {REDUCTION_VARIABLE}"
            )
        if member.cluster != first.cluster:
            raise ChipError(
                f"group {name!r}: rank {ranks[0]} is in cluster {first.cluster or 'none'} and rank {rank} in "
                f"{member.cluster or 'none'}; "
                f"give all ranks the same {clusters.CLUSTER_VARIABLE}"
            )
