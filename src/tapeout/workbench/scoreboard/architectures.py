"""Model architectures with random weights at small size, forward and backward, on the chip against the CPU.

Language, vision and speech models are transformers' own classes, the others `networks`. Right means: every output and
every parameter's gradient differs from the CPU's by at most TOLERANCE of its largest element; a gradient whose largest
element is less than NOISE of the largest of all (a key's bias has none but rounding errors) may differ by that much.
"""

from collections.abc import Callable
from typing import Any

import torch

from tapeout.workbench import work
from tapeout.workbench.scoreboard import networks, verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict

TOLERANCE = 2e-3
NOISE = 1e-5
SEED = 7
TOKENS = 128
LENGTH = 24

Built = tuple[torch.nn.Module, dict[str, torch.Tensor]]


def _transformer(kind: str, inputs: Callable[[], dict[str, torch.Tensor]], **sizes: Any) -> Callable[[], Built]:
    """A class of transformers with a configuration of its own, made small. `kind` is "Bert:BertForMaskedLM"."""

    def build() -> Built:
        import transformers

        config_name, _, class_name = kind.partition(":")
        config = getattr(transformers, f"{config_name}Config")(**sizes)
        return getattr(transformers, class_name)(config), inputs()

    return build


def _network(make: Callable[[], torch.nn.Module], **inputs: Callable[[], torch.Tensor]) -> Callable[[], Built]:
    return lambda: (make(), {name: give() for name, give in inputs.items()})


def _tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, TOKENS, (2, LENGTH))
    return {"input_ids": ids, "labels": ids}


