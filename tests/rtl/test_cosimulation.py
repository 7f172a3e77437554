"""Kernels compiled from Triton give the same bytes on the evaluator, the functional simulator and the RTL."""

import numpy as np
import pytest

from tapeout.codegen.pipeline import compile_kernel
from tapeout.rtl.cosimulation import compare
from tapeout.runtime import kernel as kernels
from tests.passes import kernels as written
from tests.rtl.cut_down import SMALL

pytestmark = pytest.mark.usefixtures("model")

MATMUL = {"BM": 16, "BN": 16, "BK": 16}
MATMUL_ARGUMENTS = (0, 2048, 4096, 16, 32, 32, 32, 32, 32)
CASES = {
    "vector_add": (
        written.vector_add,
        "*fp32 *fp32 *fp32 i32",
        {"BLOCK": 64},
        (3, 1, 1),
        (0, 2048, 4096, 150),
    ),
    "row_softmax": (
        written.row_softmax,
        "*fp32 *fp32 i32 i32",
        {"ROWS": 2, "COLUMNS": 32},
        (2, 1, 1),
        (0, 4096, 30, 32),
    ),
    **{
        f"matmul_{dtype}": (
            written.matmul,
            f"*{dtype} *{dtype} *fp32 i32 i32 i32 i32 i32 i32",
            MATMUL,
            (1, 2, 1),
            MATMUL_ARGUMENTS,
        )
        for dtype in ("bf16", "fp16", "fp8e4nv", "fp8e5")
    },
    "attention": (
        written.attention,
        "*fp32 *fp32 *fp32 *fp32 i32 fp32",
        {"D": 16, "B": 16},
        (2, 1, 1),
        (0, 2048, 4096, 6144, 32, 0x3E800000),
    ),
    "gather_rows": (written.gather_rows, "*fp32 *i32 *fp32", {"D": 16, "B": 8}, (2, 1, 1), (0, 4096, 6144)),
}


@pytest.mark.parametrize("name", CASES)
def test_four_machines_agree(name):
    function, signature, constants, grid, places = CASES[name]
    live = np.zeros(8192, np.uint8)
    live.view(np.float32)[:] = np.random.default_rng(0).normal(size=2048)
    if name == "gather_rows":
        live[4096:6144].view(np.int32)[:] = np.random.default_rng(1).integers(0, 64, 512)
    if name == "matmul_bf16":  # the upper halves of float32 numbers
        numbers = np.random.default_rng(2).normal(size=2048).astype(np.float32)
        live[:4096].view(np.uint16)[:] = numbers.view(np.uint16)[1::2]
    elif name.startswith("matmul"):  # any bits, but neither infinities nor NaNs
        live[:4096] = np.random.default_rng(3).integers(0, 256, 4096) & 0xBB
    base = live.ctypes.data
    arguments = [base + a if kind[0] == "*" else a for a, kind in zip(places, signature.split(), strict=True)]
    program = compile_kernel(written.ttir(function, signature, **constants), SMALL)
    found = compare(kernels.load(program, SMALL), grid, arguments, live, optimised=False)
    assert found.changed_bytes > 100
    assert (found.functional_bytes, found.rtl_bytes) == (0, 0), found.difference
    assert found.timing_cycles > 0 and found.rtl_cycles > 0
