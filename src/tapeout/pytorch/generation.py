"""Makes `torch.compile(model).generate(...)` run compiled code when the model is on the chip.

A compiled module passes every attribute but `forward` on to the module it wraps, so transformers' `generate`, found
there, calls the model uncompiled. On the chip `generate` gets what it needs to compile instead: a key-value cache of
fixed size, so that all decode steps have the same shapes, and something compiled to call for a decode step. The
prompt still runs operator by operator: its length differs from call to call.

What is compiled is the block that the model repeats, once for all its repetitions, as PyTorch's recipe for regional
compilation has it: the same speed, and seconds of compilation instead of minutes. A model that names no such block
is compiled whole. Kernels round as single operators do, so compiled half precision gives eager's very numbers. Models
on other devices are left alone.
"""

from collections.abc import Callable
from typing import Any

import torch

CACHE_STEP_TOKENS = 256
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_implementation", "compile_config", "use_cache")


class _Generate:
    """The attribute `generate` of a compiled module: there if the wrapped module has it."""

    def __get__(self, compiled: Any, owner: type | None = None) -> Any:
        if compiled is None:
            return self
        model = compiled._orig_mod
        generate = getattr(model, "generate", None)
        if generate is None:
            raise AttributeError(f"{type(model).__name__!r} object has no attribute 'generate'")
        if getattr(getattr(model, "device", None), "type", None) != "chip":
            return generate
        return lambda *args, **kwargs: _generate(compiled, *args, **kwargs)


def install() -> None:
    """Runs when Dynamo has been imported."""
    from torch._dynamo.eval_frame import OptimizedModule

    OptimizedModule.generate = _Generate()  # type: ignore[attr-defined]


def _generate(compiled: Any, *args: Any, **kwargs: Any) -> Any:
    from transformers import CompileConfig

    model = compiled._orig_mod
    chosen_by_caller = any(kwargs.get(name) is not None for name in CACHE_ARGUMENTS)
    if chosen_by_caller or kwargs.get("disable_compile"):
        return model.generate(*args, **kwargs)
    if not hasattr(model, "_compiled_for_chip"):
        # transformers compiles only for the devices it lists, unless a configuration says otherwise.
        options = CompileConfig()
        options._compile_all_devices = True  # type: ignore[assignment]
        model._compiled_for_chip = (options, _decode_step(compiled))
    options, step = model._compiled_for_chip
    model._last_compile_config, model._compiled_call = options, step
    kwargs.update(cache_implementation="static", compile_config=options)
    if (length := _cache_length(model, args, kwargs)) is not None:
        kwargs.setdefault("max_cache_len", length)
    return model.generate(*args, **kwargs)


def _cache_length(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Tokens the cache must hold, rounded up: answers of similar length then share one compilation."""
    prompt = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs"))
    settings = kwargs.get("generation_config") or model.generation_config
    new = kwargs.get("max_new_tokens") or getattr(settings, "max_new_tokens", None)
    if not isinstance(prompt, torch.Tensor) or not new:
        return None
    return -(-(prompt.shape[1] + new) // CACHE_STEP_TOKENS) * CACHE_STEP_TOKENS


def _decode_step(compiled: Any) -> Callable[..., Any]:
    """Return what generate calls for a decode step, compiled with the options torch.compile was given."""
    model = compiled._orig_mod
    compile_: Callable[[Any], Any] = compiled.dynamo_ctx
    blocks = _repeated_blocks(model)
    if not blocks:
        return _rounding_as_eager(compile_(model.__call__))
    shared = {block_type: compile_(block_type.forward) for block_type in {type(block) for _, block in blocks}}
    forwards = [(block, _forward_of(block, index, shared[type(block)])) for index, block in blocks]

    def step(*args: Any, **kwargs: Any) -> Any:
        for block, forward in forwards:
            block.forward = forward
        try:
            return model(*args, **kwargs)
        finally:
            for block, _ in forwards:
                del block.forward

    return _rounding_as_eager(step)


def _rounding_as_eager(step: Callable[..., Any]) -> Callable[..., Any]:
    """Fused kernels round half-precision intermediates where single operators would: the same tokens either way."""

    def rounding(*args: Any, **kwargs: Any) -> Any:
        with torch._inductor.config.patch(emulate_precision_casts=True):
            return step(*args, **kwargs)

    return rounding


def _repeated_blocks(model: torch.nn.Module) -> list[tuple[int, torch.nn.Module]]:
    """The model's repeated blocks, each with its index in the key-value cache."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = []
    for stack in model.modules():
        if not isinstance(stack, torch.nn.ModuleList):
            continue
        for index, block in enumerate(stack):
            told = {part.layer_idx for part in block.modules() if hasattr(part, "layer_idx")}
            if type(block).__name__ in names and told == {index}:
                blocks.append((index, block))
    return blocks if len(blocks) > 1 else []


class _OneLayer:
    """One layer of a key-value cache, in the place of the cache.

    Compiled code that sees the whole cache and an index is valid for that index only; this has no index to see.
    """

    def __init__(self, layer: Any):
        self.layer = layer

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_index: int, *args: Any, **kwargs: Any) -> Any:
        return self.layer.update(keys, values, *args, **kwargs)


def _forward_of(block: torch.nn.Module, index: int, shared: Callable[..., Any]) -> Callable[..., Any]:
    from transformers import Cache

    def forward(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():  # what the argument is called differs between releases and models
            if isinstance(value, Cache) and index < len(value.layers):
                kwargs[name] = _OneLayer(value.layers[index])
        return shared(block, *args, **kwargs)

    return forward
