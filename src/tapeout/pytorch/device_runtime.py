"""The device at work: the C++ shim, loaded at the first use with the active chip's HBM reserved, and what it is asked.

What users call is in device.py; this is for the modules of the package.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.pytorch.device_clock import DeviceClock
from tapeout.pytorch.import_hooks import when_imported
from tapeout.runtime import session

FALLBACK_VARIABLE = "TAPEOUT_FALLBACK"
FALLBACK_POLICIES = {"count": 0, "warn": 1, "error": 2}
TIMING_VARIABLE = "TAPEOUT_TIMING"
TIMING_MODES = ("off", "on", "only")
READ_VARIABLE = "TAPEOUT_READ"
READS = ("error", "zeros")

BLOCK_TAKER = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
"""A function that takes the address of a block of HBM."""

_shim: ctypes.CDLL | None = None
seed_before_first_use: int | None = None
"""For the default generator, which is there once the shim is."""

_initializing = threading.RLock()
_kept_for_the_shim: list[ctypes.Structure] = []  # it calls these functions as long as the process lives
_when_used: list[Callable[[], None]] = []


def when_used(then: Callable[[], None]) -> None:
    """Call `then` when the device is first used."""
    _when_used.append(then)


def is_initialized() -> bool:
    """Return whether the device has been used: the shim is loaded."""
    return _shim is not None


def shim() -> ctypes.CDLL:
    """The loaded shim with HBM reserved; loads it if this is the first use."""
    global _shim
    with _initializing:
        if _shim is not None:
            return _shim
        from tapeout.pytorch import build  # brings LLVM, which importing torch does not need

        loaded = build.load()
        _declare(loaded)
        own = chips.of_process()
        if (mode := _choice(TIMING_VARIABLE, TIMING_MODES)) != "off":
            session.turn_on(only=mode == "only")
        _kept_for_the_shim.append(calls := _clock_calls(DeviceClock(loaded.tapeout_trace)))
        memories = [chip.global_memory for chip in own]
        refused = loaded.tapeout_initialize(
            len(own),
            (ctypes.c_uint64 * len(own))(*(memory.size_bytes for memory in memories)),
            (ctypes.c_char_p * len(own))(*(chip.name.encode() for chip in own)),
            (ctypes.c_char_p * len(own))(*(memory.name.encode() for memory in memories)),
            ctypes.byref(calls),
            int(session.timing_only),
        )
        if refused:
            size_bytes = sum(memory.size_bytes for memory in memories)
            names = ", ".join(repr(chip.name) for chip in own)
            raise TapeoutError(
                f"the host refuses to reserve {size_bytes} bytes of address space for the {memories[0].name} of "
                f"{'chip' if len(own) == 1 else 'chips'} {names}: {os.strerror(refused)}. Raise `ulimit -v` or "
                "vm.overcommit_memory, or describe a chip with less memory"
            )
        at_once = ctypes.PyDLL(loaded._name)  # short calls at every launch, not worth letting go of the GIL
        chips.begin_to_use(at_once.tapeout_current_device)
        _shim = loaded
        for then in _when_used:
            then()
        _watch_allocations(loaded)
        if seed_before_first_use is not None:
            for index in range(len(own)):
                torch.ops.tapeout.default_generator(index).manual_seed(seed_before_first_use)
        set_fallback(os.environ.get(FALLBACK_VARIABLE) or "count")
        loaded.tapeout_let_reads_be_zeros(int(_choice(READ_VARIABLE, READS) == "zeros"))
        at_once.tapeout_current_stream.restype = ctypes.c_int64
        place = ctypes.cast(at_once.tapeout_make_canonical, ctypes.c_void_p).value or 0
        session.attach_device(at_once.tapeout_current_stream, place)
        session.when_turned(lambda on, only: loaded.tapeout_set_timing(2 if only else int(on)))
        chips.refuse_activation_while(_memory_in_use)
        # The engine's thread for the device would take the GIL while the interpreter finalises, and abort.
        torch.autograd.set_multithreading_enabled(False)
        from tapeout.pytorch import ops

        ops.register()
        when_imported("triton", _make_triton_use_the_chip)
        return _shim


def _declare(loaded: ctypes.CDLL) -> None:
    uint64, int64 = ctypes.c_uint64, ctypes.c_int64
    pointer = ctypes.c_void_p
    loaded.tapeout_initialize.argtypes = [int64, pointer, pointer, pointer, pointer, ctypes.c_int]
    loaded.tapeout_trace.argtypes = [ctypes.c_char_p, ctypes.c_int, int64, int64, int64, int64]
    loaded.tapeout_current_device.restype = int64
    loaded.tapeout_set_device.argtypes = [int64]
    loaded.tapeout_current_operator.restype = ctypes.c_char_p
    loaded.tapeout_arena_base.restype = uint64
    loaded.tapeout_arena_size_bytes.restype = uint64
    loaded.tapeout_base_of_chip.argtypes = [int64]
    loaded.tapeout_base_of_chip.restype = uint64
    loaded.tapeout_block_of.argtypes = [uint64, ctypes.POINTER(uint64), ctypes.POINTER(uint64)]
    loaded.tapeout_watch_allocations.argtypes = [ctypes.c_void_p, uint64]
    loaded.tapeout_end_capture.argtypes = [BLOCK_TAKER]
    loaded.tapeout_let_go.argtypes = [uint64]
    loaded.tapeout_memory_statistics.argtypes = [int64, ctypes.POINTER(int64)]
    loaded.tapeout_reset_peak.argtypes = [int64]
    loaded.tapeout_count_on_chip.argtypes = [ctypes.c_char_p, int64]
    loaded.tapeout_ledger.argtypes = [ctypes.c_char_p, uint64]
    loaded.tapeout_ledger.restype = uint64


def _choice(variable: str, allowed: tuple[str, ...]) -> str:
    """The value of an environment variable; the first allowed one if it is not set."""
    value = os.environ.get(variable) or allowed[0]
    if value not in allowed:
        raise TapeoutError(f"{variable}={value!r} is not known; choose one of {', '.join(allowed)}")
    return value


def _clock_calls(clock: DeviceClock) -> ctypes.Structure:
    """Return how the shim reaches this process's clock."""
    int64, none = ctypes.c_int64, None
    calls: dict[str, tuple[Any, ...]] = {
        "turn_on": (none,),
        "moment": (none, int64, ctypes.POINTER(int64)),
        "wait": (none, int64, int64),
        "reach": (none, int64),
        "poll": (int64, int64),
        "synchronize": (none,),
        "copy": (none, int64, int64, int64, int64),
        "copy_between": (none, int64, int64, int64, int64),
        "host_operator": (none, ctypes.c_char_p),
        "watch": (none, int64),
    }
    types = {name: ctypes.CFUNCTYPE(*signature) for name, signature in calls.items()}
    table = type("ClockCalls", (ctypes.Structure,), {"_fields_": list(types.items())})
    return table(*(function_type(getattr(clock, name)) for name, function_type in types.items()))


