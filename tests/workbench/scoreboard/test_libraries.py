"""Libraries on top of PyTorch: how a program is run and judged."""

import ast

import pytest

from tapeout.errors import TapeoutError
from tapeout.report import libraries as report
from tapeout.workbench.scoreboard import libraries
from tapeout.workbench.scoreboard.libraries import LIBRARIES, Library, Result, difference
from tapeout.workbench.scoreboard.verdicts import Verdict


def test_a_library_that_works_is_native_and_has_a_time():
    (result,) = libraries.run("^safetensors$", 300)
    assert (result.verdict, result.cause) == (Verdict.NATIVE, "")
    assert result.chip_ps > 0 and result.processor_s > 0
    text = report.page([result])
    assert "**1 of 1** work" in text
    assert (
        f'| safetensors | {result.version} | tensors saved from the device and loaded onto it | `device="chip"`' in text
    )


SILENT = '"""x: y."""\nimport torch\nx = torch.ones(3)\nprint("sum", x.sum().item())\nprint("device", x.device.type)\n'
RAISES = 'import sys\nif sys.argv[1] != "cpu":\n    raise ValueError("no such device")\nprint("sum 3.0")\n'


MUTE = '"""x: y."""\nprint("sum 3.0")\n'


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        (SILENT, "silently on cpu"),
        (RAISES, "ValueError: no such device"),
        (MUTE, "it does not say where its tensors are"),
    ],
)
def test_a_program_that_stays_on_the_cpu_or_fails_is_broken(monkeypatch, tmp_path, program, cause):
    (tmp_path / "one.py").write_text(program)
    monkeypatch.setattr(libraries, "PROGRAMS", tmp_path)
    result = libraries.judge(Library("torch", "one"), 300)
    assert (result.verdict, result.cause) == (Verdict.BROKEN, cause)


def test_a_library_that_is_not_installed_is_skipped():
    result = libraries.judge(Library("no-such-library", "safetensors_files"), 300)
    assert result == Result(result.library, "-", Verdict.SKIPPED, "no-such-library is not installed")
    with pytest.raises(TapeoutError, match=r"^no library matches 'zzz'; known are accelerate, transformers, trl, "):
        list(libraries.run("zzz", 300))


@pytest.mark.parametrize(
    ("got", "cause"),
    [
        ("loss 2.001\nend nan", ""),
        ("loss 2.5\nend nan", "figure 1, loss, is 2.5, on the CPU 2.0"),
        ("loss nan\nend nan", "figure 1, loss, is nan, on the CPU 2.0"),
        ("loss 2.0", "it prints 1 figures where the CPU prints 2"),
    ],
)
def test_figures_are_compared(got, cause):
    assert difference(got, "loss 2.0\nnoise\nend nan") == cause


def test_every_program_belongs_to_a_library():
    assert {each.stem for each in libraries.PROGRAMS.glob("*.py")} == {each.program for each in LIBRARIES}
    for each in LIBRARIES:
        assert each.title, each.program
        ast.parse((libraries.PROGRAMS / f"{each.program}.py").read_text("utf-8"))
