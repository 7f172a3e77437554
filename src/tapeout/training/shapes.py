"""Models to train: a public name, a Hugging Face configuration, and how many parameters each part holds.

Takes a name, a dictionary or a JSON file; gives a `ModelShape`, the one that operator models use. Sizes of multi-head
latent attention are those of DeepSeek-V3, which every published model with it shares.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapeout.models.step import MODELS as SERVED_MODELS
from tapeout.models.step import ModelShape
from tapeout.training.problems import TrainingError

QUERY_RANK, KEY_RANK, ROTARY_SIZE = 1536, 512, 64
"""Latent attention: ranks of the query and of the shared key and value, and the part of a head that carries positions
(DeepSeek-V3 technical report, section 4.2)."""
LATENT_VALUE_SIZE = 128


def _gpt(name: str, layers: int, hidden: int, heads: int, vocabulary: int = 51200) -> ModelShape:
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=hidden // heads,
        intermediate=4 * hidden,
        vocabulary=vocabulary,
        gated=False,
        tied=True,
    )


MODELS: dict[str, ModelShape] = SERVED_MODELS | {
    shape.name: shape
    for shape in (
        _gpt("gpt-1.7b", 24, 2304, 24),
        _gpt("gpt-22b", 48, 6144, 64),
        _gpt("gpt-175b", 96, 12288, 96),
        _gpt("gpt-530b", 105, 20480, 128),
        _gpt("gpt-1t", 128, 25600, 160),
        replace(
            SERVED_MODELS["deepseek-v3"],
            name="kimi-k2",
            heads=64,
            key_value_heads=64,
            vocabulary=163840,
            experts=384,
            dense_layers=1,
        ),
        replace(
            SERVED_MODELS["gpt-oss-120b"],
            name="gpt-oss-20b",
            layers=24,
            experts=32,
        ),
    )
}
"""The public models: those that serve, and those that were published for training."""


def model_of(source: str | Path | Mapping[str, Any]) -> ModelShape:
    """A model by public name, by the path of a Hugging Face `config.json` (or its folder), by that dictionary, or by
    `file.py:function` that builds an `nn.Module` (`traced`).

    Raises TrainingError for a name nobody knows and for a configuration without a size that a decoder has.
    """
    if isinstance(source, Mapping):
        return of_config(source)
    name = str(source)
    if name.casefold() in MODELS:
        return MODELS[name.casefold()]
    if ".py:" in name:
        from tapeout.training.traced import model_of_module  # brings PyTorch

        return model_of_module(name)
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix != ".json":
        raise TrainingError(
            f"unknown model {name!r}; give a config.json, file.py:function, or one of {', '.join(MODELS)}"
        )
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{name}: not a readable configuration: {error}") from None
    if not isinstance(read, dict):
        raise TrainingError(f"{name}: a configuration is a JSON object, not {type(read).__name__}")
    return of_config(read, name=path.parent.name or path.stem)


def of_config(config: Mapping[str, Any], name: str = "") -> ModelShape:
    """The shape that a Hugging Face configuration of a decoder states."""

    def size(*names: str, default: int | None = None) -> int:
        for each in names:
            if config.get(each) is not None:
                value = config[each]
                if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                    raise TrainingError(f"configuration {title!r}: {each}={value!r} is not a size")
                return value
        if default is None:
            raise TrainingError(f"configuration {title!r} has no {names[0]}; it is not one of a decoder we know")
        return default

    title = name or str(config.get("_name_or_path") or config.get("model_type") or "model")
    hidden, heads = size("hidden_size", "n_embd", "d_model"), size("num_attention_heads", "n_head", "n_heads")
    layers = size("num_hidden_layers", "n_layer", "n_layers")
    is_latent = config.get("kv_lora_rank") is not None
    if is_latent and (config["kv_lora_rank"], config.get("q_lora_rank")) != (KEY_RANK, QUERY_RANK):
        raise TrainingError(
            f"configuration {title!r}: latent attention of ranks {config.get('q_lora_rank')} and "
            f"{config['kv_lora_rank']} is not modelled; {QUERY_RANK} and {KEY_RANK} are"
        )
    experts = size("num_experts", "n_routed_experts", "num_local_experts", default=0)
    expert_intermediate = size("moe_intermediate_size", default=size("intermediate_size", default=0)) if experts else 0
    activation = str(config.get("hidden_act", config.get("activation_function", "silu")))
    is_gated = activation not in ("gelu", "gelu_new", "relu", "gelu_pytorch_tanh", "gelu_fast")
    dense = size("first_k_dense_replace", default=0) if experts else 0
    return ModelShape(
        name=title,
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=size("num_key_value_heads", default=heads),
        head_size=LATENT_VALUE_SIZE if is_latent else size("head_dim", default=hidden // max(heads, 1)),
        intermediate=size("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        vocabulary=size("vocab_size"),
        experts=experts,
        experts_per_token=size("num_experts_per_tok", "experts_per_token") if experts else 0,
        expert_intermediate=expert_intermediate,
        shared_experts=size("n_shared_experts", default=0) if experts else 0,
        dense_layers=dense,
        window=size("sliding_window", default=0) if config.get("use_sliding_window", True) else 0,
        windowed_share=_windowed_share(config, layers),
        latent=is_latent,
        gated=is_gated,
        tied=bool(config.get("tie_word_embeddings", not is_gated)),
    )


def _windowed_share(config: Mapping[str, Any], layers: int) -> float:
    kinds = config.get("layer_types")
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return 0.0
    return sum(kind == "sliding_attention" for kind in kinds) / layers if kinds else 1.0


def is_sparse(model: ModelShape, layer: int) -> bool:
    """Whether a layer, counted from 0, is a mixture of experts."""
    return bool(model.experts) and layer >= model.dense_layers


def attention_parameters(model: ModelShape) -> float:
    """Parameters of one layer's attention, its norm included."""
    hidden, heads = model.hidden, model.heads
    if model.latent:
        down = hidden * (QUERY_RANK + KEY_RANK + ROTARY_SIZE)
        query_up = QUERY_RANK * heads * (LATENT_VALUE_SIZE + ROTARY_SIZE)
        return down + query_up + KEY_RANK * heads * 2 * LATENT_VALUE_SIZE + heads * LATENT_VALUE_SIZE * hidden + hidden
    return hidden * model.head_size * (2 * heads + 2 * model.key_value_heads) + hidden


