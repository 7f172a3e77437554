"""The compiled half of the runtime: built with g++ at first use, kept in the cache, loaded once per process."""

import atexit
import ctypes
import functools
import os
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.host.library import Library, for_this_host, load
from tapeout.sim.functional import abi

SOURCES = tuple(Path(__file__).with_name(name) for name in ("native.cpp", "launch_times.cpp"))


def source() -> Library:
    """Return what the runtime is built from, for this host."""
    return for_this_host("runtime", SOURCES, abi.header())


def thread_count() -> int:
    """Host threads that run programs: TAPEOUT_THREADS, else one a CPU."""
    wanted = os.environ.get("TAPEOUT_THREADS")
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isdigit() or not 1 <= int(wanted) <= 1024:
        raise TapeoutError(f"TAPEOUT_THREADS={wanted!r} is not a number of threads; 1 to 1024 is allowed")
    return int(wanted)


@functools.cache
def library() -> ctypes.CDLL:
    """The runtime, its workers started."""
    loaded = load(source())
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("tapeout_start", None, (word, word)),
        ("tapeout_end", None, ()),
        ("tapeout_need_scratchpad", None, (word,)),
        ("tapeout_set_arena", None, (word, word)),
        ("tapeout_set_chips", None, (word, pointer, pointer, pointer)),
        ("tapeout_sanitize", None, (pointer,)),
        ("tapeout_mark_unwritten", None, (ctypes.c_uint64, ctypes.c_uint64)),
        ("tapeout_kernel", pointer, (word, word, pointer, word, word, word, word)),
        ("tapeout_free_kernel", None, (pointer,)),
        ("tapeout_launch", word, (pointer, ctypes.c_char_p)),
        ("tapeout_launch_noting", word, (pointer, ctypes.c_char_p, pointer)),
        ("tapeout_record", pointer, ()),
        ("tapeout_record_arrays", None, (pointer, pointer, pointer)),
        ("tapeout_free_record", None, (pointer,)),
        ("tapeout_failure", None, (pointer,)),
        ("tapeout_counters", None, (pointer,)),
        ("tapeout_reset_counters", None, ()),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.tapeout_start(thread_count(), 0)
    atexit.register(loaded.tapeout_end)
    os.register_at_fork(after_in_child=lambda: loaded.tapeout_start(thread_count(), 0))
    return loaded
