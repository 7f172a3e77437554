"""Driver half of the back end: the device as Triton sees it, and how a compiled kernel is loaded and launched."""

import functools
from collections.abc import Callable
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from tapeout import chip
from tapeout.errors import LaunchError
from tapeout.isa import Program
from tapeout.isa.printing import BUFFER_BYTES, read_lines
from tapeout.numerics.dtypes import DType, exact_bits
from tapeout.runtime import session

BACKEND = "chip"
MAX_THREADS = 1 << 30
_FLOAT_BITS: dict[str, Callable[[float], int]] = {
    **{dtype.triton_name: functools.partial(exact_bits, dtype=dtype) for dtype in (DType.F64, DType.F32, DType.F16)},
    DType.BF16.triton_name: lambda value: exact_bits(_round_to_bf16(value), DType.BF16),
}


def _round_to_bf16(value: float) -> float:
    import torch

    return float(torch.tensor(value, dtype=torch.bfloat16))


class _Utilities:
    """Functions that Triton asks of a driver beyond launching."""

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Any, int, int, int]:
        from tapeout import runtime

        kernel = runtime.load(Program.decode(binary), chip.active())
        return kernel, kernel, 0, 0, MAX_THREADS

    def unload_module(self, module: Any) -> None:
        """Nothing to do: a kernel is freed with its last reference."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        active = chip.of_process()[device]
        return {
            "max_shared_mem": active.core.scratchpad.size_bytes,
            "max_num_regs": 0,
            "multiprocessor_count": active.core_count,
            "warpSize": 1,
            "sm_clock_rate": active.clock_hz // 1000,
            "mem_clock_rate": active.clock_hz // 1000,
            "mem_bus_width": 8 * active.global_memory.bandwidth_bytes_per_s // active.clock_hz,
        }


class Launcher:
    """Calls a loaded kernel with the arguments of one Triton signature."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.names = list(source.signature)
        self.types = list(source.signature.values())
        constants = {path[0] for path in source.constants if len(path) == 1} if hasattr(source, "constants") else set()
        self.converters = [
            None if type == "constexpr" or position in constants else _converter(type)
            for position, type in enumerate(self.types)
        ]
        parameters = source.fn.params if hasattr(source, "fn") else []
        # Programs that launch a compiled kernel themselves may leave out the constants, unlike Triton itself.
        self.converters_without_constants = [
            converter
            for converter, parameter in zip(self.converters, parameters, strict=False)
            if not parameter.is_constexpr
        ]

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: Any,
        kernel: Any,
        packed: Any,
        launch_metadata: Any,
        enter: Any,
        leave: Any,
        *args: Any,
    ) -> None:
        words: list[int] = []
        converters = self.converters
        if len(args) != len(converters):
            converters = self.converters_without_constants
            if len(args) != len(converters):
                raise LaunchError(
                    f"{kernel.program.name}: {len(args)} arguments; it takes {len(self.converters)}, "
                    f"or {len(converters)} without its constants: {', '.join(self.names)}"
                )
        for convert, argument in zip(converters, args, strict=True):
            if convert is not None:
                word = convert(argument)
                words += word if word.__class__ is list else (word,)
        if enter is not None:
            enter(launch_metadata)
        if x > 0 and y > 0 and z > 0:
            try:
                if kernel.program.prints:
                    _launch_and_print(kernel, (x, y, z), words)
                else:
                    kernel.launch((x, y, z), words)
            except LaunchError:
                self.blame_host_tensors(kernel.program.name, args)
                raise
        if leave is not None:
            leave(launch_metadata)

    def blame_host_tensors(self, kernel_name: str, arguments: tuple[Any, ...]) -> None:
        """Raises a better error than "foreign pointer" if an argument is a tensor of another device."""
        for name, argument in zip(self.names, arguments, strict=False):
            device = getattr(argument, "device", None)
            if device is not None and getattr(device, "type", BACKEND) != BACKEND:
                raise LaunchError(
                    f"{kernel_name}: argument {name!r} is a tensor on {device}; "
                    f"kernels run on tensors in the chip's memory: move it with {name}.to('chip')"
                ) from None


