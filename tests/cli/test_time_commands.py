"""`tapeout run`, `profile` and `annotate` on a small script, each in a process of its own."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gc
import sys
from pathlib import Path
import torch
import triton
import triton.language as tl

@triton.jit
def scale_kernel(values, size, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    tl.store(values + place, tl.load(values + place, mask=inside) * 2, mask=inside)

assert gc.isenabled() and gc.get_freeze_count() > 100_000  # what torch itself made is not looked through again
values = torch.ones(1000, device="chip")
scale_kernel[(4,)](values, 1000, BLOCK=256)
print("arguments", sys.argv[1:], __name__)
if "--fall-back" in sys.argv:
    torch.linalg.eigvalsh(values[:900].view(30, 30))
if "--bags" in sys.argv:
    bags = torch.arange(0, 40, 5, device="chip")
    torch.nn.functional.embedding_bag(bags.repeat(5), torch.ones(50, 16, device="chip"), bags)
if "--read" in sys.argv:
    print("first", values[0].item())
if "--fail" in sys.argv:
    sys.exit(3)
"""


@pytest.fixture
def tapeout(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    def tapeout(*arguments):
        environment = {**os.environ, "COLUMNS": "140"}
        command = [sys.executable, "-m", "tapeout", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    tapeout.folder = tmp_path
    return tapeout


def test_run_prints_the_time_and_passes_arguments_on(tapeout):
    done = tapeout("run", "script.py", "--chip", "tiny", "--steps", "3", "--read", "--result", "time.json")
    assert done.stdout == "arguments ['--steps', '3', '--read'] __main__\nfirst 2.0\n", done.stderr
    time = json.loads((tapeout.folder / "time.json").read_text())
    assert time["chip"] == "tiny" and time["total_ps"] > 6_000_000  # two launches of 3 µs each on the host
    assert time["counts"] == {"kernel": 2, "copy to host": 1}
    assert time["host_operators"] == {} and not time["timing_only"]
    assert done.stderr.splitlines()[0].startswith("tiny: ")
    assert done.stderr.splitlines()[0].endswith("µs of simulated time")


def test_run_on_several_chips_is_side_by_side(tapeout):
    done = tapeout(
        "run", "--chip", "tiny,inference", "--timing-only", "script.py", "--", "--chip", "mine", "--fall-back"
    )
    assert done.stdout == "arguments ['--chip', 'mine', '--fall-back'] __main__\n" * 2, done.stderr
    lines = done.stderr.splitlines()
    assert next(line for line in lines if "inference" in line and "tiny" in line).split() == ["tiny", "inference"]
    assert "plus 1 host operators of unknown time" in done.stderr
    assert "speed against the first" not in done.stderr  # lower bounds are not compared


def test_timing_only_refuses_a_read_unless_zeros_are_asked_for(tapeout):
    refused = tapeout("run", "--timing-only", "script.py", "--read")
    assert refused.returncode == 1 and "--read-zeros" in refused.stderr
    allowed = tapeout("run", "--timing-only", "--read-zeros", "script.py", "--read", "--bags")
    assert allowed.returncode == 0 and allowed.stdout.endswith("first 0.0\n")
    assert "all bags are taken to be of the same length" in allowed.stderr and "unknown" not in allowed.stderr


def test_the_scripts_exit_status_is_the_commands(tapeout):
    assert tapeout("run", "--timing-only", "script.py", "--fail").returncode == 3
    missing = tapeout("run", "nothing.py")
    assert missing.returncode == 1 and missing.stderr.startswith("error: there is no script 'nothing.py' in ")
    needless = tapeout("run", "--read-zeros", "script.py")
    assert needless.returncode == 1 and "--read-zeros is for --timing-only" in needless.stderr


def test_profile_shows_where_time_goes_and_writes_a_trace(tapeout):
    done = tapeout("profile", "script.py", "--chip", "tiny", "-o", "out", "--fall-back")
    assert done.returncode == 0, done.stderr
    profile = json.loads((tapeout.folder / "out" / "profile.json").read_text())
    kernels = {row["name"]: row for row in profile["kernels"]}
    assert kernels["scale_kernel"]["launches"] == 1
    assert kernels["scale_kernel"]["hbm_bytes"] >= 4 * 1000  # its result; what it reads is in the last-level SRAM
    operators = {row["name"]: row for row in profile["operators"]}
    assert operators["aten::fill_"]["launches"] == 1
    assert (
        operators["aten::_linalg_eigh.eigenvalues"]["host_calls"] == 1
        and operators["aten::_linalg_eigh.eigenvalues"]["total_ps"] == 0
    )
    for engine in profile["engines"]:
        assert engine["busy"] + sum(engine["stalls"].values()) + engine["unused_cores"] == pytest.approx(1)
    assert "scale_kernel" in done.stderr and "of unknown time: aten::_linalg_eigh.eigenvalues 1" in done.stderr

    assert 0 < profile["at_work"]["area_share"] < 1 and "Share of the chip at work" in done.stderr
    page = (tapeout.folder / "out" / "profile.html").read_text()
    assert "scale_kernel" in page and "<circle" in page and "<script" not in page

    same = tapeout("diff", "out", "out", "--format", "json")
    assert same.returncode == 0, same.stderr
    whole = json.loads(same.stdout)
    assert "out takes 1 times the simulated time of out." in whole["sections"][0]["text"]

    summary = json.loads((tapeout.folder / "out" / "run.json").read_text())
    assert summary["schema"] == "tapeout.run/1" and summary["time"] == profile["run"]
    kept = json.loads(gzip.decompress((tapeout.folder / "out" / "kernels.json.gz").read_bytes()))["kernels"]
    own = next(kernel for kernel in kept if kernel["kernel"] == "scale_kernel")
    assert own["lines"][0]["text"].startswith("def scale_kernel") or "tl." in str(own["lines"])
    assert own["cycles"] > 0 and own["advice"].endswith((".", "waits."))
    assert all(cycles > 0 for _, cycles in own["doubled"])

    events = json.loads(gzip.decompress((tapeout.folder / "out" / "trace.json.gz").read_bytes()))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    chip = {event["name"]: event for event in slices if event["pid"] == 1}
    kernel = chip["scale_kernel"]
    of_core = [event for event in slices if event["pid"] == 10 and event["ts"] >= kernel["ts"]]
    assert {"load", "store"} <= {event["name"] for event in of_core}
    assert any(event["name"].startswith("wait: ") for event in of_core)
    assert max(event["ts"] + event["dur"] for event in of_core) <= kernel["ts"] + kernel["dur"] + 1e-6
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert {"HBM bandwidth (GB/s)", "queue: load"} <= counters
    lengths = [event["args"]["value"] for event in events if event["name"] == "queue: load"]
    assert min(lengths) == 0 and 0 < max(lengths) <= 4  # tiny's queues hold four


def test_annotate_puts_cycles_beside_source_lines(tapeout):
    done = tapeout("annotate", "script.py", "--chip", "tiny", "--kernel", "scale", "--timing-only")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("scale_kernel: 1 launch, ") for line in lines)
    at = next(i for i, line in enumerate(lines) if "tl.store(values + place" in line)
    cycles = int(lines[at].split()[0].replace(",", ""))
    below = [line.split() for line in lines[at + 1 :]]
    instructions = below[: next((i for i, words in enumerate(below) if "x" not in " ".join(words[3:5])), None)]
    assert cycles == sum(int(words[0].replace(",", "")) for words in instructions) > 0
    assert any("load" in words for words in instructions) and any("store" in words for words in instructions)
    nothing = tapeout("annotate", "script.py", "--kernel", "softmax", "--timing-only")
    assert nothing.returncode == 1 and "launched no kernel whose name contains 'softmax'" in nothing.stderr


def test_the_llama_example_is_timed_without_its_weights(tapeout):
    pytest.importorskip("transformers")
    example = Path(__file__).parents[2] / "examples" / "llama_70b_decode.py"
    done = tapeout("run", "--timing-only", "--chip", "training", str(example), "--layers", "1", "--context", "128")
    assert done.returncode == 0, done.stderr
    step_ms = float(re.search(r"decode step: ([\d.]+) ms", done.stdout)[1])
    # One layer's matrices and the output's, read once at HBM's peak rate, are the least it could take.
    weights = 8192 * (8192 + 1024 + 1024 + 8192 + 3 * 28672 + 128256)
    assert step_ms > 2 * weights / 7.2e12 * 1e3
    assert "unknown time" not in done.stderr


def test_limits_shows_operators_and_kernels_beside_what_the_chip_allows(tapeout):
    (tapeout.folder / "limits.py").write_text(
        "import torch\nx = torch.ones(256, 1024, device='cuda', dtype=torch.bfloat16)\nx = x.exp()\nx = x.exp()\n"
    )
    done = tapeout("limits", "limits.py", "--chip", "inference", "--timing-only")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stderr.splitlines() if line.split()[:1] == ["exp"])
    assert row[:5] == ["exp", "bfloat16", "256x1024", "2", "2"] and "lanes" in row
    assert "No operator asked for it" not in done.stderr
    kernel = tapeout("limits", "script.py", "--chip", "tiny")
    assert "scale_kernel *" in kernel.stderr and "No operator asked for it" in kernel.stderr
