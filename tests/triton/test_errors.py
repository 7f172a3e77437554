"""What cannot run is refused with the operation, the type and the kernel's line; what was passed wrongly, by name."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from tapeout.errors import LaunchError, UnsupportedError


def line_of(kernel, text):
    """The place of the line of a kernel that holds a text, as an error names it."""
    lines, start = inspect.getsourcelines(kernel.fn)
    return f"{__file__}:{start + next(k for k, line in enumerate(lines) if text in line)}"


@triton.jit
def add_one(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) + 1)


def test_host_tensor():
    x, out = torch.zeros(16), torch.zeros(16, device="chip")
    with pytest.raises(LaunchError) as error:
        add_one[(1,)](x, out, N=16)
    assert str(error.value) == (
        "add_one: argument 'x' is a tensor on cpu; kernels run on tensors in the chip's memory: "
        "move it with x.to('chip')"
    )


class Elsewhere:
    """Something with an address that is not the chip's."""

    dtype = torch.float32

    def data_ptr(self):
        return 0x1000


def test_foreign_pointer():
    with pytest.raises(LaunchError, match="argument 'x' is a foreign pointer"):
        add_one[(1,)](Elsewhere(), torch.zeros(16, device="chip"), N=16)


def test_misaligned_pointer():
    raw = torch.zeros(80, dtype=torch.uint8, device="chip")

    class Shifted(Elsewhere):
        def data_ptr(self):
            return raw.data_ptr() + 1

    with pytest.raises(LaunchError, match=r"argument 'x' .* is misaligned: .* is not a multiple of 4"):
        add_one[(1,)](Shifted(), torch.zeros(16, device="chip"), N=16)


@triton.jit
def far_away(x, offset):
    tl.store(x + offset, 1.0)


def test_access_outside_memory():
    with pytest.raises(LaunchError) as error:
        far_away[(1,)](torch.zeros(16, device="chip"), 1 << 50)
    # Triton's cache may hold the kernel from another checkout: the folder is that one's.
    assert f"/{Path(line_of(far_away, 'tl.store')).name}: far_away:" in str(error.value)
    assert "outside HBM" in str(error.value)


@triton.jit
def inline_assembly(x, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [tl.load(x + i)], dtype=tl.int32, is_pure=True, pack=1)
    tl.store(x + i, value)


def test_inline_assembly_is_refused():
    with pytest.raises(UnsupportedError) as error:
        inline_assembly[(1,)](torch.zeros(16, dtype=torch.int32, device="chip"), N=16)
    place = f"{line_of(inline_assembly, 'inline_asm')} in kernel inline_assembly"
    assert str(error.value) == f"{place}: operation tt.elementwise_inline_asm of i32 elements is not supported"


@triton.jit
def unknown_function(x, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(x + i, libdevice.jn(i, tl.load(x + i)))


def test_unknown_function_is_named():
    with pytest.raises(UnsupportedError) as error:
        unknown_function[(1,)](torch.zeros(16, device="chip"), N=16)
    place = f"{line_of(unknown_function, 'libdevice.jn')} in kernel unknown_function"
    assert str(error.value) == f"{place}: function __nv_jnf of i32 elements is not supported"


@triton.jit
def wide_dot(x, N: tl.constexpr):
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(x + place, tl.dot(tl.load(x + place), tl.load(x + place)))


FLOAT64_ON_TINY = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch, tapeout
from tapeout.errors import UnsupportedError
import test_errors as t
t.add_one[(1,)](torch.zeros(16, device="chip"), torch.zeros(16, device="chip"), N=16)
for kernel, x in ((t.add_one, torch.zeros(16).double()), (t.wide_dot, torch.zeros(16, 16).double())):
    x = x.to("chip")
    try:
        kernel[(1,)](x, *([x] if kernel is t.add_one else []), N=16)
    except UnsupportedError as error:
        print(error)
"""


def test_float64_on_a_chip_without_it():
    environment = os.environ | {"TAPEOUT_CHIP": "tiny"}
    result = subprocess.run([sys.executable, "-c", FLOAT64_ON_TINY], env=environment, capture_output=True, text=True)
    first, second = result.stdout.splitlines() or [result.stderr, ""]
    sentence = "float64 arithmetic is not supported; chip tiny has no float64 in its vector engine"
    assert first == f"{line_of(add_one, 'tl.store')} in kernel add_one: {sentence}"
    assert second == f"{line_of(wide_dot, 'tl.dot')} in kernel wide_dot: {sentence}"
