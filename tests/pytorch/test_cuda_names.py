"""A script written for CUDA runs on the chip unchanged, not on the host, and is told what it asks in vain."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("cuda_script.py")
RUN = "import runpy, tapeout, torch; from tapeout.pytorch import cuda_names; cuda_names.install(); "


def run(program):
    environment = {**os.environ, "TAPEOUT_FALLBACK": "error"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def test_a_training_script_for_a_gpu():
    done = run(RUN + f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    _, first, last = done.stdout.split()
    assert float(last) < float(first)
    told = "torch.cuda.nvtx.range_push has no meaning on the chip and is ignored"
    assert done.stderr.count(told) == 1


def test_what_cannot_be_ignored_is_refused():
    done = run(RUN + "torch.cuda.MemPool()")
    assert done.stderr.splitlines()[-1] == (
        "tapeout.errors.TapeoutError: torch.cuda.MemPool has no meaning on the chip: the chip's memory has its own "
        "allocator"
    )


def test_there_is_one_chip():
    done = run(RUN + "torch.ones(2, device='cuda:1')")
    assert done.stderr.splitlines()[-1] == (
        "ValueError: there is no cuda:1: this process simulates one chip, 'cuda' or 'cuda:0'"
    )


def test_the_habits_of_scripts_for_a_gpu():
    habits = Path(__file__).with_name("cuda_habits.py")
    environment = {**os.environ, "TAPEOUT_STARTUP": "tapeout.report.child_processes"}
    done = subprocess.run([sys.executable, str(habits)], env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_memory_is_pinned_before_the_chip_was_used():
    made = "torch.empty(2, pin_memory=True), torch.zeros(2, pin_memory=True), torch.randn(2, pin_memory=True)"
    done = run(RUN + f"print([each.is_pinned() for each in ({made})])")
    assert done.stdout == "[True, True, True]\n", done.stderr
