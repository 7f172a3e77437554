"""The chip's time as PyTorch and Triton programs see it. Each program is a process of its own, with its own clock."""

import os
import subprocess
import sys

import pytest

PRELUDE = """
import torch, tapeout, triton
import triton.language as tl
from tapeout import chip
from tapeout.runtime import clock, session
CHIP = chip.active()

def timed(run):
    start, end = (torch.chip.Event(enable_timing=True) for _ in range(2))
    torch.chip.synchronize()
    start.record(); run(); end.record()
    torch.chip.synchronize()
    return start.elapsed_time(end)

def cold(run):  # with an empty last-level SRAM
    session.turn_on().empty_sram()
    return timed(run)
"""


@pytest.fixture
def run(tmp_path):
    def run(program, **environment):
        (tmp_path / "program.py").write_text(PRELUDE + program)
        environment = {**os.environ, "TAPEOUT_CHIP": "tiny", **environment}
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_events_streams_and_copies_read_the_chips_time(run):
    run(
        """
a = torch.ones(1 << 12, device="chip")
assert session.clock is None  # nobody has asked yet

# A copy of 16 KiB: 2 µs and the link's 4 GB/s.
copy_ms = timed(lambda: a.cpu())
assert copy_ms == (2_000 + 16_384 / 4) / 1e6, copy_ms

# One launch: its overhead on the host, then the cycles.
cold = timed(lambda: torch.add(a, a, out=a))
once = timed(lambda: torch.add(a, a, out=a))  # the tensor is in the last-level SRAM now
session.clock.record = True
again = timed(lambda: torch.add(a, a, out=a))
work = session.clock.activities[-1]
assert cold > once == again == (CHIP.host.launch_ns * 1000 + clock.kernel_ps(work.launch.timing.cycles, CHIP)) / 1e9

# Kernels that take turns on one stream: overheads hide behind work once there is enough of it.
many = timed(lambda: [torch.add(a, a, out=a) for _ in range(10)])
assert work.duration_ps / 1e9 * 10 <= many <= once * 10

# A copy on another stream overlaps; after waiting for the other stream's event it does not.
host = torch.ones(1 << 16).pin_memory()
target = torch.empty(1 << 16, device="chip")
side = torch.chip.Stream()
def both(wait):
    torch.add(a, a, out=a)
    if wait:
        side.wait_stream(torch.chip.current_stream())
    with torch.chip.stream(side):
        target.copy_(host, non_blocking=True)
    torch.chip.current_stream().wait_stream(side)
assert timed(lambda: both(False)) < timed(lambda: both(True))

event = torch.chip.Event(enable_timing=True)
torch.add(a, a, out=a); event.record()
asked = 0
while not event.query():
    asked += 1
assert asked > 0
"""
    )


def test_an_operator_on_the_host_makes_a_lower_bound_that_says_so(run):
    done = run(
        """
a = torch.rand(8, 8, device="chip")
timed(lambda: torch.geqrf(a))
assert dict(session.clock.elapsed.host_operators) == {"aten::geqrf": 1}, session.clock.elapsed
"""
    )
    assert "between these events the host ran 1 operators for the chip" in done.stderr


def test_the_time_does_not_depend_on_where_tensors_are(run):
    run(
        """
keep = []
times = set()
for size in (0, 1, 300, 70_000):
    keep.append(torch.empty(size, device="chip"))
    a, b = (torch.empty(64, 96, device="chip") for _ in range(2))
    keep += [a]
    times.add(cold(lambda: torch.add(a, a, out=b)))
assert len(times) == 1, times
""",
        TAPEOUT_TIMING="only",
    )


def test_a_tensor_that_is_still_in_the_sram_is_read_from_there(run):
    run(
        """
sram_bytes = CHIP.last_level_sram.size_bytes
small, out = (torch.empty(sram_bytes // 64, device="chip") for _ in range(2))
large = torch.empty(sram_bytes // 2, device="chip")
again = lambda: torch.add(small, small, out=out)
first, second, third = timed(again), timed(again), timed(again)
assert second == third < first, (first, second, third)
streamed, streamed_again = timed(lambda: large.add_(1)), timed(lambda: large.add_(1))
assert streamed == streamed_again, (streamed, streamed_again)
assert timed(again) == first
""",
        TAPEOUT_TIMING="only",
    )


