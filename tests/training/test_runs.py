"""Published runs and a user's table."""

import pytest

from tapeout.training import TrainingError, fitting, runs
from tapeout.training.software import eras, fitted


def table(path, text):
    path.write_text(text)
    return runs.read(path)


def test_blanks_are_assumed_and_named(tmp_path):
    (run,) = table(
        tmp_path / "mine.csv", "model,chip,chips,tp,pp,global_batch_seqs,step_time_s\nllama-3.1-70b,H100,64,8,2,64,9\n"
    )
    found = runs.replay(run)
    assert found.reason == ""
    assert found.measured_s == 9 and found.step.seconds > 0
    assert set(found.assumed) == {
        "software megatron-2024",
        "seq 4096",
        "micro_batch 1",
        "recompute none",
        "zero 1",
        "precision bfloat16",
    }


def test_a_row_that_is_none_says_why(tmp_path):
    rows = table(
        tmp_path / "mine.csv", "model,chip,chips,tp\nllama-3.1-8b,H100,,1\nllama-3.1-8b,H100,8,3\nx,H100,8,1\n"
    )
    assert [runs.replay(run).reason for run in rows] == [
        "mine.csv:2: chips is blank",
        "mine.csv:3: 8 chips are no multiple of tp 3 x pp 1 x cp 1",
        "mine.csv:4: x has no hidden size and no public name",
    ]


def test_tables_that_are_none(tmp_path):
    with pytest.raises(TrainingError, match="has no column 'chip'"):
        table(tmp_path / "a.csv", "model,chips\nx,8\n")
    with pytest.raises(TrainingError, match="has no rows"):
        table(tmp_path / "b.csv", "")
    with pytest.raises(TrainingError, match="not a readable table"):
        runs.read(tmp_path / "none.csv")


def test_the_record_of_the_fit_is_of_rows_that_may_be_fitted():
    by_name = {f"{run.family}|{run.name}": run for run in runs.bundled()}
    for era, record in fitted().items():
        mine = [by_name[name] for name in record["rows"]]
        assert all(fitting.may_fit(run) for run in mine)
        assert fitting.digest(mine) == record["rows_sha256"]
        assert eras()[era].gemm.value == record["gemm"]


def test_a_fit_finds_the_numbers_that_made_the_rows(tmp_path, monkeypatch):
    """Rows whose times are predictions with other numbers: the fit comes near them."""
    monkeypatch.setattr(fitting, "FIT_BELOW", 1.0)
    monkeypatch.setitem(eras(), "megatron-2024", eras()["megatron-2024"])
    truth = fitting.era_with(eras()["megatron-2024"], (1e-4, 0.5, 1.4))
    text = "model,chip,chips,tp,pp,seq,global_batch_seqs,micro_batch,step_time_s\n"
    rows = [f"llama-3.1-{model},H100,16,{tp},1,4096,32,1" for model in ("8b", "70b") for tp in (1, 8)]
    before = eras()["megatron-2024"]
    eras()["megatron-2024"] = truth
    timed = table(tmp_path / "a.csv", text + "".join(f"{row},1\n" for row in rows))
    seconds = [runs.replay(run).step.seconds for run in timed]
    eras()["megatron-2024"] = before
    made = table(tmp_path / "b.csv", text + "".join(f"{row},{each}\n" for row, each in zip(rows, seconds, strict=True)))
    assert "error = 0.0" in fitting.fit(made)


def test_precision_labels_that_cover_several_rows_are_not_taken(tmp_path):
    header = "group,model,chip,chips,tp,pp,global_batch_seqs,precision\n"
    (run,) = table(tmp_path / "a.csv", header + "mlperf_gpt3,gpt-175b,H100,64,8,8,64,fp8 (NVIDIA); fp4 for some\n")
    assert "precision fp8" in runs.replay(run).assumed
