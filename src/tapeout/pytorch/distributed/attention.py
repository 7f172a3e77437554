"""The chip's attention on DTensors: local where batches or heads are sharded, ring attention for context parallelism.

torch's dispatcher of DTensors knows the attention operators of GPUs by name; these two handlers are the same for the
operator that the chip implements. They are installed when torch.distributed.tensor is imported.
"""

from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard

_FORWARD = torch.ops.aten._scaled_dot_product_fused_attention_overrideable.default
_BACKWARD = torch.ops.aten._scaled_dot_product_fused_attention_overrideable_backward.default
_SEQUENCE = 2


def install() -> None:
    """Let DTensors of the chip be attended to."""
    handlers: dict[Any, Any] = DTensor._op_dispatcher._custom_op_handlers
    handlers.update({_FORWARD: _attend, _BACKWARD: _attend_backward})


def install_ring() -> None:
    """Let context parallelism, which replaces the handlers while it is on, attend in a ring."""
    from torch.distributed.tensor.experimental._context_parallel import _attention

    handlers: dict[Any, Any] = _attention.custom_ops
    handlers.update({_FORWARD: _ring, _BACKWARD: _ring_backward})


def _named(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, with defaults."""
    schema = op._schema.arguments
    given = dict(zip((argument.name for argument in schema), args, strict=False)) | kwargs
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def _local(value: Any) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value


def _like(reference: DTensor, value: Any, placements: Any = None) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return DTensor.from_local(value, reference.device_mesh, placements or reference.placements, run_check=False)


def _placements(query: DTensor) -> tuple[Any, ...]:
    """Placements under which every rank can attend by itself: batches or heads sharded, everything else whole."""
    return tuple(p if isinstance(p, Shard) and p.dim in (0, 1) else Replicate() for p in query.placements)


def _attend(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _named(op, args, kwargs)
    query = given["query"]
    placements = _placements(query)
    for name in ("query", "key", "value"):
        given[name] = given[name].redistribute(query.device_mesh, placements).to_local()
    if isinstance(bias := given["attn_bias"], DTensor):
        whole = all(isinstance(p, Replicate) for p in placements)
        if not whole:
            raise NotImplementedError("attention on DTensors that are sharded takes no attn_bias; replicate them")
        given["attn_bias"] = bias.full_tensor()
    out, log_sum_exp, *rest = op(**given)
    return _like(query, out, placements), _like(query, log_sum_exp, placements), *_replicated(query, rest)


def _attend_backward(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _named(op, args, kwargs)
    out = given["out"]
    for name in ("grad_out", "query", "key", "value", "logsumexp"):
        given[name] = given[name].redistribute(out.device_mesh, out.placements)
    gradients = op(**_with_bias({name: _local(value) for name, value in given.items()}))
    return *(_like(out, gradient) for gradient in gradients[:3]), None


def _ring(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from torch.distributed.tensor.experimental._context_parallel import _attention

    given = _named(op, args, kwargs)
    query = given["query"]
    if given["attn_bias"] is not None:
        raise NotImplementedError("context parallelism takes no attn_bias")
    out, log_sum_exp, *rest = _attention._templated_ring_attention(
        query.device_mesh.get_group(),
        _SEQUENCE,
        op,
        query=query.to_local(),
        key=given["key"].to_local(),
        value=given["value"].to_local(),
        is_causal=given["is_causal"],
        dropout_p=given["dropout_p"],
        scale=given["scale"],
    )
    return _like(query, out), _like(query, log_sum_exp), *_replicated(query, rest)


def _ring_backward(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from torch.distributed.tensor.experimental._context_parallel import _attention

    given = _with_bias({name: _local(value) for name, value in _named(op, args, kwargs).items()})
    out = args[6]
    ring = {name: given.pop(name) for name in ("grad_out", "query", "key", "value", "out", "logsumexp", "is_causal")}
    for length in ("max_q", "max_k"):
        given.pop(length)

    def attend_backward(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **named: Any) -> Any:
        lengths = {"max_q": query.shape[_SEQUENCE], "max_k": key.shape[_SEQUENCE]}
        return op(query=query, key=key, value=value, **named, **lengths)[:3]

    gradients = _attention._templated_ring_attention_backward(
        out.device_mesh.get_group(), _SEQUENCE, attend_backward, ring.pop("grad_out"), "grad_out", **ring, **given
    )
    return *(_like(out, gradient) for gradient in gradients[:3]), None


def _with_bias(given: dict[str, Any]) -> dict[str, Any]:
    """An operand that is not there is an empty one for the backward operator."""
    if given["attn_bias"] is None:
        given["attn_bias"] = given["query"].new_empty(0)
    return given


def _replicated(reference: DTensor, values: Any) -> tuple[Any, ...]:
    return tuple(_like(reference, value, [Replicate()] * reference.device_mesh.ndim) for value in values)