def _image(size: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


_DECODER: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER = {key: value for key, value in _DECODER.items() if key != "num_key_value_heads"}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

BUILDERS: dict[str, Callable[[], Built]] = {
    "BERT": _transformer("Bert:BertForMaskedLM", _tokens, **_ENCODER, **_NO_DROPOUT),
    "GPT-2": _transformer(
        "GPT2:GPT2LMHeadModel",
        _tokens,
        vocab_size=TOKENS,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "Llama": _transformer("Llama:LlamaForCausalLM", _tokens, **_DECODER),
    "Qwen2": _transformer("Qwen2:Qwen2ForCausalLM", _tokens, **_DECODER),
    "Qwen3": _transformer("Qwen3:Qwen3ForCausalLM", _tokens, **_DECODER, head_dim=16),
    "Mistral": _transformer("Mistral:MistralForCausalLM", _tokens, **_DECODER, head_dim=16),
    "Mixtral": _transformer(
        "Mixtral:MixtralForCausalLM", _tokens, **_DECODER, num_local_experts=4, num_experts_per_tok=2
    ),
    "Gemma": _transformer("Gemma:GemmaForCausalLM", _tokens, **_DECODER, head_dim=16),
    "Phi": _transformer("Phi:PhiForCausalLM", _tokens, **_DECODER),
    "DeepSeek-V3 (MLA, MoE)": _transformer(
        "DeepseekV3:DeepseekV3ForCausalLM",
        _tokens,
        **{**_DECODER, "num_key_value_heads": 4},
        moe_intermediate_size=32,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        q_lora_rank=32,
        kv_lora_rank=32,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
    ),
    "T5": _transformer(
        "T5:T5ForConditionalGeneration",
        _tokens,
        vocab_size=TOKENS,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    ),
    "ViT": _transformer(
        "ViT:ViTForImageClassification",
        _image(32),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        **_NO_DROPOUT,
    ),
    "CLIP": _transformer(
        "CLIP:CLIPModel",
        lambda: {"input_ids": torch.randint(3, TOKENS, (2, 16)), **_image(32)()},
        text_config=_ENCODER,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=32,
    ),
    "Whisper": _transformer(
        "Whisper:WhisperForConditionalGeneration",
        lambda: {"input_features": torch.randn(2, 16, 40), "labels": torch.randint(3, TOKENS, (2, 12))},
        vocab_size=TOKENS,
        num_mel_bins=16,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=20,
        max_target_positions=32,
        dropout=0.0,
        decoder_start_token_id=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "Mamba": _transformer(
        "Mamba:MambaForCausalLM",
        _tokens,
        vocab_size=TOKENS,
        hidden_size=32,
        state_size=8,
        num_hidden_layers=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "ResNet": _transformer(
        "ResNet:ResNetForImageClassification",
        _image(32),
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
    ),
    "ConvNeXt": _transformer(
        "ConvNext:ConvNextForImageClassification",
        _image(32),
        hidden_sizes=[16, 32],
        depths=[1, 1],
        num_stages=2,
    ),
    "U-Net": _network(
        lambda: networks.UNet(1, 16), images=lambda: torch.randn(2, 1, 16, 16), times=lambda: torch.rand(2)
    ),
    "LSTM": _network(lambda: networks.Lstm(TOKENS, 32), tokens=lambda: torch.randint(TOKENS, (2, 12))),
    "GCN": _network(
        lambda: networks.GraphConvolution(16, 32, 4),
        features=lambda: torch.randn(50, 16),
        edges=lambda: torch.randint(50, (2, 200)),
    ),
    "DLRM": _network(
        lambda: networks.DLRM(13, (100, 50, 200), 16),
        dense=lambda: torch.randn(32, 13),
        categories=lambda: torch.randint(50, (3, 64)),
        offsets=lambda: torch.arange(0, 64, 2).expand(3, 32).contiguous(),
    ),
    "DCN-v2": _network(
        lambda: networks.DeepAndCross((100, 50, 200), 16), categories=lambda: torch.randint(50, (32, 3))
    ),
    "two-tower": _network(
        lambda: networks.TwoTower(100, 200, 32),
        users=lambda: torch.randint(100, (32,)),
        items=lambda: torch.randint(200, (32,)),
    ),
    "SASRec": _network(
        lambda: networks.SequentialRecommender(200, 32, LENGTH), seen=lambda: torch.randint(1, 200, (4, LENGTH))
    ),
    "HSTU": _network(
        lambda: torch.nn.Sequential(
            torch.nn.Embedding(200, 32), networks.GatedSequenceLayer(32), networks.GatedSequenceLayer(32)
        ),
        input=lambda: torch.randint(200, (4, LENGTH)),
    ),
    "DiT": _network(
        lambda: networks.DiffusionTransformer(1, 4, 64, 4),
        images=lambda: torch.randn(2, 1, 16, 16),
        times=lambda: torch.rand(2),
    ),
}
WITHOUT_FALLBACK = (
    *("BERT", "GPT-2", "Llama", "Qwen2", "Qwen3", "Mistral", "Mixtral", "Gemma", "Phi", "DeepSeek-V3 (MLA, MoE)"),
    *("DLRM", "DCN-v2", "two-tower", "SASRec", "HSTU"),
)
"""Language models and recommenders: the chip's own business, where an operator on the host is a fault."""


def cases(modes: tuple[str, ...]) -> list[Case]:
    return [Case(name, "float32", mode) for name in BUILDERS for mode in modes if mode in ("eager", "compiled")]


def judge(case: Case, sample_limit: int) -> Outcome:
    """One forward and backward pass. `sample_limit` has no meaning here: an architecture has one sample."""
    torch.manual_seed(SEED)
    model, inputs = BUILDERS[case.name]()
    model.train()
    expected = _results(model, model, inputs, "cpu")
    model.zero_grad(set_to_none=True)
    before = work.so_far()
    try:
        model.to("chip")
        got = _results(model, torch.compile(model) if case.mode == "compiled" else model, inputs, "chip")
    except Exception as error:
        return verdicts.of_error(case, error)
    on_host = (work.so_far() - before).ops_on_host
    noise = NOISE * max(float(value.abs().max()) for value in expected.values())
    for name, theirs in expected.items():
        ours = got.get(name)
        if ours is None or ours.shape != theirs.shape:
            return Outcome(case, Verdict.WRONG, f"{name} is missing or of another shape", 1)
        apart = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=noise)
        if not apart <= TOLERANCE:
            return Outcome(case, Verdict.WRONG, f"{name} differs by {apart:.1e} of its largest element", 1)
    return verdicts.of_right_result(case, on_host)


def _results(model: Any, run: Any, inputs: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    """Floating outputs and gradients by name, on the CPU, in float32."""
    moved = {name: value.to(device) for name, value in inputs.items()}
    output = run(**moved)
    found = {"output": output} if isinstance(output, torch.Tensor) else dict(output.items())
    found = {k: v for k, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    loss = found["loss"] if "loss" in found else torch.stack([v.float().pow(2).mean() for v in found.values()]).sum()
    loss.backward()
    found |= {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu().float() for name, value in found.items()}
