"""A space file: what it says, and how each mistake in it is told."""

import datetime
import json
import subprocess
import sys

import pytest

from tapeout import chip
from tapeout.exploration import search, simulation, space, workloads
from tapeout.silicon import technology
from tests.exploration.made_up import TEXT


def read(tmp_path, text):
    (tmp_path / "space.toml").write_text(text)
    return space.read(tmp_path / "space.toml")


def test_a_space_is_read(tmp_path):
    found = read(tmp_path, TEXT)
    assert found.size == 4 * 9 * 3 * 5 and found.fields["core.vector.lane_count"] == (32, 64, 128)
    assert found.export.on == datetime.date(2026, 1, 1)
    assert found.clauses == (
        "export: outside 3A090 on 2026-01-01",
        "area_mm2 at most 450",
        "memory holds every workload",
    )
    assert found.chip({"core_count": 24, "hbm.stack_count": 2}, "x").hbm.size_bytes == 48 << 30


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("core_count = [16, 24, 32, 48]", "core_cuont = [1]"), "a chip has no field 'core_cuont'"),
        (("core_count = [16, 24, 32, 48]", "core_count = []"), "fields.core_count has no choice"),
        (("to = 128, times = 2", "to = 128, times = 1"), "fields.core.vector.lane_count never gets from 32 to 128"),
        (("to = 128, times = 2", "to = 128"), "is neither a list nor"),
        (("most = 450", "most = 450, least = 500"), "area_mm2 excludes everything: at least 500 and at most 450"),
        (("area_mm2", "aera"), "unknown constraint 'aera'"),
        (("2026-01-01", "true"), "constraints.export needs on = a date"),
        (('["speed_per_usd", "speed"]', '["fun"]'), "wanted.most names 'fun'"),
        (("[fields]", "[feilds]"), "unknown key 'feilds'"),
        (('base = "inference"', 'base = "infrence"'), "did you mean 'inference'"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, change, sentence):
    with pytest.raises(Exception, match=r"space\.toml: |unknown chip") as caught:
        read(tmp_path, TEXT.replace(*change))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("clause", "sentence"),
    [
        ("power_w = { most = 1 }", "'power_w at most 1' each exclude all"),
        ("memory_gb = { least = 96 }\nmemory_gb_per_s = { most = 3000 }", "exclude each other"),
        ("tpp = { least = 100_000 }", "'tpp at least 100000' each exclude all"),
    ],
)
def test_contradictory_constraints_are_named(tmp_path, monkeypatch, clause, sentence):
    monkeypatch.setattr(search, "DRAWN_FOR_NOTHING", 60)
    asked = read(tmp_path, TEXT.replace("[workloads", f"{clause}\n[workloads", 1))
    with pytest.raises(space.SpaceError, match="nothing is left") as caught:
        search.draw(asked, workloads.chosen(asked, ()), technology.load(), 4, 0)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told", "sentence"),
    [
        ("x", {}, "is not one of a model"),
        ("x", {"model": "llama-3.1-8b", "ranking": "dlrm"}, "is not one of a model"),
        ("x", {"model": "llama-9"}, "unknown model 'llama-9'"),
        ("x", {"model": "llama-3.1-8b", "dtype": "int4_wo"}, "is not simulated here"),
        ("x", {"model": "mixtral-8x7b"}, "has moe of bfloat16, which the simulator is not asked about"),
        ("x", {"script": "nowhere.py"}, "there is no script 'nowhere.py'"),
    ],
)
def test_a_workload_that_cannot_be(name, told, sentence, tmp_path):
    asked = read(tmp_path, TEXT)
    object.__setattr__(asked, "workloads", {name: told})
    with pytest.raises(space.SpaceError) as caught:
        workloads.chosen(asked, [name])
    assert sentence in str(caught.value)


def test_workloads_by_name(tmp_path):
    asked = read(tmp_path, TEXT)
    decode, dlrm, model = workloads.chosen(asked, ["decode", "dlrm", "qwen3-8b"])
    assert decode.memory_bytes > 2e8 and {op.table.kind.name for op in dlrm.operations} >= {"embedding", "gemm"}
    assert any(op.table.kind.name == "generation_attention" for op in model.operations)
    with pytest.raises(space.SpaceError, match="unknown workload 'nobody'"):
        workloads.chosen(asked, ["nobody"])


def test_operators_of_a_script_are_those_the_simulator_times(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "layer = torch.nn.Linear(64, 32, device='cuda', dtype=torch.bfloat16)\n"
        "x = torch.empty(16, 64, device='cuda', dtype=torch.bfloat16)\n"
        "for _ in range(3):\n"
        "    y = torch.softmax(layer(x), -1)\n"
    )
    asked = read(tmp_path, TEXT.replace('"inference"', '"tiny"').replace("[fields]", "[fields]\n"))
    object.__setattr__(asked, "base", chip.load("tiny"))
    (work,) = workloads.chosen(asked, [str(tmp_path / "mine.py")])
    rows = {row[0]: dict(row[2]) for row in simulation.rows_of([work])}
    assert rows["gemm"] == {"m": 16, "n": 32, "k": 64} and rows["softmax"] == {"rows": 16, "columns": 32}
    assert {op.name: op.count for op in work.operations if op.name in ("gemm", "softmax")} == {"gemm": 3, "softmax": 3}
    request = {"chip": chip.load("tiny").to_dict(), "rows": [("gemm", "bfloat16", (("m", 16), ("n", 32), ("k", 64)))]}
    command = [sys.executable, "-m", "tapeout.exploration.simulation"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    assert 1e-6 < json.loads(done.stdout.splitlines()[-1])["seconds"][0] < 1e-3, done.stderr
