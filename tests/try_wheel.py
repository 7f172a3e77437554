"""Tries out an installed wheel: `python tests/try_wheel.py`, outside the source tree. Exits with the first failure."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import tapeout

assert "src" not in Path(tapeout.__file__).parts, f"{tapeout.__file__} is the source tree, not the wheel"
for command in (["chips"], ["datasheet", "inference"]):
    printed = subprocess.run(
        [sys.executable, "-m", "tapeout", *command], check=True, capture_output=True, text=True
    ).stdout
    assert "inference" in printed, f"tapeout {' '.join(command)} printed {printed!r}"
left, right = torch.randn(96, 64), torch.randn(64, 32)
torch.testing.assert_close((left.to("chip") @ right.to("chip")).cpu(), left @ right, rtol=1e-4, atol=1e-5)
print(f"tapeout {version('tapeout')} from {Path(tapeout.__file__).parent}: chips, datasheet and a product on the chip")
