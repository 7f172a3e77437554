"""A language model of SmolLM2's shape at small size on every example chip: exact but where the engine is analogue."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapeout.chip import EXAMPLE_CHIPS, load

SCRIPT = Path(__file__).with_name("small_language_model.py")


@pytest.mark.parametrize("name", EXAMPLE_CHIPS)
def test_a_small_language_model_runs_with_right_numbers(name):
    variables = os.environ | {"TAPEOUT_CHIP": name, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    if load(name).core.matrix.is_analogue:
        assert 1e-3 < found["error"] < 0.1 and found["same"] > 0.8
    else:
        assert found["error"] < 1e-6 and found["same"] == 1
