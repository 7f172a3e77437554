"""Inductor's code generation for the chip: its Triton code generator with the few decisions that differ.

Imported by inductor.py when Inductor is there; the generated modules import `ChipAsyncCompile` from here.
"""

import functools
import hashlib
import inspect
import itertools
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sympy
import torch
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codegen.common import DeviceOpOverrides
from torch._inductor.codegen.simd import SIMDKernel
from torch._inductor.codegen.triton import TritonKernel, TritonKernelOverrides, TritonScheduling, triton_store_type
from torch._inductor.codegen.wrapper import PythonWrapperCodegen
from torch._inductor.custom_graph_pass import CustomGraphModulePass
from torch._inductor.dependencies import MemoryDep
from torch._inductor.runtime import triton_heuristics
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.scheduler import SchedulerNode
from torch._inductor.virtualized import V
from torch.utils._sympy.functions import FloorDiv, ModularIndexing

from tapeout import chip as chips
from tapeout.errors import UnsupportedError
from tapeout.pytorch import inductor_mutations
from tapeout.pytorch.ops.sizes import power_of_two_at_least
from tapeout.pytorch.ops.tiles import SCRATCHPAD_BYTES_PER_ELEMENT, rows_tile

# A tensor's own dimensions stay visible in the kernel: accesses are then affine, one rectangular DMA each.
KEEP_DIMENSIONS = {"triton.prefer_nd_tiling": True, "triton.tile_reductions": True}

# Inductor's worker processes do not know which chip was activated in this one.
IN_THIS_PROCESS = {"compile_threads": 1}


class ChipGraphPass(CustomGraphModulePass):
    """Keeps values that are read before they are overwritten. Its identity enters the key of Inductor's graph cache:
    the chip, and how we generate code."""

    def __call__(self, graph_module: torch.fx.GraphModule) -> None:
        inductor_mutations.keep_values(graph_module.graph)

    def uuid(self) -> str:
        return f"{_source_digest()}-{chips.active().fingerprint()}"


@functools.cache
def _source_digest() -> str:
    sources = [Path(__file__), Path(inductor_mutations.__file__), Path(__file__).with_name("inductor.py")]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


class ChipOpOverrides(DeviceOpOverrides):
    """The lines about devices and streams in a generated module."""

    def import_get_raw_stream_as(self, name: str) -> str:
        return f"from tapeout.pytorch.device import _raw_stream as {name}"

    def set_device(self, device_idx: int) -> str:
        return f"torch.chip.set_device({device_idx})"

    def synchronize(self) -> str:
        return "torch.chip.synchronize()"

    def device_guard(self, device_idx: int) -> str:
        return f"torch.chip.device({device_idx})"

    def current_stream(self) -> str:
        return "torch.chip.current_stream()"


class ChipOverrides(TritonKernelOverrides):
    """Operations that Inductor writes otherwise than torch's CPU computes them."""

    @staticmethod
    def neg(x: Any) -> str:
        """Triton's -x is 0 - x, which loses the sign of a zero."""
        return f"({x} * -1.0)" if x.dtype is None or x.dtype.is_floating_point else f"(-{x})"

    @staticmethod
    def signbit(x: Any) -> str:
        """Inductor compares a double with zero, which has no sign then."""
        if x.dtype == torch.float64:
            return f"(libdevice.signbit({x}) != 0)"
        return str(TritonKernelOverrides.signbit(x))

    @staticmethod
    def to_dtype(
        x: Any, dtype: torch.dtype, src_dtype: torch.dtype | None = None, use_compute_types: bool = True
    ) -> str:
        """A float that is no number of an integer type becomes the least of the type that the element is cut from."""
        if src_dtype is None or not src_dtype.is_floating_point or dtype not in WIDE_INTEGERS:
            return str(TritonKernelOverrides.to_dtype(x, dtype, src_dtype, use_compute_types))
        wide = WIDE_INTEGERS[dtype]
        end = 2.0 ** (torch.iinfo(wide).bits - 1)
        whole = f"tl.where(({x} >= -{end}) & ({x} < {end}), {x}, -{end}).to({triton_store_type(wide)})"
        return whole if wide == dtype else f"{whole}.to({triton_store_type(dtype)})"


WIDE_INTEGERS = {
    torch.int64: torch.int64,
    torch.int32: torch.int32,
    torch.int16: torch.int32,
    torch.int8: torch.int32,
    torch.uint8: torch.int64,
}


