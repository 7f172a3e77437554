"""A folder of runs is read as data: every fault is named, nothing is run, nothing outside is opened."""

import gzip
import json
import os
import time

import pytest

from tapeout import chip
from tapeout.chip.changing import changed, value_of
from tapeout.chip.writing import commented_toml
from tapeout.errors import ChipError
from tapeout.studio import trace
from tapeout.studio.library import Library, chip_of, kernels_of, profile_of
from tapeout.workbench.plain_data import DataError, read_json
from tests.studio.folders import SAMPLES, edited, run_folder


def library(root):
    made = Library(root)
    made.scan()
    return made


def test_samples_stand_in_where_there_is_no_run(tmp_path):
    found = library(tmp_path)
    assert set(found.runs) == {"sample/two-layers-on-tiny", "sample/two-layers-on-inference"}
    for run in found.runs.values():
        assert profile_of(run).run == run.summary.time
        assert kernels_of(run).kernels
        assert chip_of(run) is not None
    run_folder(tmp_path, "mine")
    found.scan()
    assert list(found.runs) == ["mine"]


def test_what_cannot_be_read_is_named_and_skipped(tmp_path):
    run_folder(tmp_path, "good")
    (run_folder(tmp_path, "torn") / "run.json").write_text('{"schema": "tapeout.run/1", ')
    edited(run_folder(tmp_path, "other"), "run.json", lambda data: data.update(schema="tapeout.run/99"))
    edited(run_folder(tmp_path, "wrong"), "run.json", lambda data: data["time"].update(total_ps="soon"))
    (tmp_path / "chip.toml").write_text('based_on = "tiny"\ncore_count = 0\n')
    (tmp_path / "notes.toml").write_text("[fleet]\nsite = 1\n")
    found = library(tmp_path)
    assert list(found.runs) == ["good"]
    reasons = {fault.key: fault.reason for fault in found.faults}
    assert reasons["torn/run.json"].startswith("run.json: is not JSON: ")
    assert reasons["other/run.json"] == "run.json: is not tapeout.run/1; make the run again"
    assert reasons["wrong/run.json"] == "run.json.time.total_ps is not a whole number"
    assert "core_count=0 is too small" in reasons["chip.toml"] and set(reasons) == {
        "torn/run.json", "other/run.json", "wrong/run.json", "chip.toml"
    }  # fmt: skip


def test_programs_are_not_run_and_links_not_followed(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "chip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    run_folder(outside, "secret")
    os.symlink(outside / "secret", inside / "link")
    kept = run_folder(inside, "kept")
    os.remove(kept / "profile.json")
    os.symlink(outside / "secret" / "profile.json", kept / "profile.json")
    found = library(inside)
    assert list(found.runs) == ["kept"] and not (tmp_path / "ran").exists() and not found.chips
    with pytest.raises(DataError, match=r"there is no profile\.json in kept"):
        profile_of(found.runs["kept"])


def test_chip_files_are_found(tmp_path):
    (tmp_path / "mine.toml").write_text(commented_toml(chip.load("tiny")))
    (tmp_path / "other.json").write_text(json.dumps(chip.load("training").to_dict()))
    assert {name: made.name for name, made in library(tmp_path).chips.items()} == {
        "mine.toml": "tiny",
        "other.json": "training",
    }


def test_two_hundred_runs_are_listed_at_once(tmp_path):
    for number in range(200):
        run_folder(tmp_path, f"run{number}")
    start = time.process_time()
    found = library(tmp_path)
    assert len(found.runs) == 200
    assert time.process_time() - start < 1
    start = time.process_time()
    found.scan()
    assert time.process_time() - start < 0.3


def test_a_compressed_file_has_a_limit(tmp_path):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (3 << 20)))
    with pytest.raises(DataError, match=r"bomb\.json\.gz: holds more than 2 MiB"):
        read_json(path, 2 << 20)
    path.write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"bomb\.json\.gz: cannot be read"):
        read_json(path)


def test_a_trace_becomes_columns():
    found = trace.columns(SAMPLES / "two-layers-on-tiny" / "trace.json.gz")
    names = [f"{track.process}: {track.name}" for track in found.tracks]
    assert names[0] == "chip: cores" and "core 0: vector" in names and "chip: host launches" in names
    for track in found.tracks:
        assert track.starts == sorted(track.starts)
        assert len(track.starts) == len(track.lengths) == len(track.names) == len(track.events)
    assert found.arrows and all(begin <= end for _, begin, _, end in found.arrows)
    assert any(name.endswith("queue: load") for name in found.counters)
    first = next(track for track in found.tracks if track.name == "vector")
    assert any("instruction" in found.details(event) for event in first.events)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"traceEvents": 3}', "is not a trace"),
        ('{"traceEvents": [3]}', "event 0 is not an object"),
        ('{"traceEvents": [{"ph": "X", "ts": "now"}]}', "event 0 has no time"),
        ('{"traceEvents": [{"ph": "X", "ts": NaN}]}', "event 0 has no time"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path, text, reason):
    (tmp_path / "trace.json").write_text(text)
    with pytest.raises(DataError, match=reason):
        trace.columns(tmp_path / "trace.json")


def test_a_stack_brings_its_bandwidth():
    base = chip.load("inference")
    made = changed(base, {"hbm.stack_count": 6, "core.matrix.row_count": 32})
    assert made.hbm.bandwidth_bytes_per_s == base.hbm.bandwidth_bytes_per_s * 6 // 4
    assert made.hbm.size_bytes == base.hbm.size_bytes * 6 // 4 and value_of(made, "core.matrix.row_count") == 32
    kept = changed(base, {"hbm.stack_count": 6, "hbm.bandwidth_bytes_per_s": 10**12})
    assert kept.hbm.bandwidth_bytes_per_s == 10**12
    for place in ("core.cache", "core", "core_count.x"):
        with pytest.raises(ChipError):
            changed(base, {place: 1})
