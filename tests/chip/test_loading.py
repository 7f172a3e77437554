"""Names, files and the active chip."""

import dataclasses
import json

import pytest

import tapeout.chip.loading as loading
from tapeout.chip import REFERENCE_CHIPS, Core, activate, active, inference, load, refuse_activation_while, tiny
from tapeout.chip.writing import commented_toml
from tapeout.errors import ChipError


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(path_or_name: str) -> str:
    with pytest.raises(ChipError) as caught:
        load(path_or_name)
    return str(caught.value)


def test_reference_chips_load_by_name():
    assert load("tiny") is tiny


def test_unknown_name_lists_the_known_and_the_nearest(working_directory):
    assert message_of("inferense") == (
        "unknown chip 'inferense'; did you mean 'inference'? Known: training, inference, tiny, "
        "groq-like, etched-like, tenstorrent-like, wafer-like, stacked-dram, optical, gpu-like, tpu-like. "
        "Your own: a path that ends in .py, .toml or .json"
    )
    assert message_of("h100") == (
        "unknown chip 'h100'. Known: training, inference, tiny, groq-like, etched-like, tenstorrent-like, "
        "wafer-like, stacked-dram, optical, gpu-like, tpu-like. Your own: a path that ends in .py, .toml or .json"
    )
    assert message_of("mine.py") == f"there is no chip file 'mine.py' in {working_directory}"
    (working_directory / "notes.txt").write_text("")
    assert message_of("notes.txt") == "notes.txt is not a chip file; one ends in .py, .toml, .json"


MINE = """
from dataclasses import replace
from tapeout.chip import inference

{name} = replace(inference, name="mine", core_count={core_count})
"""


def test_python_file_may_call_its_only_chip_anything(working_directory):
    (working_directory / "mine.py").write_text(MINE.format(name="silicon", core_count=48))
    assert load("mine.py") == dataclasses.replace(inference, name="mine", core_count=48)


def test_python_file_with_a_mistake_is_refused_at_its_line(working_directory):
    (working_directory / "mine.py").write_text(MINE.format(name="chip", core_count=0))
    assert message_of("mine.py") == "mine.py:5: core_count=0 is too small; the least is 1"
    (working_directory / "mine.py").write_text("\nfrom tapeout.chip import Scratchpad\nScratchpad(size=3)\n")
    assert message_of("mine.py") == (
        "mine.py:3: TypeError: Scratchpad.__init__() got an unexpected keyword argument 'size'"
    )
    (working_directory / "mine.py").write_text("chip = (\n")
    assert message_of("mine.py") == "mine.py:1: SyntaxError: '(' was never closed (mine.py, line 1)"


def test_python_file_with_no_chip_or_two(working_directory):
    (working_directory / "mine.py").write_text("from tapeout.chip import inference\n")
    assert message_of("mine.py") == "mine.py: defines no chip; assign one to the name `chip`"
    two = MINE.format(name="one", core_count=2) + MINE.format(name="two", core_count=3)
    (working_directory / "mine.py").write_text(two)
    assert message_of("mine.py") == "mine.py: defines several chips (one, two); name the one to use `chip`"
    (working_directory / "mine.py").write_text(two + "chip = two\n")
    assert load("mine.py").core_count == 3


BASED_ON = """
based_on = "inference"
name = "wide"
core_count = 40  # was 32

[core.vector]
lane_count = 128
"""


def test_toml_may_build_upon_a_reference_chip(working_directory):
    (working_directory / "wide.toml").write_text(BASED_ON)
    vector = dataclasses.replace(inference.core.vector, lane_count=128)
    core = dataclasses.replace(inference.core, vector=vector)
    assert load("wide.toml") == dataclasses.replace(inference, name="wide", core_count=40, core=core)


def test_json_holds_a_whole_chip(working_directory):
    (working_directory / "copy.json").write_text(json.dumps(tiny.to_dict(), indent=2))
    assert load("copy.json") == tiny


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        (
            "lane_cout = 64",
            "wide.toml:8: core.vector.lane_cout: unknown field 'lane_cout'; did you mean 'lane_count'? "
            "Known: lane_count, float64_rate, special_rate, latency_cycles, left_out",
        ),
        (
            "special_rate = 0.3",
            "wide.toml:8: core.vector.special_rate=0.3 is not a rate; "
            "allowed are 0 and the powers of two from 1/64 to 4",
        ),
        ("[hbm]\nsize_bytes = 1.0", "wide.toml:9: hbm.size_bytes=1.0 is not a whole number; write 1"),
        ("[links]\nlink_count = ", "wide.toml: is not TOML: Invalid value (at line 9, column 14)"),
        (
            "[core.scratchpad]\nsize_bytes = 1000001",
            "wide.toml:9: core.scratchpad.size_bytes=1000001 does not divide into 32 banks; 999424 does",
        ),
        ("[core]\nmatrix = 3", None),
        ("[cores]", None),
    ],
)
def test_toml_mistakes_are_refused_by_key_and_line(working_directory, addition, message):
    (working_directory / "wide.toml").write_text(BASED_ON + addition + "\n")
    if addition == "[core]\nmatrix = 3":
        message = "wide.toml:9: core.matrix=3 is not a table"
    elif addition == "[cores]":
        message = (
            "wide.toml:8: cores: unknown field 'cores'; did you mean 'core'? "
            "Known: name, process_node, clock_hz, core_count, spare_core_count, core, last_level_sram, hbm, links, "
            "host, network, package"
        )
    assert message_of("wide.toml") == message


