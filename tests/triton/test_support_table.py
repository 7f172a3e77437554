"""What of Triton's language compiles for which element types: the table in docs/triton-language.md, made here."""

import re
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.compiler import ASTSource

from tapeout.errors import UnsupportedError

PAGE = Path(__file__).parents[2] / "docs" / "triton-language.md"
START, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
DTYPES = (
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "fp8e4nv", "fp8e5", "fp8e4b15", "bf16", "fp16", "fp32",
    "fp64",
)  # fmt: skip


@triton.jit
def arithmetic(x, out):
    i = tl.arange(0, 16)
    a = tl.load(x + i)
    tl.store(out + i, (a + a) * a - a)


@triton.jit
def division(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.load(x + i) / tl.load(x + i + 16))


@triton.jit
def remainder(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.load(x + i) % tl.load(x + i + 16))


@triton.jit
def comparison_and_where(x, out):
    i = tl.arange(0, 16)
    a, b = tl.load(x + i), tl.load(x + i + 16)
    tl.store(out + i, tl.where(a < b, a, b))


@triton.jit
def minimum_and_maximum(x, out):
    i = tl.arange(0, 16)
    a, b = tl.load(x + i), tl.load(x + i + 16)
    tl.store(out + i, tl.maximum(tl.minimum(a, b), -a if a.dtype.is_floating() else a))


@triton.jit
def cast_to_float32_and_back(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.load(x + i).to(tl.float32).to(out.dtype.element_ty))


@triton.jit
def load_and_store(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.load(x + i, mask=i < 9), mask=i < 9)


@triton.jit
def load_by_index(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i * i, tl.load(x + i * i))


@triton.jit
def exponential(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.exp(tl.load(x + i)))


@triton.jit
def sine(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.sin(tl.load(x + i)))


@triton.jit
def square_root(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.sqrt(tl.load(x + i)))


@triton.jit
def sum_and_max(x, out):
    a = tl.load(x + tl.arange(0, 16))
    tl.store(out, (tl.sum(a, 0) + tl.max(a, 0)).to(out.dtype.element_ty))


@triton.jit
def argmax(x, out):
    i = tl.arange(0, 16)
    tl.store(out + tl.argmax(tl.load(x + i), 0), tl.load(x))


@triton.jit
def cumsum(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.cumsum(tl.load(x + i), 0).to(out.dtype.element_ty))


@triton.jit
def keep_larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def associative_scan(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.associative_scan(tl.load(x + i), 0, keep_larger))


@triton.jit
def sort(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.sort(tl.load(x + i)))


@triton.jit
def topk(x, out):
    tl.store(out + tl.arange(0, 4), tl.topk(tl.load(x + tl.arange(0, 16)), 4))


@triton.jit
def flip(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.flip(tl.load(x + i), 0))


@triton.jit
def gather(x, out):
    i = tl.arange(0, 16)
    tl.store(out + i, tl.gather(tl.load(x + i), i ^ 1, 0))


@triton.jit
def join_split_interleave(x, out):
    i = tl.arange(0, 16)
    a, b = tl.split(tl.join(tl.load(x + i), tl.load(x + i + 16)))
    tl.store(out + tl.arange(0, 32), tl.interleave(a, b))


@triton.jit
def permute_and_reshape(x, out):
    i = tl.arange(0, 64)
    tile = tl.load(x + i).reshape(2, 4, 8)
    tl.store(out + i, tl.permute(tile, (2, 0, 1)).reshape(64))


@triton.jit
def dot(x, out):
    i = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tile = tl.load(x + i)
    tl.store(out + i, tl.dot(tile, tile).to(out.dtype.element_ty))


@triton.jit
def histogram(x, out):
    counts = tl.histogram(tl.load(x + tl.arange(0, 16)), 16)
    tl.store(out + tl.arange(0, 16), counts.to(out.dtype.element_ty))


