"""Scripts written for CUDA run on the chip as they are: `install()` gives CUDA's names the chip's meaning.

It changes torch in this process, for good. Where a script names the device ("cuda", `torch.device("cuda")`,
`.cuda()`), the chip is taken; `torch.cuda.X` is `torch.chip.X`; files saved on a GPU load onto the chip. What has no
meaning on the chip is ignored and says so once, by name; what cannot be ignored without changing results is refused.
A tensor's `device` stays the chip's, `is_cuda` is true.
"""

import functools
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tapeout.errors import TapeoutError
from tapeout.pytorch import device as chip_device
from tapeout.pytorch import device_runtime, graphs, streams
from tapeout.pytorch.import_hooks import when_imported

# What scripts conclude from it (bfloat16 and TF32 are there) holds of the chip.
COMPUTE_CAPABILITY = (8, 0)

# Calls of torch.cuda that change nothing on the chip, with what they return.
IGNORED: dict[str, Any] = {
    "ipc_collect": None,
    "set_per_process_memory_fraction": None,
    "set_sync_debug_mode": None,
    "change_current_allocator": None,
    "caching_allocator_enable": None,
    "reset_accumulated_memory_stats": None,
    "reset_peak_host_memory_stats": None,
    "reset_accumulated_host_memory_stats": None,
    "utilization": 0,
    "memory_usage": 0,
    "temperature": 0,
    "power_draw": 0,
    "clock_rate": 0,
    "list_gpu_processes": "",
    "current_blas_handle": 0,
    "nvtx.mark": None,
    "nvtx.range_push": 0,
    "nvtx.range_pop": 0,
    "nvtx.range_start": 0,
    "nvtx.range_end": None,
    "profiler.start": None,
    "profiler.stop": None,
    "memory._record_memory_history": None,
    "get_sync_debug_mode": 0,
    "get_per_process_memory_fraction": 1.0,
    "device_memory_used": 0,
    "host_memory_stats": {},
}

# What a script would get wrong results from if it were ignored.
REFUSED = {
    "cudart": "use torch.cuda's own functions",
    "ExternalStream": "use torch.cuda.Stream()",
    "get_stream_from_external": "use torch.cuda.Stream()",
    "CUDAPluggableAllocator": "the chip's memory has its own allocator",
    "MemPool": "the chip's memory has its own allocator",
    "use_mem_pool": "the chip's memory has its own allocator",
    "jiterator": "write the function with torch.compile or Triton",
    "caching_allocator_alloc": "use torch.empty",
    "caching_allocator_delete": "delete the tensor",
    "memory._snapshot": "torch.cuda.memory_stats() counts, and `tapeout profile` shows what ran",
    "memory._dump_snapshot": "torch.cuda.memory_stats() counts, and `tapeout profile` shows what ran",
}

DEVICE_LIKE = (str, torch.device)  # a tuple: Dynamo does not know unions

_said: set[str] = set()


@functools.cache
def install() -> None:
    """Give CUDA's names the chip's meaning in this process. Idempotent."""
    streams.NAMES.add("cuda")
    _map_module()
    _map_devices_of_functions()
    _map_tensors_and_modules()
    _map_autocast()
    _map_profiler()
    torch.serialization.register_package(5, lambda storage: None, _load_onto_chip)
    torch.backends.cuda.is_built = lambda: True
    _map_version()
    _map_data_parallel()
    when_imported("torch.distributed.distributed_c10d", _map_distributed)
    when_imported("torch.distributed.device_mesh", _map_device_mesh)


def _map_distributed() -> None:
    from tapeout.pytorch.distributed import registration

    registration.answer_for_nccl()


def _map_device_mesh() -> None:
    from torch.distributed import device_mesh

    device_mesh.init_device_mesh = _naming_device(device_mesh.init_device_mesh)
    device_mesh.DeviceMesh.__init__ = _naming_second(device_mesh.DeviceMesh.__init__)  # type: ignore[method-assign]


