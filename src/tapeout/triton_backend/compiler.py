"""Compiler half of the back end: Triton's stages from Python source to a Program for the active chip."""

import functools
import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget

from tapeout.tile.ir import DEFAULT_STAGES


@dataclass(frozen=True)
class ChipOptions:
    """Launch and code-generation options a kernel may be given; those without meaning on the chip are inert.
    `num_stages`: how many copies the tiles have that loops around a product load. `enable_fp_fusion`: whether a product
    may be rounded only with the sum it goes into."""

    num_warps: int = 4
    num_stages: int = DEFAULT_STAGES
    num_ctas: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    ptx_version: int | None = None
    enable_fp_fusion: bool = True
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e5", "fp8e4nv")
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    max_num_imprecise_acc_default: int = 0
    extern_libs: dict[str, str] | None = None
    debug: bool = False
    backend_name: str = "chip"
    arch: str = ""
    sanitize_overflow: bool = False
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False  # of Triton 3.9
    ir_override: str | None = None

    def __post_init__(self) -> None:
        assert self.num_warps > 0 and not self.num_warps & (self.num_warps - 1), "num_warps must be a power of 2"

    def hash(self) -> str:
        text = repr([(f.name, getattr(self, f.name)) for f in fields(self)])
        return hashlib.sha256(text.encode()).hexdigest()


class ChipBackend(BaseBackend):
    """Turns TTIR into a Program for the chip named by the target's `arch`."""

    binary_ext = "program"
    instrumentation = None
    supports_native_tensor_specialization = False

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return target.backend == "chip"

    def hash(self) -> str:
        """Return what a cached program depends on besides its kernel: the chip and this compiler's own source."""
        return f"{self.target.arch}-{_compiler_fingerprint()}"

    def parse_options(self, options: dict[str, Any]) -> ChipOptions:
        known = {f.name for f in fields(ChipOptions)}
        return ChipOptions(**{k: v for k, v in options.items() if k in known and v is not None})

    def pack_metadata(self, metadata: Any) -> tuple[Any, ...]:
        return ()

    def get_codegen_implementation(self, options: ChipOptions) -> dict[str, Any]:
        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1)}

    def get_module_map(self) -> dict[str, Any]:
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, context: Any) -> None:
        pass

    def make_ttir(self, module: Any, metadata: dict[str, Any], options: ChipOptions) -> Any:
        pm = ir.pass_manager(module.context)
        passes.common.add_inliner(pm)
        if hasattr(passes.ttir, "add_rewrite_tensor_pointer"):  # block pointers, which Triton 3.9 no longer has
            passes.ttir.add_rewrite_tensor_pointer(pm)
        passes.ttir.add_rewrite_tensor_descriptor_to_pointer(pm)
        passes.common.add_canonicalizer(pm)
        passes.ttir.add_combine(pm)
        passes.ttir.add_reorder_broadcast(pm)
        passes.common.add_cse(pm)
        passes.common.add_symbol_dce(pm)
        passes.ttir.add_loop_unroll(pm)
        pm.run(module, "make_ttir")
        return module

    def make_program(self, module: Any, metadata: dict[str, Any], options: ChipOptions) -> bytes:
        from tapeout import chip
        from tapeout.codegen.pipeline import compile_kernel

        metadata["name"] = module.get_entry_func_name()
        metadata["shared"] = 0
        metadata["global_scratch_size"] = 0
        metadata["global_scratch_align"] = 1
        metadata["profile_scratch_size"] = 0
        metadata["profile_scratch_align"] = 1
        metadata["tmem_size"] = 0
        program = compile_kernel(
            str(module), chip.active(), options.num_stages, fuses_products=options.enable_fp_fusion
        )
        return program.encode()

    def add_stages(self, stages: dict[str, Any], options: ChipOptions, language: Any) -> None:
        stages["ttir"] = lambda module, metadata: self.make_ttir(module, metadata, options)
        stages["program"] = lambda module, metadata: self.make_program(module, metadata, options)


@functools.cache
def _compiler_fingerprint() -> str:
    """Changes with every source file between Triton's IR and the Program."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for folder in ("numerics", "isa", "tile", "passes", "codegen", "triton_backend"):
        for path in sorted(package.joinpath(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
