"""Memory of each stage: weights, gradients, optimizer state, activations in flight, and what the software keeps.

Activations are those that a backward pass needs (Korthikanti et al. 2022, with fused attention where the plan has it).
How many micro-batches of them a stage holds follows from the schedule.
"""

from dataclasses import dataclass

from tapeout.figures import Estimate, Provenance, given, total
from tapeout.models.step import ModelShape
from tapeout.training import shapes
from tapeout.training.layers import Split

RESERVED_BYTES = 4.0 * 2**30
"""Context of the driver, buffers of collectives and workspaces on each card."""
FRAGMENTATION = 0.1
"""Share of activations and logits that the allocator cannot use."""


@dataclass(frozen=True)
class Held:
    """Parameters of a stage that one card holds: those split over tp only, and those of experts."""

    dense: float
    experts: float

    @property
    def count(self) -> float:
        return self.dense + self.experts


def held(model: ModelShape, first: int, count: int, split: Split, *, has_embedding: bool, has_head: bool) -> Held:
    """Parameters of layers `first` to `first + count` on one card. A card with both ends of a tied model holds the
    embedding once."""
    dense = experts = 0.0
    for layer in range(first, first + count):
        dense += (shapes.attention_parameters(model) + shapes.dense_parameters(model, layer)) / split.tp
        experts += shapes.expert_parameters(model, layer) / split.ep
    ends = max(has_embedding, has_head) if model.tied else has_embedding + has_head
    dense += ends * model.vocabulary * model.hidden / split.tp
    return Held(dense, experts)


def element_bytes(dtype: str) -> int:
    """Bytes of an activation or a weight as it is computed with."""
    return 4 if dtype == "tfloat32" else 2


def activation_bytes(model: ModelShape, layer: int, split: Split, recompute: str) -> float:
    """What a layer keeps of one micro-batch on one card for its backward pass."""
    tokens, tp, hidden, each = split.tokens, split.tp, model.hidden, element_bytes(split.dtype)
    outer = tokens / (tp if split.sequence_parallel else 1)
    if recompute == "full":
        return each * outer * hidden
    width = model.heads * model.head_size / tp
    shared = max(model.key_value_heads / tp, 1) * model.head_size
    if model.latent:
        shared = width
    if recompute == "products":  # the layer's input, what attention gives, and every second product
        inner = (3 if model.gated else 2) * model.intermediate
        if shapes.is_sparse(model, layer):
            inner = 3 * model.expert_intermediate * (model.experts_per_token + model.shared_experts)
        return each * (outer * 2 * hidden + tokens * (2 * width + 2 * shared + inner / tp) / 2 + tokens * width)
    kept = outer * hidden * each * 4.0  # inputs of two norms and of the products after them
    has_dropout = split.dropout and not model.gated
    if has_dropout:
        kept += outer * hidden * 2.0  # masks
    kept += tokens * each * (2 * width + 2 * shared)  # query, key, value, and what attention gives
    if not split.fused_attention and recompute != "selective":
        scores = 2 * each + 1 if has_dropout else each  # softmax, what dropout makes of it, and the mask
        kept += scores * split.micro_batch * (model.heads / tp) * split.sequence * split.sequence / split.cp
    if shapes.is_sparse(model, layer):
        pairs = tokens / tp * model.experts_per_token
        kept += pairs * each * (hidden + 3.0 * model.expert_intermediate)
        kept += tokens * model.shared_experts * model.expert_intermediate / tp * 3.0 * each
    else:
        kept += tokens * (3 if model.gated else 2) * each * model.intermediate / tp
    return kept


def working_bytes(model: ModelShape, layer: int, split: Split, recompute: str) -> float:
    """What the backward pass of a layer needs besides what was kept: the layer's activations, computed again."""
    more = activation_bytes(model, layer, split, "none") - activation_bytes(model, layer, split, recompute)
    return more * (1 + FRAGMENTATION)


def loss_bytes(model: ModelShape, split: Split, of_word: float) -> float:
    """Logits, their copies and their gradient on a card of the last stage, `of_word` bytes for each word of the
    vocabulary and token."""
    return split.tokens * model.vocabulary / split.tp * of_word * (1 + FRAGMENTATION)


def of_stage(
    owned: Held,
    activations: float,
    in_flight: int,
    *,
    working: float,
    loss: float,
    zero: int,
    replicas: int,
    expert_replicas: int,
    dtype: str = "bfloat16",
    gradient_bytes: int = 4,
    stays_gathered: bool = False,
) -> Estimate:
    """Bytes of one card of a stage, with its parts.

    `activations`: of one micro-batch; `working`, `loss`: as the functions of those names give them. `stays_gathered`:
    weights split over replicas are gathered once in a step, and their gradients reduced at its end, as they are where
    stages hold several micro-batches. In single precision there are no other master weights than the weights.
    """

    def spread(level: int, bytes_each: float) -> float:
        if zero < level:
            return owned.count * bytes_each
        return (owned.dense / replicas + owned.experts / expert_replicas) * bytes_each

    each, state = float(element_bytes(dtype)), 8.0 if dtype == "tfloat32" else 12.0
    gradient_level = 4 if stays_gathered else 2
    weights = owned.count * each
    if zero == 3 and not stays_gathered:
        weights = owned.count * each / 16  # a layer or two gathered at a time; the shards are the master weights
    parts = [
        _part("weights", weights),
        _part("gradients", spread(gradient_level, float(gradient_bytes))),
        _part("optimizer state", spread(1, state)),
        _part("activations", activations * in_flight * (1 + FRAGMENTATION), 0.9, 1.15),
        _part("activations of the layer at work", working, 0.8, 1.5),
        _part("loss", loss, 0.7, 1.3),
        _part("reserved", RESERVED_BYTES, 0.5, 1.7),
    ]
    return total("memory of a card", parts)


def _part(name: str, value: float, low: float = 1.0, high: float = 1.0) -> Estimate:
    return given(name, value, "B", Provenance.MODELLED, low=low * value, high=high * value)
