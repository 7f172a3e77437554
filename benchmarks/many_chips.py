"""Host time of collectives on the chip: a small all_reduce against gloo on the CPU, with the clock off and on.

Virtual time of a step of data-parallel training while links become faster: what of the communication stays exposed.
"""

import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.measure import conditions

RANKS = 2
ROUNDS = 200
REPEATS = 5
RANK_PROGRAM = f"""
import statistics, sys, time
import torch, torch.distributed as dist

dist.init_process_group()
gloo = dist.new_group(backend="gloo")
tensors = {{"chip": torch.ones(256, device="chip"), "cpu": torch.ones(256)}}
groups = {{"chip": None, "cpu": gloo}}

def seconds(device):
    dist.barrier()
    before = time.perf_counter()
    for _ in range({ROUNDS}):
        dist.all_reduce(tensors[device], dist.ReduceOp.MAX, group=groups[device])
    return (time.perf_counter() - before) / {ROUNDS}

def measured(device):
    seconds(device)
    return statistics.median(seconds(device) for _ in range({REPEATS}))

times = [measured("chip"), measured("cpu")]
from tapeout.runtime import session
session.turn_on()
times.append(measured("chip"))
if dist.get_rank() == 0:
    print("TIMES", *times)
dist.destroy_process_group()
"""


def main() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    environment = os.environ | {"TAPEOUT_CHIP": "training", "OMP_NUM_THREADS": "1"}
    path = "build/many_chips_rank.py"
    os.makedirs("build", exist_ok=True)
    with open(path, "w") as program:
        program.write(RANK_PROGRAM)
    done = subprocess.run([*command, path], env=environment, check=True, capture_output=True, text=True)
    chip, gloo, timed = map(float, next(line for line in done.stdout.splitlines() if "TIMES" in line).split()[1:])
    table = Table("all_reduce of 1 KiB", "time", "ratio", "bar", title=f"Collectives of {RANKS} ranks on this host")
    table.add_row("gloo, CPU tensors", f"{gloo * 1e6:.0f} µs", "", "")
    table.add_row("tccl, the chip's tensors", f"{chip * 1e6:.0f} µs", f"{chip / gloo:.2f} of gloo", "1.3")
    table.add_row("the same with the clock on", f"{timed * 1e6:.0f} µs", f"{timed / chip:.2f} of without", "1.2")
    console = Console()
    console.print(table)
    console.print(overlap())
    console.print(one_of_many())
    console.print(conditions())


SLOWEST_LINK_BYTES_PER_S = 100_000_000
FASTER = (1, 4, 40)
STEP_PROGRAM = "tests/distributed/overlap.py"


def overlap() -> Table:
    """A step of DDP on two ranks of the chip `tiny`, in virtual time, on links of several speeds."""
    title = "A step of DDP on two ranks of `tiny` (4 layers, 128 x 128), in virtual time"
    table = Table("links", "computation", "communication", "step", "exposed", "step with a hook", title=title)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    for factor in FASTER:
        name = f"build/links_x{factor}.toml"
        with open(name, "w") as file:
            file.write(
                f'based_on = "board8"\nname = "x{factor}"\n[[levels]]\nname = "board"\nsize = 8\nfabric = "switch"\n'
                f"bytes_per_s = {factor * SLOWEST_LINK_BYTES_PER_S}\nlatency_ns = 700\n"
            )
        environment = os.environ | {"TAPEOUT_CHIP": "tiny", "TAPEOUT_CLUSTER": name, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, STEP_PROGRAM, "128"], env=environment, check=True, capture_output=True, text=True
        )
        figures = next(line for line in done.stdout.splitlines() if line.startswith("STEP")).split()[1:]
        computation, communication, both, hooked = (int(figure) / 1e6 for figure in figures)
        exposed = both - computation
        cells = (computation, communication, both, exposed, hooked)
        table.add_row(f"x{factor}", *(f"{cell:,.0f} µs" for cell in cells))
    return table


def one_of_many() -> Table:
    """Host time of two steps of a 70B-shaped model's two layers as one of 1,024 ranks."""
    options = "--chip training --cluster rail10k --timing-only --read-zeros --as-rank 0 --of 1024"
    command = [sys.executable, "-m", "tapeout", "run", *options.split(), "benchmarks/layers_of_70b.py"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    steps = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("STEP")]
    table = Table("step", "CPU time", "bar", "memory", title="Two layers of 70B, TP 8 x FSDP 128, as one rank")
    for name, (cpu_s, memory_gib), bar in zip(("first", "second"), steps, ("60 s", "2 s"), strict=True):
        table.add_row(name, f"{float(cpu_s):.1f} s", bar, f"{float(memory_gib):.2f} GiB (bar 4)")
    return table


if __name__ == "__main__":
    main()
