"""What stands around a kernel: stages of a loop, autotuning with hooks and pruning, heuristics, hooks of a launch."""

import re

import pytest
import torch
import triton
import triton.language as tl

from tapeout.errors import LaunchError
from tapeout.isa import Program
from tapeout.triton_backend.benchmark import milliseconds
from tests.triton.harness import run, run_three_ways

SIDE = 256


@triton.jit
def product(a, b, c, n, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for k in range(0, n, DEPTH):
        left = tl.load(a + rows * n + k + tl.arange(0, DEPTH)[None, :])
        right = tl.load(b + (k + tl.arange(0, DEPTH))[:, None] * n + columns)
        total = tl.dot(left, right, total)
    tl.store(c + rows * n + columns, total)


@triton.jit
def running_sum(a, c, n, STAGES: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in tl.range(0, n, num_stages=STAGES):
        total += tl.load(a + row * BLOCK + columns)
    tl.store(c + columns, total)


def copies(compiled):
    """How many copies the tiles of each loop have; the last loop is the one over the programs of the grid."""
    text = Program.decode(compiled.asm["program"]).text
    return [int(limit) // int(step) for step, limit in re.findall(r"rotate .*step=(\d+) limit=(\d+)", text)]


def test_stages_of_a_loop_around_a_product():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(SIDE, SIDE, generator=generator).half().to("chip") for _ in range(2))
    results, found, times = [], [], []
    for stages in (1, 2, 4):
        c = torch.zeros(SIDE, SIDE, device="chip")

        def launch(out=c, num_stages=stages):
            return product[(2, 2)](a, b, out, SIDE, BLOCK=128, DEPTH=32, num_stages=num_stages)

        found.append(copies(launch()))
        times.append(milliseconds(launch))
        results.append(c.cpu())
    assert found == [[3], [2, 3], [4, 3]]  # one copy needs no turns; the grid's own loop keeps its three
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    torch.testing.assert_close(results[0], a.cpu().float() @ b.cpu().float(), rtol=1e-3, atol=1e-2)
    assert times[1] < 0.9 * times[0]
    assert times[2] <= times[1]


def test_stages_of_any_loop_that_names_them():
    x = torch.randn(20, 64)
    expected = run(running_sum, (1,), {"a": x, "c": torch.zeros(64), "n": 20}, STAGES=None, BLOCK=64)["c"]
    torch.testing.assert_close(expected, x.sum(0))
    on_chip, out = x.to("chip"), torch.zeros(64, device="chip")
    for stages, wanted in ((1, []), (2, [2]), (5, [5]), (100, [8])):
        found = copies(running_sum[(1,)](on_chip, out, 20, STAGES=stages, BLOCK=64))
        assert [count for count in found if count != 3 or stages == 3] == wanted
        result = run_three_ways(running_sum, (1,), {"a": x, "c": torch.zeros(64), "n": 20}, STAGES=stages, BLOCK=64)
        assert torch.equal(result["c"], expected)


def test_stages_that_do_not_fit_are_fewer():
    x, out = torch.ones(9, 1 << 17).to("chip"), torch.zeros(1 << 17, device="chip")
    compiled = running_sum[(1,)](x, out, 9, STAGES=8, BLOCK=1 << 17)  # 512 KiB a copy, of 2 MiB
    assert 1 < min(copies(compiled)) < 8
    assert out.cpu().eq(9).all()


def add_one(name, **options):
    @triton.autotune(configs=[triton.Config({"BLOCK": block}, **extra) for block, extra in CONFIGS[name]], **options)
    @triton.heuristics({"EVEN": lambda arguments: arguments["n"] % arguments["BLOCK"] == 0})
    @triton.jit
    def kernel(x, out, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + i) if EVEN else tl.load(x + i, mask=i < n)
        tl.store(out + i, tl.load(out + i, mask=i < n) + value + 1, mask=i < n)

    return kernel


CALLS = []
CONFIGS = {
    "sizes": [(16, {}), (1024, {})],
    "hooks": [(64, {"pre_hook": lambda arguments: CALLS.append(arguments["BLOCK"])})],
    "many": [(16 << k, {}) for k in range(5)],
}


def launch(kernel, n, out=None):
    x = torch.arange(n, dtype=torch.float32)
    out = torch.zeros(n, device="chip") if out is None else out
    kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x.to("chip"), out, n)
    return x, out.cpu()


def test_autotuning_takes_what_is_faster_on_the_chip():
    kernel = add_one("sizes", key=["n"], restore_value=["out"])
    x, out = launch(kernel, 1 << 17)
    assert torch.equal(out, x + 1)
    assert kernel.best_config.kwargs["BLOCK"] == 1024
    times = {config.kwargs["BLOCK"]: time for config, time in kernel.configs_timings.items()}
    assert times[1024][0] < times[16][0]
    assert list(kernel.cache) == [(1 << 17, "torch.float32", "torch.float32")]
    launch(kernel, 1000)
    assert len(kernel.cache) == 2  # another key, tuned anew


def test_autotuning_resets_what_is_added_to():
    kernel = add_one("sizes", key=["n"], reset_to_zero=["out"])
    x, out = launch(kernel, 300, torch.full((300,), 7.0, device="chip"))
    assert torch.equal(out, x + 1)


def test_hook_of_a_configuration_runs_before_each_launch():
    kernel = add_one("hooks", key=["n"])
    CALLS.clear()
    for launches in (1, 2):
        launch(kernel, 100)
        assert len(CALLS) == launches and set(CALLS) == {64}


def test_pruning_of_configurations():
    seen = []

    def no_small_ones(configs, arguments, **kwargs):
        assert arguments["n"] == 500
        return [config for config in configs if config.kwargs["BLOCK"] >= 32]

    def expected_time(BLOCK, n, **kwargs):
        seen.append(BLOCK)
        return abs(BLOCK - 64) + n

    rules = {"early_config_prune": no_small_ones, "perf_model": expected_time, "top_k": 2}
    kernel = add_one("many", key=["n"], prune_configs_by=rules, restore_value=["out"])
    x, out = launch(kernel, 500)
    assert torch.equal(out, x + 1)
    assert seen == [32, 64, 128, 256]
    assert {config.kwargs["BLOCK"] for config in kernel.configs_timings} == {32, 64}


def test_hooks_of_autotuning():
    order = []
    hooks = {
        "pre_hook": lambda arguments, reset_only=False: order.append("before"),
        "post_hook": lambda arguments, exception: order.append(exception),
    }
    kernel = add_one("sizes", key=["n"], **hooks)
    launch(kernel, 64)
    assert order[:2] == ["before", None] and order[-1] == "before"


@triton.heuristics({"BLOCK": lambda arguments: triton.next_power_of_2(arguments["n"])})
@triton.jit
def reversed_row(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + n - 1 - i, tl.load(x + i, mask=i < n), mask=i < n)


@pytest.mark.parametrize("n", [1, 37, 64])
def test_heuristics(n):
    x = torch.randn(n)
    assert torch.equal(run(reversed_row, (1,), {"x": x, "out": torch.zeros(n), "n": n})["out"], x.flip(0))


@pytest.fixture
def runtime_knobs():
    with triton.knobs.runtime.scope():
        yield triton.knobs.runtime


@triton.jit
def plain(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) * 2)


