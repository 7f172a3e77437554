"""What `device_print` shows."""

import torch
import triton
import triton.language as tl

from tapeout.isa.printing import BUFFER_BYTES


@triton.jit
def printing(x, n, N: tl.constexpr):
    value = tl.load(x + tl.arange(0, N))
    if tl.program_id(0) == n:
        tl.device_print("values", value, tl.program_id(0))
        tl.device_print('done "so far"')
    tl.device_print("bits ", value.to(tl.int16)[:, None], hex=True)


def test_prints_of_tiles_scalars_and_text(capsys):
    printing[(2,)](torch.tensor([0.5, -2.0], device="chip"), 1, N=2)
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        [
            "pid (0, 0, 0) idx (0, 0) bits: 0x0000",
            "pid (0, 0, 0) idx (1, 0) bits: 0xfffe",
            "pid (1, 0, 0) idx (0) values: (operand 0) 0.500000",
            "pid (1, 0, 0) idx (1) values: (operand 0) -2.000000",
            "pid (1, 0, 0) idx () values: (operand 1) 1",
            'pid (1, 0, 0) done "so far"',
            "pid (1, 0, 0) idx (0, 0) bits: 0x0000",
            "pid (1, 0, 0) idx (1, 0) bits: 0xfffe",
        ]
    )


@triton.jit
def typed_printing(x, N: tl.constexpr):
    value = tl.load(x + tl.arange(0, N))
    tl.device_print("", value)
    tl.device_print("true", value > 0)


def test_prints_of_every_type(capsys):
    integers, floats = ("3", "-1"), ("3.000000", "-1.000000")
    shown = {torch.int8: integers, torch.uint8: ("3", "255"), torch.int64: integers}
    shown |= {torch.float16: floats, torch.bfloat16: floats, torch.float64: floats}
    for dtype, (first, second) in shown.items():
        x = torch.tensor([3, 255 if dtype is torch.uint8 else -1]).to(dtype).to("chip")
        typed_printing[(1,)](x, N=2)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].endswith(first) and lines[1].endswith(second), dtype
        assert [line[-1] for line in lines[2:]] == ["1", "1" if dtype is torch.uint8 else "0"]


@triton.jit
def endless(N: tl.constexpr):
    tl.device_print("n", tl.arange(0, N))


def test_a_full_buffer_says_so(capsys):
    endless[(300,)](N=1024)
    lines = capsys.readouterr().out.splitlines()
    kept = (BUFFER_BYTES - 16) // (4096 + 16)
    assert len(lines) == kept * 1024 + 1
    left_out = 300 * (4096 + 16) - kept * (4096 + 16)
    assert lines[-1] == f"{left_out} bytes more were printed than the buffer of {BUFFER_BYTES} holds"
