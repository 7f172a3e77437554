"""Tells Dynamo and Inductor about the chip, so that torch.compile writes Triton for it.

Everything torch offers a registration for is registered. What it offers none for is in this file too, each with the
reason, and checked against the torch release it was written for:

- Inductor treats a device as an accelerator if its type is in `torch._inductor.utils.GPU_TYPES`.
- Inductor's launcher looks the device interface up under `type.replace("hip", "cuda")`, which makes "ccuda" of
  "chip"; so the interface is registered under that name as well.
- `has_triton()` knows a closed list of devices. It is true for "cpu" if Triton has a back end of that name, so an
  inert one is registered; Inductor's code for the CPU stays C++.

How graphs for the chip are compiled differs from Inductor's default in three ways, and only for the chip:
kernels keep the dimensions of their tensors (an affine access becomes one rectangular DMA instead of a gather),
kernels are compiled in this process, and one configuration is compiled instead of several that are then timed, unless
max-autotune is asked for: then they are timed in the chip's time.
"""

import logging
from typing import Any

import torch
from torch._dynamo.device_interface import DeviceInterface, register_interface_for_device

from tapeout import chip as chips
from tapeout.pytorch import device as chip_device
from tapeout.pytorch import streams

WRITTEN_FOR_TORCH = "2.13"


class ChipInterface(DeviceInterface):
    """Answers of torch.chip to what Dynamo and Inductor ask of a device."""

    device = chip_device.device
    Event = chip_device.Event
    Stream = chip_device.Stream

    class Worker:
        """Nothing is compiled in worker processes, so these are the same answers."""

        set_device = staticmethod(chip_device.set_device)
        current_device = staticmethod(chip_device.current_device)
        get_device_properties = staticmethod(chip_device.get_device_properties)

    current_device = staticmethod(chip_device.current_device)
    set_device = staticmethod(chip_device.set_device)
    device_count = staticmethod(chip_device.device_count)
    exchange_device = staticmethod(chip_device._exchange_device)
    maybe_exchange_device = staticmethod(chip_device._maybe_exchange_device)
    is_available = staticmethod(chip_device.is_available)
    synchronize = staticmethod(chip_device.synchronize)
    stream = staticmethod(chip_device.stream)
    current_stream = staticmethod(chip_device.current_stream)
    set_stream = staticmethod(chip_device.set_stream)
    memory_allocated = staticmethod(chip_device.memory_allocated)

    get_raw_stream = staticmethod(streams.raw_stream)

    @staticmethod
    def get_compute_capability(device: Any = None) -> str:
        """Return what the driver calls the target: kernels are cached under it."""
        from tapeout.triton_backend.driver import ChipDriver

        with chip_device.device(device):
            return str(ChipDriver().get_current_target().arch)

    @staticmethod
    def is_bf16_supported(including_emulation: bool = False) -> bool:
        return True

    @classmethod
    def is_dtype_supported(cls, dtype: torch.dtype, including_emulation: bool = False) -> bool:
        return dtype != torch.float64 or chips.active().core.vector.float64

    @staticmethod
    def is_triton_capable(device: Any = None) -> bool:
        return True

    @classmethod
    def raise_if_triton_unavailable(cls, device: Any = None) -> None:
        pass


def register_interface() -> None:
    """Runs when Dynamo has been imported."""
    _check_version()
    for name in ("chip", "ccuda", *(f"chip:{index}" for index in range(chip_device.device_count()))):
        register_interface_for_device(name, ChipInterface)
    from triton.backends import Backend, backends
    from triton.backends.compiler import BaseBackend
    from triton.backends.driver import DriverBase

    inert_compiler = type("InertCompiler", (BaseBackend,), {"supports_target": staticmethod(lambda target: False)})
    inert_driver = type("InertDriver", (DriverBase,), {"is_active": classmethod(lambda cls: False)})
    backends.setdefault("cpu", Backend(compiler=inert_compiler, driver=inert_driver))
    _let_dropout_return_its_input()
    _tell_how_convolutions_lie()
    _mend_multilabel_margin_loss()


def _let_dropout_return_its_input() -> None:
    """Dropout that drops nothing returns the very tensor it got, and who writes into the one writes into the other.
    PyTorch's decomposition returns a copy instead, and writes into it are lost."""
    import torch._decomp.decompositions

    dropout = torch.ops.aten.dropout.default
    for key in (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd):
        dropout.py_kernels[key] = _dropout_returning_its_input(dropout.py_kernels[key])
    dropout._dispatch_cache.clear()


def _dropout_returning_its_input(pytorchs: Any) -> Any:
    def dropout(x: torch.Tensor, p: float, train: bool | None) -> torch.Tensor:
        drops_nothing = not train or p == 0
        result: torch.Tensor = x if drops_nothing and x.device.type == "chip" else pytorchs(x, p, train)
        return result

    return dropout