@triton.jit
def atomic_add(x, out):
    i = tl.arange(0, 16)
    tl.atomic_add(out + i, tl.load(x + i))


@triton.jit
def atomic_max(x, out):
    i = tl.arange(0, 16)
    tl.atomic_max(out + i, tl.load(x + i))


@triton.jit
def atomic_and(x, out):
    i = tl.arange(0, 16)
    tl.atomic_and(out + i, tl.load(x + i))


@triton.jit
def atomic_xchg(x, out):
    i = tl.arange(0, 16)
    tl.atomic_xchg(out + i, tl.load(x + i))


@triton.jit
def atomic_cas(x, out):
    i = tl.arange(0, 16)
    tl.atomic_cas(out + i, tl.load(x + i), tl.load(x + i + 16))


CONSTRUCTS = (
    load_and_store, load_by_index, cast_to_float32_and_back, arithmetic, division, remainder, comparison_and_where,
    minimum_and_maximum, exponential, sine, square_root, sum_and_max, argmax, cumsum, associative_scan, sort, topk,
    flip, gather, join_split_interleave, permute_and_reshape, dot, histogram, atomic_add, atomic_max, atomic_and,
    atomic_xchg, atomic_cas,
)  # fmt: skip


def refusal(kernel, dtype):
    """Why a construct does not compile for a type; "" if it does."""
    source = ASTSource(kernel, {"x": f"*{dtype}", "out": f"*{dtype}"})
    try:
        triton.compile(source, target=triton.runtime.driver.active.get_current_target())
    except UnsupportedError as error:
        sentence = re.sub(r"^\S+:\d+ in kernel \w+: ", "", str(error))
        return re.sub(r"\bof (f8e4m3|f8e5m2|f32|f64)\b", "of *T*", sentence)
    except triton.compiler.errors.CompilationError as error:
        while error.__cause__ is not None:
            error = error.__cause__
        lines = [line for line in str(error).splitlines() if line.strip(" ^")]
        return "Triton: " + re.sub(r"(fp8e5|fp8e4nv|bf16|fp16|u?int(8|16|32|64))$", "*T*", lines[-1].strip())
    return ""


def table():
    """The table in Markdown, and below it the refusals its numbers stand for; *T* is the type."""
    torch.empty(0, device="chip")  # wakes the device
    reasons = {}
    rows = []
    for kernel in CONSTRUCTS:
        cells = []
        for dtype in DTYPES:
            reason = refusal(kernel, dtype)
            cells.append(str(reasons.setdefault(reason, len(reasons) + 1)) if reason else "yes")
        rows.append(f"| {kernel.__name__.replace('_', ' ')} | " + " | ".join(cells) + " |")
    head = "| construct | " + " | ".join(DTYPES) + " |\n|---|" + "---|" * len(DTYPES) + "\n"
    notes = "".join(f"{number}. {reason}\n" for reason, number in reasons.items())
    return head + "\n".join(rows) + "\n\n" + notes


def test_table_in_the_documentation(request):
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    current = before + START + table() + END + after
    if request.config.getoption("--update-golden"):
        PAGE.write_text(current)
    assert PAGE.read_text() == current, "docs/triton-language.md is out of date; run this test with --update-golden"


def test_float64_needs_a_chip_that_has_it(tmp_path):
    from tapeout import chip
    from tapeout.codegen.pipeline import compile_kernel

    torch.empty(0, device="chip")
    source = ASTSource(arithmetic, {"x": "*fp64", "out": "*fp64"})
    compiled = triton.compile(source, target=triton.runtime.driver.active.get_current_target())
    with pytest.raises(UnsupportedError) as error:
        compile_kernel(compiled.asm["ttir"], chip.tiny)
    place, _, sentence = str(error.value).partition(": ")
    assert place.startswith(__file__) and place.endswith(" in kernel arithmetic")
    assert sentence == "float64 arithmetic is not supported; chip tiny has no float64 in its vector engine"
