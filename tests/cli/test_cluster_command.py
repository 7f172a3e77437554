"""`tapeout cluster`, `replay`, `goodput` and `traffic` as a user calls them."""

import json

import pytest
from typer.testing import CliRunner

from tapeout.cli import app


def told(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1
    return result.stderr.strip()


def test_clusters_side_by_side_as_data():
    cards = ("--cards", "H100:256", "--cards", "training:256")
    found = json.loads(
        told(
            "cluster",
            "--model",
            "llama-3.1-70b",
            *cards,
            "--tp",
            "8",
            "--pp",
            "4",
            "--batch",
            "256",
            "--format",
            "json",
        )
    )
    assert found["schema"] == "tapeout.cluster/1"
    rows = found["sections"][0]["tables"][0]["rows"]
    assert [row["cards"] for row in rows] == ["256 H100", "256 training"]
    for row in rows:
        assert row["step"]["low"] <= row["step"]["value"] <= row["step"]["high"]
        assert 0 < row["MFU"]["value"] <= row["MACs at work"]["value"] < 1
    parts = found["sections"][1]["tables"][0]["rows"]
    assert sum(part["time"]["value"] for part in parts) == pytest.approx(rows[0]["step"]["value"])


def test_a_timeline_for_perfetto(tmp_path):
    file = tmp_path / "pipeline.json"
    plan = ("--tp", "2", "--pp", "4", "--batch", "32", "--schedule", "zero-bubble", "--timeline", "--trace", str(file))
    text = told("cluster", "--model", "llama-3.1-8b", "--cards", "H100:16", *plan)
    assert text.splitlines()[-4].startswith("  0 F") and "W" in text.splitlines()[-4]
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 4 * 16 * 3
    by_device = {}
    for event in sorted(events, key=lambda each: each["ts"]):
        assert event["ts"] >= by_device.get(event["tid"], 0) - 1e-6
        by_device[event["tid"]] = event["ts"] + event["dur"]


def test_a_model_from_its_configuration(tmp_path):
    sizes = {"hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 4, "vocab_size": 32000}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"intermediate_size": 4096, "num_key_value_heads": 2}))
    assert "4 layers" not in told("cluster", "--model", str(tmp_path), "--cards", "H100:8", "--batch", "8")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 1024}))
    assert "has no num_attention_heads" in refusal("cluster", "--model", str(tmp_path), "--cards", "H100:8")


def test_refusals():
    model = ("cluster", "--model", "llama-3.1-8b")
    assert "64 cards do not divide into replicas of tp 3" in refusal(*model, "--cards", "H100:64", "--tp", "3")
    assert "mixes kinds" in refusal(*model, "--cards", "H100:8,A100:8")
    assert "TPU v5p has no last_level_mb" in refusal(*model, "--cards", "TPU v5p:64")
    assert "no family 'nothing'" in refusal("replay", "nothing")


def test_a_users_table(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("model,chip,chips,tp,pp,step_time_s\nllama-3.1-8b,H100,8,2,1,1.0\nllama-3.1-8b,Nothing,8,2,1,1\n")
    found = json.loads(told("replay", str(file), "--format", "json"))
    first, second = found["sections"][0]["tables"][0]["rows"]
    assert first["error"]["value"] == pytest.approx(first["predicted"]["value"] / 1.0 - 1)
    assert second["predicted"] == "not known" and "Nothing" in found["sections"][0]["text"][0]


def test_goodput_and_traffic():
    assert "one every 3.1 h" in told("goodput", "--runs", "2")
    quiet = json.loads(told("traffic", "H100:512", "64MB", "--format", "json"))
    assert quiet["sections"][0]["tables"][0]["rows"][1]["times longer"]["value"] == 1


def test_clusters_and_collectives_as_data():
    listed = json.loads(told("clusters", "--format", "json"))
    assert listed["schema"] == "tapeout.clusters/1"
    board = next(row for row in listed["sections"][0]["tables"][0]["rows"] if row["cluster"] == "board8")
    assert board["places"]["value"] == 8
    level = json.loads(told("clusters", "board8", "--format", "json"))["sections"][0]["tables"][0]["rows"][0]
    assert level["rate of a chip"]["value"] == 900e9 and level["latency"] == {
        "text": "700 ns",
        "value": 700,
        "unit": "ns",
    }
    found = json.loads(told("collective", "board8", "all_reduce", "64MiB", "--format", "json"))
    rows = {row[""]: row["value"] for row in found["sections"][0]["tables"][0]["rows"]}
    assert rows["rate"]["value"] == pytest.approx((64 << 20) / rows["time"]["value"])
    assert rows["least time of the busiest level"]["value"] <= rows["time"]["value"]
