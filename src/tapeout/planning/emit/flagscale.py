"""A plan as FlagScale's training configuration: `train.yaml`, with a `hetero` block where kinds or splits differ.

FlagScale's own checks of that block (flagscale/train/arguments.py) hold for what is written: five numbers a mesh, one
context-parallel size, as many device types as meshes, no virtual stages, layers that add up. JSON is YAML: the file is
written as JSON.
"""

import json
from typing import Any

from tapeout.planning.emit import layouts
from tapeout.planning.emit.megatron import recompute_arguments
from tapeout.planning.planner import Planned
from tapeout.training.plan import Pipeline, Plan
from tapeout.training.problems import TrainingError

NAME = "FlagScale"


def files(planned: Planned) -> dict[str, str]:
    """Text of each file by name. Raises TrainingError for a plan that FlagScale cannot express."""
    said = configuration(planned)
    return {"train.yaml": json.dumps(said, indent=2) + "\n"}


def configuration(planned: Planned) -> dict[str, Any]:
    """The `system` and `model` sections; data, tokenizer and optimizer are the user's."""
    model, plan = planned.question.model, planned.best.plan
    pipeline = layouts.only_pipeline(plan, NAME)
    _check(planned, plan, pipeline)
    meshes = pipeline.meshes
    system: dict[str, Any] = {
        "tensor_model_parallel_size": meshes[0].tp,
        "pipeline_model_parallel_size": pipeline.stages,
        "context_parallel_size": meshes[0].cp,
        "expert_model_parallel_size": meshes[0].ep,
        "sequence_parallel": plan.sequence_parallel and max(mesh.tp for mesh in meshes) > 1,
        "use_distributed_optimizer": plan.zero == 1,
        "disable_bias_linear": True,
        "use_flash_attn": plan.fused_attention,
        "precision": {"bf16" if plan.dtype == "bfloat16" else "fp16": True},
    }
    shape: dict[str, Any] = {
        "use_mcore_models": True,
        "transformer_impl": "transformer_engine",
        "num_layers": model.layers,
        "hidden_size": model.hidden,
        "ffn_hidden_size": model.intermediate,
        "num_attention_heads": model.heads,
        "kv_channels": model.head_size,
        "seq_length": plan.sequence,
        "max_position_embeddings": plan.sequence,
        "group_query_attention": model.key_value_heads < model.heads,
        "num_query_groups": model.key_value_heads,
        "swiglu": model.gated,
        "normalization": "RMSNorm" if model.gated else "LayerNorm",
        "position_embedding_type": "rope" if model.gated else "learned_absolute",
        "untie_embeddings_and_output_weights": True,
        "micro_batch_size": pipeline.micro_batch,
        "global_batch_size": plan.batch,
    }
    for argument in recompute_arguments(meshes[0]):
        name, value = argument.removeprefix("--").replace("-", "_").split(" ")
        shape[name] = int(value) if value.isdigit() else value
    if model.experts:
        shape |= {
            "num_experts": model.experts,
            "moe_router_topk": model.experts_per_token,
            "moe_ffn_hidden_size": model.expert_intermediate,
        }
    # Also for one kind: an uneven split of the layers is said in this block alone.
    shape["hetero"] = {
        "enable_hetero": True,
        "hetero_use_cpu_communication": len({mesh.kind for mesh in meshes}) > 1,
        "hetero_process_meshes": [
            size for mesh in meshes for size in (mesh.tp, mesh.cp, mesh.ep, pipeline.replicas, mesh.stages)
        ],
        "hetero_pipeline_layer_split": list(pipeline.layers(model)),
        "hetero_device_types": [mesh.kind for mesh in meshes],
        "hetero_current_device_type": meshes[0].kind,  # on the hosts of another kind: its name
        "standalone_embedding_stage": False,
    }
    return {"system": system, "model": shape}


def _check(planned: Planned, plan: Plan, pipeline: Pipeline) -> None:
    model = planned.question.model
    layouts.check_known(model, NAME)
    if model.latent:
        raise TrainingError(f"--emit flagscale does not write latent attention, which {model.name} has; use megatron")
    if plan.virtual_stages > 1 or plan.schedule != "1f1b":
        raise TrainingError("FlagScale's unlike meshes run 1F1B without virtual stages")
    if plan.dtype not in ("bfloat16", "float16"):
        raise TrainingError(f"--emit flagscale trains in bfloat16 or float16, not in {plan.dtype}")
    if plan.zero > 1:
        raise TrainingError(f"FlagScale splits the optimizer's state, --zero 0 or 1, not {plan.zero}")
    if len({mesh.cp for mesh in pipeline.meshes}) > 1:
        raise TrainingError("FlagScale has one context-parallel size for all meshes; plan with --cp 1")
    expert = {mesh.ep > 1 for mesh in pipeline.meshes}
    if len(expert) > 1:
        raise TrainingError("FlagScale splits experts on all meshes or on none; plan with one --ep")
    if len({mesh.recompute for mesh in pipeline.meshes}) > 1:
        raise TrainingError("FlagScale recomputes alike on all meshes; plan with --recompute full or none")
    if len({mesh.tp for mesh in pipeline.meshes}) > 1 and not plan.sequence_parallel:
        raise TrainingError("FlagScale joins meshes of unlike tp with sequence parallelism alone")
