"""Plans written for frameworks keep their rules; the script of torch.distributed trains as one process does."""

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tapeout.models.step import ModelShape
from tapeout.planning import Question, emit, plan
from tapeout.planning.emit import megatron, torch_script, torchtitan
from tapeout.training import Mesh, Pipeline, TrainingError, fleet_of, model_of, predict

MODEL = ModelShape(
    name="five",
    layers=5,
    hidden=32,
    heads=4,
    key_value_heads=2,
    head_size=8,
    intermediate=64,
    vocabulary=96,
)


@pytest.fixture(scope="module")
def planned():
    """An answer whose plan the tests replace."""
    fleet = fleet_of("training:1,inference:1,H100:1")
    return plan(Question(model=MODEL, fleet=fleet, batch=8, sequence=16, one_pipeline=True))


def with_plan(planned, *pipelines, **more):
    chosen = replace(planned.question.base, pipelines=pipelines, **more)
    step = predict(MODEL, planned.question.fleet, chosen)
    return replace(planned, step=step, plans=(replace(planned.best, plan=chosen, seconds=step.seconds),))


@pytest.fixture(scope="module")
def uneven(planned):
    """Three kinds: a pipeline of two of them with layers 3 and 2 and six sequences, the third alone with two."""
    pair = Pipeline(meshes=(Mesh(kind="training", layers=(3,)), Mesh(kind="H100", layers=(2,))), batch=6, micro_batch=2)
    alone = Pipeline(meshes=(Mesh(kind="inference", layers=(5,), recompute="full"),), batch=2)
    return with_plan(planned, pair, alone)


@pytest.fixture(scope="module")
def chain(planned):
    meshes = (
        Mesh(kind="H100", layers=(1,)),
        Mesh(kind="inference", layers=(1,)),
        Mesh(kind="training", layers=(3,)),
    )
    return with_plan(planned, Pipeline(meshes=meshes, batch=8, micro_batch=2))


def losses(printed):
    return [float(loss) for loss in re.findall(r"step \d+: loss ([\d.]+)", printed)]


