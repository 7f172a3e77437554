"""What the passes make of three kernels, as text; and that their order matters."""

import kernels
import pytest

from tapeout import chip
from tapeout.codegen.pipeline import TILE_PASSES, compile_kernel
from tapeout.errors import TapeoutError
from tapeout.passes.raise_accesses import raise_accesses
from tapeout.passes.remove_dead import remove_dead
from tapeout.passes.structure_returns import structure_returns
from tapeout.tile.ir import show, walk
from tapeout.tile.ttir import read_kernel
from tapeout.tile.verify import verify

KERNELS = {
    "vector_add": (kernels.vector_add, "*fp32 *fp32 *fp32 i32", {"BLOCK": 128}),
    "matmul": (kernels.matmul, "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32", {"BM": 32, "BN": 32, "BK": 16}),
    "gather_rows": (kernels.gather_rows, "*fp32 *i32 *fp32", {"D": 16, "B": 8}),
    "early_return": (kernels.early_return, "*fp32 i32", {"BLOCK": 16}),
}


@pytest.fixture(params=KERNELS)
def text(request):
    kernel, signature, constants = KERNELS[request.param]
    return request.param, kernels.ttir(kernel, signature, **constants)


def run_tile_passes(ttir):
    kernel = read_kernel(ttir)
    for run_pass in TILE_PASSES:
        kernel = verify(run_pass(kernel), after=run_pass.__name__)
    return kernel


def test_tile_ir(text, golden):
    name, ttir = text
    golden(f"{name}.tile.txt", show(run_tile_passes(ttir)))


def test_program(text, golden):
    name, ttir = text
    golden(f"{name}.program.txt", compile_kernel(ttir, chip.load("tiny")).text)


def test_no_pointer_tiles_are_left(text):
    for operation in walk(run_tile_passes(text[1]).body):
        assert not any(result.type.pointee and result.type.shape for result in operation.results), operation.name


def test_compiling_is_deterministic(text):
    first, second = (compile_kernel(text[1], chip.load("tiny")).encode() for _ in range(2))
    assert first == second


def test_raising_needs_structured_returns():
    """Out of order, the blocks after an early return would be lost."""
    kernel, signature, constants = KERNELS["early_return"]
    ttir = kernels.ttir(kernel, signature, **constants)
    in_order = remove_dead(raise_accesses(structure_returns(read_kernel(ttir))))
    assert "tile.store" in [operation.name for operation in walk(in_order.body)]
    out_of_order = remove_dead(raise_accesses(read_kernel(ttir)))
    assert "tile.store" not in [operation.name for operation in walk(out_of_order.body)]


def test_the_verifier_names_pass_and_line():
    kernel, signature, constants = KERNELS["vector_add"]
    broken = read_kernel(kernels.ttir(kernel, signature, **constants))
    operations = broken.body.block.operations
    operations.append(operations.pop(next(k for k, o in enumerate(operations) if o.name == "tt.make_range")))
    with pytest.raises(TapeoutError, match=r"after shuffling: .* before it is defined"):
        verify(broken, after="shuffling")
