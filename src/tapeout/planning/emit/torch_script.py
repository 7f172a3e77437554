"""A plan as a script of torch.distributed: `train.py` and the `plan.json` it reads.

Takes a plan; gives two files. Stages, layers of each, batches of each pipeline, tensor parallelism, recomputation and
virtual stages are the plan's. The script holds every weight's optimizer state on each replica, whatever `zero` says.
"""

import json
from importlib import resources
from itertools import accumulate
from typing import Any

from tapeout.planning.emit import layouts
from tapeout.planning.planner import Planned
from tapeout.training.fleet import Cards
from tapeout.training.plan import Pipeline, Plan
from tapeout.training.problems import TrainingError


def files(planned: Planned) -> dict[str, str]:
    """Text of each file by name. Raises TrainingError for a plan that the script cannot follow, with what would do."""
    question, plan = planned.question, planned.best.plan
    model = question.model
    _check(planned, plan)
    kinds = {cards.name: _device(cards) for cards in question.fleet.cards if cards.name in plan.cards}
    said = {
        "model": {
            name: getattr(model, name)
            for name in (
                "name",
                "layers",
                "hidden",
                "heads",
                "key_value_heads",
                "head_size",
                "intermediate",
                "vocabulary",
                "gated",
            )
        },
        "sequence": plan.sequence,
        "dtype": plan.dtype,
        "predicted_step_s": planned.best.seconds,
        "kinds": kinds,
        "pipelines": [_pipeline(planned, each) for each in plan.pipelines],
    }
    script = (resources.files("tapeout.planning.emit") / "train.py").read_text("utf-8")
    return {"train.py": script, "plan.json": json.dumps(said, indent=1) + "\n"}


def _check(planned: Planned, plan: Plan) -> None:
    model = planned.question.model
    if model.experts or model.latent:
        raise TrainingError(f"--emit torch writes dense decoders; {model.name} is none: use --emit megatron")
    if plan.dtype not in ("bfloat16", "float16"):
        raise TrainingError(f"--emit torch trains in bfloat16 or float16, not {plan.dtype}; plan with --dtype bfloat16")
    sizes = {mesh.tp for pipeline in plan.pipelines for mesh in pipeline.meshes}
    if len(sizes) > 1:
        raise TrainingError(
            f"torch's pipelines join stages of one tensor-parallel size, the plan has {sorted(sizes)}; "
            f"plan with --tp {max(sizes)}"
        )
    if any(mesh.cp > 1 for pipeline in plan.pipelines for mesh in pipeline.meshes):
        raise TrainingError("--emit torch does not split sequences; plan with --cp 1")
    if plan.schedule not in ("1f1b", "interleaved"):
        raise TrainingError(f"--emit torch writes 1F1B and its interleaved form, not {plan.schedule}")


def _device(cards: Cards) -> dict[str, str]:
    if cards.chip.design is not None:
        return {"device": "chip", "chip": cards.name}
    stated = cards.chip.software.torch_device
    if stated is None:
        raise TrainingError(
            f"PyTorch's device of {cards.name} is not known; add torch_device to it in a table of your own (--catalog)"
        )
    return {"device": stated.value}


def _pipeline(planned: Planned, pipeline: Pipeline) -> dict[str, Any]:
    chunks = layouts.chunks(planned.question.model, planned.best.plan, pipeline)
    virtual, stages = planned.best.plan.virtual_stages, pipeline.stages
    firsts = [0, *accumulate(chunks)]
    meshes = [mesh for mesh in pipeline.meshes for _ in range(mesh.stages)]
    return {
        "replicas": pipeline.replicas,
        "batch": pipeline.batch,
        "micro_batch": pipeline.micro_batch,
        "stages": [
            {
                "kind": mesh.kind,
                "tp": mesh.tp,
                "recompute": mesh.recompute,
                "layers": [[firsts[place], chunks[place]] for place in range(device, stages * virtual, stages)],
            }
            for device, mesh in enumerate(meshes)
        ],
    }
