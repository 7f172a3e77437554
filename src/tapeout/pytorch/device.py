"""`torch.chip`: what PyTorch programs expect of an accelerator's module, as they know it from `torch.cuda`.

A process simulates one chip, or as many as TAPEOUT_CHIPS says; a function that takes a device means the current one
if it is given none. The first use of the device runs `_lazy_init`, which loads the C++ shim and reserves the chips'
HBM; asking about the device (is_available, device_count, get_device_properties) does not.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tapeout import chip as chips
from tapeout.pytorch import device_runtime
from tapeout.pytorch.device_runtime import Block as Block
from tapeout.pytorch.device_runtime import arena as arena
from tapeout.pytorch.device_runtime import block_of as block_of
from tapeout.pytorch.device_runtime import is_initialized, shim
from tapeout.pytorch.device_runtime import set_fallback as set_fallback
from tapeout.pytorch.streams import DeviceLike, check_index
from tapeout.pytorch.streams import Event as Event
from tapeout.pytorch.streams import Stream as Stream
from tapeout.pytorch.streams import current_stream as current_stream
from tapeout.pytorch.streams import default_stream as default_stream
from tapeout.pytorch.streams import lazy_init as _lazy_init  # noqa: F401  (called by torch)
from tapeout.pytorch.streams import raw_stream as _raw_stream  # noqa: F401
from tapeout.pytorch.streams import set_stream as set_stream
from tapeout.pytorch.streams import stream as stream
from tapeout.pytorch.streams import synchronize as synchronize

# ---------------------------------------------------------------------------------------------- the devices


def is_available() -> bool:
    """True: the chip is simulated, so it is there wherever tapeout is."""
    return True


def __getattr__(name: str) -> Any:
    if name == "_initialized":  # what torch.utils.checkpoint looks at before it keeps the generator's state
        return is_initialized()
    if name in ("Graph", "graph"):
        from tapeout.pytorch import graphs  # brings the runtime, which asking about the device does not need

        return getattr(graphs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def device_count() -> int:
    return len(chips.of_process())


def current_device() -> int:
    return chips.current_index()


def set_device(device: DeviceLike) -> None:
    if device.__class__ is int and device < 0:
        return
    _select(check_index(device))


def _select(index: int) -> None:
    if index != chips.current_index():
        shim().tapeout_set_device(index)


def _exchange_device(device: int) -> int:
    before = chips.current_index()
    if device >= 0:
        _select(check_index(device))
    return before


_maybe_exchange_device = _exchange_device


class device:
    """Context manager that makes a chip the current one."""

    def __init__(self, device: DeviceLike):
        self.idx = -1 if device.__class__ is int and device < 0 else check_index(device)
        self.prev_idx = -1

    def __enter__(self) -> "device":
        self.prev_idx = _exchange_device(self.idx)
        return self

    def __exit__(self, *exception: object) -> None:
        _exchange_device(self.prev_idx)


class device_of(device):
    """The same for the chip of a tensor; for one that is elsewhere nothing changes."""

    def __init__(self, tensor: torch.Tensor):
        super().__init__(tensor.device if tensor.device.type == "chip" else -1)


def can_device_access_peer(device: DeviceLike, peer_device: DeviceLike) -> bool:
    """Return whether links join two chips. Copies between others go by way of the host."""
    own = chips.of_process()
    here, there = check_index(device), check_index(peer_device)
    return here != there and bool(own[here].links.link_count and own[there].links.link_count)


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
    is_integrated: int = 0
    is_multi_gpu_board: int = 0

    @property
    def shared_memory_per_block(self) -> int:
        return self.shared_memory_per_multiprocessor

    @property
    def shared_memory_per_block_optin(self) -> int:
        return self.shared_memory_per_multiprocessor


@functools.lru_cache(maxsize=4)
def _properties(chip: chips.Chip) -> DeviceProperties:
    return DeviceProperties(
        name=chip.name,
        total_memory=chip.global_memory.size_bytes,
        multi_processor_count=chip.core_count,
        clock_rate=chip.clock_hz // 1000,
        L2_cache_size=chip.memory_side.size_bytes,
        shared_memory_per_multiprocessor=chip.core.scratchpad.size_bytes,
    )


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    return _properties(chips.of_process()[check_index(device)])


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


# ---------------------------------------------------------------------------------------------- memory


def memory_stats(device: DeviceLike = None) -> dict[str, int]:
    """Bytes and counts of the HBM allocator, under the names torch.cuda gives them."""
    return device_runtime.memory_statistics(check_index(device))


def memory_allocated(device: DeviceLike = None) -> int:
    return memory_stats(device)["allocated_bytes.all.current"]


def max_memory_allocated(device: DeviceLike = None) -> int:
    return memory_stats(device)["allocated_bytes.all.peak"]


def memory_reserved(device: DeviceLike = None) -> int:
    """HBM up to the highest address in use since the last empty_cache()."""
    return memory_stats(device)["reserved_bytes.all.current"]


def max_memory_reserved(device: DeviceLike = None) -> int:
    """HBM that was ever taken from the host; free pages are given back by empty_cache() only."""
    return memory_reserved(device)


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    index = check_index(device)
    if is_initialized():
        shim().tapeout_reset_peak(index)


def empty_cache() -> None:
    """Give the host back the pages behind free HBM."""
    if is_initialized():
        shim().tapeout_return_free_pages()


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Free and total bytes of HBM."""
    total = chips.of_process()[check_index(device)].global_memory.size_bytes
    return total - memory_allocated(device), total


# ---------------------------------------------------------------------------------------------- random numbers


def _generator(device: DeviceLike = None) -> torch.Generator:
    shim()
    return torch.ops.tapeout.default_generator(check_index(device))


def manual_seed(seed: int) -> None:
    """Seed the current chip's default generator. Does not wake the device."""
    if is_initialized():
        _generator().manual_seed(seed)
    else:
        device_runtime.seed_before_first_use = seed


def manual_seed_all(seed: int) -> None:
    """Seed every chip's default generator; torch.manual_seed calls this. Does not wake the device."""
    if is_initialized():
        for index in range(device_count()):
            _generator(index).manual_seed(seed)
    else:
        device_runtime.seed_before_first_use = seed


def seed() -> int:
    """Seed the current chip's default generator from the operating system; returns the seed."""
    return _generator().seed()


def seed_all() -> int:
    """Seed every chip's default generator from the operating system, alike; returns the seed."""
    chosen = seed()
    manual_seed_all(chosen)
    return chosen


def initial_seed() -> int:
    return _generator().initial_seed()


def get_rng_state(device: DeviceLike = "chip") -> torch.Tensor:
    return _generator(device).get_state()


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(state: torch.Tensor, device: DeviceLike = "chip") -> None:
    _generator(device).set_state(state)


def set_rng_state_all(states: Iterable[torch.Tensor]) -> None:
    for index, state in enumerate(states):
        set_rng_state(state, index)
