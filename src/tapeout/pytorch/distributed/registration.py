"""Makes torch.distributed know the back end "tccl". Runs when torch.distributed has been imported; builds nothing."""

import functools
import os
import sys
from typing import Any

import torch
from torch.distributed import distributed_c10d

from tapeout.pytorch.program import names_the_chip
from tapeout.runtime import session

BACKEND = "tccl"
DEVICES = ["cpu", "chip"]


def register() -> None:
    """Register the back end for tensors of the chip and of the host, and choose it where a script names none."""
    distributed_c10d.Backend.register_backend(BACKEND, _create, extended_api=True, devices=DEVICES)
    _replace("init_process_group", _initialized)
    _replace("destroy_process_group", _destroyed)


def answer_for_nccl() -> None:
    """Let a script written for CUDA ask for "nccl" and get this back end."""
    global _takes_nccl
    _takes_nccl = True
    for module in (distributed_c10d, sys.modules["torch.distributed"]):
        module.is_nccl_available = lambda: True  # type: ignore[attr-defined]
    _replace("new_group", _new_group)


def one_chip_a_rank() -> None:
    """Let DistributedDataParallel take the index that a rank has among its host's: it has one chip, the first."""
    from torch.nn.parallel import distributed

    before = distributed.DistributedDataParallel.__init__

    @functools.wraps(before)
    def start(
        self: Any, module: Any, device_ids: Any = None, output_device: Any = None, *rest: Any, **named: Any
    ) -> None:
        if device_ids and any(parameter.device.type == "chip" for parameter in module.parameters()):
            device_ids, output_device = [0], None
        before(self, module, device_ids, output_device, *rest, **named)

    distributed.DistributedDataParallel.__init__ = start  # type: ignore[method-assign]
    check = distributed.DistributedDataParallel._check_comm_hook

    @functools.wraps(check)
    def check_hook(self: Any, hook: Any) -> None:
        is_bfloat16 = getattr(hook, "__name__", "") in ("bf16_compress_hook", "bf16_compress_wrapper_hook")
        if not (is_bfloat16 and self.device_type == "chip"):  # torch asks for CUDA's versions there
            check(self, hook)

    distributed.DistributedDataParallel._check_comm_hook = check_hook  # type: ignore[method-assign]
    _agree_without_values(distributed)


def _agree_without_values(distributed: Any) -> None:
    """Leave out, in timing alone, what DistributedDataParallel reads back from its peers: whether they have the same
    parameters, and the order in which the first rank's gradients came. There are no values then, and every rank runs
    one script. The buckets are from the start those that torch makes after the first step of a model whose gradients
    come in the reverse order of its parameters."""
    wrapped = distributed.DistributedDataParallel
    verify, rebuild = (
        distributed._verify_param_shape_across_processes,
        torch._C._distributed_c10d.Reducer._rebuild_buckets,
    )
    start, assign = wrapped._ddp_init_helper, torch.distributed._compute_bucket_assignment_by_size

    @functools.wraps(verify)
    def verified(*arguments: Any) -> Any:
        return None if session.timing_only else verify(*arguments)

    @functools.wraps(rebuild)
    def rebuilt(reducer: Any) -> bool:
        return False if session.timing_only else bool(rebuild(reducer))

    @functools.wraps(start)
    def started(self: Any, parameters: Any, expect_sparse: Any, names: Any, static_graph: bool) -> None:
        if not session.timing_only:
            return start(self, parameters, expect_sparse, names, static_graph)
        sizes = self._bucket_config
        first = min(sizes.first_bucket_bytes_cap, sizes.bucket_bytes_cap)
        limits = (
            list(sizes.per_bucket_bytes_caps) if sizes.has_custom_per_bucket_caps else [first, sizes.bucket_bytes_cap]
        )

        def as_rebuilt(tensors: Any, _: Any, sparse: Any) -> tuple[list[list[int]], list[int]]:
            buckets, caps = assign(tensors[::-1], limits, sparse[::-1])
            places = [[len(tensors) - 1 - place for place in bucket] for bucket in buckets]
            return places[::-1], caps[::-1]

        torch.distributed._compute_bucket_assignment_by_size = as_rebuilt  # type: ignore[assignment]
        try:
            return start(self, parameters, expect_sparse, names, static_graph)
        finally:
            torch.distributed._compute_bucket_assignment_by_size = assign

    distributed._verify_param_shape_across_processes = verified
    torch._C._distributed_c10d.Reducer._rebuild_buckets = rebuilt  # type: ignore[method-assign,assignment]
    wrapped._ddp_init_helper = started


_takes_nccl = False


def _named(backend: str | None) -> str | None:
    return BACKEND if _takes_nccl and backend is not None and "nccl" in str(backend).lower() else backend


def _new_group(original: Any, *arguments: Any, **named: Any) -> Any:
    if "backend" in named:
        named["backend"] = _named(named["backend"])
    return original(*arguments, **named)


def _create(options: Any, backend_options: Any = None) -> Any:
    from tapeout.pytorch.distributed import groups

    return groups.create(options, backend_options)


def _replace(name: str, wrapped: Any) -> None:
    original = getattr(distributed_c10d, name)

    @functools.wraps(original)
    def replacement(*arguments: Any, **named: Any) -> Any:
        return wrapped(original, *arguments, **named)

    for module in (distributed_c10d, sys.modules["torch.distributed"]):
        setattr(module, name, replacement)


def _initialized(original: Any, backend: str | None = None, *arguments: Any, **named: Any) -> Any:
    from tapeout.pytorch.distributed import groups

    if backend is None and names_the_chip():
        backend = BACKEND  # torch would choose it for the chip's tensors and then look for another
    backend = _named(backend)
    if groups.is_alone():
        from torch.testing._internal.distributed.fake_pg import FakeStore

        named.update(store=FakeStore(), rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
        named.pop("init_method", None)
    return original(backend, *arguments, **named)


def _destroyed(original: Any, group: Any = None) -> None:
    original(group)
    if not distributed_c10d.is_initialized():
        from tapeout.pytorch.distributed import groups

        groups.forget()