def test_toml_without_a_base_must_be_complete(working_directory):
    (working_directory / "new.toml").write_text('name = "new"\nprocess_node = "N5"\n')
    assert message_of("new.toml") == (
        "new.toml: 7 faults\n"
        "  new.toml: clock_hz is missing (clock of cores and last-level SRAM)\n"
        "  new.toml: core_count is missing (cores a program can use)\n"
        "  new.toml: core is missing (each core)\n"
        "  new.toml: last_level_sram is missing (shared SRAM)\n"
        "  new.toml: hbm is missing (main memory)\n"
        "  new.toml: links is missing (links to other chips)\n"
        "  new.toml: host is missing (link to the host)"
    )
    (working_directory / "new.toml").write_text('based_on = "trainign"\n')
    assert message_of("new.toml") == (
        "new.toml:1: unknown chip 'trainign'; did you mean 'training'? Known: training, inference, tiny"
    )


def test_all_faults_of_a_file_are_told_at_once(working_directory):
    (working_directory / "new.toml").write_text(
        'based_on = "inference"\nname = "new"\nclock_hz = 1.5\n\n[core.vector]\nlane_cuont = 3\n\n'
        "[core.matrix]\nrow_count = 127\n\n[hbm]\nstack_count = 5\n"
    )
    assert message_of("new.toml") == (
        "new.toml: 4 faults\n"
        "  new.toml:3: clock_hz=1.5 is not a whole number\n"
        "  new.toml:6: core.vector.lane_cuont: unknown field 'lane_cuont'; did you mean 'lane_count'? Known: "
        "lane_count, float64_rate, special_rate, latency_cycles, left_out\n"
        "  new.toml:9: core.matrix.row_count=127 is not a power of two; 64 is\n"
        "  new.toml:11: hbm.size_bytes=103079215104 does not divide into 5 stacks; 103079215100 does"
    )


@pytest.mark.parametrize("name", REFERENCE_CHIPS)
def test_a_commented_file_holds_the_whole_chip(working_directory, name):
    (working_directory / "copy.toml").write_text(commented_toml(REFERENCE_CHIPS[name]))
    assert load("copy.toml") == REFERENCE_CHIPS[name]
    text = (working_directory / "copy.toml").read_text()
    assert max(map(len, text.splitlines())) <= 100 and text.count("#") > 50


def test_json_mistakes_are_refused_by_key_and_line(working_directory):
    data = tiny.to_dict()
    data["core"]["scratchpad"]["bank_cuont"] = data["core"]["scratchpad"].pop("bank_count")
    text = json.dumps(data, indent=2)
    (working_directory / "mine.json").write_text(text)
    line = text[: text.index("bank_cuont")].count("\n") + 1
    assert message_of("mine.json") == (
        f"mine.json:{line}: core.scratchpad.bank_cuont: unknown field 'bank_cuont'; "
        "did you mean 'bank_count'? Known: size_bytes, bank_count, port_width_bytes, latency_cycles"
    )
    (working_directory / "mine.json").write_text('{\n"name": tiny}')
    assert message_of("mine.json") == "mine.json:2: is not JSON: Expecting value"
    (working_directory / "mine.json").write_text("[1]")
    assert message_of("mine.json") == "mine.json: holds no table of chip fields"


def test_data_files_never_run_code(working_directory):
    """Python in a data file's place is refused as data; nothing of it runs."""
    program = "open('ran', 'w').close()\nfrom tapeout.chip import tiny\nchip = tiny\n"
    for name in ("evil.toml", "evil.json"):
        (working_directory / name).write_text(program)
        assert message_of(name).startswith(name)
    tagged = "based_on = \"tiny\"\nname = \"__import__('os').system('touch ran')\"\n"
    (working_directory / "evil.toml").write_text(tagged)
    assert "may hold letters, digits" in message_of("evil.toml")
    assert not (working_directory / "ran").exists()


@pytest.fixture
def nothing_active(monkeypatch):
    monkeypatch.setattr(loading, "_active", None)
    monkeypatch.setattr(loading, "_refusals", [])
    monkeypatch.delenv("TAPEOUT_CHIP", raising=False)


def test_inference_is_active_by_default(nothing_active):
    assert active() is inference


def test_the_environment_chooses(nothing_active, monkeypatch):
    monkeypatch.setenv("TAPEOUT_CHIP", "tiny")
    assert active() is tiny


def test_activation_is_refused_while_the_device_is_in_use(nothing_active):
    used = ["12 MiB of HBM are in use"]
    refuse_activation_while(lambda: used[0] if used else None)
    assert activate("inference") is inference
    with pytest.raises(ChipError) as caught:
        activate(tiny)
    assert str(caught.value) == (
        "cannot activate 'tiny': 12 MiB of HBM are in use. Activate a chip before the first tensor, "
        "or set TAPEOUT_CHIP=tiny"
    )
    assert active() is inference
    assert activate(inference) is inference  # no change, no refusal
    used.clear()
    assert activate(tiny) is tiny


def test_core_is_exported_for_chip_files():
    assert isinstance(tiny.core, Core)


def test_equal_chips_share_a_serial(nothing_active):
    first = (loading.activate("tiny"), loading.active_serial())[1]
    other = (loading.activate("training"), loading.active_serial())[1]
    again = (loading.activate(loading.load("tiny")), loading.active_serial())[1]
    assert first == again != other
