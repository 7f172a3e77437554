"""Other people's scripts: how one is run and judged. The scripts themselves are not here."""

import pytest

from tapeout.errors import TapeoutError
from tapeout.report import scripts as report
from tapeout.workbench.scoreboard import script_data, scripts
from tapeout.workbench.scoreboard.scripts import Script
from tapeout.workbench.scoreboard.verdicts import Verdict

SOURCE = """
import sys, torch
words = open("words/train.txt").read()
device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
print("loss:", torch.arange(4.0, device=device).exp().sum().item() + float(sys.argv[1]))
"""


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "somebody+something" / "inner"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(SOURCE)
    (tmp_path / "somebody+something" / "VERSION").write_text("1.2\n")
    return tmp_path


def test_a_script_is_run_on_both_and_judged_by_its_figures(sources, monkeypatch):
    script = Script("one", "somebody/something", "train.py", ("0.5",), "inner", script_data.words("words"))
    monkeypatch.setattr(scripts, "SCRIPTS", (script,))
    (result,) = scripts.run(sources, "one", 300)
    assert (result.verdict, result.cause, result.version) == (Verdict.NATIVE, "", "1.2")
    assert result.chip_ps > 0 and result.processor_s > 0
    assert not (sources / "somebody+something" / "inner" / "words").exists()
    page = report.page([result])
    assert "**1 of 1** are right" in page and "| `tapeout run train.py 0.5` | native |" in page


def test_missing_sources_are_named(tmp_path):
    with pytest.raises(TapeoutError, match="put karpathy/nanoGPT from GitHub there"):
        list(scripts.run(tmp_path, "^nanoGPT$", 300))


@pytest.mark.parametrize(
    ("got", "is_random", "cause"),
    [
        ("loss: 2.0 loss 1.99", False, ""),
        ("loss: 2.0 loss 1.5", False, "figure 2 is 1.5, on the CPU 2.0"),
        ("loss: 2.0 loss 1.5", True, ""),
        ("loss: 2.0 loss nan", True, "figure 2 is nan"),
        ("loss: 2.0", False, "1 figures where the CPU prints 2"),
        ("", True, f"it prints nothing like {scripts.LOSS}"),
    ],
)
def test_figures(got, is_random, cause):
    script = Script("one", "somebody/something", "train.py", is_random=is_random)
    assert scripts._difference(script, got, "loss: 2.0 loss 2.0") == cause


def test_names_are_told_apart():
    names = [script.name for script in scripts.SCRIPTS]
    assert len(names) == len(set(names)) > 20
