"""torch.distributed on the chip: jobs of several ranks, started as a user starts them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def started(script, ranks, *, cwd, launcher=(), script_arguments=(), **environment):
    """A job of so many ranks under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *launcher]
    variables = os.environ | {"TAPEOUT_CHIP": "training", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        [*command, str(script), *script_arguments],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_collectives_training_and_time(tmp_path):
    job = started(HERE / "checks.py", 3, cwd=tmp_path, TAPEOUT_TIMING="on", TORCH_DISTRIBUTED_DEBUG="OFF")
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed
    assert printed.count("right: ") == 7, printed


def test_a_ring_adds_from_neighbour_to_neighbour(tmp_path):
    job = started(HERE / "ring.py", 3, cwd=tmp_path, TAPEOUT_REDUCTION="ring")
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed
    assert printed.count("right") == 3, printed


CLUSTER = """
based_on = "board8"
name = "slow"
[[levels]]
name = "board"
size = 8
fabric = "switch"
bytes_per_s = 300_000_000
latency_ns = 700
"""


def test_communication_hides_behind_the_backward_pass(tmp_path):
    """DDP waits for its collectives at the end alone, and a hook's future keeps no computation waiting."""
    (tmp_path / "slow.toml").write_text(CLUSTER)
    job = started(HERE / "overlap.py", 2, cwd=tmp_path, script_arguments=["128"], TAPEOUT_CLUSTER="slow.toml",
                  TAPEOUT_CHIP="tiny")  # fmt: skip
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed
    line = next(line for line in printed.splitlines() if line.startswith("STEP"))
    computation, communication, both, with_hook = map(int, line.split()[1:])
    least, saved = max(computation, communication), 0.3 * min(computation, communication)
    assert least <= both < computation + communication - saved
    assert least <= with_hook < computation + communication - saved


def test_a_trace_has_a_process_for_each_rank_and_a_lane_for_each_group(tmp_path):
    (tmp_path / "two.py").write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group()\n"
        "x = torch.ones(64, 64, device='cuda')\n"
        "if dist.get_rank() == 1:\n"
        "    x = x @ x\n"
        "dist.all_reduce(x)\n"
        "x.sum().item()\n"
        "dist.destroy_process_group()\n"
    )
    command = [
        sys.executable,
        "-m",
        "tapeout",
        "run",
        "--chip",
        "training",
        "--ranks",
        "2",
        "--trace",
        "t.json",
        "two.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    named = {(event["pid"], event["args"]["name"]) for event in events if event["ph"] == "M"}
    for rank in (0, 1):
        assert {(rank + 1, f"rank {rank} training"), (rank + 1, "cores"), (rank + 1, "lane of group 0")} <= named
    reductions = [event for event in events if event.get("name") == "all_reduce"]
    assert len(reductions) == 2 and reductions[0]["ts"] == reductions[1]["ts"]
    assert [event["pid"] for event in events if event.get("name") == "waiting for the last rank"] == [1]


def test_a_lost_rank_is_named(tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(
        "import os, signal, time, torch, torch.distributed as dist\n"
        "dist.init_process_group('tccl')\n"
        "dist.all_reduce(torch.ones(4, device='chip'))\n"
        "if dist.get_rank() == 1:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(0.5)\n"
        "try:\n"
        "    dist.all_reduce(torch.ones(4, device='chip'))\n"
        "except RuntimeError as error:\n"
        "    open(f'said-{dist.get_rank()}.txt', 'w').write(str(error))\n"
        "    os._exit(1)\n"
    )
    ranks = []
    for rank in range(3):  # without torchrun, which would end the others itself
        variables = {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29641"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(script)], cwd=tmp_path, env=os.environ | {"TAPEOUT_CHIP": "training"} | variables
            )
        )
    began = time.monotonic()
    for job in ranks:
        job.wait(timeout=300)
    assert ranks[1].returncode == -signal.SIGKILL
    for rank in (0, 2):
        said = (tmp_path / f"said-{rank}.txt").read_text()
        assert re.search(rf"all_reduce in group '.*' failed on rank {rank}, called at .*lost.py:8", said), said
        assert f"rank 1 (process {ranks[1].pid} on" in said and said.endswith(" ended"), said
    assert time.monotonic() - began < 280


def test_unlike_kinds_train_as_one_process_does(tmp_path):
    job = started(HERE / "mixed.py", 3, cwd=tmp_path)
    printed, _ = job.communicate(timeout=600)
    assert job.returncode == 0 and printed.count("right: ") == 3, printed


CUDA_SCRIPT = """
import os
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(64, 64).to(device), device_ids=[device.index])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(2):
    loss = model(torch.ones(8, 64, device=device) * (dist.get_rank() + 1)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
mean = loss.detach().clone()
dist.all_reduce(mean, op=dist.ReduceOp.AVG)
if dist.get_rank() == 0:
    print(f"loss {mean.item():.6f}")
dist.destroy_process_group()
"""


def test_a_cuda_script_runs_as_ranks_of_a_cluster(tmp_path):
    (tmp_path / "train.py").write_text(CUDA_SCRIPT)
    command = [sys.executable, "-m", "tapeout", "run", "--chip", "training", "--cluster", "board8", "--ranks", "2"]
    done = subprocess.run([*command, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"loss \d\.\d{6}", done.stdout), done.stdout
    assert "2 ranks, board8" in done.stderr and "exposed" in done.stderr, done.stderr
    assert len(re.findall(r"^ +[01] +training +[\d.]+ µs", done.stderr, re.M)) == 2, done.stderr


ONE_OF_MANY = """
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

dist.init_process_group()
assert dist.get_world_size() == 10000 and dist.get_rank() == 0
mesh = dist.init_device_mesh("chip", (1250, 8), mesh_dim_names=("data", "tensor"))
model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(2))).to("chip")
for layer in model:
    fully_shard(layer, mesh=mesh["data"])
fully_shard(model, mesh=mesh["data"])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(2):
    model(torch.ones(16, 2048, device="chip")).sum().backward()
    dist.all_reduce(torch.ones(1 << 20, device="chip"), group=mesh.get_group("tensor"))
    optimizer.step()
    optimizer.zero_grad()
# A shard of 2048 x 2048 float32 over 1,250 ranks has two rows.
print("bytes", sum(p.to_local().numel() * 4 for p in model.parameters()))
gathered = [None] * dist.get_world_size(mesh.get_group("tensor"))
dist.all_gather_object(gathered, {"rank": dist.get_rank()}, group=mesh.get_group("tensor"))
print("objects", len(gathered), gathered[-1])
"""


DATA_PARALLEL = """
import torch
import torch.distributed as dist

dist.init_process_group()
model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(3))).to("chip")
model = torch.nn.parallel.DistributedDataParallel(model)
for step in range(3):
    model(torch.ones(16, 2048, device="chip")).sum().backward()
    model.zero_grad()
"""


def test_one_process_stands_for_the_ranks_of_data_parallel(tmp_path):
    (tmp_path / "train.py").write_text(DATA_PARALLEL)
    options = ["--timing-only", "--cluster", "rail10k", "--as-rank", "3", "--of", "512"]
    command = [sys.executable, "-m", "tapeout", "run", "--chip", "training", *options, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr  # torch's, of a device without a timer
    hidden = re.search(r"communication: [\d.]+ .s exposed, ([\d.]+) .s hidden", done.stderr)
    assert hidden and float(hidden[1]) > 0, done.stderr


def test_one_process_stands_for_ten_thousand_ranks(tmp_path):
    (tmp_path / "train.py").write_text(ONE_OF_MANY)
    options = ["--timing-only", "--cluster", "rail10k", "--as-rank", "0", "--of", "10000"]
    command = [sys.executable, "-m", "tapeout", "run", "--chip", "training", *options, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"bytes {2 * 2 * 2048 * 4}" in done.stdout and "objects 8 {'rank': 0}" in done.stdout
    assert re.search(r"communication: [\d.]+ .s exposed, [\d.]+ .s hidden", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--as-rank", "0"], "--as-rank and --of belong together: rank 0 of 1,000 is --as-rank 0 --of 1000"),
        (
            ["--as-rank", "9", "--of", "8", "--timing-only"],
            "--as-rank 9 is not one of 8 ranks; choose from 0 to 7",
        ),
        (
            ["--cluster", "board8", "--ranks", "9"],
            "cluster 'board8' has 8 places, so 9 ranks do not fit; use at most 8 or a larger cluster",
        ),
        (
            ["--cluster", "bord8", "--ranks", "2"],
            "unknown cluster 'bord8'; did you mean 'board8'? Known: board8, rack72, torus4x4x4, rail10k, "
            "a100x8, h100x8, h200x8, b200x8. "
            "Your own: a path that ends in .toml",
        ),
    ],
)
def test_wrong_jobs_are_refused_in_a_sentence(options, sentence, tmp_path):
    (tmp_path / "train.py").write_text("")
    command = [sys.executable, "-m", "tapeout", "run", *options, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert " ".join(done.stderr.split()) == f"error: {sentence}"
