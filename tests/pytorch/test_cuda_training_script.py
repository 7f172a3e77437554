"""An ordinary CUDA training script, unmodified under `tapeout run`, eager and compiled, held against the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("train_cuda.py")


def python(folder, *arguments, **environment):
    command = [sys.executable, *arguments, str(SCRIPT)]
    return lambda *options: subprocess.run(
        [*command, *options], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """What the script does on the CPU in float32, and in float16 no more than rounding apart."""
    folder = tmp_path_factory.mktemp("cpu")
    done = python(folder, TORCH_DEVICE_BACKEND_AUTOLOAD="0")("--amp", "none")
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_the_script_trains_saves_and_resumes(tmp_path, on_cpu, mode):
    run = python(tmp_path, "-m", "tapeout", "run")
    options = ["--compile"] if mode == "compiled" else []
    whole = run("--amp", "fp16", *options)
    assert whole.returncode == 0, whole.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["device"] and not on_cpu["device"]
    # Within a hundred roundings of float16 to 11 bits, shared out over a batch: measured 1e-4 and 6e-4.
    assert [loss for loss, _ in metrics["history"]] == pytest.approx([loss for loss, _ in on_cpu["history"]], rel=5e-4)
    assert [norm for _, norm in metrics["history"]] == pytest.approx([norm for _, norm in on_cpu["history"]], rel=2e-3)
    assert metrics["loss"] == pytest.approx(on_cpu["loss"], rel=5e-4)
    if mode == "eager":
        resumed = run("--amp", "fp16", "--epochs", "3", "--resume", "checkpoint.pt")
        assert resumed.returncode == 0 and "epoch 2: loss" in resumed.stdout, resumed.stderr
        assert "epoch 1" not in resumed.stdout and "of simulated time" in resumed.stderr