def _mend_multilabel_margin_loss() -> None:
    """PyTorch's decomposition counts the places behind the last label as label 0."""
    from torch._decomp import decomposition_table

    loss = torch.ops.aten.multilabel_margin_loss_forward.default
    pytorchs = loss.py_kernels[torch._C.DispatchKey.Autograd]

    def forward(input: torch.Tensor, target: torch.Tensor, reduction: int) -> Any:
        from tapeout.pytorch.ops.decompositions import multilabel_margin_loss_forward

        function = multilabel_margin_loss_forward if input.device.type == "chip" else pytorchs
        return function(input, target, reduction)

    loss.py_kernels[torch._C.DispatchKey.Autograd] = forward
    loss._dispatch_cache.clear()
    decomposition_table[loss] = forward


def _tell_how_convolutions_lie() -> None:
    """Has PyTorch's fake tensors lay out a convolution's results as the chip does: channels last if the image or the
    filters have them so. PyTorch knows that only of its own devices, and Inductor's code checks it."""
    from torch._subclasses.fake_impls import op_implementations_dict

    aten = torch.ops.aten
    for overload in (aten.convolution.default, aten._convolution.default, aten.convolution_backward.default):
        op_implementations_dict[overload] = _lying_as_on_the_chip(op_implementations_dict[overload])


def _lying_as_on_the_chip(pytorchs: Any) -> Any:
    def fake(mode: Any, overload: Any, *args: Any, **kwargs: Any) -> Any:
        from tapeout.pytorch.ops.convolution import form_of_results

        results = pytorchs(mode, overload, *args, **kwargs)
        is_backward = overload is torch.ops.aten.convolution_backward.default
        given = dict(zip((argument.name for argument in overload._schema.arguments), args, strict=False)) | kwargs
        image, filters = given["input"], given["weight"]
        if image.device.type != "chip":
            return results
        form = form_of_results(image, filters)
        with mode:
            if not is_backward:
                return results.contiguous(memory_format=form)
            of_image, of_filters, of_bias = results
            return (
                None if of_image is None else of_image.contiguous(memory_format=form),
                None if of_filters is None else of_filters.contiguous(memory_format=form),
                of_bias,
            )

    return fake


def register_code_generation() -> None:
    """Runs when Inductor has been imported."""
    from torch._dynamo import trace_rules
    from torch._inductor.codegen.common import register_backend_for_device, register_device_op_overrides
    from torch._inductor.runtime.benchmarking import register_benchmarker
    from torch._inductor.utils import GPU_TYPES

    from tapeout.pytorch import inductor_codegen

    # After a graph break, operators run one by one with Dynamo watching: it would compile their implementations.
    trace_rules.add("tapeout.pytorch.ops")
    GPU_TYPES.append("chip")
    register_device_op_overrides("chip", inductor_codegen.ChipOpOverrides())
    register_backend_for_device(
        "chip",
        inductor_codegen.ChipScheduling,
        inductor_codegen.ChipWrapperCodegen,
        inductor_codegen.NoCppWrapperCodegen,
        device_custom_pass=inductor_codegen.ChipGraphPass(),
    )
    register_benchmarker("chip", _benchmark, override=True)
    inductor_codegen.choose_tiles_of_reductions()
    _mend_gradients_of_average_pools()
    _leave_products_unpadded()
    # Said once a process about devices of fewer than 68 multiprocessors, whatever mode was asked for.
    logging.getLogger("torch._inductor.utils").addFilter(lambda record: "Not enough SMs" not in record.getMessage())


def _mend_gradients_of_average_pools() -> None:
    """Leave those to the operators that Inductor has wrong: it takes windows that `ceil_mode` lets stand over the edge
    for whole ones when it divides, if padding counts."""
    from torch._inductor.lowering import fallback_handler, lowerings

    def mended(inductors: Any, operator: Any) -> Any:
        def lower(
            gradient: Any, x: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, counts_padding: bool,
            divisor: int | None = None,
        ) -> Any:  # fmt: skip
            is_wrong = ceil_mode and counts_padding and divisor is None and x.get_device().type == "chip"
            lowering = operator if is_wrong else inductors
            return lowering(gradient, x, kernel, stride, padding, ceil_mode, counts_padding, divisor)

        return lower

    for overload in (torch.ops.aten.avg_pool2d_backward.default, torch.ops.aten.avg_pool3d_backward.default):
        lowerings[overload] = mended(lowerings[overload], fallback_handler(overload, add_to_fallback_set=False))


def _leave_products_unpadded() -> None:
    """A GPU's tensor cores want dimensions that divide by 4 or 8; the chip's matrix engine takes any, as it is."""
    from torch._inductor.fx_passes import pad_mm

    inductors = pad_mm.check_device

    def are_padded(a: torch.Tensor, b: torch.Tensor) -> bool:
        return "chip" not in (a.device.type, b.device.type) and inductors(a, b)

    pad_mm.check_device = are_padded


def _check_version() -> None:
    if torch.__version__.split(".")[:2] != WRITTEN_FOR_TORCH.split("."):
        import warnings

        warnings.warn(
            f"torch.compile for the chip was written for torch {WRITTEN_FOR_TORCH} and may not work with "
            f"{torch.__version__}",
            stacklevel=2,
        )


def _benchmark(benchmarker: Any, launch: Any, **options: Any) -> float:
    """The chip's milliseconds of one run, for Inductor's choice among candidates."""
    from tapeout.triton_backend.benchmark import do_bench

    return float(do_bench(launch))
