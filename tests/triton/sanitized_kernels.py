"""Kernels with and without mistakes, for test_sanitizer: `sanitized_kernels.py MODE CASE...` prints what is found."""

import json
import sys
from dataclasses import replace

import torch
import triton
import triton.language as tl

import tapeout  # noqa: F401  (registers the device)
from tapeout import chip, runtime
from tapeout.errors import SanitizerError
from tapeout.isa import Program
from tapeout.runtime import sanitizer

CASES = {}
CHIP = "chip"


def case(run):
    CASES[run.__name__.removeprefix("run_")] = run
    return run


def tensor(count, dtype=torch.float32):
    return torch.arange(count, dtype=dtype).to(CHIP)


# ------------------------------------------------------------------------------------------- outside, unwritten


@triton.jit
def beyond_the_end(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i))


@case
def run_beyond_the_end():
    beyond_the_end[(1,)](tensor(100), tensor(128), N=128)


@triton.jit
def before_the_start(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i - 8))


@case
def run_before_the_start():
    before_the_start[(1,)](tensor(100), tensor(64), N=64)


@triton.jit
def gather_outside(x, index, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + tl.load(index + i)))


@case
def run_gather_outside():
    index = torch.tensor([1, 7, 99, 120], dtype=torch.int32).to(CHIP)
    gather_outside[(1,)](tensor(100), index, tensor(4), N=4)


@triton.jit
def store_outside(out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, 1.0)


@case
def run_store_outside():
    store_outside[(1,)](tensor(100), N=128)


@triton.jit
def atomic_outside(out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.atomic_add(out + i, 1.0)


@case
def run_atomic_outside():
    atomic_outside[(1,)](tensor(100), N=128)


@triton.jit
def freed_tensor(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i))


class Address:
    """A pointer that outlives its tensor."""

    def __init__(self, tensor):
        self.address, self.dtype = tensor.data_ptr(), tensor.dtype

    def data_ptr(self):
        return self.address


@case
def run_freed_tensor():
    out = tensor(128)
    freed = Address(tensor(128))
    freed_tensor[(1,)](freed, out, N=128)


@triton.jit
def unwritten(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i))


@case
def run_unwritten():
    unwritten[(1,)](torch.empty(128, device=CHIP), tensor(128), N=128)


@triton.jit
def unwritten_in_part(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i))


@case
def run_unwritten_in_part():
    x = torch.empty(128, device=CHIP)
    x[:64] = 1.0
    unwritten_in_part[(1,)](x, tensor(128), N=128)


@triton.jit
def gather_past_the_tile(x, index, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.gather(tl.load(x + i), tl.load(index + i), 0))


@case
def run_gather_past_the_tile():
    gather_past_the_tile[(1,)](tensor(128), torch.arange(128, dtype=torch.int32).mul(300).to(CHIP), tensor(128), N=128)


@triton.jit
def misplaced_load(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i))


@case
def run_misplaced_load():
    """As if the compiler had placed a load 256 bytes behind where its tile is read."""
    x, out = tensor(128), tensor(128)
    program = Program.decode(misplaced_load.warmup(x, out, N=128, grid=(1,)).asm["program"])
    wrong = tuple(
        replace(item, tile=replace(item.tile, base=item.tile.base + 256)) if item.mnemonic == "load" else item
        for item in program.instructions
    )
    program = replace(program, instructions=wrong, scratchpad_bytes=program.scratchpad_bytes + 256)
    runtime.load(program, chip.active()).launch((2, 1, 1), [x.data_ptr(), out.data_ptr()])


# ---------------------------------------------------------------------------------------------------- races


@triton.jit
def two_write(out, N: tl.constexpr):
    i, pid = tl.arange(0, N), tl.program_id(0)
    tl.store(out + i, pid)


@case
def run_two_write():
    two_write[(2,)](tensor(128), N=128)


@triton.jit
def one_reads(x, shift, N: tl.constexpr):
    i = tl.program_id(0) * 64 + tl.arange(0, 64)
    tl.store(x + i, tl.load(x + (i + shift) % N) + 1.0)


@case
def run_one_reads():
    one_reads[(2,)](tensor(128), 64, N=128)


@triton.jit
def written_after_reading(x, N: tl.constexpr):
    pid = tl.program_id(0)
    total = tl.sum(tl.load(x + tl.arange(0, N)), 0) if pid == 0 else 1.0
    tl.store(x + pid, total)


@case
def run_written_after_reading():
    written_after_reading[(2,)](tensor(128), N=128)


@triton.jit
def plain_beside_atomic(out):
    if tl.program_id(0) == 0:
        tl.atomic_add(out, 1.0)
    else:
        tl.store(out, 1.0)


@case
def run_plain_beside_atomic():
    plain_beside_atomic[(2,)](tensor(128))


@triton.jit
def write_after_unlocking(lock, total):
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    value = tl.load(total) + 1.0
    tl.store(total, value)
    tl.atomic_xchg(lock, 0)
    tl.store(total + 1, value)


@case
def run_write_after_unlocking():
    write_after_unlocking[(3,)](torch.zeros(1, dtype=torch.int32).to(CHIP), tensor(128))


@triton.jit
def half_words(out):
    pid = tl.program_id(0)
    value = pid.to(tl.float16)
    tl.store(out + tl.arange(0, 4) + pid * 3, value)


@case
def run_half_words():
    half_words[(2,)](tensor(128, torch.float16))


# --------------------------------------------------------------------------------------------------- values


@triton.jit
def nan_born(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.sqrt(tl.load(x + i)))


@case
def run_nan_born():
    nan_born[(1,)](-tensor(16).add(1), tensor(16), N=16)