class ChipKernel(TritonKernel):
    """One configuration per kernel, unless max-autotune asks for the one that is fastest on the chip."""

    overrides = ChipOverrides

    @classmethod
    def inductor_meta_common(cls) -> dict[str, Any]:
        if config.max_autotune or config.max_autotune_pointwise:
            return super().inductor_meta_common()
        return {**super().inductor_meta_common(), "autotune_pointwise": False, "deterministic": True}

    def should_use_persistent_reduction(self) -> bool:
        """Rows that a tile holds whole are read once, whatever a GPU's registers would say."""
        if super().should_use_persistent_reduction():
            return True
        if not self.inside_reduction or self.cooperative_reduction or not config.triton.persistent_reductions:
            return False
        longest_row = chips.active().core.scratchpad.size_bytes // SCRATCHPAD_BYTES_PER_ELEMENT // ROWS_WORTH_WHOLE
        is_along_memory = self.features.get_reduction_hint() == ReductionHint.INNER and self.numels.keys() == ROWS
        return is_along_memory and V.graph.sizevars.statically_known_leq(self.features.reduction_numel, longest_row)


ROWS = {"x", "r0_"}
"""Inductor's names of the dimensions, where rows are reduced and neither rows nor columns have two."""

ROWS_WORTH_WHOLE = 4
"""Inductor's kernels read rows whole where a tile has at least so many."""

LOOP_COLUMNS = 1024
"""Columns of a tile of longer rows, which are read in a loop, and again in the next."""


def choose_tiles_of_reductions() -> None:
    """Has Inductor's reductions along memory take tiles by the chip's description: several rows, so that something
    else runs while a row's sum waits for itself. Its own rule gives a program one row, which is for a GPU's block."""
    for name in ("_reduction_configs", "_persistent_reduction_configs"):
        setattr(triton_heuristics, name, _with_tiles_of_chip(getattr(triton_heuristics, name)))


