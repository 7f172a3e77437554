"""Makes torch know the device type `chip`. Light: nothing is built, neither Triton nor Inductor is imported.

torch itself calls `register` at the end of `import torch` (entry point group `torch.backends`), and `import tapeout`
calls it when torch is there already; whichever comes first, the device is registered once both are imported. Triton,
which imports the package `tapeout` while it looks for back ends, never pulls in torch this way.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

DEVICE_TYPE = "chip"

_registered = False


def register() -> None:
    """Name the device, give it `torch.chip`, and wait for Dynamo and Inductor. Idempotent."""
    global _registered
    if _registered:
        return
    taken_by = torch._C._get_privateuse1_backend_name()
    if taken_by not in ("privateuseone", DEVICE_TYPE):
        raise RuntimeError(
            f"torch has room for one out-of-tree device and {taken_by!r} took it, so 'chip' cannot be registered; "
            "use the two packages in separate processes (or environments)"
        )
    _registered = True
    from tapeout.pytorch import device, moving_modules

    torch.utils.rename_privateuse1_backend(DEVICE_TYPE)
    torch._register_device_module(DEVICE_TYPE, device)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    moving_modules.keep_parameters_when_moving()
    when_imported("torch._dynamo.device_interface", _register_with_dynamo)
    when_imported("torch._dynamo.eval_frame", _help_generate)
    when_imported("torch._inductor.compile_fx", _register_with_inductor)


def _register_with_dynamo() -> None:
    from tapeout.pytorch import inductor

    inductor.register_interface()


def _help_generate() -> None:
    from tapeout.pytorch import generation

    generation.install()


def _register_with_inductor() -> None:
    from tapeout.pytorch import inductor

    inductor.register_code_generation()


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call `then` right after the module of that name has been imported: now, if it has been."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        then()
    else:
        sys.meta_path.insert(0, _Waiting(name, then))


class _Waiting(importlib.abc.MetaPathFinder):
    """Finds one module as everybody else would, and acts after it ran."""

    def __init__(self, name: str, then: Callable[[], None]):
        self.name = name
        self.then = then

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run: Callable[[ModuleType], Any] = spec.loader.exec_module

            def run_then_act(module: ModuleType) -> None:
                run(module)
                self.then()

            spec.loader.exec_module = run_then_act  # type: ignore[method-assign]
        return spec