def _watch_allocations(loaded: ctypes.CDLL) -> None:
    """Lets the sanitizer, if it is wanted, see every block of HBM before it is used."""
    from tapeout.runtime import sanitizer

    if sanitizer.checks() is not None and not session.timing_only:
        _set_arenas(loaded)
        announce = sanitizer.watch(loaded.tapeout_block_of)
        loaded.tapeout_watch_allocations(ctypes.cast(announce, ctypes.c_void_p), sanitizer.RED_ZONE_BYTES)


def _set_arenas(loaded: ctypes.CDLL) -> None:
    """Tell the session where the chips' HBM is."""
    current = ctypes.cast(loaded.tapeout_current_device, ctypes.c_void_p).value or 0
    own = [(loaded.tapeout_base_of_chip(n), chip.global_memory.size_bytes) for n, chip in enumerate(chips.of_process())]
    session.set_arenas(own, current)


def _memory_in_use() -> str | None:
    used = memory_statistics(0)["allocated_bytes.all.current"]
    return f"{used} bytes of the present chip's HBM are in use" if used else None


def _make_triton_use_the_chip() -> None:
    import triton

    from tapeout.triton_backend import benchmark, kernel_cache
    from tapeout.triton_backend.driver import ChipDriver, is_chip_active

    _set_arenas(shim())
    triton.runtime.driver.set_active(ChipDriver())
    benchmark.install(is_chip_active)
    kernel_cache.install()
    if len(chips.of_process()) > 1:
        from tapeout.triton_backend import placement

        placement.install()


def set_fallback(policy: str) -> None:
    """Choose what happens to an operator without a chip kernel: "count" it, "warn" once per operator, or raise an
    "error"."""
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


def name_operators() -> None:
    """Record, from now on, activities of the chip with the aten operator that caused them."""
    loaded = shim()
    loaded.tapeout_watch_operators()
    session.name_operators(lambda: loaded.tapeout_current_operator().decode())


@dataclass(frozen=True)
class Block:
    """One live allocation in HBM."""

    address: int
    size_bytes: int


def arena() -> Block:
    """The whole of HBM, of all chips: where it begins and how large it is."""
    loaded = shim()
    return Block(loaded.tapeout_arena_base(), loaded.tapeout_arena_size_bytes())


def block_of(address: int) -> Block | None:
    """The live allocation that holds this address, or None if it is foreign or has been freed."""
    start, size_bytes = ctypes.c_uint64(), ctypes.c_uint64()
    if not shim().tapeout_block_of(address, ctypes.byref(start), ctypes.byref(size_bytes)):
        return None
    return Block(start.value, size_bytes.value)


def memory_statistics(chip: int) -> dict[str, int]:
    """Bytes and counts of a chip's HBM allocator, under the names torch.cuda gives them; zeros before the first use."""
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
    _shim.tapeout_memory_statistics(chip, values)
    return dict(zip(names, values, strict=True))