def _with_tiles_of_chip(inductors: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    signature = inspect.signature(inductors)

    def configurations(*args: Any, **kwargs: Any) -> list[Any]:
        found = inductors(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        sizes, meta = given["size_hints"], given["inductor_meta"]
        is_tuned = meta.get("max_autotune") or meta.get("max_autotune_pointwise")
        is_along_memory = meta.get("reduction_hint") == ReductionHint.INNER and sizes.keys() == ROWS
        if given["triton_meta"]["device"].type != "chip" or is_tuned or not is_along_memory:
            return found
        chip, chosen = chips.active(), found[-1]
        is_loop = "R0_BLOCK" in chosen.kwargs
        columns = min(sizes["r0_"], LOOP_COLUMNS) if is_loop else sizes["r0_"]
        rows, columns = rows_tile(chip, sizes["x"], columns)
        if is_loop:
            # The next loop finds its rows in the last-level SRAM if those of all cores fit.
            rows_bytes = chip.core_count * sizes["r0_"] * 4
            rows = min(rows, power_of_two_at_least(max(1, chip.memory_side.size_bytes // rows_bytes // 2)))
            chosen.kwargs["R0_BLOCK"] = columns
        chosen.kwargs["XBLOCK"] = min(rows, sizes["x"])
        return [chosen]

    return configurations


Tiling = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Dimensions of a kernel that are not reduced, and those that are."""

_known: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
"""Answers about tilings by graph: Inductor asks about the same nodes again for every pair of them that it may fuse."""


class ChipScheduling(TritonScheduling):
    """Inductor's scheduling for Triton, keeping dimensions."""

    kernel_type: type[Any] = ChipKernel

    def can_fuse_vertical(self, node1: Any, node2: Any) -> bool:
        return self._keeps_values(node1, node2) and super().can_fuse_vertical(node1, node2)

    def can_fuse_horizontal(self, node1: Any, node2: Any) -> bool:
        return self._keeps_values(node1, node2) and super().can_fuse_horizontal(node1, node2)

    @staticmethod
    def _keeps_values(node1: Any, node2: Any) -> bool:
        return not inductor_mutations.is_overwritten_elsewhere(node1, node2)

    @classmethod
    def get_tiling_and_scores(cls, *args: Any, **kwargs: Any) -> Any:
        with config.patch(KEEP_DIMENSIONS):
            return super().get_tiling_and_scores(*args, **kwargs)

    @classmethod
    def get_nd_tilings(cls, node_schedule: Any, pointwise_numel: Any, reduction_numel: Any) -> Any:
        """Inductor's candidates of many dimensions, more dimensions first, from a look at the index expressions.

        Inductor has sympy match patterns with them, which takes half of the time of compiling a model.
        """
        sizes = V.graph.sizevars
        is_pointwise = reduction_numel == 1
        known = _known.setdefault(V.graph, {})

        def dims_of(ranges: Any, index: Any, numel: Any) -> tuple[Any, ...]:
            dims = [dim for var, size in ranges for dim in _dims_implied(index, var, size)]
            return collapsed([dim for dim in dims if not sizes.statically_known_equals(dim, sympy.S.One)], numel)

        def collapsed(dims: Sequence[Any], numel: Any) -> tuple[Any, ...]:
            """Return as many dimensions as a kernel has, the leading ones merged into one."""
            if not dims:
                return (numel,)
            joined = max(0, len(dims) - (config.triton.max_tiles or 2)) + 1
            return (sympy.prod(dims[:joined]), *dims[joined:])

        def of_access(dep: MemoryDep) -> Tiling | None:
            ranges = list(dep.ranges.items())
            products = itertools.accumulate((size for _, size in ranges), lambda a, b: a * b)
            ends = [n for n, product in enumerate(products, 1) if sizes.statically_known_geq(product, pointwise_numel)]
            end = ends[0] if ends else len(ranges)
            if not sizes.statically_known_equals(sympy.prod(size for _, size in ranges[:end]), pointwise_numel):
                return None
            reduced = (sympy.S.One,) if is_pointwise else dims_of(ranges[end:], dep.index, reduction_numel)
            return dims_of(ranges[:end], dep.index, pointwise_numel), reduced

        tilings: dict[Any, None] = {}
        for node in node_schedule:
            if not isinstance(node, SchedulerNode):
                continue
            own_ranges = node.get_ranges()
            if not is_pointwise and not own_ranges[1]:
                continue
            of_node = [(collapsed(own_ranges[0], pointwise_numel), collapsed(own_ranges[1], reduction_numel))]
            for dep in node.read_writes.reads_and_writes():
                if not isinstance(dep, MemoryDep) or not dep.ranges:
                    continue
                key = (dep, pointwise_numel, reduction_numel, config.triton.max_tiles)
                if key not in known:
                    known[key] = of_access(dep)
                if (tiling := known[key]) is not None:
                    of_node.append(tiling)
            pointwise_tilings, reduced_tilings = (dict.fromkeys(parts) for parts in zip(*of_node, strict=True))
            for pointwise, reduced in itertools.product(pointwise_tilings, reduced_tilings):
                tilings[cls.create_tiling(pointwise, reduced)] = None
        return sorted(tilings, key=len, reverse=True)

    @classmethod
    def candidate_tilings(cls, node: Any, numel: Any, reduction_numel: Any) -> Any:  # type: ignore[override]
        """Inductor's, which itself remembers them for 32 nodes."""
        known = _known.setdefault(V.graph, {})
        key = (node.get_name(), tuple(node.read_writes.reads_and_writes()), numel, reduction_numel)
        if key not in known:
            known[key] = super().candidate_tilings(node, numel, reduction_numel)
        return known[key]

    @classmethod
    def tiling_is_compatible(cls, node_schedule: Any, numel: Any, reduction_numel: Any, tiling: Any) -> bool:
        known = _known.setdefault(V.graph, {})
        groups = tuple(tiling.values())
        each = (node.get_ranges() for node in node_schedule if isinstance(node, SchedulerNode))
        for ranges in dict.fromkeys(tuple(map(tuple, ranges)) for ranges in each):
            key = (groups, ranges, reduction_numel)
            if key not in known:
                known[key] = SIMDKernel.is_compatible(groups, ranges, reduction_numel=reduction_numel)
            if not known[key]:
                return False
        return True

    def define_kernel(self, *args: Any, **kwargs: Any) -> Any:
        with config.patch(IN_THIS_PROCESS):
            return super().define_kernel(*args, **kwargs)


def _dims_implied(index: Any, var: Any, numel: Any) -> list[Any]:
    """The dimensions that an index makes of a variable's range by dividing it and taking remainders; else the range."""
    terms = [term for term in sympy.Add.make_args(index.expand(identity=True)) if var in term.free_symbols]
    starts = {sympy.S.One}
    for term in terms:
        digits = term.atoms(FloorDiv, ModularIndexing)
        digit = digits.pop() if len(digits) == 1 else None
        if digit is None or digit.args[0] != var or var in (term / digit).free_symbols:
            return [numel]
        starts.add(digit.args[1])
        if isinstance(digit, ModularIndexing):
            starts.add(digit.args[1] * digit.args[2])
    sizes = V.graph.sizevars
    ordered = [numel, *sorted(starts - {numel}, key=sizes.optimization_hint, reverse=True)]
    pairs = list(itertools.pairwise(ordered))
    if not all(sizes.statically_known_multiple_of(larger, smaller) for larger, smaller in pairs):
        return [numel]
    return [larger / smaller for larger, smaller in pairs]


class NoCppWrapperCodegen(PythonWrapperCodegen):
    """Refuses what would launch the chip's kernels from generated C++."""

    @staticmethod
    def create(*args: Any, **kwargs: Any) -> PythonWrapperCodegen:
        raise UnsupportedError(
            "AOTInductor, or cpp_wrapper=True, for the chip",
            hint="torch.export.save keeps the program, and torch.compile compiles it where it is loaded",
        )


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
