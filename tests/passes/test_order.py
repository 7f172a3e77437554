"""What becomes of programs when two neighbouring passes change places."""

import functools

import kernels
import pytest
import triton
import triton.language as tl

from tapeout import chip
from tapeout.codegen.emit import emit
from tapeout.codegen.pipeline import TILE_PASSES, compile_with
from tapeout.codegen.select_instructions import select_instructions
from tapeout.codegen.split_tiles import fit
from tapeout.codegen.synchronise import synchronise
from tapeout.isa.program import encode
from tapeout.passes.share_loads import share_overlapping_loads
from tapeout.passes.sum_products import sum_products
from tapeout.tile.ttir import read_kernel

PASSES = (*TILE_PASSES, sum_products, share_overlapping_loads)
TINY = chip.load("tiny")


@triton.jit(noinline=True)
def half_or_nothing(x, n):
    if n > 2:
        return x * 0.5
    return x - x


@triton.jit(noinline=True)
def shown(x):
    tl.device_print("value", x)
    return x + 1.0


@triton.jit
def calls(x, n):
    tl.store(x, half_or_nothing(tl.load(x), n))


@triton.jit
def prints(x):
    tl.store(x, shown(tl.exp(tl.load(x))))


@triton.jit
def increments(x, y):
    i = tl.arange(0, 16)
    tl.store(y + i, (tl.load(x + i).to(tl.float32) + 1.0).to(tl.bfloat16))


KERNELS = {
    "increments": (increments, "*bf16 *bf16", {}),
    "early_return": (kernels.early_return, "*fp32 i32", {"BLOCK": 16}),
    "calls": (calls, "*fp32 i32", {}),
    "prints": (prints, "*fp32", {}),
    "extrema": (kernels.extrema, "*fp32 *i32 *fp32 *i32", {"ROWS": 8, "COLUMNS": 16}),
    "row_norm": (kernels.row_norm, "*fp32 *fp32", {"ROWS": 8, "COLUMNS": 16}),
    "taps": (kernels.taps, "*fp32 *fp32 *fp32", {"C": 16, "TAPS": 3, "FAR": 1, "B": 16, "BC": 16}),
}

EXPECTED = {
    ("structure_returns", "inline_calls"): "fails",  # an early return would leave the caller
    ("inline_calls", "lower_prints"): "fails",  # a print in a function that is called would be left
    ("lower_prints", "recognise_extrema"): "commutes",
    ("recognise_extrema", "expand_operations"): "commutes",
    ("expand_operations", "compute_in_halves"): "commutes",
    ("compute_in_halves", "raise_accesses"): "commutes",
    ("raise_accesses", "remove_dead"): "fails",  # what addresses were computed from would be left
    ("remove_dead", "sum_products"): "commutes",
    ("sum_products", "share_overlapping_loads"): "commutes",
}
"""Whether any program of KERNELS changes (or cannot be compiled) if the two are swapped."""


@functools.cache
def text_of(name):
    kernel, signature, constants = KERNELS[name]
    return kernels.ttir(kernel, signature, **constants)


@functools.cache
def program_of(name, passes):
    ttir = text_of(name)
    try:
        return compile_with(passes, ttir, TINY).encode()
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize(
    "first", range(len(PASSES) - 1), ids=lambda n: f"{PASSES[n].__name__}-{PASSES[n + 1].__name__}"
)
def test_neighbouring_tile_passes_swapped(first):
    assert all(isinstance(program_of(name, PASSES), bytes) for name in KERNELS)
    swapped = (*PASSES[:first], PASSES[first + 1], PASSES[first], *PASSES[first + 2 :])
    same = all(program_of(name, swapped) == program_of(name, PASSES) for name in KERNELS)
    names = (PASSES[first].__name__, PASSES[first + 1].__name__)
    assert ("commutes" if same else "fails") == EXPECTED[names]


def test_semaphores_need_addresses():
    """`fit` before `synchronise`: what shares bytes of the scratchpad is known only once tiles have addresses. (The
    other passes over machine code take what the one before gives: their types order them.)"""

    def instructions(is_fitted_first):
        kernel = read_kernel(text_of("row_norm"))
        for run_pass in PASSES:
            kernel = run_pass(kernel)
        selected = select_instructions(kernel, TINY)
        code = selected.code if is_fitted_first else synchronise(selected.code, TINY.core.semaphore_count)
        fitted = fit(code, TINY.core.scratchpad.size_bytes, selected.constants)
        code = synchronise(fitted.code, TINY.core.semaphore_count) if is_fitted_first else fitted.code
        return encode(emit(code, fitted.scratchpad_bytes, TINY.core.register_count)[0])

    assert instructions(True) == instructions(True) != instructions(False)