AUTOTUNED = """
TILES = ((16, 16), (32, 32), (64, 16))

@triton.autotune(configs=[triton.Config({"TILE": tile, "INNER": inner}) for tile, inner in TILES], key=["size"])
@triton.jit
def matmul(a, b, out, size, TILE: tl.constexpr, INNER: tl.constexpr):
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, size, INNER):
        inner = start + tl.arange(0, INNER)
        left = tl.load(a + rows[:, None] * size + inner[None, :])
        right = tl.load(b + inner[:, None] * size + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(out + rows[:, None] * size + columns[None, :], total)

size = 64
a, b = (torch.ones(size, size, dtype=torch.float16, device="chip") for _ in range(2))
out = torch.empty(size, size, device="chip")
grid = lambda meta: (size // meta["TILE"], size // meta["TILE"])
"""


def test_autotune_takes_the_configuration_with_the_fewest_cycles(run):
    run(
        AUTOTUNED
        + """
session.turn_on().record = True
matmul[grid](a, b, out, size)
cycles = {
    (config.kwargs["TILE"], config.kwargs["INNER"]): None for config in matmul.configs
}
for tile, inner in cycles:
    matmul.fn[(size // tile, size // tile)](a, b, out, size, TILE=tile, INNER=inner)
    cycles[tile, inner] = session.clock.activities[-1].launch.timing.cycles
best = (matmul.best_config.kwargs["TILE"], matmul.best_config.kwargs["INNER"])
assert len(set(cycles.values())) == 3, cycles
assert best == min(cycles, key=cycles.get), (best, cycles)
"""
    )


def test_do_bench_gives_the_chips_time_in_one_run(run):
    run(
        AUTOTUNED
        + """
import triton.testing
def once():
    matmul.fn[(4, 4)](a, b, out, size, TILE=16, INNER=16)
measured = triton.testing.do_bench(once)
assert measured == cold(once) > timed(once)
assert triton.testing.do_bench(once, quantiles=[0.5, 0.2, 0.8]) == [measured] * 3
assert triton.testing.do_bench(once, return_mode="all") == [measured]

from torch._inductor.runtime.benchmarking import benchmarker
import torch._inductor.compile_fx
assert benchmarker.benchmark(once, (), {}, device="chip") == measured
"""
    )


def test_timing_alone_touches_nothing_and_takes_the_same_time(run):
    program = """
x = torch.ones(64, 64, device="chip")
y = torch.empty(64, 64, device="chip")
def step():
    torch.mm(x, x, out=y)
    y.add_(x)
print(timed(step), torch.chip.memory_allocated())
"""
    assert run(program, TAPEOUT_TIMING="on").stdout == run(program, TAPEOUT_TIMING="only").stdout


def test_timing_alone_imports_nothing_it_does_not_need(run):
    run(
        """
import sys

with torch.device("meta"):
    model = torch.nn.Linear(64, 8)
model = model.to_empty(device="chip")
assert model(torch.empty(4, 64, device="chip")).pow(2).mean().device.type == "chip"
torch.chip.synchronize()
slow = {"sympy", "torch._dynamo", "torch._inductor", "tapeout.sim.functional.translate"}
assert not sys.modules.keys() & slow, sys.modules.keys() & slow
""",
        TAPEOUT_TIMING="only",
    )


def test_timing_alone_reserves_more_than_the_host_has_and_refuses_to_read(run):
    run(
        """
import os, resource
host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
chip_bytes = CHIP.hbm.size_bytes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = torch.empty(chip_bytes // 2, dtype=torch.uint8, device="chip")
weights[-4096:].fill_(1)
assert chip_bytes > host_bytes, (chip_bytes, host_bytes)
assert torch.sort(weights[:64])[0].shape == (64,)  # no chip kernel: a result of the right shape
assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 1 << 20  # KiB
for read in (weights[0].item, weights[:4].cpu, weights[:4].tolist, lambda: bool(weights[0]), lambda: repr(weights)):
    try:
        read()
    except RuntimeError as error:
        assert "in timing alone" in str(error), error
    else:
        raise AssertionError("a value was read that nobody computed")
try:
    torch.empty(chip_bytes, dtype=torch.uint8, device="chip")
except torch.OutOfMemoryError as error:
    assert "chip out of memory" in str(error)
else:
    raise AssertionError("more than HBM was given out")
""",
        TAPEOUT_TIMING="only",
        TAPEOUT_CHIP="training",
    )