def _launch_and_print(kernel: Any, grid: tuple[int, int, int], words: list[int]) -> None:
    """A launch of a kernel that prints, and what it printed: nothing in timing alone."""
    import torch

    if session.timing_only:
        kernel.launch(grid, [*words, torch.empty(BUFFER_BYTES, dtype=torch.uint8, device=BACKEND).data_ptr()])
        return
    buffer = torch.zeros(BUFFER_BYTES, dtype=torch.uint8).to(BACKEND)
    try:
        kernel.launch(grid, [*words, buffer.data_ptr()])
    finally:
        for line in read_lines(buffer.cpu().numpy().tobytes(), kernel.program.prints):
            print(line)


def _address(argument: Any) -> int:
    """A tensor's address (None: 0); anything with data_ptr, or an integer address."""
    if argument is None:
        return 0
    return argument if argument.__class__ is int else argument.data_ptr()


def _converter(type: Any) -> Callable[[Any], Any]:
    """Return how an argument of a Triton type becomes raw 64-bit words."""
    if isinstance(type, tuple):
        inner = [None if part == "constexpr" else _converter(part) for part in type]
        return lambda values: [word for f, value in zip(inner, values, strict=True) if f for word in _flat(f(value))]
    if type.startswith("*"):
        return _address
    if type in _FLOAT_BITS:
        return _FLOAT_BITS[type]
    if type.startswith("tensordesc"):
        return _descriptor
    if type in ("u1", "i1"):
        return int
    if type in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"):
        bits = int(type[1:])
        if type[0] == "u":
            return lambda value: _signed(int(value), bits)
        return int
    raise LaunchError(f"arguments of type {type} cannot be passed to a kernel on the chip")


def _signed(value: int, bits: int) -> int:
    """Registers hold narrow integers sign-extended, whatever their signedness."""
    return value - (1 << bits) if value >> (bits - 1) else value


def _flat(word: Any) -> list[int]:
    return word if isinstance(word, list) else [word]


def _descriptor(descriptor: Any) -> list[int]:
    """A tensor descriptor as the kernel takes it: what Triton's lowering made of it (address, shape, strides, padding,
    rounding), then the shape and strides again, as the front end passes them."""
    place = [*descriptor.shape, *descriptor.strides]
    words = [descriptor.base.data_ptr(), *place, int(getattr(descriptor, "padding", "zero") == "nan")]
    if hasattr(descriptor, "round_f32_to_tf32"):
        words.append(int(descriptor.round_f32_to_tf32))
    return words + place


def is_chip_active() -> bool:
    """Return whether Triton's active driver is the chip's."""
    from triton.runtime import driver

    return isinstance(driver.active, ChipDriver)


class ChipDriver(DriverBase):
    """Made active by the first use of the device; Triton's default where no other driver is active."""

    launcher_cls = Launcher

    def __init__(self) -> None:
        self.utils = _Utilities()

    @classmethod
    def is_active(cls) -> bool:
        from triton.backends import backends
        from triton.runtime import driver

        if isinstance(driver._active, cls):
            return True
        return not any(other.driver.is_active() for name, other in backends.items() if name != BACKEND)

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        active = chip.active()
        return GPUTarget(BACKEND, f"{active.name}-{active.fingerprint()}", 1)

    def get_current_device(self) -> int:
        return chip.current_index()

    def set_current_device(self, device: int) -> None:
        import torch

        torch.get_device_module(BACKEND).set_device(device)

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return (0, 0)

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device(BACKEND)

    def get_device_interface(self) -> Any:
        import torch

        return torch.get_device_module(BACKEND)

    def get_benchmarker(self) -> Callable[..., Any]:
        from tapeout.triton_backend.benchmark import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        import torch

        return torch.empty(1, dtype=torch.int8, device=BACKEND)

    def clear_cache(self, cache: Any) -> None:
        """Nothing to do: simulated caches are not warm across launches."""
