"""With fewer of the host's vector units the functional simulator computes the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapeout.host import features

TESTS = Path(__file__).parent
AGREEMENTS = (
    "test_products and 33",
    "test_products and 300 and f32",
    "test_float8_formats_mix",
    "test_blocks_in_every_order and 33",
    "test_conversions and (f16 or bf16 or f8e5m2)",
    "test_functions and (fma or exp2 or round or floor)",
    "test_reductions and add",
    "test_a_reduction",
)


@pytest.mark.parametrize("level", [level for level in features.levels() if level != features.chosen_level()])
def test_agreement_with_the_evaluator(level):
    """Some of the tests of this folder, in a process that uses another level."""
    files = [str(TESTS / f"test_functional_{name}.py") for name in ("tiles", "functions", "groups")]
    chosen = " or ".join(f"({agreement})" for agreement in AGREEMENTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen],
        env=os.environ | {features.VARIABLE: level},
        cwd=TESTS.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
