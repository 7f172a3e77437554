"""`torch.chip`: what PyTorch programs expect of an accelerator's module, as they know it from `torch.cuda`.

The functions take and ignore a device where torch passes one: a process simulates one chip. The first use of the
device runs `_lazy_init`, which loads the C++ shim and reserves the active chip's HBM; asking about the device
(is_available, device_count, get_device_properties) does not.
"""

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.pytorch import build, device_clock
from tapeout.runtime import clock

FALLBACK_VARIABLE = "TAPEOUT_FALLBACK"
FALLBACK_POLICIES = {"count": 0, "warn": 1, "error": 2}
TIMING_VARIABLE = "TAPEOUT_TIMING"
TIMING_MODES = ("off", "on", "only")
READ_VARIABLE = "TAPEOUT_READ"
READS = ("error", "zeros")

BLOCK_TAKER = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
"""A function that takes the address of a block of HBM."""

DeviceLike = torch.device | str | int | None

_shim: ctypes.CDLL | None = None
_initializing = threading.RLock()
_kept_for_the_shim: list[ctypes.Structure] = []  # it calls these functions as long as the process lives


def _lazy_init() -> None:
    """Called by torch before the first use of the device."""
    if _shim is None:
        shim()


def shim() -> ctypes.CDLL:
    """The loaded shim with HBM reserved; loads it if this is the first use."""
    global _shim
    with _initializing:
        if _shim is not None:
            return _shim
        loaded = build.load()
        _declare(loaded)
        chip = chips.active()
        if (mode := _choice(TIMING_VARIABLE, TIMING_MODES)) != "off":
            clock.turn_on(only=mode == "only")
        _kept_for_the_shim.append(calls := _clock_calls())
        refused = loaded.tapeout_initialize(
            chip.hbm.size_bytes, chip.name.encode(), ctypes.byref(calls), int(clock.timing_only)
        )
        if refused:
            raise TapeoutError(
                f"the host refuses to reserve {chip.hbm.size_bytes} bytes of address space for the HBM of chip "
                f"{chip.name!r}: {os.strerror(refused)}. Raise `ulimit -v` or vm.overcommit_memory, or describe a "
                "chip with a smaller hbm.size_bytes"
            )
        _shim = loaded
        _watch_allocations(loaded)
        if _seed_before_first_use is not None:
            manual_seed(_seed_before_first_use)
        set_fallback(os.environ.get(FALLBACK_VARIABLE) or "count")
        loaded.tapeout_let_reads_be_zeros(int(_choice(READ_VARIABLE, READS) == "zeros"))
        at_once = ctypes.PyDLL(loaded._name)  # short calls at every launch, not worth letting go of the GIL
        at_once.tapeout_current_stream.restype = ctypes.c_int64
        device_clock.trace_with(loaded.tapeout_trace)
        clock.current_stream = at_once.tapeout_current_stream
        clock.place = ctypes.cast(at_once.tapeout_make_canonical, ctypes.c_void_p).value or 0
        clock.when_turned(lambda on, only: loaded.tapeout_set_timing(2 if only else int(on)))
        chips.refuse_activation_while(_memory_in_use)
        # The engine's thread for the device would take the GIL while the interpreter finalises, and abort.
        torch.autograd.set_multithreading_enabled(False)
        from tapeout.pytorch import ops
        from tapeout.pytorch.registration import when_imported

        ops.register()
        when_imported("triton", _make_triton_use_the_chip)
        return _shim


