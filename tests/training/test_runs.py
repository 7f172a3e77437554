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
    truth = fitting.era_with(eras()["megatron-2024"], {"host_us": 100.0, "overlap": 0.5, "gemm": 1.4})
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


def test_an_eager_era_fits_vector_operators_and_others_the_overlap():
    assert fitting.numbers_of(eras()["megatron-2021"]).keys() == {"host_us", "gemm", "vector"}
    assert fitting.numbers_of(eras()["megatron-2025"]).keys() == {"host_us", "overlap", "gemm"}
    for era, record in fitted().items():
        assert eras()[era].free == tuple(name for name in ("host_us", "overlap", "gemm", "vector") if name in record)


def test_an_era_like_another_has_its_fitted_numbers():
    before, after = eras()["megatron-2021"], eras()["megatron-2022"]
    assert after.gemm.value == before.gemm.value and after.host.value == before.host.value
    assert after.overlap.value == 0.45 and before.overlap.value == 0.0


def test_a_chip_below_its_power_is_slower_and_has_the_memory_the_table_states(tmp_path):
    header = "model,chip,chips,tp,pp,global_batch_seqs\n"
    rows = table(
        tmp_path / "a.csv",
        header + 'llama-3.1-8b,H100,8,1,1,64\nllama-3.1-8b,"H100-SXM5-96GB-HBM2e(2.4TB/s, 500W cap)",8,1,1,64\n',
    )
    full, capped = (runs.replay(run) for run in rows)
    assert capped.step.seconds > 1.1 * full.step.seconds
    assert capped.step.stages[0][0].capacity_bytes == 96e9
    assert "clock at that power 0.85 of full" in capped.assumed


def test_what_a_note_states_is_taken(tmp_path):
    header = "group,model,chip,chips,tp,pp,global_batch_seqs,metric_note\n"
    rows = table(
        tmp_path / "a.csv",
        header + "torchtitan,llama-3.1-8b,H100,16,2,4,,local batch 8\n"
        "torchtitan,llama-3.1-8b,H100,16,2,4,16,schedule Interleaved 1F1B\n",
    )
    note, interleaved = (runs.replay(run).step.plan for run in rows)
    assert note.batch == 16 and note.pipelines[0].micro_batches == 4
    assert interleaved.schedule == "interleaved" and interleaved.virtual_stages == 2


def test_layers_that_contradict_the_count_of_parameters_are_not_taken(tmp_path):
    header = "model,arch,params_b,layers,hidden,heads,vocab,chip,chips,tp,pp,global_batch_seqs\n"
    (run,) = table(tmp_path / "a.csv", header + "mine,dense-gpt,195,106,13824,64,250680,A100,96,8,12,96\n")
    found = runs.replay(run)
    assert found.step.model.layers == 84
    assert "layers (not 106, which contradict params_b) 84" in found.assumed


def test_a_row_of_two_kinds(tmp_path):
    """Ranks in the order of the kinds: the last stage, or one replica, is on the slower cards."""
    header = (
        "model,layers,hidden,heads,vocab,seq,chip,chips,tp,pp,global_batch_seqs,micro_batch,precision,heterogeneous\n"
    )
    of = "gpt,24,1024,16,51200,1024"
    rows = table(
        tmp_path / "a.csv",
        header + f"{of},12xV100+4xT4,16,4,4,32,1,fp16,1\n{of},12xV100+4xT4,16,4,1,32,1,fp16,1\n"
        f"{of},V100,16,4,4,32,1,fp16,0\n{of},V100+T4,16,4,4,32,1,fp16,1\n",
    )
    stages, replicas, alone, wrong = (runs.replay(run) for run in rows)
    assert [stage.kind for stage in stages.step.stages[0]] == ["V100-SXM2-16GB"] * 3 + ["T4"]
    assert [pipeline.replicas for pipeline in replicas.step.plan.pipelines] == [3, 1]
    assert stages.step.seconds > alone.step.seconds
    assert "kinds are written 12xV100+4xT4" in wrong.reason