def test_reads_are_zeros_where_asked(run):
    run(
        """
a = torch.ones(4, device="chip")
assert a.tolist() == [0, 0, 0, 0] and a.sum().item() == 0 and not bool(a[0] > 0)
assert a.cpu().dtype == torch.float32
""",
        TAPEOUT_TIMING="only",
        TAPEOUT_READ="zeros",
    )


def test_inductor_takes_the_configuration_that_is_fastest_on_the_chip(run):
    run(
        """
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

measured = []
benchmark_all = CachingAutotuner.benchmark_all_configs
def watched(self, *args, **kwargs):
    times = benchmark_all(self, *args, **kwargs)
    measured.append((self, {launcher.config: time for launcher, time in times.items()}))
    return times
CachingAutotuner.benchmark_all_configs = watched

x = torch.randn(256, 256, device="chip")
transposed_sum = torch.compile(lambda x: x.t() * 2 + x, mode="max-autotune-no-cudagraphs")
torch.testing.assert_close(transposed_sum(x).cpu(), x.cpu().t() * 2 + x.cpu())
(tuner, times), = measured
assert len(set(times.values())) > 1 and all(time > 0 for time in times.values()), times
assert tuner.launchers[0].config == min(times, key=times.get)
""",
        TAPEOUT_CHIP="inference",
        TORCHINDUCTOR_FORCE_DISABLE_CACHES="1",  # a choice made before is kept there
    )


def test_torch_profiler_shows_kernels_in_the_chips_time(run):
    run(
        """
import json
from torch.profiler import ProfilerActivity, profile
a = torch.ones(128, 128, device="chip")
b = a @ a
timed(lambda: torch.mm(a, a, out=b))  # what follows finds its tensors in the last-level SRAM
with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]) as trace:
    for _ in range(3):
        torch.mm(a, a, out=b)
    b.cpu()
session.clock.record = True
torch.mm(a, a, out=b)
kernel_us = session.clock.activities[-1].duration_ps / 1e6

rows = {row.key: row for row in trace.key_averages()}
assert abs(rows["_tiles"].self_device_time_total - 3 * kernel_us) < 0.01  # the trace has whole nanoseconds
assert rows["copy to host"].count == 1
assert abs(rows["aten::mm"].self_device_time_total - 3 * kernel_us) < 0.01  # linked to the operator
trace.export_chrome_trace("trace.json")
events = json.load(open("trace.json"))["traceEvents"]
kernels = [event for event in events if event.get("cat") == "kernel"]
assert [event["name"] for event in kernels] == ["_tiles"] * 3
"""
    )


def test_gathers_are_timed_with_their_indices(run):
    """The same data take the same time, other data another, and nothing has to be assumed; a loop whose length was
    loaded (embedding bags) is timed too."""
    run(
        """
table = torch.ones(1 << 14, 32, device="chip")
generator = torch.Generator().manual_seed(0)
spread = torch.randint(0, 1 << 14, (2048,), generator=generator).to("chip")
same = torch.zeros(2048, dtype=torch.int64, device="chip")
def gather(index):
    return cold(lambda: table.index_select(0, index))
timed(lambda: None)
scattered = gather(spread)
assert gather(spread) == scattered == gather(spread.clone())
assert gather(same) < scattered

def bags(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)[:-1].to("chip")
    return cold(lambda: torch.nn.functional.embedding_bag(spread, table, offsets))
assert bags([16] * 128) == bags([16] * 128)
elapsed = session.clock.elapsed
assert not elapsed.assumptions and not elapsed.untimed_kernels, elapsed
"""
    )


def test_a_graph_is_one_submission_whether_or_not_somebody_watches(run):
    run(
        """
x = torch.ones(64, device="chip")
def steps():
    for _ in range(5):
        x.add_(1)
steps()
graph = torch.chip.Graph()
with torch.chip.graph(graph):
    steps()
graph.replay()
eager, replayed = timed(steps), timed(graph.replay)
session.clock.record = True
assert timed(graph.replay) == replayed
kernels = [each for each in session.clock.activities if each.kind is clock.Kind.KERNEL][-5:]
assert kernels[-1].end_ps - kernels[0].submitted_ps == 5 * kernels[0].duration_ps + 4 * clock.graph_gap_ps(CHIP)
assert replayed < eager
assert x.eq(1 + 5 * 5).all()
"""
    )
