"""vLLM's scheduler and cache manager by themselves, without a model: the engine of `tapeout serve-sim`.

The real `Scheduler` of the installed vLLM admits requests, cuts prompts into pieces, hands out blocks of cache, finds
common prefixes and preempts. Here it is asked what the next step does, and told that every token came out.
"""

import os
from dataclasses import dataclass
from typing import Any

from tapeout.models.batch import Work
from tapeout.serving.requirements import require_vllm
from tapeout.serving.simulation import Server
from tapeout.serving.traces import HASHED_TOKENS, Arrival
from tapeout.serving.virtual_time import Stepped

TOKEN = 7
"""What every step answers. Its value matters to nothing: no request ends but by its length."""
FIRST_OWN_TOKEN = 1 << 32
"""From here on tokens belong to one request; below lie the marks of shared prefixes."""


@dataclass(frozen=True)
class _ModelFacts:
    """What the scheduler reads of a model's configuration: a decoder of text."""

    max_model_len: int
    uses_mrope: bool = False
    is_encoder_decoder: bool = False
    is_diffusion: bool = False
    runner_type: str = "generate"
    supports_multimodal_inputs: bool = False
    return_sampling_mask: bool = False
    multimodal_config: None = None
    skip_tokenizer_init: bool = True


def engine(server: Server, blocks: int, longest: int) -> "SchedulerEngine":
    """An idle server with so many blocks of cache, for sequences up to `longest` tokens.

    Raises TapeoutError if vLLM is not installed.
    """
    require_vllm()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    return SchedulerEngine(_scheduler(server, blocks, longest), server.block_tokens)


class SchedulerEngine:
    """A `tapeout.serving.virtual_time.Engine`."""

    def __init__(self, scheduler: Any, block_tokens: int):
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        init_none_hash(sha256)
        self._scheduler = scheduler
        self._hasher = get_request_block_hasher(block_tokens, sha256)

    @property
    def is_busy(self) -> bool:
        return bool(self._scheduler.has_unfinished_requests())

    def add(self, index: int, arrival: Arrival) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        self._scheduler.add_request(
            Request(
                request_id=str(index),
                prompt_token_ids=prompt_of(index, arrival),
                sampling_params=SamplingParams(
                    max_tokens=arrival.output_tokens, min_tokens=arrival.output_tokens, ignore_eos=True
                ),
                pooling_params=None,
                arrival_time=arrival.time_s,
                block_hasher=self._hasher,
            )
        )

    def step(self) -> Stepped:
        from vllm.v1.outputs import ModelRunnerOutput

        scheduler = self._scheduler
        scheduled = scheduler.schedule()
        prompts, contexts, sampled = [], [], []
        names = list(scheduled.num_scheduled_tokens)
        for name in names:
            new, request = scheduled.num_scheduled_tokens[name], scheduler.requests[name]
            whole = request.num_computed_tokens
            if new == 1 and whole > 1:
                contexts.append(whole - 1)
            else:
                prompts.append((new, whole))
            sampled.append(whole == request.num_tokens)
        tokens = [int(name) for name, is_sampled in zip(names, sampled, strict=True) if is_sampled]
        cached = {int(each.req_id): each.num_computed_tokens for each in scheduled.scheduled_new_reqs}
        used = scheduler.kv_cache_manager.usage
        scheduler.update_from_output(
            scheduled,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: place for place, name in enumerate(names)},
                sampled_token_ids=[[TOKEN] if is_sampled else [] for is_sampled in sampled],
            ),
        )
        return Stepped(
            Work(prompts, contexts, len(tokens)),
            tokens,
            preempted=[int(name) for name in scheduled.preempted_req_ids or ()],
            cached_tokens={index: count for index, count in cached.items() if count},
            cache_share=used,
        )


def prompt_of(index: int, arrival: Arrival) -> list[int]:
    """Tokens that are a request's own, but for the blocks that its marks say it shares."""
    shared = [mark for mark in arrival.prefix for _ in range(HASHED_TOKENS)][: arrival.prompt_tokens]
    return shared + [FIRST_OWN_TOKEN + index] * (arrival.prompt_tokens - len(shared))


def _scheduler(server: Server, blocks: int, longest: int) -> Any:
    import torch
    from vllm.config import CacheConfig, DeviceConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    configuration = VllmConfig(
        scheduler_config=SchedulerConfig(
            max_num_seqs=server.max_sequences,
            max_num_batched_tokens=server.max_batched_tokens,
            max_model_len=max(longest + 1, server.max_sequences),
            is_encoder_decoder=False,
            enable_chunked_prefill=True,
            async_scheduling=False,
        ),
        cache_config=CacheConfig(block_size=server.block_tokens, enable_prefix_caching=True),
        device_config=DeviceConfig("cpu"),
    )
    configuration.cache_config.num_gpu_blocks = blocks
    configuration.model_config = _ModelFacts(longest + 1)
    layer = FullAttentionSpec(
        block_size=server.block_tokens,
        num_kv_heads=max(server.model.key_value_heads // server.tp, 1),
        head_size=server.model.head_size,
        dtype=torch.bfloat16,
    )
    return Scheduler(
        vllm_config=configuration,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)]
        ),
        structured_output_manager=StructuredOutputManager(configuration),
        block_size=server.block_tokens,
        log_stats=False,
    )
