"""The command line: what it prints, and how it refuses."""

import pytest
from typer.testing import CliRunner

from tapeout.cli import app


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_chips_lists_the_reference_chips(run):
    result = run("chips")
    assert result.exit_code == 0
    heading = next(line for line in result.stdout.splitlines() if "training" in line)
    assert heading.split() == ["training", "inference", "tiny"]
    assert "  memory bandwidth              7.2 TB/s       4.8 TB/s      51.2 GB/s" in result.stdout


def test_chips_shows_one_in_full(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('based_on = "tiny"\nname = "mine"\ncore_count = 3\n')
    result = run("chips", "mine.toml")
    assert result.exit_code == 0
    assert "mine (fingerprint" in result.stdout
    assert any(line.split()[:2] == ["core_count", "3"] for line in result.stdout.splitlines())


def test_a_mistake_is_one_sentence_and_a_failure(run):
    result = run("chips", "tiy")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: unknown chip 'tiy'; did you mean 'tiny'? Known: training, inference, tiny. "
        "Your own: a path that ends in .py, .toml or .json\n"
    )


def test_chat_refuses_an_unknown_chip_before_loading_anything(run):
    result = run("chat", "--chip", "trainign", "hello")
    assert result.exit_code == 1
    assert "did you mean 'training'?" in result.stderr


def test_help_names_every_command(run):
    result = run("--help")
    assert all(command in result.stdout for command in ("chat", "chips", "isa"))
