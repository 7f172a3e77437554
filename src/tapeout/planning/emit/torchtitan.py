"""A plan as a configuration of torchtitan: `planned.py`, a function that sets the plan on a recipe's configuration.

torchtitan is configured in Python; the model comes from its registry, the rest from this file.
`module_fqns_per_model_part` says which layers each stage, or each virtual stage, holds.
"""

import json

from tapeout.planning.emit import layouts
from tapeout.planning.planner import Planned
from tapeout.training.plan import Plan
from tapeout.training.problems import TrainingError

NAME = "torchtitan"


def files(planned: Planned) -> dict[str, str]:
    """Text of each file by name. Raises TrainingError for a plan that torchtitan cannot express."""
    parallelism = parallelism_of(planned)
    plan = planned.best.plan
    lines = [
        f'"""The plan of {planned.question.model.name}, for a recipe of torchtitan:',
        "",
        "    from planned import planned",
        "",
        "    def my_run() -> Trainer.Config:",
        "        return planned(llama3_405b())",
        '"""',
        "",
        "",
        "def planned(config):",
        '    """The recipe\'s configuration with the plan\'s parallelism and batch."""',
        *(f"    config.parallelism.{name} = {_python(value)}" for name, value in parallelism.items()),
        *(f"    config.training.{name} = {value}" for name, value in training_of(plan).items()),
        "    return config",
    ]
    return {"planned.py": "\n".join(lines) + "\n"}


def parallelism_of(planned: Planned) -> dict[str, object]:
    """Fields of torchtitan's ParallelismConfig."""
    model, plan = planned.question.model, planned.best.plan
    mesh, pipeline = layouts.only_mesh(plan, NAME), layouts.only_pipeline(plan, NAME)
    _check(plan)
    shards = plan.zero > 0
    found: dict[str, object] = {
        "data_parallel_replicate_degree": 1 if shards else pipeline.replicas,
        "data_parallel_shard_degree": pipeline.replicas if shards else 1,
        "fsdp_reshard_after_forward": "always" if plan.zero == 3 else "never",
        "tensor_parallel_degree": mesh.tp,
        "enable_sequence_parallel": plan.sequence_parallel,
        "context_parallel_degree": mesh.cp,
        "expert_parallel_degree": mesh.ep,
        "pipeline_parallel_degree": pipeline.stages,
    }
    if pipeline.stages > 1:
        found["pipeline_parallel_schedule"] = "Interleaved1F1B" if plan.virtual_stages > 1 else "1F1B"
        found["num_pp_microbatches"] = pipeline.micro_batches
        found["module_fqns_per_model_part"] = _parts(layouts.chunks(model, plan, pipeline))
    return found


def training_of(plan: Plan) -> dict[str, int]:
    """Fields of torchtitan's TrainingConfig."""
    return {
        "max_context_length": plan.sequence,
        "num_tokens_per_microbatch_per_dp_rank": plan.pipelines[0].micro_batch * plan.sequence,
        "num_tokens_per_train_step": plan.tokens,
    }


def _parts(chunks: list[int]) -> list[list[str]]:
    parts, first = [], 0
    for count in chunks:
        parts.append([f"layers.{number}" for number in range(first, first + count)])
        first += count
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", "lm_head"]
    return parts


def _python(value: object) -> str:
    return json.dumps(value) if isinstance(value, list) else repr(value)


def _check(plan: Plan) -> None:
    if plan.schedule not in ("1f1b", "interleaved"):
        raise TrainingError(f"--emit torchtitan writes 1F1B and its interleaved form, not {plan.schedule}")
