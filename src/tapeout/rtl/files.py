"""Files of `tapeout rtl`: a core in Verilog, a testbench with a memory, and the lint rules that are waived."""

from pathlib import Path

from tapeout.chip import Chip
from tapeout.rtl.simulation import testbench_of
from tapeout.rtl.verilator import lint_rules
from tapeout.rtl.verilog import TOP, verilog_of


def files_of(chip: Chip) -> dict[str, str]:
    """Content by name. Raises UnsupportedError for a chip whose core the RTL does not have."""
    return {
        f"{TOP}.v": verilog_of(chip),
        "testbench.cpp": testbench_of(chip),
        "lint.vlt": lint_rules(),
    }


def write(chip: Chip, folder: Path) -> list[Path]:
    """Write them into a folder. Gives their paths."""
    contents = files_of(chip)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content, "utf-8")
    return [folder / name for name in contents]