def test_hooks_of_a_launch(runtime_knobs):
    x, out = torch.ones(16, device="chip"), torch.zeros(16, device="chip")
    order = []
    runtime_knobs.launch_enter_hook.add(lambda data: order.append(("enter", data.get()["name"], out.cpu()[0].item())))
    runtime_knobs.launch_exit_hook.add(lambda data: order.append(("exit", data.get()["name"], out.cpu()[0].item())))
    try:
        plain[(1,)](x, out, N=16)
    finally:
        runtime_knobs.launch_enter_hook.calls.clear()
        runtime_knobs.launch_exit_hook.calls.clear()
    assert order == [("enter", "plain", 0.0), ("exit", "plain", 2.0)]


def test_hooks_of_compilation(runtime_knobs):
    compiled, before = [], []
    runtime_knobs.jit_post_compile_hook = lambda **facts: compiled.append(facts["fn"].name)
    runtime_knobs.jit_cache_hook = lambda **facts: before.append(facts["fn"].name) or False
    x, out = torch.ones(32, device="chip"), torch.zeros(32, device="chip")
    plain[(1,)](x, out, N=32)
    plain[(1,)](x, out, N=32)
    assert len(compiled) == len(before) == 1
    assert compiled[0].endswith("plain")


def test_warmup_compiles_and_does_not_run():
    x, out = torch.ones(8, device="chip"), torch.zeros(8, device="chip")
    compiled = plain.warmup(x, out, N=8, grid=(1,))
    assert Program.decode(compiled.asm["program"]).name == "plain"
    assert out.cpu().eq(0).all()
    by_type = plain.warmup(torch.float32, torch.float32, N=8, grid=(1,))
    assert by_type.asm["program"] == compiled.asm["program"]
    launched = plain[(1,)](x, out, N=8)
    assert launched is by_type or launched.asm["program"] == compiled.asm["program"]
    assert out.cpu().eq(2).all()


def test_warmup_of_every_configuration():
    kernel = add_one("many", key=["n"])
    x, out = torch.ones(64, device="chip"), torch.zeros(64, device="chip")
    compiled = kernel.warmup(x, out, 64, grid=(1,))
    assert len({one.asm["program"] for one in compiled}) == len(CONFIGS["many"])
    assert out.cpu().eq(0).all()


@triton.jit
def scaled(source, SCALE: tl.constexpr, target, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    tl.store(target + place, tl.load(source + place) * SCALE)


def test_a_compiled_kernel_is_launched_with_and_without_its_constants():
    source, target = torch.ones(16, device="chip"), torch.zeros(16, device="chip")
    compiled = scaled[(1,)](source, 3, target, BLOCK=16)
    for arguments in ((source, 3, target, 16), (source, target)):
        target.zero_()
        compiled[(1, 1, 1)](*arguments)
        assert target.cpu().eq(3).all()
    wrong = "scaled: 3 arguments; it takes 4, or 2 without its constants: source, SCALE, target, BLOCK"
    with pytest.raises(LaunchError, match=re.escape(wrong)):
        compiled[(1, 1, 1)](source, target, 16)
