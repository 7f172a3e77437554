"""Chip files in examples/ load and say what they are about."""

from pathlib import Path

from tapeout import chip

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_tpuv3_core_has_the_published_figures():
    core = chip.load(str(EXAMPLES / "tpuv3_core.py"))
    assert core.peak_flops_per_s("bfloat16") == 2 * 2 * 128 * 128 * 940e6
    assert core.hbm.bandwidth_bytes_per_s == 450e9
    assert core.core.scratchpad.size_bytes == 16 << 20