def _naming_second(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose first argument after self names a type of device."""

    @functools.wraps(method)
    def call(self: Any, device_type: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, _type_on_chip(device_type), *args, **kwargs)

    return call


def on_chip(device: Any) -> Any:
    """The chip where CUDA is named; everything else as it is. Raises ValueError for a GPU there is no chip for."""
    if isinstance(device, torch.device):
        named = device.type == "cuda"
    else:
        named = isinstance(device, str) and (device == "cuda" or device.startswith("cuda:"))
    if not named:
        return device
    index = torch.device(device).index
    if index is None:
        return torch.device("chip")
    try:
        return torch.device("chip", streams.check_index(index))
    except ValueError as error:
        said = str(error).replace(f"no chip {index}:", f"no cuda:{index}:")
        raise ValueError(said.replace("chip:", "cuda:").replace("'chip'", "'cuda'")) from None


def _on_chip_if_named(value: Any) -> Any:
    return on_chip(value) if isinstance(value, DEVICE_LIKE) else value


def _say_once(name: str, what: str) -> None:
    if name not in _said:
        _said.add(name)
        warnings.warn(f"{name} has no meaning on the chip {what}", stacklevel=3)


# ---------------------------------------------------------------------------------------------- torch.cuda


def _map_module() -> None:
    cuda = torch.cuda
    answers: dict[str, Any] = {
        name: value
        for name, value in vars(chip_device).items()
        if not name.startswith("_") and hasattr(cuda, name) and callable(value)
    }
    answers |= {
        "init": streams.lazy_init,
        "get_device_capability": lambda device=None: COMPUTE_CAPABILITY,
        "get_arch_list": lambda: [],
        "get_gencode_flags": lambda: "",
        "is_tf32_supported": lambda: True,
        "CUDAGraph": graphs.Graph,
        "graph": graphs.graph,
        "graph_pool_handle": graphs.graph_pool_handle,
        "is_current_stream_capturing": graphs.is_capturing,
        "max_memory_reserved": chip_device.max_memory_reserved,
        "max_memory_cached": chip_device.max_memory_reserved,
        "memory_cached": chip_device.memory_reserved,
        "reset_max_memory_allocated": chip_device.reset_peak_memory_stats,
        "reset_max_memory_cached": chip_device.reset_peak_memory_stats,
        "memory_summary": _memory_summary,
        "memory_snapshot": lambda: [],
        "get_allocator_backend": lambda: "native",
        "make_graphed_callables": _ungraphed,
    }
    for name, value in answers.items():
        if not inspect.isclass(value):
            value = _for_scripts(name, value)
        setattr(cuda, name, value)
        if hasattr(cuda.memory, name):
            setattr(cuda.memory, name, value)
        if hasattr(cuda.random, name):
            setattr(cuda.random, name, value)
    cuda.default_generators = _Generators()  # type: ignore[assignment]
    for name, result in IGNORED.items():
        *inside, last = name.split(".")
        setattr(getattr(cuda, inside[0]) if inside else cuda, last, _ignored(f"torch.cuda.{name}", result))
    for name, remedy in REFUSED.items():
        *inside, last = name.split(".")
        setattr(getattr(cuda, inside[0]) if inside else cuda, last, _refused(f"torch.cuda.{name}", remedy))
    cuda._DeviceGuard = chip_device.device  # type: ignore[misc,assignment]
    torch._C._cuda_getCurrentRawStream = streams.raw_stream  # type: ignore[assignment]
    for name in [name for name in vars(cuda) if name.endswith("Tensor") and inspect.isclass(vars(cuda)[name])]:
        setattr(cuda, name, _TensorType(name, (), {"__module__": "torch.cuda"}))


class _Generators(Sequence[torch.Generator]):
    """torch.cuda.default_generators: each chip's, which libraries of kernels take seed and offset from."""

    def __len__(self) -> int:
        return chip_device.device_count()

    def __getitem__(self, index: Any) -> Any:
        return tuple(map(chip_device._generator, range(len(self))))[index]


def _for_scripts(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """The chip's answer for the script and its libraries. torch's and Triton's own code, which would go on with
    NVIDIA's driver, is answered as before: by a torch without CUDA."""
    before = getattr(torch.cuda, name)

    @functools.wraps(before)
    def call(*args: Any, **kwargs: Any) -> Any:
        asking = str(sys._getframe(1).f_globals.get("__name__"))
        if asking.partition(".")[0] in ("torch", "triton"):
            return before(*args, **kwargs)
        return answer(*args, **kwargs)

    return call


def _ignored(name: str, result: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        _say_once(name, "and is ignored")
        return result

    return call


def _refused(name: str, remedy: str) -> type:
    """A class, for the sake of isinstance(), of which there are no instances."""

    def refuse(cls: type, *args: Any, **kwargs: Any) -> Any:
        raise TapeoutError(f"{name} has no meaning on the chip: {remedy}")

    return type(name.rpartition(".")[2], (), {"__new__": refuse})


def _ungraphed(callables: Any, *args: Any, **kwargs: Any) -> Any:
    """A graph replays launches to save the host's time; calling the function has the same results."""
    _say_once("torch.cuda.make_graphed_callables", "and returns its callables as they are")
    return callables


def _memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    stats = chip_device.memory_stats(device)
    return "\n".join(f"{name:36} {value:>20,}" for name, value in stats.items())


# ---------------------------------------------------------------------------------------------- devices in arguments


def _taking_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the chip for CUDA in any of its arguments. Pinned memory is for a chip that is there."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pin_memory"):
            device_runtime.shim()
        if "device" in kwargs:
            kwargs["device"] = on_chip(kwargs["device"])
        return function(*map(_on_chip_if_named, args), **kwargs)

    return call


def _map_devices_of_functions() -> None:
    from torch.utils._device import _device_constructors

    constructors = _device_constructors()
    for owner in (torch, torch.fft):
        for name, function in list(vars(owner).items()):
            if isinstance(function, types.BuiltinFunctionType | types.FunctionType) and function in constructors:
                setattr(owner, name, _taking_devices(function))
    for name in ("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"):
        setattr(torch, name, _taking_devices(getattr(torch, name)))
    for name in ("set_default_device", "get_device_module", "is_autocast_enabled", "set_autocast_enabled",
                 "get_autocast_dtype", "set_autocast_dtype"):  # fmt: skip
        setattr(torch, name, _naming_device(getattr(torch, name)))
    torch.utils._device.DeviceContext.__init__ = _taking_devices(  # type: ignore[method-assign]
        torch.utils._device.DeviceContext.__init__
    )
    torch.Generator = Generator  # type: ignore[assignment,misc]


def _naming_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose first argument, if it is a string, is a type of device."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_type_on_chip(arg) if isinstance(arg, str) else on_chip(arg) for arg in args)
        return function(*args, **kwargs)

    return call


def _type_on_chip(device_type: Any) -> Any:
    return "chip" if device_type == "cuda" else device_type


_Generator = torch.Generator


class _AnyGenerator(type):
    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        return _Generator(on_chip(device))

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _Generator)


class Generator(metaclass=_AnyGenerator):
    """Stands for torch.Generator, whose place in annotations and isinstance() only a class can take."""


# ---------------------------------------------------------------------------------------------- tensors and modules


def _map_tensors_and_modules() -> None:
    new = ("new_tensor", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided")
    for name in (*new, "to", "pin_memory"):
        setattr(torch.Tensor, name, _taking_devices(getattr(torch.Tensor, name)))
    for name in ("to", "to_empty"):
        setattr(torch.nn.Module, name, _taking_devices(getattr(torch.nn.Module, name)))
    torch.Tensor.cuda = _tensor_on_chip  # type: ignore[method-assign,assignment]
    torch.nn.Module.cuda = _module_on_chip  # type: ignore[method-assign,assignment]
    torch.Tensor.is_cuda = property(lambda tensor: tensor.device.type == "chip")  # type: ignore[assignment]
    torch.Tensor.record_stream = lambda tensor, stream: None  # type: ignore[method-assign,assignment]
    torch.Tensor.type = _tensor_type  # type: ignore[method-assign,assignment]
    torch.set_default_tensor_type = _set_default_tensor_type
    for storage in (torch.UntypedStorage, torch.TypedStorage):
        storage.cuda = _storage_on_chip  # type: ignore[method-assign,assignment]
        storage.is_cuda = property(lambda storage: storage.device.type == "chip")  # type: ignore[assignment,method-assign]


def _index_on_chip(device: Any) -> Any:
    return on_chip("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)


def _tensor_on_chip(
    tensor: torch.Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = torch.preserve_format
) -> torch.Tensor:
    return tensor.to(_index_on_chip(device), non_blocking=non_blocking, memory_format=memory_format)


def _module_on_chip(module: torch.nn.Module, device: Any = None) -> torch.nn.Module:
    return module.to(_index_on_chip(device))


def _load_onto_chip(storage: Any, location: str) -> Any:
    """Return what torch.load does with a storage saved on a GPU, or asked for there."""
    if not location.startswith("cuda"):
        return None
    return torch.UntypedStorage(storage.nbytes(), device=on_chip(location)).copy_(storage, False)


def _storage_on_chip(storage: Any, device: Any = None, non_blocking: bool = False) -> Any:
    target = _index_on_chip(device)
    if storage.device.type == target.type:
        return storage
    if isinstance(storage, torch.TypedStorage):
        moved = _storage_on_chip(storage._untyped_storage, device, non_blocking)
        return torch.TypedStorage(wrap_storage=moved, dtype=storage.dtype, _internal=True)
    return torch.UntypedStorage(storage.nbytes(), device=target).copy_(storage, non_blocking)


class _TensorType(type):
    """torch.cuda.FloatTensor and its like: constructors, names of types, and what isinstance() asks."""

    @property
    def dtype(cls) -> torch.dtype:
        return getattr(torch, cls.__name__).dtype

    def __call__(cls, *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("device", None)
        return getattr(torch, cls.__name__)(*args, **kwargs).to("chip")

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, torch.Tensor) and instance.device.type == "chip" and instance.dtype == cls.dtype


def _named_type(name: Any) -> Any:
    """The class that "torch.cuda.FloatTensor" names; anything else as it is."""
    is_named = isinstance(name, str) and name.startswith("torch.cuda.") and name.endswith("Tensor")
    return getattr(torch.cuda, name.rpartition(".")[2]) if is_named else name


_type_of = torch.Tensor.type


def _tensor_type(tensor: torch.Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    wanted = _named_type(dtype)
    if isinstance(wanted, _TensorType):
        return tensor.to("chip", wanted.dtype, non_blocking=non_blocking)
    if dtype is None:
        return _type_of(tensor).replace("torch.chip.", "torch.cuda.")
    return _type_of(tensor, dtype, non_blocking, **kwargs)


_set_host_tensor_type = torch.set_default_tensor_type


def _set_default_tensor_type(wanted: Any) -> None:
    wanted = _named_type(wanted)
    if isinstance(wanted, _TensorType):
        torch.set_default_dtype(wanted.dtype)
        torch.set_default_device("chip")
    else:
        torch.set_default_device(None)
        _set_host_tensor_type(wanted)


# ---------------------------------------------------------------------------------------------- one GPU of many


CUDA_VERSION = "12.8"


def _map_version() -> None:
    """A version for scripts that look at it; torch's own code and Triton's, which would go on with CUDA, find none."""

    def __getattr__(name: str) -> Any:
        if name == "cuda":
            asking = str(sys._getframe(1).f_globals.get("__name__"))
            return None if asking.partition(".")[0] in ("torch", "triton") else CUDA_VERSION
        raise AttributeError(f"module 'torch.version' has no attribute {name!r}")

    del torch.version.cuda
    torch.version.__getattr__ = __getattr__  # type: ignore[method-assign]


def _map_data_parallel() -> None:
    """On one chip nothing is scattered."""
    if chip_device.device_count() > 1:
        return

    def scatter(self: Any, inputs: Any, kwargs: Any, device_ids: Sequence[Any]) -> Any:
        def move(value: Any) -> Any:
            return value.to("chip") if isinstance(value, torch.Tensor) else value

        moved = torch.utils._pytree.tree_map(move, (tuple(inputs), dict(kwargs or {})))
        return (moved[0],), (moved[1],)

    torch.nn.DataParallel.scatter = scatter  # type: ignore[method-assign]


# ---------------------------------------------------------------------------------------------- autocast


def _map_autocast() -> None:
    for owner in (torch.amp.autocast_mode.autocast, torch.amp.GradScaler):
        owner.__init__ = _first_names_device(owner.__init__)  # type: ignore[method-assign]
    for name in ("custom_fwd", "custom_bwd", "is_autocast_available"):
        mapped = _first_names_device(getattr(torch.amp.autocast_mode, name))
        setattr(torch.amp.autocast_mode, name, mapped)
        setattr(torch.amp, name, mapped)
    torch.get_autocast_gpu_dtype = lambda: torch.get_autocast_dtype("chip")
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False


def _first_names_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function one of whose parameters, `device` or `device_type`, is a type of device."""
    parameter = next(name for name in inspect.signature(function).parameters if name in ("device", "device_type"))
    default = inspect.signature(function).parameters[parameter].default
    place = list(inspect.signature(function).parameters).index(parameter)
    positional = inspect.signature(function).parameters[parameter].kind is not inspect.Parameter.KEYWORD_ONLY

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if parameter in kwargs:
            kwargs[parameter] = _type_on_chip(kwargs[parameter])
        elif positional and place < len(args):
            args = (*args[:place], _type_on_chip(args[place]), *args[place + 1 :])
        elif default == "cuda":
            kwargs[parameter] = "chip"
        return function(*args, **kwargs)

    return call


# ---------------------------------------------------------------------------------------------- profiler


def _map_profiler() -> None:
    profiler = torch.profiler.profiler._KinetoProfile
    before = profiler.__init__

    @functools.wraps(before)
    def start(self: Any, *, activities: Any = None, **kwargs: Any) -> None:
        if activities is not None:
            activities = [_activity_on_chip(activity) for activity in activities]
        before(self, activities=activities, **kwargs)

    profiler.__init__ = start  # type: ignore[method-assign]
    legacy = torch.autograd.profiler.profile
    legacy_before = legacy.__init__

    @functools.wraps(legacy_before)
    def start_legacy(
        self: Any, *args: Any, use_cuda: bool = False, use_device: str | None = None, **kwargs: Any
    ) -> None:
        wanted = "chip" if use_cuda else _type_on_chip(use_device)
        if wanted == "chip":
            kwargs["use_kineto"] = True  # which alone reads the chip's time
        legacy_before(self, *args, use_device=wanted, **kwargs)

    legacy.__init__ = start_legacy  # type: ignore[method-assign]


def _activity_on_chip(activity: Any) -> Any:
    """The chip's activity for CUDA's; a dictionary names what is wanted of each."""
    if isinstance(activity, dict):
        return {_activity_on_chip(kind): wanted for kind, wanted in activity.items()}
    if activity == torch.profiler.ProfilerActivity.CUDA:
        return torch.profiler.ProfilerActivity.PrivateUse1
    return activity
