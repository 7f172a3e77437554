"""`module.to("chip")` keeps parameters what they are: the same objects, tied weights tied.

torch moves a module to a device of its own in place, but gives one on an out-of-tree device new Parameters, one for
each use of a tied weight. With `swap_module_params_on_conversion` it exchanges the tensors inside the old Parameters
instead, which is what we want, but refuses when something else holds them: an autograd graph of a forward pass on the
host is enough. Then the module gets new Parameters after all, and here they are tied again.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.parameter import is_lazy

_apply, _to_empty = torch.nn.Module._apply, torch.nn.Module.to_empty
_inside = threading.local()


def keep_parameters_when_moving() -> None:
    """Make every `Module.to`, `.float()` and so on behave so, in this process. Idempotent."""
    torch.nn.Module._apply = _apply_in_place_or_tied  # type: ignore[method-assign]
    torch.nn.Module.to_empty = _to_empty_at_once  # type: ignore[method-assign,assignment]


def _apply_in_place_or_tied(self: torch.nn.Module, fn: Callable[..., Any], recurse: bool = True) -> torch.nn.Module:
    if getattr(_inside, "a_module", False):
        return _apply(self, fn, recurse)
    with _set_aside_without_shape(self, fn):
        return _apply_to_shaped(self, fn, recurse)


def _apply_to_shaped(self: torch.nn.Module, fn: Callable[..., Any], recurse: bool) -> torch.nn.Module:
    ties = _ties(self)
    _inside.a_module = True
    try:
        with _exchanging(True):
            return _apply(self, fn, recurse)
    except RuntimeError as error:
        if "Couldn't swap" not in str(error):
            raise
        with _exchanging(False):
            _apply(self, fn, recurse)
    finally:
        _inside.a_module = False
    for (owner, name), *others in ties:
        for module, other_name in others:
            module._parameters[other_name] = owner._parameters[name]
    return self


@contextlib.contextmanager
def _set_aside_without_shape(root: torch.nn.Module, fn: Callable[..., Any]) -> Iterator[None]:
    """Set aside what lazy modules have until their first input; afterwards it is where `fn` moves other tensors."""
    places: list[tuple[dict[str, Any], str, Any]] = [
        (store, name, tensor)
        for module in root.modules()
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if tensor is not None and is_lazy(tensor)
    ]
    for store, name, _ in places:
        store[name] = None
    try:
        yield
    finally:
        for store, name, tensor in places:
            moved = fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device))
            options = {"requires_grad": tensor.requires_grad, "device": moved.device, "dtype": moved.dtype}
            store[name] = type(tensor)(**options)


@functools.wraps(_to_empty)
def _to_empty_at_once(self: torch.nn.Module, *, device: Any, recurse: bool = True) -> torch.nn.Module:
    """torch asks a meta tensor how an empty one like it lies in memory, which imports sympy: 0.7 s to learn that it is
    contiguous."""

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if is_plain and tensor.is_meta and tensor.is_contiguous() and device is not None:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        return torch.empty_like(tensor, device=device)

    return self._apply(empty, recurse=recurse)


@contextlib.contextmanager
def _exchanging(wanted: bool) -> Iterator[None]:
    """Choose whether modules exchange the tensors in their Parameters, only while one moves: `load_state_dict`, which
    asks too, copies into the Parameters, as on every device."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(wanted)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _ties(root: torch.nn.Module) -> list[list[tuple[torch.nn.Module, str]]]:
    """The places of each Parameter that has more than one."""
    places: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, name))
    return [uses for uses in places.values() if len(uses) > 1]
