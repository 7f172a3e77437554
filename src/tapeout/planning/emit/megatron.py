"""A plan as arguments of Megatron-LM (also MindSpeed): `megatron.args`, one a line, and a script that passes them.

Stages are unlike by `--pipeline-model-parallel-layout`; all have one tensor-, context- and expert-parallel size.
"""

from tapeout.models.step import ModelShape
from tapeout.planning.emit import layouts
from tapeout.planning.planner import Planned
from tapeout.training.plan import Mesh, Plan
from tapeout.training.problems import TrainingError

NAME = "Megatron"
_PRECISION = {
    "bfloat16": ["--bf16"],
    "float16": ["--fp16"],
    "fp8": ["--bf16", "--fp8-format hybrid"],
    "nvfp4": ["--bf16", "--fp4-format e2m1"],
}


def files(planned: Planned) -> dict[str, str]:
    """Text of each file by name. Raises TrainingError for a plan that Megatron cannot express."""
    arguments = arguments_of(planned.question.model, planned.best.plan)
    script = (
        "#!/bin/sh\n# Data, tokenizer, checkpoints and learning rate are yours to add. MASTER_ADDR, NNODES and\n"
        "# NODE_RANK as for any torchrun.\n"
        'here=$(dirname "$0")\n'
        'torchrun --nnodes "$NNODES" --node-rank "$NODE_RANK" --nproc-per-node "${NPROC:-8}" \\\n'
        '    --master-addr "$MASTER_ADDR" pretrain_gpt.py $(cat "$here/megatron.args") "$@"\n'
    )
    return {"megatron.args": "\n".join(arguments) + "\n", "megatron.sh": script}


def arguments_of(model: ModelShape, plan: Plan) -> list[str]:
    """Arguments of the model, the split and the batch."""
    mesh, pipeline = layouts.only_mesh(plan, NAME), layouts.only_pipeline(plan, NAME)
    layouts.check_known(model, NAME)
    if plan.schedule not in ("1f1b", "interleaved"):
        raise TrainingError(f"Megatron runs 1F1B and its interleaved form, not {plan.schedule}")
    if plan.zero == 2:
        raise TrainingError("Megatron splits the optimizer (--zero 1) or all (--zero 3), not gradients alone")
    found = [
        *_model(model, plan),
        f"--tensor-model-parallel-size {mesh.tp}",
        f"--pipeline-model-parallel-size {pipeline.stages}",
        f"--context-parallel-size {mesh.cp}",
        f"--micro-batch-size {pipeline.micro_batch}",
        f"--global-batch-size {plan.batch}",
        *_PRECISION[plan.dtype],
    ]
    if model.experts:
        found += [f"--expert-model-parallel-size {mesh.ep}", "--expert-tensor-parallel-size 1"]
    if pipeline.stages > 1:
        found.append(f"--pipeline-model-parallel-layout {layout(layouts.chunks(model, plan, pipeline))}")
    if plan.sequence_parallel and mesh.tp > 1:
        found.append("--sequence-parallel")
    if plan.zero == 1:
        found += ["--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather"]
    elif plan.zero == 3:
        found += ["--use-megatron-fsdp", "--data-parallel-sharding-strategy optim_grads_params"]
        found += ["--use-distributed-optimizer", "--no-gradient-accumulation-fusion"]
    return found + recompute_arguments(mesh)


def layout(chunks: list[int]) -> str:
    """Layers of each stage in Megatron's letters: E the embedding, t a layer, L the loss."""
    parts = [f"t*{count}" if count > 1 else "t" * count for count in chunks]
    parts[0] = "E" + (f",{parts[0]}" if "*" in parts[0] else parts[0])
    parts[-1] += ",L" if "*" in parts[-1] else "L"
    return "|".join(parts)


def recompute_arguments(mesh: Mesh) -> list[str]:
    if mesh.recompute == "full":
        return ["--recompute-granularity full", "--recompute-method uniform", "--recompute-num-layers 1"]
    return ["--recompute-granularity selective"] if mesh.recompute == "selective" else []


def _model(model: ModelShape, plan: Plan) -> list[str]:
    found = [
        "--use-mcore-models",
        "--transformer-impl transformer_engine",
        f"--num-layers {model.layers}",
        f"--hidden-size {model.hidden}",
        f"--num-attention-heads {model.heads}",
        f"--ffn-hidden-size {model.intermediate}",
        f"--seq-length {plan.sequence}",
        f"--max-position-embeddings {plan.sequence}",
        f"--vocab-size {model.vocabulary}",
        "--disable-bias-linear",
    ]
    if not model.tied:
        found.append("--untie-embeddings-and-output-weights")
    if model.gated:
        found += ["--swiglu", "--normalization RMSNorm", "--position-embedding-type rope"]
    if plan.fused_attention:
        found.append("--attention-backend fused")
    if model.latent:
        found += ["--multi-latent-attention", "--q-lora-rank 1536", "--kv-lora-rank 512"]
        found += ["--qk-head-dim 128", "--qk-pos-emb-head-dim 64", "--v-head-dim 128"]
    else:
        found.append(f"--kv-channels {model.head_size}")
        if model.key_value_heads < model.heads:
            found += ["--group-query-attention", f"--num-query-groups {model.key_value_heads}"]
    if model.experts:
        found += [
            f"--num-experts {model.experts}",
            f"--moe-router-topk {model.experts_per_token}",
            f"--moe-ffn-hidden-size {model.expert_intermediate}",
            "--moe-grouped-gemm",
            "--moe-token-dispatcher-type alltoall",
        ]
        if model.dense_layers:
            sparse = model.layers - model.dense_layers
            found.append(f"--moe-layer-freq [0]*{model.dense_layers}+[1]*{sparse}")
        if model.shared_experts:
            width = model.shared_experts * model.expert_intermediate
            found.append(f"--moe-shared-expert-intermediate-size {width}")
    return found
