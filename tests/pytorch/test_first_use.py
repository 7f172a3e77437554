"""Programs that never use the chip find torch as it is without Tapeout; others find torch.accelerator working."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tapeout.errors import LaunchError
from tapeout.pytorch import device

PLAIN = """
import json, os, sys
import torch
loaded = sorted({name.partition(".")[0] for name in sys.modules})
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset
import warnings
warnings.simplefilter("ignore")
data = TensorDataset(torch.arange(4.0))
batches = [
    (batch.tolist(), batch.is_pinned())
    for workers in (0, 1)
    for (batch,) in DataLoader(data, batch_size=2, pin_memory=True, num_workers=workers)
]
dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
summed = torch.ones(2)
dist.all_reduce(summed)
dist.barrier()
dist.destroy_process_group()
print(json.dumps([loaded, batches, summed.tolist(), torch.ones(3).is_pinned()]))
"""

ACCELERATOR_BEFORE_USE = """
import torch
accelerator = torch.accelerator
accelerator.empty_cache(), accelerator.empty_host_cache(), accelerator.reset_peak_memory_stats()
accelerator.reset_accumulated_memory_stats()
assert accelerator.memory_stats() == {} and accelerator.memory_allocated() == accelerator.max_memory_allocated() == 0
assert torch.get_device_module() is torch.chip
assert not torch.chip.is_initialized()
"""


def python(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_that_imports_tapeout_and_leaves_the_chip_alone_is_told():
    def said(program):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
        return done.stderr.splitlines()

    line = 'tapeout: nothing ran on the chip; tensors and modules go there with .to("chip")'
    assert said("import torch, tapeout; print(torch.ones(2) + 1)") == [line]
    assert said("import torch; print(torch.ones(2) + 1)") == []
    assert said("import torch; from tapeout.chip import load; load('tiny')") == []
    assert said("import torch, tapeout; raise ValueError('mine')")[-1] == "ValueError: mine"


def test_a_program_that_does_not_use_the_chip_runs_as_without_tapeout():
    loaded, *did = json.loads(python(PLAIN))
    loaded_without, *did_without = json.loads(python(PLAIN, TORCH_DEVICE_BACKEND_AUTOLOAD="0"))
    assert did == did_without
    assert set(loaded) - set(loaded_without) <= {"tapeout", "tomllib"}


def test_asking_the_accelerator_does_not_use_it():
    python(ACCELERATOR_BEFORE_USE)


def test_memory_of_the_accelerator_is_the_chips():
    accelerator = torch.accelerator
    kept = torch.empty(1000, device="chip")
    assert accelerator.memory_allocated() == device.memory_allocated() > 0
    accelerator.reset_peak_memory_stats()
    assert accelerator.max_memory_allocated("chip:0") == device.max_memory_allocated() == device.memory_allocated()
    assert accelerator.memory_reserved() == device.memory_reserved()
    assert accelerator.get_memory_info() == device.mem_get_info()
    assert accelerator.memory_stats()["num_ooms"] == device.memory_stats()["num_ooms"]
    accelerator.empty_cache(), accelerator.empty_host_cache()
    assert torch.float16 in accelerator.get_device_capability()["supported_dtypes"]
    del kept


def test_a_graph_of_the_accelerator_is_the_chips():
    x = torch.ones(4, device="chip")
    y = x + 1
    graph = torch.accelerator.Graph()
    with graph:
        y = x + 1
    x.fill_(3)
    graph.replay()
    assert y.tolist() == [4.0] * 4


NO_SUCH_CHIP = "there is no chip 1: this process simulates one chip, 'chip' or 'chip:0'"


@pytest.mark.parametrize(
    "ask",
    [
        device.synchronize, device.current_stream, device.Stream, device.mem_get_info, device.memory_allocated,
        device.max_memory_allocated, device.memory_reserved, device.max_memory_reserved, device.memory_stats,
        device.reset_peak_memory_stats, device.get_rng_state, device.get_device_properties, device.set_device,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [1, "chip:1", torch.device("chip", 1)])
def test_there_is_no_second_chip(ask, name):
    with pytest.raises(ValueError) as refused:
        ask(name)
    assert str(refused.value) == NO_SUCH_CHIP
    with pytest.raises(ValueError, match=r"^expected a device of type chip, not 'cpu'$"):
        ask("cpu")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.Generator("chip:1"), lambda: torch.Stream(device="chip:1"),
        lambda: torch.ones(1, device="chip:1"),
        lambda: torch.accelerator.current_stream("chip:1"), lambda: torch.accelerator.synchronize("chip:1"),
        lambda: torch.accelerator.memory_allocated(1), lambda: torch.accelerator.get_memory_info(1),
    ],
)  # fmt: skip
def test_torch_names_no_second_chip(ask):
    torch.ones(1, device="chip")
    with pytest.raises(RuntimeError, match=r"^device 'chip:1' does not exist: this process simulates one chip"):
        ask()


def test_a_refused_launch_is_caught_as_a_gpus_is():
    assert issubclass(LaunchError, RuntimeError)


@pytest.mark.parametrize(
    "operator",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: torch.gather(x[:1].expand(2, 3, 6, 6), 3, torch.arange(2, device=x.device).expand(2, 3, 6, 2)),
        lambda x: x.clone().index_fill_(2, torch.tensor([1], device=x.device), 7.0),
    ],
)
def test_operators_compiled_on_the_fly_run_in_inference_mode(operator):
    host = torch.arange(2 * 3 * 36.0).reshape(2, 3, 6, 6).sin()
    outside = host.to("chip")
    with torch.inference_mode():
        inside = host.to("chip")
        for chip in (inside, outside):
            torch.testing.assert_close(operator(chip).cpu(), operator(host))
    torch.testing.assert_close(operator(outside).cpu(), operator(host))


def test_a_program_with_threads_at_work_ends_quietly():
    for _ in range(2):
        program = Path(__file__).with_name("exit_with_threads.py")
        done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
