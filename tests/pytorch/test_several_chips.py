"""Several chips in one process, which TAPEOUT_CHIPS asks for before the first use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("several_chips.py")


def run(command, chips):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"TAPEOUT_CHIPS": chips}, capture_output=True, text=True
    )


def test_three_chips_of_two_kinds():
    options = ["-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "--rootdir", str(CHECKS.parents[2])]
    done = run([*options, str(CHECKS)], "training,training,inference")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("0", "TAPEOUT_CHIPS='0' is neither a number of chips, 1 to 64, nor a list of as many names, such as"),
        ("65", "TAPEOUT_CHIPS='65' is neither a number of chips"),
        ("-2", "TAPEOUT_CHIPS='-2' is neither a number of chips"),
        ("training,", "TAPEOUT_CHIPS='training,' is neither a number of chips"),
        ("2.5", "unknown chip '2.5'"),
        ("training,trainig", "unknown chip 'trainig'; did you mean 'training'?"),
    ],
)
def test_a_value_that_names_no_chips_is_told(given, sentence, monkeypatch):
    from tapeout import chip as chips
    from tapeout.errors import ChipError

    monkeypatch.setenv("TAPEOUT_CHIPS", given)
    monkeypatch.setattr("tapeout.chip.loading._active", None)
    with pytest.raises(ChipError) as refused:
        chips.of_process()
    assert str(refused.value).startswith(sentence)


def test_a_run_tells_what_each_chip_did(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import torch\n"
        "x = torch.ones(64, 64, device='cuda:1')\n"
        "(x @ x).to('cuda:0').sum().item()\n"
        "print(torch.cuda.device_count())\n"
    )
    done = run(["-m", "tapeout", "run", str(script)], "2")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("2 x inference: ")
    assert [line.split(": ")[0].strip() for line in lines[2:4]] == ["chip:0 inference", "chip:1 inference"]
    assert "copy to another chip" in lines[3] and "copy to another chip" not in lines[2]
