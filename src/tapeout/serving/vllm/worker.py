"""vLLM's worker on the chip. Where its runners say `torch.cuda`, the worker's process means `torch.chip`."""

import contextlib
import functools
import gc
import os
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.utils import torch_utils
from vllm.utils.mem_utils import MemorySnapshot
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker import gpu_worker
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as RunnerV1
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.utils import request_memory

from tapeout.pytorch import device as chip
from tapeout.pytorch import graphs
from tapeout.runtime import session
from tapeout.serving import step_times


def name_the_chip() -> None:
    """Give `torch.cuda` the chip's streams, events and graphs. Each name is a callable of its own: Dynamo refuses to
    know one object as two."""
    names: dict[str, Any] = {
        "Stream": chip.Stream,
        "Event": _event,
        "current_stream": partial(chip.current_stream),
        "default_stream": partial(chip.current_stream),
        "stream": partial(chip.stream),
        "set_stream": partial(chip.set_stream),
        "synchronize": partial(chip.synchronize),
        "CUDAGraph": graphs.Graph,
        "graph": partial(graphs.graph),
        "graph_pool_handle": partial(graphs.graph_pool_handle),
        "is_current_stream_capturing": graphs.is_capturing,
        # A kernel of vLLM's asks which element types the device has.
        "get_device_capability": lambda device=None: (8, 0),
    }
    for name, value in names.items():
        setattr(torch.cuda, name, value)


def _event(
    enable_timing: bool = False, blocking: bool = False, interprocess: bool = False, external: bool = False
) -> Any:
    return chip.Event(enable_timing=enable_timing)


class ChipWorker(Worker):
    def init_device(self) -> None:
        name_the_chip()
        # vLLM's warming up tunes kernels of other devices, and imports torchvision for it.
        gpu_worker.kernel_warmup = lambda worker, **_: None
        # A graph's tensors lie in memory that is the graph's: to hold one instead of forgetting it costs nothing.
        torch_utils.weak_ref_tensor = lambda tensor: tensor
        self.device = torch.device("chip", 0)
        init_worker_distributed_environment(
            self.vllm_config, self.rank, self.distributed_init_method, self.local_rank, current_platform.dist_backend
        )
        set_random_seed(self.model_config.seed)
        gc.collect()
        self.init_snapshot = MemorySnapshot(device=self.device)
        self.requested_memory = request_memory(self.init_snapshot, self.cache_config)
        self._init_workspace_and_model_runner()

    def execute_model(self, scheduler_output: Any) -> Any:
        self._steps.begin(scheduler_output)
        output = super().execute_model(scheduler_output)
        if output is not None:
            self._steps.end()
        return output

    def sample_tokens(self, grammar_output: Any) -> Any:
        output = super().sample_tokens(grammar_output)
        self._steps.end()
        return output

    @functools.cached_property
    def _steps(self) -> "_Steps":
        path = os.environ.get(step_times.VARIABLE)
        return _Steps(Path(path) if path and self.rank == 0 else None)

    def _make_model_runner(self) -> Any:
        runner = RunnerV2 if self.use_v2_model_runner else RunnerV1
        return runner(self.vllm_config, self.device)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class _Steps:
    """Writes each step's time on the chip, where somebody wants to read it (`path`)."""

    def __init__(self, path: Path | None):
        self.path = path
        self.prompts: dict[str, int] = {}
        self.step: tuple[int, list[str], list[str]] | None = None

    def begin(self, scheduled: Any) -> None:
        if self.path is None or session.clock is None or not scheduled.total_num_scheduled_tokens:
            return
        for name in scheduled.finished_req_ids:
            self.prompts.pop(name, None)
        before = {each.req_id: each.num_computed_tokens for each in scheduled.scheduled_new_reqs}
        self.prompts |= {each.req_id: each.prompt_len for each in scheduled.scheduled_new_reqs}
        cached = scheduled.scheduled_cached_reqs
        before |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        counts = scheduled.num_scheduled_tokens
        sampled = [name for name, new in counts.items() if before[name] + new >= self.prompts[name]]
        self.step = session.clock.moment().time_ps, list(counts), sampled

    def end(self) -> None:
        if self.step is None or self.path is None or session.clock is None:
            return
        start_ps, scheduled, sampled = self.step
        self.step = None
        with self.path.open("a") as file:
            file.write(step_times.line(start_ps, session.clock.moment().time_ps, scheduled, sampled))
