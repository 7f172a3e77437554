"""C++ of Tapeout's own, built with g++ at first use for this host, and kept in the cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.host import file_cache
from tapeout.host.features import host_features, host_fingerprint

FLAGS = (
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-pthread",
)


def host_library(name: str, sources: Sequence[Path], header: str, included: Sequence[Path] = ()) -> ctypes.CDLL:
    """The shared library of C++ files, which include `header` as "abi.h" and maybe files beside them. `name` is its
    folder in the cache."""

    flags = (*FLAGS, *host_features().compiler_flags)

    def compile_to(target: Path) -> None:
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise TapeoutError(
                f"Tapeout needs a C++ compiler once, to build its {name}; none was found. "
                "Install g++ (Debian, Ubuntu: apt install g++) or set CXX"
            )
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "abi.h").write_text(header)
            command = [compiler, *flags, f"-I{folder}", *map(str, sources), "-o", str(target)]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise TapeoutError(f"building Tapeout's {name} failed: {' '.join(command)}\n{done.stderr.strip()}")

    key = hashlib.sha256()
    texts = [path.read_bytes() for path in (*sources, *included)]
    for part in (*texts, header.encode(), repr(flags).encode(), host_fingerprint().encode()):
        key.update(hashlib.sha256(part).digest())
    return ctypes.CDLL(str(file_cache.file(name, key.hexdigest()[:32], ".so", compile_to)))