def test_the_script_of_an_uneven_plan_trains_as_one_process_does(uneven, tmp_path, capsys, monkeypatch):
    place, paths = emit.write("torch", uneven, tmp_path)
    assert place == 0 and {path.name for path in paths} == {"train.py", "plan.json"}
    said = json.loads((tmp_path / "plan.json").read_text())
    assert [[stage["layers"] for stage in each["stages"]] for each in said["pipelines"]] == [
        [[[0, 3]], [[3, 2]]],
        [[[0, 5]]],
    ]
    options = ["--dtype", "float32", "--steps", "2"]
    variables = {name: value for name, value in os.environ.items() if name not in ("RANK", "TAPEOUT_CHIP")}
    variables["OMP_NUM_THREADS"] = "1"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    ranks = subprocess.run(
        [sys.executable, *launcher, "train.py", *options, "--on", "H100=cpu"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ranks.returncode == 0, ranks.stdout + ranks.stderr
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    monkeypatch.delenv("RANK", raising=False)
    runpy.run_path(str(tmp_path / "train.py"), run_name="__main__")
    alone = losses(capsys.readouterr().out)
    assert losses(ranks.stdout) == pytest.approx(alone, abs=2e-5)
    assert len(alone) == 2
    # Simulated times of both chips, and the plan's own beside them.
    for words in ("0 of pipeline 0 on training", "0 of pipeline 1 on inference"):
        assert re.search(rf"step 1: stage {words} took \d+\.\d+ ms", ranks.stdout), ranks.stdout
    assert f"the plan predicts {uneven.best.seconds * 1e3:.3f} ms a step" in ranks.stdout


def check_flagscale(said):
    """The rules of FlagScale's flagscale/train/arguments.py."""
    model, system = said["model"], said["system"]
    hetero = model["hetero"]
    meshes = hetero["hetero_process_meshes"]
    assert len(meshes) % 5 == 0
    tp, cp, ep, dp, pp = (meshes[place::5] for place in range(5))
    assert all(dp[0] * model["micro_batch_size"] % each == 0 for each in dp)
    assert len(set(cp)) == 1
    assert set(ep) == {1} or 1 not in ep
    assert system["pipeline_model_parallel_size"] == sum(pp) == len(hetero["hetero_pipeline_layer_split"])
    assert sum(hetero["hetero_pipeline_layer_split"]) == model["num_layers"]
    assert len(hetero["hetero_device_types"]) == len(tp)
    assert hetero["hetero_current_device_type"] in hetero["hetero_device_types"]
    assert hetero["standalone_embedding_stage"] is False
    assert len(set(tp)) == 1 or system["sequence_parallel"]
    assert "num_layers_per_virtual_pipeline_stage" not in model


def test_flagscale_gets_meshes_that_keep_its_rules(chain):
    (text,) = emit.WRITERS["flagscale"](chain).values()
    said = json.loads(text)
    check_flagscale(said)
    assert said["model"]["hetero"]["hetero_process_meshes"] == [1, 1, 1, 1, 1] * 3
    assert said["model"]["hetero"]["hetero_pipeline_layer_split"] == [1, 1, 3]
    assert said["model"]["hetero"]["hetero_device_types"] == ["H100", "inference", "training"]


def layers_of_layout(text):
    """Layers of each stage of a Megatron layout, read as Megatron reads it: letters, and x*n for n times."""
    stages = []
    for stage in text.split("|"):
        letters = re.sub(r"(\w)\*(\d+)", lambda each: each[1] * int(each[2]), stage.replace(",", ""))
        stages.append(letters)
    assert stages[0].startswith("E") and stages[-1].endswith("L")
    assert "".join(stages).strip("EL") == "t" * sum(stage.count("t") for stage in stages)
    return [stage.count("t") for stage in stages]


@pytest.mark.parametrize("chunks", [[3, 2], [1, 1, 3], [7, 7, 6], [1], [1, 12]])
def test_megatron_reads_the_layers_from_its_layout(chunks):
    assert layers_of_layout(megatron.layout(chunks)) == chunks


def test_megatron_gets_arguments_of_the_plan(planned):
    mesh = Mesh(kind="H100", stages=2, tp=2, layers=(3, 2), recompute="full")
    fleet = fleet_of("H100:8")
    question = replace(planned.question, fleet=fleet)
    pipeline = Pipeline(meshes=(mesh,), replicas=2, batch=8, micro_batch=1)
    found = with_plan(replace(planned, question=question), pipeline)
    texts = emit.WRITERS["megatron"](found)
    said = dict([*line.split(" ", 1), ""][:2] for line in texts["megatron.args"].splitlines())
    assert said["--tensor-model-parallel-size"] == "2"
    assert said["--pipeline-model-parallel-size"] == "2"
    assert layers_of_layout(said["--pipeline-model-parallel-layout"]) == [3, 2]
    assert said["--global-batch-size"] == "8" and said["--micro-batch-size"] == "1"
    assert {"--sequence-parallel", "--use-distributed-optimizer", "--bf16", "--swiglu"} <= said.keys()
    assert said["--recompute-granularity"] == "full"
    # 8 cards = tp x pp x dp, and the batch divides over dp and micro-batches, as Megatron's validate_args asks.
    assert 8 % (2 * 2) == 0 and 8 % (1 * 2) == 0
    assert "torchrun" in texts["megatron.sh"]


def test_torchtitan_gets_every_module_once(chain):
    (text,) = torchtitan.files(chain).values()
    names: dict[str, object] = {}
    exec(text, names)
    config = SimpleNamespace(parallelism=SimpleNamespace(), training=SimpleNamespace())
    assert names["planned"](config) is config  # type: ignore[operator]
    parts = config.parallelism.module_fqns_per_model_part
    assert [name for part in parts for name in part] == [
        "tok_embeddings",
        *(f"layers.{number}" for number in range(5)),
        "norm",
        "lm_head",
    ]
    assert list(map(len, parts)) == [2, 1, 5]
    assert config.parallelism.num_pp_microbatches == 4
    assert config.training.num_tokens_per_train_step == 8 * 16
    assert vars(config.parallelism).keys() <= {
        "data_parallel_replicate_degree",
        "data_parallel_shard_degree",
        "fsdp_reshard_after_forward",
        "tensor_parallel_degree",
        "enable_sequence_parallel",
        "context_parallel_degree",
        "expert_parallel_degree",
        "pipeline_parallel_degree",
        "pipeline_parallel_schedule",
        "num_pp_microbatches",
        "module_fqns_per_model_part",
    }


def test_virtual_stages_go_round_the_stages(chain):
    mesh = Mesh(kind="training", stages=1, layers=(5,))
    question = replace(chain.question, fleet=fleet_of("training:2"))
    pipeline = Pipeline(meshes=(replace(mesh, stages=2, layers=(3, 2)),), batch=8, micro_batch=2)
    found = with_plan(replace(chain, question=question), pipeline, schedule="interleaved", virtual_stages=2)
    said = json.loads(torch_script.files(found)["plan.json"])
    assert [stage["layers"] for stage in said["pipelines"][0]["stages"]] == [[[0, 2], [3, 1]], [[2, 1], [4, 1]]]


@pytest.mark.parametrize("framework", ["flagscale", "megatron", "torchtitan"])
def test_a_framework_that_cannot_is_told_what_would_do(uneven, framework):
    with pytest.raises(TrainingError, match="plan with --one-pipeline"):
        emit.files(framework, uneven)


def test_the_best_plan_that_can_be_expressed_is_written(uneven, chain):
    both = replace(uneven, plans=uneven.plans + chain.plans)
    place, _ = emit.files("flagscale", both)
    assert place == 1


def test_a_mixture_of_experts_goes_to_megatron_with_its_sizes():
    model = model_of("qwen3-30b-a3b")
    found = plan(Question(model=model, fleet=fleet_of("H100:64"), batch=64, sequence=4096, micro_batch=(1,)))
    said = (emit.files("megatron", found)[1])["megatron.args"].splitlines()
    assert "--num-experts 128" in said and "--moe-router-topk 8" in said
    (mesh,) = {each for each in found.best.plan.pipelines[0].meshes}
    assert f"--expert-model-parallel-size {mesh.ep}" in said
    with pytest.raises(TrainingError, match="writes dense decoders"):
        emit.files("torch", found)
