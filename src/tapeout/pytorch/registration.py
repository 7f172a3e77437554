"""Makes torch know the device type `chip`. Light: nothing is built, neither Triton nor Inductor is imported.

torch itself calls `register` at the end of `import torch` (entry point group `torch.backends`), and `import tapeout`
calls it when torch is there already; whichever comes first, the device is registered once both are imported. Triton,
which imports the package `tapeout` while it looks for back ends, never pulls in torch this way.
"""

import importlib
import os

import torch

from tapeout.pytorch.import_hooks import when_imported

DEVICE_TYPE = "chip"
STARTUP_VARIABLE = "TAPEOUT_STARTUP"
"""Names a module whose `install()` is called when the device is registered."""

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
    from tapeout.pytorch import (
        before_first_use,
        data_parallel,
        device,
        leaving,
        lightning,
        moving_modules,
        printing,
        sharing,
    )

    torch.utils.rename_privateuse1_backend(DEVICE_TYPE)
    torch._register_device_module(DEVICE_TYPE, device)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    moving_modules.keep_parameters_when_moving()
    data_parallel.install()
    printing.lay_out_on_host()
    sharing.send_between_processes()
    sharing.exchange_by_dlpack()
    when_imported("safetensors", sharing.open_safetensors_on_chip)
    when_imported("accelerate.utils.modeling", _offer_memory)
    before_first_use.install()
    leaving.install()
    lightning.install()
    if module := os.environ.get(STARTUP_VARIABLE):
        importlib.import_module(module).install()
    when_imported("torch._dynamo.device_interface", _register_with_dynamo)
    when_imported("torch._dynamo.eval_frame", _help_generate)
    when_imported("torch._inductor.compile_fx", _register_with_inductor)
    when_imported("torch.distributed.distributed_c10d", _register_with_distributed)
    when_imported("torch.nn.parallel.distributed", _register_with_data_parallel)
    when_imported("torch.distributed.tensor", _register_with_tensor)
    when_imported("torch.distributed.tensor.experimental._context_parallel._attention", _register_with_ring_attention)
    when_imported("torch.nn.attention.flex_attention", _join_flex_attention)
    when_imported("torch.nested._internal.ops", _join_jagged_attention)


def _offer_memory() -> None:
    from tapeout.pytorch import device_maps

    device_maps.offer_memory()


def _register_with_dynamo() -> None:
    from tapeout.pytorch import inductor

    inductor.register_interface()


def _help_generate() -> None:
    from tapeout.pytorch import generation

    generation.install()


def _register_with_inductor() -> None:
    from tapeout.pytorch import inductor

    inductor.register_code_generation()


def _register_with_distributed() -> None:
    from tapeout.pytorch.distributed import registration

    registration.register()


def _register_with_tensor() -> None:
    from tapeout.pytorch.distributed import attention

    attention.install()


def _register_with_ring_attention() -> None:
    from tapeout.pytorch.distributed import attention

    attention.install_ring()


def _register_with_data_parallel() -> None:
    from tapeout.pytorch.distributed import registration

    registration.one_chip_a_rank()


def _join_flex_attention() -> None:
    from tapeout.pytorch import attention_variants

    attention_variants.join_flex_attention()


def _join_jagged_attention() -> None:
    from tapeout.pytorch import attention_variants

    attention_variants.join_jagged_attention()