@triton.jit
def infinity_born(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, 1.0 / tl.load(x + i))


@case
def run_infinity_born():
    infinity_born[(1,)](tensor(16), tensor(16), N=16)


@triton.jit
def infinity_by_rounding(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, (tl.load(x + i) * 1e5).to(tl.float16))


@case
def run_infinity_by_rounding():
    infinity_by_rounding[(1,)](tensor(16), tensor(16, torch.float16), N=16)


@triton.jit
def dot_overflows(x, out, N: tl.constexpr):
    i = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tile = tl.load(x + i)
    tl.store(out + i, tl.dot(tile, tile))


@case
def run_dot_overflows():
    dot_overflows[(1,)](torch.full((256,), 1e30).to(CHIP), tensor(256), N=16)


@triton.jit
def specials_pass_on(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(out + i, value * 2.0 + tl.max(value, 0))


@case
def run_specials_pass_on():
    x = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")]).to(CHIP)
    specials_pass_on[(1,)](x, tensor(4), N=4)


# -------------------------------------------------------------------------------------------- without mistakes


@triton.jit
def vector_add(x, y, out, count, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + i, tl.load(x + i, mask=i < count) + tl.load(y + i, mask=i < count), mask=i < count)


@case
def run_vector_add():
    vector_add[(4,)](tensor(1000), tensor(1000), torch.empty(1000, device=CHIP), 1000, N=256)


@case
def run_matmul():
    a, b = torch.randn(70, 50).to(CHIP), torch.randn(50, 90).to(CHIP)
    torch.testing.assert_close((a @ b).cpu(), a.cpu() @ b.cpu())


@case
def run_softmax_on_device():
    x = torch.randn(33, 65).to(CHIP)
    torch.testing.assert_close(torch.softmax(x, 1).cpu(), torch.softmax(x.cpu(), 1))


@triton.jit
def add_under_lock(lock, total, out, N: tl.constexpr):
    i = tl.arange(0, N)
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(total + i, tl.load(total + i) + 1.0)
    tl.atomic_xchg(lock, 0)
    tl.store(out + tl.program_id(0), 1.0)


@case
def run_locks():
    total = torch.zeros(64).to(CHIP)
    add_under_lock[(9,)](torch.zeros(1, dtype=torch.int32).to(CHIP), total, torch.empty(9, device=CHIP), N=64)
    assert total.cpu().eq(9).all()


@triton.jit
def last_one_sums(count, parts, out, PROGRAMS: tl.constexpr):
    pid = tl.program_id(0)
    tl.store(parts + pid, pid.to(tl.float32))
    if tl.atomic_add(count, 1) == PROGRAMS - 1:
        tl.store(out, tl.sum(tl.load(parts + tl.arange(0, PROGRAMS)), 0))


@case
def run_counter():
    out = torch.empty(1, device=CHIP)
    parts = torch.empty(8, device=CHIP)
    last_one_sums[(8,)](torch.zeros(1, dtype=torch.int32).to(CHIP), parts, out, PROGRAMS=8)
    assert out.item() == 28


@triton.jit
def shift_by_one(x, out, N: tl.constexpr):
    pid = tl.program_id(0)
    tl.store(out + pid, tl.load(x + (pid + 1) % N))


@case
def run_neighbours_in_two_launches():
    x, y = tensor(8), torch.empty(8, device=CHIP)
    shift_by_one[(8,)](x, y, N=8)
    shift_by_one[(8,)](y, x, N=8)


@triton.jit
def scatter(x, out, N: tl.constexpr):
    i, pid = tl.arange(0, N), tl.program_id(0)
    tl.store(out + (i * 7 % N) * 4 + pid, tl.load(x + i))


@case
def run_scatter_apart():
    scatter[(4,)](tensor(64), torch.empty(256, device=CHIP), N=64)


@triton.jit
def half_words_side_by_side(out):
    tl.store(out + tl.program_id(0), 1.0)


@case
def run_half_words_apart():
    half_words_side_by_side[(33,)](torch.empty(33, dtype=torch.float16, device=CHIP))


@case
def run_bytes_in_one_word():
    half_words_side_by_side[(33,)](torch.empty(33, dtype=torch.int8, device=CHIP))


@triton.jit
def large_tiles(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(out + i, value * tl.max(value, 0) + tl.sum(value, 0))


@case
def run_spilled_tiles():
    count = 1 << 17
    large_tiles[(1,)](tensor(count), torch.empty(count, device=CHIP), N=count)


@triton.jit
def wait_for_the_one_before(flags, sums, out):
    pid = tl.program_id(0)
    before = 0.0
    if pid > 0:
        while tl.atomic_add(flags + pid - 1, 0) == 0:
            pass
        before = tl.load(sums + pid - 1)
    tl.store(sums + pid, before + 1.0)
    tl.atomic_xchg(flags + pid, 1)
    tl.store(out + pid, before)


@case
def run_look_back():
    flags = torch.zeros(8, dtype=torch.int32).to(CHIP)
    wait_for_the_one_before[(8,)](flags, torch.empty(8, device=CHIP), torch.empty(8, device=CHIP))


@case
def run_host_writes():
    x = torch.empty(64, device=CHIP)
    x.copy_(torch.arange(64.0))
    y = torch.empty(64, device=CHIP)
    torch.erfinv(x / 100, out=y)
    vector_add[(1,)](x, y, torch.empty(64, device=CHIP), 64, N=64)


def main(mode, *names):
    sanitizer.os.environ[sanitizer.VARIABLE] = mode
    found = {}
    for name in names:
        found[name] = ""
        try:
            CASES[name]()
        except SanitizerError as error:
            found[name] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
