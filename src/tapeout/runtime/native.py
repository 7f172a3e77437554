"""The compiled half of the runtime: built with g++ at first use, kept in the cache, loaded once per process."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.runtime import cache
from tapeout.sim.functional import abi
from tapeout.sim.functional.machine import host_fingerprint

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-pthread",
)


def _compile(target: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise TapeoutError(
            "Tapeout needs a C++ compiler once, to build its runtime; none was found. "
            "Install g++ (Debian, Ubuntu: apt install g++) or set CXX"
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "abi.h").write_text(abi.header())
        command = [compiler, *FLAGS, f"-I{folder}", str(SOURCE), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise TapeoutError(f"building Tapeout's runtime failed: {' '.join(command)}\n{done.stderr.strip()}")


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
    key = hashlib.sha256()
    for part in (SOURCE.read_bytes(), abi.header().encode(), repr(FLAGS).encode(), host_fingerprint().encode()):
        key.update(hashlib.sha256(part).digest())
    loaded = ctypes.CDLL(str(cache.file("runtime", key.hexdigest()[:32], ".so", _compile)))
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("tapeout_start", None, (word, word)),
        ("tapeout_need_scratchpad", None, (word,)),
        ("tapeout_set_arena", None, (word, word)),
        ("tapeout_kernel", pointer, (word, word, pointer, word, word)),
        ("tapeout_free_kernel", None, (pointer,)),
        ("tapeout_launch", word, (pointer, ctypes.c_char_p)),
        ("tapeout_failure", None, (pointer,)),
        ("tapeout_counters", None, (pointer,)),
        ("tapeout_reset_counters", None, ()),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.tapeout_start(thread_count(), 0)
    os.register_at_fork(after_in_child=lambda: loaded.tapeout_start(thread_count(), 0))
    return loaded
