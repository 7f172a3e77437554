"""The chip as a platform of vLLM: attention in vLLM's own Triton kernels, Inductor, graphs, the chip's collectives."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from tapeout.pytorch import device as chip
from tapeout.pytorch.distributed.registration import BACKEND

if TYPE_CHECKING:
    from vllm.config import VllmConfig

WORKER = "tapeout.serving.vllm.worker.ChipWorker"


class ChipPlatform(Platform):
    _enum = PlatformEnum.OOT
    device_name = "chip"
    device_type = "chip"
    dispatch_key = "PrivateUse1"
    ray_device_key = "chip"
    dist_backend = BACKEND
    device_control_env_var = "TAPEOUT_VISIBLE_CHIPS"
    simple_compile_backend = "inductor"

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's C++ kernels are for other devices."""

    @classmethod
    def check_and_update_config(cls, vllm_config: "VllmConfig") -> None:
        parallel, compilation = vllm_config.parallel_config, vllm_config.compilation_config
        if parallel.worker_cls == "auto":
            parallel.worker_cls = WORKER
        if compilation.compile_sizes is None:
            compilation.compile_sizes = []
        # Combined kernels are timed against single ones at compile time, which says nothing of the chip.
        options = compilation.inductor_compile_config
        options["combo_kernels"] = options["benchmark_combo_kernel"] = False

    @classmethod
    def get_pass_manager_cls(cls) -> str:
        return "tapeout.serving.vllm.passes.ChipPassManager"

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None
    ) -> str:
        if attn_selector_config.use_mla:
            return AttentionBackendEnum.TRITON_MLA.get_path()
        return AttentionBackendEnum.TRITON_ATTN.get_path()

    @classmethod
    def get_static_graph_wrapper_cls(cls) -> str:
        return "vllm.compilation.cuda_graph.CUDAGraphWrapper"

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        return True

    @classmethod
    def graph_pool_handle(cls) -> tuple[int, int]:
        from tapeout.pytorch import graphs

        return graphs.graph_pool_handle()

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return chip.get_device_name()

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> None:
        return None

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return chip.get_device_properties().total_memory

    @classmethod
    def get_current_memory_usage(cls, device: Any = None) -> float:
        return chip.max_memory_allocated()

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """One process simulates one chip."""

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        chip.manual_seed_all(seed)

    @classmethod
    def inference_mode(cls) -> AbstractContextManager[None]:
        return torch.no_grad()

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        """The chip computes in all types that vLLM's models have."""

    @classmethod
    def opaque_attention_op(cls) -> bool:
        return True

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return chip.get_device_properties().multi_processor_count

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def supports_fp8(cls) -> bool:
        return True

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "vllm.lora.punica_wrapper.punica_gpu.PunicaWrapperGPU"

    @classmethod
    def check_runner_kv_caches_multi_layer(cls) -> None:
        """vLLM's own runner is used, which can handle them."""