def dense_parameters(model: ModelShape, layer: int) -> float:
    """Parameters of the rest of a layer that every rank of an expert group holds: of a dense layer all, of a mixture
    its router, shared experts and norm."""
    matrices = 3 if model.gated else 2
    if not is_sparse(model, layer):
        return matrices * model.hidden * model.intermediate + model.hidden
    shared = 3 * model.hidden * model.expert_intermediate * model.shared_experts
    return shared + model.hidden * model.experts + model.hidden


def expert_parameters(model: ModelShape, layer: int) -> float:
    """Parameters of all routed experts of a layer."""
    return 3.0 * model.experts * model.hidden * model.expert_intermediate if is_sparse(model, layer) else 0.0


def parameter_count(model: ModelShape) -> float:
    """All parameters; embedding and head counted once where they are tied."""
    layers = sum(
        attention_parameters(model) + dense_parameters(model, layer) + expert_parameters(model, layer)
        for layer in range(model.layers)
    )
    return layers + (1.0 if model.tied else 2.0) * model.vocabulary * model.hidden + model.hidden


def flops_of_token(model: ModelShape, sequence: int) -> float:
    """Floating-point operations that a token needs, forwards and backwards, without recomputation: six for each
    parameter it meets but the embedding, and attention over the half of the sequence that a causal mask leaves."""
    met = 0.0
    for layer in range(model.layers):
        met += attention_parameters(model) + dense_parameters(model, layer)
        if is_sparse(model, layer):
            met += expert_parameters(model, layer) * model.experts_per_token / model.experts
    met += model.vocabulary * model.hidden
    return 6 * met + 6 * attended(model, sequence) * model.heads * head_width(model)


def head_width(model: ModelShape) -> float:
    """The mean of a head's widths in the two products of attention."""
    if model.latent:
        return (2 * LATENT_VALUE_SIZE + ROTARY_SIZE) / 2
    return model.head_size


def attended(model: ModelShape, sequence: int) -> float:
    """Tokens that a token attends to, counted once for each of the two products and summed over layers."""
    full = sequence
    windowed = min(2 * model.window, sequence) if model.window else sequence
    share = model.windowed_share if model.window else 0.0
    return model.layers * ((1 - share) * full + share * windowed)
