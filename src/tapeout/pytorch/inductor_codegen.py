"""How Inductor writes code for the chip: its Triton code generator with the few decisions that differ.

Imported by inductor.py when Inductor is there; the generated modules import `ChipAsyncCompile` from here.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codegen.common import DeviceOpOverrides
from torch._inductor.codegen.triton import TritonKernel, TritonScheduling
from torch._inductor.codegen.wrapper import PythonWrapperCodegen
from torch._inductor.custom_graph_pass import CustomGraphModulePass

from tapeout import chip as chips

# A tensor's own dimensions stay visible in the kernel: accesses are then affine, one rectangular DMA each.
KEEP_DIMENSIONS = {"triton.prefer_nd_tiling": True, "triton.tile_reductions": True}

# Inductor's worker processes do not know which chip was activated in this one.
IN_THIS_PROCESS = {"compile_threads": 1}


class ChipIdentity(CustomGraphModulePass):
    """Changes no graph. Its identity enters the key of Inductor's graph cache: the chip, and how we generate code."""

    def __call__(self, graph_module: torch.fx.GraphModule) -> None:
        pass

    def uuid(self) -> str:
        return f"{_source_digest()}-{chips.active().fingerprint()}"


@functools.cache
def _source_digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


class ChipOpOverrides(DeviceOpOverrides):
    """The lines about devices and streams in a generated module."""

    def import_get_raw_stream_as(self, name: str) -> str:
        return f"{name} = torch.chip._raw_stream"

    def set_device(self, device_idx: int) -> str:
        return f"torch.chip.set_device({device_idx})"

    def synchronize(self) -> str:
        return "torch.chip.synchronize()"

    def device_guard(self, device_idx: int) -> str:
        return f"torch.chip.device({device_idx})"

    def current_stream(self) -> str:
        return "torch.chip.current_stream()"


class ChipKernel(TritonKernel):
    """One configuration per kernel, unless max-autotune asks for the one that is fastest on the chip."""

    @classmethod
    def inductor_meta_common(cls) -> dict[str, Any]:
        if config.max_autotune or config.max_autotune_pointwise:
            return super().inductor_meta_common()
        return {**super().inductor_meta_common(), "autotune_pointwise": False, "deterministic": True}


class ChipScheduling(TritonScheduling):
    """Inductor's scheduling for Triton, keeping dimensions."""

    kernel_type: type[Any] = ChipKernel

    @classmethod
    def get_tiling_and_scores(cls, *args: Any, **kwargs: Any) -> Any:
        with config.patch(KEEP_DIMENSIONS):
            return super().get_tiling_and_scores(*args, **kwargs)

    def define_kernel(self, *args: Any, **kwargs: Any) -> Any:
        with config.patch(IN_THIS_PROCESS):
            return super().define_kernel(*args, **kwargs)


class ChipWrapperCodegen(PythonWrapperCodegen):
    """The generated module, with its kernels compiled in the process that knows the active chip."""

    @staticmethod
    def create(
        is_subgraph: bool,
        subgraph_name: str | None,
        parent_wrapper: PythonWrapperCodegen | None,
        partition_signatures: Any = None,
    ) -> PythonWrapperCodegen:
        if is_subgraph:
            return PythonWrapperCodegen.create(is_subgraph, subgraph_name, parent_wrapper, partition_signatures)
        return ChipWrapperCodegen()

    def write_header(self) -> None:
        super().write_header()
        self.header.writeline(f"from {__name__} import ChipAsyncCompile")
        self.header.writeline("async_compile = ChipAsyncCompile()")


class ChipAsyncCompile(AsyncCompile):
    """Compiles in this process and waits."""

    def triton(self, *args: Any, **kwargs: Any) -> Any:
        with config.patch(IN_THIS_PROCESS):
            return super().triton(*args, **kwargs)
