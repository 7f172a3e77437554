"""`tapeout run` takes modules, commands and scripts as Python and the shell do; what it cannot do is one sentence."""

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tapeout as package
from tapeout.cli import app

PROGRAM = """
import sys
import torch
print("ran", __name__, sys.argv[1:], "µ" if sys.flags.utf8_mode else "")
if "--use" in sys.argv:
    print(torch.ones(2, device="cuda").sum().item())
if "--fail" in sys.argv:
    def inner():
        raise ValueError("of the user's")
    inner()
if "--exit" in sys.argv:
    sys.exit("bad arguments")
"""


@pytest.fixture
def tapeout(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "module.py").write_text(PROGRAM)
    (tmp_path / "script.py").write_text(PROGRAM)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "a-command"
    command.write_text(f"#!{sys.executable}\n{PROGRAM}")
    command.chmod(0o755)

    def tapeout(*arguments, **environment):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "tapeout", *arguments]
        environment = os.environ | {"PATH": path, "COLUMNS": "200"} | environment
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    tapeout.folder = tmp_path
    return tapeout


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_module_runs_and_is_timed(tapeout):
    done = tapeout("run", "--chip", "tiny", "-m", "package.module", "--use", "-m", "x", "--chip", "y", "--help")
    assert done.stdout == "ran __main__ ['--use', '-m', 'x', '--chip', 'y', '--help'] \n2.0\n", done.stderr
    assert "tiny: " in done.stderr and "of simulated time" in done.stderr


def test_a_command_runs_where_the_locale_knows_only_ascii(tapeout):
    done = tapeout(
        "run", "a-command", "--use", "--timing-only", "-o", "z", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert done.stdout == "ran __main__ ['--use', '--timing-only', '-o', 'z'] \n2.0\n", done.stderr
    assert "us of simulated time" in done.stderr


def test_ranks_of_torchrun_are_on_the_chip_and_say_what_they_took(tapeout):
    (tapeout.folder / "rank.py").write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group()\n"
        "print('rank', dist.get_rank(), torch.ones(2, device='cuda').sum().item())\n"
        "dist.destroy_process_group()\n"
    )
    done = tapeout("run", "torchrun", "--nproc-per-node", "1", "rank.py")
    assert done.stdout == "rank 0 2.0\n", done.stderr
    assert "inference: nothing ran on the chip in this process" in done.stderr
    assert re.search(r"process \d+: inference: .* of simulated time", done.stderr)


def test_an_error_of_the_script_is_shown_as_python_shows_it(tapeout):
    done = tapeout("run", "script.py", "--fail")
    assert done.returncode == 1
    script = tapeout.folder / "script.py"
    assert done.stderr.splitlines() == [
        "Traceback (most recent call last):",
        '  File "script.py", line 10, in <module>',
        "    inner()",
        '  File "script.py", line 9, in inner',
        '    raise ValueError("of the user\'s")',
        "ValueError: of the user's",
    ], script


def test_a_script_that_ends_early_is_not_timed(tapeout):
    done = tapeout("run", "script.py", "--exit")
    assert (done.returncode, done.stderr) == (1, "bad arguments\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nothing"), "there is no script 'nothing' in "),
        (("run", "ls"), "/ls is not a Python program, and only those run on the chip"),
        (("run", "--result", "no/folder/x.json", "s.py"), "cannot write 'no/folder/x.json': No such file or directory"),
        (("profile", "-o", "s.py/x", "s.py"), "cannot make the folder 's.py/x': Not a directory"),
        (
            ("cost", "inference", "--run", "none.json", "--items", "1"),
            "cannot read or write 'none.json': No such file or",
        ),
        (
            ("cost", "inference", "--run", "s.py", "--items", "1"),
            "this is not what `tapeout run --result` writes for one chip",
        ),
        (("datasheet", "tiny", "--output", "no/folder/x.md"), "cannot read or write 'no/folder/x.md': No such file or"),
        (("chips", "--output", "no/folder/x.md"), None),
    ],
)
def test_what_cannot_be_read_or_written_is_said_before_anything_runs(run, tmp_path, arguments, sentence):
    (tmp_path / "s.py").write_text("raise SystemError('it ran')\n")
    done = run(*arguments)
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit)
    if sentence:
        assert done.stderr.startswith("error: ") and sentence in done.stderr and done.stderr.count("\n") == 1


def test_the_version_and_the_short_name_of_help(run):
    assert run("--version").stdout == f"tapeout {package.__version__}\n"
    assert run("-h").stdout == run("--help").stdout
    assert run("chips", "-h").stdout == run("chips", "--help").stdout