def _declare(loaded: ctypes.CDLL) -> None:
    uint64, int64 = ctypes.c_uint64, ctypes.c_int64
    loaded.tapeout_initialize.argtypes = [uint64, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
    loaded.tapeout_trace.argtypes = [ctypes.c_char_p, ctypes.c_int, int64, int64, int64]
    loaded.tapeout_current_operator.restype = ctypes.c_char_p
    loaded.tapeout_arena_base.restype = uint64
    loaded.tapeout_arena_size_bytes.restype = uint64
    loaded.tapeout_block_of.argtypes = [uint64, ctypes.POINTER(uint64), ctypes.POINTER(uint64)]
    loaded.tapeout_watch_allocations.argtypes = [ctypes.c_void_p, uint64]
    loaded.tapeout_end_capture.argtypes = [BLOCK_TAKER]
    loaded.tapeout_let_go.argtypes = [uint64]
    loaded.tapeout_memory_statistics.argtypes = [ctypes.POINTER(int64)]
    loaded.tapeout_count_on_chip.argtypes = [ctypes.c_char_p, int64]
    loaded.tapeout_ledger.argtypes = [ctypes.c_char_p, uint64]
    loaded.tapeout_ledger.restype = uint64


def _choice(variable: str, allowed: tuple[str, ...]) -> str:
    """The value of an environment variable; the first allowed one if it is not set."""
    value = os.environ.get(variable) or allowed[0]
    if value not in allowed:
        raise TapeoutError(f"{variable}={value!r} is not known; choose one of {', '.join(allowed)}")
    return value


def _clock_calls() -> ctypes.Structure:
    """How the shim reaches this process's clock."""
    int64, none = ctypes.c_int64, None
    calls: dict[str, tuple[Any, ...]] = {
        "turn_on": (none,),
        "moment": (none, int64, ctypes.POINTER(int64)),
        "wait": (none, int64, int64),
        "reach": (none, int64),
        "poll": (int64, int64),
        "synchronize": (none,),
        "copy": (none, int64, int64, int64, int64),
        "host_operator": (none, ctypes.c_char_p),
        "watch": (none, int64),
    }
    types = {name: ctypes.CFUNCTYPE(*signature) for name, signature in calls.items()}
    table = type("ClockCalls", (ctypes.Structure,), {"_fields_": list(types.items())})
    return table(*(function_type(getattr(device_clock, name)) for name, function_type in types.items()))


def _watch_allocations(loaded: ctypes.CDLL) -> None:
    """Lets the sanitizer, if it is wanted, see every block of HBM before it is used."""
    from tapeout.runtime import sanitizer

    if sanitizer.checks() is not None and not clock.timing_only:
        base, size_bytes = loaded.tapeout_arena_base(), loaded.tapeout_arena_size_bytes()
        announce = sanitizer.watch(loaded.tapeout_block_of, base, size_bytes)
        loaded.tapeout_watch_allocations(ctypes.cast(announce, ctypes.c_void_p), sanitizer.RED_ZONE_BYTES)


def _memory_in_use() -> str | None:
    used = memory_allocated()
    return f"{used} bytes of the present chip's HBM are in use" if used else None


def _make_triton_use_the_chip() -> None:
    import triton

    from tapeout import runtime
    from tapeout.triton_backend import benchmark, kernel_cache
    from tapeout.triton_backend.driver import ChipDriver

    hbm = arena()
    runtime.set_arena(hbm.address, hbm.size_bytes)
    triton.runtime.driver.set_active(ChipDriver())
    benchmark.install()
    kernel_cache.install()


def set_fallback(policy: str) -> None:
    """What happens to an operator without a chip kernel: "count" it, "warn" once per operator, or raise an "error"."""
    if policy not in FALLBACK_POLICIES:
        raise TapeoutError(
            f"{FALLBACK_VARIABLE}={policy!r} is not a policy; choose one of {', '.join(FALLBACK_POLICIES)}"
        )
    shim().tapeout_set_fallback_policy(FALLBACK_POLICIES[policy])


def refuse_host(operator: str, reason: str) -> None:
    """Raises NotImplementedError if the policy forbids that an operator runs on the host."""
    if shim().tapeout_host_is_forbidden():
        raise NotImplementedError(
            f"{operator} has no kernel for the chip for these arguments ({reason}), and {FALLBACK_VARIABLE}=error "
            f"forbids running it on the host. Write it with other operators or another dtype, or unset "
            f"{FALLBACK_VARIABLE}"
        )


# ---------------------------------------------------------------------------------------------- the one device


def is_available() -> bool:
    """True: the chip is simulated, so it is there wherever tapeout is."""
    return True


def is_initialized() -> bool:
    return _shim is not None


def __getattr__(name: str) -> Any:
    if name == "_initialized":  # what torch.utils.checkpoint looks at before it keeps the generator's state
        return is_initialized()
    if name in ("Graph", "graph"):
        from tapeout.pytorch import graphs  # brings the runtime, which asking about the device does not need

        return getattr(graphs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def device_count() -> int:
    return 1


def current_device() -> int:
    return 0


def set_device(device: DeviceLike) -> None:
    _check_index(device)


def _exchange_device(device: int) -> int:
    if device >= 0:
        _check_index(device)
    return 0


_maybe_exchange_device = _exchange_device


def _check_index(device: DeviceLike) -> None:
    index = device if isinstance(device, int) else torch.device(device).index if device is not None else 0
    if index not in (None, 0):
        raise ValueError(f"there is no chip {index}: this process simulates one chip, 'chip' or 'chip:0'")


class device:
    """Context manager that selects the chip; with one chip there is nothing to switch."""

    def __init__(self, device: DeviceLike):
        _check_index(device)
        self.idx = 0

    def __enter__(self) -> "device":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@dataclass(frozen=True)
class DeviceProperties:
    """The active chip under the names PyTorch programs and Inductor know from other accelerators.

    The chip has no threads, warps or registers. Inductor decides by them how finely to split a reduction, so these
    are the figures for which its heuristics were made.
    """

    name: str
    total_memory: int
    multi_processor_count: int
    clock_rate: int
    L2_cache_size: int
    shared_memory_per_multiprocessor: int
    major: int = 1
    minor: int = 0
    warp_size: int = 32
    max_threads_per_block: int = 1024
    max_threads_per_multi_processor: int = 2048
    regs_per_multiprocessor: int = 65536


@functools.lru_cache(maxsize=4)
def _properties(chip: chips.Chip) -> DeviceProperties:
    return DeviceProperties(
        name=chip.name,
        total_memory=chip.hbm.size_bytes,
        multi_processor_count=chip.core_count,
        clock_rate=chip.clock_hz // 1000,
        L2_cache_size=chip.last_level_sram.size_bytes,
        shared_memory_per_multiprocessor=chip.core.scratchpad.size_bytes,
    )


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    _check_index(device)
    return _properties(chips.active())


def get_device_name(device: DeviceLike = None) -> str:
    return get_device_properties(device).name


def get_device_capability(device: DeviceLike = None) -> tuple[int, int]:
    properties = get_device_properties(device)
    return (properties.major, properties.minor)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def _is_in_bad_fork() -> bool:
    return False


# ---------------------------------------------------------------------------------------------- streams and events


def synchronize(device: DeviceLike = None) -> None:
    """Let the chip's time pass until all work is done. On the host the work is done already: a launch does it."""
    if clock.active is not None:
        clock.active.synchronize()


class Stream(torch.Stream):
    """A queue of work, done in order. What streams do side by side, in the chip's time: tapeout.runtime.clock."""

    def __new__(cls, device: DeviceLike = None, priority: int = 0, **kwargs: Any) -> "Stream":
        _lazy_init()
        if "stream_id" in kwargs:
            return super().__new__(cls, **kwargs)
        return super().__new__(cls, device="chip", priority=priority)


class Event(torch.Event):
    """A moment in a stream. With `enable_timing`, `elapsed_time` gives the chip's milliseconds between two of them.

    The first record of such an event makes the process keep time, if it did not already.
    """

    def __new__(  # type: ignore[misc]
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> torch.Event:
        _lazy_init()
        # Not an instance of cls: torch.Event.elapsed_time refuses subclasses of torch.Event as its argument.
        return torch.Event("chip", enable_timing=enable_timing)


def current_stream(device: DeviceLike = None) -> torch.Stream:
    _lazy_init()
    return torch.accelerator.current_stream(torch.device("chip", 0))


default_stream = current_stream


def _raw_stream(device_idx: int) -> int:
    """The handle a kernel launch takes; there is one queue."""
    return 0


def set_stream(stream: torch.Stream) -> None:
    _lazy_init()
    torch.accelerator.set_stream(stream)


@contextlib.contextmanager
def stream(stream: torch.Stream | None) -> Iterator[None]:
    """Make a stream current for the length of the block."""
    if stream is None:
        yield
        return
    before = current_stream()
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(before)


def name_operators() -> None:
    """From now on what happens on the chip is noted with the aten operator that asked for it."""
    loaded = shim()
    loaded.tapeout_watch_operators()
    clock.current_operator = lambda: loaded.tapeout_current_operator().decode()


# ---------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Block:
    """One live allocation in HBM."""

    address: int
    size_bytes: int


def arena() -> Block:
    """The whole of HBM: where it begins and how large it is."""
    loaded = shim()
    return Block(loaded.tapeout_arena_base(), loaded.tapeout_arena_size_bytes())


def block_of(address: int) -> Block | None:
    """The live allocation that holds this address, or None if it is foreign or has been freed."""
    start, size_bytes = ctypes.c_uint64(), ctypes.c_uint64()
    if not shim().tapeout_block_of(address, ctypes.byref(start), ctypes.byref(size_bytes)):
        return None
    return Block(start.value, size_bytes.value)


def memory_stats(device: DeviceLike = None) -> dict[str, int]:
    """Bytes and counts of the HBM allocator, under the names torch.cuda gives them."""
    names = (
        "allocated_bytes.all.current",
        "allocated_bytes.all.peak",
        "reserved_bytes.all.current",
        "active.all.current",
        "allocation.all.allocated",
        "num_ooms",
    )
    if _shim is None:
        return dict.fromkeys(names, 0)
    values = (ctypes.c_int64 * len(names))()
    _shim.tapeout_memory_statistics(values)
    return dict(zip(names, values, strict=True))


def memory_allocated(device: DeviceLike = None) -> int:
    return memory_stats()["allocated_bytes.all.current"]


def max_memory_allocated(device: DeviceLike = None) -> int:
    return memory_stats()["allocated_bytes.all.peak"]


def memory_reserved(device: DeviceLike = None) -> int:
    """HBM up to the highest address in use since the last empty_cache()."""
    return memory_stats()["reserved_bytes.all.current"]


def max_memory_reserved(device: DeviceLike = None) -> int:
    """HBM that was ever taken from the host; free pages are given back by empty_cache() only."""
    return memory_reserved()


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    if _shim is not None:
        _shim.tapeout_reset_peak()


def empty_cache() -> None:
    """Give the host back the pages behind free HBM."""
    if _shim is not None:
        _shim.tapeout_return_free_pages()


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Free and total bytes of HBM."""
    total = chips.active().hbm.size_bytes
    return total - memory_allocated(), total


# ---------------------------------------------------------------------------------------------- random numbers


_seed_before_first_use: int | None = None


def _generator() -> torch.Generator:
    shim()
    return torch.ops.tapeout.default_generator()


def manual_seed(seed: int) -> None:
    """Seed the chip's default generator; torch.manual_seed calls this. Does not wake the device."""
    global _seed_before_first_use
    if _shim is None:
        _seed_before_first_use = seed
    else:
        _generator().manual_seed(seed)


manual_seed_all = manual_seed


def seed() -> int:
    """Seed the chip's default generator from the operating system; returns the seed."""
    return _generator().seed()


def initial_seed() -> int:
    return _generator().initial_seed()


def get_rng_state(device: DeviceLike = "chip") -> torch.Tensor:
    return _generator().get_state()


def set_rng_state(state: torch.Tensor, device: DeviceLike = "chip") -> None:
    _generator().set_state(state)
