"""Memory of each stage: weights, gradients, optimizer state, activations in flight, and what the software keeps.

Activations are those that a backward pass needs (Korthikanti et al. 2022, with fused attention where the plan has it).
How many micro-batches of them a stage holds follows from the schedule.
"""

from dataclasses import dataclass

from tapeout.figures import Estimate, Provenance, given, total
from tapeout.models.step import ModelShape
from tapeout.training import shapes
from tapeout.training.layers import Split

RESERVED_BYTES = 3.0 * 2**30
"""Context of the driver, buffers of collectives and workspaces on each card."""
FRAGMENTATION = 0.05
"""Share of activations that the allocator cannot use."""


@dataclass(frozen=True)
class Held:
    """Parameters of a stage that one card holds: those split over tp only, and those of experts."""

    dense: float
    experts: float

    @property
    def count(self) -> float:
        return self.dense + self.experts


def held(model: ModelShape, first: int, count: int, split: Split, *, has_embedding: bool, has_head: bool) -> Held:
    """Parameters of layers `first` to `first + count` on one card."""
    dense = experts = 0.0
    for layer in range(first, first + count):
        dense += (shapes.attention_parameters(model) + shapes.dense_parameters(model, layer)) / split.tp
        experts += shapes.expert_parameters(model, layer) / split.ep
    dense += (has_embedding + has_head) * model.vocabulary * model.hidden / split.tp
    return Held(dense, experts)


def activation_bytes(model: ModelShape, layer: int, split: Split, recompute: str) -> float:
    """What a layer keeps of one micro-batch on one card for its backward pass."""
    tokens, tp, hidden = split.tokens, split.tp, model.hidden
    outer = tokens / (tp if split.sequence_parallel else 1)
    if recompute == "full":
        return 2.0 * outer * hidden
    width = model.heads * model.head_size / tp
    shared = max(model.key_value_heads / tp, 1) * model.head_size
    if model.latent:
        shared = width
    kept = outer * hidden * 2 * 4.0  # inputs of two norms and of the products after them
    if not model.gated:
        kept += outer * hidden * 2.0  # masks of dropout
    kept += tokens * 2 * (2 * width + 2 * shared)  # query, key, value, and what attention gives
    if not split.fused_attention and recompute != "selective":
        kept += 5.0 * split.micro_batch * (model.heads / tp) * split.sequence * split.sequence / split.cp
    if shapes.is_sparse(model, layer):
        pairs = tokens / tp * model.experts_per_token
        kept += pairs * (2.0 * hidden + (3 * 2) * model.expert_intermediate)
        kept += tokens * model.shared_experts * model.expert_intermediate / tp * 6.0
    else:
        kept += tokens * (3 if model.gated else 2) * 2.0 * model.intermediate / tp
    return kept


def of_stage(
    model: ModelShape,
    owned: Held,
    activations: float,
    in_flight: int,
    head_bytes: float,
    *,
    zero: int,
    replicas: int,
    expert_replicas: int,
    gradient_bytes: int = 4,
    stays_gathered: bool = False,
) -> Estimate:
    """Bytes of one card of a stage, with its parts. `activations`: of one micro-batch."""

    def spread(level: int, bytes_each: float) -> float:
        if zero < level:
            return owned.count * bytes_each
        return (owned.dense / replicas + owned.experts / expert_replicas) * bytes_each

    weights = owned.count * 2.0
    if zero == 3 and not stays_gathered:
        weights = spread(3, 4.0) + owned.count * 2 / 16  # master weights too, and a layer or two gathered at a time
    parts = [
        _part("weights", weights),
        _part("gradients", spread(2, float(gradient_bytes))),
        _part("optimizer state", spread(1, 12.0)),
        _part("activations", activations * in_flight * (1 + FRAGMENTATION), 0.9, 1.15),
        _part("loss", head_bytes, 0.7, 1.3),
        _part("reserved", RESERVED_BYTES, 0.5, 1.7),
    ]
    return total("memory of a card", parts)


def _part(name: str, value: float, low: float = 1.0, high: float = 1.0) -> Estimate:
    return given(name, value, "B", Provenance.MODELLED, low=low * value, high=high * value)
