"""The examples of jobs on several chips, at small size: the losses are those of one chip."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def losses(script, ranks, options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    variables = os.environ | {"TAPEOUT_CHIP": "training", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(EXAMPLES / script), *options], env=variables, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("losses"))
    return [float(word) for word in line.split()[1:]]


@pytest.mark.parametrize(
    ("script", "needs", "ranks", "options", "within"),
    [
        ("shard_language_model.py", "transformers", 4, ("--tiny", "--steps", "2"), 1e-5),
        ("shard_recommender.py", "recbole", 4, ("--steps", "2", "--batch-size", "256"), 1e-3),
        ("digits_on_three_kinds.py", "sklearn", 3, (), 1e-5),
    ],
)
def test_losses_are_those_of_one_chip(script, needs, ranks, options, within):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    many, one = losses(script, ranks, options), losses(script, 1, options)
    assert many == pytest.approx(one, abs=within)
    assert len(set(many)) == len(many)  # it learns
