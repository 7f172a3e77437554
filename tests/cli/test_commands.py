"""The command line: what it prints, and how it refuses."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

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
    assert "  memory bandwidth             7.2 TB/s      4.8 TB/s     51.2 GB/s" in result.stdout


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
        "error: unknown chip 'tiy'; did you mean 'tiny'? Known: training, inference, tiny, "
        "groq-like, etched-like, tenstorrent-like, wafer-like, stacked-dram, optical, gpu-like, tpu-like. "
        "Your own: a path that ends in .py, .toml or .json\n"
    )


def test_chat_refuses_an_unknown_chip_before_loading_anything(run):
    result = run("chat", "--chip", "trainign", "hello")
    assert result.exit_code == 1
    assert "did you mean 'training'?" in result.stderr


def test_help_names_every_command(run):
    result = run("--help")
    assert all(
        command in result.stdout
        for command in ("calibration", "chat", "chips", "compare", "cost", "datasheet", "export-check", "isa")
    )


def test_chips_filters_and_sorts_the_catalog(run):
    result = run("chips", "--where", "memory_gb>=256", "--vendor", "amd", "--sort", "half_tflops")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  MI")]
    assert names == ["MI355X", "MI325X"]
    assert "training" not in result.stdout


def test_chips_shows_a_catalogued_chip_with_confidence_and_source(run):
    result = run("chips", "H20")
    assert any(line.split() == ["die", "area", "814", "mm²", "recalled"] for line in result.stdout.splitlines())
    assert "Epoch AI ML-hardware dataset" in result.stdout


def test_chips_reads_a_table_of_ones_own(run, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("name,vendor,memory_gb,confidence,source\nMine,Me,512,estimate,my own plan\n")
    result = run("chips", "--catalog", str(own), "--where", "memory_gb>500")
    assert "Mine" in result.stdout and "512ᵉ" in result.stdout


def test_export_check_answers_in_its_first_sentence(run):
    result = run("export-check", "H20", "--on", "2024-09-18")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Export check: H20-SXM-96GB under the rules of 2024-09-18"
    said = " ".join(" ".join(lines[1:8]).split())
    assert said.startswith(
        "H20-SXM-96GB on 2024-09-18: outside 3A090. Nearest threshold: total processing performance at least 2400 "
        "(3A090.b.1), at 0.987 of it; 1.01 times the arithmetic would reach it. Not legal advice."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("export-check", "910B"),
            "error: '910B' fits several chips: Ascend 910B1, Ascend 910B2, Ascend 910B3, Ascend 910B4\n",
        ),
        (
            ("export-check", "H100", "--on", "1999-01-01"),
            "error: no rule of 1999-01-01 is known; the oldest known is of 2022-10-21\n",
        ),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_sentence_and_a_failure(run, arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)


def test_commands_about_silicon_start_without_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from tapeout.cli import app\n"
        "for arguments in (['chips', 'H100'], ['export-check', 'inference'], ['--help']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0, arguments\n"
        "assert not {'torch', 'triton'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


GOLDEN = {
    "datasheet": ("datasheet", "inference"),
    "export_check": ("export-check", "inference", "--on", "2026-11-22"),
    "compare": ("compare", "inference", "H100", "H20", "Ascend 910B3", "Kunlun P800"),
    "cost": ("cost", "inference", "--throughput", "2500", "--against", "H20", "--site", "china-west"),
    "study": ("cost", "training", "--study"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_pages_print_as_they_did(run, request, tmp_path, name):
    """As Markdown, which does not depend on the terminal."""
    written = tmp_path / "page.md"
    result = run(*GOLDEN[name], "--format", "markdown", "--output", str(written))
    assert result.exit_code == 0, result.stderr
    golden = Path(__file__).parent / "golden" / f"{name}.md"
    if request.config.getoption("--update-golden"):
        golden.write_text(written.read_text("utf-8"), "utf-8")
    assert written.read_text("utf-8") == golden.read_text("utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_html_pages_need_no_network_and_are_well_formed(run, tmp_path, name):
    written = tmp_path / "page.html"
    assert run(*GOLDEN[name], "--format", "html", "--output", str(written)).exit_code == 0
    text = written.read_text("utf-8")
    document = ElementTree.fromstring(text.removeprefix("<!doctype html>\n").replace('<meta charset="utf-8">', ""))
    tags = {element.tag.rpartition("}")[2] for element in document.iter()}
    assert not tags & {"script", "link", "img", "iframe"}
    assert "src=" not in text and "url(" not in text and "@import" not in text
    if name == "datasheet":
        assert len(document.findall(".//{http://www.w3.org/2000/svg}svg")) >= 3


@pytest.mark.parametrize("name", GOLDEN)
def test_pages_as_data_hold_the_figures_of_the_text(run, name):
    arguments = GOLDEN[name]
    page = json.loads(run(*arguments, "--format", "json").stdout)
    assert re.fullmatch(r"tapeout\.[a-z-]+/1", page["schema"])
    figures = [
        cell
        for section in page["sections"]
        for table in section["tables"]
        for row in table["rows"]
        for cell in row.values()
        if isinstance(cell, dict)
    ]
    assert figures
    for cell in figures:
        shown = float(re.match(r"[-0-9,.]+", cell["text"])[0].replace(",", ""))
        prefix = next((10.0 ** (3 * n) for n, p in enumerate("kMGTP", 1) if f" {p}" in cell["text"]), 1.0)
        scales = (1, prefix, 2**30 / 1e9 * prefix, 1024.0 ** (round(math.log10(prefix)) / 3))
        assert any(shown * scale == pytest.approx(cell["value"], rel=0.006, abs=1e-3) for scale in scales), cell
        if "low" in cell:
            assert cell["low"] <= cell["high"]
    tables = sum(len(section["tables"]) for section in page["sections"])
    written = run(*arguments, "--format", "csv").stdout
    assert len(written.split("\n\n")) == tables
    assert {len(row) for row in csv.reader(io.StringIO(written.split("\n\n")[0]))} != {0}


def test_the_list_of_chips_is_a_table_for_programs(run):
    rows = list(csv.DictReader(io.StringIO(run("chips", "--vendor", "amd", "--format", "csv").stdout)))
    found = next(row for row in rows if row["name"] == "MI300X")
    assert (float(found["memory, GiB"]), float(found["memory bandwidth, GB/s"])) == (192, 5300)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_cell(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(app, ["chips"]).stdout
    assert "…" not in shown and max(map(len, shown.splitlines())) <= columns
    assert re.search(r"A100-SXM4-80GB +NVIDIA +2020 ", shown)
    assert "too narrow for: " in shown and "(--format csv has all)" in " ".join(shown.split())


def test_a_datasheet_says_what_it_cannot_price_and_sums_the_rest(run, tmp_path):
    (tmp_path / "mine.toml").write_text('based_on = "tiny"\nname = "mine"\nprocess_node = "N6"\n')
    result = run("datasheet", str(tmp_path / "mine.toml"), "--format", "markdown")
    assert result.exit_code == 0
    assert "Not known: no figure of wafer_price.N6; add it to a technology file of your own." in result.stdout
    assert "| memory, LPDDR5 | 51.5 USD |" in result.stdout
    assert "| sum of the parts that are known | " in result.stdout


def test_a_new_chip_file_is_sound_until_it_is_spoiled(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine.toml", "--like", "tiny").exit_code == 0
    assert run("datasheet", "mine.toml", "--strict").exit_code == 0
    assert run("new", "mine.toml").stderr == "error: 'mine.toml' exists; name another file or remove it\n"
    assert run("new", "mine.json").stderr == "error: 'mine.json' is not the name of a TOML file; mine.toml is\n"
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace("core_count = 2\n", "core_count = 4_000\n"))
    assert run("datasheet", "mine.toml").exit_code == 0
    assert run("datasheet", "mine.toml", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("datasheet", "inference", "--margin", "1.5"), "margin=1.5 is not a share of the price; 0.55 is 55 %"),
        (
            ("cost", "B200-SXM"),
            "B200-SXM has no price_usd in the catalog; add it in a table of your own",
        ),
        (
            ("cost", "inference", "--throughput", "-3"),
            "a throughput of -3.0 tokens a second is not positive",
        ),
        (("datasheet", "inference", "--technology", "no.toml"), None),
    ],
)
def test_a_page_that_cannot_be_made_is_one_sentence_and_a_failure(run, arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    if message:
        assert result.stderr == f"error: {message}\n"


def test_cost_takes_the_throughput_of_a_simulated_run(run, tmp_path):
    empty = {name: {} for name in ("busy_ps", "counts", "host_operators", "untimed_kernels", "assumptions")}
    times = {"chip": "inference", "total_ps": 2_000_000_000, "timing_only": True, "status": 0} | empty
    (tmp_path / "times.json").write_text(json.dumps(times))
    result = run("cost", "inference", "--run", str(tmp_path / "times.json"), "--items", "5")
    assert result.exit_code == 0, result.stderr
    assert "Cost of a million tokens is bound by 2500 tokens/s a chip while it works." in result.stdout


def test_choices_of_options_are_those_of_the_package():
    """The command line states its choices itself, to start fast; the package decides what they are."""
    from tapeout.cli import cost, fleet, plan, scoreboard
    from tapeout.fleet import manifests
    from tapeout.planning import emit
    from tapeout.silicon import ownership
    from tapeout.workbench.scoreboard import operators

    assert [*plan.Framework] == [*emit.WRITERS]
    assert [*fleet.Scheduler] == [*manifests.WRITERS]
    assert [*cost.Work] == [*ownership.WORK_UNITS]
    assert [*scoreboard.Mode] == ["eager", "compiled", *operators.LAYOUT_MODES]
